"""Scores of groups of videos, by any column of a manifest: does the model serve everyone alike?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aupipe import facs
from aupipe.errors import ManifestError
from aupipe.learning import metrics
from aupipe.learning.ensemble import Decision
from aupipe.learning.metrics import Bools
from aupipe.learning.scores import DRAWS, video_counts

UNKNOWN = "unknown"  # the group of what the manifest does not say
_KEY = ("video_id", "person")


def by_column(decision: Decision, manifest: Mapping[str, Sequence[str]], where: str) -> dict[str, Any]:
    """Column → value → macro F1, its 95 % interval over videos, floor, counts.

    A group has a floor of its own, because F1 depends on how often an AU is on; compare what is above it. An AU that a
    group has no positive of scores 0 there, so those are named.

    Args:
        manifest: `video_id`, if people of one video differ `person`, and any other columns, all as text.
        where: what to call the manifest.

    Raises:
        ManifestError: no `video_id`, no other column, or a video that is said to be two things.
    """
    if "video_id" not in manifest:
        raise ManifestError(f"{where} has no column `video_id`, only {', '.join(manifest)}")
    columns = [name for name in manifest if name not in _KEY]
    if not columns:
        raise ManifestError(f"{where} has no column to group by beside video_id; add one, as gender or site")
    rows = decision.predictions
    keyed = [name for name in _KEY if name in manifest]
    ours = list(zip(*(getattr(rows, name).tolist() for name in keyed), strict=True))
    theirs = list(zip(*(manifest[name] for name in keyed), strict=True))
    result = {}
    for column in columns:
        said: dict[tuple[str, ...], str] = {}
        for line, (key, value) in enumerate(zip(theirs, manifest[column], strict=True), start=2):
            if said.setdefault(key, value) != value:
                raise ManifestError(f"{where}:{line}: {column} of {' '.join(key)} is {said[key]!r} and {value!r}")
        values = np.array([said.get(key) or UNKNOWN for key in ours])
        present = np.unique(values[rows.labelled()])
        result[column] = {str(value): _scores(decision, values == value) for value in present}
    return result


def _scores(decision: Decision, keep: Bools) -> dict[str, Any]:
    names, per_video = video_counts(decision, keep)
    counts = per_video.sum(axis=0)
    drawn = metrics.macro_f1(metrics.resample(per_video, DRAWS))
    positives = counts[:, 0] + counts[:, 2]
    return {
        "macro_f1": float(metrics.macro_f1(counts)),
        "ci95": metrics.interval95(drawn),
        "floor": float(metrics.macro_f1(metrics.all_ones(counts))),
        "n_videos": len(names),
        "n_frames": int((keep & decision.predictions.labelled()).sum()),
        "aus_without_positives": [au for au, count in zip(facs.AUS, positives, strict=True) if not count],
    }
