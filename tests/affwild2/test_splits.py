import pytest

from aupipe.affwild2.layout import Annotation, Track
from aupipe.affwild2.splits import official

pytestmark = pytest.mark.unit


def track(name, **splits):
    annotations = {task: Annotation(f"{split}/{name}.txt", task, split) for task, split in splits.items()}
    return Track(name, annotations, (), None)


TRACKS = (
    track("a", au="train", expr="train"),
    track("b_left", au="train"),
    track("b_right", expr="validation"),
    track("c", au="validation", expr="validation"),
)


@pytest.mark.parametrize(
    ("leak", "expected"),
    [
        ("off", {("b_left", "au"): "train", ("b_right", "expr"): "validation"}),
        ("drop_train", {("b_right", "expr"): "validation"}),
        ("drop_val", {("b_left", "au"): "train"}),
        ("consistent", {("b_left", "au"): "validation", ("b_right", "expr"): "validation"}),
    ],
)
def test_the_leak_filter_goes_by_base_video(leak, expected):
    splits, leaked = official(TRACKS, leak)
    assert leaked == {"b"}
    assert {key: split for key, split in splits.items() if key[0].startswith("b")} == expected
    assert {key: split for key, split in splits.items() if not key[0].startswith("b")} == {
        ("a", "au"): "train", ("a", "expr"): "train", ("c", "au"): "validation", ("c", "expr"): "validation",
    }  # fmt: skip
