"""All of preprocessing without a cluster: every row of the store against the tree of the data set."""

import os

import av
import cv2
import numpy as np
import pytest

from aupipe import facs
from aupipe.affwild2 import job as jobs
from aupipe.config import load
from aupipe.errors import DatasetError
from aupipe.facestore import jpeg
from aupipe.facestore.job import text, unfinished
from aupipe.facestore.read import FaceStore
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


def make(tree, out, source="crops", overrides=()):
    job = jobs.prepare(str(tree.root), str(out), source, load(jobs.PreprocessConfig, {}, overrides))
    existing = set(Storage(out).names())
    for task in job.files():
        if task.name not in existing:
            Storage(out).write(task.name, task.make())
    card = job.complete()
    return job, card, FaceStore.open(str(out))


def rows_of(index, split):
    return [row for group in index.row_groups(split) for row in index.read(group).to_pylist()]


def positives(row):
    return [facs.AU_NUMBERS[i] for i, label in enumerate(row["au"]) if label == 1]


def test_every_row_equals_its_source(tree, tmp_path):
    _, card, index = make(tree, tmp_path / "store")
    train = rows_of(index, "train")
    seven = tree.edition == "abaw2"
    first = [
        (row["frame"], positives(row) if max(row["au"]) >= 0 else None, row["expression"])
        for row in train
        if row["video_id"] == "10-30-1280x720"
    ]
    # row 4 says nothing, 5 and 12 have no crop, 8 is no JPEG, 9 has the wrong size
    assert first == [
        (1, [1], 0),
        (2, [2, 25], 1),
        (3, None, 2),
        (6, None, 3),
        (7, None, 3),
        (10, [4], 6),
        (11, None, 6),
    ]
    pair = [(row["person"], row["frame"], positives(row), row["expression"]) for row in train if row["person"]]
    assert pair == [(p, f, [au], -1) for p, au in (("left", 6), ("right", 15)) for f in (1, 2, 3)]
    assert [(row["frame"], row["expression"], max(row["au"])) for row in train if row["video_id"] == "video9"] == [
        (frame, 5, -1) for frame in (1, 2, 3, 4)
    ]
    validation = [
        (row["video_id"], row["frame"], positives(row), row["expression"]) for row in rows_of(index, "validation")
    ]
    assert validation == [("v2", 1, [10], 3), ("v2", 2, [10], 3), *(("video9", f, [7], -1) for f in (1, 2, 3, 4))]
    assert {row["video_id"] for row in train} == {"10-30-1280x720", "a_left_b", "video9"}
    for row in train:
        name = row["video_id"] + (f"_{row['person']}" if row["person"] else "")
        files = [
            tree.root / pack / name / f"{row['frame']:05d}.jpg"
            for pack in ("cropped_aligned", "cropped_aligned_new_50_vids")
        ]
        assert row["image"] == next(file for file in files if file.exists()).read_bytes()
    assert (card.edition, card.n_expressions) == (tree.edition, 7 if seven else 8)
    assert card.license == "made by a test"
    assert card.template_source == "assumed"  # there are no faces on gray squares


def test_only_aff_wild2_itself_is_compared_with_published_figures(tree, tmp_path):
    _, card, _ = make(tree, tmp_path / "rendered")
    assert not jobs.is_official(card)  # its dataset.json states another license
    (tree.root / "dataset.json").unlink()
    _, card, _ = make(tree, tmp_path / "store")
    assert jobs.is_official(card)
    assert not jobs.is_official(card.model_copy(update={"source": "images:manifest"}))


def test_counts_add_up_to_the_rows_of_the_annotation_files(tree, tmp_path):
    _, card, _ = make(tree, tmp_path / "store")
    found = card.annotations
    for task, rows in (("au", 10 + 6 + 4 + 2), ("expr", 12 + 4 + 2)):
        assert found[f"{task}.rows"] == rows
        parts = [count for key, count in found.items() if key.startswith(f"{task}.") and key != f"{task}.rows"]
        assert sum(parts) == rows
    assert found["au.kept"] == sum(split.au_rows for split in card.splits.values())
    assert found["expr.kept"] == sum(split.expression_rows for split in card.splits.values())


def test_crops_of_other_videos_are_not_replaced_by_videos_silently(tree, tmp_path):
    for path in tree.root.glob("cropped_aligned*/*"):
        if path.is_dir():
            path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(DatasetError, match=r"crops were found \(in cropped_aligned.*--source videos"):
        make(tree, tmp_path / "store", source=None)


