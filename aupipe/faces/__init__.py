"""Faces in upright RGB frames: detection, alignment to 112×112 crops, and the identities of a whole video."""

from __future__ import annotations

CROP_SIZE_PX = 112  # side of every crop, in face stores and at the input of models
