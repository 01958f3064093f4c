"""What a run has to do, from the inputs and what is committed: each input is in exactly one place of the list."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.inputs import Input
from aupipe.annotation.ledger import Entry, Ledger, Record
from aupipe.annotation.segments import Segment
from aupipe.errors import ConfigError, redact

_ROW_BYTES = 100  # of geometry a face, about

# A video to observe, and its segments with their keys, in time order.
PendingVideo = tuple[Record, list[tuple[str, Segment]]]


@dataclass
class WorkList:
    """Records by video_id.

    Attributes:
        unchanged: nothing to do.
        decide: head is done and committed in the entry; thresholds, smoothing or events have changed.
        observe: to be decoded.
        aside: quarantined, with the reason, or a duplicate.
        pending: left to another run, by its phase.
    """

    unchanged: dict[str, Record] = field(default_factory=dict)
    decide: dict[str, tuple[Record, Entry]] = field(default_factory=dict)
    observe: dict[str, PendingVideo] = field(default_factory=dict)
    quarantined: dict[str, Record] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)

    def quarantine(self, reasons: Mapping[str, str]) -> None:
        """Set videos aside that could not be observed, or decided, after all."""
        for video_id, reason in reasons.items():
            due = self.observe if video_id in self.observe else self.decide
            record = due.pop(video_id)[0]
            self.quarantined[video_id] = record | {"status": "quarantined", "reason": reason}

    def postpone(self, video_ids: Iterable[str]) -> None:
        """Leave videos that are to be observed, or decided again, to another run."""
        for video_id in list(video_ids):
            self.observe.pop(video_id, None)
            self.decide.pop(video_id, None)
            self.pending.add(video_id)

    def disk_bounded_batches(self, most_bytes: int, width: int) -> list[dict[str, PendingVideo]]:
        """What is to be observed, by video_id, in waves that leave about `most_bytes` of embeddings of this width."""
        waves: list[dict[str, PendingVideo]] = []
        left = 0
        for video_id, due in sorted(self.observe.items()):
            size = due[0]["frames_expected"] * (4 * width + _ROW_BYTES)
            if size > left:
                waves.append({})
                left = max(most_bytes, size)
            waves[-1][video_id] = due
            left -= size
        return waves

    def records(self) -> dict[str, Record]:
        """The record of every input."""
        return {
            **self.unchanged, **self.quarantined,
            **{key: record for key, (record, _) in self.decide.items()},
            **{key: record for key, (record, _) in self.observe.items()},
        }  # fmt: skip


def triage(
    inputs: Sequence[Input], stamps: dict[str, str], books: Ledger, keys: CacheKeys
) -> tuple[WorkList, list[Input]]:
    """What can be said without opening a file, and the inputs that must be probed."""
    work = WorkList()
    to_probe = []
    current = books.current()
    for video in inputs:
        record, entry = current.get(video.video_id, (None, None))
        said = (redact(video.uri), stamps[video.video_id])
        known = record is not None and (record["uri"], record["stamp"]) == said and said[1] != ""
        if video.refused:
            base = {"uri": redact(video.uri), "video_id": video.video_id, "stamp": ""}
            work.quarantined[video.video_id] = base | {"status": "quarantined", "reason": video.refused}
            continue
        content = "" if record is None else record["fingerprint"] + video.asked(keys.config.sample_fps)
        if record is None or entry is None or not known or record["head_key"] != keys.head(content):
            to_probe.append(video)
        elif record["decide_key"] == keys.decide(content):
            work.unchanged[video.video_id] = record
        else:
            renewed = record | {"decide_key": keys.decide(content)}
            work.decide[video.video_id] = (renewed, entry)
    return work, to_probe


def add_probed(
    work: WorkList,
    probed: Collection[tuple[Input, dict[str, Any]]],
    stamps: dict[str, str],
    books: Ledger,
    keys: CacheKeys,
) -> None:
    """Add probed inputs, in order of video_id, to the list.

    Args:
        probed: for each input {"reason": …}, or {"record": …, "segments": [Segment, …]}.

    Raises:
        ConfigError: an input has the id of another video of an earlier run.
    """
    current = books.current()
    found = {video.video_id: result["record"]["content"] for video, result in probed if "record" in result}
    first_with = {
        record["content"]: video_id
        for video_id, (record, _) in sorted(current.items(), reverse=True)
        if record["status"] in ("ok", "partial") and found.get(video_id, record["content"]) == record["content"]
    }
    for video, result in sorted(probed, key=lambda pair: pair[0].video_id):
        base: Record = {"uri": redact(video.uri), "video_id": video.video_id, "stamp": stamps[video.video_id]}
        if "reason" in result:
            work.quarantined[video.video_id] = base | {"status": "quarantined", "reason": result["reason"]}
            continue
        record = base | result["record"]
        fingerprint, content = record["fingerprint"], record["content"]
        before, entry = current.get(video.video_id, (None, None))
        if before is not None and before["fingerprint"] not in ("", fingerprint) and before["uri"] != redact(video.uri):
            raise ConfigError(
                f"{redact(video.uri)} would be video_id {video.video_id!r}, which this output has for {before['uri']}; "
                "name a common parent folder, or another --out"
            )
        if before is not None and entry is not None and before["head_key"] == keys.head(content):
            renewed = before | base | {"decide_key": keys.decide(content)}  # touched or moved, not changed
            if before["decide_key"] == renewed["decide_key"]:
                work.unchanged[video.video_id] = before
            else:
                work.decide[video.video_id] = (renewed, entry)
            continue
        twin = first_with.setdefault(content, video.video_id)
        if twin != video.video_id:
            said = {"status": "duplicate", "duplicate_of": twin, "reason": f"duplicate: same bytes as {twin}"}
            work.quarantined[video.video_id] = record | said
            continue
        record |= {"head_key": keys.head(content), "decide_key": keys.decide(content), "attempts": 1}
        record["model_sha256"] = keys.models.sha256
        work.observe[video.video_id] = (record, [(keys.segment(content, s), s) for s in result["segments"]])