def test_mismatches_are_counted_by_track(tree, tmp_path):
    _, card, _ = make(tree, tmp_path / "store")
    assert card.mismatches["10-30-1280x720"] == {
        "au.bad_line": 2, "au.no_crop": 1, "au.no_jpeg": 1, "au.unknown": 2, "au.wrong_size": 1,
        "expr.bad_line": 1, "expr.no_crop": 1, "expr.no_jpeg": 1, "expr.unknown": 2,
        "images.no_frame_number": 1, "images.stray": 1, "images.without_row": 1, "video.rows_beyond_end": 3,
    }  # fmt: skip
    assert set(card.mismatches["video9"]) == {"images.stray"}  # in train for one task, in validation for the other
    assert card.dropped["au.no_crop"] == 1
    assert [line.split("/")[-1] for line in card.bad_lines] == [
        "10-30-1280x720.txt:7 has 11 values instead of 12",
        "10-30-1280x720.txt:8 has the label '2'; allowed are -1, 0, 1",
        f"10-30-1280x720.txt:10 has the label '99'; allowed are -1, {', '.join(map(str, range(len(tree.classes))))}",
    ]


def test_time_comes_from_the_container_if_there_is_one(tree, tmp_path):
    _, _, index = make(tree, tmp_path / "store")
    times = {(row["video_id"], row["frame"]): row["time_s"] for row in rows_of(index, "train")}
    assert times["10-30-1280x720", 3] == pytest.approx(2 / 25)
    assert times["10-30-1280x720", 11] == pytest.approx(10 / 25)  # beyond the container's 9 frames, at its rate
    assert all(row["time_s"] is None for row in rows_of(index, "validation"))


def test_audio_is_stored_by_base_video(tree, tmp_path):
    _, _, index = make(tree, tmp_path / "store")
    sound = index.audio("10-30-1280x720")
    assert sound.rate_hz == 16000
    assert sound.waveform.shape[0] == 1
    assert sound.waveform.shape[1] / sound.rate_hz == pytest.approx(9 / 25, abs=0.1)
    assert 0.1 < abs(sound.waveform).max() < 0.5
    assert index.audio("a_left_b") is None


def test_audio_before_a_restart_of_its_clock_is_stored(tree, tmp_path):
    """Annotation keeps it too, so that a model hears the same sound in training and in use."""
    path = tree.root / "batch1/10-30-1280x720.mp4"
    tree.video(tmp_path / "two seconds.ts", 50, sound=True)
    path.write_bytes(2 * (tmp_path / "two seconds.ts").read_bytes())
    _, _, index = make(tree, tmp_path / "store")
    sound = index.audio("10-30-1280x720")
    assert sound.waveform.shape[1] / sound.rate_hz == pytest.approx(2, abs=0.2)


def test_the_same_folder_gives_the_same_bytes_and_another_one_other_names(tree, tmp_path):
    _, one, _ = make(tree, tmp_path / "one")
    _, two, _ = make(tree, tmp_path / "two")
    assert one == two
    for part in one.shards:
        assert (tmp_path / "one" / part.name).read_bytes() == (tmp_path / "two" / part.name).read_bytes()
    tree.crop("v2", [3])
    _, three, _ = make(tree, tmp_path / "one")
    before, after = ([part.name for part in card.shards] for card in (one, three))
    assert [name.partition("/")[0] for name in after if name in before] == ["split=test", "split=train"]
    sound = {"audio/10-30-1280x720.parquet", "audio/a_left_b.parquet"}
    assert set(Storage(tmp_path / "one").names("", ".parquet")) == set(after) | sound


def test_crops_that_were_replaced_are_packed_again_and_no_others(tree, tmp_path):
    _, before, _ = make(tree, tmp_path / "store")
    other = jpeg.encode(np.full((112, 112, 3), 200, np.uint8))
    (tree.root / "cropped_aligned/v2/00001.jpg").write_bytes(other)
    (tree.root / "cropped_aligned/a_left_b_left/.DS_Store").write_bytes(b"of the Finder")
    _, after, index = make(tree, tmp_path / "store")
    assert next(row["image"] for row in rows_of(index, "validation") if row["video_id"] == "v2") == other
    kept = {part.name for part in before.shards} & {part.name for part in after.shards}
    assert sorted(name.partition("/")[0] for name in kept) == ["split=test", "split=train"]


