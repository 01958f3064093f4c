"""A test set in, the organizers' file out: from crops, from videos, and from an annotation."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from aupipe import facs
from aupipe.affwild2 import job as jobs
from aupipe.affwild2 import pack_videos, submission
from aupipe.annotation import ledger_entries
from aupipe.annotation.inputs import Inputs
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.schema import EVENTS, frames_schema
from aupipe.annotation.summary import write_videos
from aupipe.annotation.video_record import VideoRecord
from aupipe.commands.submit import main
from aupipe.data import splits
from aupipe.evaluation.settings import SubmitConfig
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.faces.detect import NO_FACES, Detections
from aupipe.faces.search import SearchConfig
from aupipe.facestore.read import ALL, FaceStore
from aupipe.models import checkpoint
from aupipe.models.build import build
from aupipe.models.configs import ExpressionTransferConfig
from aupipe.models.inputs import InputSpec
from aupipe.pipelines import submit
from aupipe.storage import Storage

abaw6 = pytest.mark.parametrize("tree", ["abaw6"], indirect=True)


def pack(tree, out: Path, source: str = "crops") -> FaceStore:
    config = jobs.PreprocessConfig(search=SearchConfig(every=1))  # a detector of whole frames is enough
    made = jobs.prepare(str(tree.root), str(out), source, config)
    for task in made.files():
        Storage(out).write(task.name, task.make())
    made.complete()
    return FaceStore.open(str(out))


def sample(path: Path, lengths: dict[str, int]) -> list[tuple[str, int]]:
    """Write a sample file of tracks in this order, and return its lines."""
    order = [(track, frame) for track, count in lengths.items() for frame in range(1, count + 1)]
    path.write_text("image_location\n" + "".join(f"{track}/{frame:05d}.jpg\n" for track, frame in order))
    return order


def probabilities(path: Path, track: str) -> dict[int, np.ndarray]:
    """Return frame → probabilities (12,) of a track."""
    rows = pd.read_parquet(path / "predictions.parquet")
    rows = rows[(rows.video_id + rows.person.map(lambda person: f"_{person}" if person else "")) == track]
    return dict(zip(rows.frame, rows[[f"{au}_prob" for au in facs.AUS]].to_numpy(), strict=True))


@abaw6
@pytest.mark.unit
def test_test_crops_are_packed_apart_from_the_labeled_splits(tree, tmp_path):
    tree.crop("t_left", [1, 2, 5])
    tree.crop("t_right", [2, 3])
    tree.crop("unlisted", [1])
    listed = tree.root / "test_set_AU_Challenge.txt"
    listed.write_bytes(b"\xef\xbb\xbftest-video\r\nt_left.mp4,\r\nt_right\r\nnowhere\r\n\r\n")
    index = pack(tree, tmp_path / "store")
    rows = index.labels("test").to_pylist()
    assert [(row["video_id"], row["person"], row["frame"]) for row in rows] == [
        ("t", "left", 1), ("t", "left", 2), ("t", "left", 5), ("t", "right", 2), ("t", "right", 3),
        ("test-video", "", 1), ("test-video", "", 2),
    ]  # fmt: skip
    assert all(set(row["au"]) == {-1} and row["expression"] == -1 for row in rows)
    assert index.card.annotations["test.rows"] == 5 + 3 + 2
    assert index.card.mismatches["nowhere"] == {"test.no_crops": 1}
    assert "t" not in index.labels(ALL)["video_id"].to_pylist()
    assert index.rows(ALL) == index.rows("train") + index.rows("validation")
    assert "t" not in {v for k in range(4) for v in splits.eval_part(index, f"fold:{k}").videos}
    listed.unlink()
    assert "unlisted" in pack(tree, tmp_path / "without-list").labels("test")["video_id"].to_pylist()


@abaw6
@pytest.mark.ray
def test_crops_become_the_sample_files_lines(tree, tmp_path, make_checkpoint, ray_session, capsys):
    random = np.random.default_rng(0)
    lengths = {"t_right": 9, "test-video": 2, "t_left": 6, "faceless": 3}  # the sample file is not sorted
    for name, frames in (("t_left", [1, 2, 5]), ("t_right", [2, 3, 4])):
        tree.crop(name, frames)
        for frame in frames:
            image = random.integers(0, 255, (112, 112, 3), np.uint8)
            cv2.imwrite(str(tree.root / f"cropped_aligned/{name}/{frame:05d}.jpg"), image)
    tree.crop("faceless", [])
    (tree.root / "cropped_aligned/faceless/00003.jpg").write_bytes(b"no picture")
    (tree.root / "test_set_AU_Challenge.txt").write_text("\n".join(lengths))
    store = pack(tree, tmp_path / "store").storage.root
    order = sample(tmp_path / "sample.txt", lengths)
    command = ["--checkpoint", make_checkpoint(size_px=32, threshold=0.48), "--data", store]
    out = tmp_path / "out"
    assert main([*command, "--sample", str(tmp_path / "sample.txt"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "4 tracks, 20 frames, of which 12 were filled; without any face, so 0 everywhere: faceless" in printed
    text = (out / "submission.txt").read_text()
    assert submission.check_single(text, order) == []
    decided = submission.read_single(text, order)
    left, right = probabilities(out, "t_left"), probabilities(out, "t_right")
    expected = [left[1], left[2], left[2] * 2 / 3 + left[5] / 3, left[2] / 3 + left[5] * 2 / 3, left[5], left[5]]
    assert decided["t_left"].tolist() == (np.array(expected) >= 0.48).tolist()
    assert decided["t_right"].tolist() == [(right[min(max(frame, 2), 4)] >= 0.48).tolist() for frame in range(1, 10)]
    assert not decided["faceless"].any()
    assert decided["t_left"].any()

    # Without a sample file (ABAW3) there is a file per track, as long as its crops.
    plan = submit.check(submit.SubmitJob((command[1],), store, None, None, str(out), SubmitConfig()))
    assert plan.counts == {"faceless": 3, "t_left": 5, "t_right": 4, "test-video": 2}

    sample(tmp_path / "more.txt", lengths | {"absent": 2})
    assert main([*command, "--sample", str(tmp_path / "more.txt"), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "1 of the 5 tracks" in error
    assert "absent" in error


class Blobs:
    """A detector of bright squares as faces."""

    def __init__(self, config):
        self.config = config

    def detect(self, image):
        _, _, stats, _ = cv2.connectedComponentsWithStats((image.max(axis=2) > 150).astype(np.uint8))
        boxes = stats[1:, :4].astype(np.float32)
        if not len(boxes):
            return NO_FACES
        points = ARCFACE_TEMPLATE[None] / 112 * boxes[:, None, 2:] + boxes[:, None, :2]
        return Detections(boxes, points.astype(np.float32), np.ones(len(boxes), np.float32))


def two_faces(path: Path, frames: int) -> None:
    """Write a video of a red face on the left, missing in frame 3, and a blue one on the right."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 320, 160
        for frame in range(1, frames + 1):
            picture = np.zeros((160, 320, 3), np.uint8)
            if frame != 3:
                picture[40:100, 40:100] = 255, 0, 0
            picture[40:100, 200:260] = 0, 0, 255
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode())


