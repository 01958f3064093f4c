import pytest

from aupipe.tuning.plot import picture
from aupipe.tuning.trials import Trial

pytestmark = pytest.mark.unit


def test_picture_of_trials_that_ended_in_every_way() -> None:
    found = [
        Trial(settings={}, status="finished", began_s=0, ended_s=60, scores=(0.1, 0.3)),
        Trial(settings={"seed": 1}, status="stopped", began_s=1, ended_s=30, scores=(0.1,)),
        Trial(settings={"seed": 3}, status="finished", began_s=1, ended_s=60, scores=(0.2,)),  # at the same time
        Trial(settings={"seed": 2}, status="failed", reason="x", began_s=30, ended_s=31),
    ]
    png = picture(found, "three")
    assert png.startswith(b"\x89PNG")
    assert picture(found[:1], r"one$\one$") != png
