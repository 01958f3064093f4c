import numpy as np
import pytest

from aupipe.errors import ManifestError
from aupipe.evaluation import fairness, metrics
from aupipe.evaluation.decision import Decision
from aupipe.evaluation.predictions import Predictions

pytestmark = pytest.mark.unit


def decision() -> Decision:
    """Six videos of 20 frames, two people in the last."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (120, 12)).astype(np.int8)
    labels[::7] = -1
    person = np.full(120, "", dtype=object)
    person[100:110], person[110:] = "left", "right"
    rows = Predictions(
        np.repeat(np.array(list("abcdef"), dtype=object), 20), person, np.tile(np.arange(1, 21), 6), labels,
        rng.random((120, 12)),
    )  # fmt: skip
    return Decision(rows, rng.random((120, 12)) < 0.5)


def test_groups_are_scored_separately_and_unknown_is_a_group() -> None:
    one = decision()
    manifest = {"video_id": ["a", "b", "c", "f", "x"], "gender": ["w", "w", "m", "", "m"], "site": ["1"] * 5}
    found = fairness.by_column(one, manifest)
    assert list(found) == ["gender", "site"]
    assert list(found["gender"]) == ["m", "unknown", "w"]
    women = found["gender"]["w"]
    expected = metrics.macro_f1(metrics.confusion(one.predictions.labels[:40], one.decided[:40]))
    assert women["macro_f1"] == pytest.approx(float(expected))
    assert women["n_videos"] == 2
    assert women["n_frames"] == int((one.predictions.labels[:40, 0] >= 0).sum())
    assert women["ci95"][0] <= women["macro_f1"] <= women["ci95"][1]
    assert women["aus_without_positives"] == []
    assert found["gender"]["unknown"]["n_videos"] == 3
    assert sum(scores["n_frames"] for scores in found["site"].values()) == int(one.predictions.labeled().sum())


def test_people_of_one_video_can_differ() -> None:
    manifest = {"video_id": ["f", "f"], "person": ["left", "right"], "age": ["old", "young"]}
    found = fairness.by_column(decision(), manifest)["age"]
    assert found["old"]["n_frames"] + found["young"]["n_frames"] == 17
    assert found["old"]["n_videos"] == 1


def test_a_video_without_labels_counts_in_no_group() -> None:
    one = decision()
    one.predictions.labels[:20] = -1
    one.predictions.labels[one.predictions.video_id == "e"] = -1
    found = fairness.by_column(one, {"video_id": ["a", "b", "c", "e"], "site": ["1", "1", "2", "3"]})["site"]
    assert {site: scores["n_videos"] for site, scores in found.items()} == {"1": 1, "2": 1, "unknown": 2}  # none for 3


def test_an_au_is_listed_only_where_no_row_has_it() -> None:
    one = decision()
    one.predictions.labels[:, 2] = np.minimum(one.predictions.labels[:, 2], 0)
    one.decided[:, :2] = False  # AU01 and AU02 are never found
    found = fairness.by_column(one, {"video_id": ["a"], "site": ["1"]})["site"]
    assert [scores["aus_without_positives"] for scores in found.values()] == [["AU04"], ["AU04"]]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"name": ["a"], "gender": ["w"]}, "no column `video_id`, only name, gender"),
        ({"video_id": ["a"]}, "no column to group by"),
        ({"video_id": ["a", "a"], "gender": ["w", "m"]}, "people.csv:3: gender of a is 'w' and 'm'"),
    ],
)
def test_an_invalid_manifest_is_refused(manifest: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        fairness.check(manifest, "people.csv")
