"""Which offsets of the rig show which Action Unit, and when lips are parted.

The rig's units are named as ARKit's 52, which are not FACS. Targets were chosen by FACS's description of the appearance
(Ekman, Friesen, Hager: Facial Action Coding System, 2002) on rendered faces; full intensity is weight below × 1.
Weak points, AU by AU:
  AU01  one unit for both sides, so the inner brow never rises on one side; no forehead lines.
  AU02  no forehead lines; like AU01 amplified, the pack's brow offsets being mild.
  AU04  brows lower and draw together; the lines between them are not there.
  AU06  cheekSquint lifts cheek and lower lid; helped by MakeHuman's cheek target and a little squint, since crow's feet
        are missing. The squint overlaps with AU07.
  AU07  eyeSquint narrows both lids.
  AU10  mouthUpperUp; it parts the lips when strong, and AU25 is then labeled too. No deepened nose furrow.
  AU12  mouthSmile.   AU15  mouthFrown: corners down, chin not bunched.
  AU23  no ARKit unit. Lips narrower and thinner, from MakeHuman's targets for the mouth's width and the lips' heights;
        the muscle's tension and the lips' wrinkles are missing.
  AU24  mouthPress with some roll of both lips, so that less red shows; alone it would widen the mouth like AU20.
  AU25  mouthLowerDown and a little jaw drives it; the label comes from the gap between the lips, whatever opened them.
  AU26  jawOpen up to two thirds (beyond is AU27), teeth apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from aupipe.arrays import AnyFloats as Floats
from aupipe.arrays import Ints32 as Ints
from aupipe.synthesis.rig import Actions, Rig

# Offsets at full intensity. "*" stands for Left and Right, which get a person's own share each.
ANNY_AUS: Actions = {
    "AU01": {"unit/browInnerUp": 2.3},
    "AU02": {"unit/browOuterUp*": 2.3},
    "AU04": {"unit/browDown*": 1.3},
    "AU06": {
        "unit/cheekSquint*": 1.5, "unit/eyeSquint*": 0.25, "cheek/l-cheek-trans-up": 0.5, "cheek/r-cheek-trans-up": 0.5,
    },
    "AU07": {"unit/eyeSquint*": 1.4},
    "AU10": {"unit/mouthUpperUp*": 1.1},
    "AU12": {"unit/mouthSmile*": 1.0},
    "AU15": {"unit/mouthFrown*": 1.1},
    "AU23": {
        "mouth/mouth-scale-horiz-decr": 0.9, "mouth/mouth-upperlip-height-decr": 1.0,
        "mouth/mouth-lowerlip-height-decr": 1.0,
    },
    "AU24": {"unit/mouthPress*": 0.7, "unit/mouthRollUpper": 0.45, "unit/mouthRollLower": 0.45},
    "AU25": {"unit/mouthLowerDown*": 0.8, "unit/jawOpen": 0.1},
    "AU26": {"unit/jawOpen": 0.65},
}  # fmt: skip

# Movements that carry no label here: AU09, AU05, AU14, AU18, AU20, AU22, AU30, AU34, gaze and blinks.
OTHERS: Actions = {
    "blink": {"unit/eyeBlink*": 1.0},
    "wide": {"unit/eyeWide*": 1.0},
    "sneer": {"unit/noseSneer*": 1.0},
    "dimple": {"unit/mouthDimple*": 1.0},
    "pucker": {"unit/mouthPucker": 0.8},
    "stretch": {"unit/mouthStretch*": 0.9},
    "funnel": {"unit/mouthFunnel": 0.5},
    "puff": {"unit/cheekPuff": 0.8},
    "jaw_left": {"unit/jawLeft": 0.7},
    "jaw_right": {"unit/jawRight": 0.7},
    "look_left": {"unit/eyeLookOutLeft": 1.0, "unit/eyeLookInRight": 1.0},
    "look_right": {"unit/eyeLookInLeft": 1.0, "unit/eyeLookOutRight": 1.0},
    "look_up": {"unit/eyeLookUp*": 1.0},
    "look_down": {"unit/eyeLookDown*": 1.0},
    "mouth_left": {"unit/mouthLeft": 0.7},
    "mouth_right": {"unit/mouthRight": 0.7},
    "shrug": {"unit/mouthShrugLower": 0.8, "unit/mouthShrugUpper": 0.6},
}

# ICT-FaceKit's units are ARKit's as scans of people show them: they need neither amplifying nor MakeHuman's targets.
ICT_AUS: Actions = {
    "AU01": {"unit/browInnerUp*": 1.0},
    "AU02": {"unit/browOuterUp*": 1.0},
    "AU04": {"unit/browDown*": 1.0},
    "AU06": {"unit/cheekRaiser*": 0.7, "unit/cheekSquint*": 0.7},
    "AU07": {"unit/eyeSquint*": 1.0},
    "AU10": {"unit/mouthUpperUp*": 1.0},
    "AU12": {"unit/mouthSmile*": 1.0},
    "AU15": {"unit/mouthFrown*": 1.0},
    "AU23": {"unit/mouthRollUpper": 0.5, "unit/mouthRollLower": 0.5, "unit/mouthPucker": 0.15},
    "AU24": {"unit/mouthPress*": 1.0},
    "AU25": {"unit/mouthLowerDown*": 1.0, "unit/jawOpen": 0.05},
    "AU26": {"unit/jawOpen": 0.65},
}

ANNY: Actions = {**ANNY_AUS, **OTHERS}
ICT: Actions = {**ICT_AUS, **OTHERS}


def offset_weights(
    actions: Actions, intensity: Mapping[str, float], asymmetry: Mapping[str, float] = MappingProxyType({})
) -> dict[str, float]:
    """Weights of the rig's offsets for intensities (0..1) of AUs and other movements.

    Args:
        actions: the rig's.
        asymmetry: of a movement, the left side gets 1 + asymmetry of an intensity, the right side 1 − asymmetry.
    """
    weights: dict[str, float] = {}
    for name, value in intensity.items():
        for offset, full in actions[name].items():
            lean = asymmetry.get(name, 0.0)
            sides = {"Left": 1 + lean, "Right": 1 - lean} if offset.endswith("*") else {"": 1.0}
            for side, share in sides.items():
                key = offset.removesuffix("*") + side
                weights[key] = weights.get(key, 0.0) + value * full * share
    return weights


# Lips parted by this much (dm) count as AU25: 1.4 pixels of an aligned 112 px crop, where the eyes' 0.62 dm are 35 px.
LIPS_PARTED_DM = 0.025


@dataclass(frozen=True)
class LipColumns:
    """Vertices (of the rig) of the upper and the lower lip in narrow columns about the middle of the mouth."""

    upper: tuple[Ints, ...]
    lower: tuple[Ints, ...]

    def gap(self, vertices: Floats) -> float:
        """The widest opening between the lips of `vertices` (V, 3), dm; ≤ 0 where they touch."""
        openings = [
            float(vertices[up, 1].min() - vertices[low, 1].max())
            for up, low in zip(self.upper, self.lower, strict=True)
        ]
        return max(openings)


def lip_columns(rig: Rig) -> LipColumns:
    """Found on the base shape: a lip vertex belongs to the lower lip if it goes down with the jaw."""
    lips = rig.masks["lips"] > 0.5
    drop = np.zeros(len(rig.vertices), np.float32)
    indices, deltas = rig.offsets["unit/jawOpen"]
    drop[indices] = -deltas[:, 1]
    lower, x = drop > 0.15, rig.vertices[:, 0]
    columns = [lips & (np.abs(x - middle) < 0.025) for middle in (-0.08, -0.04, 0.0, 0.04, 0.08)]
    return LipColumns(
        upper=tuple(_indices(column & ~lower) for column in columns),
        lower=tuple(_indices(column & lower) for column in columns),
    )


def _indices(chosen: npt.NDArray[np.bool_]) -> Ints:
    return np.flatnonzero(chosen).astype(np.int32)
