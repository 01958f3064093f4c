"""The phases of a job, which a runner carries out: probe, extract, finalize, export."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from aupipe.annotation import audio_features, features
from aupipe.annotation.annotate_job import AnnotateJob
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.inputs import Inputs
from aupipe.annotation.judge import Judge
from aupipe.annotation.ledger import Committed, Ledger
from aupipe.annotation.model_stages import AudioResult, AudioTask, EncodedPart, ExportTask, Group, VideosResult
from aupipe.annotation.packets import Packet, PacketResult, plan_packets
from aupipe.annotation.pending import Pending, PendingVideo
from aupipe.annotation.probe_cache import ProbeCache
from aupipe.annotation.probed import Probed
from aupipe.annotation.progress import JobProgress
from aupipe.annotation.runner import Runner
from aupipe.annotation.segments import Segment
from aupipe.annotation.stages import ProbeRequest, ProbeResult, SegmentTask, memory_bytes
from aupipe.annotation.video_record import VideoRecord
from aupipe.annotation.video_rows import LazyList, chained, one_piece, rows_of
from aupipe.annotation.work_plan import Spent, WorkList
from aupipe.errors import AupipeError
from aupipe.storage import Storage

GROUP_VIDEOS = 64  # videos finalized together, at most
_PROBED_TOGETHER = 100_000  # inputs at most, whose requests are in memory


@dataclass(frozen=True)
class Run:
    """The arguments that all phases of a run share."""

    keys: CacheKeys
    storage: Storage
    runner: Runner
    generation: int
    progress: JobProgress
    cache: ProbeCache
    judge: Judge

    def has_packets(self, job: AnnotateJob) -> bool:
        """Return whether short videos go from bytes to tables in one task."""
        uses_audio = self.keys.models.uses_audio  # A spectrogram needs the output folder.
        return job.phase == "all" and not job.keep_intermediate and not uses_audio


def count_work(run: Run, work: WorkList, job: AnnotateJob) -> None:
    """Postpone what the phase of the job cannot do, and count the rest for the progress."""
    if job.phase == "finalize":
        work.postpone(_not_extracted(run, work.extract))
    is_probed, frames = work.extract.is_probed, work.extract.frames
    run.progress.expect_videos(
        len(work.extract) + len(work.decide), int(frames[is_probed].sum()), int(frames[~is_probed].sum())
    )


def extract_and_finalize(
    run: Run, work: WorkList, job: AnnotateJob, small: Sequence[Packet] = ()
) -> tuple[int, Probed]:
    """Extract and finalize in batches, limited to the phase of the job.

    Return the number of extracted frames, and the results of the small files that are still to be extracted.

    Args:
        small: packets of the small files.
    """
    total = 0
    packets: Sequence[Packet] = ()
    in_packets = np.arange(0)
    if run.has_packets(job):
        packets, in_packets = plan_packets(work.extract, run.keys.config.packet_frames, run.generation)
    in_packets = np.concatenate([in_packets, np.flatnonzero(~work.extract.is_probed)])
    batches = work.disk_bounded_batches(run.keys.config.wave_bytes, run.keys.models.embed_dim, in_packets)
    if job.phase == "observe":
        batches = [np.arange(len(work.extract.ids))]  # This phase writes the features of all videos.
    for number, rows in enumerate(batches or [np.arange(0)]):
        batch = dict(work.extract.pairs(rows))
        if job.phase != "finalize":
            reasons = _extract_audio(run, batch)
            extracted = _extract(run, {key: video for key, video in batch.items() if key not in reasons})
            work.add_spent(extracted.spent)
            reasons |= extracted.reasons
            wholly_lost = work.add_losses(extracted.losses_without(reasons))
            sources = [work.extract[video_id][0].source_hash for video_id in wholly_lost]
            features.delete(run.storage, map(run.keys.video, sources))
            work.quarantine(reasons | wholly_lost)
            run.progress.add_videos(len(reasons | wholly_lost), (reasons | wholly_lost).values())
            total += extracted.frames
        if job.phase != "observe":
            pending = {key: work.extract[key] for key in batch if key in work.extract}
            reasons = _finalize(run, pending, None if number else work.decide)
            work.quarantine(reasons)
            if not job.keep_intermediate:
                # Videos that could not be finalized are extracted again, because their features may be faulty. The
                # phase `finalize` keeps their features, because it cannot extract.
                failed = reasons if job.phase == "finalize" else ()
                done = [record.source_hash for video_id, (record, _) in pending.items() if video_id not in failed]
                features.delete(run.storage, map(run.keys.video, done))
        work.extract.drop_changes(batch)
    # Short videos come last, because they keep all workers busy to the end.
    frames, left = _annotate_packets(run, chained(packets, small), len(in_packets), work)
    total += frames
    if job.phase == "observe":
        work.postpone([*work.extract, *work.decide])
    return total, left


def probe(run: Run, inputs: Inputs, results: Probed) -> None:
    """Probe the inputs without a result, and add their results."""
    is_missing = rows_of(one_piece(results.table()["video_id"]), inputs.ids) < 0
    run.progress.expect_inputs(int(is_missing.sum()))
    run.judge.begin(int(is_missing.sum()))
    while len(missing := np.flatnonzero(is_missing)[:_PROBED_TOGETHER]):
        rows = dict(zip(inputs.ids.take(pa.array(missing)).to_pylist(), missing.tolist(), strict=True))
        for row in run.runner.probe([ProbeRequest(video).to_row() for video in inputs.take(missing)]):
            result = ProbeResult.from_row(row)
            number = rows[result.video_id]
            if not is_missing[number]:  # a task that was repeated, because its worker died at its end
                continue
            is_missing[number] = False
            results.add(result)
            run.cache.add(inputs[number], result)
            run.progress.add_probed(result.reason)
            run.judge.add(result.reason)
        if is_missing[missing].all():
            raise AupipeError(f"probe: no result for {len(missing)} inputs; fix: run the same command again")


def _extract_audio(run: Run, pending: Mapping[str, PendingVideo]) -> dict[str, str]:
    """Write the spectrogram of every video, if a model uses audio. Return the reasons of failed videos."""
    if not run.keys.models.uses_audio:
        return {}
    done = features.segments(run.storage)
    tasks = [
        AudioTask(run.keys.video(record.source_hash), segments[0][1].uri, video_id)
        for video_id, (record, segments) in pending.items()
    ]
    missing = [task.to_row() for task in tasks if audio_features.audio_key(task.key) not in done]
    results = map(AudioResult.from_row, run.runner.extract_audio(missing) if missing else ())
    return {result.video_id: result.error for result in results if result.error}


def _annotate_packets(run: Run, packets: Sequence[Packet], videos: int, work: WorkList) -> tuple[int, Probed]:
    """Annotate and commit the videos of packets.

    Return the number of frames, and the results of the small files that are still to be extracted.

    Args:
        videos: number in all packets.
    """
    frames, left = 0, Probed()
    run.judge.begin(int((~work.extract.is_probed).sum()))
    done: set[str] = set()  # the first video of each packet
    for result in map(PacketResult.from_row, run.runner.annotate_packets(packets) if packets else ()):
        if result.video_ids[0] in done:  # a packet that was repeated, because its worker died at its end
            continue
        done.add(result.video_ids[0])
        videos -= len(result.video_ids)
        frames += result.frames
        due = work.add_left(map(ProbeResult.from_row, result.left), result.reasons, result.twins, run.keys)
        for each in due:
            left.add(each)
            run.cache.add(work.extract.input(each.video_id), each)
        if result.is_small:
            for video_id in result.video_ids:
                run.judge.add(result.unread.get(video_id, ""))
            due_frames = sum(each.record.frames_expected or 0 for each in due if each.record)
            run.progress.add_counted(result.expected, result.frames + due_frames)
        run.progress.add_frames(result.frames, result.stages, result.encoder_s)
        work.add_spent(result.spent, only=result.reasons)
        reasons = result.reasons | result.unread
        work.quarantine(reasons)
        run.progress.add_videos(len(result.video_ids) - len(due), reasons.values())
    if videos:
        raise AupipeError(f"{videos} videos did not complete; fix: run the same command again")
    return frames, left


@dataclass
class _Extracted:
    """The results of `_extract`.

    Attributes:
        reasons: of failed videos, by video_id.
        losses: the reasons of lost segments, by video_id and key.
        spent: the costs, by video_id.
    """

    frames: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    losses: dict[str, dict[str, str]] = field(default_factory=dict)
    spent: dict[str, Spent] = field(default_factory=dict)

    def add(self, part: EncodedPart) -> None:
        """Add the result of a part."""
        self.frames += part.frames
        work_s, attempts = self.spent.get(part.video_id, (0.0, 1))
        self.spent[part.video_id] = (work_s + part.work_s, max(attempts, part.attempts))
        if part.error:
            self.reasons[part.video_id] = part.error
        elif part.lost:
            self.losses.setdefault(part.video_id, {})[part.key] = part.lost

    def losses_without(self, failed: Collection[str]) -> dict[str, dict[str, str]]:
        """Return the losses of videos that did not fail."""
        return {video_id: losses for video_id, losses in self.losses.items() if video_id not in failed}


def _extract(run: Run, pending: Mapping[str, PendingVideo]) -> _Extracted:
    """Extract every missing segment.

    A segment is complete if its files are stored, whatever workers reported, because the result rows of a worker that
    died may be lost.
    """
    found = _Extracted()
    for _ in range(run.keys.config.limits.attempts + 2):
        done = features.segments(run.storage)
        tasks = [
            SegmentTask(key, segment, memory_bytes((record.frame_width or 0) * (record.frame_height or 0)))
            for video_id, (record, segments) in pending.items() if video_id not in found.reasons
            for key, segment in segments if key not in done
        ]  # fmt: skip
        if not tasks:
            return found
        for part in map(EncodedPart.from_row, run.runner.extract(tasks)):
            found.add(part)
            run.progress.add_frames(part.frames, part.stages, part.encode_s)
    raise AupipeError(
        f"{tasks[0].segment.uri} and {len(tasks) - 1} more segments did not complete; re-run the command to retry"
    )


def _finalize(run: Run, pending: Mapping[str, PendingVideo], decide: Committed | None) -> dict[str, str]:
    """Predict and decide for extracted videos, and only decide for videos whose predictions are committed.

    Return the reasons of failed videos.
    """
    reasons: dict[str, str] = {}
    extracted = list(extracted_groups(run.keys, run.storage, run.generation, pending))
    for groups in (extracted, _committed_groups(run, decide) if decide else []):
        for result in map(VideosResult.from_row, run.runner.finalize(groups) if groups else ()):
            reasons |= result.reasons
            run.progress.add_frames(0, {"finalize": result.work_s})
            run.progress.add_videos(len(result.video_ids), result.reasons.values())
    return reasons


def _not_extracted(run: Run, pending: Pending) -> list[str]:
    """Return the video_id of each video whose features are not all stored."""
    done = features.segments(run.storage)

    def complete(record: VideoRecord, segments: Sequence[tuple[str, Segment]]) -> bool:
        audio = not run.keys.models.uses_audio or audio_features.audio_key(run.keys.video(record.source_hash)) in done
        return audio and all(key in done for key, _ in segments)

    return [video_id for video_id, each in pending.pairs() if not complete(*each)]


def export(runner: Runner, committed: Ledger, named: pa.Array, forms: Sequence[str]) -> dict[str, str]:
    """Export the committed tables of the videos with these ids. Return the reasons of failed videos."""
    reasons: dict[str, str] = {}
    if not forms:
        return reasons
    current = committed.current()
    by_entry: dict[str, list[str]] = defaultdict(list)
    for video_id, (record, entry) in current.pairs(np.flatnonzero(rows_of(named, current.ids) >= 0)):
        if record.has_rows:
            by_entry[entry.name].append(video_id)
    rows = [
        ExportTask(committed.entries[name].frames, committed.entries[name].events, ids).to_row()
        for name, ids in by_entry.items()
    ]
    for row in runner.export(rows, tuple(forms)) if rows else ():
        reasons |= VideosResult.from_row(row).reasons
    return reasons


def extracted_groups(
    keys: CacheKeys, storage: Storage, generation: int, pending: Mapping[str, PendingVideo]
) -> Iterator[Group]:
    """Yield groups of videos whose tables are written together.

    A group fills about one file; otherwise there would be many small files.
    """
    done = features.segments(storage)
    group = Group(generation)
    for _, (record, segments) in sorted(pending.items()):
        frames = sum(r.frames_expected or 0 for r in [*group.records, record])
        if group.records and (len(group.records) >= GROUP_VIDEOS or frames > keys.config.rows_per_file):
            yield group
            group = Group(generation)
        group.records.append(record)
        group.features.append([name for key, _ in segments for name in done[key]])
        audio = audio_features.audio_key(keys.video(record.source_hash))
        group.audio.append(done[audio] if keys.models.uses_audio else [])
    if group.records:
        yield group


def _committed_groups(run: Run, decide: Committed) -> Sequence[Group]:
    """Return the groups of the videos of each entry."""
    rows = decide.by_entry()

    def group(number: int) -> Group:
        videos = [video for _, video in decide.pairs(rows[number])]
        return Group(run.generation, [record for record, _ in videos], committed=videos[0][1].frames)

    return LazyList(len(rows), group)
