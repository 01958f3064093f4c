import numpy as np
import pytest

from aupipe import facs
from aupipe.affwild2.labels import check_header, parse
from aupipe.errors import DatasetError

pytestmark = pytest.mark.unit

HEADER = ",".join(facs.AFFWILD2_AUS)


def test_columns_go_by_name():
    names = list(reversed(facs.AFFWILD2_AUS))
    row = ",".join("1" if name == "AU4" else "0" for name in names)
    labels = parse("au", f"{','.join(names)}\n{row}\n".encode(), "f")
    assert labels.values.tolist() == [[int(n == "AU04") for n in facs.AUS]]


def test_one_unknown_makes_the_row_unknown():
    labels = parse("au", f"{HEADER}\n{'1,' * 11}-1\n{'1,' * 11}1".encode(), "f")
    assert labels.values.tolist() == [[-1] * 12, [1] * 12]
    assert labels.known.tolist() == [False, True]
    assert not labels.bad.any()


def test_bad_lines_cost_their_frame_and_are_named_by_line():
    lines = [HEADER, "0," * 11 + "0", "0," * 10 + "0", "0," * 11 + "2", "1," * 11 + "1", "0,0,1"]
    labels = parse("au", "\r\n".join(lines).encode("utf-8-sig"), "AU_Set/a.txt")
    assert labels.values[:, 0].tolist() == [0, -1, -1, 1, -1]
    assert labels.bad.tolist() == [False, True, True, False, True]
    assert labels.problems == (
        "AU_Set/a.txt:3 has 11 values instead of 12",
        "AU_Set/a.txt:4 has the label '2'; allowed are -1, 0, 1",
        "AU_Set/a.txt:6 has 3 values instead of 12",
    )


def test_expressions_go_by_the_name_of_their_class():
    header = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise"
    labels = parse("expr", f"{header}\n4\n-1\n7\n6\n\n".encode(), "f")
    assert labels.values.tolist() == [4, -1, -1, 6]
    assert labels.problems == ("f:4 has the label '7'; allowed are -1, 0, 1, 2, 3, 4, 5, 6",)
    turned = parse("expr", b"Other,Happiness\n0\n1\n", "f")
    assert turned.values.tolist() == [facs.EXPRESSIONS.index("Other"), facs.EXPRESSIONS.index("Happiness")]


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("au", "", "f is empty"),
        ("au", "0,0,0\n", "f:1 the header has no AU1, AU2"),
        ("au", HEADER.replace(",AU26", "") + "\n", "no AU26; it must name all 12"),
        ("expr", "Neutral,Boredom\n0\n", "f:1 the header names the class 'Boredom'"),
    ],
)
def test_a_file_that_is_none_is_an_error(task, text, message):
    for function in (parse, check_header):
        with pytest.raises(DatasetError, match=message):
            function(task, text.encode(), "f")


def test_the_fast_and_the_careful_way_agree():
    random = np.random.default_rng(0)
    body = [",".join(map(str, row)) for row in random.integers(-1, 2, (50, 12))]
    fast = parse("au", "\n".join([HEADER, *body]).encode(), "f")
    careful = parse("au", "\n".join([HEADER, *body, "5"]).encode(), "f")
    assert (fast.values == careful.values[:-1]).all()
    assert careful.bad.sum() == 1
