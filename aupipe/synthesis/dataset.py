"""A rendered data set on disk, laid out as Aff-Wild2 is: one video at a time, each complete or absent.

DIR/batch1/VIDEO.mp4, DIR/cropped_aligned/VIDEO/NNNNN.jpg (1-based; none where no face was found), the annotation files
of the edition, and DIR/dataset.json: what the set was made from, later also what is in it. A video's AU annotation is
written last: where it is, the video is complete.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from aupipe import __version__, facs
from aupipe.affwild2.labels import parse
from aupipe.affwild2.layout import EDITIONS
from aupipe.config import Section
from aupipe.errors import ConfigError
from aupipe.faces.align import ARCFACE_TEMPLATE, AlignmentConfig, crop, neighbours, smooth_landmarks
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.facestore.schema import SPLITS
from aupipe.media.frames import frames
from aupipe.storage import Storage
from aupipe.synthesis import actions, rig
from aupipe.synthesis.activations import PRESENT, VideoPlan, plan, present
from aupipe.synthesis.appearance import draw_person
from aupipe.synthesis.render import Renderer
from aupipe.synthesis.rig import Rig
from aupipe.synthesis.scene import draw_movements, draw_pose, draw_scene, neck_weights, turned

GENERATOR = "aupipe synthesize"
CARD = "dataset.json"
FPS = 25
_SPLIT_FOLDERS = dict(zip(SPLITS, ("Train_Set", "Validation_Set"), strict=True))


class RenderConfig(Section):
    """The pictures. Part of the key of a data set."""

    size_px: int = Field(default=160, ge=64, le=1024, multiple_of=2)  # width and height of the videos
    samples: int = Field(default=4, ge=1, le=1024)  # light paths a pixel
    crf: int = Field(default=18, ge=0, le=51)  # H.264's constant rate factor


class SynthesisConfig(Section):
    """What `--set` reaches. All of it is part of the key of a data set."""

    render: RenderConfig = RenderConfig()
    detector: DetectorConfig = DetectorConfig()
    alignment: AlignmentConfig = AlignmentConfig()


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
            "aupipe_version": __version__,
            "rig": f"anny {rig.version()}",
            "licence": rig.LICENCE,
            "videos": self.videos,
            "seconds": self.seconds,
            "fps": FPS,
            "seed": self.seed,
            "edition": self.edition,
            "config": self.config.model_dump(),
            "au_order": list(facs.AUS),
            "present_from_intensity": PRESENT,
            "lips_parted_from_dm": actions.LIPS_PARTED_DM,
            "template": ARCFACE_TEMPLATE.tolist(),
            "identities": "one a video",
        }


def claim(spec: Spec, storage: Storage) -> None:
    """Make `storage` the place of this data set, or check that it is.

    Raises:
        ConfigError: it holds another data set, or something else.
    """
    if not storage.exists(CARD):
        if storage.names():
            raise ConfigError(f"--out {storage.root} holds files but no {CARD}; name an empty or a new folder")
        storage.write(CARD, _json(spec.card()))
        return
    held, wanted = json.loads(storage.read(CARD)), json.loads(_json(spec.card()))
    other = [key for key in wanted if held.get(key) != wanted[key]]
    if other:
        key = other[0]
        raise ConfigError(
            f"--out {storage.root} holds a data set with {key} {held.get(key)!r}, not {wanted[key]!r}; "
            "name another folder, or give the options it was made with"
        )


def is_complete(video: VideoPlan, spec: Spec, storage: Storage) -> bool:
    return storage.exists(_annotation("au", video, spec))


def make_video(video: VideoPlan, spec: Spec, the_rig: Rig, storage: Storage) -> None:
    """Render one video and write its files, the annotations last."""
    config = spec.config
    pictures, au = _perform(video, config.render, the_rig)
    name = f"batch1/{video.name}.mp4"
    storage.write(name, encode(pictures, config.render.crf))
    for frame, picture in _crops(storage.path(name), config):
        storage.write(f"cropped_aligned/{video.name}/{frame + 1:05d}.jpg", picture)
    unknown = ~video.annotated
    expression = np.where(unknown, facs.UNKNOWN, video.expression)
    labels = np.where(unknown[:, None], facs.UNKNOWN, au.astype(np.int8))
    classes = ",".join(EDITIONS[spec.edition].classes)
    storage.write(_annotation("expr", video, spec), _lines(classes, expression[:, None]))
    storage.write(_annotation("au", video, spec), _lines(",".join(facs.AFFWILD2_AUS), labels))


def finish(spec: Spec, plans: Sequence[VideoPlan], storage: Storage) -> dict[str, object]:
    """Count what is there and write it into dataset.json. Returns the splits' counts and rates."""
    found: dict[str, object] = {}
    for split in SPLITS:
        chosen = [video for video in plans if video.split == split]
        labels = [parse("au", storage.read(name), name).values for name in (_annotation("au", v, spec) for v in chosen)]
        known = np.concatenate(labels) if labels else np.zeros((0, len(facs.AUS)), np.int8)
        known = known[(known >= 0).all(1)]
        people = np.array([(values == 1).any(0) for values in labels]).reshape(-1, len(facs.AUS)).sum(0)
        found[split] = {
            "videos": len(chosen),
            "frames": spec.frames * len(chosen),
            "crops": sum(len(storage.names(f"cropped_aligned/{video.name}", ".jpg")) for video in chosen),
            "annotated": len(known),
            "positive_rate": dict(zip(facs.AUS, (known == 1).mean(0).round(4).tolist(), strict=True)) if chosen else {},
            "people_positive": dict(zip(facs.AUS, people.tolist(), strict=True)),
        }
    storage.write(CARD, _json(spec.card() | {"splits": found}))
    return found


