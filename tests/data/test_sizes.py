"""Every batched step of stores, training and prediction, at sizes around the batch size."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from aupipe import facs
from aupipe.affwild2 import pack as affwild2_pack
from aupipe.affwild2 import plan
from aupipe.data import clips, embedding_store, sampler, samples
from aupipe.data.embedding_store import EmbeddingReader
from aupipe.data.readers import CropReader
from aupipe.data.samples import Tracks
from aupipe.data.splits import SplitPart
from aupipe.errors import DatasetError
from aupipe.evaluation.predictions import Predictions
from aupipe.faces.detect import DetectorConfig
from aupipe.facestore import columns, read, schema, write
from aupipe.facestore.read import ALL, FaceStore
from aupipe.facestore.schema import ROW_GROUP_ROWS, SCHEMA, StoreHeader
from aupipe.images.job import ImagesConfig, ImagesJob
from aupipe.images.manifest import TABLE
from aupipe.images.pack import pack_table
from aupipe.media.audio import AudioBlock
from aupipe.models.embedding import embed
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import FrameEncoder, SequenceBatch, SequenceHead
from aupipe.models.sliding_window import plan_windows, run_head
from aupipe.pipelines import predict as predicting
from aupipe.storage import Storage
from harness.sizes import batches, sizes

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")
HEADER = StoreHeader(
    edition="abaw5", source="test", license="test", template=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10)),
    template_source="measured", n_expressions=8, settings={},
)  # fmt: skip


def jpeg(number: int) -> bytes:
    """Return a crop of one gray level per number."""
    return cv2.imencode(".jpg", np.full((112, 112, 3), number % 200, np.uint8))[1].tobytes()


def rows(video_id: str, count: int) -> pa.Table:
    return write.rows(
        video_id=video_id, frames=np.arange(1, count + 1), images=[jpeg(number) for number in range(count)],
        au=np.arange(count)[:, None].repeat(12, axis=1) % 2, expression=np.arange(count) % 8, source="test",
    )  # fmt: skip


def store(folder: Path, *counts: int) -> FaceStore:
    """Return a store with one file of `count` rows for each count, videos v0, v1 …"""
    names = []
    for number, count in enumerate(counts):
        part = write.ShardWriter()
        part.add(rows(f"v{number}", count))
        names.append(write.shard_name("train", number, str(count)))
        Storage(folder).write(names[-1], part.finish())
    write.finish(Storage(folder), HEADER, names)
    return FaceStore.open(str(folder))


@pytest.mark.parametrize("count", sizes(ROW_GROUP_ROWS))
def test_row_groups_of_a_store(count: int, tmp_path: Path) -> None:
    """The file with this many rows is between two others."""
    index = store(tmp_path, 3, count, 2)
    file = pq.ParquetFile(tmp_path / index.card.shards[1].name)
    held = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert held == batches(count, ROW_GROUP_ROWS)
    groups = index.row_groups("train")
    assert [group.rows for group in groups] == [3, *held, 2]
    assert index.rows("train") == len(index.labels("train")) == count + 5
    every = pa.concat_tables([index.read(group) for group in groups])
    assert every["frame"].to_pylist() == [1, 2, 3, *range(1, count + 1), 1, 2]
    assert groups.of(np.arange(count + 5)).tolist() == [n for n, group in enumerate(groups) for _ in range(group.rows)]
    assert groups.of(np.zeros(0, np.int64)).tolist() == []
    taken = list(read.sample_images(index.storage, [index.card.shards[1].name], 4))
    assert min(count, 4) <= len(taken) <= min(count, 8)


def test_a_split_without_a_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the train split is empty"):
        store(tmp_path, 0)


@pytest.mark.parametrize("count", sizes(3))
def test_columns_of_arrays(count: int) -> None:
    table = rows("v", count)
    assert table.schema.equals(SCHEMA)
    assert columns.labels(table).shape == (count, 12)
    assert columns.labels(table).dtype == np.int8
    chunks = pa.concat_tables([table.slice(0, 0), table, table.slice(count)])
    np.testing.assert_array_equal(columns.labels(chunks), columns.labels(table))
    assert columns.to_arrays(pa.chunked_array([], SCHEMA.field("au").type)).shape == (0, 12)
    kind = SCHEMA.field("intensity").type
    assert columns.to_arrays(pa.chunked_array([columns.from_arrays(np.zeros((count, 12)), kind, count)])).shape == (
        count,
        12,
    )
    assert columns.from_arrays(None, kind, count).null_count == count


@pytest.mark.parametrize("blocks", sizes(2))
def test_blocks_of_sound(blocks: int, tmp_path: Path) -> None:
    index = store(tmp_path, 1)
    sound = [AudioBlock(float(number), 10, np.full((2, 10), number, np.int16)) for number in range(blocks)]
    index.storage.write(write.audio_name("v0"), write.audio_file("v0", sound))
    found = index.audio("v0")
    assert (None if found is None else found.waveform.shape) == ((2, 10 * blocks) if blocks else None)


@pytest.mark.parametrize("count", sizes(schema.FILE_ROWS))
@pytest.mark.parametrize("people", [1, 2])
def test_units_of_affwild2(count: int, people: int) -> None:
    track = plan.TrackSlice("v", "", (), ())
    piece = plan.VideoSlice("v", (track,) * people, None, 0, count)
    packed = list(plan._pack(plan._slices(iter([piece, plan.VideoSlice("w", (track,), None, 0, 1)]))))
    held = [sum((each.stop - each.first) * len(each.tracks) for each in unit) for unit in packed]
    assert sum(held) == count * people + 1
    assert 0 < min(held) <= max(held) <= schema.FILE_ROWS
    spans = [(each.first, each.stop) for unit in packed for each in unit if each.video_id == "v"]
    assert [row for first, stop in spans for row in range(first, stop)] == list(range(count))


@pytest.mark.parametrize("count", sizes(4))
def test_steps_of_a_piece_of_crops(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Annotation rows of which only every other has a crop, four at a time."""
    monkeypatch.setattr(affwild2_pack, "_STEP_ROWS", 4)
    storage = Storage(tmp_path)
    lines = [",".join(facs.AFFWILD2_AUS), *[",".join(["1"] * 12)] * count]
    storage.write("au/v.txt", "\n".join([*lines, ""]).encode())
    storage.write("crops/v/99999.jpg", jpeg(0))
    for row in range(0, count, 2):
        storage.write(f"crops/v/{row + 1:05d}.jpg", jpeg(row))
    track = plan.TrackSlice("v", "", (("au", "au/v.txt"),), ("crops/v",))
    unit = plan.ShardPlan("split=train/x.parquet", "train", (plan.VideoSlice("v", (track,), None, 0, count),))
    table = pq.read_table(pa.BufferReader(affwild2_pack.pack_crops(unit, root=storage.root)))
    assert table.schema.equals(SCHEMA)
    assert table["frame"].to_pylist() == list(range(1, count + 1, 2))


