"""The committed state of an output folder: each entry names its files and holds the records of its videos.

    OUT/frames/NAME-00000.parquet …   OUT/events/NAME-00000.parquet     data; NAME derives from the keys of its content
    OUT/_work/ledger/NAME.json                                          written last; commits the files that it names
    OUT/_work/ledger/NAME.jsonl.gz                                      many entries, one per line

Writing is idempotent. A file that no entry names is a leftover of a killed run. Entries are packed once there are many,
because an archive of a million clips has a hundred thousand of them, which each start reads. A packed entry is replaced
by deleting the files that it names.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from aupipe.annotation import schema
from aupipe.annotation.settings import content_hash
from aupipe.annotation.video_record import VideoRecord
from aupipe.parquet import read_parquet
from aupipe.storage import Storage

_ENTRIES = "_work/ledger"
_PACKED = ".jsonl.gz"
_ENTRIES_PER_PACK = 1000  # from this number on, entries are packed
_READING_THREADS = 16
_OURS = re.compile(r"(frames|events)/[0-9a-f]{24}-\d{5}\.parquet")  # the names of `commit`; no other file is deleted


@dataclass(frozen=True)
class Entry:
    """One commit: records of videos, and the files with all their rows."""

    name: str
    generation: int  # of the run that wrote it; the latest entry of a video is valid
    frames: list[str]
    events: list[str]
    videos: list[VideoRecord]


@dataclass
class Ledger:
    """The committed state of one output folder."""

    storage: Storage
    entries: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def read(cls, storage: Storage) -> Ledger:
        """Read the committed entries. An entry with missing files (deleted by hand, a power cut) is skipped."""
        existing = {*storage.names("frames"), *storage.names("events")}
        entries = [e for e in _entries(storage) if existing.issuperset((*e.frames, *e.events))]
        # A packed entry may have been replaced and, later, written again.
        return cls(storage, {e.name: e for e in sorted(entries, key=lambda e: e.generation)})

    @property
    def next_generation(self) -> int:
        return 1 + max((entry.generation for entry in self.entries.values()), default=0)

    def current(self) -> dict[str, tuple[VideoRecord, Entry]]:
        """Return the valid record of each video_id, and the entry that holds its rows."""
        found: dict[str, tuple[VideoRecord, Entry]] = {}
        for entry in sorted(self.entries.values(), key=lambda e: (e.generation, e.name)):
            for record in entry.videos:
                found[record.video_id] = (record, entry)
        return found

    def reconcile(self, keep: Collection[str] | None = None) -> None:
        """Delete rows that a later run replaced, rows of videos not in `keep`, and files that no entry names."""
        current = self.current()
        replaced: list[str] = []
        for entry in list(self.entries.values()):
            valid = [r for r in entry.videos if current[r.video_id][1].name == entry.name]
            valid = [r for r in valid if keep is None or r.video_id in keep]
            if len(valid) == len(entry.videos):
                continue
            if valid:
                ids = pa.array([record.video_id for record in valid])
                frames = _only(read_all(self.storage, entry.frames), ids)
                events = _only(read_all(self.storage, entry.events), ids)
                rows_per_file = max(1, *(len(read_parquet(self.storage.read(n))) for n in entry.frames))
                rest = commit(self.storage, frames, events, valid, entry.generation, rows_per_file)
                self.entries[rest.name] = rest
            replaced.append(f"{_ENTRIES}/{entry.name}.json")
            del self.entries[entry.name]
        self.storage.delete_many(replaced)
        named = {name for entry in self.entries.values() for name in (*entry.frames, *entry.events)}
        written = [*self.storage.names("frames"), *self.storage.names("events")]
        self.storage.delete_many([name for name in written if name not in named and _OURS.fullmatch(name)])
        self.storage.delete_leftovers()
        self._pack()

    def _pack(self) -> None:
        """Pack the entries that have a file each, if there are many."""
        names = [f"{_ENTRIES}/{name}.json" for name in sorted(self.entries)]
        single = set(self.storage.names(_ENTRIES, ".json"))
        names = [name for name in names if name in single]
        for first in range(0, len(names) - _ENTRIES_PER_PACK + 1, _ENTRIES_PER_PACK):
            packed = names[first : first + _ENTRIES_PER_PACK]
            entries = [self.entries[name[len(_ENTRIES) + 1 : -len(".json")]] for name in packed]
            lines = b"\n".join(_to_json(entry) for entry in entries)
            key = content_hash([(entry.name, entry.generation) for entry in entries])[:24]
            self.storage.write(f"{_ENTRIES}/{key}{_PACKED}", gzip.compress(lines, mtime=0))
            self.storage.delete_many(packed)


def commit(
    storage: Storage,
    frames: pa.Table,
    events: pa.Table,
    videos: Sequence[VideoRecord],
    generation: int,
    rows_per_file: int,
) -> Entry:
    """Write the rows of videos in files of at most `rows_per_file` rows, then the entry that commits them."""
    name = content_hash([(r.video_id, r.decide_key, r.fingerprint) for r in videos])[:24]
    entry = Entry(
        name, generation,
        _write_all(storage, f"frames/{name}", frames, schema.schema_of(frames), rows_per_file),
        _write_all(storage, f"events/{name}", events, schema.EVENTS, rows_per_file),
        list(videos),
    )  # fmt: skip
    storage.write(f"{_ENTRIES}/{name}.json", _to_json(entry, indent=1))
    return entry


def read_all(storage: Storage, names: Sequence[str]) -> pa.Table:
    """Return the rows of the files of an entry, in order. An entry has at least one file; all have the same columns."""
    return pa.concat_tables([read_parquet(storage.read(name)) for name in names])


def _entries(storage: Storage) -> Iterator[Entry]:
    names = storage.names(_ENTRIES)
    with ThreadPoolExecutor(_READING_THREADS) as pool:
        yield from map(_entry, pool.map(storage.read, [name for name in names if name.endswith(".json")]))
    for name in names:
        if name.endswith(_PACKED):
            yield from map(_entry, gzip.decompress(storage.read(name)).splitlines())


def _to_json(entry: Entry, indent: int | None = None) -> bytes:
    return json.dumps(entry.__dict__ | {"videos": [r.to_row() for r in entry.videos]}, indent=indent).encode()


def _entry(text: bytes) -> Entry:
    fields = json.loads(text)
    return Entry(**fields | {"videos": [VideoRecord.from_row(row) for row in fields["videos"]]})


def _write_all(storage: Storage, stem: str, table: pa.Table, table_schema: pa.Schema, rows_per_file: int) -> list[str]:
    names = []
    for number, start in enumerate(range(0, max(len(table), 1), rows_per_file)):
        names.append(f"{stem}-{number:05d}.parquet")
        storage.write(names[-1], schema.to_parquet(table.slice(start, rows_per_file), table_schema))
    return names


def _only(table: pa.Table, video_ids: pa.Array) -> pa.Table:
    return table.filter(pc.is_in(table["video_id"], value_set=video_ids))
