"""The work of a run, planned from its inputs, the committed results and the probed headers.

Each input is in exactly one field of the `WorkList`. Completed work is never computed again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.faults import is_unreachable
from aupipe.annotation.inputs import Input, Inputs
from aupipe.annotation.ledger import Committed, Ledger
from aupipe.annotation.pending import Pending, pending_video, record_of
from aupipe.annotation.probed import Probed, to_results
from aupipe.annotation.stages import ProbeResult
from aupipe.annotation.video_record import VideoRecord
from aupipe.annotation.video_rows import first_equal, mask, one_piece, rows_of, take_rows
from aupipe.errors import ConfigError, redact

_ROW_BYTES = 100  # of one face in one frame without its embedding, about

Spent = tuple[float, int]  # CPU seconds, and the highest number of an attempt


@dataclass
class WorkList:
    """The inputs of a run by the work that they need, by video_id.

    Attributes:
        unchanged: no work is due.
        decide: predictions are committed in the entry; thresholds, smoothing or events have changed.
        extract: to be decoded. Small files are not probed yet (see `small_files`).
        quarantined: the records of quarantined videos, with the reason, and of duplicates.
        clashing: the records of inputs that cannot be read and whose video_id is that of another file with committed
            rows. They are only in the summary of the run, because the rows and the record stay those of that file.
        pending: left to a run of another phase.
        to_probe: must be probed before they can be planned.
        touched: the unchanged ones whose file was touched or moved, so that the ledger has another URI or signature.
        work_s: CPU seconds that were spent.
    """

    unchanged: Committed
    decide: Committed
    extract: Pending
    quarantined: dict[str, VideoRecord] = field(default_factory=dict)
    clashing: dict[str, VideoRecord] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    to_probe: Inputs = field(default_factory=lambda: Inputs.of([]))
    touched: Inputs = field(default_factory=lambda: Inputs.of([]))
    work_s: float = 0.0

    def add_left(
        self, results: Iterable[ProbeResult], failed: Collection[str], twins: Mapping[str, str], keys: CacheKeys
    ) -> list[ProbeResult]:
        """Add the results of small files that were probed and not annotated.

        Return those whose extraction is due.

        Args:
            results: of probing.
            failed: those that will be quarantined.
            twins: the first video with the same bytes, by video_id.
        """
        due: list[ProbeResult] = []
        for result in results:
            video = self.extract.input(result.video_id)
            if result.video_id in twins:
                self.extract.remove(result.video_id)
                self.quarantined[result.video_id] = _duplicate(video, result, twins[result.video_id])
                continue
            if result.video_id in failed:
                self.extract.change(pending_video(video, result, keys)[0])
            else:
                due.append(result)
        return due

    def quarantine(self, reasons: Mapping[str, str]) -> None:
        """Quarantine videos whose extraction or finalization failed."""
        for video_id, reason in reasons.items():
            record = self._pop(video_id)
            self.quarantined[video_id] = replace(record, status="quarantined", reason=reason)

    def add_spent(self, spent: Mapping[str, Spent], only: Collection[str] | None = None) -> None:
        """Add the CPU time and the attempts of videos to their records.

        Args:
            only: the videos whose records change, because the others are committed; None: all.
        """
        self.work_s += sum(work_s for work_s, _ in spent.values())
        for video_id in spent if only is None else only:
            (work_s, attempts), (record, _) = spent[video_id], self.extract[video_id]
            self.extract.change(
                replace(record, work_s=(record.work_s or 0.0) + work_s, attempts=max(record.attempts or 1, attempts))
            )

    def add_losses(self, losses: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Add the reasons of lost segments, by video_id and key, to the records of their videos.

        Return the reasons of videos all of whose segments are lost, each that of the first segment.
        """
        failed: dict[str, str] = {}
        for video_id, reasons in losses.items():
            record, segments = self.extract[video_id]
            if len(reasons) == len(segments):
                failed[video_id] = reasons[segments[0][0]]
            else:
                more = tuple(sorted(set(reasons.values())))
                self.extract.change(replace(record, losses=(*record.losses, *more)))
        return failed

    def add(self, other: WorkList) -> None:
        """Add what a plan of some of these videos came to."""
        for video_id in other.quarantined:
            self.extract.remove(video_id)
        self.quarantined |= other.quarantined
        self.work_s += other.work_s

    def quarantine_committed(self, reasons: Mapping[str, str], committed: Committed) -> None:
        """Quarantine videos whose rows are committed, without the counts of their rows."""
        for video_id in filter(committed.__contains__, reasons):
            record, _ = committed[video_id]
            self.quarantined[video_id] = replace(
                record, status="quarantined", reason=reasons[video_id], frames_decoded=None, frames_lost=None,
                frames_corrupt=None, faces=None,
            )  # fmt: skip

    def keep_unreachable(self, committed: Committed) -> dict[str, VideoRecord]:
        """Leave the committed rows of videos that cannot be reached now. Return their records, with status partial.

        A disk that is not mounted or a network that fails must not cost the work of earlier runs.
        """
        kept: dict[str, VideoRecord] = {}
        for video_id, record in sorted(self.quarantined.items()):
            if is_unreachable(record.reason) and video_id in committed:
                before, _ = committed[video_id]
                if before.has_rows:
                    reason = f"{record.reason} (the rows of an earlier run are kept)"
                    reason = "; ".join(filter(None, (reason, before.reason)))
                    kept[video_id] = replace(before, status="partial", reason=reason)
        for video_id in kept:
            del self.quarantined[video_id]
        return kept

    def postpone(self, video_ids: Iterable[str]) -> None:
        """Leave videos to a run of another phase."""
        for video_id in list(video_ids):
            self.extract.remove(video_id)
            self.decide.remove(video_id)
            self.pending.add(video_id)

    def drop_due(self) -> None:
        """Drop the videos to extract and to decide."""
        self.extract, self.decide = self.extract.subset(np.arange(0)), self.decide.subset(np.arange(0))

    def disk_bounded_batches(
        self, max_bytes: int, embed_dim: int, without: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Return the rows of videos to extract in batches with about `max_bytes` of features each.

        Args:
            without: rows that are left out.
        """
        batches: list[list[int]] = []
        free_bytes = 0
        is_due = np.ones(len(self.extract.ids), bool)
        is_due[[] if without is None else without] = False
        sizes = (self.extract.frames * (4 * embed_dim + _ROW_BYTES)).tolist()
        for row in np.flatnonzero(is_due).tolist():
            if sizes[row] > free_bytes:
                batches.append([])
                free_bytes = max(max_bytes, sizes[row])
            batches[-1].append(row)
            free_bytes -= sizes[row]
        return [np.array(batch) for batch in batches]

    def _pop(self, video_id: str) -> VideoRecord:
        work: Pending | Committed = self.extract if video_id in self.extract else self.decide
        return work.pop(video_id)[0]


def plan(inputs: Inputs, cached: Ledger, keys: CacheKeys, probed: Probed | None = None) -> WorkList:
    """Return the work that is due.

    A first call without `probed` opens no input and lists those that must be probed in `to_probe`. A second call with
    their results plans all inputs.

    Args:
        inputs: in the order of their video_id, with signatures.
        probed: the result of `Probe` of each input that must be probed, or the estimate of a small file.

    Raises:
        ConfigError: an input has the video_id that another video of an earlier run has.
    """
    current = cached.current()
    results = (probed or Probed()).table()
    rows = rows_of(current.ids, inputs.ids)  # in `current`
    found = rows_of(one_piece(results["video_id"]), inputs.ids)  # in `results`
    is_refused = mask(pc.not_equal(inputs.table["refused"], ""))
    is_current = ~is_refused & (rows >= 0)
    is_current[is_current] = _are_current(inputs, np.flatnonzero(is_current), current, rows[is_current], keys)
    due = np.flatnonzero(~is_refused & ~is_current & (found >= 0))
    to_probe = np.flatnonzero(~is_refused & ~is_current & (found < 0))
    new = _Probed(inputs.take(due), take_rows(results, found[due]), current, rows[due])
    new.check_ids()
    is_committed = new.are_committed(keys)
    renewed = np.zeros(len(current.ids), bool)
    read = rows[due][new.has_record | new.is_small]
    renewed[np.concatenate([rows[is_current], read[read >= 0]])] = True
    twins = new.twins(is_committed, renewed, keys)
    committed = np.sort(np.concatenate([rows[is_current], rows[due][is_committed]]))
    decided = mask(pc.equal(take_rows(current.table.select(["decide_key"]), committed)["decide_key"], keys.decide_key))
    decide = current.subset(committed[~decided])
    decide.set_decide_key(keys.decide_key)
    new.renew(decide, is_committed)
    is_touched = is_committed & ~np.isin(rows[due], committed[~decided]) & new.are_touched()
    extract = np.flatnonzero(new.is_small | new.has_record & ~is_committed & (twins < 0))
    unread = {video.video_id: _unread(video, "", video.refused) for video in inputs.take(np.flatnonzero(is_refused))}
    unread |= new.unread()
    clashing = _clashing(unread, current)
    return WorkList(
        current.subset(committed[decided]),
        decide,
        Pending(new.inputs.take(extract), take_rows(new.results, extract), keys),
        {video_id: record for video_id, record in unread.items() if video_id not in clashing} | new.duplicates(twins),
        clashing,
        to_probe=inputs.take(to_probe),
        touched=new.inputs.take(np.flatnonzero(is_touched)),
    )


def _are_current(
    inputs: Inputs, chosen: np.ndarray, current: Committed, rows: np.ndarray, keys: CacheKeys
) -> np.ndarray:
    """Return for inputs (n,) whether the file is unchanged by its signature, and its predictions are committed under
    the same key. `rows` (n,): their records in `current`.
    """
    chosen_inputs = inputs.take(chosen)
    before = take_rows(current.table.select(_COMPARED), rows)
    signature = chosen_inputs.table["signature"]
    asked = chosen_inputs.asked(keys.config.sample_fps)
    same = [
        pc.not_equal(signature, ""),
        pc.equal(before["stat_signature"], signature),
        pc.equal(before["uri"], chosen_inputs.redacted_uris()),
        pc.equal(before["head_key"], keys.head_key),
        pc.equal(_source_hashes(before), pc.binary_join_element_wise(one_piece(before["fingerprint"]), asked, "")),
    ]
    return np.logical_and.reduce([mask(each) for each in same])


@dataclass
class _Probed:
    """Inputs that were probed, in the order of their video_id.

    Attributes:
        results: of each.
        current: the committed records.
        before: (n,) the row of each input in `current`; −1 if there is none.
    """

    inputs: Inputs
    results: pa.Table
    current: Committed
    before: np.ndarray

    def __post_init__(self) -> None:
        self.has_record = self.results["fingerprint"].is_valid().to_numpy()
        self.is_small = ~self.has_record & self.results["reason"].is_null().to_numpy()
        self._again = np.flatnonzero(self.has_record & (self.before >= 0))
        self._records = take_rows(self.current.table.select(_COMPARED), self.before[self._again])

    def check_ids(self) -> None:
        """Check that no video has the video_id of another one of an earlier run.

        Raises:
            ConfigError: one has.
        """
        uris = take_rows(pa.table({"uri": self.inputs.redacted_uris()}), self._again)["uri"]
        fingerprints = take_rows(self.results.select(["fingerprint"]), self._again)["fingerprint"]
        differ = mask(pc.not_equal(self._records["fingerprint"], fingerprints))  # null if it was withdrawn
        for number in np.flatnonzero(differ & mask(pc.not_equal(self._records["uri"], uris)))[:1].tolist():
            raise ConfigError(
                f"{uris[number]} would be video_id {self.inputs[int(self._again[number])].video_id!r}, "
                f"which this output has for {self._records['uri'][number]}; "
                "name a common parent folder, or another --out"
            )

    def are_committed(self, keys: CacheKeys) -> np.ndarray:
        """Return (n,) whether predictions of the same bytes are committed: the file was only touched or moved."""
        hashes = _source_hashes(take_rows(self.results.select(["source_hash", "fingerprint"]), self._again))
        same = mask(pc.equal(self._records["head_key"], keys.head_key))
        is_committed = np.zeros(len(self.inputs), bool)
        is_committed[self._again] = same & mask(pc.equal(_source_hashes(self._records), hashes))
        return is_committed

    def are_touched(self) -> np.ndarray:
        """Return (n,) whether another URI or signature is committed."""
        inputs = self.inputs.take(self._again)
        is_same = mask(pc.equal(self._records["uri"], inputs.redacted_uris()))
        is_same &= mask(pc.equal(self._records["stat_signature"].fill_null(""), inputs.table["signature"]))
        are_touched = np.zeros(len(self.inputs), bool)
        are_touched[self._again] = ~is_same
        return are_touched

    def twins(self, is_committed: np.ndarray, renewed: np.ndarray, keys: CacheKeys) -> np.ndarray:
        """Return (n,) the row of the first video with the same bytes, in `current` and then in these inputs.

        −1 if there is none but the video itself. Committed videos come first, then the order of video_id counts. A
        committed video that this run does not read keeps its rows, so it counts only if they were made under the same
        keys.

        Args:
            renewed: whether each committed video is an input that can be read, so that its rows follow the keys.
        """
        twins = np.full(len(self.inputs), -1)
        new = np.flatnonzero(self.has_record & ~is_committed)
        if not len(new):
            return twins
        as_asked = mask(self.current.made_under(keys.head_key, keys.decide_key))
        is_first = mask(self.current.have_rows()) & (renewed | as_asked)
        hashes, committed = _source_hashes(self.results), _source_hashes(self.current.table)
        # A committed video of which other bytes were found will have other rows.
        is_first[self.before[self._again]] &= mask(
            pc.equal(_source_hashes(self._records), hashes.take(pa.array(self._again)))
        )
        first = np.flatnonzero(is_first)
        together = pa.concat_arrays([committed.take(pa.array(first)), hashes.take(pa.array(new))])
        rows = np.concatenate([first, new + len(committed)])
        twin = rows[first_equal(together)][len(first) :]
        twin[(twin == self.before[new]) | (twin == new + len(committed))] = -1
        twins[new] = twin
        return twins

    def duplicates(self, twins: np.ndarray) -> dict[str, VideoRecord]:
        """Return the records of the videos that have twins, by video_id."""
        found: dict[str, VideoRecord] = {}
        rows = np.flatnonzero(twins >= 0)
        for video, result, twin in zip(*self._take(rows), twins[rows].tolist(), strict=True):
            committed = len(self.current.ids)
            first = self.current.ids[twin] if twin < committed else self.inputs.ids[twin - committed]
            found[video.video_id] = _duplicate(video, result, first.as_py())
        return found

    def unread(self) -> dict[str, VideoRecord]:
        """Return the records of the videos that could not be probed, by video_id."""
        pairs = zip(*self._take(np.flatnonzero(~self.has_record & ~self.is_small)), strict=True)
        return {video.video_id: _unread(video, video.signature or "", result.reason) for video, result in pairs}

    def renew(self, decide: Committed, is_committed: np.ndarray) -> None:
        """Set the URI and the signature in the records of committed videos whose decision is due."""
        for video in self.inputs.take(np.flatnonzero(is_committed)):
            if video.video_id in decide:
                record, _ = decide[video.video_id]
                decide.changed[video.video_id] = replace(
                    record, uri=redact(video.uri), stat_signature=video.signature or ""
                )

    def _take(self, rows: np.ndarray) -> tuple[list[Input], list[ProbeResult]]:
        inputs = list(self.inputs.take(rows))
        return inputs, list(to_results(take_rows(self.results, rows), inputs))


_COMPARED = ["uri", "stat_signature", "fingerprint", "source_hash", "head_key"]


def _duplicate(video: Input, result: ProbeResult, first: str) -> VideoRecord:
    return replace(
        record_of(video, result), status="duplicate", duplicate_of=first, reason=f"duplicate: same bytes as {first}"
    )


def _source_hashes(records: pa.Table) -> pa.Array:
    return one_piece(pc.coalesce(records["source_hash"], records["fingerprint"]))


def _clashing(unread: Mapping[str, VideoRecord], current: Committed) -> dict[str, VideoRecord]:
    """Return the records of unread inputs whose video_id is that of another file with committed rows.

    It may be the same video, moved and damaged since, or another one of the same name: nothing tells which.
    """
    clashing: dict[str, VideoRecord] = {}
    for video_id in filter(current.__contains__, unread):
        (before, _), record = current[video_id], unread[video_id]
        if before.has_rows and before.uri != record.uri:
            reason = f"{record.reason} (the rows with this video_id are kept: they are of {before.uri})"
            clashing[video_id] = replace(record, reason=reason)
    return clashing


def _unread(video: Input, signature: str, reason: str) -> VideoRecord:
    """Return the record of a video that could not be probed."""
    return VideoRecord(redact(video.uri), video.video_id, stat_signature=signature, status="quarantined", reason=reason)
