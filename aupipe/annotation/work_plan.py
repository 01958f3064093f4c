"""The work of a run, planned from its inputs, the committed results and the probed headers.

Each input is in exactly one field of the `WorkList`. Completed work is never computed again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.inputs import Input
from aupipe.annotation.ledger import Entry, Ledger
from aupipe.annotation.segments import Segment
from aupipe.annotation.stages import ProbeResult
from aupipe.annotation.video_record import VideoRecord
from aupipe.errors import ConfigError, redact

_ROW_BYTES = 100  # of one face in one frame without its embedding, about

# The record of a video to extract, and its segments with their keys, in time order.
PendingVideo = tuple[VideoRecord, list[tuple[str, Segment]]]
Spent = tuple[float, int]  # CPU seconds, and the highest number of an attempt


@dataclass
class WorkList:
    """The inputs of a run by the work that they need: records by video_id.

    Attributes:
        unchanged: no work is due.
        decide: predictions are committed in the entry; thresholds, smoothing or events have changed.
        extract: to be decoded.
        quarantined: quarantined, with the reason, or a duplicate.
        pending: left to a run of another phase.
        to_probe: must be probed before they can be planned.
    """

    unchanged: dict[str, VideoRecord] = field(default_factory=dict)
    decide: dict[str, tuple[VideoRecord, Entry]] = field(default_factory=dict)
    extract: dict[str, PendingVideo] = field(default_factory=dict)
    quarantined: dict[str, VideoRecord] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    to_probe: list[Input] = field(default_factory=list)

    def quarantine(self, reasons: Mapping[str, str]) -> None:
        """Quarantine videos whose extraction or finalization failed."""
        for video_id, reason in reasons.items():
            work = self.extract if video_id in self.extract else self.decide
            record = work.pop(video_id)[0]
            self.quarantined[video_id] = replace(record, status="quarantined", reason=reason)

    def add_spent(self, spent: Mapping[str, Spent]) -> None:
        """Add the CPU time and the attempts of videos to their records."""
        for video_id, (work_s, attempts) in spent.items():
            record, segments = self.extract[video_id]
            record = replace(
                record, work_s=(record.work_s or 0.0) + work_s, attempts=max(record.attempts or 1, attempts)
            )
            self.extract[video_id] = (record, segments)

    def add_losses(self, losses: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Add the reasons of lost segments, by video_id and key, to the records of their videos.

        Return the reasons of videos all of whose segments are lost.
        """
        failed: dict[str, str] = {}
        for video_id, reasons in losses.items():
            record, segments = self.extract[video_id]
            if len(reasons) == len(segments):
                failed[video_id] = next(iter(reasons.values()))
            else:
                more = tuple(sorted(set(reasons.values())))
                self.extract[video_id] = (replace(record, losses=(*record.losses, *more)), segments)
        return failed

    def postpone(self, video_ids: Iterable[str]) -> None:
        """Leave videos to a run of another phase."""
        for video_id in list(video_ids):
            self.extract.pop(video_id, None)
            self.decide.pop(video_id, None)
            self.pending.add(video_id)

    def disk_bounded_batches(
        self, max_bytes: int, embed_dim: int, without: Collection[str] = ()
    ) -> list[dict[str, PendingVideo]]:
        """Return the videos to extract, by video_id, in batches with about `max_bytes` of features each."""
        batches: list[dict[str, PendingVideo]] = []
        free_bytes = 0
        for video_id, video in sorted(self.extract.items()):
            if video_id in without:
                continue
            size = (video[0].frames_expected or 0) * (4 * embed_dim + _ROW_BYTES)
            if size > free_bytes:
                batches.append({})
                free_bytes = max(max_bytes, size)
            batches[-1][video_id] = video
            free_bytes -= size
        return batches


