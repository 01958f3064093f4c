"""What `--split` names: the videos that a model learns from, and those it is scored on."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe import facs
from aupipe.errors import ConfigError, DatasetError
from aupipe.facestore.folds import FOLDS, folds, video_positives
from aupipe.facestore.read import ALL, RowGroup, StoreIndex
from aupipe.learning.metrics import Bools

OFFICIAL = "official"
_FOLD = re.compile(r"fold:(\d+)")
_PEOPLE = re.compile(r"people:(\d+)/(\d+)")


@dataclass(frozen=True)
class Part:
    """Some videos of a store."""

    pool: str  # the store's split in which their rows are numbered
    videos: frozenset[str] | None = None  # None: all of the pool

    def mask(self, video_id: pa.ChunkedArray) -> Bools:
        """(N,) which rows of the pool belong to it."""
        if self.videos is None:
            return np.ones(len(video_id), dtype=bool)
        return pc.is_in(video_id, pa.array(sorted(self.videos), pa.string())).to_numpy(zero_copy_only=False)

    def row_groups(self, index: StoreIndex) -> list[RowGroup]:
        """Those that hold a row of it."""
        groups = index.row_groups(self.pool)
        return [group for group in groups if self.videos is None or self.videos & set(group.video_ids)]


def to_learn(index: StoreIndex, split: str) -> Part:
    """`official`: the train split; `fold:K`: the three other folds of the whole store; `people:K/N`: see `people`.

    What is added to the store is always learnt from, and in no fold.

    Raises:
        ConfigError: no such split.
    """
    if split == OFFICIAL:
        return Part("train")
    if match := _PEOPLE.fullmatch(split):
        fold, parts = int(match[1]), _people_folds(index, int(match[2]))
    else:
        fold, parts = _fold(index, split), _folds(index)
    added = {run.video_id for each in index.added for _, part in each.parts("train") for run in part.runs}
    return Part(ALL, frozenset(video for video, part in parts.items() if part != fold) | added)


def to_score(index: StoreIndex, split: str) -> Part:
    """`official`: the validation split; `fold:K`: that fold; `all`: the whole store; else the store's own split.

    Raises:
        ConfigError: no such split.
    """
    if split == OFFICIAL:
        return Part("validation")
    if split in (*index.splits, ALL):
        return Part(split)
    if match := _PEOPLE.fullmatch(split):
        fold, parts = int(match[1]), _people_folds(index, int(match[2]))
    else:
        fold, parts = _fold(index, split), _folds(index)
    return Part(ALL, frozenset(video for video, part in parts.items() if part == fold))


def people(fold: int, folds: int) -> str:
    """The split that learns from all people of the store but those of a fold, and scores those.

    A person is an `identity`, or a base video where nobody says who it is.
    """
    return f"people:{fold}/{folds}"


def is_people(split: str) -> bool:
    return _PEOPLE.fullmatch(split) is not None


def _people_folds(index: StoreIndex, count: int) -> dict[str, int]:
    """The fold of every base video; a person's videos are in one, and expressions are balanced."""
    table = index.alone.labels(ALL, ("video_id", "identity", "expression"))
    person = pc.coalesce(table["identity"], table["video_id"]).combine_chunks()
    codes = person.dictionary_encode()
    expression = table["expression"].to_numpy()
    counts = np.zeros((len(codes.dictionary), len(facs.EXPRESSIONS) + 1), dtype=np.int64)
    np.add.at(counts, (codes.indices.to_numpy(), expression), 1)  # the last column counts what is unknown (−1)
    fold_of = folds(dict(zip(codes.dictionary.to_pylist(), counts, strict=True)), count)
    several = (
        pa.table({"video": table["video_id"], "person": person})
        .group_by("video")
        .aggregate([("person", "count_distinct")])
    )
    if mixed := several.filter(pc.greater(several["person_count_distinct"], 1))["video"].to_pylist():
        raise DatasetError(f"{index.storage.root}: {mixed[0]} shows several people, so folds of people cannot be made")
    pairs = pa.table({"video": table["video_id"], "person": person}).group_by(["video", "person"]).aggregate([])
    return {
        video: fold_of[one] for video, one in zip(*(pairs[c].to_pylist() for c in ("video", "person")), strict=True)
    }


def _fold(index: StoreIndex, split: str) -> int:
    match = _FOLD.fullmatch(split)
    if match is None or int(match[1]) >= FOLDS:
        raise ConfigError(
            f"--split {split}: there are {OFFICIAL}, fold:0 … fold:{FOLDS - 1}, and to score also "
            f"{', '.join((*index.splits, ALL))}"
        )
    return int(match[1])


def _folds(index: StoreIndex) -> dict[str, int]:
    """The fold of every base video of train and validation together."""
    return folds(video_positives(index.alone.labels(ALL, ("video_id", "au"))))
