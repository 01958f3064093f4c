"""The annotation job with rendered clips: no row is lost or duplicated, and bad inputs are reported.

Jobs run in this process; one test compares the tables that Ray writes with theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from aupipe import facs
from aupipe.annotation import model_set
from aupipe.annotation.schema import EVENTS, FRAMES, VIDEOS, frames_schema
from aupipe.commands import annotate
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.models import default_models
from harness.clips import damage, decoded_times, scene, write_clip

MakeCheckpoint = Callable[..., str]
ARCFACE = tuple(map(tuple, ARCFACE_TEMPLATE.tolist()))


def main(command: list[str], engine: str = "local") -> int:
    """Run the command with this engine."""
    return annotate.main([*command, "--set", f"engine={engine}"])


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write four intact clips, a damaged one, a file that is no video, and files that are skipped."""
    folder = tmp_path_factory.mktemp("archive")
    short = {"g": "10", "bf": "2"}
    write_clip(folder / "one.mp4", scene(50), options=short)
    times = [int(1000 * t) for t in np.cumsum(np.random.default_rng(0).uniform(0.02, 0.12, 40))]
    write_clip(folder / "variable.mkv", scene(40), times=times, options=short)
    write_clip(folder / "two people.mp4", scene(30, size=(480, 240), people=(0.25, 0.75)), options=short)
    write_clip(folder / "nobody.webm", scene(12, people=()), codec="libvpx-vp9", options={"deadline": "realtime"})
    damage(write_clip(folder / "deep" / "damaged.mp4", scene(60), options={"g": "12", "bf": "2", "crf": "18"}))
    (folder / "text.mp4").write_text("I am no video")
    (folder / "copy of one.mp4").write_bytes((folder / "one.mp4").read_bytes())
    (folder / "deep" / "damaged.srt").touch()
    (folder / ".Trash-1000").mkdir()
    (folder / ".Trash-1000" / "one.mp4").write_bytes((folder / "one.mp4").read_bytes())
    return folder


def tables(out: Path) -> tuple[pa.Table, pa.Table]:
    """Return the frames and events, sorted."""
    frames = (
        pads.dataset(out / "frames").to_table().sort_by([(n, "ascending") for n in ("video_id", "frame", "face_id")])
    )
    order = [(name, "ascending") for name in ("video_id", "face_id", "au", "onset_s")]
    return frames, pads.dataset(out / "events").to_table().sort_by(order)


