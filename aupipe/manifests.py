"""The users' manifests, tables as CSV, TSV, JSON lines or Parquet, read by one set of rules.

* Text is UTF-8, or the encoding of its byte order mark (UTF-16, UTF-32). Text in another encoding is an error, because
  a wrong guess of the encoding would silently change names.
* The delimiter is the one of comma, semicolon, tab and bar by which the required column is a cell of the header. A
  first line `sep=;`, as Excel writes it, takes precedence. If it is not the comma, numbers may have a decimal comma.
* Lines before the header that begin with # are skipped, as `#TYPE …` by Windows PowerShell.
* Columns without a name are ignored: an index written by pandas, and empty columns at the end. Two columns of the same
  name are an error. The names of columns that aupipe reads are case-insensitive.
* A row without any content is skipped. A row with too few or too many cells is an error.
* In the columns that aupipe reads, empty cells and the words of `MISSING` are missing values.

Every error names the file, the line as an editor counts it (in Parquet the row), and the value.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from aupipe.errors import ManifestError
from aupipe.parquet import read_parquet
from aupipe.storage import Storage, is_uri, local_path

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
MISSING = frozenset(  # in any case
    {"", "nan", "-nan", "null", "none", "na", "n/a", "#n/a", "#na", "<na>", "nat"}
    | {".", "#null!", "<missing>"}  # Stata and SAS, SPSS, MATLAB
)

_DELIMITERS = (",", ";", "\t", "|")
_SEP_LINE = re.compile(r'"?sep=(.)"?[ \t]*(\r\n|\n|\r)', re.IGNORECASE)
_COMMENT = re.compile(r"#[^\r\n]*(\r\n|\n|\r)")
_LINE_ENDS = re.compile(r"\r\n|\n|\r")  # str.splitlines also splits at characters that a cell may contain
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_WINDOWS_PATH = re.compile(r"/?[A-Za-z]:[\\/]|\\\\")  # file:///C:/a.mp4 becomes /C:/a.mp4
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # pandas' name of an unnamed index in Parquet
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, because it begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FOREIGN_FILES = (
    (b"PK\x03\x04", "an Excel workbook or ZIP file", "save it as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook of before 2007", "save it as CSV (UTF-8)"),
    (b"\x1f\x8b", "a gzip file", "unpack it with gunzip"),
    (b"PAR1", "a Parquet file", "name it .parquet"),
)


@dataclass(frozen=True)
class TextTable:
    """A table of text cells, stripped of surrounding space. A missing cell is "".

    Attributes:
        columns: the cells of each named column, by name.
        numbers: the line of each row in its file, 1-based; in Parquet the number of the row.
        decimal_comma: whether a number may be written as 0,2.
    """

    storage: Storage
    name: str
    columns: dict[str, list[str]]
    numbers: list[int]
    decimal_comma: bool = False

    def __len__(self) -> int:
        return len(self.numbers)

    def where(self, row: int) -> str:
        """Return the file and line of a row, for messages."""
        path, number = self.storage.path(self.name), self.numbers[row]
        return f"{path}: row {number}" if self.name.lower().endswith(".parquet") else f"{path}:{number}"

    def text(self, column: str, row: int) -> str:
        """Return a cell of a column that aupipe reads, "" if its value is missing or there is no such column."""
        values = self.columns.get(column)
        return "" if values is None or is_missing(values[row]) else values[row]

    def texts(self, column: str) -> list[str]:
        """Return `text` of every row."""
        return [self.text(column, row) for row in range(len(self))]

    def place(self, column: str, row: int) -> str:
        """Return the path or URI in a cell: file: URIs as plain paths, ~ expanded; "" if it is missing.

        Raises:
            ManifestError: it is a Windows path.
        """
        cell = self.text(column, row)
        place = os.path.expanduser(local_path(cell))
        resolved = place if is_uri(place) or os.path.isabs(place) else self.storage.path(place)
        is_windows = _WINDOWS_PATH.match(place) is not None or ("\\" in place and not is_uri(resolved))
        if is_windows and not os.path.lexists(resolved):  # a file name on this machine may contain backslashes
            raise ManifestError(
                f"{self.where(row)} has {column} {cell!r}, a Windows path that does not exist on this machine; "
                "fix: write the path as it is on this machine, with /"
            )
        return place

    def number(self, column: str, row: int) -> float | None:
        """Return a cell as a number, as `parse_number` does; None if there is no such column."""
        return parse_number(self.text(column, row), self.decimal_comma)


def is_missing(text: str) -> bool:
    """Return whether the text of a cell means that the value is missing."""
    return text.lower() in MISSING


def parse_number(text: str, decimal_comma: bool = False) -> float | None:
    """Return the number in a cell, None if its value is missing.

    Raises:
        ValueError: it is neither.
    """
    if is_missing(text):
        return None
    plain = text.replace(",", ".") if decimal_comma and text.count(",") == 1 and "." not in text else text
    if plain.lower().lstrip("+-") in {"inf", "infinity"}:
        return -math.inf if plain.startswith("-") else math.inf
    if not _NUMBER.fullmatch(plain):  # float() also accepts 1_000 and digits of other scripts
        raise ValueError(f"not a number: {text!r}")
    return float(plain)


def split_lines(text: str) -> list[str]:
    """Return the lines of a text as editors count them. A line break at the end does not start another line."""
    lines = _LINE_ENDS.split(text)
    return lines[:-1] if lines[-1] == "" else lines


def decode_text(data: bytes, where: str, errors: str = "strict") -> str:
    """Return the text of a file.

    Args:
        errors: the treatment of invalid bytes, as in `bytes.decode`.

    Raises:
        ManifestError: its encoding is unknown. The message has the cause and the fix.
    """
    for magic, kind, fix in _FOREIGN_FILES:
        if data.startswith(magic):
            raise ManifestError(f"{where} is {kind}, not text; fix: {fix}")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data:
        zeros = data[: len(data) // 2 * 2]
        guess = next((n for n, at in (("UTF-16LE", 1), ("UTF-16BE", 0)) if zeros[at::2].count(0) > len(zeros) / 4), "")
        cause = f"looks like {guess} without a byte order mark" if guess else "contains zero bytes"
        fix = f"save it as UTF-8 (iconv -f {guess} -t UTF-8)" if guess else "save it as text in UTF-8"
        raise ManifestError(f"{where} {cause}, and is not read as text; fix: {fix}")
    try:
        text = data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            marked = encoding.upper().removesuffix("-SIG")
            raise ManifestError(
                f"{where} has the byte order mark of {marked}, but byte {error.start} is invalid in it; "
                "fix: save the file again, as UTF-8"
            ) from None
        before = data[: error.start]
        line = len(_LINE_ENDS.findall(before.decode("utf-8"))) + 1
        begin = max(before.rfind(b"\n"), before.rfind(b"\r")) + 1
        excerpt = re.split(rb"[\r\n]", data[begin : error.start + 40])[0].decode("cp1252", "replace")
        raise ManifestError(
            f"{where}:{line} is not UTF-8: {excerpt!r} if it is Windows-1252 (Latin-1), which is not assumed; "
            "fix: save the file as UTF-8 (iconv -f WINDOWS-1252 -t UTF-8)"
        ) from None
    if "\0" in text:
        raise ManifestError(f"{where}:{text[: text.index(chr(0))].count(chr(10)) + 1} contains a zero character")
    # MS-DOS marks the end of a text with \x1a, and some programs write the byte order mark twice.
    return text.removesuffix("\x1a").removeprefix("\ufeff")


def read_table(storage: Storage, name: str, required: str, optional: Collection[str] = ()) -> TextTable:
    """Read a manifest in the format of its suffix.

    Args:
        required: the required column, which has a value in every row.
        optional: further columns that aupipe reads. Their names are case-insensitive, and their values are not nested.

    Raises:
        ManifestError: it breaks the rules above. The message has the file, line, value and reason.
    """
    where = storage.path(name)
    recognized = {required, *optional}
    kind = name.lower()
    if kind.endswith(".parquet"):
        names, rows, numbers = _parquet_rows(storage, name, recognized)
        delimiter = ","
    else:
        data = _read(storage, name)
        text = decode_text(data, where)
        if kind.endswith(".jsonl"):
            names, rows, numbers = _json_rows(text, where, recognized)
            delimiter = ","
        else:
            names, rows, numbers, delimiter = _csv_rows(text, where, required, tabs_first=kind.endswith(".tsv"))
    names = [_canonical(column, recognized) for column in names]
    twice = [column for column, count in Counter(names).items() if column and count > 1]
    if twice:
        raise ManifestError(f"{where} has {names.count(twice[0])} columns named {twice[0]!r}; fix: rename one of them")
    if required not in names:
        raise _no_column(where, required, names)
    columns = {column: [row[at] for row in rows] for at, column in enumerate(names) if column}
    table = TextTable(storage, name, columns, numbers, decimal_comma=delimiter != ",")
    for row, value in enumerate(columns[required]):
        if is_missing(value):
            found = f" ({value!r})" if value else ""
            raise ManifestError(f"{table.where(row)} has no {required}{found}; fix: fill the cell, or delete the row")
    return table


def _no_column(where: str, required: str, names: Sequence[str]) -> ManifestError:
    named = ", ".join(filter(None, names))
    problem = f"has no column `{required}`, only {named}" if named else "cannot be read: it is empty"
    return ManifestError(f"{where} {problem}; a column `{required}` is needed")


def _canonical(column: str, recognized: Collection[str]) -> str:
    """Return the name of a column in aupipe's spelling; "" for an unnamed index."""
    column = column.strip()
    if _PANDAS_INDEX.fullmatch(column):
        return ""
    return next((name for name in recognized if name.lower() == column.lower()), column)


