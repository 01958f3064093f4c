import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aupipe import facs
from aupipe.errors import DatasetError, ManifestError
from aupipe.images.manifest import read_folders, read_manifest
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


def manifest(folder, text, name="m.csv"):
    (folder / name).write_text(text)
    return read_manifest(Storage(folder), name).to_pylist()


def test_columns_are_identified_by_name_and_missing_ones_are_unknown(tmp_path):
    rows = manifest(
        tmp_path,
        "﻿path,subject,AU12,au1,AU17,expression,identity,split\r\n"
        "b/1.jpg,002,1,0,1,Happiness,7,train\r\n"
        "a/1.jpg,001,-1,1,1,,,\r\n"
        "b/2.jpg,002,0,,1,3,7,validation\r\n"
        "a/2.jpg,001,1.0,0.0,1,-1,,train\r\n",
    )
    assert [(row["path"], row["subject"], row["number"], row["split"]) for row in rows] == [
        ("a/1.jpg", "001", 1, "train"), ("a/2.jpg", "001", 2, "train"), ("b/1.jpg", "002", 1, "train"),
        ("b/2.jpg", "002", 2, "validation"),
    ]  # fmt: skip
    au = {
        row["path"]: {name: label for name, label in zip(facs.AUS, row["au"], strict=True) if label >= 0}
        for row in rows
    }
    assert au == {"a/1.jpg": {"AU01": 1}, "a/2.jpg": {"AU01": 0, "AU12": 1}, "b/1.jpg": {"AU01": 0, "AU12": 1},
                  "b/2.jpg": {"AU12": 0}}  # fmt: skip
    assert [row["expression"] for row in rows] == [-1, -1, 4, 3]
    assert [row["identity"] for row in rows] == [None, None, "7", "7"]


@pytest.mark.parametrize("again", ["a.jpg", "./a.jpg", "b/../a.jpg"])
def test_an_image_has_one_row(again, tmp_path):
    text = f"path,split,AU12\na.jpg,train,1\nb.jpg,train,1\n{again},validation,0\n"
    with pytest.raises(ManifestError, match=r"m\.csv:4 names .*a\.jpg again, as .*m\.csv:2; fix: give one row"):
        manifest(tmp_path, text)


def test_columns_that_are_not_used_are_named(tmp_path, caplog):
    intensities = ",".join(f"{au}_intensity" for au in facs.AUS)
    manifest(tmp_path, f"Path,person,splt,au1,AU17,{intensities}\nx.jpg,7,validation,1,1" + ",0.5" * 12 + "\n")
    (line,) = caplog.messages
    assert "m.csv: columns that are not used: person, splt, AU17 (used: path, subject, split, " in line
    caplog.clear()
    manifest(tmp_path, f"path,AU12,subject,{intensities}\nx.jpg,1,7" + ",0.5" * 12 + "\n")
    assert caplog.messages == []


def test_intensities_are_given_for_all_aus_or_for_none(tmp_path):
    header = ",".join(f"{au}_intensity" for au in facs.AUS)
    values = [round(0.05 * number, 2) for number in range(12)]
    (row,) = manifest(tmp_path, f"path,{header}\nx.jpg," + ",".join(map(str, values)) + "\n")
    assert row["intensity"] == pytest.approx(values)
    assert manifest(tmp_path, "path,AU12\nx.jpg,1\n")[0]["intensity"] is None
    with pytest.raises(ManifestError, match="add the columns AU01_INTENSITY, AU02_INTENSITY"):
        manifest(tmp_path, "path,AU12_intensity\nx.jpg,0.5\n")
    for bad in ("1.5", "", "much", "nan"):
        with pytest.raises(ManifestError, match=r"m\.csv:2 has AU26_intensity"):
            manifest(tmp_path, f"path,{header}\nx.jpg," + ",".join(["0"] * 11 + [bad]) + "\n")


def test_parquet_gives_the_same(tmp_path):
    table = pa.table(
        {"path": ["x.png"], "AU04": pa.array([1.0]), "expression": pa.array([2]), "subject": pa.array([5])}
    )
    pq.write_table(table, tmp_path / "m.parquet")
    (row,) = read_manifest(Storage(tmp_path), "m.parquet").to_pylist()
    assert (row["subject"], row["expression"], row["au"][2]) == ("5", 2, 1)