@pytest.fixture(scope="module")
def annotated(archive: Path, checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("annotation")
    assert main(["--input", str(archive), "--checkpoint", checkpoint, "--out", str(out)]) == 3
    return out


@pytest.mark.unit
def test_every_frame_is_there_once_in_media_time(annotated: Path, archive: Path) -> None:
    frames, events = tables(annotated)
    assert frames.schema.equals(FRAMES)
    assert events.schema.equals(EVENTS)
    table = frames.to_pandas()
    for name in ("copy of one.mp4", "variable.mkv", "two people.mp4", "nobody.webm"):
        mine = table[table.video_id == name].drop_duplicates("frame")
        assert mine.time_s.tolist() == decoded_times(archive / name)
        assert mine.frame.tolist() == list(range(len(mine)))
    assert set(table[table.video_id == "nobody.webm"].status) == {"no_face"}
    two = table[table.video_id == "two people.mp4"]
    assert two.face_id.value_counts().to_dict() == {0: 30, 1: 30}
    ok = table[table.status == "ok"]
    assert ok[[f"{au}_raw" for au in facs.AUS]].notna().all(axis=None)
    assert not table.duplicated(["video_id", "frame", "face_id"]).any()


@pytest.mark.unit
def test_one_record_a_video_says_how_it_went(annotated: Path, archive: Path) -> None:
    table = pq.read_table(annotated / "videos.parquet")
    assert table.schema.equals(VIDEOS)
    records = {row["video_id"]: row for row in table.to_pylist()}
    assert {key: row["status"] for key, row in records.items()} == {
        "copy of one.mp4": "ok", "one.mp4": "duplicate", "variable.mkv": "ok", "two people.mp4": "ok",
        "nobody.webm": "ok", "deep/damaged.mp4": "partial", "text.mp4": "quarantined",
    }  # fmt: skip
    assert records["one.mp4"]["duplicate_of"] == "copy of one.mp4"
    assert records["text.mp4"]["reason"].startswith("not_a_video:")
    assert records["variable.mkv"]["variable_frame_rate"]
    damaged = records["deep/damaged.mp4"]
    assert damaged["frames_decoded"] + damaged["frames_lost"] == damaged["frames_expected"] == 60
    assert 0 < damaged["frames_lost"] <= 14
    assert damaged["reason"].startswith(f"frames_lost: {damaged['frames_lost']} of 60 (")
    run = json.loads((annotated / "run.json").read_text())
    assert run["thresholds"] == dict.fromkeys(facs.AUS, 0.5)
    assert run["skipped"] == {
        "files": 1, "suffixes": {".srt": 1}, "first": [str(archive / "deep/damaged.srt")],
        "images": 0, "hidden": 1, "hidden_first": [str(archive / ".Trash-1000")],
    }  # fmt: skip
    assert not (annotated / "_work" / "observed").exists() or not list((annotated / "_work" / "observed").iterdir())


@pytest.mark.ray
@pytest.mark.slow  # the same bytes from both runners (tests/annotation/test_annotator.py) are its short case
def test_workers_phases_and_segments_do_not_change_a_row(
    ray_session: None, annotated: Path, archive: Path, checkpoint: str, tmp_path: Path
) -> None:
    cut = ["--input", str(archive), "--checkpoint", checkpoint, "--out", str(tmp_path), "--set", "segment_s=0.6"]
    for phase in ("observe", "finalize"):
        assert main([*cut, "--workers", "2", "--phase", phase], engine="ray") == 3
    for found, expected in zip(tables(tmp_path), tables(annotated), strict=True):
        different = [name for name in expected.column_names if not found[name].equals(expected[name])]
        assert different == []


@pytest.mark.unit
def test_again_decodes_nothing_and_other_thresholds_only_decide(
    annotated: Path, archive: Path, checkpoint: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    inputs = [str(archive / name) for name in ("variable.mkv", "two people.mp4")]
    command = ["--checkpoint", checkpoint, "--out", str(tmp_path), "--input", *inputs]
    assert main(command) == 0
    before = tables(tmp_path)[0]
    capsys.readouterr()
    assert main(command) == 0
    assert " 0 frames decoded" in capsys.readouterr().out
    assert tables(tmp_path)[0].equals(before)
    assert main([*command, "--set", "thresholds.AU12=0.0"]) == 0
    assert " 0 frames decoded" in capsys.readouterr().out
    after = tables(tmp_path)[0]
    assert after.drop_columns(["AU12"]).equals(before.drop_columns(["AU12"]))
    assert set(after["AU12"].to_pylist()) == {True}
    assert main([*command, "--dry-run"]) == 0
    assert "2 to apply a new decision to" in capsys.readouterr().out


@pytest.mark.unit
def test_another_file_does_not_keep_old_rows_and_a_file_that_is_gone_does(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, out = tmp_path / "in" / "a.mp4", tmp_path / "out"
    command = ["--checkpoint", checkpoint, "--out", str(out), "--input"]
    write_clip(clip, scene(6))
    assert main([*command, str(clip)]) == 0
    clip.touch()
    assert main([*command, str(clip)]) == 0
    assert " 0 frames decoded" in capsys.readouterr().out.splitlines()[-1]
    write_clip(tmp_path / "other" / "a.mp4", scene(5))
    assert main([*command, str(tmp_path / "other" / "a.mp4")]) == 2
    assert "which this output has for" in capsys.readouterr().err
    assert tables(out)[0].num_rows == 6
    write_clip(clip, scene(4))
    assert main([*command, str(clip)]) == 0
    assert tables(out)[0].num_rows == 4
    clip.unlink()
    assert main([*command, str(clip)]) == 3
    assert pq.read_table(out / "videos.parquet")["status"].to_pylist() == ["partial"]
    assert tables(out)[0].num_rows == 4
    clip.write_text("I am no video")
    assert main([*command, str(clip)]) == 1
    assert pq.read_table(out / "videos.parquet")["status"].to_pylist() == ["quarantined"]
    assert tables(out)[0].num_rows == 0


@pytest.mark.unit
def test_a_turned_copy_has_the_same_faces_and_the_starter_models_judge_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = scene(8)
    lossless = {"crf": "0", "preset": "ultrafast"}
    write_clip(tmp_path / "in" / "upright.mp4", images, options=lossless)
    turned = [np.ascontiguousarray(np.rot90(image, -1)) for image in images]
    write_clip(tmp_path / "in" / "turned.mp4", turned, rotation=90, options=lossless)
    assert main(["--input", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    assert default_models.notice() in capsys.readouterr().out.splitlines()
    models = pq.read_table(tmp_path / "out" / "videos.parquet")["model_sha256"]
    assert set(models.to_pylist()) == {model_set.load(default_models.FOLDERS, "mean").sha256}
    table = tables(tmp_path / "out")[0].to_pandas()
    upright, rotated = (table[table.video_id == name].reset_index() for name in ("upright.mp4", "turned.mp4"))
    np.testing.assert_allclose(upright.box_x, rotated.box_x, atol=1.0)
    np.testing.assert_allclose(upright.AU12_raw, rotated.AU12_raw, atol=0.02)
    records = {
        row["video_id"]: row["rotation"] for row in pq.read_table(tmp_path / "out" / "videos.parquet").to_pylist()
    }
    assert records == {"upright.mp4": 0, "turned.mp4": 90}


@pytest.mark.unit
def test_only_bad_input_fails(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = str(tmp_path / "gone.mp4")
    assert main(["--input", gone, "--checkpoint", checkpoint, "--out", str(tmp_path / "out")]) == 1
    assert f"not_found: {gone}: no such file" in capsys.readouterr().out


@pytest.mark.unit
def test_several_models_decide_together_on_one_decoding(
    annotated: Path, archive: Path, make_checkpoint: MakeCheckpoint, checkpoint: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    small = make_checkpoint(seed=1, size_px=64, threshold=0.4, radius=2)
    moved = make_checkpoint(seed=2, template=tuple((x, y + 5) for x, y in ARCFACE))
    command = ["--input", str(archive / "two people.mp4"), "--out", str(tmp_path / "out"), "--checkpoint"]
    assert main([*command, small, moved, checkpoint]) == 0
    together = tables(tmp_path / "out")[0]
    assert together.schema.equals(frames_schema(models=3))
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["ensemble"] == "mean"
    assert run["thresholds"]["AU12"] == pytest.approx((0.4 + 0.5 + 0.5) / 3)
    votes = np.array(together["votes_raw"].to_pylist(), np.float32).reshape(len(together), 3, 12)
    np.testing.assert_allclose(together["AU12_raw"].to_numpy(), votes[:, :, 6].mean(axis=1), atol=1e-6)
    alone = tables(annotated)[0]
    alone = alone.filter(pa.compute.equal(alone["video_id"], "two people.mp4"))
    (place,) = [n for n, model in enumerate(run["models"]) if model["checkpoint"] == checkpoint]
    np.testing.assert_array_equal(votes[:, place, 6], alone["AU12_raw"].to_numpy())
    capsys.readouterr()
    assert main([*command, checkpoint, small, moved, "--set", "ensemble=vote"]) == 0
    assert " 0 frames decoded" in capsys.readouterr().out
    assert main([*command, checkpoint, small, checkpoint]) == 2
    assert "are the same model" in capsys.readouterr().err


@pytest.mark.unit
def test_parts_phases_rates_and_what_is_left_of_them(
    annotated: Path, archive: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = archive / "copy of one.mp4"
    (tmp_path / "m.csv").write_text(
        f"uri,video_id,start_s,end_s,speaker\n{clip},part,0.4,1.2,anna\n{clip},../../x,,,bert\n"
    )
    out = tmp_path / "out"
    command = ["--checkpoint", checkpoint, "--out", str(out), "--input"]
    assert main([*command, str(tmp_path / "m.csv"), "--phase", "observe"]) == 3
    assert "1 not finalized yet; 20 frames decoded" in capsys.readouterr().out
    assert list((out / "_work" / "observed").iterdir())
    assert main([*command, str(tmp_path / "m.csv"), "--phase", "finalize", "--export", "csv,openface"]) == 3
    assert " 0 frames decoded" in capsys.readouterr().out
    assert not list((out / "_work" / "observed").iterdir())
    part, whole = tables(out)[0], tables(annotated)[0]
    whole = whole.filter(pa.compute.equal(whole["video_id"], clip.name))
    assert part["time_s"].to_pylist() == whole["time_s"].to_pylist()[10:30]
    # Away from its ends, a part equals the same frames of the whole video: its first whole frame is searched 2 frames
    # before the next one of the video's grid, and smoothing reaches 4 frames further.
    assert part["AU12_raw"].to_pylist()[6:-4] == whole["AU12_raw"].to_pylist()[16:26]
    records = {row["video_id"]: row for row in pq.read_table(out / "videos.parquet").to_pylist()}
    assert records["part"]["speaker"] == "anna"
    assert records["../../x"]["reason"].startswith("bad_video_id: ")
    assert len((out / "export" / "openface" / "part.csv").read_text().splitlines()) == 21
    assert main([*command, str(clip), "--sample-fps", "5", "--prune"]) == 0
    table = tables(out)[0]
    assert table["frame"].to_pylist() == list(range(0, 50, 5))
    assert table["face_id"].to_pylist() == [0] * 10
    assert pq.read_table(out / "videos.parquet")["video_id"].to_pylist() == [clip.name]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--input": "{tmp}/empty"}, "no video or image in this folder"),
        ({"--input": ""}, "an empty name"),
        ({"--out": ""}, "an empty name"),
        ({"--out": "{tmp}/file"}, "cannot be reached"),
        ({"--checkpoint": "{tmp}/nothing"}, "is no checkpoint"),
        ({"--set": "detector.min_scroe=0.5"}, "the nearest known one is 'detector.min_score'"),
        ({"--set": "thresholds.AU3=0.5"}, "unknown AU 'AU3'"),
        ({"--set": "detector.weights={tmp}/no.onnx"}, "no such file"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_2(
    change: dict[str, str], message: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    options = {"--input": str(tmp_path / "x.mp4"), "--checkpoint": checkpoint, "--out": str(tmp_path / "out")} | change
    arguments = [part.replace("{tmp}", str(tmp_path)) for pair in options.items() for part in pair]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
