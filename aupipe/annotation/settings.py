"""The settings of an annotation job, and the keys that say which of its results they change."""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import Literal

from pydantic import Field, field_validator

from aupipe import facs
from aupipe.config import Inference, Resources, Section
from aupipe.evaluation.decision import EnsembleRule
from aupipe.faces.align import AlignmentConfig
from aupipe.faces.detect import DetectorConfig
from aupipe.faces.track import TrackingConfig
from aupipe.media.container import MAX_FRAME_PX


class SmoothingConfig(Section):
    """Box mean over time."""

    radius: int | None = Field(default=None, ge=0)  # frames on each side; None: as each checkpoint says


class EventsConfig(Section):
    """When consecutive positive frames are one event."""

    max_gap_s: float = Field(default=0.2, ge=0)  # missed or negative frames this short do not end an event
    min_duration_s: float = Field(default=0.0, ge=0)  # shorter events are left out


class MediaConfig(Section):
    """Which part of a container is the video."""

    track: int | None = Field(default=None, ge=0)  # number of the video track, from 0; None: as a player would choose


class LimitsConfig(Section):
    """What one input may cost before it is set aside."""

    attempts: int = Field(default=3, ge=1)  # of a segment whose worker dies
    stall_s: float = Field(default=300.0, gt=0)  # without another frame; then the worker is ended
    frame_px: int = Field(default=MAX_FRAME_PX, ge=1)  # pixels of a frame
    frames: int = Field(default=20_000_000, ge=1)  # of a video, by its header: four days at 60 a second
    duration_s: float = Field(default=400_000.0, gt=0)  # of a video, likewise
    probe_s: float = Field(default=3600.0, gt=0)  # for reading a video's packets or its sound; then likewise


class CostConfig(Section):
    """For estimates and for what the end of a run says."""

    cpu_hour: float = Field(default=0.0, ge=0)  # price, in any currency
    frame_cpu_s: float = Field(default=0.1, gt=0)  # a frame takes about this long; a run prints what it took


class AnnotateConfig(Section):
    """Everything that `annotate.py --set` takes."""

    detector: DetectorConfig = DetectorConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    tracking: TrackingConfig = TrackingConfig()
    ensemble: EnsembleRule = "mean"  # how several checkpoints decide together
    inference: Inference = Inference()
    smoothing: SmoothingConfig = SmoothingConfig()
    thresholds: dict[str, float] = Field(default_factory=dict)  # per AU, over those of the checkpoints
    events: EventsConfig = EventsConfig()
    media: MediaConfig = MediaConfig()
    # Frames a second of elementary streams (.h264, .265, .m2v …), which have no clock; None: their times are null.
    assume_fps: float | None = Field(default=None, gt=0)
    sample_fps: float | None = Field(default=None, gt=0)  # frames a second that are looked at, at most; None: every one
    segment_s: float = Field(default=20.0, gt=0)  # a long video is cut at key frames into pieces of about this length
    batch_size: int = Field(default=64, ge=1)  # crops per encoder call; the last batch is padded
    # auto: small jobs run in this process where no cluster is named, all others on Ray.
    engine: Literal["auto", "local", "ray"] = "auto"
    encoders: int = Field(default=1, ge=1)  # processes with the models; each has a GPU, or a CPU where there are none
    # What Ray Data holds between decoders and encoders; None: half of what the cluster's object stores have.
    object_store_bytes: int | None = Field(default=None, ge=2**28)
    wave_bytes: int = Field(default=20 * 10**9, ge=1)  # of embeddings on disk, about, before they become tables
    rows_per_file: int = Field(default=500_000, ge=1)  # rows of a frames file, before the next one begins
    limits: LimitsConfig = LimitsConfig()
    cost: CostConfig = CostConfig()
    resources: Resources = Resources()

    @property
    def effective_tracking(self) -> TrackingConfig:
        """How faces are linked: frames that are looked at may be far apart."""
        return self.tracking.model_copy(update={"max_gap_s": max(self.tracking.max_gap_s, self._sample_gap_s)})

    @property
    def effective_events(self) -> EventsConfig:
        """What is one event, likewise."""
        return self.events.model_copy(update={"max_gap_s": max(self.events.max_gap_s, self._sample_gap_s)})

    @property
    def _sample_gap_s(self) -> float:
        return 0.0 if self.sample_fps is None else 1.5 / self.sample_fps

    @field_validator("thresholds")
    @classmethod
    def _known_aus(cls, value: dict[str, float]) -> dict[str, float]:
        for name, threshold in value.items():
            if name not in facs.AUS:
                near = difflib.get_close_matches(name, facs.AUS, n=1, cutoff=0.0)[0]
                raise ValueError(f"unknown AU {name!r}; the nearest known one is {near!r}")
            if not 0 <= threshold <= 1:
                raise ValueError(f"{name}={threshold} is not a probability")
        return value


def content_hash(*parts: object) -> str:
    """sha256 over JSON of the parts: equal keys mean equal results."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
