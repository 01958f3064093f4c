"""The Python API: the stages of `annotate.py` in this process, on files or on arrays, without Ray."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, SupportsFloat, get_args

import cv2
import numpy as np
import pyarrow as pa

from aupipe import facs
from aupipe.annotation import model_set
from aupipe.annotation.annotated import ARRAY_ID, Annotation
from aupipe.annotation.annotator import annotate_in_memory
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.encode import Encoders
from aupipe.annotation.input_search import find_inputs
from aupipe.annotation.inputs import Input
from aupipe.annotation.model_set import ModelSet
from aupipe.annotation.runner import one_thread
from aupipe.annotation.settings import AnnotateConfig
from aupipe.config import Precision, check_unused, load, merge
from aupipe.errors import AupipeError, ConfigError, MediaError
from aupipe.evaluation import decision
from aupipe.evaluation.decision import EnsembleRule
from aupipe.faces import CROP_SIZE_PX
from aupipe.faces.align import crop
from aupipe.faces.detect import Detector
from aupipe.media.frames import frames
from aupipe.media.image_files import sequence_uri
from aupipe.models import default_models
from aupipe.models.checkpoint import Card
from aupipe.models.default_models import STARTER
from aupipe.storage import absolute_place

PathOrUri = str | os.PathLike[str]
# One video or image, several, or frames (N, H, W, 3) or (H, W, 3), uint8 RGB.
Source = PathOrUri | np.ndarray | Sequence[PathOrUri] | Sequence[np.ndarray]
# Nested keys, dotted keys as `annotate.py --set` takes them, or both.
Settings = Mapping[str, Any] | AnnotateConfig

_BATCH = 16  # crops per encoder call; fixed, so that a crop's probabilities do not depend on the others
# Settings of Ray, of the workers that a job ends and starts again, and of the costs in its summary.
_OF_JOBS = (
    "encoders", "object_store_bytes", "resources.workers", "resources.pools", "limits.attempts", "limits.kills",
    "limits.stall_s", "limits.probe_s", "limits.no_progress_s", "cost.cpu_hour", "cost.frame_cpu_s",
)  # fmt: skip
_APART_S = 3600.0  # between crops that are no track: longer than any hole that a window bridges


@dataclass(frozen=True, eq=False)
class Face:
    """A detected face.

    Attributes:
        box: x, y, width, height in pixels of the upright image.
        landmarks: (5, 2) float32 pixels: left eye, right eye, nose tip, left and right mouth corner, as seen.
        score: of the detector, in 0..1.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """One or several AU models that predict together; `load_model` makes it.

    Attributes:
        models: their networks and cards.
        aus: the names of the AUs, in the order of every table.
        ensemble: how several models decide in `annotate`.
    """

    models: ModelSet
    aus: tuple[str, ...] = facs.AUS
    ensemble: EnsembleRule = "mean"

    def __repr__(self) -> str:
        # Cards name all videos of the training.
        names = ", ".join(f"{card.training.recipe or card.model.name} {card.sha256[:12]}" for card in self.cards)
        return f"Model({names}; {len(self.aus)} AUs)"

    @property
    def cards(self) -> tuple[Card, ...]:
        """The card of each model: configuration, thresholds, training data, license and limits."""
        return tuple(member.card for member in self.models.members)

    @property
    def card(self) -> Card:
        """The card of the model, of several the first."""
        return self.cards[0]

    @property
    def template(self) -> np.ndarray:
        """(5, 2) float32: the places of a face's landmarks in the crops, in pixels of 112×112.

        Raises:
            ConfigError: the models were trained on crops of different templates.
        """
        if len(self.models.templates) > 1:
            raise ConfigError("the models need crops of different templates; load them one by one")
        return np.asarray(self.models.templates[0])

    def crop(self, image: np.ndarray, face: Face) -> np.ndarray:
        """Return the aligned crop (112, 112, 3) uint8 RGB of a face in an image (H, W, 3) uint8 RGB."""
        return crop(_image(image), face.landmarks, self.template)

    def predict(
        self, crops: np.ndarray | Sequence[np.ndarray], *, time_s: Sequence[float] | np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Return the probability of every AU, of several models the mean: name → (N,) float32.

        Args:
            crops: (N, 112, 112, 3) uint8 RGB, aligned to `template` as `crop` does; or a list of N crops.
            time_s: (N,) ascending seconds, if the crops are one face's in a video: temporal models then use the
                neighboring crops, and audio-visual ones run without audio. None: each crop is an image of its own.

        Example:
            >>> import numpy as np
            >>> model = aupipe.load_model("starter")
            >>> probabilities = model.predict(np.zeros((3, 112, 112, 3), np.uint8))
            >>> probabilities["AU12"].shape
            (3,)
        """
        if isinstance(crops, Sequence) and not crops:  # the crops of an image without faces
            crops = np.empty((0, CROP_SIZE_PX, CROP_SIZE_PX, 3), np.uint8)
        crops = np.asarray(crops)
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (CROP_SIZE_PX, CROP_SIZE_PX, 3):
            raise ConfigError(f"crops: {crops.dtype} {crops.shape} (uint8 (N, {CROP_SIZE_PX}, {CROP_SIZE_PX}, 3))")
        apart = np.arange(len(crops), dtype=np.float64) * _APART_S
        times = apart if time_s is None else np.asarray(time_s, np.float64)
        if times.shape != (len(crops),) or not np.isfinite(times).all() or (np.diff(times) < 0).any():
            raise ConfigError(f"time_s: {times.shape} ({len(crops)} ascending seconds, one per crop)")
        _ = self.template  # of several, no crop would fit all models
        embeddings = Encoders(self.models, _BATCH, "cpu")(list(crops[:, None]))
        total, first = np.zeros((len(crops), len(self.aus))), 0
        for member in self.models.members:
            width = member.model.embed_dim
            features = embeddings[:, first : first + width]
            total += member.model.predict(features, times, overlap=member.card.overlap)["au"]
            first += width
        mean = (total / len(self.models.members)).astype(np.float32)
        return {au: mean[:, number] for number, au in enumerate(self.aus)}


def annotate(
    source: Source,
    *,
    model: PathOrUri | Sequence[PathOrUri] | Model = STARTER,
    start_s: float | None = None,
    end_s: float | None = None,
    sample_fps: float | None = None,
    fps: float | None = None,
    thresholds: Mapping[str, float] | None = None,
    settings: Settings | None = None,
) -> Annotation:
    """Detect faces and their Action Units in videos, images or arrays of frames.

    It runs in this process, without Ray, and gives the tables that `annotate.py` writes; use that for archives.

    Args:
        source: path or URI of a video, an image or a folder; a list of them; or the frames of one video:
            an array (N, H, W, 3) or (H, W, 3), uint8 RGB, or a list of arrays (H, W, 3).
        model: as `load_model` takes it, or a loaded model. Default: the starter model, trained on rendered faces.
        start_s, end_s: the part of a video, in seconds of media time; the end is not included. None: all of it.
        sample_fps: frames per second to annotate, at most. None: every frame.
        fps: frames per second of an array, or of another input without a clock. None: its times are null.
        thresholds: AU → probability, over those of the models.
        settings: keys of `annotate.py --set`, nested or dotted: {"detector.min_score": 0.7}. Those of Ray, workers
            and costs are refused.

    Raises:
        MediaError: the one input cannot be annotated; a subclass and `reason` say why. Of several inputs, `videos`
            has the status and reason of each.
        ConfigError: an argument is wrong.

    Example:
        >>> annotation = aupipe.annotate("clip.mp4")
        >>> annotation.to_pandas()[["time_s", "face_id", "AU12_prob", "AU12"]].head()
           time_s  face_id  AU12_prob   AU12
        ...
        >>> annotation.video["status"]
        'ok'
    """
    config = _config(settings, thresholds, sample_fps, fps)
    check_unused(config, _OF_JOBS, "settings: ", "in aupipe.annotate; fix: leave it out, or run annotate.py")
    if config.engine == "ray":
        raise ConfigError("settings: engine=ray: aupipe.annotate runs in this process; fix: run annotate.py")
    if config.resources.gpu is not True and config.resources.device != "cpu":
        where = "in aupipe.annotate without resources.gpu=true; fix: set both"
        check_unused(config, ["resources.device"], "settings: ", where)
    if not isinstance(model, Model):
        model = load_model(model, ensemble=config.ensemble, precision=config.precision)
    models = model.models
    if "precision" in config.model_fields_set and config.precision != models.precision:
        raise ConfigError(f"precision: {config.precision} (of the loaded model: {models.precision})")
    if "ensemble" not in config.model_fields_set:
        config = config.model_copy(update={"ensemble": model.ensemble})
    decision.check(len(models.members), config.ensemble)
    for name, limit in (("start_s", start_s), ("end_s", end_s)):
        if limit is not None and not (isinstance(limit, SupportsFloat) and np.isfinite(float(limit))):
            raise ConfigError(f"{name}: {limit!r} (seconds, or None)")
    start_s, end_s = (None if limit is None else float(limit) for limit in (start_s, end_s))
    if start_s is not None and end_s is not None and end_s <= start_s:
        raise ConfigError(f"end_s: {end_s:g} (after start_s={start_s:g})")
    with _inputs(source, config) as (found, of_array):
        in_time = any(each is not None for each in (start_s, end_s, config.sample_fps))
        if of_array and in_time and config.assume_fps is None:
            raise ConfigError("fps: None (frames per second, for start_s, end_s and sample_fps of an array)")
        inputs = found
        if start_s is not None:
            inputs = [replace(video, start_s=start_s) for video in inputs]
        if end_s is not None:
            inputs = [replace(video, end_s=end_s) for video in inputs]
        tables = annotate_in_memory(inputs, models, config)
    videos = tables.videos
    if of_array:  # otherwise the name of a temporary folder
        videos = videos.set_column(
            videos.schema.get_field_index("uri"), videos.schema.field("uri"), pa.array([ARRAY_ID] * len(videos))
        )
    if len(inputs) == 1 and videos["status"][0].as_py() == "quarantined":
        raise _error(videos["reason"][0].as_py())
    decided = CacheKeys(models, config).decision
    is_vote = decided.rule == "vote" and len(decided.thresholds) > 1
    return Annotation(tables.frames, tables.events, videos, {} if is_vote else decided.mean_thresholds)


def load_model(
    name_or_path: PathOrUri | Sequence[PathOrUri] = STARTER,
    *,
    ensemble: EnsembleRule = "mean",
    precision: Precision = "float32",
) -> Model:
    """Load an AU model.

    Args:
        name_or_path: "starter", which comes with aupipe; or a checkpoint folder or URI, as train.py writes it to
            RUN/best; or several, which predict together.
        ensemble: how several models decide in `annotate`, unless its settings name another rule.
        precision: of the encoders; "bfloat16" is for GPUs.

    Raises:
        CheckpointError: a checkpoint cannot be used.
        ConfigError: it is no name.

    Example:
        >>> model = aupipe.load_model("starter")
        >>> model.aus[:3]
        ('AU01', 'AU02', 'AU04')
        >>> model.card.training.license
        'CC0-1.0, MIT (ICT-FaceKit)'
    """
    for argument, value, allowed in (("ensemble", ensemble, EnsembleRule), ("precision", precision, Precision)):
        if value not in get_args(allowed):
            raise ConfigError(f"{argument}: {value!r} ({' or '.join(get_args(allowed))})")
    named = [name_or_path] if isinstance(name_or_path, str | os.PathLike) else name_or_path
    if not (isinstance(named, Sequence) and named and all(isinstance(each, str | os.PathLike) for each in named)):
        raise ConfigError(f"model: {name_or_path!r} ({STARTER!r}, a checkpoint folder or URI, or several)")
    paths: list[str] = []
    for each in named:
        paths += default_models.FOLDERS if os.fspath(each) == STARTER else [os.fspath(each)]
    return Model(model_set.load(paths, ensemble, precision), ensemble=ensemble)


def detect_faces(image: PathOrUri | np.ndarray, *, settings: Settings | None = None) -> list[Face]:
    """Return the faces of an image, the highest score first.

    Args:
        image: (H, W, 3) uint8 RGB, or the path or URI of an image file, whose EXIF orientation is applied. Of a video
            the first frame is used.
        settings: keys `detector.…` of `annotate.py --set`.

    Raises:
        MediaError: the file cannot be read as an image.
        ConfigError: an argument is wrong.

    Example:
        >>> faces = aupipe.detect_faces("face.jpg")
        >>> len(faces), faces[0].landmarks.shape
        (1, (5, 2))
    """
    pixels = _read(absolute_place(os.fspath(image))) if isinstance(image, str | os.PathLike) else _image(image)
    config = _config(settings)
    others = [key for key in AnnotateConfig.model_fields if key != "detector"]
    check_unused(config, others, "settings: ", "in aupipe.detect_faces; fix: leave out all but detector.…")
    with one_thread():
        found = Detector(config.detector).detect(pixels)
    return [
        Face((box[0], box[1], box[2], box[3]), landmarks, float(score))
        for box, landmarks, score in zip(found.boxes.tolist(), found.landmarks, found.scores, strict=True)
    ]


def _config(
    settings: Settings | None, thresholds: Mapping[str, float] | None = None, sample_fps: float | None = None,
    fps: float | None = None,
) -> AnnotateConfig:  # fmt: skip
    given: dict[str, Any] = {}
    if isinstance(settings, AnnotateConfig):
        given = settings.model_dump(exclude_unset=True)
    else:
        for key, value in _named_values("settings", settings or {}).items():
            for part in reversed(key.split(".")):
                value = {part: value}  # noqa: PLW2901
            given = merge(given, value)
    if thresholds is not None:
        given = merge(given, {"thresholds": dict(_named_values("thresholds", thresholds))})
    for argument, key, value in (("sample_fps", "sample_fps", sample_fps), ("fps", "assume_fps", fps)):
        if value is None:
            continue
        if given.get(key) not in (None, value):
            raise ConfigError(f"{argument}: {value} and settings {key}={given[key]} (give one)")
        given[key] = value
    return load(AnnotateConfig, given)


def _named_values(argument: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ConfigError(f"{argument}: {given!r} (a mapping from names to values)")
    return given


@contextmanager
def _inputs(source: Source, config: AnnotateConfig) -> Iterator[tuple[Sequence[Input], bool]]:
    """Yield the inputs that a source names, and whether it is an array, whose frames are files during the block."""
    if isinstance(source, str | os.PathLike):
        yield _find([source], config), False
        return
    if not isinstance(source, np.ndarray | Sequence) or (isinstance(source, np.ndarray) and source.ndim == 0):
        raise ConfigError(
            f"source: {type(source).__name__} (a path, a URI, an array of frames, or a list of them); "
            "fix: give paths as list(paths), and an image of another library as numpy.asarray(image)"
        )
    if len(source) == 0:
        raise ConfigError("source: empty (a path, a URI, an array of frames, or a list of them)")
    paths = [each for each in source if isinstance(each, str | os.PathLike)]
    if paths:
        if len(paths) < len(source):
            raise ConfigError("source: paths and arrays in one list (paths, or arrays of one video)")
        yield _find(paths, config), False
        return
    images = [source] if isinstance(source, np.ndarray) and source.ndim <= 3 else source
    with tempfile.TemporaryDirectory(prefix="aupipe-") as folder:
        for number, image in enumerate(images):
            pixels = cv2.cvtColor(_image(image), cv2.COLOR_RGB2BGR)
            if not cv2.imwrite(str(Path(folder, f"{number:08d}.png")), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
                raise OSError(f"{folder}: cannot be written")
        yield [Input(sequence_uri(folder), ARRAY_ID)], True


def _find(paths: Sequence[PathOrUri], config: AnnotateConfig) -> Sequence[Input]:
    # A notebook may change its folder before `draw`.
    return find_inputs([absolute_place(os.fspath(path)) for path in paths], None, config.images)[0]


def _image(image: object) -> np.ndarray:
    """Return the image as an array, if it is one.

    Raises:
        ConfigError: it is not (H, W, 3) uint8.
    """
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ConfigError(
            f"image: {pixels.dtype} {pixels.shape} (uint8 (H, W, 3), RGB); fix: numpy.dstack([image] * 3) of gray, "
            "image[..., :3] of RGBA, (255 * image).astype(numpy.uint8) of numbers from 0 to 1"
        )
    return np.ascontiguousarray(pixels)


def _read(uri: str) -> np.ndarray:
    image = next((frame.image for frame in frames(uri)), None)
    if image is None:
        raise MediaError(f"{uri}: its image cannot be decoded")
    return image


def _error(reason: str) -> AupipeError:
    """Return the error that a reason in `videos` describes."""
    code, _, message = reason.partition(": ")
    if code == "internal_error":
        return AupipeError(reason)
    kinds = {kind.reason: kind for kind in MediaError.__subclasses__()}
    error = kinds.get(code, MediaError)(message)
    error.reason = code
    return error
