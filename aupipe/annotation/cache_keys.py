"""Content keys: equal keys mean equal results, so a result that is stored under its key is not computed again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from aupipe import facs
from aupipe.annotation import audio_features
from aupipe.annotation.model_set import ModelSet
from aupipe.annotation.postprocess import Decision
from aupipe.annotation.schema import SCHEMA_VERSION
from aupipe.annotation.segments import SAMPLING, Segment
from aupipe.annotation.settings import AnnotateConfig, ContentHash, content_hash
from aupipe.faces import align, detect, track
from aupipe.faces.detect import weights_sha256


@dataclass(frozen=True)
class CacheKeys:
    """The keys of one job: hashes of its models, its decision and the settings that affect each step.

    `source_hash` identifies the source of a video's rows: the fingerprint of its file and, if only a part is requested,
    that part. The keys of features depend on it, because they are names of files. The others do not, because a plan
    compares them for all videos of an archive.
    """

    models: ModelSet
    config: AnnotateConfig

    @cached_property
    def decision(self) -> Decision:
        """The thresholds and smoothing of the checkpoints, overridden by the settings of the job."""
        cards = [member.card for member in self.models.members]
        radius = self.config.smoothing.radius
        return Decision(
            self.config.ensemble,
            tuple({**card.thresholds, **self.config.thresholds} for card in cards),
            tuple(card.smoothing.radius if radius is None else radius for card in cards),
            {au: sum(card.rest[au] for card in cards) / len(cards) for au in facs.AUS},
        )

    def video(self, source_hash: str) -> str:
        """Return the key of a video's features. It does not depend on the name of the video."""
        return self._extract(source_hash)[:32]

    def segment(self, source_hash: str, segment: Segment) -> str:
        """Return the key of a segment's features: the key of the video and that of the frames."""
        return f"{self.video(source_hash)}.{content_hash(segment.write_start, segment.write_stop)[:16]}"

    @cached_property
    def head_key(self) -> str:
        """The key of face ids and raw probabilities, beside `source_hash`. It does not depend on the segments."""
        overlaps = [member.card.overlap_under(self.config.inference) for member in self.models.members]
        blended = overlaps if self.models.window_length > 1 else None
        tracking = self.config.effective_tracking.model_dump()
        return content_hash(self._extract(""), self.models.sha256, blended, tracking)

    @cached_property
    def decide_key(self) -> str:
        """The key of final tables, beside `source_hash`. Both ensemble rules read the same columns."""
        decision = self.decision
        rule = decision.rule if len(decision.radii) > 1 else None
        events = self.config.effective_events.model_dump()
        return content_hash(self.head_key, rule, decision.thresholds, decision.radii, decision.rest, events)

    def _extract(self, source_hash: str) -> str:
        return self._extract_hash(SCHEMA_VERSION, source_hash)

    @cached_property
    def _extract_hash(self) -> ContentHash:
        detector = self.config.detector.model_dump(exclude={"weights"})
        detector |= {"sha256": weights_sha256(self.config.detector), "method": detect.METHOD}
        sampling = None if self.config.sample_fps is None else f"sampling {SAMPLING}"
        sound = f"sound {audio_features.METHOD}" if self.models.uses_audio else None
        stated = (self.config.media.track, self.config.assume_fps, sampling, sound)
        optional = [part for part in stated if part is not None]
        # Extraction finds the earlier faces that a face may continue, so its features depend on the tracking settings.
        linking = self.config.effective_tracking.model_dump() | {"method": track.METHOD}
        search = self.config.search.model_dump()
        alignment = self.config.alignment.model_dump() | {"method": align.METHOD}
        return ContentHash(self.models.encoders_key, detector, search, alignment, linking, *optional)
