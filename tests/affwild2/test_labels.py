import numpy as np
import pytest

from aupipe import facs
from aupipe.affwild2.labels import check_header, parse
from aupipe.errors import DatasetError

pytestmark = pytest.mark.unit

HEADER = ",".join(facs.AFFWILD2_AUS)


def test_columns_are_identified_by_name():
    names = list(reversed(facs.AFFWILD2_AUS))
    row = ",".join("1" if name == "AU4" else "0" for name in names)
    labels = parse("au", f"{','.join(names)}\n{row}\n".encode(), "f")
    assert labels.values.tolist() == [[int(n == "AU04") for n in facs.AUS]]


def test_one_unknown_makes_the_row_unknown():
    labels = parse("au", f"{HEADER}\n{'1,' * 11}-1\n{'1,' * 11}1".encode(), "f")
    assert labels.values.tolist() == [[-1] * 12, [1] * 12]
    assert labels.known.tolist() == [False, True]
    assert not labels.bad.any()


def test_invalid_lines_lose_their_frame_and_are_named_by_line():
    lines = [HEADER, "0," * 11 + "0", "0," * 10 + "0", "0," * 11 + "2", "1," * 11 + "1", "0,0,1"]
    labels = parse("au", "\r\n".join(lines).encode("utf-8-sig"), "AU_Set/a.txt")
    assert labels.values[:, 0].tolist() == [0, -1, -1, 1, -1]
    assert labels.bad.tolist() == [False, True, True, False, True]
    assert labels.problems == (
        "AU_Set/a.txt:3 has 11 values instead of 12",
        "AU_Set/a.txt:4 has the label '2'; allowed are -1, 0, 1",
        "AU_Set/a.txt:6 has 3 values instead of 12",
    )


def test_expressions_are_identified_by_class_name():
    header = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise"
    labels = parse("expr", f"{header}\n4\n-1\n7\n6\n\n".encode(), "f")
    assert labels.values.tolist() == [4, -1, -1, 6]
    assert labels.problems == ("f:4 has the label '7'; allowed are -1, 0, 1, 2, 3, 4, 5, 6",)
    turned = parse("expr", b"Other,Happiness\n0\n1\n", "f")
    assert turned.values.tolist() == [facs.EXPRESSIONS.index("Other"), facs.EXPRESSIONS.index("Happiness")]


ROWS = [[0, 1] * 6, [-1] * 12, [1] * 12]


def au_file(cell="{}", delimiter=",", header=HEADER, ends="\n", index=None, tail="", encoding="utf-8"):
    """Return ROWS as an annotation file in another spelling."""
    names = ([] if index is None else [index]) + header.split(",")
    lines = [delimiter.join(names) + tail]
    for number, row in enumerate(ROWS):
        cells = ([] if index is None else [f"{number:05d}.jpg"]) + [cell.format(value) for value in row]
        lines.append(delimiter.join(cells) + tail)
    return (ends.join(lines) + ends).encode(encoding)


@pytest.mark.parametrize(
    "data",
    [
        au_file(),
        au_file("{}.0"),
        au_file(" {} "),
        au_file('"{}"', header=",".join(f'"{name}"' for name in facs.AFFWILD2_AUS)),
        au_file(tail=","),
        au_file(tail=", ,"),
        au_file("{}.0", index="", tail=","),
        au_file(index="frame"),
        au_file(index="Image"),
        au_file(delimiter="\t", ends="\r\n"),
        au_file(delimiter="  "),
        au_file("{},0", delimiter=";"),
        au_file("{}.0", ends="\r\n", encoding="utf-8-sig"),
        au_file(encoding="utf-16"),
        au_file(ends="\r"),
        au_file(header=",".join(facs.AUS).lower()),
        b"\n\n" + au_file(),
        au_file() + b"\n , \n\n".replace(b" , ", b"  "),
        au_file().replace(b"-1", b"NaN"),
        au_file().replace(b"-1", b"nan", 1).replace(b"-1", b"", 1),
        HEADER.encode() + b",confidence\n" + b"\n".join(b",".join(b"%d" % v for v in row) + b",x" for row in ROWS),
    ],
)
def test_other_spellings_mean_the_same(data):
    labels = parse("au", data, "f")
    assert labels.values.tolist() == ROWS
    assert labels.problems == ()
    assert check_header("au", data, "f") == 3