@pytest.mark.parametrize("length", ["other", "same"])
def test_a_video_that_was_repaired_gives_its_times(tree, tmp_path, length):
    path = tree.root / "batch1/10-30-1280x720.mp4"
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)) if length == "same" else whole[:100])
    _, before, index = make(tree, tmp_path / "store")
    assert {row["time_s"] for row in rows_of(index, "train") if row["video_id"] == "10-30-1280x720"} == {None}
    path.write_bytes(whole)
    _, after, index = make(tree, tmp_path / "store")
    assert None not in {row["time_s"] for row in rows_of(index, "train") if row["video_id"] == "10-30-1280x720"}
    kept = {part.name for part in before.shards} & {part.name for part in after.shards}
    assert sorted(name.partition("/")[0] for name in kept) == ["split=test", "split=validation"]


def test_audio_of_a_video_that_was_repaired_or_replaced_is_made_again(tree, tmp_path):
    path, storage = tree.root / "batch1/10-30-1280x720.mp4", Storage(tmp_path / "store")
    whole = path.read_bytes()

    def resume(count=None):
        """Run until the end, or until `count` files of audio are written. Return the audio that was made."""
        job = jobs.prepare(str(tree.root), storage.root, "crops", load(jobs.PreprocessConfig, {}, []))
        todo = unfinished(storage, job.files())
        audio = [task for task in todo if task.name.startswith("audio/")][:count]
        for task in (*(task for task in todo if task.name.startswith("split=")), *audio):
            task.write(storage)
        if count is None:
            assert f"{len(job.files())} files, {len(job.files())} of them done" in text(job)
            job.complete()
        return [task.name for task in audio]

    path.write_bytes(bytes(len(whole)))
    assert resume() == ["audio/10-30-1280x720.parquet", "audio/a_left_b.parquet"]
    assert FaceStore.open(storage.root).audio("10-30-1280x720") is None
    path.write_bytes(whole)
    os.utime(path, (1, 1))
    assert resume(0) == []  # killed before the audio
    assert resume() == ["audio/10-30-1280x720.parquet"]
    assert abs(FaceStore.open(storage.root).audio("10-30-1280x720").waveform).max() > 0.1
    assert resume() == []
    path.write_bytes(whole[:100])
    assert resume(1) == ["audio/10-30-1280x720.parquet"]
    path.write_bytes(whole)
    os.utime(path, (1, 1))
    assert resume() == ["audio/10-30-1280x720.parquet"]  # its signature is that of an earlier run
    assert FaceStore.open(storage.root).audio("10-30-1280x720") is not None


@pytest.mark.parametrize(
    ("source", "place", "renewed"),
    [
        ("videos", "pack_videos.METHOD", {"split"}), ("videos", "align.METHOD", {"split"}),
        ("videos", "detect.METHOD", {"split"}), ("crops", "align.METHOD", set()), ("crops", "AUDIO_METHOD", {"audio"}),
    ],
)  # fmt: skip
def test_parts_that_an_earlier_version_made_in_another_way_are_made_again(
    tree, tmp_path, monkeypatch, source, place, renewed
):
    """Otherwise a run that is resumed after an upgrade would mix both."""

    def files():
        job = jobs.prepare(str(tree.root), str(tmp_path), source, load(jobs.PreprocessConfig, {}, []))
        return {(file.name.partition("=")[0].partition("/")[0], file.name, file.mark) for file in job.files()}

    before = files()
    monkeypatch.setattr(f"aupipe.affwild2.job.{place}", "another")
    assert {kind for kind, *_ in files() - before} == renewed


def test_an_empty_split_of_videos_without_faces_is_reported(tree, tmp_path):
    with pytest.raises(DatasetError, match=r"the train split is empty.*au\.no_face"):
        make(tree, tmp_path / "store", source="videos")


def test_a_long_video_is_cut_into_files_of_bounded_size(tree, tmp_path, monkeypatch):
    monkeypatch.setattr("aupipe.affwild2.plan.FILE_ROWS", 5)
    _, card, index = make(tree, tmp_path / "small")
    monkeypatch.undo()
    _, whole, big = make(tree, tmp_path / "whole")
    assert len(card.shards) > len(whole.shards)
    assert all(part.rows <= 5 for part in card.shards)
    assert card.annotations == whole.annotations
    for split in ("train", "validation"):
        assert rows_of(index, split) == rows_of(big, split)