@abaw6
@pytest.mark.ray
@pytest.mark.slow  # the crops above are its short case
def test_videos_become_the_sample_files_lines(tree, tmp_path, make_checkpoint, ray_session, monkeypatch):
    monkeypatch.setattr(pack_videos, "Detector", Blobs)
    for name in ("10-30-1280x720.mp4", "v2.mp4", "t.mp4", "alone.mp4"):
        two_faces(tree.root / "batch1" / name, 6)
    (tree.root / "test_set_AU_Challenge.txt").write_text("t_left\nt_right\nalone\n")
    index = pack(tree, tmp_path / "store", "videos")
    rows = index.labels("test").to_pylist()
    assert [(row["video_id"], row["person"], row["frame"]) for row in rows] == [
        *(("alone", "", frame) for frame in range(1, 7)),
        *(("t", "left", frame) for frame in (1, 2, 4, 5, 6)),
        *(("t", "right", frame) for frame in range(1, 7)),
    ]
    order = sample(tmp_path / "sample.txt", {"t_left": 6, "alone": 6, "t_right": 8})
    arguments = ["--checkpoint", make_checkpoint(size_px=32), "--data", index.storage.root]
    assert main([*arguments, "--sample", str(tmp_path / "sample.txt"), "--out", str(tmp_path / "out")]) == 0
    decided = submission.read_single((tmp_path / "out/submission.txt").read_text(), order)
    for track, lines in decided.items():
        found = probabilities(tmp_path / "out", track)
        assert (lines[0] == (found[1] >= 0.5)).all()
        assert (lines[5] == (found[6] >= 0.5)).all()


