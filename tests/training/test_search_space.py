import numpy as np
import pytest

from aupipe.config import load
from aupipe.errors import ConfigError
from aupipe.training.search_space import Dimension

pytestmark = pytest.mark.unit


def drawn(dimension: Dimension, count: int = 2000) -> list:
    rng = np.random.default_rng(0)
    return [dimension.draw(rng) for _ in range(count)]


def test_choice_draws_each_value_as_often() -> None:
    values = drawn(Dimension(choice=(2, "two", None)))
    assert {value: round(values.count(value) / 2000, 1) for value in (2, "two", None)} == {
        2: 0.3,
        "two": 0.3,
        None: 0.3,
    }


def test_uniform_and_log_uniform_spread_over_their_range() -> None:
    even, by_size = drawn(Dimension(uniform=(0, 1))), drawn(Dimension(log_uniform=(1e-4, 1)))
    assert np.histogram(even, 4, (0, 1))[0] == pytest.approx([500] * 4, abs=70)
    assert np.histogram(np.log10(by_size), 4, (-4, 0))[0] == pytest.approx([500] * 4, abs=70)
    assert all(value == float(f"{value:.3g}") for value in even + by_size)


def test_draws_stay_within_the_range() -> None:
    narrow = Dimension(uniform=(0.12345, 0.12346))
    assert narrow.tidy(0.123454) == 0.12345
    assert Dimension(choice=(0.12345,)).tidy(0.12345) == 0.12345


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({}, "one of choice"),
        ({"choice": [1], "uniform": [0, 1]}, "one of choice"),
        ({"uniform": [1, 0]}, "lower end"),
        ({"log_uniform": [0, 1]}, "above 0"),
        ({"choice": []}, "choice"),
        ({"normal": [0, 1]}, "normal"),
    ],
)
def test_invalid_dimensions_are_refused(described: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(Dimension, described)
