"""Scores by group of videos, for any column of a manifest, to compare how well the model works for each group."""

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

UNKNOWN = "unknown"  # the group of rows without a value in the manifest
_KEY = ("video_id", "person")

Manifest = Mapping[str, Sequence[str]]  # column → cells


def check(manifest: Manifest, where: str, numbers: Sequence[int] | None = None) -> None:
    """Check a manifest: `video_id`, `person` if people of one video differ, and any other columns, all as text.

    Args:
        where: name of the manifest, for messages.
        numbers: line of each row; None: the lines after a header.

    Raises:
        ManifestError: `video_id` is missing, there is no other column, or a video has two values in a column.
    """
    if "video_id" not in manifest:
        raise ManifestError(f"{where} has no column `video_id`, only {', '.join(manifest)}")
    if not _columns(manifest):
        raise ManifestError(f"{where} has no column to group by beside video_id; add one, e.g. gender or site")
    keys = list(zip(*(manifest[name] for name in _keys(manifest)), strict=True))
    for column in _columns(manifest):
        values: dict[tuple[str, ...], str] = {}
        lines = range(2, len(keys) + 2) if numbers is None else numbers
        for line, key, value in zip(lines, keys, manifest[column], strict=True):
            if values.setdefault(key, value) != value:
                raise ManifestError(f"{where}:{line}: {column} of {' '.join(key)} is {values[key]!r} and {value!r}")


def by_column(decision: Decision, manifest: Manifest) -> dict[str, Any]:
    """Return column → value → macro F1, its 95 % interval over videos, floor and counts.

    Every group has its own floor, because F1 depends on how often an AU is on. Compare groups by their distance to the
    floor. An AU that is labeled without a positive in a group scores 0 there, so such AUs are listed.

    Args:
        manifest: accepted by `check`.
    """
    rows = decision.predictions
    row_keys = list(zip(*(getattr(rows, name).tolist() for name in _keys(manifest)), strict=True))
    manifest_keys = list(zip(*(manifest[name] for name in _keys(manifest)), strict=True))
    result = {}
    for column in _columns(manifest):
        value_of = dict(zip(manifest_keys, manifest[column], strict=True))
        values = np.array([value_of.get(key) or UNKNOWN for key in row_keys])
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
    never = metrics.are_labeled(counts) & (counts[:, 0] + counts[:, 2] == 0)
    return {
        "macro_f1": float(metrics.macro_f1(counts)),
        "ci95": metrics.interval95(drawn),
        "floor": float(metrics.macro_f1(metrics.all_ones(counts))),
        "n_videos": len(names),
        "n_frames": int((keep & decision.predictions.labeled()).sum()),
        "aus_without_positives": [au for au, none in zip(facs.AUS, never, strict=True) if none],
    }
