"""The committed state of an output folder: each entry names its files and holds the records of its videos.

    OUT/frames/NAME-00000.parquet …   OUT/events/NAME-00000.parquet     data; NAME derives from the keys of its content
    OUT/_work/ledger/NAME.json                                          written last; commits the files that it names
    OUT/_work/ledger/NAME.parquet                                       many entries, one row per video

Writing is idempotent. A file that no entry names is a leftover of a killed run. Entries are packed once there are many,
because an archive of a million clips has a hundred thousand of them, which each start reads. A packed entry is replaced
by deleting the files that it names.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import compress, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from aupipe.annotation import record_columns, schema
from aupipe.annotation.record_columns import RECORDS, REPEATED_TEXT
from aupipe.annotation.settings import content_hash
from aupipe.annotation.video_record import VideoRecord
from aupipe.annotation.video_rows import VideoRows, one_piece, order_of, take_rows
from aupipe.parquet import damage_named, read_parquet, read_stored
from aupipe.storage import Storage

_PACKED, _OLD_PACKED = ".parquet", ".jsonl.gz"  # the second of earlier versions
_ENTRIES_PER_PACK = 1000  # from this number on, entries are packed
_READ_TOGETHER = 1024  # entries whose text is in memory
_READING_THREADS = 16
_OURS = re.compile(r"(frames|events)/[0-9a-f]{24}-\d{5}\.parquet")  # the names of `commit`; no other file is deleted
# A row per record: its entry, the generation, and the number of files with its frames and with its events.
_ENTRY_COLUMNS = ("entry", "generation", "frames", "events")
_COLUMNS = pa.schema([*RECORDS, ("entry", REPEATED_TEXT), *((name, pa.int32()) for name in _ENTRY_COLUMNS[1:])])


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit of some videos.

    Attributes:
        generation: of the run that wrote it; the latest entry of a video is valid.
        frames_files, events_files: number of files with all rows of the videos.
    """

    name: str
    generation: int
    frames_files: int
    events_files: int

    @property
    def frames(self) -> list[str]:
        """The files with the frames."""
        return _files(f"frames/{self.name}", self.frames_files)

    @property
    def events(self) -> list[str]:
        """The files with the events."""
        return _files(f"events/{self.name}", self.events_files)


class Committed(VideoRows[tuple[VideoRecord, Entry]]):
    """The valid record of each video, and the entry that holds its rows.

    Attributes:
        table: the records, as RECORDS, and the name of the `entry` of each.
        changed: records that a run has changed, by video_id.
    """

    def __init__(self, table: pa.Table, entries: Mapping[str, Entry], rows: np.ndarray | None = None) -> None:
        """Create the collection of all rows of the table, or of rows (n,), ascending."""
        ids = one_piece(table["video_id"])
        super().__init__(ids if rows is None or len(rows) == len(table) else ids.take(pa.array(rows)))
        self.table, self.changed = table, dict[str, VideoRecord]()
        self._entries, self._rows, self._decide_key = entries, rows, ""

    def take(self, rows: np.ndarray) -> list[tuple[VideoRecord, Entry]]:
        table = self.table.take(pa.array(rows if self._rows is None else self._rows[rows]))
        records = [self.changed.get(record.video_id, record) for record in record_columns.to_records(table)]
        if self._decide_key:
            records = [replace(record, decide_key=self._decide_key) for record in records]
        return list(zip(records, map(self._entries.__getitem__, table["entry"].to_pylist()), strict=True))

    def subset(self, rows: np.ndarray) -> Committed:
        """Return the videos of rows (n,), ascending, without copying them."""
        return Committed(self.table, self._entries, rows if self._rows is None else self._rows[rows])

    def have_rows(self) -> pa.ChunkedArray:
        """Return whether each row of the table is a video with rows in the frames table."""
        return pc.is_in(self.table["status"].cast(pa.string()), pa.array(["ok", "partial"]))

    def set_decide_key(self, decide_key: str) -> None:
        """Set the key in all records."""
        self._decide_key = decide_key

    def by_entry(self) -> list[np.ndarray]:
        """Return the rows (n,) of each entry."""
        codes = one_piece(self.table["entry"]).indices.to_numpy()
        codes = codes if self._rows is None else codes[self._rows]
        order = np.argsort(codes, kind="stable")
        return [rows for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(rows)]


