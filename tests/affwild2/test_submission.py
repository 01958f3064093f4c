import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aupipe import facs
from aupipe.affwild2 import submission as sub
from aupipe.errors import DatasetError

pytestmark = pytest.mark.unit

ORDER = [("a", 1), ("a", 2), ("a", 3), ("b_left", 1), ("b_left", 2)]
SAMPLE = "image_location,AU1\n" + "".join(f"{track}/{frame:05d}.jpg,\n" for track, frame in ORDER)


def known(frames, values):
    column = np.asarray(values, float)[:, None]
    return sub.TrackPredictions(np.asarray(frames), np.repeat(column, 12, axis=1))


def decisions(seed=0):
    random = np.random.default_rng(seed)
    return {track: random.random((count, 12)) < 0.5 for track, count in sub.frame_counts(ORDER).items()}


def test_short_gaps_are_interpolated_and_other_frames_take_the_nearest():
    filled = sub.fill(known([2, 5, 15], [0.0, 0.3, 1.0]), 18, max_gap_frames=3)[:, 0]
    assert filled[:5] == pytest.approx([0, 0, 0.1, 0.2, 0.3])
    assert filled[5:10] == pytest.approx([0.3] * 5)  # 10 is as near to 5 as to 15: the earlier
    assert filled[10:] == pytest.approx([1.0] * 8)
    assert len(sub.fill(known([1, 9], [0, 1]), 4, 100)) == 4


@given(st.sets(st.integers(1, 60), min_size=1), st.integers(1, 70), st.integers(0, 80), st.randoms())
def test_known_probabilities_stay_and_all_are_in_range(frames, count, gap, random):
    ordered = sorted(frames)
    predictions = known(ordered, [random.random() for _ in ordered])
    filled = sub.fill(predictions, count, gap)
    assert filled.shape == (count, 12)
    low, high = predictions.probabilities.min(), predictions.probabilities.max()
    assert ((filled >= low - 1e-12) & (filled <= high + 1e-12)).all()
    for frame, row in zip(ordered, predictions.probabilities, strict=True):
        if frame <= count:
            assert filled[frame - 1] == pytest.approx(row)


def test_a_track_without_predictions_is_named():
    with pytest.raises(DatasetError, match="nothing is predicted for b_left"):
        sub.fill_tracks({"a": known([1], [0.7])}, {"a": 3, "b_left": 2})
    filled = sub.fill_tracks({"a": known([1], [0.7]), "c": known([1], [0])}, {"a": 3})
    assert list(filled) == ["a"]
    assert (filled["a"] == 0.7).all()


def test_a_single_file_comes_back_equal():
    order = sub.read_order(SAMPLE)
    assert order == ORDER
    text = sub.write_single(order, decisions())
    lines = text.splitlines()
    assert lines[0] == "image_location,AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
    assert [line.split(",")[0] for line in lines[1:]] == [line.rstrip(",") for line in SAMPLE.splitlines()[1:]]
    back = sub.read_single(text, order)
    for track, rows in decisions().items():
        assert (back[track] == rows).all()


@given(arrays(bool, st.tuples(st.integers(1, 30), st.just(12))))
def test_a_tracks_file_comes_back_equal(rows):
    assert (sub.read_track(sub.write_track(rows), len(rows)) == rows).all()


FAULTS = {
    "header": lambda lines: [lines[0].replace("AU23", "AU17"), *lines[1:]],
    "a line missing": lambda lines: lines[:2] + lines[3:],
    "a line twice": lambda lines: [*lines, lines[-1]],
    "order": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "an unknown video": lambda lines: [*lines[:2], lines[2].replace("a/", "c/"), *lines[3:]],
    "a frame number of 4 digits": lambda lines: [*lines[:2], lines[2].replace("00002", "0002"), *lines[3:]],
    "11 values": lambda lines: [*lines[:2], lines[2].rpartition(",")[0], *lines[3:]],
    "13 values": lambda lines: [*lines[:2], lines[2] + ",0", *lines[3:]],
    "a label of -1": lambda lines: [*lines[:2], lines[2][:-1] + "-1", *lines[3:]],
    "a probability": lambda lines: [*lines[:2], lines[2][:-1] + "0.5", *lines[3:]],
    "a blank line": lambda lines: [*lines[:2], "", *lines[2:]],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checker_finds_a_planted_fault(fault):
    text = sub.write_single(ORDER, decisions())
    assert sub.check_single(text, ORDER) == []
    broken = "\n".join(FAULTS[fault](text.splitlines())) + "\n"
    assert sub.check_single(broken, ORDER)
    with pytest.raises(DatasetError, match="not a valid submission"):
        sub.read_single(broken, ORDER)


def test_the_checker_checks_the_file_as_a_whole():
    text = sub.write_track(decisions()["a"])
    assert sub.check_track(text, 3) == []
    assert "truncated" in sub.check_track(text[:-1], 3)[0]
    assert "Windows" in sub.check_track(text.replace("\n", "\r\n"), 3)[0]
    assert sub.check_track(text, 4) == ["3 frames instead of 4"]
    assert "header" in sub.check_track(text.partition("\n")[2], 2)[0]


def test_a_sample_file_of_another_kind_is_refused():
    with pytest.raises(DatasetError, match="line 2 does not begin with TRACK"):
        sub.read_order("image_location\n00001.jpg\n")
    for text in ("", "hello", "image_location,AU1\n", "a/00001.jpg,\na/00002.jpg,\n"):
        with pytest.raises(DatasetError, match="has no header with lines"):
            sub.read_order(text)


def test_a_sample_file_whose_frames_count_from_0_is_refused():
    with pytest.raises(DatasetError, match="line 3 is frame 0 of a "):
        sub.read_order("image_location\nb/00001.jpg\na/00000.jpg\na/00001.jpg\n")


def test_files_of_either_kind_are_read_as_a_table(tmp_path):
    (tmp_path / "all.txt").write_text(sub.write_single(ORDER, decisions()))
    single = sub.read_files(str(tmp_path / "all.txt"))
    assert single.select(["video_id", "person", "frame"]).to_pylist()[2:4] == [
        {"video_id": "a", "person": "", "frame": 3}, {"video_id": "b", "person": "left", "frame": 1},
    ]  # fmt: skip
    (tmp_path / "each").mkdir()
    for track, rows in decisions().items():
        (tmp_path / "each" / f"{track}.txt").write_text(sub.write_track(rows))
    assert sub.read_files(str(tmp_path / "each")).equals(single)
    for path in list((tmp_path / "each").iterdir()):
        path.with_name(f"._{path.name}").touch()
        path.rename(path.with_suffix(".TXT"))
    assert sub.read_files(str(tmp_path / "each")).equals(single)
    assert (
        np.array([single[au].to_numpy() for au in facs.AUS]).T.tolist()
        == np.concatenate([*decisions().values()]).tolist()
    )
    (tmp_path / "each" / "c.txt").write_text("notes\n1\n")
    with pytest.raises(DatasetError, match=r"c\.txt: .*line 2"):
        sub.read_files(str(tmp_path / "each"))
    with pytest.raises(DatasetError, match="no submission there"):
        sub.read_files(str(tmp_path / "none.txt"))
