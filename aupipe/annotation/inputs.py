"""Inputs of a job in columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe.annotation.video_rows import BATCH, one_piece, order_of, take_rows
from aupipe.errors import ConfigError, NotFoundError, redact


@dataclass(frozen=True, slots=True)
class Input:
    """One video, image or sequence of images to annotate.

    Attributes:
        uri: path or URI of the file; of a sequence, of its folder, with a slash at the end.
        video_id: path below the folder that was named, or the name.
        start_s, end_s: the part to annotate, in media time; None: from the first, to the last frame.
        further: a manifest's other columns.
        refused: the reason why it is quarantined unopened; "" if it is not.
        signature: its `signature_in` a remote listing; None if it was not listed or the listing gives none.
    """

    uri: str
    video_id: str
    start_s: float | None = None
    end_s: float | None = None
    further: Mapping[str, str] = field(default_factory=dict, compare=False)
    refused: str = ""
    signature: str | None = field(default=None, compare=False)

    def asked(self, sample_fps: float | None) -> str:
        """Return the name of the part and rate of the file to annotate; "" for all of it.

        It is part of keys, so different parts have different names.
        """
        parts = []
        if self.start_s is not None or self.end_s is not None:
            start, end = ("" if limit is None else f"{_exact(limit)} s" for limit in (self.start_s, self.end_s))
            parts.append(f"[{start}, {end})")
        if sample_fps is not None:
            parts.append(f"at {_exact(sample_fps)}/s")
        return " ".join(parts)


def _exact(number: float) -> str:
    """Return the shortest text that means this number only."""
    return np.format_float_positional(number, trim="-")


# The attributes of `Input`.
INPUTS = pa.schema([
    *((name, pa.string()) for name in ("uri", "video_id", "signature", "refused")),
    ("start_s", pa.float64()), ("end_s", pa.float64()),
    ("further", pa.string()),  # as JSON; null if there is nothing
])  # fmt: skip


class Inputs(Sequence[Input]):
    """Inputs in columns, about 150 bytes each. An `Input` is made when it is asked for.

    Attributes:
        table: one row per input, as INPUTS.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @classmethod
    def of(cls, inputs: Iterable[Input]) -> Inputs:
        """Return these inputs."""
        found = FoundInputs()
        found.add_all(inputs)
        return found.inputs()

    @property
    def ids(self) -> pa.Array:
        """The video_id of each input."""
        return one_piece(self.table["video_id"])

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, position: int) -> Input: ...
    @overload
    def __getitem__(self, position: slice) -> Inputs: ...
    def __getitem__(self, position: int | slice) -> Input | Inputs:
        found = range(len(self))[position]
        if isinstance(found, range):
            return self.take(np.array(found, np.int64))
        return _inputs_of(self.table.slice(found, 1))[0]

    def __iter__(self) -> Iterator[Input]:
        for first in range(0, len(self), BATCH):
            yield from _inputs_of(self.table.slice(first, BATCH))

    def take(self, rows: np.ndarray) -> Inputs:
        """Return the inputs of rows (n,)."""
        return Inputs(take_rows(self.table, rows))

    def with_column(self, name: str, values: pa.ChunkedArray | pa.Array) -> Inputs:
        """Return the inputs with other values of a column."""
        number = self.table.schema.get_field_index(name)
        return Inputs(self.table.set_column(number, INPUTS.field(name), values))

    def sorted(self) -> Inputs:
        """Return the inputs in the order of their video_id, each once.

        Raises:
            ConfigError: two different inputs have one video_id.
        """
        ordered = self.take(order_of(self.ids))
        ids = ordered.ids
        again = np.flatnonzero(pc.equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)) + 1
        for first in range(0, len(again), BATCH):
            rows = again[first : first + BATCH]
            for clash, video in zip(ordered.take(rows - 1), ordered.take(rows), strict=True):
                if clash != video:
                    raise ConfigError(
                        f"{redact(clash.uri)} and {redact(video.uri)} would both be video_id {video.video_id!r}; "
                        "name a common parent folder, or give them ids in a manifest, so that they differ"
                    )
        return ordered.take(np.delete(np.arange(len(ids)), again)) if len(again) else ordered

    def redacted_uris(self) -> pa.Array:
        """Return the `redact` of each URI."""
        uris = one_piece(self.table["uri"])
        if not pc.any(pc.match_substring(uris, "://")).as_py():
            return uris
        return pa.array(map(redact, uris.to_pylist()), pa.string())

    def asked(self, sample_fps: float | None) -> pa.Array:
        """Return `Input.asked` of each."""
        limits = [self.table["start_s"], self.table["end_s"]]
        if sample_fps is None and all(column.null_count == len(column) for column in limits):
            return pa.array([""]).take(pa.array(np.zeros(len(self), np.int64)))
        return pa.array((video.asked(sample_fps) for video in self), pa.string())


