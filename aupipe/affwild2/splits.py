"""The official split into training and validation videos, with its leaks removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from aupipe.affwild2.layout import Track

LeakFilter = Literal["consistent", "drop_val", "drop_train", "off"]


def official(tracks: Sequence[Track], leak: LeakFilter) -> tuple[dict[tuple[str, str], str], frozenset[str]]:
    """Return the split of each (track, task), and the base videos that are in train and in validation.

    The AU and the expression task have independent splits, so a video may be in train for one task and in validation
    for the other. A model of both tasks would then be trained on its validation faces. For such base videos

    * `drop_train` removes their training labels, so both validation sets stay the official ones;
    * `drop_val` removes their validation labels (Jin et al., ABAW2);
    * `consistent` moves all their labels to validation, so both tasks have the same validation videos;
    * `off` changes nothing.

    A removed (track, task) is missing from the result.
    """
    splits = {(t.name, task): a.split for t in tracks for task, a in t.annotations.items()}
    bases = {track.name: track.video_id for track in tracks}
    videos = {
        split: {bases[name] for (name, _), s in splits.items() if s == split} for split in ("train", "validation")
    }
    leaked = frozenset(videos["train"] & videos["validation"])
    if leak == "off":
        return splits, leaked
    if leak == "consistent":
        return {key: "validation" if bases[key[0]] in leaked else split for key, split in splits.items()}, leaked
    removed = "validation" if leak == "drop_val" else "train"
    return {key: split for key, split in splits.items() if split != removed or bases[key[0]] not in leaked}, leaked
