"""Scores of groups of videos, by any column of a manifest: does the model serve everyone alike?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aupipe import facs
from aupipe.arrays import Bools
from aupipe.errors import ManifestError
from aupipe.evaluation import metrics
from aupipe.evaluation.decision import Decision
from aupipe.evaluation.report import DRAWS, video_counts

UNKNOWN = "unknown"  # the group of what the manifest does not say
_KEY = ("video_id", "person")

Manifest = Mapping[str, Sequence[str]]  # column → texts


def check(manifest: Manifest, where: str, numbers: Sequence[int] | None = None) -> None:
    """A manifest has `video_id`, `person` if people of one video differ, and any other columns, all as text.

    Args:
        where: its name, for messages.
        numbers: the line of each row; None: the lines after a header.

    Raises:
        ManifestError: no `video_id`, no other column, or a video that is said to be two things; `where` names it.
    """
    if "video_id" not in manifest:
        raise ManifestError(f"{where} has no column `video_id`, only {', '.join(manifest)}")
    if not _columns(manifest):
        raise ManifestError(f"{where} has no column to group by beside video_id; add one, as gender or site")
    keys = list(zip(*(manifest[name] for name in _keys(manifest)), strict=True))
    for column in _columns(manifest):
        said: dict[tuple[str, ...], str] = {}
        lines = range(2, len(keys) + 2) if numbers is None else numbers
        for line, key, value in zip(lines, keys, manifest[column], strict=True):
            if said.setdefault(key, value) != value:
                raise ManifestError(f"{where}:{line}: {column} of {' '.join(key)} is {said[key]!r} and {value!r}")


def by_column(decision: Decision, manifest: Manifest) -> dict[str, Any]:
    """Column → value → macro F1, its 95 % interval over videos, floor, counts.

    A group has a floor of its own, because F1 depends on how often an AU is on; compare what is above it. An AU that a
    group has no positive of scores 0 there, so those are named.

    Args:
        manifest: as `check` passes it.
    """
    rows = decision.predictions
    ours = list(zip(*(getattr(rows, name).tolist() for name in _keys(manifest)), strict=True))
    theirs = list(zip(*(manifest[name] for name in _keys(manifest)), strict=True))
    result = {}
    for column in _columns(manifest):
        said = dict(zip(theirs, manifest[column], strict=True))
        values = np.array([said.get(key) or UNKNOWN for key in ours])
        present = np.unique(values[rows.labeled()])
        result[column] = {str(value): _scores(decision, values == value) for value in present}
    return result


def _keys(manifest: Manifest) -> list[str]:
    return [name for name in _KEY if name in manifest]


def _columns(manifest: Manifest) -> list[str]:
    return [name for name in manifest if name not in _KEY]


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
        "n_frames": int((keep & decision.predictions.labeled()).sum()),
        "aus_without_positives": [au for au, count in zip(facs.AUS, positives, strict=True) if not count],
    }
