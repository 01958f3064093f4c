"""The records of videos in Arrow columns, about 400 bytes each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import pyarrow as pa

from aupipe.annotation.schema import VIDEOS
from aupipe.annotation.video_record import REPEATING, VideoRecord

REPEATED_TEXT = pa.dictionary(pa.int32(), pa.string())
_TYPES = (
    {"losses": pa.list_(pa.string())}
    | {field.name: field.type for field in VIDEOS}
    | dict.fromkeys(REPEATING, REPEATED_TEXT)
)
# The fields of `VideoRecord`. `source_hash` is null if it is the fingerprint.
RECORDS = pa.schema([(field.name, _TYPES.get(field.name, pa.string())) for field in fields(VideoRecord)])


def to_table(records: Iterable[VideoRecord]) -> pa.Table:
    """Return a table of RECORDS."""
    return table_of_rows([record.to_row() for record in records])


def table_of_rows(rows: list[dict[str, Any]], schema: pa.Schema = RECORDS) -> pa.Table:
    """Return a table of rows as those of `VideoRecord.to_row`, which are changed. `schema`: RECORDS, or with more."""
    for row in rows:
        if row.get("source_hash") == row.get("fingerprint"):
            row.pop("source_hash", None)
    return pa.Table.from_pylist(rows, schema)


def to_records(table: pa.Table) -> list[VideoRecord]:
    """Return the records of a table of RECORDS, which may have further columns."""
    return [VideoRecord.from_row(row) for row in table.to_pylist()]


def concat(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """Return the rows of all tables, with one dictionary for each column of repeated texts."""
    whole = pa.concat_tables([schema.empty_table(), *tables], promote_options="default")  # of versions without a column
    return whole.unify_dictionaries()


def with_own_dictionaries(table: pa.Table) -> pa.Table:
    """Return the table with no text in its dictionaries that its rows do not have.

    Rows that are taken from a table keep its dictionaries, which name all entries of an archive.
    """
    for number, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            own = table[number].cast(field.type.value_type).combine_chunks().dictionary_encode()
            table = table.set_column(number, field, own)
    return table
