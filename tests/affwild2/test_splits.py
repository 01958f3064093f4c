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


def test_videos_of_both_splits_are_found_by_base_video():
    splits, both = official(TRACKS)
    assert both == {"b"}
    assert splits == {
        ("a", "au"): "train", ("a", "expr"): "train", ("b_left", "au"): "train", ("b_right", "expr"): "validation",
        ("c", "au"): "validation", ("c", "expr"): "validation",
    }  # fmt: skip
