"""The rows of each video of an annotation, from the files that its ledger names."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pyarrow as pa
import pyarrow.dataset as ds

from aupipe.annotation import schema
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.ledger_entries import Entry
from aupipe.parquet import damage_named
from aupipe.storage import Storage, filesystem_of


class AnnotationTables:
    """The frames and events tables of an annotation.

    The ledger names the files of a video, because a run that was killed leaves former rows beside the new ones. Of a
    folder without a ledger, as of one that was copied in part, all files are read.
    """

    def __init__(self, source: Storage) -> None:
        self._source = source
        self._filesystem, self._base = filesystem_of(source.root)
        ledger = Ledger.read(source)
        self._committed = ledger.current()
        self._every = {} if ledger.entries else {name: source.names(name, ".parquet") for name in ("frames", "events")}
        self._dataset = lru_cache(2)(self._opened)  # The videos of an entry mostly follow one another.

    def frames(self, video_id: str) -> pa.Table:
        """Return the frames of a video; no row if there is none."""
        return self._rows("frames", schema.FRAMES, lambda entry: entry.frames, video_id)

    def events(self, video_id: str) -> pa.Table:
        """Return the events of a video; no row if there is none."""
        return self._rows("events", schema.EVENTS, lambda entry: entry.events, video_id)

    def _rows(self, folder: str, empty: pa.Schema, files_of: Callable[[Entry], list[str]], video_id: str) -> pa.Table:
        is_committed = video_id in self._committed
        names = files_of(self._committed[video_id][1]) if is_committed else self._every.get(folder, [])
        if not names:
            return empty.empty_table()
        with damage_named(self._source.path(folder)):
            return self._dataset(tuple(names)).to_table(filter=ds.field("video_id") == video_id)

    def _opened(self, names: tuple[str, ...]) -> ds.Dataset:
        return ds.dataset([f"{self._base}/{name}" for name in names], filesystem=self._filesystem, format="parquet")