@pytest.mark.parametrize("count", sizes(3))
def test_images_of_a_table(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once all images are readable, once none."""
    for number in range(count):
        Storage(tmp_path).write(f"{number}.jpg", jpeg(number))
    names = [{"path": f"{n}.jpg", "split": "train", "subject": f"s{n}", "number": 1, "expression": 1, "au": [1] * 12}
             for n in range(count)]  # fmt: skip
    table = pa.Table.from_pylist(names, schema=TABLE)
    for root, kept in ((str(tmp_path), count), (str(tmp_path / "gone"), 0)):
        data = pack_table(table, root=root, detector=DetectorConfig(), source="test")
        packed = pq.read_table(pa.BufferReader(data))
        assert packed.schema.equals(SCHEMA)
        assert len(packed) == kept
    monkeypatch.setattr("aupipe.images.job.FILE_ROWS", 3)
    files = ImagesJob("out", str(tmp_path), "manifest", table, "", ImagesConfig()).files()
    assert [file.rows for file in files] == batches(count, 3)


@pytest.mark.parametrize("count", sizes(4))
def test_clips(count: int) -> None:
    """Clips of a track with this many frames between two others; without frames there is no track."""
    edges = sampler.track_edges(np.repeat([0, 1, 2], [3, count, 2]))
    cut = clips.runs(edges, 4)
    assert [real.sum() for real in cut.valid] == [3, *batches(count, 4), 2]
    assert sorted(cut.rows[cut.valid].tolist()) == list(range(count + 5))
    drawn = clips.windows(edges, 4, stride=2, seed=0, epoch=0)
    assert drawn.rows.shape == (len(drawn), 4)
    assert {*drawn.rows[drawn.valid].tolist()} <= set(range(count + 5))
    assert drawn.valid.any(axis=1).all()
    assert clips.single(count).rows.shape == (count, 1)


def test_clips_of_nothing() -> None:
    edges = sampler.track_edges(np.zeros(0, np.int64))
    for none in (clips.runs(edges, 4), clips.windows(edges, 4, stride=2, seed=0, epoch=0), clips.single(0)):
        assert len(none) == 0
        assert (none.rows.dtype, none.valid.dtype) == (np.int64, bool)
        assert none.take(np.zeros(0, np.int64)).rows.shape == none.rows.shape
    subset = sampler.balanced_subset(np.zeros((0, 12), np.int64), 0.5)
    assert (subset.tolist(), subset.dtype) == ([], np.int64)
    kept = sampler.every_nth_and_rare(edges, np.zeros((0, 12), np.int8), 10, 5)
    assert (kept.tolist(), kept.dtype) == ([], bool)


@pytest.mark.parametrize("count", sizes(6))
@pytest.mark.parametrize("window", [1, 2, 3])
def test_order_and_steps_of_an_epoch(count: int, window: int) -> None:
    """Each group has two rows; batches of six are shared by two ranks."""
    order = sampler.epoch_order(np.arange(count) // 2, seed=0, epoch=0, window=window)
    assert sorted(order.tolist()) == list(range(count))
    steps = sampler.steps(count, 6)
    assert steps == count // 6
    parts = [sampler.rank_rows(order, step=s, batch=6, rank=r, world=2) for s in range(steps) for r in range(2)]
    assert [len(part) for part in parts] == [3] * 2 * steps
    assert np.concatenate([order[:0], *parts]).tolist() == order[: 6 * steps].tolist()


class Brightness(FrameEncoder):
    """An encoder that returns the mean of a frame three times."""

    embed_dim = 3

    def forward(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=(1, 2, 3))[:, None].expand(-1, 3)


@pytest.mark.parametrize("count", sizes(4))
def test_encoder_calls(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(count, 3, 8, 8)
    found = embed(Brightness(), images, 4)
    assert (found.shape, found.dtype) == ((count, 3), torch.float32)
    assert all(
        torch.equal(embed(Brightness(), image[None], 4)[0], row) for image, row in zip(images, found, strict=True)
    )
    monkeypatch.setattr(embedding_store, "PREDICT_BATCH", 4)
    index = store(tmp_path, 9)
    reader = CropReader(index, "train", keep_groups=1)
    inputs = InputSpec(size_px=16)
    every = embedding_store.encode_crops(Brightness(), inputs, reader, np.arange(9), CPU)
    assert torch.equal(embedding_store.encode_crops(Brightness(), inputs, reader, np.arange(count), CPU), every[:count])
    assert reader.read(np.arange(count)).shape == (count, 112, 112, 3)


@pytest.mark.parametrize("count", sizes(ROW_GROUP_ROWS))
def test_embeddings_of_a_part(count: int, tmp_path: Path) -> None:
    """The part with this many rows is between two others."""
    index = store(tmp_path / "store", 2, count, 1)
    encoded = embedding_store.plain_encoding(Brightness(), InputSpec(size_px=16), index)
    folder = Storage(tmp_path / encoded.key)
    sizes_there = []
    for part in index.card.shards:
        folder.write(part.name, embedding_store.encode_part(Brightness(), encoded, index, part.name, CPU))
        file = pq.ParquetFile(tmp_path / encoded.key / part.name)
        sizes_there += [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    embedding_store.write_card(folder, encoded)
    assert [size for size in sizes_there if size] == [2, *batches(count, ROW_GROUP_ROWS), 1]
    reader = EmbeddingReader(index, ALL, [folder.root], keep_groups=2)
    found = reader.read(np.arange(count + 3))
    gray = [0, 1, *(number % 200 for number in range(count)), 0]
    assert torch.equal(found[:, 0].argsort(stable=True), torch.tensor(gray).argsort(stable=True))
    assert torch.equal(reader.read(np.arange(count + 3)[::-1]), found.flip(0))
    assert reader.read(np.zeros(0, np.int64)).shape == (0, 3)
    assert embedding_store.parts_of(index, ALL, np.zeros(0, np.int64)) == ()


class Blind(SequenceHead):
    """A head that returns a frame's first feature."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.window_length = length

    def forward(self, batch: SequenceBatch) -> dict[str, Tensor]:
        return {"au": batch.features[..., :1].expand(-1, -1, 12), "expr": batch.features[..., :2]}


@pytest.mark.parametrize("length", [4, 300])  # several windows a call, and a window longer than a call
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_windows_of_a_track(length: int, overlap: float) -> None:
    for count in sorted({*sizes(length), *sizes(256)}):
        time_s = np.arange(count) * 0.04
        windows = plan_windows(time_s, length, overlap)
        places = windows.places(np.arange(len(windows)))
        weight = np.zeros(count)
        np.add.at(weight, places.rows, places.weights)
        assert (weight > 0).all()
        assert places.valid.any(axis=1).all()  # no window without a frame
        features = torch.linspace(-3, 3, count)[:, None].expand(-1, 5)
        found_by_name = run_head(Blind(length), features, time_s, overlap=overlap)
        assert {name: (values.shape, values.dtype) for name, values in found_by_name.items()} == {
            "au": ((count, 12), torch.float32), "expr": ((count, 2), torch.float32),
        }  # fmt: skip
        torch.testing.assert_close(found_by_name["au"][:, 0], features[:, 0].sigmoid())


@pytest.mark.parametrize("count", sizes(4))
def test_calls_of_a_prediction(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracks of two rows, four rows per call."""
    monkeypatch.setattr(predicting, "ROWS_PER_CALL", 4)
    edges = np.arange(0, 2 * count + 1, 2)
    whole = Tracks("train", np.arange(2 * count), np.arange(2 * count) / 25, edges, tuple(map(str, range(count))))
    monkeypatch.setattr(samples, "tracks", lambda pool, table: whole)
    chunks = predicting._chunks("train", pa.table({}))
    assert [len(chunk.videos) for chunk in chunks] == batches(count, 2)
    assert [row for chunk in chunks for row in chunk.rows.tolist()] == list(range(2 * count))


def test_a_part_without_rows_is_named(tmp_path: Path) -> None:
    index = store(tmp_path, 3)
    parts = (SplitPart("train"), SplitPart("train", frozenset(["nobody"])))
    with pytest.raises(DatasetError, match="nothing to predict"):
        predicting.predict([], index, parts, SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]


@pytest.mark.parametrize("count", sizes(2 * 2 + 1))
def test_predictions(count: int) -> None:
    """Tracks shorter and longer than the smoothing window."""
    probabilities = np.linspace(0, 1, count)[:, None].repeat(12, axis=1)
    table = rows("v", count)
    found = Predictions.of(table, probabilities, np.zeros((count, 8)))
    smooth = found.smoothed(2)
    assert smooth.probabilities.sum() == pytest.approx(probabilities.sum())
    assert smooth.probabilities.shape == (count, 12)
    written = pq.read_table(pa.BufferReader(found.to_parquet(found.probabilities >= 0.5)))
    assert written["AU01_prob"].to_pylist() == pytest.approx(probabilities[:, 0].tolist())
    assert len(found.where(np.zeros(count, bool)).frame) == 0
    edges = sampler.track_edges(found.video_id, found.person)
    assert list(itertools.pairwise(edges.tolist())) == ([(0, count)] if count else [])
