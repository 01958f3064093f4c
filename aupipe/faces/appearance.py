"""Appearance descriptors of a face and its surroundings, for the decision whether two detections can be one person.

The descriptors do not identify a person. They distinguish faces at the same place shortly after each other, are kept in
memory and are never written.

Distances measured on 21 videos: 17 people in separate recordings, six of them in the same studio, and a crowd.

    distance of                       pairs   edges                  tint                   skin
                                              50 %,  99 %,  max      50 %,  99 %,  max      50 %,  99 %,  max
    the same face in the next frame   4,879   0.001  0.045  0.114    0.005  0.033  0.076    0.004  0.015  0.045
    the same face 0.4 s later         2,485   0.005  0.122  0.203    0.012  0.078  0.125    0.008  0.031  0.051
                                              min,   1 %,   50 %     min,   1 %,   50 %     min,   1 %,   50 %
    people in separate recordings     5,440   0.052  0.061  0.210    0.042  0.054  0.297    0.023  0.033  0.151
    neighbors in the crowd            1,910   0.076  0.096  0.168    0.048  0.057  0.101    0.010  0.017  0.057

No pair of different people passes the limits below. 8 pairs of neighboring frames fail, all in the crowd: the box of a
profile jumps, or the camera pans over another background. Such faces are compared again at the position and scale of
best correlation. The correlation is at least 0.91 for 6 of these 8, and at most 0.87 for people in separate recordings.
After 0.4 s 5 of the 2,039 pairs outside of the crowd fail and get a new id, and after 1 s 17 of 1,790.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from aupipe.faces.shot_boundaries import every

_SIDE_PX = 48
_FACE = slice(_SIDE_PX // 4, _SIDE_PX * 3 // 4)  # the box; the picture is twice as wide
_CELLS = 4  # edges are counted in 4×4 cells
_ORIENTATIONS = 8
_TINTS = 6  # tints are compared in 6×6 cells
_DARK = 8.0  # gray levels added to each channel, because the tint of nearly black pixels is noise

_MAX_EDGES = 0.10
_MAX_TINT = 0.05
_MAX_SKIN = 0.06
_SKIN = (slice(None), slice(2, 4), slice(2, 4))  # the cells of nose and cheeks, which contain no background
# Edges of two people always differ by more than this, so a different tint is then that of the background.
_MAX_EDGES_EQUAL = 0.03
_MAX_TINT_EQUAL = 0.12
# Two pictures without color have no tint that could differ, so the limit on their edges is tighter.
_COLORLESS = 0.03
_MAX_EDGES_COLORLESS = 0.06
_MIN_REGISTERED = 0.9
# Different people in the crowd reach 0.93. Above this limit the face is the same, however different its surroundings.
_MIN_REGISTERED_ALONE = 0.96
_MAX_EDGES_REGISTERED = 0.12
_MAX_TINT_REGISTERED = 0.08
_MAX_MOVED = 0.15  # of a box between two frames, in its smaller side, if the picture is to count as unchanged
_MIN_UNCHANGED = 0.97  # correlation of the samples
_MIN_VARIANCE = 16.0  # of the samples, because the correlation of flat or dark pictures is that of noise
_SCALES = (0.8, 0.9, 1.0, 1.1, 1.25)  # possible changes of a box's size from one frame to the next

_ROWS, _COLUMNS = np.mgrid[:_SIDE_PX, :_SIDE_PX] * _CELLS // _SIDE_PX
_FIRST_BIN = (_ROWS * _CELLS + _COLUMNS) * _ORIENTATIONS


@dataclass(frozen=True)
class Appearance:
    """The descriptor of a detection, which does not depend on the brightness of the picture.

    Attributes:
        gray: (48, 48) float32, the box in the middle half, and its surroundings.
        edges: (128,) float32 of norm 1: the amount of edges of each of 8 orientations in each of 4×4 cells.
        tint: (2, 6, 6) float32: logarithm of red and of blue over green in each of 6×6 cells.
    """

    gray: np.ndarray
    edges: np.ndarray
    tint: np.ndarray


def appearance(image: np.ndarray, box: np.ndarray) -> Appearance:
    """Return the descriptor of a detection.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) x, y, width, height.
    """
    picture = _picture(image, box)
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    right, down = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    strength, angle = cv2.cartToPolar(right, down)
    place = angle * (_ORIENTATIONS / (2 * np.pi))
    low = np.floor(place).astype(int)
    share = place - low
    bins = _CELLS * _CELLS * _ORIENTATIONS
    counts = sum(
        np.bincount((_FIRST_BIN + (low + more) % _ORIENTATIONS).ravel(), (strength * part).ravel(), bins)
        for more, part in ((0, 1 - share), (1, share))
    )
    root = np.sqrt(counts)
    edges = (root / max(float(np.linalg.norm(root)), 1e-6)).astype(np.float32)
    channels = np.log(cv2.resize(picture, (_TINTS, _TINTS), interpolation=cv2.INTER_AREA).astype(np.float32) + _DARK)
    tint = np.stack([channels[..., 0] - channels[..., 1], channels[..., 2] - channels[..., 1]])
    return Appearance(gray, edges, tint)


def is_unchanged(before: np.ndarray, box_before: np.ndarray, now: np.ndarray, box: np.ndarray) -> bool:
    """Return whether two frames show the same face at almost the same place, from a few of their pixels.

    In most pairs of frames they do, and descriptors would take far longer.

    Args:
        before, now: (H, W, 3) uint8 RGB.
        box_before, box: (4,) x, y, width, height.
    """
    if before.shape != now.shape or np.abs(box - box_before).max() > _MAX_MOVED * max(box_before[2:].min(), 0):
        return False
    x, y, width, height = np.asarray(box_before, np.float64).tolist()
    left, top = max(round(x - width / 4), 0), max(round(y - height / 4), 0)
    rows = slice(top, max(round(y + height * 1.25), 0), max(1, round(height / 16)))
    columns = slice(left, max(round(x + width * 1.25), 0), max(1, round(width / 16)))
    samples = [image[rows, columns, 1].astype(np.float32) for image in (before, now)]
    if not samples[0].size:
        return False
    first, second = (each - each.mean() for each in samples)
    variance, other = float((first * first).mean()), float((second * second).mean())
    covariance = float((first * second).mean())
    return variance >= _MIN_VARIANCE and covariance >= _MIN_UNCHANGED * np.sqrt(variance * other)


def same_person(first: Appearance, second: Appearance) -> bool:
    """Return whether two detections, at most about a second apart, can be the same face."""
    edges = 1 - float(first.edges @ second.edges)
    difference = np.abs(first.tint - second.tint)
    tint, skin = float(difference.mean()), float(difference[_SKIN].mean())
    colorless = max(float(np.abs(first.tint).mean()), float(np.abs(second.tint).mean())) < _COLORLESS
    if skin > _MAX_SKIN:
        return False
    if edges <= _MAX_EDGES_EQUAL and tint <= _MAX_TINT_EQUAL:
        return True
    if edges <= (_MAX_EDGES_COLORLESS if colorless else _MAX_EDGES) and tint <= _MAX_TINT:
        return True
    alike = edges <= _MAX_EDGES_REGISTERED and tint <= _MAX_TINT_REGISTERED
    registered = min(_registered(first.gray, second.gray), _registered(second.gray, first.gray))
    return registered >= (_MIN_REGISTERED if alike else _MIN_REGISTERED_ALONE)


def _registered(face: np.ndarray, picture: np.ndarray) -> float:
    """Return the highest correlation of the face in one picture with any position and scale in the other."""
    inner = face[_FACE, _FACE]
    best = -1.0
    for scale in _SCALES:
        side = round(len(inner) * scale)
        resized = cv2.resize(inner, (side, side), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        best = max(best, float(cv2.matchTemplate(picture, resized, cv2.TM_CCOEFF_NORMED).max()))
    return best


def _picture(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return (48, 48, 3) uint8 of a square twice as wide as the box. Outside the image its border is repeated."""
    x, y, width, height = np.asarray(box, np.float64).tolist()
    side = max(2 * float(np.sqrt(max(width * height, 0))), 1.0)
    scale = _SIDE_PX / side
    left, top = x + (width - side) / 2, y + (height - side) / 2
    rows, columns = image.shape[:2]
    # Only the visible part is reduced, so the cost depends on the size of the face, not of the frame.
    x0, y0 = (int(np.clip(np.floor(low) - 2, 0, size - 1)) for low, size in ((left, columns), (top, rows)))
    x1 = int(np.clip(np.ceil(left + side) + 2, x0 + 1, columns))
    y1 = int(np.clip(np.ceil(top + side) + 2, y0 + 1, rows))
    step = max(1, int(0.5 / scale))  # two samples per axis are enough for the mean of a pixel
    part = every(image[y0:y1, x0:x1], step)
    scale, left, top = scale * step, (left - x0) / step, (top - y0) / step
    ratio_x = ratio_y = 1.0
    if scale < 0.5:
        small = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
        ratio_x, ratio_y = small[0] / part.shape[1], small[1] / part.shape[0]
        part = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
    matrix = np.array([[scale / ratio_x, 0, -left * scale], [0, scale / ratio_y, -top * scale]], np.float64)
    return cv2.warpAffine(part, matrix, (_SIDE_PX, _SIDE_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
