"""The official split into training and validation videos, and the videos that are in both."""

from __future__ import annotations

from collections.abc import Sequence

from aupipe.affwild2.layout import Track


def official(tracks: Sequence[Track]) -> tuple[dict[tuple[str, str], str], frozenset[str]]:
    """Return the split of each (track, task), and the base videos that are in train and in validation.

    The AU and the expression task have independent splits, so a video may be in train for one task and in validation
    for the other. A store contains both; a recipe chooses what to do with such videos (`data.splits.LeakFilter`).
    """
    splits = {(t.name, task): a.split for t in tracks for task, a in t.annotations.items()}
    bases = {track.name: track.video_id for track in tracks}
    train, validation = (
        {bases[name] for (name, _), found in splits.items() if found == split} for split in ("train", "validation")
    )
    return splits, frozenset(train & validation)
