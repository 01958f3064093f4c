"""What became of a video's frames, and the status and reason that follow."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from aupipe.annotation.ledger import Record


def counts_of(observed: pa.Table, frames_expected: int, missing_s: float, sound_lost: str = "") -> Record:
    """Decoded, lost and corrupt frames of a video, and the status and reason that follow."""
    frame = observed["frame"].to_numpy()
    lost = frame[np.array(observed["status"].to_pylist()) == "decode_error"]
    corrupt = np.unique(frame[observed["corrupt"].to_numpy(zero_copy_only=False).astype(bool)])
    total = len(np.unique(frame))
    reasons = [
        f"{code}: {len(frames)} of {frames_expected} ({_ranges(frames)})"
        for code, frames in (("frames_lost", lost), ("frames_corrupt", corrupt))
        if len(frames)
    ]
    if missing_s:
        reasons.append(f"truncated: it ends {missing_s:.1f} s before the length that its container promises")
    if sound_lost:
        reasons.append(sound_lost)
    return {
        "frames_decoded": total - len(lost),
        "frames_lost": len(lost),
        "frames_corrupt": len(corrupt),
        "status": "partial" if len(lost) or missing_s or sound_lost else "ok",
        "reason": "; ".join(reasons),
    }


def _ranges(indices: np.ndarray, most: int = 20) -> str:
    """'3-7, 12' for [3 4 5 6 7 12]."""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    texts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs[:most]]
    return ", ".join(texts) + (", …" if len(runs) > most else "")
