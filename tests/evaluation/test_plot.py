import cv2
import numpy as np
import pytest

from aupipe import facs
from aupipe.evaluation import plot
from aupipe.evaluation.predictions import Predictions

pytestmark = pytest.mark.unit


def result(f1: float) -> dict:
    per_au = {au: {"f1": f1, "ci95": (f1 - 0.1, f1 + 0.05), "floor": 0.3} for au in facs.AUS}
    stage = {"per_au": dict.fromkeys(facs.AUS, f1), "macro_f1": f1}
    scores = {"per_au": per_au, "macro_f1": f1, "floor": 0.3, "ci95": {"macro_f1": (f1, f1 + 0.1)}}
    return scores | {"stages": {"raw_at_0.5": stage}, "compared_with_published": "raw_at_0.5"}


def test_picture_is_a_png_that_shows_the_scores() -> None:
    low, high = (
        cv2.imdecode(np.frombuffer(plot.picture(result(f1), "title", published=True), np.uint8), cv2.IMREAD_COLOR)
        for f1 in (0.2, 0.8)
    )
    assert low.shape == high.shape
    assert low.shape[0] > 300
    bars = [int((np.abs(image.astype(int) - (0xDE, 0xC4, 0xA6)).max(axis=2) < 3).sum()) for image in (low, high)]
    assert bars[1] > 3 * bars[0] > 0


def test_published_figures_are_those_of_the_papers() -> None:
    assert tuple(plot.PUBLISHED_PER_AU) == facs.AUS
    assert np.mean(list(plot.PUBLISHED_PER_AU.values())) == pytest.approx(0.5106, abs=5e-5)


@pytest.mark.parametrize("published", [False, True])
def test_published_figures_are_drawn_only_if_asked_for(published: bool) -> None:
    png = plot.picture(result(0.5), "title", published=published)
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int)
    red = int((np.abs(image - (0x44, 0x33, 0xCC)).max(axis=2) < 3).sum())
    assert (red > 100) == published
    assert published or red == 0


def predictions(labels: np.ndarray, probabilities: np.ndarray) -> Predictions:
    count = len(labels)
    return Predictions(
        video_id=np.array(["a"] * count), person=np.array([""] * count), frame=np.arange(count), labels=labels,
        probabilities=probabilities,
    )  # fmt: skip


def pixels(png: bytes, red: int, green: int, blue: int) -> int:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int)
    return int((np.abs(image - (blue, green, red)).max(axis=2) < 3).sum())


def test_curves_show_thresholds_f1_and_calibration() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((400, 12))
    labels = (rng.random((400, 12)) < probabilities).astype(np.int8)
    labels[:, 8] = 0  # an AU without a positive
    labels[:, 9] = -1  # an AU without a label
    both = predictions(labels, probabilities)
    drawn = plot.curves(both, np.linspace(0.2, 0.8, 12), "title")
    assert pixels(drawn, 0x33, 0x50, 0x6B) > 1000
    assert pixels(drawn, 0xCC, 0x33, 0x44) > 1000
    assert pixels(drawn, 0x22, 0x22, 0x22) > 1.5 * pixels(plot.curves(both, None, "title"), 0x22, 0x22, 0x22)


def test_learning_curves_have_a_column_per_stage() -> None:
    line = {"loss": 0.5, "macro_f1": 0.3, "floor": 0.2}
    one = [{"stage": "a", "epoch": epoch} | line for epoch in range(3)]
    two = [*one, {"stage": "b", "epoch": 0, "loss": 0.7}]
    widths = [
        cv2.imdecode(np.frombuffer(plot.learning_curves(lines, "title"), np.uint8), cv2.IMREAD_COLOR).shape[1]
        for lines in (one, two)
    ]
    assert widths == [600, 900]


@pytest.mark.parametrize("title", [r"a$\foo$", "on " + "/folder" * 40 + "\nvalidation of " + "/store" * 40])
def test_a_title_is_no_formula_and_is_inside_its_picture(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = list[plot.Figure]()
    monkeypatch.setattr(plot.Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    plot.learning_curves([{"stage": "a", "epoch": 0, "loss": 0.5}], title)
    plot.curves(predictions(np.ones((1, 12), np.int8), np.ones((1, 12))), None, title)
    plot.picture(result(0.5), title, published=True)
    for figure in figures:
        figure.draw_without_rendering()
        titles = [figure._suptitle or figure.axes[0].title]
        (extent,) = (each.get_window_extent() for each in titles)
        assert extent.x0 >= 0
        assert extent.x1 <= figure.bbox.x1
    assert len(figures) == 3
