"""Head pose from the five landmarks.

Coordinates and signs are those of OpenFace 2: x to the right and y down in the picture, z away from the camera, and
R = Rx(pitch)·Ry(yaw)·Rz(roll). The angles are 0 for a face that looks along its line of sight to the camera. Positive
yaw turns the nose to the left of the picture, positive pitch turns it down, and positive roll turns the head clockwise
in the picture.
"""

from __future__ import annotations

from math import asin, atan2, degrees, sqrt

import numpy as np

# (5, 3) mean face in units of the distance between the eyes, as the detector finds it, centered and symmetric. Measured
# on rendered heads with
#   bench.py pose --seed 1
MEAN_FACE = np.array(
    [[-0.5, -0.543, 0.05], [0.5, -0.543, 0.05], [0.0, 0.054, -0.415], [-0.421, 0.516, 0.157], [0.421, 0.516, 0.157]]
)
_INVERSE = np.linalg.pinv(MEAN_FACE - MEAN_FACE.mean(axis=0))  # (3, 5)


def head_pose(points: np.ndarray) -> tuple[float, float, float] | None:
    """Return yaw, pitch and roll in degrees under weak perspective; None if the points lie on a line.

    The affine map from `MEAN_FACE` to the points has a closed form by least squares. Its two rows are replaced by the
    nearest orthogonal ones of equal length, which are the first rows of the scaled rotation.

    Args:
        points: (5, 2) landmarks in the image.
    """
    # Plain numbers: the bits do not depend on other faces, and small arrays would take ten times as long.
    (ax, ay, az), (bx, by, bz) = (_INVERSE @ np.asarray(points, np.float64)).T.tolist()
    aa, ab, bb = ax * ax + ay * ay + az * az, ax * bx + ay * by + az * bz, bx * bx + by * by + bz * bz
    area = sqrt(max(aa * bb - ab * ab, 0.0))
    if area <= 1e-6 * (aa + bb):
        return None
    # G = [[aa, ab], [ab, bb]] of the rows A has G^½ = (G + area·1) / n, so the nearest rows are G^−½·A.
    n = sqrt(aa + bb + 2 * area) * area
    p, q, r = (bb + area) / n, -ab / n, (aa + area) / n
    ax, ay, az, bx, by, bz = (
        p * ax + q * bx, p * ay + q * by, p * az + q * bz, q * ax + r * bx, q * ay + r * by, q * az + r * bz,
    )  # fmt: skip
    return _degrees(ax, ay, az, bz, ax * by - ay * bx)


def angles(rotation: np.ndarray) -> tuple[float, float, float]:
    """Return yaw, pitch and roll in degrees of a rotation (3, 3)."""
    xx, xy, xz = rotation[0].tolist()
    return _degrees(xx, xy, xz, float(rotation[1, 2]), float(rotation[2, 2]))


def _degrees(xx: float, xy: float, xz: float, yz: float, zz: float) -> tuple[float, float, float]:
    """Return yaw, pitch and roll in degrees from five elements of a rotation, named by row and column."""
    return degrees(asin(max(-1.0, min(1.0, xz)))), degrees(atan2(-yz, zz)), degrees(atan2(-xy, xx))
