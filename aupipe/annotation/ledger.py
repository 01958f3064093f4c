"""The committed state of an output folder: the valid record of each video, and the entry with its rows.

Entries are packed once there are many, because an archive of a million clips has a hundred thousand of them, which each
start reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe.annotation import ledger_entries, record_columns
from aupipe.annotation.inputs import Inputs
from aupipe.annotation.ledger_entries import COLUMNS, Entry
from aupipe.annotation.video_record import VideoRecord
from aupipe.annotation.video_rows import VideoRows, one_piece, order_of, rows_of, take_rows
from aupipe.parquet import read_stored
from aupipe.storage import Storage

_ENTRIES_PER_PACK = 1000  # from this number on, entries are packed


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

    def made_under(self, head_key: str, decide_key: str) -> pa.ChunkedArray:
        """Return whether each row of the table is of a video whose rows were made under these keys."""
        return pc.and_(pc.equal(self.table["head_key"], head_key), pc.equal(self.table["decide_key"], decide_key))

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
    table: pa.Table = field(default_factory=COLUMNS.empty_table)
    # names of the files with rows
    _written: pa.Array = field(default_factory=lambda: pa.array((), pa.string()), repr=False)
    _current: Committed | None = field(default=None, repr=False)
    _valid: np.ndarray | None = field(default=None, repr=False)

    @classmethod
    def read(cls, storage: Storage) -> Ledger:
        """Read the committed entries. An entry with missing files (deleted by hand, a power cut) is skipped."""
        written = pa.array([*storage.names("frames"), *storage.names("events")], pa.string())
        tables = list(ledger_entries.read_tables(storage))
        firsts = np.cumsum([0, *map(len, tables)])
        found = [
            (entry, first + start, first + stop)
            for table, first in zip(tables, firsts.tolist(), strict=False)
            for entry, start, stop in ledger_entries.entries_in(table)
        ]
        is_complete = ledger_entries.have_files([entry for entry, _, _ in found], written)
        latest: dict[str, tuple[Entry, int, int]] = {}  # the rows of each entry
        for entry, start, stop in compress(found, is_complete):
            before = latest.get(entry.name)
            # A packed entry may have been replaced and, later, written again.
            if before is None or before[0].generation < entry.generation:
                latest[entry.name] = entry, start, stop
        table = record_columns.concat(tables, COLUMNS)
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
        self._set(record_columns.concat([self.table, ledger_entries.table_of(entry, records)], COLUMNS))

    def renew(self, inputs: Inputs) -> None:
        """Commit the URI and the signature of files that were touched or moved; the rows of their videos stay."""
        if not len(inputs):
            return
        found = rows_of(inputs.ids, one_piece(self.table["video_id"]))
        is_renewed, indices = pa.array(found >= 0), pa.array(np.maximum(found, 0))
        table = self.table
        for name, new in (("uri", inputs.redacted_uris()), ("stat_signature", one_piece(inputs.table["signature"]))):
            column = pc.if_else(is_renewed, new.take(indices), table[name])
            table = table.set_column(table.schema.get_field_index(name), COLUMNS.field(name), column)
        self._set(table)
        codes = one_piece(table["entry"]).indices.to_numpy()
        rows = np.flatnonzero(np.isin(codes, codes[found >= 0]))
        rows = rows[np.argsort(codes[rows], kind="stable")]
        ledger_entries.replace_records(self.storage, table.take(pa.array(rows)))

    def reconcile(self, keep: Collection[str] | None = None) -> None:
        """Delete rows that a later run replaced, rows of videos not in `keep`, and files that no entry names."""
        self._replace(keep)
        named = ledger_entries.file_names(self.entries.values())
        unnamed = self._written.filter(pc.invert(pc.is_in(self._written, value_set=named))).to_pylist()
        self.storage.delete_many([name for name in unnamed if ledger_entries.OURS.fullmatch(name)])
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
        replaced_entries = [(self.entries.pop(name), valid) for name, valid in by_entry.items()]
        for entry, valid in replaced_entries:
            if valid:
                ids = pa.array([record.video_id for record in valid])
                frames = _only(ledger_entries.read_all(self.storage, entry.frames), ids)
                events = _only(ledger_entries.read_all(self.storage, entry.events), ids)
                rows_per_file = max(1, *(len(read_stored(self.storage, n)) for n in entry.frames))
                rest_entry = ledger_entries.commit(self.storage, frames, events, valid, entry.generation, rows_per_file)
                self.add(rest_entry, valid)
        # If a run was killed here, its new entries and the old ones are both replaced now, the new ones by themselves.
        ledger_entries.delete(self.storage, [name for name in by_entry if name not in self.entries])

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
        table, self.table = self.table, COLUMNS.empty_table()
        columns, indices = table.columns, pa.array(rows)
        del table
        for number in range(len(columns)):
            columns[number] = one_piece(columns[number]).take(indices)
        return pa.Table.from_arrays(columns, schema=COLUMNS)

    def _set(self, table: pa.Table) -> None:
        self.table, self._current, self._valid = table, None, None

    def _pack(self) -> None:
        """Pack the entries that have a file each, if there are many."""
        single = [name for name in ledger_entries.single_names(self.storage) if name in self.entries]
        if len(single) < _ENTRIES_PER_PACK:
            return
        packs = -(-len(single) // _ENTRIES_PER_PACK)
        position = {name: number for number, name in enumerate(single)}
        column = one_piece(self.table["entry"])
        places = np.array([position.get(name, -1) for name in column.dictionary.to_pylist()])[column.indices.to_numpy()]
        order = np.argsort(places, kind="stable")
        edges = np.searchsorted(places[order], np.arange(packs + 1) * _ENTRIES_PER_PACK)
        for number in range(packs):
            rows = order[edges[number] : edges[number + 1]]
            ledger_entries.pack(self.storage, self.table.take(pa.array(rows)))


def _only(table: pa.Table, video_ids: pa.Array) -> pa.Table:
    return table.filter(pc.is_in(table["video_id"], value_set=video_ids))