@abaw6
@pytest.mark.unit
def test_each_person_of_a_long_video_is_one_track(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_videos, "Detector", Blobs)
    for name in ("10-30-1280x720.mp4", "v2.mp4", "t.mp4"):
        two_faces(tree.root / "batch1" / name, 6)
    (tree.root / "test_set_AU_Challenge.txt").write_text("t_left\nt_right\n")
    whole = pack(tree, tmp_path / "whole", "videos")
    monkeypatch.setattr("aupipe.affwild2.plan.FILE_ROWS", 8)
    store = pack(tree, tmp_path / "store", "videos")
    spans = [(span.person, span.rows) for shard in store.card.shards if shard.split == "test" for span in shard.spans]
    assert spans == [("left", 5), ("right", 6)]
    assert store.card.annotations == whole.card.annotations
    for split in ("train", "test"):
        found, expected = (
            [row for group in index.row_groups(split) for row in index.read(group).to_pylist()]
            for index in (store, whole)
        )
        assert found == expected


@abaw6
@pytest.mark.unit
def test_people_of_a_video_in_several_splits_have_their_own_faces(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_videos, "Detector", Blobs)
    for name in ("10-30-1280x720.mp4", "v2.mp4", "p.mp4", "q.mp4"):
        two_faces(tree.root / "batch1" / name, 6)
    line = ",".join(["1"] * len(facs.AUS))
    tree.annotate("au", "train", "p", [line] * 6)
    tree.annotate("au", "validation", "p_right", [line] * 6)
    tree.annotate("au", "train", "q", [line] * 6)
    (tree.root / "test_set_AU_Challenge.txt").write_text("q_right\n")
    store = pack(tree, tmp_path / "store", "videos")
    reds = {}
    for split in ("train", "validation", "test"):
        for row in (row for group in store.row_groups(split) for row in store.read(group).to_pylist()):
            red = cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR_RGB)[56, 56, 0] > 128
            reds.setdefault((row["video_id"], row["person"]), {})[row["frame"]] = bool(red)
    for video in ("p", "q"):
        assert reds[video, ""] == dict.fromkeys((1, 2, 4, 5, 6), True)
        assert reds[video, "right"] == dict.fromkeys(range(1, 7), False)


def annotated(folder: Path, videos: dict[str, list[dict]], **fields: str) -> str:
    """Commit rows of the frames table, by video_id, as an annotation."""
    rows = [
        {"video_id": video_id, "time_s": row["frame"] / 25, "status": "ok", "frame_width": 320} | row
        for video_id, own in videos.items() for row in own
    ]  # fmt: skip
    records = [
        VideoRecord(
            uri=name, video_id=name, status="ok", frames_expected=1 + max(row["frame"] for row in own), **fields
        )
        for name, own in videos.items()
    ]
    table = pa.Table.from_pylist(rows, schema=frames_schema())
    ledger_entries.commit(Storage(folder), table, EVENTS.empty_table(), records, 1, 1000)
    return str(folder)


def face(frame: int, face_id: int, x: float, size: float, *on: str) -> dict:
    box = {"box_x": x, "box_y": 10.0, "box_w": size, "box_h": size}
    return {"frame": frame, "face_id": face_id} | box | {au: au in on for au in facs.AUS}


