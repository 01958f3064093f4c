"""The settings of an annotation job."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import Field, field_validator

from aupipe import facs
from aupipe.annotation.input_search import ImageRule
from aupipe.config import Inference, Precision, Resources, Section
from aupipe.evaluation.decision import EnsembleRule
from aupipe.faces.align import AlignmentConfig
from aupipe.faces.detect import DetectorConfig
from aupipe.faces.search import SearchConfig
from aupipe.faces.track import TrackingConfig
from aupipe.media.container import MAX_FRAME_PX, ROUNDING_S


class SmoothingConfig(Section):
    """Box mean over time."""

    radius: int | None = Field(default=None, ge=0)  # frames on each side; None: the value of each checkpoint


class EventsConfig(Section):
    """The rule that joins positive frames to events.

    With the defaults, events are exactly the runs of frames whose `AUxx` is true, with short gaps closed, so they agree
    with the frames table. Hysteresis and a minimum duration are a matter of the research question.
    """

    max_gap_s: float = Field(default=0.2, ge=0)  # missing or negative frames up to this duration do not end an event
    min_duration_s: float = Field(default=0.0, ge=0)  # shorter events are dropped
    # An event continues, before and after its positive frames, while the probability is at most this below the
    # threshold: fewer interruptions of one movement, later ends. With `vote`, below the mean of the models' thresholds.
    hysteresis: float = Field(default=0.0, ge=0, lt=1)


class MediaConfig(Section):
    """The selection of the video track in a container."""

    track: int | None = Field(default=None, ge=0)  # 0-based number of the video track; None: the default of a player


class LimitsConfig(Section):
    """The limits of one input, beyond which it is quarantined."""

    attempts: int = Field(default=3, ge=1)  # at a segment that crashes or stalls its worker
    kills: int = Field(default=10, ge=1)  # of the workers of a segment by the system: out of memory, or a lost node
    stall_s: float = Field(default=300.0, gt=0)  # without a new frame, until the worker is ended
    frame_px: int = Field(default=MAX_FRAME_PX, ge=1)  # pixels of a frame
    frames: int = Field(default=20_000_000, ge=1)  # of a video by its header; four days at 60 per second
    duration_s: float = Field(default=400_000.0, gt=0)  # of a video by its header
    probe_s: float = Field(
        default=3600.0, gt=0
    )  # for reading the packets or sound of a video, until the worker is ended
    # The job ends with exit code 1 if its first 200 results show that more than this share will be quarantined.
    quarantined_share: float = Field(default=0.8, gt=0, le=1)
    # Without any result of any worker, until the job ends with exit code 1. It exceeds the other limits, which end a
    # stalled worker. The wait for the first node is not counted.
    no_progress_s: float = Field(default=7200.0, gt=0)


class CostConfig(Section):
    """The costs for estimates and for the summary of a run."""

    cpu_hour: float = Field(default=0.0, ge=0)  # price, in any currency
    # Estimated CPU time per frame. A run prints the measured one: with the starter model 0.003 s at 640×360 with one
    # face, 0.007 s with four, and 0.009 s at 1920×1080.
    frame_cpu_s: float = Field(default=0.01, gt=0)


class AnnotateConfig(Section):
    """All settings of `annotate.py --set`."""

    detector: DetectorConfig = DetectorConfig()
    search: SearchConfig = SearchConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    tracking: TrackingConfig = TrackingConfig()
    ensemble: EnsembleRule = "mean"  # the rule that combines several checkpoints
    inference: Inference = Inference()
    smoothing: SmoothingConfig = SmoothingConfig()
    thresholds: dict[str, float] = Field(default_factory=dict)  # per AU; they override those of the checkpoints
    events: EventsConfig = EventsConfig()
    media: MediaConfig = MediaConfig()
    # Images in folders. each: every image is an input; sequence: the images of a folder, in the order of their numbers,
    # are one; skip: none is read; auto: each in a folder without videos, otherwise skip. An image that is named itself
    # is always read.
    images: ImageRule = "auto"
    # Frames a second of inputs without a clock: elementary streams (.h264, .265, .m2v …) and sequences of images. None:
    # their times are null.
    assume_fps: float | None = Field(default=None, ge=1e-6)
    sample_fps: float | None = Field(default=None, gt=0)  # maximum number of frames per second; None: all frames
    # Long videos are split at key frames into segments of about this duration. None: a sixteenth of the video, but at
    # least 30 s, because a segment decodes some seconds more than it writes, and at most 60 s.
    segment_s: float | None = Field(default=None, gt=0)
    # Of short videos that are annotated as one task, about, because it is estimated for small files; 0: no packets.
    packet_frames: int = Field(default=6000, ge=0)
    batch_size: int = Field(default=64, ge=1)  # crops per encoder call; the last batch is padded
    # Of the encoders. bfloat16 is for GPUs: on most CPUs it is slower, and probabilities differ by about 0.01.
    precision: Precision = "float32"
    # auto: small jobs run in this process if no cluster is named, all others on Ray.
    engine: Literal["auto", "local", "ray"] = "auto"
    # Processes that only run the models, each on a GPU, or on a CPU if there is none. None: one if there is a GPU,
    # otherwise none, and the processes that decode run the models too.
    encoders: int | None = Field(default=None, ge=1)
    # Memory for crops between decoders and encoders in Ray Data; None: half of the object stores of the cluster.
    object_store_bytes: int | None = Field(default=None, ge=2**28)
    wave_bytes: int = Field(default=20 * 10**9, ge=1)  # of embeddings on disk, about, before they are finalized
    rows_per_file: int = Field(default=500_000, ge=1)  # maximum number of rows in a frames file
    limits: LimitsConfig = LimitsConfig()
    cost: CostConfig = CostConfig()
    resources: Resources = Resources()

    @property
    def effective_tracking(self) -> TrackingConfig:
        """The tracking settings with a `max_gap_s` that spans the sampled frames, and the rounding of clocks."""
        gap_s = max(self.tracking.max_gap_s, 0.0 if self.sample_fps is None else 1.5 / self.sample_fps)
        return self.tracking.model_copy(update={"max_gap_s": gap_s + ROUNDING_S})

    @property
    def effective_events(self) -> EventsConfig:
        """The event settings with durations that allow for the rounding of clocks."""
        gap_s, least_s = self.events.max_gap_s + ROUNDING_S, max(0.0, self.events.min_duration_s - ROUNDING_S)
        return self.events.model_copy(update={"max_gap_s": gap_s, "min_duration_s": least_s})

    @field_validator("thresholds")
    @classmethod
    def _known_aus(cls, value: dict[str, float]) -> dict[str, float]:
        for name, threshold in value.items():
            if name not in facs.AUS:
                # The most similar name is that of another movement, so all are given.
                raise ValueError(f"unknown AU {name!r} (allowed: {', '.join(facs.AUS)})")
            if not 0 <= threshold <= 1:
                raise ValueError(f"{name}={threshold} is not a probability")
        return value


def content_hash(*parts: object) -> str:
    """Return the SHA-256 of the JSON of the parts."""
    return hashlib.sha256(_json(parts).encode()).hexdigest()


class ContentHash:
    """`content_hash` of strings that vary and of constant parts (at least one), whose JSON is made once."""

    def __init__(self, *constant: object) -> None:
        self._rest = _json(constant)[1:]

    def __call__(self, *varying: str) -> str:
        """Return `content_hash(*varying, *constant)`."""
        return hashlib.sha256(f"[{', '.join(map(json.dumps, varying))}, {self._rest}".encode()).hexdigest()


def _json(parts: object) -> str:
    return json.dumps(parts, sort_keys=True, default=str)