@dataclass
class Ledger:
    """The committed state of one output folder.

    Attributes:
        entries: by name.
        table: the records of their videos, and the entry of each.
    """

    storage: Storage
    entries: dict[str, Entry] = field(default_factory=dict)
    table: pa.Table = field(default_factory=_COLUMNS.empty_table)
    _written: pa.Array = field(default_factory=lambda: _texts(()), repr=False)  # names of the files with rows
    _current: Committed | None = field(default=None, repr=False)
    _valid: np.ndarray | None = field(default=None, repr=False)

    @classmethod
    def read(cls, storage: Storage) -> Ledger:
        """Read the committed entries. An entry with missing files (deleted by hand, a power cut) is skipped."""
        written = _texts([*storage.names("frames"), *storage.names("events")])
        tables = list(_tables(storage))
        firsts = np.cumsum([0, *map(len, tables)])
        found = [
            (entry, first + start, first + stop)
            for table, first in zip(tables, firsts.tolist(), strict=False)
            for entry, start, stop in _entries_in(table)
        ]
        is_complete = _with_files([entry for entry, _, _ in found], written)
        latest: dict[str, tuple[Entry, int, int]] = {}  # the rows of each entry
        for entry, start, stop in compress(found, is_complete):
            before = latest.get(entry.name)
            # A packed entry may have been replaced and, later, written again.
            if before is None or before[0].generation < entry.generation:
                latest[entry.name] = entry, start, stop
        table = record_columns.concat(tables, _COLUMNS)
        if sum(stop - start for _, start, stop in latest.values()) < len(table):
            rows = [np.arange(start, stop) for _, start, stop in latest.values()]
            table = take_rows(table, np.sort(np.concatenate(rows)) if rows else np.arange(0))
        return cls(storage, {name: entry for name, (entry, _, _) in latest.items()}, table, written)

    @property
    def next_generation(self) -> int:
        return 1 + max((entry.generation for entry in self.entries.values()), default=0)

    def current(self) -> Committed:
        """Return the valid record of each video_id, and the entry that holds its rows."""
        if self._current is None:
            rows = self._valid_rows()
            ids = one_piece(self.table["video_id"])
            rows = rows[order_of(ids.take(pa.array(rows)))]
            if len(rows) == len(self.table):  # The order of its rows is of no importance here.
                table = self.table = self._in_order(rows)
            else:
                table = take_rows(self.table, rows)
            self._current = Committed(table, self.entries)
        return self._current

    def add(self, entry: Entry, records: Iterable[VideoRecord]) -> None:
        """Add an entry that was written."""
        self.entries[entry.name] = entry
        self._set(record_columns.concat([self.table, _table_of(entry, [r.to_row() for r in records])], _COLUMNS))

    def reconcile(self, keep: Collection[str] | None = None) -> None:
        """Delete rows that a later run replaced, rows of videos not in `keep`, and files that no entry names."""
        self._replace(keep)
        named = pa.chunked_array([names for _, names in _names_of([*self.entries.values()])], pa.string())
        unnamed = self._written.filter(pc.invert(pc.is_in(self._written, value_set=named))).to_pylist()
        self.storage.delete_many([name for name in unnamed if _OURS.fullmatch(name)])
        self.storage.delete_leftovers()
        self._pack()

    def _replace(self, keep: Collection[str] | None) -> None:
        """Replace entries by entries of their valid records only."""
        is_valid = np.zeros(len(self.table), bool)
        is_valid[self._valid_rows()] = True
        if keep is not None:
            is_valid &= pc.is_in(self.table["video_id"], pa.array(list(keep), pa.string())).to_numpy()
        if is_valid.all():
            return
        column = one_piece(self.table["entry"])
        codes, names = column.indices.to_numpy(), column.dictionary.to_pylist()
        replaced = np.unique(codes[~is_valid])
        is_rest = np.isin(codes, replaced)
        rest, self.table = self.table.filter(pa.array(is_rest & is_valid)), self.table.filter(pa.array(~is_rest))
        self._current = self._valid = None
        by_entry: dict[str, list[VideoRecord]] = {names[code]: [] for code in replaced.tolist()}
        for name, record in zip(rest["entry"].to_pylist(), record_columns.to_records(rest), strict=True):
            by_entry[name].append(record)
        for name, valid in by_entry.items():
            entry = self.entries.pop(name)
            if valid:
                ids = pa.array([record.video_id for record in valid])
                frames = _only(read_all(self.storage, entry.frames), ids)
                events = _only(read_all(self.storage, entry.events), ids)
                rows_per_file = max(1, *(len(read_stored(self.storage, n)) for n in entry.frames))
                self.add(commit(self.storage, frames, events, valid, entry.generation, rows_per_file), valid)
        self.storage.delete_many([f"{schema.LEDGER}/{name}.json" for name in by_entry])

    def _valid_rows(self) -> np.ndarray:
        """Return the row (n,) of the latest record of each video_id."""
        if self._valid is None:
            self._valid = self._latest_rows()
        return self._valid

    def _latest_rows(self) -> np.ndarray:
        codes = one_piece(self.table["video_id"]).dictionary_encode().indices.to_numpy()
        if len(codes) == 0 or len(codes) == codes.max() + 1:
            return np.arange(len(codes))
        column = one_piece(self.table["entry"])
        names = column.dictionary.to_pylist()
        ordered = sorted((e.generation, e.name) for e in self.entries.values())
        rank = {name: number for number, (_, name) in enumerate(ordered)}
        ranks = np.array([rank.get(name, -1) for name in names])[column.indices.to_numpy()]
        order = np.lexsort((ranks, codes))
        return np.sort(order[np.append(np.diff(codes[order]) != 0, True)])

    def _in_order(self, rows: np.ndarray) -> pa.Table:
        """Return these rows (n,) of the table, each of whose columns is given up before the next one is copied.

        The records of an archive are most of a start's memory.
        """
        table, self.table = self.table, _COLUMNS.empty_table()
        columns, indices = table.columns, pa.array(rows)
        del table
        for number in range(len(columns)):
            columns[number] = one_piece(columns[number]).take(indices)
        return pa.Table.from_arrays(columns, schema=_COLUMNS)

    def _set(self, table: pa.Table) -> None:
        self.table, self._current, self._valid = table, None, None

    def _pack(self) -> None:
        """Pack the entries that have a file each, if there are many."""
        prefix, suffix = len(schema.LEDGER) + 1, -len(".json")
        single = [name[prefix:suffix] for name in self.storage.names(schema.LEDGER, ".json")]
        single = [name for name in single if name in self.entries]
        if len(single) < _ENTRIES_PER_PACK:
            return
        packs = -(-len(single) // _ENTRIES_PER_PACK)
        position = {name: number for number, name in enumerate(single)}
        column = one_piece(self.table["entry"])
        places = np.array([position.get(name, -1) for name in column.dictionary.to_pylist()])[column.indices.to_numpy()]
        order = np.argsort(places, kind="stable")
        edges = np.searchsorted(places[order], np.arange(packs + 1) * _ENTRIES_PER_PACK)
        for number in range(packs):
            packed = single[number * _ENTRIES_PER_PACK : (number + 1) * _ENTRIES_PER_PACK]
            table = self.table.take(pa.array(order[edges[number] : edges[number + 1]]))
            sink = pa.BufferOutputStream()
            pq.write_table(record_columns.with_own_dictionaries(table), sink, compression="zstd")
            key = content_hash([(name, self.entries[name].generation) for name in packed])[:24]
            self.storage.write(f"{schema.LEDGER}/{key}{_PACKED}", memoryview(sink.getvalue()))
            self.storage.delete_many([f"{schema.LEDGER}/{name}.json" for name in packed])


def commit(
    storage: Storage,
    frames: pa.Table,
    events: pa.Table,
    videos: Sequence[VideoRecord],
    generation: int,
    rows_per_file: int,
) -> Entry:
    """Write the rows of videos in files of at most `rows_per_file` rows, then the entry that commits them."""
    name = content_hash([(r.video_id, r.decide_key, r.fingerprint, r.source_hash) for r in videos])[:24]
    frames_files = _write_all(storage, f"frames/{name}", frames, schema.schema_of(frames), rows_per_file)
    events_files = _write_all(storage, f"events/{name}", events, schema.EVENTS, rows_per_file)
    entry = Entry(name, generation, frames_files, events_files)
    fields = {
        "name": name, "generation": generation, "frames": entry.frames, "events": entry.events,
        "videos": [record.to_row() for record in videos],
    }  # fmt: skip
    storage.write(f"{schema.LEDGER}/{name}.json", json.dumps(fields, indent=1).encode())
    return entry


def read_all(storage: Storage, names: Sequence[str]) -> pa.Table:
    """Return the rows of the files of an entry, in order. An entry has at least one file; all have the same columns."""
    return pa.concat_tables([read_stored(storage, name) for name in names])


def _tables(storage: Storage) -> Iterator[pa.Table]:
    """Yield the records of all entries, with the rows of an entry together."""
    names = storage.names(schema.LEDGER)
    with ThreadPoolExecutor(_READING_THREADS) as pool:
        for some in _groups([name for name in names if name.endswith(".json")], _READ_TOGETHER):
            rows: list[dict[str, Any]] = []
            for name, data in zip(some, pool.map(storage.read, some), strict=True):
                with damage_named(storage.path(name)):
                    rows += _parsed(data)
            yield record_columns.table_of_rows(rows, _COLUMNS)
        for some in _groups([name for name in names if name.endswith(_PACKED)], _READING_THREADS):
            for name, data in zip(some, pool.map(storage.read, some), strict=True):
                with damage_named(storage.path(name)):
                    table = read_parquet(data)  # not in the threads: Arrow keeps the memory of each
                yield table
    for name in names:
        if name.endswith(_OLD_PACKED):
            data = storage.read(name)
            with damage_named(storage.path(name)):
                rows = [row for entry in gzip.decompress(data).splitlines() for row in _parsed(entry)]
            yield record_columns.table_of_rows(rows, _COLUMNS)


def _groups(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (names[first : first + size] for first in range(0, len(names), size))


def _parsed(entry: bytes) -> list[dict[str, Any]]:
    """Return the rows of the records of an entry, the text of its JSON."""
    fields = json.loads(entry)
    own = Entry(fields["name"], fields["generation"], len(fields["frames"]), len(fields["events"]))
    return _rows_of(own, fields["videos"])


def _table_of(entry: Entry, rows: Sequence[dict[str, Any]]) -> pa.Table:
    return record_columns.table_of_rows(_rows_of(entry, rows), _COLUMNS)


def _rows_of(entry: Entry, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the records of an entry."""
    own = {
        "entry": entry.name, "generation": entry.generation, "frames": entry.frames_files, "events": entry.events_files
    }  # fmt: skip
    return [row | own for row in rows]


def _entries_in(table: pa.Table) -> Iterator[tuple[Entry, int, int]]:
    """Yield each entry of a table in which its rows are together, and their first row and the row after the last."""
    codes = one_piece(table["entry"]).indices.to_numpy()
    edges = [*np.flatnonzero(np.diff(codes, prepend=-1)).tolist(), len(table)] if len(table) else []
    columns = [table[name].take(pa.array(edges[:-1], pa.int64())).to_pylist() for name in _ENTRY_COLUMNS]
    for (start, stop), *fields in zip(pairwise(edges), *columns, strict=True):
        yield Entry(*fields), start, stop


def _names_of(entries: Sequence[Entry]) -> Iterator[tuple[np.ndarray, pa.Array]]:
    """Yield the names of all files of some entries, with the positions of their entries."""
    for kind, files in (("frames", [e.frames_files for e in entries]), ("events", [e.events_files for e in entries])):
        counts = np.array(files, int)
        for number in range(counts.max(initial=0)):
            rows = np.flatnonzero(counts > number)
            yield rows, _texts(_file(f"{kind}/{entries[row].name}", number) for row in rows.tolist())


def _with_files(entries: Sequence[Entry], written: pa.Array) -> np.ndarray:
    """Return for each entry (n,) whether all of its files are written."""
    is_complete = np.ones(len(entries), bool)
    for rows, names in _names_of(entries):
        is_complete[rows] &= pc.is_in(names, value_set=written).to_numpy(zero_copy_only=False)
    return is_complete


def _texts(texts: Iterable[str]) -> pa.Array:
    return pa.array(texts, pa.string())


def _files(stem: str, count: int) -> list[str]:
    return [_file(stem, number) for number in range(count)]


def _file(stem: str, number: int) -> str:
    return f"{stem}-{number:05d}.parquet"


def _write_all(storage: Storage, stem: str, table: pa.Table, table_schema: pa.Schema, rows_per_file: int) -> int:
    """Write a table in files of at most `rows_per_file` rows, at least one. Return their number."""
    names = _files(stem, max(1, -(-len(table) // rows_per_file)))
    for number, name in enumerate(names):
        rows = table.slice(number * rows_per_file, rows_per_file)
        storage.write(name, schema.to_parquet(rows, table_schema))
    return len(names)


def _only(table: pa.Table, video_ids: pa.Array) -> pa.Table:
    return table.filter(pc.is_in(table["video_id"], value_set=video_ids))