def test_crops_may_be_png_and_names_in_any_case(tree, tmp_path):
    _, _, before = make(tree, tmp_path / "before")
    for number, path in enumerate(sorted(tree.root.glob("cropped_aligned*/*/0*.jpg"))):
        if number % 2:
            path.rename(path.with_suffix(".JPG"))
            cv2.imwrite(str(path.with_suffix(".png")), np.zeros((112, 112, 3), np.uint8))  # the JPEG wins
        elif (image := cv2.imread(str(path))) is not None and image.shape == (112, 112, 3):
            cv2.imwrite(str(path.with_suffix(".PNG")), image)
            path.unlink()
        (path.parent / f"._{path.name}").touch()
    _, card, after = make(tree, tmp_path / "after")
    for split in ("train", "validation"):
        one, two = rows_of(before, split), rows_of(after, split)
        assert [{**row, "image": 0} for row in one] == [{**row, "image": 0} for row in two]
        for left, right in zip(one, two, strict=True):
            assert jpeg.size(right["image"]) == (112, 112)
            pictures = [cv2.imdecode(np.frombuffer(row["image"], np.uint8), 1).astype(int) for row in (left, right)]
            assert abs(pictures[0] - pictures[1]).max() <= 2
    assert "images.no_frame_number" in card.annotations  # thumb.jpg
    assert card.annotations["images.no_frame_number"] == 1


def test_a_split_of_invalid_lines_is_reported_first(tree, tmp_path):
    for name in ("video9", "v2"):
        tree.annotate("au", "validation", name, ["yes," * 11 + "no"] * 3)
    with pytest.raises(
        DatasetError,
        match=r"^the validation split of au is empty, because each of its 6 annotation lines was refused; "
        r"the first: .*Validation_Set/v2\.txt:2 has the label 'yes'; allowed are -1, 0, 1$",
    ):
        make(tree, tmp_path / "store")
    tree.annotate("au", "validation", "video9", ["yes", ",".join(["0"] * 12)])
    _, card, _ = make(tree, tmp_path / "store")
    assert card.annotations["au.bad_line"] == 4 + 2  # 1 of video9, 3 of v2; 2 of the tree


@pytest.mark.parametrize("source", ["crops", "videos"])
def test_an_annotation_file_with_only_a_header_adds_no_label(tree, tmp_path, source):
    tree.annotate("au", "train", "10-30-1280x720", [])
    made = jobs.prepare(str(tree.root), str(tmp_path / "store"), source, load(jobs.PreprocessConfig, {}, []))
    for task in made.files():
        Storage(tmp_path / "store").write(task.name, task.make())
    if source == "crops":  # the tree's videos have no faces
        made.complete()
        rows = rows_of(FaceStore.open(str(tmp_path / "store")), "train")
        assert {max(row["au"]) for row in rows if row["video_id"] == "10-30-1280x720"} == {-1}


def test_a_crop_with_a_damaged_scan_is_not_stored(tree, tmp_path):
    path = tree.root / "cropped_aligned/v2/00002.jpg"
    data = jpeg.encode(np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8))
    path.write_bytes(data[:170] + bytes(len(data) - 172) + data[-2:])
    assert jpeg.size(path.read_bytes()) == (112, 112)
    _, card, index = make(tree, tmp_path / "store")
    assert card.mismatches["v2"] == {"au.no_jpeg": 1, "expr.no_jpeg": 1, "images.stray": 1}
    assert [row["frame"] for row in rows_of(index, "validation") if row["video_id"] == "v2"] == [1]


ERROR = av.error.MemoryError(12, "Cannot allocate memory")  # of FFmpeg, for an impossible size in a damaged container


def failing(*args, **kwargs):
    raise ERROR


def test_a_video_that_the_library_cannot_open_costs_only_itself(tree, tmp_path, monkeypatch):
    _, whole, _ = make(tree, tmp_path / "whole")
    for place in ("plan.probe", "pack.probe", "pack.audio"):
        monkeypatch.setattr(f"aupipe.affwild2.{place}", failing)
    _, card, index = make(tree, tmp_path / "store")
    assert card.annotations["au.kept"] == whole.annotations["au.kept"]
    assert card.mismatches["10-30-1280x720"]["video.decoder_failed"] == 1
    assert index.audio("10-30-1280x720") is None


def test_frames_before_an_error_of_the_library_are_kept(tree, tmp_path, monkeypatch):
    def then_fail(*args, **kwargs):
        yield from ()
        raise ERROR

    monkeypatch.setattr("aupipe.affwild2.pack_videos.frames", then_fail)
    with pytest.raises(DatasetError, match=r"the train split is empty.*au\.decoder_failed"):
        make(tree, tmp_path / "store", source="videos")
