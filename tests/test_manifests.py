"""Manifests of Excel, pandas and R: read by one set of rules, or an error with the line."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aupipe.errors import ManifestError
from aupipe.manifests import TextTable, is_missing, parse_number, read_table
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


def table_of(folder: Path, data: bytes | str, name: str = "m.csv") -> TextTable:
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return read_table(Storage(folder), name, "uri", ("start_s", "end_s", "video_id"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "UTF-16BE", "utf-32"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_sets_the_encoding_and_all_line_ends_are_read(
    encoding: str, ends: str, tmp_path: Path
) -> None:
    text = ends.join(["uri,video_id", "a.mp4,Müller", "", "b.mp4,李", ""])
    mark = "\ufeff" if encoding == "UTF-16BE" else ""  # for the other encodings Python writes the mark
    table = table_of(tmp_path, (mark + text).encode(encoding))
    assert table.columns == {"uri": ["a.mp4", "b.mp4"], "video_id": ["Müller", "李"]}
    assert table.numbers == [2, 4]
    lines = ends.join(['{"uri": "a.mp4", "video_id": "Müller\u2028"}', "", '{"uri": "b.mp4"}'])
    table = table_of(tmp_path, (mark + lines).encode(encoding), "m.jsonl")
    assert table.columns == {"uri": ["a.mp4", "b.mp4"], "video_id": ["Müller", ""]}
    assert table.numbers == [1, 3]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("uri,video_id\r\na.mp4,Ä\r\nb.mp4,Müller\r\n".encode("cp1252"), r"m\.csv:2 is not UTF-8: 'a.mp4,Ä' if it is"),
        ("uri\na.mp4\n".encode("utf-16-le"), "looks like UTF-16LE without a byte order mark.*iconv -f UTF-16LE"),
        ("uri\na.mp4\n".encode("utf-16-be"), "looks like UTF-16BE without"),
        ("uri\na.mp4\n".encode("utf-16")[:-1], "byte order mark of UTF-16, but byte 20 is invalid"),
        (b"\xef\xbb\xbfuri\n\xff.mp4\n", "byte order mark of UTF-8, but byte 4 is invalid"),
        (b"uri\na\0.mp4\n" + b"b.mp4\n" * 9, "contains zero bytes"),
        (b"PK\x03\x04rest", "is an Excel workbook or ZIP file, not text; fix: save it as CSV"),
        (b"\x1f\x8b\x08rest", "is a gzip file"),
        (b"PAR1rest", "is a Parquet file, not text; fix: name it .parquet"),
        (b"", "is empty; a column `uri` is needed"),
        (b"\n , \n", "is empty"),
        ("\ufeff".encode("utf-16"), "is empty"),
    ],
)
def test_text_of_unknown_encoding_is_an_error_with_its_cause(data: bytes, message: str, tmp_path: Path) -> None:
    for name in ("m.csv", "m.jsonl"):
        if name == "m.jsonl" and data[:1] in b"\n":
            continue
        with pytest.raises(ManifestError, match=message.replace(r"m\.csv", name)):
            table_of(tmp_path, data, name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("uri;start_s;end_s\na, b.mp4;0,2;,5\n", "m.csv"),
        ('"uri";"start_s";"end_s"\n"a, b.mp4";"0,2";"0,5"\n', "m.csv"),
        ("uri\tstart_s\tend_s\na, b.mp4\t0.2\t0,50\n", "m.csv"),
        ("uri\tstart_s\tend_s\na, b.mp4\t0,2\t5e-1\n", "m.tsv"),
        ("uri|start_s|end_s\na, b.mp4|0,2|0.5\n", "m.csv"),
        ('sep=;\r\nuri;start_s;end_s\r\na, b.mp4;"0,2";+.5\r\n', "m.csv"),
        ('uri, "start_s", end_s\n"a, b.mp4", 0.2, 0.5\n', "m.csv"),
    ],
)
def test_the_header_determines_the_delimiter(text: str, name: str, tmp_path: Path) -> None:
    table = table_of(tmp_path, text, name)
    assert table.columns["uri"] == ["a, b.mp4"]
    assert [table.number(column, 0) for column in ("start_s", "end_s")] == [0.2, 0.5]
    assert table.numbers == [3 if text.startswith("sep") else 2]


def test_cells_of_a_single_column_are_not_split(tmp_path: Path) -> None:
    assert table_of(tmp_path, "uri\na;b.mp4\n").columns == {"uri": ["a;b.mp4"]}
    assert table_of(tmp_path, "URI, Start_S\na.mp4, 1\n").columns == {"uri": ["a.mp4"], "start_s": ["1"]}


@pytest.mark.parametrize(
    "text",
    [
        ",uri,note\n0,a.mp4,x\n1,b.mp4,\n",
        "uri,note,,\na.mp4,x,,\nb.mp4,,,\n",
        "uri,note,\na.mp4,x,left over\nb.mp4,\n",
        "uri,note\na.mp4,x,,,\n,\n\n ,  \nb.mp4,,\n,,,\n",
        '\n\nuri,note\n"a.mp4","x"\n"b.mp4",""',
    ],
)
def test_columns_without_a_name_and_rows_without_content_are_skipped(text: str, tmp_path: Path) -> None:
    assert table_of(tmp_path, text).columns == {"uri": ["a.mp4", "b.mp4"], "note": ["x", ""]}


def test_a_quoted_cell_may_contain_lines_and_rows_have_the_line_of_an_editor(tmp_path: Path) -> None:
    table = table_of(tmp_path, 'uri,note\r\na.mp4,"one\r\ntwo ""2"""\r\n\r\nb.mp4,x\r\n')
    assert table.columns["note"] == ['one\r\ntwo "2"', "x"]
    assert [table.where(row).rpartition("/")[2] for row in (0, 1)] == ["m.csv:2", "m.csv:5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uri,group,group\na.mp4,x,y\n", "has 2 columns named 'group'"),
        ("uri,URI\na.mp4,b.mp4\n", "has 2 columns named 'uri'"),
        ("name;x\na.mp4;1\n", "has no column `uri`, only name, x;"),
        (
            "uri,note\na.mp4,x\nmy, film.mp4,x\n",
            r"m\.csv:3 has 3 cells, the header 2: 'my,film.mp4,x'; fix: .* a comma",
        ),
        ("uri;note\na.mp4\n", r"m\.csv:2 has 1 cells, the header 2.* a semicolon"),
        ("uri,note\na.mp4,x\n,y\n", r"m\.csv:3 has no uri; fix"),
        ("uri,note\na.mp4,x\nNaN,y\n", r"m\.csv:3 has no uri \('NaN'\)"),
        ('uri,note\na.mp4,x\nb.mp4,"open\nc.mp4,y\n', r"m\.csv:3 has quotes"),
        ('uri,note\n"a" b.mp4,x\n', r"m\.csv:2 has quotes"),
        ('uri,note\na.mp4,"' + "x" * 200_000 + '"\n', r"m\.csv:2 has quotes.*field limit"),
    ],
)
def test_an_invalid_line_is_reported_with_its_value(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=message) as refused:
        table_of(tmp_path, text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"uri": "a.mp4"}]', r"m\.jsonl is a JSON array; one object a line is needed"),
        ('{\n"uri": "a.mp4"}', r"m\.jsonl:1 is not JSON"),
        ('{"uri": "a.mp4"}\n\n5\n', r"m\.jsonl:3 is no JSON object.*: '5'"),
        ('{"uri": "a.mp4", "uri": "b.mp4"}', r"m\.jsonl:1 is not JSON: the key 'uri' is given twice"),
        ('{"uri": {"path": "a.mp4"}}', r"m\.jsonl:1 has uri '{\"path\": \"a.mp4\"}'; a plain value is needed"),
        ('{"uri": "a.mp4", "start_s": [1]}', r"m\.jsonl:1 has start_s '\[1\]'"),
        ('{"uri": "a\\u0000.mp4"}', r"m\.jsonl:1 has uri .* contains a character that is not text"),
        ('{"uri": "a.mp4", "x": "\\ud800"}', r"m\.jsonl:1 has x .* contains a character that is not text"),
        ('{"uri": "a.mp4"}\n{"note": "x"}', r"m\.jsonl:2 has no uri"),
        ('{"uri": ' + "[" * 100_000, r"m\.jsonl:1 is not JSON"),
        ("{}\nnull", r"m\.jsonl:2 is no JSON object"),
        ("{}", r"m\.jsonl cannot be read: it is empty"),
    ],
)
def test_lines_that_are_not_plain_objects_are_errors(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=message):
        table_of(tmp_path, text, "m.jsonl")


