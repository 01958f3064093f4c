"""The texture of the skin: lips, brows, beard, hair and furrows as one picture of reflectance around the head.

The texture uses cylinder coordinates of the base head: angle about the vertical axis (radians, 0 in front, positive to
the person's left) and height (dm). So brows and hair keep their position on every shape and move with the skin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np

from aupipe.arrays import AnyFloats as Floats
from aupipe.synthesis.rig import EYE_X_DM, EYES_DM, HIGHEST_DM, LOWEST_DM, Rig

TEXTURE_SIZE = (384, 768)  # Rows (height), columns (angle).
EYE_HEIGHT_DM = EYES_DM[1]
RADIUS_DM = 0.9  # Radius of the face about the axis; it converts angles to lengths.
_MOUTH_HEIGHT_DM, _LOWER_LIP_DM = 6.61, 6.56  # where closed lips meet, and the middle of the lower one
_INNER_END_DM = 0.12  # Distance of a brow's inner end from the middle of the face.

# Furrows of an AU at full intensity, which FACS lists among the appearance changes: polylines of points (distance from
# the middle of the face, height) in dm on the base shape, drawn on both sides.
FURROWS: Mapping[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "AU01": (
        ((0.0, 7.72), (0.15, 7.70), (0.26, 7.66)), ((0.0, 7.82), (0.15, 7.80), (0.26, 7.77)),
        ((0.0, 7.92), (0.14, 7.90)),
    ),
    "AU02": (((0.24, 7.68), (0.38, 7.72), (0.52, 7.66)), ((0.24, 7.79), (0.38, 7.82), (0.50, 7.77))),
    "AU04": (((0.05, 7.38), (0.07, 7.48), (0.06, 7.60)), ((0.0, 7.33), (0.07, 7.34))),
    "AU06": (
        ((0.52, 7.30), (0.66, 7.38)), ((0.52, 7.27), (0.68, 7.28)), ((0.51, 7.24), (0.64, 7.17)),
        ((0.16, 7.13), (0.28, 7.06), (0.44, 7.11)),
    ),
    "AU07": (((0.19, 7.20), (0.30, 7.16), (0.43, 7.20)),),
    "AU10": (((0.14, 7.00), (0.20, 6.90), (0.27, 6.76)),),
    "AU12": (((0.20, 6.88), (0.30, 6.74), (0.34, 6.58)), ((0.29, 6.62), (0.31, 6.54))),
    "AU15": (((0.26, 6.54), (0.31, 6.46), (0.32, 6.36)),),
    "AU23": (((0.0, 6.77), (0.0, 6.72)), ((0.07, 6.78), (0.06, 6.72)), ((0.06, 6.50), (0.07, 6.45))),
    "AU24": (((0.0, 6.46), (0.10, 6.45), (0.17, 6.48)),),
}  # fmt: skip


@dataclass(frozen=True)
class Traits:
    """The traits of a person that the texture depends on.

    Attributes:
        female, old, melanin: 0..1.
        tone, hair: (3,) reflectance of the skin and of the hair.
    """

    female: float
    old: float
    melanin: float
    tone: Floats
    hair: Floats


@dataclass(frozen=True)
class Brows:
    """The arched stroke of hair over each eye, thinner outwards; lengths in dm on the skin of the base shape.

    Attributes:
        length: from the inner to the outer end.
        thickness: half of that of the inner end.
        height: of the inner end above the eyes.
        arch: further height of the stroke in its middle.
        lower: subtracted from the height, because the brows of many people are nearer to the eyes.
    """

    length: float
    thickness: float
    height: float
    arch: float
    lower: float = 0.0

    def place(self, along: Floats, across: Floats) -> Floats:
        """Return the distance from the middle of the face and the height (..., 2) of places in the stroke.

        Args:
            along: 0 at the inner end, 1 at the outer one.
            across: 0 in the middle of the stroke, 1 at its upper edge.
        """
        return np.stack([_INNER_END_DM + along * self.length, self.middle(along) + across * self.half(along)], -1)

    def middle(self, along: Floats) -> Floats:
        """Return the height of the middle of the stroke."""
        return EYE_HEIGHT_DM + self.height - self.lower + self.arch * np.sin(along * 2.6)

    def half(self, along: Floats) -> Floats:
        """Return half of the thickness."""
        return self.thickness * (1 - 0.55 * along)


def draw_brows(rng: np.random.Generator) -> Brows:
    """Return the brows of one random adult."""
    length, thickness = rng.uniform(0.36, 0.44), rng.uniform(0.025, 0.055)
    height, arch = rng.uniform(0.2, 0.25), rng.uniform(0.02, 0.07)
    return Brows(length, thickness, height, arch, lower=rng.spawn(1)[0].uniform(0.0, 0.09))  # as for the lips


def hair_mask(rng: np.random.Generator, traits: Traits) -> Floats:
    """Return a random mask (rows, columns), 0..1, of scalp hair from the forehead, past the ears, to the nape."""
    angle, height = _grid()
    man = traits.female < 0.5
    forehead = rng.uniform(7.85, 8.05) + (0.25 * traits.old * rng.random() if man else 0)
    nape = rng.uniform(6.4, 6.8) if man else rng.uniform(5.6, 6.6)
    line = np.interp(
        np.abs(angle), np.deg2rad([0, 30, 55, 68, 76, 100, 108, 180]),
        [forehead, forehead - 0.02, 7.75, 7.35, rng.uniform(7.05, 7.3), 7.42, 6.9, nape],
    )  # fmt: skip
    if man and rng.random() < 0.12:  # Shaved.
        line = line + HIGHEST_DM
    elif man and rng.random() < 0.12:  # Bald on top.
        line = np.where(height > rng.uniform(7.4, 7.9), HIGHEST_DM + 1, line)
    return _soft(height - line + 0.03 * _noise(rng, 48) + 0.04 * _noise(rng, 12), 0.08)


def skin(rng: np.random.Generator, rig: Rig, traits: Traits, hair: Floats) -> tuple[Floats, Brows]:
    """Return the reflectance (rows, columns, 3) float32 of the skin, and the brows that are painted on it.

    Args:
        hair: a mask as returned by `hair_mask`.
    """
    angle, height = _grid()
    arc = np.abs(angle) * RADIUS_DM
    man = traits.female < 0.5

    def spot(x: float, y: float, width: float, tall: float) -> Floats:
        return np.exp(-(((arc - x) / width) ** 2) - ((height - y) / tall) ** 2)[..., None]

    picture: Floats = traits.tone.astype(np.float32) * (1 + 0.06 * _noise(rng, 10) + 0.05 * _noise(rng, 96))[..., None]
    blush = np.array([0.02, 0.25, 0.22]) * (1 - 0.6 * traits.melanin) * rng.uniform(0, 0.6)
    picture = picture * (1 - (spot(0.42, 6.95, 0.22, 0.18) + 0.8 * spot(0.0, 6.95, 0.15, 0.15)) * blush)
    picture = picture * (1 - rng.uniform(0.05, 0.35) * spot(EYE_X_DM, EYE_HEIGHT_DM, 0.24, 0.12))
    if man and rng.random() < 0.55:
        picture = _over(picture, traits.hair, _beard(rng, angle, height))
    if man or rng.random() < 0.75:
        lips = _natural_lips(rng, traits, arc, height)
    else:
        lips = np.array([rng.uniform(0.25, 0.5), 0.05, rng.uniform(0.04, 0.12)])
    on_lips = _bake(rig, rig.masks["lips"])
    picture = _over(picture, lips, on_lips * rng.uniform(0.6, 1))
    picture = _over(picture, traits.tone * 0.25, on_lips * _seam(rng, height))
    brows = draw_brows(rng)
    picture = _over(picture, traits.hair * 0.8, _brows(brows, arc, height) * rng.uniform(0.6, 0.95))
    picture = _over(picture, traits.tone * 0.55, _bake(rig, rig.masks["eyelids"]) * rng.uniform(0, 0.5))
    if man:
        own = rng.spawn(1)[0]  # as for the lips
        picture = _over(picture, _beard_color(own, traits), _moustache_and_goatee(own, arc, height))
    strands = traits.hair * (1 + 0.35 * _noise(rng, 96))[..., None]
    return _over(picture, strands, hair).clip(0.005, 0.95).astype(np.float32), brows


def strands(rng: np.random.Generator, color: Floats, contrast: float) -> Floats:
    """Return the reflectance (32, 512, 3) float32 of hanging hair or of cloth."""
    across = 1 + contrast * rng.normal(0, 1, (4, 512)).astype(np.float32)
    picture = cv2.resize(across, (512, 32), interpolation=cv2.INTER_LINEAR)[..., None] * color.astype(np.float32)
    return np.asarray(picture.clip(0.004, 0.9), np.float32)


def furrows(rng: np.random.Generator, traits: Traits) -> dict[str, Floats]:
    """Return for each AU of FURROWS (rows, columns), 0..1: the fraction of the light that its furrows absorb."""
    rows, columns = TEXTURE_SIZE
    depth = rng.uniform(0.0, 0.6) + 0.25 * traits.old
    masks = {}
    for au, lines in FURROWS.items():
        mask = np.zeros(TEXTURE_SIZE, np.float32)
        for side, line in product((-1, 1), lines):
            across, height = (np.array(line) + rng.normal(0, 0.012, (len(line), 2))).T
            x = (side * across / RADIUS_DM / (2 * np.pi) + 0.5) * columns
            y = (HIGHEST_DM - height) / (HIGHEST_DM - LOWEST_DM) * rows
            points = np.stack([x, y], 1).round().astype(np.int32)
            cv2.polylines(mask, [points], isClosed=False, color=1.0, thickness=3, lineType=cv2.LINE_AA)
        masks[au] = depth * cv2.GaussianBlur(mask, (0, 0), 1.3)
    return masks


def _natural_lips(rng: np.random.Generator, traits: Traits, arc: Floats, height: Floats) -> Floats:
    """Return the reflectance (rows, columns, 3) of lips without paint.

    Those of dark skin are often as brown as it. The lower one is then paler, most where the lips meet.
    """
    shade = rng.uniform(0.75, 1.1)
    rng = rng.spawn(1)[0]  # a stream of its own leaves the other traits as they were
    red = 1 - rng.uniform(0.3 if traits.melanin > 0.5 else 0.7, 1) * np.array([0.25, 0.58, 0.58])
    natural = traits.tone * red * shade
    upper, lower = natural * rng.uniform(1 - 0.3 * traits.melanin, 1), natural * rng.uniform(1, 1 + traits.melanin)
    below = (_MOUTH_HEIGHT_DM - height)[..., None]
    picture = np.where(below > 0, lower, upper)
    pale = rng.uniform(0, 0.7) * traits.melanin * np.exp(-below.clip(0) / rng.uniform(0.02, 0.06)) * (below > 0)
    picture = picture + (np.array([0.45, 0.22, 0.2]) * rng.uniform(0.6, 1.1) - picture) * pale
    wet = rng.uniform(0, 0.3) * np.exp(-((arc / 0.09) ** 2) - ((height - _LOWER_LIP_DM) / 0.025) ** 2)
    return picture + (0.6 - picture) * wet[..., None]


def _seam(rng: np.random.Generator, height: Floats) -> Floats:
    """Return a mask (rows, columns), 0..1, of the dark line between closed lips."""
    rng = rng.spawn(1)[0]  # as for the lips
    return _soft(rng.uniform(0.004, 0.012) - np.abs(height - _MOUTH_HEIGHT_DM), 0.012) * rng.uniform(0, 0.8)


def _beard(rng: np.random.Generator, angle: Floats, height: Floats) -> Floats:
    """Return a mask (rows, columns), 0..1, of stubble or beard below the nose and up to the sideburns.

    It includes the lips, which are drawn over it.
    """
    jaw = _soft(6.78 - height + 0.9 * (np.abs(angle) - 0.9).clip(0), 0.12)
    jaw = jaw * _soft(1.25 - np.abs(angle), 0.2) * _soft(height - 6.05, 0.2)
    return jaw * rng.uniform(0.15, 0.85) * (1 + 0.3 * _noise(rng, 96)).clip(0, 1)


def _beard_color(rng: np.random.Generator, traits: Traits) -> Floats:
    """Return the reflectance (3,) of a beard, which may be darker, lighter or grayer than the hair of the head."""
    gray = rng.uniform(0.3, 1) if rng.random() < 0.5 * traits.old else 0.0
    return traits.hair * rng.uniform(0.4, 1.4) * (1 - gray) + rng.uniform(0.2, 0.6) * gray


def _moustache_and_goatee(rng: np.random.Generator, arc: Floats, height: Floats) -> Floats:
    """Return a mask (rows, columns), 0..1, of hair that covers a part of the upper lip, the chin or both; mostly empty.

    Networks that never saw it take its lower edge, or the lips within it, for an open mouth.
    """
    moustache, goatee = rng.random(2) < (0.3, 0.25)
    half, droop = rng.uniform(0.2, 0.36), rng.uniform(0.0, 0.12)
    fall = droop * (arc / half) ** 2
    upper, lower = rng.uniform(6.76, 6.84), rng.uniform(6.615, 6.68)
    over_lip = _soft(upper - fall - height, 0.05) * _soft(height - lower + 1.3 * fall, 0.03) * _soft(half - arc, 0.06)
    below = _soft(height - 6.05, 0.2)
    on_chin = _soft(rng.uniform(0.12, 0.4) - arc, 0.1) * _soft(rng.uniform(6.42, 6.52) - height, 0.05) * below
    beside = _soft(rng.uniform(0.03, 0.1) - np.abs(arc - 0.36), 0.06) * _soft(upper - 0.1 - height, 0.1) * below
    joined = rng.random() < 0.6
    mask = np.maximum(moustache * over_lip, goatee * np.maximum(on_chin, joined * beside))
    return (mask * rng.uniform(0.4, 1) * (1 + 0.3 * _noise(rng, 96))).clip(0, 1)


def _brows(brows: Brows, arc: Floats, height: Floats) -> Floats:
    """Return a mask (rows, columns), 0..1, of the brows."""
    from_inner_end = arc - _INNER_END_DM
    along = (from_inner_end / brows.length).clip(0, 1)
    across = _soft(brows.half(along) - np.abs(height - brows.middle(along)), 0.03)
    return across * _soft(from_inner_end, 0.05) * _soft(brows.length - from_inner_end, 0.08)


def _bake(rig: Rig, mask: Floats) -> Floats:
    """Return a vertex mask (V,) as a texture (rows, columns): each triangle has its mean, and edges are blurred."""
    part = rig.parts["skin"]
    triangles = part.vertices[part.faces]
    values = mask[triangles].mean(1)
    shift = 16  # Sub-pixel steps of OpenCV's fixed-point coordinates (4 bits).
    points = np.round(rig.paint * TEXTURE_SIZE[::-1] * shift).astype(np.int32)
    picture = np.zeros(TEXTURE_SIZE, np.float32)
    for number in np.flatnonzero(values > 0.02):
        cv2.fillConvexPoly(picture, points[triangles[number]], float(values[number]), lineType=cv2.LINE_AA, shift=4)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.5))


def _grid() -> tuple[Floats, Floats]:
    """Return the angle and the height of each texel, each (rows, columns)."""
    rows, columns = TEXTURE_SIZE
    height = HIGHEST_DM - (np.arange(rows) + 0.5) / rows * (HIGHEST_DM - LOWEST_DM)
    angle = ((np.arange(columns) + 0.5) / columns - 0.5) * 2 * np.pi
    angle, height = angle.astype(np.float32), height.astype(np.float32)
    return np.broadcast_to(angle, TEXTURE_SIZE), np.broadcast_to(height[:, None], TEXTURE_SIZE)


def _noise(rng: np.random.Generator, cells: int) -> Floats:
    """Return smooth noise (rows, columns) of about ±1, with `cells` bumps in height and twice as many around."""
    coarse = rng.normal(0, 1, (cells, 2 * cells)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, TEXTURE_SIZE[::-1], interpolation=cv2.INTER_CUBIC))


def _soft(value: Floats, width: float) -> Floats:
    """Return a linear step: 0 below zero, 1 above it, over a range of `width`."""
    return (value / width + 0.5).clip(0, 1)


def _over(below: Floats, color: Floats, alpha: Floats) -> Floats:
    return below + (np.asarray(color, np.float32) - below) * alpha[..., None].astype(np.float32)
