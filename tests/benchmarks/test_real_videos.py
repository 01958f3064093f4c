"""The real videos on which the starter model is evaluated, divided by person into two halves.

Variants are chosen on one half, and both are reported. No person is in both halves, and each signal of the independent
model varies in both.
"""

from __future__ import annotations

import pandas as pd
import pytest

from harness.external_data import external

pytestmark = pytest.mark.unit

CHOOSE = (
    "carphone_pristine", "grid_bbaf2n", "grid_lbax4n", "grid_sbia1a", "grid_swiz3n", "lp_d0", "lp_d13", "lp_d14",
    "lp_s18",
)  # fmt: skip
# face_noface and single_face show the same man, lp_s29 and lp_s32 perhaps the same woman.
REPORT = (
    "face_noface", "grid_brbk7n", "grid_lrwp9a", "lp_d20", "lp_d6", "lp_d9", "lp_s29", "lp_s32", "obama_speech",
    "single_face",
)  # fmt: skip

# AU → the columns of its signal, and the least range of the signal between its 2 % and 98 % quantiles.
SIGNALS = {
    "AU01": (["browInnerUp"], 0.3), "AU02": (["browOuterUpLeft", "browOuterUpRight"], 0.3),
    "AU04": (["browDownLeft", "browDownRight"], 0.2), "AU07": (["eyeSquintLeft", "eyeSquintRight"], 0.3),
    "AU10": (["mouthUpperUpLeft", "mouthUpperUpRight"], 0.3), "AU12": (["mouthSmileLeft", "mouthSmileRight"], 0.3),
    "AU24": (["mouthPressLeft", "mouthPressRight"], 0.2), "AU25": (["lip_gap"], 0.1), "AU26": (["jawOpen"], 0.25),
}  # fmt: skip


def test_no_video_is_in_both_halves() -> None:
    assert not set(CHOOSE) & set(REPORT)


@pytest.mark.slow
@pytest.mark.parametrize("half", [CHOOSE, REPORT])
def test_every_signal_moves_in_each_half(half: tuple[str, ...]) -> None:
    scores = external("teacher")
    assert {path.stem for path in scores.glob("*.csv")} == {*CHOOSE, *REPORT}
    moving = set()
    for name in half:
        rows = pd.read_csv(scores / f"{name}.csv")
        rows = rows[rows.face == 1]
        for au, (columns, least) in SIGNALS.items():
            signal = rows[columns].mean(axis=1)
            if signal.quantile(0.98) - signal.quantile(0.02) >= least:
                moving.add(au)
    assert moving == set(SIGNALS)
