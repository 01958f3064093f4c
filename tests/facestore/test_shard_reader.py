"""Reads of a remote store: exactly the bytes that are needed, once per node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from aupipe.data.readers import CropReader
from aupipe.facestore import node_copies, shard_reader
from aupipe.facestore.node_copies import NodeCopies
from aupipe.facestore.read import FaceStore
from aupipe.storage import Storage

pytestmark = pytest.mark.unit

ROOT = "memory://shards"


@pytest.fixture
def reads(
    make_store: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Copy a store to memory:// and return its local path, and a log of (name, bytes) of each range that is read."""
    local = make_store(train=5, validation=2, frames=300)
    files = fsspec.filesystem("memory")
    files.put(local, "/shards", recursive=True)
    log: list[tuple[str, int]] = []
    read_range = Storage.read_range

    def logged(self: Storage, name: str, start: int, stop: int) -> bytes:
        log.append((name, stop - start))
        return read_range(self, name, start, stop)

    monkeypatch.setattr(Storage, "read_range", logged)
    copies = NodeCopies(tmp_path / "copies")
    monkeypatch.setattr(shard_reader, "node_copies", lambda: copies)
    shard_reader._metadata.cache_clear()
    shard_reader._size.cache_clear()
    yield local, log
    files.rm("/shards", recursive=True)


def test_crops_and_labels_are_those_of_the_local_store(reads: tuple[str, list]) -> None:
    local, _ = reads
    stores = [FaceStore.open(place) for place in (local, ROOT)]
    for split in ("train", "all"):
        one, other = (store.labels(split) for store in stores)
        assert one.equals(other)
        assert stores[1].labels(split).equals(one)  # now from the copy
        rows = np.array([3, 700, 255, 256, 1400, 0])
        crops = [CropReader(store, split, keep_groups=2).read(rows) for store in stores]
        assert torch.equal(crops[0], crops[1])


def test_each_byte_is_requested_once(reads: tuple[str, list]) -> None:
    _, log = reads
    index = FaceStore.open(ROOT)
    (shard,) = (shard for _, shard in index.shards("train"))
    size = index.storage.size(shard.name)
    for _ in range(2):
        index.labels("train")
    footer = 64 * 1024
    assert sum(count for _, count in log) <= footer + 0.1 * size
    reader = CropReader(index, "train", keep_groups=1)
    for rows in (np.arange(1500), np.arange(1500)[::-1].copy()):  # the second pass finds no group in memory
        reader.read(rows)
    assert 0.8 * size < sum(count for _, count in log) <= footer + 1.1 * size
    assert len(log) <= 6 + 2 * len(index.row_groups("train"))


def test_the_copies_of_a_node_are_in_its_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    node_copies.node_copies.cache_clear()
    node_copies.node_copies()
    node_copies.node_copies.cache_clear()
    assert [path.name for path in tmp_path.glob("aupipe-*/*")] == ["copies"]
