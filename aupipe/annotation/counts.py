"""The counts of a video's frames, and the status and reason that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe.annotation.segments import missing_times_s
from aupipe.annotation.video_record import VideoRecord
from aupipe.errors import as_reason
from aupipe.media.probe import VideoInfo


def container_losses(info: VideoInfo, end_s: float | None = None, sample_fps: float | None = None) -> list[str]:
    """Return the losses of a container that cannot be counted in frames, as reasons.

    Args:
        end_s, sample_fps: the end of the requested part, and its rate. With one of them, rows of missing frames depend
            on times that are estimated, so the loss is stated as well.
    """
    losses = []
    if end_s is not None or sample_fps is not None:
        missing_s = missing_times_s(info)
        if count := int((missing_s < (np.inf if end_s is None else end_s)).sum()):
            losses.append(f"truncated: it ends before {count:,} frames that its container counts")
    if info.missing_s:
        losses.append(f"truncated: it ends {info.missing_s:.2f} s before the length that its container promises")
    if info.damage:
        losses.append(f"container_damaged: frames may be missing ({as_reason(info.damage)})")
    return losses


def with_counts(record: VideoRecord, features: pa.Table, losses: Sequence[str]) -> VideoRecord:
    """Return the record with the numbers of decoded, lost and corrupt frames, and the status and reason that follow.

    Args:
        features: the FEATURES rows of the video, without embeddings.
        losses: further reasons why the video is partial.
    """
    frame = features["frame"].to_numpy()
    lost = frame[pc.equal(features["status"], "decode_error").to_numpy()]
    corrupt = np.unique(frame[features["corrupt"].to_numpy(zero_copy_only=False).astype(bool)])
    if len(corrupt) and record.loss_if_corrupt:
        losses = [*losses, record.loss_if_corrupt]
    total = len(np.unique(frame))
    frames_expected = max(record.frames_expected or 0, total)  # A packet may hold several frames.
    reasons = [
        f"{code}: {len(frames)} of {frames_expected} ({_ranges(frames)})"
        for code, frames in (("frames_lost", lost), ("frames_corrupt", corrupt))
        if len(frames)
    ]
    return replace(
        record,
        frames_expected=frames_expected,
        frames_decoded=total - len(lost),
        frames_lost=len(lost),
        frames_corrupt=len(corrupt),
        status="partial" if len(lost) or losses else "ok",
        reason="; ".join([*reasons, *losses]),
    )


def _ranges(indices: np.ndarray, max_ranges: int = 20) -> str:
    """Return indices as ranges: '3-7, 12' for [3 4 5 6 7 12]."""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    texts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs[:max_ranges]]
    return ", ".join(texts) + (", …" if len(runs) > max_ranges else "")
