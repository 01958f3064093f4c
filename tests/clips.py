"""The clips that tests draw, and how plain PyAV reads them."""

from __future__ import annotations

from pathlib import Path

import av

from aupipe.benchmarks.clips import BACKGROUND, damage, draw_face, hole, scene, sound, speaking, truncate, write_clip

__all__ = [
    "BACKGROUND", "damage", "decoded_times", "draw_face", "hole", "scene", "sound", "speaking", "truncate",
    "write_clip",
]  # fmt: skip


def decoded_times(path: Path) -> list[float]:
    """`frame.time` of every frame, as plain PyAV decodes the file."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]
