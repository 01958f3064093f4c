"""Which videos train and which validate: the official split with its leaks dealt with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from aupipe.affwild2.layout import Track

LeakFilter = Literal["consistent", "drop_val", "drop_train", "off"]


def official(tracks: Sequence[Track], leak: LeakFilter) -> tuple[dict[tuple[str, str], str], frozenset[str]]:
    """The split of each (track, task), and the base videos that stand in train and in validation.

    The AU and the expression task were split apart from each other, so a video may train one and validate the other; a
    model of both tasks then sees its validation faces in training. On such base videos

    * `drop_train` takes their training labels away: both validation sets stay the official ones;
    * `drop_val` takes their validation labels away (Jin et al., ABAW2);
    * `consistent` puts all their labels into validation: both tasks have the same validation videos;
    * `off` changes nothing.

    A (track, task) that is taken away is missing from the result.
    """
    splits = {(t.name, task): a.split for t in tracks for task, a in t.annotations.items()}
    bases = {track.name: track.video_id for track in tracks}
    seen = {split: {bases[name] for (name, _), s in splits.items() if s == split} for split in ("train", "validation")}
    leaked = frozenset(seen["train"] & seen["validation"])
    if leak == "off":
        return splits, leaked
    if leak == "consistent":
        return {key: "validation" if bases[key[0]] in leaked else split for key, split in splits.items()}, leaked
    gone = "validation" if leak == "drop_val" else "train"
    return {key: split for key, split in splits.items() if split != gone or bases[key[0]] not in leaked}, leaked
