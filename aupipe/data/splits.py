"""Splits named by `--split`: the videos that a model is trained on, and those it is scored on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe import facs
from aupipe.arrays import Bools, Ints
from aupipe.errors import ConfigError, DatasetError
from aupipe.facestore.folds import FOLDS, folds, video_positives
from aupipe.facestore.read import ALL, FaceStore, RowGroup

OFFICIAL = "official"
SEARCH = "search"
SEARCH_FOLDS = 5  # of the people of the train split; a search scores one, and never uses the validation split
_FOLD = re.compile(r"fold:(\d{1,6})")
_PEOPLE = re.compile(r"people:(\d{1,6})/(\d{1,6})")


# Aff-Wild2's tasks have independent splits, so a video may be in train for one task and in validation for another. A
# model of both would be trained on validation faces. drop_train: such videos are not trained on; drop_val: they are not
# scored (Jin et al., ABAW2); off: neither, for a model of one task. In folds every video is in one part anyway.
LeakFilter = Literal["drop_train", "drop_val", "off"]


@dataclass(frozen=True)
class SplitPart:
    """Some videos of a store."""

    split: str  # the store's split in which their rows are numbered
    videos: frozenset[str] | None = None  # None: all videos of the split

    def mask(self, video_id: pa.ChunkedArray) -> Bools:
        """Return (N,) whether each row of the split belongs to the part."""
        if self.videos is None:
            return np.ones(len(video_id), dtype=bool)
        return pc.is_in(video_id, pa.array(sorted(self.videos), pa.string())).to_numpy(zero_copy_only=False)

    def row_groups(self, index: FaceStore) -> list[RowGroup]:
        """Return the row groups that contain a row of the part."""
        groups = index.row_groups(self.split)
        return [group for group in groups if self.videos is None or self.videos & set(group.video_ids)]


def train_part(index: FaceStore, split: str, leak: LeakFilter = "off") -> SplitPart:
    """Return the training part of a split.

    `official`: the train split. `fold:K`: the three other folds of the whole store. `people:K/N`: see `people`.
    `search`: four fifths of the people of the train split. Added stores are always part of it and in no fold.

    Raises:
        ConfigError: there is no such split.
    """
    if split == OFFICIAL:
        return _without_both(index, SplitPart("train")) if leak == "drop_train" else SplitPart("train")
    pool, fold_of, left_out = _parts(index, split)
    added = {span.video_id for each in index.added for _, shard in each.shards("train") for span in shard.spans}
    part = SplitPart(pool, frozenset(video for video, fold in fold_of.items() if fold != left_out) | added)
    # The models of a search are scored on the validation split at its end.
    return _without_both(index, part) if split == SEARCH and leak == "drop_train" else part


def eval_part(index: FaceStore, split: str, leak: LeakFilter = "off") -> SplitPart:
    """Return the part of a split that is scored.

    `official`: the validation split. `fold:K`: that fold. `search`: the remaining fifth of the people of the train
    split. `all`: the whole store. Any other name: the store's own split.

    Raises:
        ConfigError: there is no such split.
    """
    if split in (OFFICIAL, "validation") and leak == "drop_val":
        return _without_both(index, SplitPart("validation"))
    if split == OFFICIAL:
        return SplitPart("validation")
    if split in (*index.splits, ALL):
        return SplitPart(split)
    pool, fold_of, left_out = _parts(index, split)
    return SplitPart(pool, frozenset(video for video, fold in fold_of.items() if fold == left_out))


def people(fold: int, folds: int) -> str:
    """Return the split that trains on all people of the store except those of one fold, which it scores.

    A person is an `identity`, or a base video without identity labels.
    """
    return f"people:{fold}/{folds}"


def is_people(split: str) -> bool:
    return _PEOPLE.fullmatch(split) is not None


def _without_both(index: FaceStore, part: SplitPart) -> SplitPart:
    """Return the part without videos that are in both splits."""
    both = index.in_both_splits
    if not both:
        return part
    videos = {span.video_id for _, shard in index.shards(part.split) for span in shard.spans}
    return SplitPart(part.split, (frozenset(videos) if part.videos is None else part.videos) - both)


def _parts(index: FaceStore, split: str) -> tuple[str, dict[str, int], int]:
    """Return, for a split by folds, the pool, the fold of each base video, and the fold that is scored."""
    if split == SEARCH:
        return "train", _search_folds(index), 0
    if match := _PEOPLE.fullmatch(split):
        fold, count = map(int, match.groups())
        if not (fold < count and count >= 2):
            raise ConfigError(f"--split {split}: no such split; allowed are people:K/N with K below N, and N from 2 up")
        return ALL, _people_folds(index, count), fold
    return ALL, _folds(index), _fold(index, split)


def _people_folds(index: FaceStore, count: int) -> dict[str, int]:
    """Return the fold of every base video. All videos of a person are in one fold; expressions are balanced."""
    table = index.without_extra.labels(ALL, ("video_id", "identity", "expression"))
    person = _person(table).combine_chunks()
    codes = person.dictionary_encode()
    expression = table["expression"].to_numpy()
    if (found := len(codes.dictionary)) < count:
        raise DatasetError(f"{index.storage.root}: {found} people are too few for {count} folds of people")
    counts = np.zeros((len(codes.dictionary), len(facs.EXPRESSIONS) + 1), dtype=np.int64)
    np.add.at(counts, (codes.indices.to_numpy(), expression), 1)  # the last column counts unknown labels (−1)
    fold_of = folds(dict(zip(codes.dictionary.to_pylist(), counts, strict=True)), count)
    return {video: fold_of[person] for video, person in _people(index, table).items()}


def _search_folds(index: FaceStore) -> dict[str, int]:
    """Return the fold of every base video of the train split, with all videos of a person in one; AUs are balanced."""
    table = index.without_extra.labels("train", ("video_id", "identity", "au"))
    people = _people(index, table)
    counts: dict[str, Ints] = {}
    for video, positives in video_positives(table).items():
        counts[people[video]] = counts.get(people[video], np.int64(0)) + positives
    fold_of = folds(counts, SEARCH_FOLDS)
    return {video: fold_of[person] for video, person in people.items()}


def _people(index: FaceStore, table: pa.Table) -> dict[str, str]:
    """Return base video → person, from columns `video_id` and `identity`."""
    pairs = pa.table({"video": table["video_id"], "person": _person(table)})
    several = pairs.group_by("video").aggregate([("person", "count_distinct")])
    if mixed := several.filter(pc.greater(several["person_count_distinct"], 1))["video"].to_pylist():
        raise DatasetError(
            f"{index.storage.root}: {mixed[0]} contains several people, so folds of people cannot be made"
        )
    found = pairs.group_by(["video", "person"]).aggregate([])
    return dict(zip(found["video"].to_pylist(), found["person"].to_pylist(), strict=True))


def _person(table: pa.Table) -> pa.ChunkedArray:
    return pc.coalesce(table["identity"], table["video_id"])


def _fold(index: FaceStore, split: str) -> int:
    match = _FOLD.fullmatch(split)
    if match is None or int(match[1]) >= FOLDS:
        raise ConfigError(
            f"--split {split}: no such split; allowed are {OFFICIAL}, fold:0 … fold:{FOLDS - 1}, and to score also "
            f"{', '.join((*index.splits, ALL))}"
        )
    return int(match[1])


def _folds(index: FaceStore) -> dict[str, int]:
    """Return the fold of every base video of train and validation together."""
    return folds(video_positives(index.without_extra.labels(ALL, ("video_id", "au"))))