@pytest.mark.unit
def test_an_annotation_becomes_the_sample_files_lines(tmp_path, capsys):
    pair = [face(0, 0, 200, 50, "AU12"), face(0, 1, 20, 40, "AU04"), face(0, 2, 100, 9)]  # face 2 is too small
    pair += [face(1, 5, 210, 50, "AU25"), {"frame": 2, "status": "no_face"}, face(3, 1, 30, 40, "AU01")]
    alone = [face(0, 0, 0, 20, "AU06"), face(0, 1, 90, 60, "AU07"), {"frame": 1, "status": "no_face"}]
    videos = {"batch/t.mp4": pair, "alone.mp4": alone, "none.mp4": [{"frame": 0, "status": "no_face"}]}
    folder = annotated(tmp_path / "annotation", videos)
    order = sample(tmp_path / "sample.txt", {"t_right": 4, "alone": 3, "none": 1, "t_left": 4})
    command = ["--annotation", folder, "--sample", str(tmp_path / "sample.txt"), "--out", str(tmp_path / "out")]
    assert main([*command, "--dry-run"]) == 0
    assert "12 lines of 4 tracks" in capsys.readouterr().out
    assert main(command) == 0
    assert "12 frames, of which 7 were filled; without any face, so 0 everywhere: none" in capsys.readouterr().out
    decided = submission.read_single((tmp_path / "out/submission.txt").read_text(), order)
    on = {track: [[facs.AUS[i] for i in np.flatnonzero(row)] for row in rows] for track, rows in decided.items()}
    # The left person has a face in frames 1 and 4; the two frames between take the nearer decision.
    assert on == {
        "t_right": [["AU12"], ["AU25"], ["AU25"], ["AU25"]],
        "t_left": [["AU04"], ["AU04"], ["AU01"], ["AU01"]],
        "alone": [["AU07"]] * 3,
        "none": [[]],
    }
    assert main(["--annotation", folder, "--out", str(tmp_path / "none"), "--set", "ensemble=vote"]) == 2
    assert "--set ensemble has no effect on --annotation" in capsys.readouterr().err
    assert main(["--annotation", folder, "--out", str(tmp_path / "tracks")]) == 0
    assert submission.read_track((tmp_path / "tracks/alone.txt").read_text(), 2)[:, 4].all()
    assert len(submission.read_track((tmp_path / "tracks/t.txt").read_text(), 4)) == 4