@pytest.mark.parametrize(
    "text",
    [
        "Neutral,Anger,Disgust\n2.0\n-1.0\nNaN\n0\n",
        "Neutral,Anger,Disgust,\r\n2,\r\n-1,\r\n,\r\n0,\r\n",
        ",Neutral,Anger,Disgust\n0,2\n1,-1\n2,\n3,0\n",
        "frame;Neutral;Anger;Disgust\n1;2,0\n2;-1,0\n3;nan\n4;0,0\n",
        "Neutral Anger Disgust\n2\n-1\nNULL\n0\n",
    ],
)
def test_other_spellings_of_expressions_mean_the_same(text):
    labels = parse("expr", text.encode(), "f")
    assert (labels.values.tolist(), labels.problems) == ([2, -1, -1, 0], ())


def test_a_line_with_another_frame_number_is_invalid():
    lines = [f"{HEADER}"] + ["1," * 11 + "1"] * 4
    text = "\n".join(
        f"{first},{line}" for first, line in zip(["frame", "1", "2.0", "4", "v/00004.jpg"], lines, strict=True)
    )
    labels = parse("au", text.encode(), "f")
    assert labels.bad.tolist() == [False, False, True, False]
    plain = parse("au", text.replace("2.0", "2").replace("v/00004.jpg", "4").encode(), "f")
    assert plain.bad.tolist() == [False, False, True, False]
    assert labels.problems == ("f:4 has the frame number '4' instead of 3",)


def test_a_refused_line_is_named_with_its_cell():
    text = f"\n{HEADER},\n" + "1.0," * 12 + "\n" + "1.5," + "1," * 11 + "\n\n" + "1," * 14 + "\n" + "0," * 12
    assert parse("au", text.encode(), "a.txt").problems == (
        "a.txt:4 has the label '1.5'; allowed are -1, 0, 1",
        "a.txt:5 has 0 values instead of 12",
        "a.txt:6 has 14 values instead of 12",
    )
    odd = f"{HEADER}\n".encode() + b"1," * 11 + b"\xe9\n" + b"1," * 11 + b"1\n"
    assert parse("au", odd, "a.txt").bad.tolist() == [True, False]
    with pytest.raises(DatasetError, match="looks like UTF-16LE without a byte order mark"):
        parse("au", HEADER.encode("utf-16-le"), "a.txt")


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("au", "", "f is empty"),
        ("au", "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26,au01\n", "f:1 the header names AU1 twice"),
        ("au", "0,0,0\n", "f:1 the header has no AU1, AU2"),
        ("au", HEADER.replace(",AU26", "") + "\n", "no AU26; it must name all 12"),
        ("expr", "Neutral,Boredom\n0\n", "f:1 the header has the class 'Boredom'"),
    ],
)
def test_a_file_that_is_not_an_annotation_file_is_an_error(task, text, message):
    for function in (parse, check_header):
        with pytest.raises(DatasetError, match=message):
            function(task, text.encode(), "f")


@pytest.mark.parametrize(("task", "header"), [("au", HEADER), ("expr", "Neutral,Anger,Disgust")])
def test_a_file_with_only_a_header_has_no_label(task, header):
    labels = parse(task, f"{header}\n".encode(), "f")
    assert (len(labels.values), labels.known.tolist(), labels.bad.tolist()) == (0, [], [])


@pytest.mark.parametrize("number", ["9" * 20, "9" * 400, "9" * 5000])
def test_a_number_of_any_size_loses_only_its_own_frame(number):
    lines = ["1," * 11 + "1", number + ",1" * 11, "0," * 11 + "0"]
    assert parse("au", "\n".join([HEADER, *lines]).encode(), "f").bad.tolist() == [False, True, False]
    assert parse("expr", f"Neutral,Anger\n1\n{number}\n0".encode(), "f").bad.tolist() == [False, True, False]
    numbered = "\n".join(f"{name},{lines[0]}" for name in ("0", number, "2"))
    assert parse("au", f"frame,{HEADER}\n{numbered}".encode(), "f").bad.tolist() == [False, True, False]


def test_the_fast_and_the_careful_way_agree():
    random = np.random.default_rng(0)
    body = [",".join(map(str, row)) for row in random.integers(-1, 2, (50, 12))]
    fast = parse("au", "\n".join([HEADER, *body]).encode(), "f")
    careful = parse("au", "\n".join([HEADER, *body, "5"]).encode(), "f")
    assert (fast.values == careful.values[:-1]).all()
    assert careful.bad.sum() == 1