def _inputs_of(table: pa.Table) -> list[Input]:
    return [
        Input(
            row["uri"], row["video_id"], row["start_s"], row["end_s"], json.loads(row["further"] or "{}"),
            row["refused"], row["signature"],
        )
        for row in table.to_pylist()
    ]  # fmt: skip


class FoundInputs:
    """The inputs that are found one after another."""

    def __init__(self) -> None:
        self._tables = [INPUTS.empty_table()]
        # Of files that are not in a table yet.
        self._uris, self._ids, self._refused = list[str](), list[str](), list[str]()
        self._signatures = list[str | None]()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, uri: str, video_id: str, signature: str | None = None) -> None:
        """Add a file."""
        self.add_files([uri], [video_id], [signature])

    def add_files(
        self, uris: Sequence[str], video_ids: Sequence[str], signatures: Sequence[str | None] | None = None
    ) -> None:
        """Add files with these ids and signatures. One whose name is no text is refused."""
        self._refused += map(refused_name, uris)
        self._uris += map(text_of_name, uris)
        self._ids += map(text_of_name, video_ids)
        self._signatures += [None] * len(uris) if signatures is None else signatures
        self._count += len(uris)
        if len(self._uris) >= BATCH:
            self._flush()

    def add_all(self, inputs: Iterable[Input]) -> None:
        """Add inputs."""
        self._flush()
        rows = iter(inputs)
        while batch := list(islice(rows, BATCH)):
            further = [json.dumps(dict(each.further)) if each.further else None for each in batch]
            columns = [[getattr(each, name) for each in batch] for name in INPUTS.names[:-1]]
            self._add_table([pa.array(*each) for each in zip([*columns, further], INPUTS.types, strict=True)])
            self._count += len(batch)

    def inputs(self) -> Inputs:
        """Return all inputs, in the order in which they were added."""
        self._flush()
        return Inputs(pa.concat_tables(self._tables))

    def _flush(self) -> None:
        if count := len(self._uris):
            texts = [pa.array(each, pa.string()) for each in (self._uris, self._ids, self._signatures, self._refused)]
            others = [pa.nulls(count, INPUTS.field(name).type) for name in ("start_s", "end_s", "further")]
            self._add_table([*texts, *others])
            self._uris, self._ids, self._refused, self._signatures = [], [], [], []

    def _add_table(self, columns: Sequence[pa.Array]) -> None:
        self._tables.append(pa.Table.from_arrays(columns, schema=INPUTS))


def refused_name(uri: str) -> str:
    """Return why a file cannot be annotated by its name; "" if it can."""
    if (text := text_of_name(uri)) == uri:
        return ""
    return f"{NotFoundError.reason}: {redact(text)}: its name is not UTF-8; fix: rename it"


def text_of_name(name: str) -> str:
    """Return a name as text for tables. Invalid UTF-8 becomes \\x.., which does not open the file."""
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
