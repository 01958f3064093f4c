"""What became of a video's frames, and the status and reason that follow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe.annotation.ledger import Record
from aupipe.errors import as_reason
from aupipe.media.probe import VideoInfo


def container_losses(info: VideoInfo) -> list[str]:
    """What the container of a video lacks that cannot be counted in frames, as reasons."""
    losses = []
    if info.missing_s:
        losses.append(f"truncated: it ends {info.missing_s:.2f} s before the length that its container promises")
    if info.damage:
        losses.append(f"container_damaged: frames may be missing ({as_reason(info.damage)})")
    return losses


def frame_counts(observed: pa.Table, frames_expected: int, losses: Sequence[str]) -> Record:
    """Decoded, lost and corrupt frames of a video, and the status and reason that follow.

    Args:
        losses: further reasons why it is partial.
    """
    frame = observed["frame"].to_numpy()
    lost = frame[pc.equal(observed["status"], "decode_error").to_numpy()]
    corrupt = np.unique(frame[observed["corrupt"].to_numpy(zero_copy_only=False).astype(bool)])
    total = len(np.unique(frame))
    frames_expected = max(frames_expected, total)  # a packet may hold more than one frame, and what is decoded is kept
    reasons = [
        f"{code}: {len(frames)} of {frames_expected} ({_ranges(frames)})"
        for code, frames in (("frames_lost", lost), ("frames_corrupt", corrupt))
        if len(frames)
    ]
    return {
        "frames_expected": frames_expected,
        "frames_decoded": total - len(lost),
        "frames_lost": len(lost),
        "frames_corrupt": len(corrupt),
        "status": "partial" if len(lost) or losses else "ok",
        "reason": "; ".join([*reasons, *losses]),
    }


def _ranges(indices: np.ndarray, most: int = 20) -> str:
    """'3-7, 12' for [3 4 5 6 7 12]."""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    texts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs[:most]]
    return ", ".join(texts) + (", …" if len(runs) > most else "")
