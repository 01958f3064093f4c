"""Content keys: equal keys mean equal results, so what stands under a key is not computed again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from aupipe.annotation.model_set import ModelSet
from aupipe.annotation.postprocess import Decision
from aupipe.annotation.schema import SCHEMA_VERSION
from aupipe.annotation.segments import Segment
from aupipe.annotation.settings import AnnotateConfig, content_hash
from aupipe.errors import ConfigError, MediaError, redact
from aupipe.faces.detect import weights_sha256
from aupipe.media.image_files import is_sequence, sequence_files
from aupipe.storage import filesystem_of, is_uri


@dataclass(frozen=True)
class CacheKeys:
    """The keys of one job: of its models, its decision and the settings that matter to each step.

    `content` names what a video's rows are made from: the fingerprint of its file and, if not all of it, what is asked.
    What is the same for every video is worked out once: an archive has thousands.
    """

    models: ModelSet
    config: AnnotateConfig

    @cached_property
    def decision(self) -> Decision:
        """The checkpoints' thresholds and smoothing, with the job's settings over them."""
        cards = [member.card for member in self.models.members]
        radius = self.config.smoothing.radius
        return Decision(
            self.config.ensemble,
            tuple({**card.thresholds, **self.config.thresholds} for card in cards),
            tuple(card.smoothing.radius if radius is None else radius for card in cards),
        )

    def video(self, content: str) -> str:
        """Of what observe leaves of a video. It does not depend on the video's name."""
        return self._observe(content)[:32]

    def segment(self, content: str, segment: Segment) -> str:
        """Of what observe leaves of a segment: the video's key and the segment's own."""
        return f"{self.video(content)}.{content_hash(segment.write_start, segment.write_stop)[:16]}"

    def head(self, content: str) -> str:
        """Of a video's face ids and raw probabilities, however it was cut into segments."""
        return content_hash(self._observe(content), *self._of_head)

    def decide(self, content: str) -> str:
        """Of a video's final tables. Both ways of deciding together read the same columns."""
        return content_hash(self.head(content), *self._of_decide)

    def _observe(self, content: str) -> str:
        return content_hash(SCHEMA_VERSION, content, *self._of_observe)

    @cached_property
    def _of_observe(self) -> tuple[object, ...]:
        detector = self.config.detector.model_dump(exclude={"weights"})
        detector |= {"sha256": weights_sha256(self.config.detector)}
        asked = [part for part in (self.config.media.track, self.config.assume_fps) if part is not None]
        # Which earlier faces a face may continue is found where both are seen.
        linking = self.config.effective_tracking.model_dump()
        return self.models.encoders_key, detector, self.config.alignment.model_dump(), linking, *asked

    @cached_property
    def _of_head(self) -> tuple[object, ...]:
        overlaps = [member.card.overlap_under(self.config.inference) for member in self.models.members]
        blended = overlaps if self.models.window_length > 1 else None
        return self.models.sha256, blended, self.config.effective_tracking.model_dump()

    @cached_property
    def _of_decide(self) -> tuple[object, ...]:
        decision = self.decision
        how = decision.how if len(decision.radii) > 1 else None
        return how, decision.thresholds, decision.radii, self.config.effective_events.model_dump()


def stat_signature(uri: str) -> str:
    """Size and time of change of a file, or its etag: while it stays, the fingerprint is trusted. "": nobody knows."""
    if is_sequence(uri):
        try:
            each = [(file, stat_signature(file)) for file in sequence_files(uri)]
        except MediaError:  # it is probed, and the reason is recorded there
            return ""
        return content_hash(each) if all(signature for _, signature in each) else ""
    try:
        if not is_uri(uri):
            status = os.stat(uri)
            return f"{status.st_size}:{status.st_mtime_ns}"
        filesystem, path = filesystem_of(uri)
        info = filesystem.info(path)
    except (OSError, UnicodeEncodeError, ConfigError):  # it is probed, and the reason said there
        return ""
    except BotoCoreError as error:
        raise ConfigError(redact(f"{uri}: {error}")) from None
    changed = next((info[key] for key in ("ETag", "mtime", "LastModified", "Last-Modified") if info.get(key)), "")
    return f"{info.get('size')}:{changed}" if changed else ""