def plan(
    inputs: Sequence[Input],
    signatures: Mapping[str, str],
    cached: Ledger,
    keys: CacheKeys,
    probed: Mapping[str, ProbeResult] | None = None,
) -> WorkList:
    """Return the work that is due.

    A first call without `probed` opens no input and lists those that must be probed in `to_probe`. A second call with
    their results plans all inputs.

    Args:
        signatures: `stat_signature` of each input, by video_id.
        probed: the result of `Probe` of each input that must be probed, by video_id.

    Raises:
        ConfigError: an input has the video_id that another video of an earlier run has.
    """
    work = WorkList()
    current = cached.current()
    due: list[tuple[Input, ProbeResult]] = []
    for video in inputs:
        record, entry = current.get(video.video_id, (None, None))
        if video.refused:
            work.quarantined[video.video_id] = _unread(video, "", video.refused)
        elif record is not None and entry is not None and _is_current(video, record, signatures, keys):
            _add_committed(work, record, entry, keys, _source_hash(video, record, keys))
        elif probed is not None and video.video_id in probed:
            due.append((video, probed[video.video_id]))
        else:
            work.to_probe.append(video)
    _add_probed(work, due, signatures, current, keys)
    return work


def _is_current(video: Input, record: VideoRecord, signatures: Mapping[str, str], keys: CacheKeys) -> bool:
    """Return whether the file is unchanged by its signature, and its predictions are committed under the same key."""
    signature = signatures[video.video_id]
    same = signature != "" and (record.uri, record.stat_signature) == (redact(video.uri), signature)
    return same and record.head_key == keys.head(_source_hash(video, record, keys))


def _source_hash(video: Input, record: VideoRecord, keys: CacheKeys) -> str:
    return record.fingerprint + video.asked(keys.config.sample_fps)


def _add_committed(
    work: WorkList,
    record: VideoRecord,
    entry: Entry,
    keys: CacheKeys,
    source_hash: str,
    probed: VideoRecord | None = None,
) -> None:
    """Add a video whose predictions are committed. `probed`: its record, if it was probed again."""
    if record.decide_key == keys.decide(source_hash):
        work.unchanged[record.video_id] = record
    else:
        if probed is not None:
            record = replace(record, uri=probed.uri, stat_signature=probed.stat_signature)
        work.decide[record.video_id] = (replace(record, decide_key=keys.decide(source_hash)), entry)


def _add_probed(
    work: WorkList, probed: Sequence[tuple[Input, ProbeResult]], signatures: Mapping[str, str],
    current: Mapping[str, tuple[VideoRecord, Entry]], keys: CacheKeys,
) -> None:  # fmt: skip
    """Add probed inputs in the order of their video_id, so that the first of equal videos is not the duplicate."""
    found = {video.video_id: result.record.source_hash for video, result in probed if result.record}
    first_with = {
        record.source_hash: video_id
        for video_id, (record, _) in sorted(current.items(), key=lambda item: item[0], reverse=True)
        if record.has_rows and found.get(video_id, record.source_hash) == record.source_hash
    }
    for video, result in sorted(probed, key=lambda pair: pair[0].video_id):
        if result.record is None:
            work.quarantined[video.video_id] = _unread(video, signatures[video.video_id], result.reason)
            continue
        record = replace(result.record, stat_signature=signatures[video.video_id])
        source_hash = record.source_hash
        before, entry = current.get(video.video_id, (None, None))
        if before is not None and before.fingerprint not in ("", record.fingerprint) and before.uri != record.uri:
            raise ConfigError(
                f"{record.uri} would be video_id {video.video_id!r}, which this output has for {before.uri}; "
                "name a common parent folder, or another --out"
            )
        if before is not None and entry is not None and before.head_key == keys.head(source_hash):
            _add_committed(work, before, entry, keys, source_hash, record)  # touched or moved, but the same bytes
            continue
        twin = first_with.setdefault(source_hash, video.video_id)
        if twin != video.video_id:
            reason = f"duplicate: same bytes as {twin}"
            work.quarantined[video.video_id] = replace(record, status="duplicate", duplicate_of=twin, reason=reason)
            continue
        record = replace(
            record, head_key=keys.head(source_hash), decide_key=keys.decide(source_hash), attempts=1,
            model_sha256=keys.models.sha256,
        )  # fmt: skip
        work.extract[video.video_id] = (record, [(keys.segment(source_hash, s), s) for s in result.segments])


def _unread(video: Input, signature: str, reason: str) -> VideoRecord:
    """Return the record of a video that could not be probed."""
    return VideoRecord(redact(video.uri), video.video_id, stat_signature=signature, status="quarantined", reason=reason)
