"""The entries of the ledger in the files of an output folder.

    OUT/frames/NAME-00000.parquet …   OUT/events/NAME-00000.parquet     data; NAME derives from the keys of its content
    OUT/_work/ledger/NAME.json                                          written last; commits the files that it names
    OUT/_work/ledger/NAME.parquet                                       many entries, one row per video

Writing is idempotent. A file that no entry names is a leftover of a killed run.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from aupipe.annotation import record_columns, schema
from aupipe.annotation.record_columns import RECORDS, REPEATED_TEXT
from aupipe.annotation.settings import content_hash
from aupipe.annotation.video_record import VideoRecord
from aupipe.annotation.video_rows import one_piece
from aupipe.parquet import damage_named, read_parquet, read_stored
from aupipe.storage import Storage

_PACKED, _OLD_PACKED = ".parquet", ".jsonl.gz"  # the second of earlier versions
_READ_TOGETHER = 1024  # entries whose text is in memory
_READING_THREADS = 16
OURS = re.compile(r"(frames|events)/[0-9a-f]{24}-\d{5}\.parquet")  # the names of `commit`; no other file is deleted
# A row per record: its entry, the generation, and the number of files with its frames and with its events.
_ENTRY_COLUMNS = ("entry", "generation", "frames", "events")
COLUMNS = pa.schema([*RECORDS, ("entry", REPEATED_TEXT), *((name, pa.int32()) for name in _ENTRY_COLUMNS[1:])])


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


def single_names(storage: Storage) -> list[str]:
    """Return the names of the entries that have a file each."""
    prefix, suffix = len(schema.LEDGER) + 1, -len(".json")
    return [name[prefix:suffix] for name in storage.names(schema.LEDGER, ".json")]


def pack(storage: Storage, table: pa.Table) -> None:
    """Write the records of entries that have a file each into one file instead.

    Args:
        table: the records, as COLUMNS, with the rows of an entry together.
    """
    _write_pack(storage, table)
    _delete_single(storage, [entry.name for entry, _, _ in entries_in(table)])


def replace_records(storage: Storage, table: pa.Table) -> None:
    """Write other records of entries, whose names, generations and files of rows stay.

    A run that is killed in between leaves an entry twice, with former and other records. Both are of the same rows.

    Args:
        table: all records of these entries, as COLUMNS, with the rows of an entry together.
    """
    names = one_piece(table["entry"].cast(pa.string()))
    for pack_name, packed in _packs(storage, storage.names(schema.LEDGER)):
        former = packed["entry"].cast(pa.string())
        is_replaced = pc.is_in(former, value_set=names)
        if not pc.any(is_replaced).as_py():
            continue
        own = table.filter(pc.is_in(names, value_set=one_piece(former.filter(is_replaced))))
        stay = packed.filter(pc.invert(is_replaced))
        if _write_pack(storage, record_columns.concat([own, stay], COLUMNS)) != pack_name:
            storage.delete(pack_name)
    singles = table.filter(pc.is_in(names, value_set=pa.array(single_names(storage), pa.string())))
    if len(singles):
        pack(storage, singles)


def delete(storage: Storage, names: Collection[str]) -> None:
    """Delete entries with these names. Packs that hold some of them are written again without them."""
    _delete_single(storage, names)
    deleted = pa.array([*names], pa.string())
    for pack_name, packed in _packs(storage, storage.names(schema.LEDGER)):
        stay = packed.filter(pc.invert(pc.is_in(packed["entry"].cast(pa.string()), deleted)))
        if len(stay) == len(packed):
            continue
        if len(stay):
            _write_pack(storage, record_columns.concat([stay], COLUMNS))
        storage.delete(pack_name)


def read_all(storage: Storage, names: Sequence[str]) -> pa.Table:
    """Return the rows of the files of an entry, in order. An entry has at least one file; all have the same columns."""
    return pa.concat_tables([read_stored(storage, name) for name in names])


def read_tables(storage: Storage) -> Iterator[pa.Table]:
    """Yield the records of all entries, as COLUMNS, with the rows of an entry together."""
    names = storage.names(schema.LEDGER)
    with ThreadPoolExecutor(_READING_THREADS) as pool:
        for some in _groups([name for name in names if name.endswith(".json")], _READ_TOGETHER):
            rows: list[dict[str, Any]] = []
            for name, data in zip(some, pool.map(storage.read, some), strict=True):
                with damage_named(storage.path(name)):
                    rows += _parsed(data)
            yield record_columns.table_of_rows(rows, COLUMNS)
    for _, table in _packs(storage, names):
        yield table


def table_of(entry: Entry, records: Iterable[VideoRecord]) -> pa.Table:
    """Return the records of an entry, as COLUMNS."""
    return record_columns.table_of_rows(_rows_of(entry, [record.to_row() for record in records]), COLUMNS)


def entries_in(table: pa.Table) -> Iterator[tuple[Entry, int, int]]:
    """Yield each entry of a table in which its rows are together, and their first row and the row after the last."""
    codes = one_piece(table["entry"]).indices.to_numpy()
    edges = [*np.flatnonzero(np.diff(codes, prepend=-1)).tolist(), len(table)] if len(table) else []
    columns = [table[name].take(pa.array(edges[:-1], pa.int64())).to_pylist() for name in _ENTRY_COLUMNS]
    for (start, stop), *fields in zip(pairwise(edges), *columns, strict=True):
        yield Entry(*fields), start, stop


def file_names(entries: Iterable[Entry]) -> pa.ChunkedArray:
    """Return the names of all files of some entries."""
    return pa.chunked_array([names for _, names in _names_of([*entries])], pa.string())


def have_files(entries: Sequence[Entry], written: pa.Array) -> np.ndarray:
    """Return for each entry (n,) whether all of its files are written."""
    is_complete = np.ones(len(entries), bool)
    for rows, names in _names_of(entries):
        is_complete[rows] &= pc.is_in(names, value_set=written).to_numpy(zero_copy_only=False)
    return is_complete


def _packs(storage: Storage, names: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """Yield the names and records of the packs among these files."""
    with ThreadPoolExecutor(_READING_THREADS) as pool:
        for some in _groups([name for name in names if name.endswith(_PACKED)], _READING_THREADS):
            for name, data in zip(some, pool.map(storage.read, some), strict=True):
                with damage_named(storage.path(name)):
                    table = read_parquet(data)  # not in the threads: Arrow keeps the memory of each
                yield name, table
    for name in names:
        if name.endswith(_OLD_PACKED):
            data = storage.read(name)
            with damage_named(storage.path(name)):
                rows = [row for entry in gzip.decompress(data).splitlines() for row in _parsed(entry)]
            yield name, record_columns.table_of_rows(rows, COLUMNS)


def _write_pack(storage: Storage, table: pa.Table) -> str:
    """Write the records of some entries into one file. Return its name."""
    entries = [entry for entry, _, _ in entries_in(table)]
    sink = pa.BufferOutputStream()
    pq.write_table(record_columns.with_own_dictionaries(table), sink, compression="zstd")
    key = content_hash([(entry.name, entry.generation) for entry in entries])[:24]
    name = f"{schema.LEDGER}/{key}{_PACKED}"
    storage.write(name, memoryview(sink.getvalue()))
    return name


def _delete_single(storage: Storage, names: Iterable[str]) -> None:
    storage.delete_many([f"{schema.LEDGER}/{name}.json" for name in names])


def _groups(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (names[first : first + size] for first in range(0, len(names), size))


def _parsed(entry: bytes) -> list[dict[str, Any]]:
    """Return the rows of the records of an entry, the text of its JSON."""
    fields = json.loads(entry)
    own = Entry(fields["name"], fields["generation"], len(fields["frames"]), len(fields["events"]))
    return _rows_of(own, fields["videos"])


def _rows_of(entry: Entry, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the records of an entry."""
    own = {
        "entry": entry.name, "generation": entry.generation, "frames": entry.frames_files, "events": entry.events_files
    }  # fmt: skip
    return [row | own for row in rows]


def _names_of(entries: Sequence[Entry]) -> Iterator[tuple[np.ndarray, pa.Array]]:
    """Yield the names of all files of some entries, with the positions of their entries."""
    for kind, files in (("frames", [e.frames_files for e in entries]), ("events", [e.events_files for e in entries])):
        counts = np.array(files, int)
        for number in range(counts.max(initial=0)):
            rows = np.flatnonzero(counts > number)
            yield rows, pa.array([_file(f"{kind}/{entries[row].name}", number) for row in rows.tolist()], pa.string())


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
