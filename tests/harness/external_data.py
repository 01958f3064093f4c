"""Data that tests use and that the repository does not contain.

The environment variable AUPIPE_TEST_DATA names a folder with:

    rigs/ict_facekit_light.npz   the heads of ICT-FaceKit
    teacher/NAME.csv             scores of an independent model, one file per real video
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "AUPIPE_TEST_DATA"


def external(name: str) -> Path:
    """Return the path of a file or folder of the external data; the calling test is skipped where there is none."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{name} is not part of the repository; {VARIABLE} names no folder that contains it")
    path = Path(folder).absolute() / name
    if not path.exists():
        pytest.skip(f"{name} is not part of the repository, and {VARIABLE} names a folder without it: {folder}")
    return path