def test_values_of_json_become_text(tmp_path: Path) -> None:
    lines = (
        '{"uri": "a.mp4", "start_s": NaN, "n": 5, "o": {"ü": 1}, "": 3}\n{}\n{"uri": "b.mp4", "b": true, "n": null}\n'
    )
    assert table_of(tmp_path, lines, "m.jsonl").columns == {
        "uri": ["a.mp4", "b.mp4"], "start_s": ["", ""], "n": ["5", ""], "o": ['{"ü": 1}', ""], "b": ["", "True"],
    }  # fmt: skip


def test_values_of_parquet_become_text(tmp_path: Path) -> None:
    table = pa.table(
        {
            "__index_level_0__": [0, 1, 2],
            "uri": pa.array(["a.mp4", None, "b.mp4"]).dictionary_encode(),
            "video_id": pa.array([b"one", None, b"\xfc"], pa.binary()),
            "start_s": [math.nan, math.nan, 0.5],
            "when": pa.array([1, None, 2], pa.timestamp("ns")),
            "day": [datetime.date(2020, 1, 2), None, None],
            "price": [Decimal("1.50"), None, None],
            "who": [{"x": 1}, None, None],
        }
    ).set_column(0, "__index_level_0__", pa.array([None, None, None], pa.int64()))
    pq.write_table(table, tmp_path / "m.parquet")
    found = read_table(Storage(tmp_path), "m.parquet", "uri", ("start_s", "video_id"))
    assert found.columns == {
        "uri": ["a.mp4", "b.mp4"], "video_id": ["one", "\\xfc"], "start_s": ["", "0.5"],
        "when": ["1970-01-01 00:00:00.000000001", "1970-01-01 00:00:00.000000002"], "day": ["2020-01-02", ""],
        "price": ["1.50", ""], "who": ['{"x": 1}', ""],
    }  # fmt: skip
    assert found.where(1).endswith("m.parquet: row 3")