def encode(pictures: npt.NDArray[np.uint8], crf: int) -> bytes:
    """(N, H, W, 3) uint8 RGB as an H.264 mp4 with a key frame every second; one thread, so the same bytes again."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": str(crf), "preset": "fast"})
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = FPS
        stream.time_base = Fraction(1, FPS)
        stream.thread_count = 1
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _perform(
    video: VideoPlan, config: RenderConfig, the_rig: Rig
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """The pictures (N, H, W, 3) and AU labels (N, 12) of a video."""
    rng = np.random.default_rng(video.seed)
    count = len(video.intensity)
    person, scene = draw_person(rng, the_rig), draw_scene(rng, config.size_px)
    pose, movements = draw_pose(rng, count, FPS), draw_movements(rng, count, FPS)
    asymmetry = float(rng.normal(0, 0.08))
    renderer = Renderer(the_rig, person, scene, size_px=config.size_px, samples=config.samples)
    neck, lips = neck_weights(person.vertices), actions.lip_columns(the_rig)
    pictures = np.empty((count, config.size_px, config.size_px, 3), np.uint8)
    parted = np.empty(count, bool)
    for frame in range(count):
        intensity = dict(zip(facs.AUS, video.intensity[frame].tolist(), strict=True))
        intensity |= {name: float(curve[frame]) for name, curve in movements.items()}
        face = the_rig.shape(actions.offset_weights(intensity, asymmetry), person.vertices)
        parted[frame] = lips.gap(face) > actions.LIPS_PARTED_DM
        pictures[frame] = renderer.frame(turned(face, pose[frame], neck), seed=(video.seed + frame) % 2**31)
    return pictures, present(video.intensity, parted)


def _crops(uri: str, config: SynthesisConfig) -> list[tuple[int, bytes]]:
    """(0-based frame, JPEG) of the best face in each frame of the video as decoded, aligned as all video is."""
    detector = Detector(config.detector)
    decoded = [(frame.index, frame.image) for frame in frames(uri) if frame.image is not None]
    found = [detector.detect(image) for _, image in decoded]
    links = [np.full(len(found[0]), -1), *(neighbours(a, b) for a, b in pairwise(found))]
    crops = []
    for at, (index, image) in enumerate(decoded):
        if len(found[at]) and min(found[at].boxes[0, 2:]) >= config.detector.min_face_px:
            points = smooth_landmarks(found, links, at, config.alignment.smoothing_radius)
            crops.append((index, _jpeg(crop(image, points[0], ARCFACE_TEMPLATE))))
    return crops


def _jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    """JPEG at quality 95, 4:4:4, of (H, W, 3) uint8 RGB."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1].tobytes()


def _annotation(task: str, video: VideoPlan, spec: Spec) -> str:
    edition = EDITIONS[spec.edition]
    folder = {"au": edition.au, "expr": edition.expr}[task]
    return f"annotations/{folder}/{_SPLIT_FOLDERS[video.split]}/{video.name}.txt"


def _lines(header: str, rows: npt.NDArray[np.integer]) -> bytes:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows.tolist()), ""]).encode()


def _json(content: dict[str, object]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
