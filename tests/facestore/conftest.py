"""A small store with pairs of people, long and short tracks, and random labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aupipe.facestore import read, write
from aupipe.facestore.schema import StoreHeader
from aupipe.storage import Storage

HEADER = StoreHeader(
    edition="abaw5", source="affwild2:crops", license="test", template=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10)),
    template_source="measured", n_expressions=8, settings={"min_score": 0.7},
)  # fmt: skip


def track(video_id, person, count, seed, time_s=None):
    random = np.random.default_rng(seed)
    return write.rows(
        video_id=video_id,
        person=person,
        frames=np.arange(1, 2 * count, 2),
        images=[random.bytes(20) for _ in range(count)],
        au=random.integers(-1, 2, (count, 12)),
        expression=random.integers(-1, 8, count),
        time_s=time_s,
        source="affwild2:crops",
    )


def build(root, tables):
    storage = Storage(root)
    names = []
    for ordinal, (split, table) in enumerate(tables):
        shard = write.ShardWriter()
        for one in table:
            shard.add(one)
        shard.count_outcomes("video", {"au.rows": 5, "au.kept": 3, "au.no_crop": 2})
        names.append(write.shard_name(split, ordinal, str(ordinal)))
        storage.write(names[-1], shard.finish())
    write.finish(storage, HEADER, names)
    return read.FaceStore.open(str(root))


TABLES = (
    ("train", [track("a", "", 300, 0), track("b", "left", 5, 1, np.linspace(0, 1, 5)), track("b", "right", 400, 2)]),
    ("train", [track("c", "", 7, 3)]),
    ("validation", [track("d", "", 10, 4)]),
)


@pytest.fixture
def tables():
    """Return (split, tables) of each shard."""
    return TABLES


@pytest.fixture
def build_store() -> Callable[[Path], read.FaceStore]:
    """Return `build_store(folder)`, which writes TABLES into a store in the folder."""
    return lambda root: build(root, TABLES)
