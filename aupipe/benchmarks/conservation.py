"""Whether a video's annotation accounts for every frame, against a reading that shares no code with it.

A loss is reported if the record says `partial` or `quarantined` with a documented reason, or gives one for frames that
are there but not whole. Where a record gives no reason there must be a row for every frame that plain PyAV decodes, and
for none else, at its time to one tick of the container's clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from aupipe.annotation.faults import INTERNAL_ERROR
from aupipe.annotation.schema import REASONS


@dataclass(frozen=True)
class Reading:
    """What plain PyAV finds in a file.

    Attributes:
        times: of the frames that it decodes, in seconds, ascending where all are known.
        timed: whether they are the container's own; AVI has none, and FFmpeg makes them up in decoding order.
        promised: times of the packets to be presented, ascending, where every packet has one of its own.
        tick: of the container's clock, in seconds.
    """

    times: list[Fraction | None]
    timed: bool
    promised: list[Fraction] | None
    tick: Fraction


# AVI has no times, and FFmpeg makes them up in decoding order; of elementary streams it makes up a rate.
_WITHOUT_TIMES = ("avi", "h264", "hevc", "mpegvideo", "m4v", "mjpeg", "obu")


def read(path: Path) -> Reading | None:
    """None: PyAV cannot read it as a video. What its decoder refuses is passed over."""
    try:
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            stream = container.streams.video[_busiest(path)]
            tick, timed = stream.time_base or Fraction(1), container.format.name not in _WITHOUT_TIMES
            times: list[Fraction | None] = []
            promised: list[int | None] = []
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    promised.append(packet.pts)
                try:
                    times += [None if frame.pts is None else frame.pts * tick for frame in packet.decode()]
                except av.error.FFmpegError:
                    continue
    except (av.error.FFmpegError, IndexError):
        return None
    known = sorted(pts for pts in promised if pts is not None)
    own = timed and len(set(known)) == len(promised)
    return Reading(times, timed, [pts * tick for pts in known] if own else None, tick)


def _busiest(path: Path) -> int:
    """Return the number of the video stream with the most packets: a poster has one."""
    with av.open(f"file:{path}", metadata_errors="replace") as container:
        indices = [stream.index for stream in container.streams.video]
        if len(indices) < 2:
            return 0
        counts = Counter(packet.stream_index for packet in container.demux(*container.streams.video) if packet.size)
        return indices.index(counts.most_common(1)[0][0])


def complaints(
    record: Mapping[str, Any], frames: Sequence[int], times: Sequence[float | None], reading: Reading | None
) -> list[str]:
    """What is wrong with an annotation; [] if every frame is accounted for.

    Args:
        record: of videos.parquet.
        frames, times: of its rows, one a frame, in order.
        reading: of the file.
    """
    status, reason = record["status"], record["reason"] or ""
    said = [part.partition(":")[0] for part in reason.split("; ")] if reason else []
    wrong = [f"the reason {code!r} is not documented" for code in said if code not in REASONS]
    if INTERNAL_ERROR in said:
        wrong.append(reason)
    if status == "quarantined":
        wrong += ["set aside without a reason"] if not reason else []
        return wrong + (["set aside, but it has rows"] if frames else [])
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
    expected = reading.promised if reading.promised and len(reading.promised) == len(frames) else reading.times
    return wrong + (off(times, expected, reading.tick) if reading.timed else [])


def off(times: Sequence[float | None], expected: Sequence[Fraction | None], tick: Fraction) -> list[str]:
    """Times that are more than a tick away from what they should be, or missing where they are known."""
    for number, (time, right) in enumerate(zip(times, expected, strict=True)):
        if right is None and time is None:
            continue
        if right is None or time is None or abs(Fraction(time) - right) > tick:
            return [f"frame {number} stands at {time} s instead of {right and float(right)} s"]
    return []
