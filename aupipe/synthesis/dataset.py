"""Rendered videos on disk in the layout of Aff-Wild2.

The files are DIR/batch1/VIDEO.mp4, DIR/cropped_aligned/VIDEO/NNNNN.jpg (1-based; none for a frame without a detected
face), the annotation files of the edition, and DIR/dataset.json, which contains the options of the set and at the end
its counts. A video of two people has crops and annotations under VIDEO_left and VIDEO_right. The last AU annotation of
a video is written last, so a video is complete if and only if this file exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from aupipe import facs
from aupipe.affwild2.labels import parse
from aupipe.affwild2.layout import EDITIONS
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.facestore.schema import SPLITS
from aupipe.storage import Storage
from aupipe.synthesis.au_schedule import VideoPlan, plan
from aupipe.synthesis.clip import FPS, crops, encode, perform
from aupipe.synthesis.render_job import CARD, SynthesisConfig, json_bytes, made_from
from aupipe.synthesis.rig import Rig
from aupipe.synthesis.voice import samples

_SPLIT_FOLDERS = dict(zip(SPLITS, ("Train_Set", "Validation_Set"), strict=True))


@dataclass(frozen=True)
class Clip:
    """One video file: its one person or two (side by side, the left one first), and the rig of their heads."""

    name: str
    people: tuple[VideoPlan, ...]
    rig: str


@dataclass(frozen=True)
class VideoSet:
    """All options that the bytes of a data set depend on. `pairs` of the `videos` contain two people."""

    videos: int
    pairs: int
    seconds: float
    seed: int
    edition: str
    rigs: tuple[str, ...]
    config: SynthesisConfig

    @property
    def frames(self) -> int:
        return round(self.seconds * FPS)

    def units(self) -> list[Clip]:
        """Return the videos by name, with the rigs in turn. Pairs are the last people of the splits, train first."""
        size = self.config.render.size_px
        # The seed is part of the name, because another seed gives another video.
        names = [f"{self.seed:02d}{i + 1:04d}-{FPS}-{size}x{size}" for i in range(self.videos + self.pairs)]
        expressions = EDITIONS[self.edition].classes
        people = plan(seed=self.seed, names=names, frames=self.frames, fps=FPS, expressions=expressions)
        clips: list[tuple[str, tuple[VideoPlan, ...]]] = []
        for number in range(self.pairs):
            pair = [person for person in people if person.split == SPLITS[number % len(SPLITS)]][-2:]
            people = [person for person in people if person not in pair]
            name = pair[0].name.replace(f"{size}x", f"{2 * size}x")
            sides = zip(pair, ("left", "right"), strict=True)
            clips.append((name, tuple(replace(person, name=f"{name}_{side}") for person, side in sides)))
        clips += [(person.name, (person,)) for person in people]
        return [Clip(*clip, self.rigs[number % len(self.rigs)]) for number, clip in enumerate(sorted(clips, key=_name))]

    def card(self) -> dict[str, object]:
        """Return the initial content of dataset.json. A later run must have the same options."""
        return made_from(self.seed, self.rigs, self.config) | {
            "videos": self.videos,
            "pairs": self.pairs,
            "seconds": self.seconds,
            "fps": FPS,
            "edition": self.edition,
            "template": ARCFACE_TEMPLATE.tolist(),
            "identities": "each person in one video",
        }

    def frame_count(self, clip: Clip) -> int:
        """Return the number of pictures of a unit."""
        return self.frames * len(clip.people)

    def is_complete(self, clip: Clip, storage: Storage) -> bool:
        return storage.exists(_annotation("au", clip.people[-1], self))

    def make(self, clip: Clip, heads: Rig, storage: Storage) -> None:
        """Render one video and write its files, the annotations last."""
        make_video(clip, self, heads, storage)

    def finish(self, storage: Storage) -> str:
        """Write the counts of each split into dataset.json. Return a summary of the data set."""
        people = [person for clip in self.units() for person in clip.people]
        found = {split: _count([p for p in people if p.split == split], self, storage) for split in SPLITS}
        storage.write(CARD, json_bytes(self.card() | {"splits": {split: asdict(c) for split, c in found.items()}}))
        return summary(found, storage.root)

    def text(self, storage: Storage) -> str:
        """Return the plan as text."""
        clips = self.units()
        done = sum(self.is_complete(clip, storage) for clip in clips)
        size, validation = self.config.render.size_px, sum(clip.people[0].split == "validation" for clip in clips)
        return (
            f"{storage.root}: {len(clips)} videos of {self.frames} frames, {size}×{size} per person at {FPS}/s, "
            f"{self.pairs} of them with two people, {validation} for validation, {done} done; edition {self.edition}, "
            f"seed {self.seed}, rig {', '.join(self.rigs)}"
        )


def _name(clip: tuple[str, tuple[VideoPlan, ...]]) -> str:
    return clip[0]


def make_video(clip: Clip, spec: VideoSet, rig: Rig, storage: Storage) -> None:
    """Render one video and write its files, the annotations last."""
    config = spec.config
    performed = [perform(person, config.render, rig) for person in clip.people]
    name = f"batch1/{clip.name}.mp4"
    pictures = np.concatenate([person.pictures for person in performed], axis=2)
    storage.write(name, encode(pictures, samples([person.sound for person in performed]), config.render.crf))
    for place, frame, picture in crops(storage.path(name), len(performed), config.detector, config.alignment):
        storage.write(f"cropped_aligned/{clip.people[place].name}/{frame + 1:05d}.jpg", picture)
    for person, performance in zip(clip.people, performed, strict=True):
        unknown = ~person.annotated
        expression = np.where(unknown, facs.UNKNOWN, person.expression)
        labels = np.where(unknown[:, None], facs.UNKNOWN, performance.au.astype(np.int8))
        classes = ",".join(EDITIONS[spec.edition].classes)
        storage.write(_annotation("expr", person, spec), _lines(classes, expression[:, None]))
        storage.write(_annotation("au", person, spec), _lines(",".join(facs.AFFWILD2_AUS), labels))


@dataclass(frozen=True)
class SplitCounts:
    """The counts of one split.

    Attributes:
        people: number of people.
        frames: of all people.
        crops: of all people.
        annotated: frames with labels.
        positive_rate: of each AU, over the annotated frames.
        people_positive: number of people with the AU.
    """

    people: int
    frames: int
    crops: int
    annotated: int
    positive_rate: dict[str, float]
    people_positive: dict[str, int]


def _count(people: Sequence[VideoPlan], spec: VideoSet, storage: Storage) -> SplitCounts:
    files = [_annotation("au", person, spec) for person in people]
    labels = [parse("au", storage.read(file), file).values for file in files]
    known = [values[(values != facs.UNKNOWN).all(1)] for values in labels]
    positive = np.stack([(values == 1).sum(0) for values in known])
    annotated = sum(len(values) for values in known)
    return SplitCounts(
        people=len(people),
        frames=sum(len(values) for values in labels),
        crops=sum(len(storage.names(f"cropped_aligned/{person.name}", ".jpg")) for person in people),
        annotated=annotated,
        positive_rate=dict(zip(facs.AUS, (positive.sum(0) / annotated).round(4).tolist(), strict=True)),
        people_positive=dict(zip(facs.AUS, (positive > 0).sum(0).tolist(), strict=True)),
    )


def summary(found: Mapping[str, SplitCounts], out: str) -> str:
    """Return the data set as text."""
    lines = []
    for split, counts in found.items():
        rates = " ".join(f"{au} {rate:.3f}" for au, rate in counts.positive_rate.items())
        lines.append(
            f"{split}: {counts.people} people, {counts.frames:,} frames, {counts.crops:,} with a face; {rates}"
        )
    return "\n".join([*lines, f"data set: {out}"])


def _annotation(task: str, person: VideoPlan, spec: VideoSet) -> str:
    edition = EDITIONS[spec.edition]
    folder = {"au": edition.au, "expr": edition.expr}[task]
    return f"annotations/{folder}/{_SPLIT_FOLDERS[person.split]}/{person.name}.txt"


def _lines(header: str, rows: npt.NDArray[np.integer]) -> bytes:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows.tolist()), ""]).encode()