def _read(storage: Storage, name: str) -> bytes:
    try:
        return storage.read(name)
    except (OSError, BotoCoreError) as error:
        raise _unreadable(storage.path(name), error) from None


def _unreadable(where: str, error: Exception) -> ManifestError:
    if isinstance(error, FileNotFoundError):
        return ManifestError(f"{where}: no such file")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ManifestError(f"{where} cannot be read: {' '.join(reason.split())}")


def _csv_rows(
    text: str, where: str, required: str, tabs_first: bool
) -> tuple[list[str], list[list[str]], list[int], str]:
    """Return the header's names, the cells and the line of each row with content, and the delimiter."""
    skipped = 0
    candidates: Sequence[str] = ("\t", *_DELIMITERS) if tabs_first else _DELIMITERS
    if sep := _SEP_LINE.match(text):
        candidates, skipped, text = sep[1], 1, text[sep.end() :]
    while (comment := _COMMENT.match(text)) and not _is_header(comment[0], required, candidates):
        skipped, text = skipped + 1, text[comment.end() :]
    delimiter, names = _header(text, where, required, candidates, skipped)
    records = _records(text, where, delimiter, skipped)
    next(records)
    rows, numbers = [], []
    for line, cells in records:
        if (len(cells) < len(names) and any(names[len(cells) :])) or any(cells[len(names) :]):
            raise ManifestError(
                f"{where}:{line} has {len(cells)} cells, the header {len(names)}: {delimiter.join(cells)[:80]!r}; "
                f'fix: give every row as many, with "" around a cell that contains {_NAMES.get(delimiter, delimiter)}'
            )
        rows.append((cells + [""] * len(names))[: len(names)])
        numbers.append(line)
    return names, rows, numbers, delimiter


