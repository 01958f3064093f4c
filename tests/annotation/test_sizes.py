"""Every batched step of an annotation, at the sizes at which batching fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from aupipe import facs
from aupipe.annotation import audio_features, encode, features, ledger_entries, model_set, model_stages, phases, schema
from aupipe.annotation import extract as observing
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.events import find_events
from aupipe.annotation.extract import CropBatch, extract, with_embeddings
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.model_stages import Encode, Extract
from aupipe.annotation.postprocess import Decision, apply_decision, predict_video
from aupipe.annotation.schema import EVENTS, FEATURES, FRAMES
from aupipe.annotation.segments import Segment
from aupipe.annotation.settings import AnnotateConfig, EventsConfig
from aupipe.annotation.stages import DecodedPart, Row, SegmentTask, _to_ipc
from aupipe.annotation.video_record import VideoRecord
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.faces.track import TrackingConfig
from aupipe.media import mel
from aupipe.media.audio import AudioBlock
from aupipe.media.frames import Frame, Span
from aupipe.parquet import read_parquet
from aupipe.storage import Storage
from harness.clips import scene
from harness.pending import pending as pending_videos
from harness.pending import work_list
from harness.sizes import batches, sizes

pytestmark = pytest.mark.unit

GEOMETRY = pa.schema([field for field in FEATURES if field.name != "embedding"])


def parts_of(images: list[np.ndarray]) -> list[CropBatch]:
    """Return the parts of a segment with these images."""
    segment = Segment("x", "x", 0, 0, None, Span(len(images), True))
    given = [Frame(number, number / 25, image) for number, image in enumerate(images)]
    return list(extract(segment, given, Detector(DetectorConfig()), 1, ARCFACE_TEMPLATE[None], TrackingConfig()))


def rows_of(statuses: list[str]) -> pa.Table:
    """Return one row per status."""
    found = [
        {"frame": number, "time_s": number / 25, "status": status, "cut": False, "corrupt": False}
        | dict.fromkeys(schema.BOX, 9.0 if status == "ok" else None)
        | {"link": 0 if status == "ok" and number else None}
        for number, status in enumerate(statuses)
    ]
    return pa.Table.from_pylist(found, schema=GEOMETRY)


@pytest.mark.parametrize("count", sizes(3))
def test_parts_by_crops(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "PART_CROPS", 3)
    parts = parts_of(scene(count, size=(96, 72), face=64))
    assert [len(part.crops) for part in parts] == (batches(count, 3) or [0])
    check(parts, count)


@pytest.mark.parametrize("count", sizes(8))
def test_parts_by_rows(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "PART_CROPS", 1)
    parts = parts_of([np.zeros((32, 32, 3), np.uint8)] * count)
    assert [len(part.rows) for part in parts] == (batches(count, 8) or [0])
    check(parts, count)


def check(parts: list[CropBatch], frames: int) -> None:
    """Assert that parts are numbered up to the last, and that each gets its embeddings, including one without rows."""
    assert [(part.number, part.last) for part in parts] == [
        (number, number == len(parts) - 1) for number in range(len(parts))
    ]
    assert pa.concat_tables([part.rows for part in parts])["frame"].to_pylist() == list(range(frames))
    for part in parts:
        rows = with_embeddings(part.rows, np.ones((len(part.crops), 5), np.float32))
        assert rows.schema.equals(FEATURES)
        assert len(rows["embedding"].drop_null()) == len(part.crops)


@pytest.fixture(scope="module")
def models(checkpoint: str) -> model_set.ModelSet:
    return model_set.load([checkpoint], "mean")


@pytest.mark.parametrize("count", sizes(3))
def test_encoder_batches(count: int, models: model_set.ModelSet) -> None:
    crops = np.random.default_rng(count).integers(0, 256, (count, 1, 112, 112, 3), np.uint8)
    encoders = encode.Encoders(models, 3, "cpu")
    together = encoders(list(crops))
    assert (together.shape, together.dtype) == ((count, models.embed_dim), np.float32)
    for crop, embedding in zip(crops, together, strict=True):
        np.testing.assert_array_equal(encoders([crop])[0], embedding)


@pytest.mark.parametrize("parts", sizes(model_stages.PARTS_PER_BATCH))
@pytest.mark.parametrize("crops", sizes(2))
def test_parts_that_are_encoded_together(parts: int, crops: int, models: model_set.ModelSet, tmp_path: Path) -> None:
    """Parts without crops, without rows, or with a reason are encoded in one batch with `parts` that have crops."""
    storage = Storage(tmp_path)
    encoder = Encode(models, storage, 2, "cpu")
    statuses = [*[["ok"] * crops + ["no_face"]] * parts, ["no_face"], []]
    images = [np.full((each.count("ok"), 1, 112, 112, 3), 9, np.uint8).tobytes() for each in statuses]
    rows = [
        {"key": f"v.{number:03d}", "video_id": "v", "error": "", "rows": _to_ipc(rows_of(each)), "crops": image,
         "number": 0, "last": True, "attempts": 1, "work_s": 0.0}
        for number, (each, image) in enumerate(zip(statuses, images, strict=True))
    ]  # fmt: skip
    rows.append({**rows[-1], "key": "w", "video_id": "w", "error": "timed_out: it hangs", "rows": b"", "crops": b""})
    batch = pa.Table.from_pylist(rows)
    results = encoder(batch).to_pylist()
    assert [row["error"] for row in results] == [""] * len(statuses) + ["timed_out: it hangs"]
    assert [row["frames"] for row in results] == [*map(len, statuses), 0]
    found = [read_parquet(storage.read(name)) for name in storage.names(features.FOLDER)]
    assert [table["status"].to_pylist() for table in found] == statuses
    assert all(table.schema.equals(FEATURES) for table in found)
    assert encoder(batch.slice(0, 0)).schema.equals(encoder(batch).schema)


@pytest.mark.parametrize(("total", "frames", "together"), [(3, 100, 3), (7, 256, 1), (7, 500, 1), (300, 500, 2)])
def test_segments_of_one_row(total: int, frames: int, together: int) -> None:
    """A row has at least 256 frames, and 1/256 of all frames."""
    tasks = [
        SegmentTask(
            f"v.{number}", Segment("v.mp4", "v", number, number * frames, (number + 1) * frames, Span(frames, True))
        )
        for number in range(total)
    ]
    rows = [[SegmentTask.from_row(task) for task in json.loads(row["tasks"])] for row in Extract.rows(tasks)]
    assert [task for row in rows for task in row] == tasks
    assert {len(row) for row in rows[:-1]} <= {together}
    assert len(rows) == -(-total // together)
    assert Extract.rows([]) == []


def test_a_repeated_row_skips_its_complete_segments(models: model_set.ModelSet, tmp_path: Path) -> None:
    storage, decoded = Storage(tmp_path), list[str]()

    def decode(row: Row) -> Iterator[Row]:
        task = SegmentTask.from_row(row)
        decoded.append(task.key)
        crops = np.full((1, 1, 112, 112, 3), 9, np.uint8).tobytes()
        yield DecodedPart(task.key, "v", rows=_to_ipc(rows_of(["ok"])), crops=crops).to_row()

    stage = Extract(decode, Encode(models, storage, 2, "cpu"), storage)  # type: ignore[arg-type]
    tasks = [
        SegmentTask(f"v.{number}", Segment("v", "v", number, number, number + 1, Span(1, True))) for number in range(3)
    ]
    (row,) = Extract.rows(tasks)
    assert [part["frames"] for part in stage(row)] == [1, 1, 1]
    assert decoded == ["v.0", "v.1", "v.2"]
    storage.delete(storage.names(features.FOLDER)[1])
    decoded.clear()
    assert [part["key"] for part in stage(row)] == decoded == ["v.1"]
    assert list(stage(row)) == []


@pytest.mark.parametrize("count", sizes(4))
def test_parts_between_the_phases(count: int, tmp_path: Path) -> None:
    """Rows are in files of four; the last file may be empty, as in earlier releases."""
    storage, table = Storage(tmp_path), rows_of(["ok", "no_face"] * count)
    vectors = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
    whole = with_embeddings(table, vectors)
    edges = [*range(0, len(whole), 4), len(whole)]
    for number, first in enumerate(edges):
        last = first == len(whole)
        features.write(storage, "aa", number, last, whole.slice(first, 0 if last else 4))
    video = features.Embeddings(storage, features.segments(storage)["aa"])
    assert video.rows.equals(table)
    ok = np.flatnonzero([status == "ok" for status in table["status"].to_pylist()])
    track = video.of(ok, 1, 2)
    np.testing.assert_array_equal(track[:], vectors[:, 1:])
    assert track[count:].shape == (0, 2)


def test_files_that_a_killed_run_split_differently_are_skipped(tmp_path: Path) -> None:
    storage, none = Storage(tmp_path), FEATURES.empty_table()
    for number, last in ((0, False), (1, False), (1, True), (2, False)):
        features.write(storage, "aa", number, last, none)
    names = features.segments(storage)["aa"]
    assert [name.rpartition("/")[2] for name in names] == ["aa-00000.parquet", "aa-00001-last.parquet"]
    storage.delete(names[0])
    assert features.segments(storage) == {}


@pytest.mark.parametrize("count", sizes(2 * 1 + 1))
def test_a_video_of_any_length_is_finalized(count: int) -> None:
    """Tracks may be shorter or longer than the smoothing window, or absent."""
    tables = []
    for status in ("ok", "no_face"):
        observed_rows = rows_of([status] * count)
        results = np.full((count, len(facs.AUS)), 0.7, np.float32)
        predict = lambda rows, _: [(slice(None), results[rows])]  # noqa: B023, E731
        table = predict_video("v", observed_rows, predict, 1, 0, TrackingConfig())
        table = apply_decision(table, Decision("mean", (dict.fromkeys(facs.AUS, 0.5),), (1,)))
        assert table.schema.equals(FRAMES)
        assert table["AU01"].to_pylist() == [True if status == "ok" else None] * count
        tables.append(find_events(table, EventsConfig(min_duration_s=0.0), {}))
    assert len(tables[0]) == (12 if count else 0)
    assert len(tables[1]) == 0


@pytest.mark.parametrize("count", sizes(5))
def test_files_of_an_entry(count: int, tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    rows = pa.Table.from_pylist([{"video_id": "v", "frame": number} for number in range(count)], schema=FRAMES)
    record = VideoRecord("v.mp4", "v", decide_key="d", fingerprint="f")
    entry = ledger_entries.commit(storage, rows, EVENTS.empty_table(), [record], 1, rows_per_file=5)
    held = [len(read_parquet(storage.read(name))) for name in entry.frames]
    assert held == (batches(count, 5) or [0])
    assert ledger_entries.read_all(storage, entry.frames)["frame"].to_pylist() == list(range(count))
    Ledger.read(storage).reconcile()
    assert storage.names("frames") == entry.frames


@pytest.mark.parametrize("count", sizes(16_384))
def test_row_groups_of_a_file(count: int) -> None:
    table = pa.table({name: pa.nulls(count, EVENTS.field(name).type) for name in EVENTS.names})
    file = pq.ParquetFile(pa.BufferReader(schema.to_parquet(table, EVENTS)))
    held = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert [rows for rows in held if rows] == batches(count, 16_384)
    assert file.read().schema.equals(EVENTS)
    assert file.metadata.num_rows == count


@pytest.fixture
def keys(models: model_set.ModelSet, monkeypatch: pytest.MonkeyPatch) -> CacheKeys:
    monkeypatch.setattr(phases, "GROUP_VIDEOS", 3)
    return CacheKeys(models, AnnotateConfig(rows_per_file=1000))


@pytest.mark.parametrize("count", sizes(3))
def test_groups_of_videos_and_waves(count: int, keys: CacheKeys, tmp_path: Path) -> None:
    pending = {
        f"{n:02d}": (VideoRecord("a.mp4", f"{n:02d}", source_hash=str(n), frames_expected=10), []) for n in range(count)
    }
    groups = list(phases.extracted_groups(keys, Storage(tmp_path), 1, pending))
    assert [len(group.records) for group in groups] == batches(count, 3)
    work = work_list(pending_videos(dict.fromkeys(pending, 10)))
    batched = work.disk_bounded_batches(3 * 10 * (4 * 8 + 100), 8)
    assert [len(wave) for wave in batched] == batches(count, 3)
    assert [video_id for wave in batched for video_id, _ in work.extract.pairs(wave)] == list(pending)


@pytest.mark.parametrize("frames", sizes(1000))
def test_groups_of_about_a_file(frames: int, keys: CacheKeys, tmp_path: Path) -> None:
    pending = {name: (VideoRecord("a.mp4", name, source_hash=name, frames_expected=each), [])
           for name, each in (("a", frames), ("b", 1))}  # fmt: skip
    groups = list(phases.extracted_groups(keys, Storage(tmp_path), 1, pending))
    assert [len(group.records) for group in groups] == ([2] if frames < 1000 else [1, 1])


@pytest.mark.parametrize("columns", sorted({*sizes(8), *sizes(16)}))
def test_pieces_and_parts_of_sound(columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (mel, audio_features):
        monkeypatch.setattr(module, "COLUMNS_PER_PIECE", 8)
    monkeypatch.setattr(audio_features, "_PIECES_PER_PART", 2)
    rate = 8000
    samples = np.random.default_rng(0).integers(-9000, 9000, (1, max(0, columns - 1) * mel.hop(rate)), np.int16)

    def blocks(uri: str) -> Iterator[AudioBlock]:
        if columns:
            yield AudioBlock(0.0, rate, samples)

    monkeypatch.setattr(audio_features, "audio", blocks)
    audio_features.write_log_mel(Storage(tmp_path), "aa", "x")
    files = features.segments(Storage(tmp_path))[audio_features.audio_key("aa")]
    assert len(files) == max(1, len(batches(columns, 16)))
    heard = audio_features.LogMelReader(Storage(tmp_path), files)
    whole = mel.log_mel([samples], rate) if columns else torch.zeros(64, 0)
    assert whole.shape[1] == columns
    for low in range(columns):
        assert torch.equal(heard[:, low : low + 9], whole[:, low : low + 9])
    assert heard.columns(np.arange(-1, columns + 1) * 0.005).tolist() == [-1, *range(columns), -1]
    if not columns:
        assert torch.equal(heard[:, 0:1], torch.zeros(64, 1))
