"""Sharpness of a face crop."""

from __future__ import annotations

import cv2
import numpy as np

_INSIDE = np.s_[32:104, 20:92]  # eyes to mouth, so that neither the background nor a black border counts


def sharpness(crop: np.ndarray) -> float:
    """Return the variance of the Laplacian of the gray levels inside the face: low if blurred, enlarged or dark.

    It is relative: compare within a video or among videos of one source, because noise of a camera raises it.

    Args:
        crop: (112, 112, 3) uint8 RGB, aligned.
    """
    gray = cv2.cvtColor(crop[_INSIDE], cv2.COLOR_RGB2GRAY)
    # Sums of whole numbers are exact, so the bits depend on no order of summation.
    edges = cv2.Laplacian(gray, cv2.CV_16S).reshape(-1).astype(np.float64)
    total, squares = float(edges.sum()), float(edges @ edges)
    return (squares * edges.size - total * total) / edges.size**2