@pytest.mark.unit
def test_the_track_of_a_duplicate_has_the_rows_of_its_twin(tmp_path):
    videos = {"x/a.mp4": [face(0, 0, 20, 50, "AU12"), face(0, 1, 200, 40, "AU04")]}
    folder = annotated(tmp_path / "annotation", videos, fingerprint="ab", source_hash="ab")
    twin = {"status": "duplicate", "duplicate_of": "x/a.mp4", "fingerprint": "ab"}
    twins = {name: VideoRecord(name, name, **twin) for name in ("x/b.mp4", "y/a.mp4")}  # the second has its own name
    twins["x/c.mp4"] = VideoRecord("x/c.mp4", "x/c.mp4", **twin | {"fingerprint": "ef"})  # x/a.mp4 has other bytes now
    write_videos(Storage(folder), Ledger.read(Storage(folder)), twins, Inputs.of([]))
    order = sample(tmp_path / "sample.txt", {"b": 1, "a": 1, "b_right": 1})
    command = ["--annotation", folder, "--sample", str(tmp_path / "sample.txt"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    decided = submission.read_single((tmp_path / "out/submission.txt").read_text(), order)
    assert [[facs.AUS[i] for i in np.flatnonzero(decided[track])] for track in ("a", "b", "b_right")] == [
        ["AU12"], ["AU12"], ["AU04"]
    ]  # fmt: skip
    assert main(["--annotation", folder, "--out", str(tmp_path / "tracks")]) == 0
    assert sorted(path.name for path in (tmp_path / "tracks").glob("*.txt")) == ["a.txt", "b.txt"]


@pytest.mark.unit
def test_a_video_whose_rows_were_withdrawn_is_not_annotated(tmp_path, capsys):
    folder = annotated(
        tmp_path / "annotation", {"a.mp4": [face(0, 0, 200, 50, "AU12")], "b.mp4": [face(0, 0, 200, 50)]}
    )
    withdrawn = VideoRecord(uri="b.mp4", video_id="b.mp4", status="quarantined", reason="decoder_failed")
    none = frames_schema().empty_table()
    ledger_entries.commit(Storage(folder), none, EVENTS.empty_table(), [withdrawn], 2, 1000)
    sample(tmp_path / "sample.txt", {"a": 1, "b": 1})
    command = ["--annotation", folder, "--sample", str(tmp_path / "sample.txt"), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "1 of the 2 tracks" in capsys.readouterr().err
    sample(tmp_path / "sample.txt", {"a": 1})
    assert main(command) == 0


@pytest.mark.unit
def test_tracks_of_a_part_of_the_frames_need_the_sample_file(tmp_path, capsys):
    videos = {"a.mp4": [face(0, 0, 200, 50, "AU12"), face(5, 0, 200, 50)]}
    folder = annotated(tmp_path / "annotation", videos, fingerprint="ab", source_hash="ab at 5/s")
    command = ["--annotation", folder, "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "only a part of the frames of a.mp4 is annotated" in capsys.readouterr().err
    sample(tmp_path / "sample.txt", {"a": 8})
    assert main([*command, "--sample", str(tmp_path / "sample.txt")]) == 0


@pytest.mark.unit
def test_wrong_inputs_exit_2(tmp_path, make_store, make_checkpoint, capsys):
    sample(tmp_path / "sample.txt", {"a": 2})
    folder = annotated(tmp_path / "twice", {"x/a.mp4": [{"frame": 0}], "y/a.avi": [{"frame": 0}]})
    out, store, model = ["--out", str(tmp_path / "out")], make_store(train=1, validation=1, frames=8), make_checkpoint()
    damaged = str(shutil.copytree(model, tmp_path / "damaged"))
    (tmp_path / "damaged/model.safetensors").write_bytes(b"")
    for arguments, message in (
        (["--checkpoint", model, "--data", store, "--dry-run"], "has no test split"),
        (["--checkpoint", model], "--data"),
        (["--annotation", folder, "--data", store], "--annotation alone"),
        (["--annotation", str(tmp_path / "none")], "contains no annotation"),
        (["--annotation", folder], "have the same name"),
        (["--checkpoint", model, model, "--data", store, "--set", "ensemble=vote", "--dry-run"], "odd"),
        (["--checkpoint", damaged, "--data", store, "--dry-run"], "copy the checkpoint again"),
    ):
        assert main([*arguments, *out]) == 2, arguments
        assert message in capsys.readouterr().err


@abaw6
@pytest.mark.unit
def test_crops_of_another_template_are_not_predicted(tree, tmp_path, make_checkpoint, capsys):
    store = pack(tree, tmp_path / "store").storage.root
    model = make_checkpoint(size_px=32, template=tuple((x + 2.5, y) for x, y in ARCFACE_TEMPLATE.tolist()))
    assert main(["--checkpoint", model, "--data", store, "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    assert "aligned to another template than those that" in capsys.readouterr().err


@abaw6
@pytest.mark.unit
def test_a_model_that_predicts_no_aus_is_refused(tree, tmp_path, capsys):
    store = pack(tree, tmp_path / "store").storage.root
    config = ExpressionTransferConfig(backbone="test_resnet", outputs=("expr",))
    card = checkpoint.Card(model=config, input=InputSpec(size_px=32), template=ARCFACE_TEMPLATE.tolist())
    checkpoint.save(Storage(tmp_path / "expressions"), build(card.model, card.input), card)
    model = str(tmp_path / "expressions")
    assert main(["--checkpoint", model, "--data", store, "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    assert f"{model} predicts expr, no AUs" in capsys.readouterr().err