_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab"}


def _header(text: str, where: str, required: str, candidates: Sequence[str], skipped: int) -> tuple[str, list[str]]:
    """Return the delimiter by which the required column is a cell of the header, and all cells of the header."""
    found: list[list[str]] = []
    refused: ManifestError | None = None
    for delimiter in candidates:
        try:
            _, names = next(_records(text, where, delimiter, skipped))
        except ManifestError as error:  # quotes that are unbalanced for this delimiter
            refused = refused or error
            continue
        except StopIteration:
            raise _no_column(where, required, ()) from None
        if required.lower() in (name.lower() for name in names):
            return delimiter, names
        found.append(names)
    if not found and refused is not None:
        raise refused
    raise _no_column(where, required, max(found, key=len))


def _is_header(line: str, required: str, candidates: Sequence[str]) -> bool:
    try:
        _header(line, "", required, candidates, 0)
    except ManifestError:
        return False
    return True


def _records(text: str, where: str, delimiter: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the cells of each record that has content."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        line = skipped + reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise ManifestError(f'{where}:{line} has quotes (") that do not pair: {error}') from None
        if any(cells):
            yield line, cells


def _json_rows(text: str, where: str, recognized: Collection[str]) -> tuple[list[str], list[list[str]], list[int]]:
    """Return all keys of the objects, one per line, and the cells and line of each object."""
    if text.lstrip().startswith("["):
        raise ManifestError(f"{where} is a JSON array; one object a line is needed; fix: jq -c '.[]'")
    rows: list[dict[str, str]] = []
    numbers: list[int] = []
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{where}:{number} is not JSON: {error}: {line[:80]!r}") from None
        if not isinstance(row, dict):
            raise ManifestError(f'{where}:{number} is no JSON object, as in {{"uri": "a.mp4"}}: {line[:80]!r}')
        cells = {key: _cell(value, key, f"{where}:{number}", recognized) for key, value in row.items()}
        if any(cells.values()):
            rows.append(cells)
            numbers.append(number)
    names = list(dict.fromkeys(key for cells in rows for key in cells))
    return names, [[cells.get(key, "") for key in names] for cells in rows], numbers


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a mapping. Raise ValueError for a duplicate key, which JSON permits."""
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"the key {twice[0]!r} is given twice")
    return dict(pairs)


def _parquet_rows(
    storage: Storage, name: str, recognized: Collection[str]
) -> tuple[list[str], list[list[str]], list[int]]:
    where = storage.path(name)
    try:
        with storage.open(name) as file:
            marks = [file.read(4)]
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4))
            marks.append(file.read(4))
            if marks != [b"PAR1", b"PAR1"]:
                problem = "it is truncated" if marks[0] == b"PAR1" else f"it begins with {marks[0]!r}"
                raise ManifestError(
                    f"{where} is not a Parquet file: {problem}; fix: write it again, or name it .csv or .jsonl"
                )
            file.seek(0)
            table = read_parquet(file)  # pq.read_table cannot read two columns of one name
    except (OSError, BotoCoreError, pa.ArrowException) as error:
        # Arrow also raises OSError, without an errno, for invalid bytes.
        if isinstance(error, pa.ArrowException) or (isinstance(error, OSError) and error.errno is None):
            detail = " ".join(str(error).split())
            raise ManifestError(f"{where} is a damaged Parquet file ({detail}); fix: write it again") from None
        raise _unreadable(where, error) from None
    columns = []
    for column, values in zip(table.column_names, table.columns, strict=True):
        try:
            # Times are cast to text, because Python's times have no nanoseconds.
            temporal = pa.types.is_timestamp(values.type) or pa.types.is_time(values.type)
            cells = (values.cast(pa.string()) if temporal else values).to_pylist()
        except (pa.ArrowException, ValueError, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise ManifestError(f"{where}: column {column!r} ({values.type}) is not text: {reason}") from None
        columns.append([_cell(v, column, f"{where}: row {row}", recognized) for row, v in enumerate(cells, start=1)])
    rows = [list(row) for row in zip(*columns, strict=True)]
    numbers = [number for number, row in enumerate(rows, start=1) if any(row)]
    return list(table.column_names), [rows[number - 1] for number in numbers], numbers


def _cell(value: object, column: str, where: str, recognized: Collection[str]) -> str:
    """Return a value of JSON or Parquet as text, "" for null and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, dict | list):
        text = json.dumps(value, ensure_ascii=False, default=repr)
        if _canonical(column, recognized) in recognized:
            raise ManifestError(f"{where} has {column} {text[:80]!r}; a plain value is needed, no object or list")
    elif isinstance(value, bytes):
        text = value.decode("utf-8", "backslashreplace")
    else:
        text = str(value).strip()
    if "\0" in text or (not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)):
        raise ManifestError(f"{where} has {column} {text[:80]!r}: it contains a character that is not text")
    return text
