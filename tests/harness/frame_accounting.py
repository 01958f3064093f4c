"""A check that an annotation accounts for every frame, against a reading that shares no code with it.

A loss is reported where the record is `partial` or `quarantined` with a documented reason, or where it gives a reason
for frames that are present but incomplete. Where a record gives no reason, there must be one row for each frame that
plain PyAV decodes and no other row, each at the frame's time to one tick of the container's clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from aupipe.annotation.faults import INTERNAL_ERROR
from aupipe.annotation.schema import REASONS


@dataclass(frozen=True)
class Reading:
    """Frames and times that plain PyAV finds in a file.

    Attributes:
        times: times of the decoded frames in seconds, ascending where all are known.
        timed: whether the times are the container's own.
        packet_times: times of the packets to be presented in seconds, ascending; None unless each packet has one of
            its own.
        tick: one tick of the container's clock in seconds.
    """

    times: list[Fraction | None]
    timed: bool
    packet_times: list[Fraction] | None
    tick: Fraction


# AVI stores no times, so FFmpeg invents them in decoding order; for elementary streams it invents a frame rate.
_WITHOUT_TIMES = ("avi", "h264", "hevc", "mpegvideo", "m4v", "mjpeg", "obu")


def read(path: Path) -> Reading | None:
    """Return the reading of a file, or None where PyAV cannot read it as a video. Undecodable packets are skipped."""
    try:
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            stream = container.streams.video[_busiest(path)]
            tick, timed = stream.time_base or Fraction(1), container.format.name not in _WITHOUT_TIMES
            times: list[Fraction | None] = []
            packet_pts: list[int | None] = []
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    packet_pts.append(packet.pts)
                try:
                    times += [None if frame.pts is None else frame.pts * tick for frame in packet.decode()]
                except av.error.FFmpegError:
                    continue
    except (av.error.FFmpegError, IndexError):
        return None
    known = sorted(pts for pts in packet_pts if pts is not None)
    distinct = timed and len(set(known)) == len(packet_pts)
    return Reading(times, timed, [pts * tick for pts in known] if distinct else None, tick)


def _busiest(path: Path) -> int:
    """Return the number of the video stream with the most packets, because a poster is a stream of one packet."""
    with av.open(f"file:{path}", metadata_errors="replace") as container:
        indices = [stream.index for stream in container.streams.video]
        if len(indices) < 2:
            return 0
        counts = Counter(packet.stream_index for packet in container.demux(*container.streams.video) if packet.size)
        return indices.index(counts.most_common(1)[0][0])


def read_output(out: Path) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[list[int], list[float | None]]]]:
    """Return the records of an output folder, and the frames and times of its rows in order, both by video.

    A frame with several faces is counted once. A video without rows is missing from the second mapping.
    """
    records = {row["video_id"]: row for row in pq.read_table(out / "videos.parquet").to_pylist()}
    rows = pads.dataset(out / "frames").to_table(columns=["video_id", "frame", "time_s"]).to_pandas()
    rows = rows.drop_duplicates(["video_id", "frame"]).sort_values("frame").astype(object).where(rows.notna(), None)
    return records, {name: (own.frame.tolist(), own.time_s.tolist()) for name, own in rows.groupby("video_id")}


def complaints(
    record: Mapping[str, Any], frames: Sequence[int], times: Sequence[float | None], reading: Reading | None
) -> list[str]:
    """Return the errors of an annotation; the list is empty where every frame is accounted for.

    Args:
        record: the video's row of videos.parquet.
        frames: frame numbers of its rows, one per frame, in order.
        times: times of the same rows in seconds.
        reading: the independent reading of the file.
    """
    status, reason = record["status"], record["reason"] or ""
    codes = [part.partition(":")[0] for part in reason.split("; ")] if reason else []
    wrong = [f"the reason {code!r} is not documented" for code in codes if code not in REASONS]
    if INTERNAL_ERROR in codes:
        wrong.append(reason)
    if status == "quarantined":
        wrong += ["quarantined without a reason"] if not reason else []
        return wrong + (["quarantined, but it has rows"] if frames else [])
    if list(frames) != list(range(len(frames))):
        wrong.append("rows do not number the frames")
    if record["frames_expected"] != len(frames) or record["frames_decoded"] + record["frames_lost"] != len(frames):
        wrong.append(
            f"{len(frames)} rows for {record['frames_expected']} frames expected, {record['frames_decoded']} decoded "
            f"and {record['frames_lost']} lost"
        )
    if bool(record["frames_lost"]) and status != "partial":
        wrong.append(f"{record['frames_lost']} frames are lost, and the status is {status}")
    if reason:
        return wrong
    if reading is None:
        return [*wrong, "plain PyAV cannot read it"]
    if len(frames) != len(reading.times):
        return [*wrong, f"{len(frames)} rows, and plain PyAV decodes {len(reading.times)} frames"]
    per_packet = reading.packet_times
    expected = per_packet if per_packet and len(per_packet) == len(frames) else reading.times
    return wrong + (wrong_times(times, expected, reading.tick) if reading.timed else [])


def wrong_times(times: Sequence[float | None], expected: Sequence[Fraction | None], tick: Fraction) -> list[str]:
    """Return the first time that differs by more than a tick from the expected one, or is missing, as a sentence."""
    for number, (time, right) in enumerate(zip(times, expected, strict=True)):
        if right is None and time is None:
            continue
        if right is None or time is None or abs(Fraction(time) - right) > tick:
            return [f"frame {number} is at {time} s instead of {right and float(right)} s"]
    return []