def test_what_excel_pandas_and_r_write_means_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    plain = manifest(tmp_path, "path,subject,AU12,expression\na b.jpg,,1,3\n/home/anna/b.jpg,s,-1,\n")
    assert [(row["path"], row["subject"], row["au"][6], row["expression"]) for row in plain] == [
        ("a b.jpg", "a b.jpg", 1, 3), ("/home/anna/b.jpg", "s", -1, -1),
    ]  # fmt: skip
    for text in (
        ",Path,Subject,au12,Expression,\n0,a b.jpg,NaN,1.0,3.0,\n\n1,~/b.jpg,s,NaN,NaN,\n",
        "\ufeffpath;subject;AU12;expression;\r\nfile://a%20b.jpg;NULL;1,0;3,0;\r\n;;;;\r\nfile:///home/anna/b.jpg;s;-1,0;NA;\r\n",
        f"path\tsubject\tAU12\texpression\na b.jpg\t\tTrue\t{facs.EXPRESSIONS[3].upper()}\n~/b.jpg\ts\t\tnull\n",
    ):
        assert manifest(tmp_path, text) == plain
    lines = '{"path": "a b.jpg", "AU12": 1, "expression": 3}\n{"path": "~/b.jpg", "subject": "s", "AU12": NaN}\n'
    assert manifest(tmp_path, lines, "m.jsonl") == plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,AU1\nx.jpg,1\n", r"m\.csv has no column `path`, only file, AU1"),
        ("path,AU1\nx.jpg,1\ny.jpg,2\n", r"m\.csv:3 has AU1 '2'; allowed is 0, 1 or -1"),
        ("path,expression\nx.jpg,Boredom\n", r"m\.csv:2 has expression 'Boredom'; allowed is"),
        ("path,split\nx.jpg,test\n", r"m\.csv:2 has split 'test'; allowed is train or validation"),
        ("path,AU1\nx.jpg,1\n,0\n", r"m\.csv:3 has no path"),
        ("path,AU1\nx.jpg\n", r"m\.csv:2 has 1 cells, the header 2"),
        ("path\n", r"m\.csv lists no image"),
        ("path,AU1\nx.jpg,1\n\n ,\ny.jpg,0.5\n", r"m\.csv:5 has AU1 '0\.5'; allowed is 0, 1 or -1"),
        ("path,AU1\nx.jpg,-2\n", r"m\.csv:2 has AU1 '-2'"),
        ("path,expression\nx.jpg,8\n", r"m\.csv:2 has expression '8'; allowed is a number up to 7"),
        ("path,AU1,AU01\nx.jpg,1,0\n", r"m\.csv has two columns of AU01: AU1 and AU01"),
        ("path\nC:\\x.jpg\n", r"m\.csv:2 has path 'C:.*a Windows path"),
        ("", r"m\.csv cannot be read"),
    ],
)
def test_an_invalid_manifest_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(ManifestError, match=message):
        manifest(tmp_path, text)


def test_a_folder_is_a_person(tmp_path):
    for name in ("anna/2.jpg", "anna/1.JPG", "bert/1.png", "bert/notes.txt", "bert/._1.png", "@eaDir/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    rows = read_folders(Storage(tmp_path)).to_pylist()
    assert [(row["path"], row["identity"], row["number"]) for row in rows] == [
        ("anna/1.JPG", "anna", 1), ("anna/2.jpg", "anna", 2), ("bert/1.png", "bert", 1),
    ]  # fmt: skip
    with pytest.raises(DatasetError, match="no folder in it contains images"):
        read_folders(Storage(tmp_path / "anna"))


def test_images_that_are_in_no_folder_of_a_person_are_named(tmp_path, caplog):
    for name in ("anna/1.jpg", "anna/.thumbs/1.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert len(read_folders(Storage(tmp_path))) == 1
    assert not caplog.messages
    (tmp_path / "bert/second day").mkdir(parents=True)
    (tmp_path / "0.png").write_bytes(b"")
    assert len(read_folders(Storage(tmp_path))) == 1
    (line,) = caplog.messages
    assert line.endswith("in folders of people, one level deep: 0.png, bert/second day/")
