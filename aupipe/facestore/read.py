"""Reading of face stores: row groups for training, and label columns without images for samplers, folds and thresholds.

Rows of a split are numbered 0 … rows−1 in file order: by video, person, frame. The split `all` is the concatenation of
all splits with labels, with its own row numbers.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from aupipe import facs
from aupipe.arrays import Ints
from aupipe.errors import DatasetError
from aupipe.facestore.schema import CARD, LABEL_COLUMNS, ROW_GROUP_ROWS, SCHEMA, SCHEMA_VERSION, TEST, Shard, StoreCard
from aupipe.facestore.shard_reader import parquet, read_columns, read_group, storage_of
from aupipe.parquet import damage_named, read_parquet
from aupipe.storage import Storage

ALL = "all"
_IMAGE_STEP_S = 60.0  # between separate images; more than `gaps.MAX_GAP_S`
_SHARDS_AT_A_TIME = 16  # more than CPUs, because reading labels waits for the object store


@dataclasses.dataclass(frozen=True, slots=True)
class RowGroup:
    """The unit of reading: up to `ROW_GROUP_ROWS` consecutive rows of a split."""

    split: str  # the requested split, in which the rows are numbered
    store: str  # path or URI
    file: str  # name below the store
    group: int  # index of the row group in the file
    start: int  # number of the first row in the split
    rows: int
    tracks: tuple[tuple[str, str], ...]  # (video_id, person) of the rows, in order

    @property
    def video_ids(self) -> tuple[str, ...]:
        """Base videos of the rows, in order."""
        return tuple(dict.fromkeys(video for video, _ in self.tracks))


class RowGroups(tuple[RowGroup, ...]):
    """The row groups of a split, in row order."""

    @functools.cached_property
    def starts(self) -> Ints:
        """Numbers (G,) of the first rows."""
        return np.array([group.start for group in self], dtype=np.int64)

    def of(self, rows: Ints) -> Ints:
        """Return the index (N,) of the row group that contains each row (N,)."""
        return np.searchsorted(self.starts, rows, side="right") - 1


@dataclasses.dataclass(frozen=True)
class Audio:
    """The audio of a base video."""

    waveform: npt.NDArray[np.float32]  # (channels, samples) in −1 … 1
    rate_hz: int  # sample rate
    start_s: float  # media time of the first sample


@dataclasses.dataclass(frozen=True)
class FaceStore:
    """A face store. Opening reads only its card; files are opened when rows are read. Picklable.

    Attributes:
        added: further stores. Their train rows follow those of this store in the splits `train` and `all`.
    """

    storage: Storage
    card: StoreCard
    added: tuple[FaceStore, ...] = ()

    @classmethod
    def open(cls, uri: str) -> FaceStore:
        """Open the store at a path or URI.

        Raises:
            DatasetError: there is no store, or its schema, AU order or order of rows is different.
        """
        storage = Storage(uri)
        card = read_card(storage)
        _check_order(storage, card)
        return cls(storage, card)

    def with_extra_stores(self, others: Sequence[FaceStore]) -> FaceStore:
        """Return this store with the train rows of others.

        Raises:
            DatasetError: two of the stores have a video of the same name.
        """
        known: dict[str, str] = {}
        for index in (self, *others):
            root = index.storage.root
            for video in sorted({span.video_id for shard in index.card.shards for span in shard.spans}):
                if known.setdefault(video, root) != root:
                    raise DatasetError(
                        f"{known[video]} and {root} both have a video {video!r}: data sets with common names cannot be "
                        "mixed; fix: rename the subjects in one manifest"
                    )
        return dataclasses.replace(self, added=tuple(others))

    @property
    def without_extra(self) -> FaceStore:
        """This store without added stores."""
        return dataclasses.replace(self, added=())

    @functools.cached_property
    def in_both_splits(self) -> frozenset[str]:
        """Base videos of this store that are in train for one task and in validation for another."""
        train, validation = (
            {span.video_id for shard in self.card.shards if shard.split == split for span in shard.spans}
            for split in ("train", "validation")
        )
        return frozenset(train & validation)

    @property
    def sha256(self) -> str:
        """Hash of the store's content: a card lists all shards, and the name of a shard identifies its content."""
        cards = b"".join(index.storage.read(CARD) for index in (self, *self.added))
        return hashlib.sha256(cards).hexdigest()

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.card.splits)

    @property
    def template(self) -> npt.NDArray[np.float32]:
        """Points (5, 2) of the crops, in pixels: left eye, right eye, nose tip, left and right mouth corner."""
        return np.asarray(self.card.template, dtype=np.float32)

    def rows(self, split: str) -> int:
        return sum(shard.rows for _, shard in self.shards(split))

    def row_groups(self, split: str) -> RowGroups:
        groups: list[RowGroup] = []
        start = 0
        for store, shard in self.shards(split):
            ends = np.cumsum([span.rows for span in shard.spans])
            for first in range(0, shard.rows, ROW_GROUP_ROWS):
                count = min(ROW_GROUP_ROWS, shard.rows - first)
                low, high = np.searchsorted(ends, [first, first + count - 1], side="right")
                tracks = tuple((span.video_id, span.person) for span in shard.spans[low : high + 1])
                number = first // ROW_GROUP_ROWS
                groups.append(RowGroup(split, store.root, shard.name, number, start + first, count, tracks))
            start += shard.rows
        return RowGroups(groups)

    def read(self, row_group: RowGroup, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of one row group, with all columns or the given ones."""
        return read_group(storage_of(row_group.store), row_group.file, row_group.group, columns)

    def labels(self, split: str, columns: Sequence[str] = LABEL_COLUMNS) -> pa.Table:
        """Return all rows of a split without images. Row i of the table is row i of the split.

        Separate images get times so far apart that neither smoothing nor a window of a temporal model joins them when
        they are scored. Clips for training are cut by their numbers.
        """
        separate = {index.storage.root for index in (self, *self.added) if index.card.separate_images}

        def read(shard: tuple[Storage, Shard]) -> pa.Table:
            table = read_columns(shard[0], shard[1].name, columns)
            return _with_image_times(table) if shard[0].root in separate else table

        with ThreadPoolExecutor(_SHARDS_AT_A_TIME) as pool:
            tables = list(pool.map(read, self.shards(split)))
        if not tables:
            return SCHEMA.empty_table().select(list(columns))
        return pa.concat_tables(tables).combine_chunks()

    def has(self, split: str, column: str) -> bool:
        """Return whether all files of a split have a column. Stores of earlier versions lack some columns."""
        return all(column in parquet(store, shard.name).schema_arrow.names for store, shard in self.shards(split))

    def audio(self, video_id: str) -> Audio | None:
        """Return the audio of a base video; None if it has none.

        Raises:
            DatasetError: its file is damaged.
        """
        name = f"audio/{video_id}.parquet"
        storage = next((index.storage for index in (self, *self.added) if index.storage.exists(name)), None)
        if storage is None:
            return None
        with damage_named(storage.path(name)), storage.open(name) as file:
            blocks = read_parquet(file).to_pydict()
        if not blocks["rate"]:
            return None
        pairs = zip(blocks["waveform"], blocks["channels"], strict=True)
        samples = [np.asarray(values, np.int16).reshape(channels, -1) for values, channels in pairs]
        waveform: npt.NDArray[np.float32] = np.concatenate(samples, axis=1).astype(np.float32) / np.float32(32768)
        return Audio(waveform, blocks["rate"][0], blocks["start_s"][0])

    def without_audio(self, videos: Iterable[str]) -> set[str]:
        """Return the base videos of which no audio was stored, because there was no video file."""
        stored = {name for index in (self, *self.added) for name in index.storage.names("audio", ".parquet")}
        return {video for video in videos if f"audio/{video}.parquet" not in stored}

    def shards(self, split: str) -> list[tuple[Storage, Shard]]:
        """Return the shards of a split in the order of its rows, each with its store."""
        if split not in (*self.splits, ALL):
            raise DatasetError(f"{self.storage.root} has no split {split!r}, only {', '.join((*self.splits, ALL))}")
        pool = set(self.splits) - {TEST} if split == ALL else {split}
        own = [(self.storage, shard) for shard in self.card.shards if shard.split in pool]
        extra = [each for store in self.added if split in ("train", ALL) for each in store.shards("train")]
        return own + extra


def read_card(storage: Storage) -> StoreCard:
    """Return the card of the store in a folder.

    Raises:
        DatasetError: there is no store, or its schema or AU order is different.
    """
    if not storage.exists(CARD):
        raise DatasetError(
            f"{storage.root} is not a face store: it has no {CARD}; fix: make it by preprocess.py --out {storage.root}"
        )
    try:
        card = StoreCard.model_validate_json(storage.read(CARD))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DatasetError(
            f"{storage.path(CARD)} cannot be read ({where}: {first['msg']}); fix: delete the folder, and run "
            "preprocess.py again"
        ) from None
    if card.schema_version != SCHEMA_VERSION or card.au_order != facs.AUS:
        raise DatasetError(
            f"{storage.root} has schema {card.schema_version} and AUs {','.join(card.au_order)}, "
            f"this aupipe reads schema {SCHEMA_VERSION} and {','.join(facs.AUS)}; fix: delete the folder, and run "
            "preprocess.py again"
        )
    return card


def _check_order(storage: Storage, card: StoreCard) -> None:
    """Refuse a store in which another person's rows interrupt a track; clips and smoothing would end there.

    Earlier versions stored videos of two people with more than 4,096 frames so. Separate images have no tracks.

    Raises:
        DatasetError: as above.
    """
    ended: set[tuple[str, str, str]] = set()
    last = None
    for shard in () if card.separate_images else card.shards:
        for span in shard.spans:
            track = (shard.split, span.video_id, span.person)
            if track in ended and track != last:
                raise DatasetError(
                    f"{storage.root}: the {shard.split} rows of {f'{span.video_id} {span.person}'.rstrip()} are not "
                    "consecutive; fix: run preprocess.py again with the same --out, which rewrites only such files"
                )
            ended.add(track)
            last = track


def _with_image_times(table: pa.Table) -> pa.Table:
    if not {"frame", "time_s"} <= set(table.column_names):
        return table
    place = table.schema.get_field_index("time_s")
    return table.set_column(place, table.schema.field(place), pc.multiply(table["frame"], pa.scalar(_IMAGE_STEP_S)))


def sample_images(storage: Storage, names: Sequence[str], count: int) -> Iterator[bytes]:
    """Yield about `count` JPEGs, spread evenly over shards. The selection is deterministic."""
    groups = [(name, group) for name in sorted(names) for group in range(parquet(storage, name).num_row_groups)]
    if not groups:
        return
    chosen = np.unique(np.linspace(0, len(groups) - 1, num=min(len(groups), count // 8 + 1)).astype(int))
    each = -(-count // len(chosen))
    for name, group in (groups[i] for i in chosen):
        images = parquet(storage, name).read_row_group(group, columns=["image"])["image"]
        for row in np.unique(np.linspace(0, len(images) - 1, num=min(each, len(images))).astype(int)):
            yield images[int(row)].as_py()