def test_unreadable_parquet_is_one_sentence(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": [["a.mp4"]]}), tmp_path / "m.parquet")
    whole = (tmp_path / "m.parquet").read_bytes()
    twice = pa.table([pa.array(["a.mp4"]), pa.array(["x"]), pa.array(["y"])], names=["uri", "g", "g"])
    with pytest.raises(ManifestError, match=r"m\.parquet: row 1 has uri '\[\"a.mp4\"\]'; a plain value is needed"):
        read_table(Storage(tmp_path), "m.parquet", "uri")
    for data, message in (
        (b"uri\na.mp4\n", r"is not a Parquet file: it begins with b'uri\\n'; fix"),
        (whole[:-3], "is not a Parquet file: it is truncated"),
        (whole[:30] + b"PAR1", "is a damaged Parquet file"),
        (whole[:40] + b"\xff" * (len(whole) - 48) + whole[-8:], "is a damaged Parquet file"),
        (b"", "is not a Parquet file"),
    ):
        (tmp_path / "m.parquet").write_bytes(data)
        with pytest.raises(ManifestError, match=message) as refused:
            read_table(Storage(tmp_path), "m.parquet", "uri")
        assert "\n" not in str(refused.value)
    pq.write_table(twice, tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="has 2 columns named 'g'"):
        read_table(Storage(tmp_path), "m.parquet", "uri")
    for name in ("none.csv", "none.parquet", "none.jsonl"):
        with pytest.raises(ManifestError, match=rf"{name}: no such file"):
            read_table(Storage(tmp_path), name, "uri")
        (tmp_path / name).mkdir()
        with pytest.raises(ManifestError, match=rf"{name} cannot be read: Is a directory"):
            read_table(Storage(tmp_path), name, "uri")


def test_missing_values_and_numbers() -> None:
    words = ["", "nan", "NaN", "-nan", "NULL", "null", "None", "NA", "N/A", "#N/A", "<NA>", "NaT"]
    words += [".", "#NULL!", "<missing>"]
    assert all(is_missing(word) and parse_number(word) is None for word in words)
    assert not any(is_missing(word) for word in ("0", "-", "nano", "no"))
    for text, number in {
        "0": 0,
        "-1.5": -1.5,
        "2.": 2,
        ".5": 0.5,
        "1e3": 1000,
        "inf": math.inf,
        "-Inf": -math.inf,
    }.items():
        assert parse_number(text) == number
    assert parse_number("1,5", decimal_comma=True) == 1.5
    for text in ("1_000", "1:02:03", "0x10", "1,5", "early", "٣", "1 000", "12s"):
        with pytest.raises(ValueError, match="not a number"):
            parse_number(text)
    for text in ("1.000,5", "1,000,5"):
        with pytest.raises(ValueError, match="not a number"):
            parse_number(text, decimal_comma=True)


def test_places_are_paths_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    (tmp_path / "odd\\name.mp4").touch()
    cells = {
        "file:///data/my%20film%231.mp4": "/data/my film#1.mp4", "FILE://localhost/a.mp4": "/a.mp4",
        "file:/a%C3%BC.mp4": "/aü.mp4", "file://sub/a%20b.mp4": "sub/a b.mp4", "~/a.mp4": "/home/anna/a.mp4",
        "a%20b.mp4": "a%20b.mp4", "s3://b/a%20b.mp4": "s3://b/a%20b.mp4", "odd\\name.mp4": "odd\\name.mp4",
    }  # fmt: skip
    table = table_of(tmp_path, "\n".join(["uri", *cells]))
    assert [table.place("uri", row) for row in range(len(table))] == list(cells.values())
    for cell in (r"C:\x.mp4", "d:/x.mp4", r"\\server\share\x.mp4", r"sub\x.mp4", "file:///C:/x.mp4"):
        with pytest.raises(ManifestError, match=r"m\.csv:2 has uri .* a Windows path"):
            table_of(tmp_path, f"uri\n{cell}\n").place("uri", 0)


@pytest.mark.parametrize("comment", ["#TYPE System.Management.Automation.PSObject", "# uri list, May", "#", "#;x"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_comments_before_the_header_and_the_end_mark_of_ms_dos_are_skipped(
    comment: str, ends: str, tmp_path: Path
) -> None:
    table = table_of(tmp_path, ends.join([comment, comment, '"uri";"start_s"', '"#a.mp4";"1,5"', "\x1a"]))
    assert table.columns == {"uri": ["#a.mp4"], "start_s": ["1,5"]}
    assert (table.numbers, table.number("start_s", 0)) == ([4], 1.5)


def test_a_header_may_begin_with_a_number_sign(tmp_path: Path) -> None:
    assert table_of(tmp_path, "#,uri\n1,a.mp4\n").columns == {"#": ["1"], "uri": ["a.mp4"]}
