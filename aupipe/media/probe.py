"""Probing of a video: all packets are read without decoding, and only the first picture is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, islice, takewhile
from typing import cast

import av
import numpy as np
from av.container import InputContainer

from aupipe.errors import DecoderMissingError, MediaError, NoFramesError
from aupipe.media.byte_source import opened
from aupipe.media.clock import Moment, PacketClock
from aupipe.media.container import (
    CLOCKLESS_FORMATS,
    MAX_FRAME_PX,
    SEEKABLE_FORMATS,
    TIMED_FORMATS,
    format_names,
    open_video,
    uses_edit_lists,
)
from aupipe.media.damage import damage_of, joined_part, loss_if_corrupt, missing_frames, missing_s_of
from aupipe.media.display import Display, hdr_of
from aupipe.media.ffmpeg_log import capture_log
from aupipe.media.image_files import is_sequence, sequence_files
from aupipe.media.packet_survey import PacketSurvey, packets_of
from aupipe.media.pictures import top_layers

# A header with more than this many times the frames of the file is wrong, not that of a truncated file.
_MOST_MISSING = 1000
_FULL_TURN = 360
# A group of B frames lies within so many packets. They are decoded only if the times ascend in the order of decoding.
_REORDERED_PACKETS = 48
# A step between frames that is larger than this many median steps is a gap.
_GAP_STEPS = 1.5


@dataclass(frozen=True)
class AudioInfo:
    """The first audio stream."""

    codec: str
    rate_hz: int
    channels: int
    start_s: float


@dataclass(frozen=True)
class VideoInfo:
    """The video track of one input.

    Attributes:
        width_px, height_px: size of the first picture as displayed: upright, with square pixels.
        track: number of the video track, from 0.
        tracks: number of video tracks.
        pts: (frames_expected − missing,) int64, presentation times in ticks of `time_base`, in presentation order:
            ascending except where the clock restarts. In AVI they include those of missing frames in its index. With an
            assumed frame rate they follow from that. A frame whose packet has no time is placed evenly between its
            neighbors in the file. None if no frame has a time.
        leading: number of frames that need frames from before the file begins, as in a recording of an open group of
            pictures. No decoder returns them, and they are none of `frames_expected`.
        exact: every frame has a unique time, which the container stores with its packet.
        by_order: times are those of decoding, as in AVI, so that each displayed frame takes the next one.
        restarts: indices of the frames at which the clock restarts, because streams were joined.
        key_pts: (K,) int64, the values of `pts` at which decoding can start; empty if the container cannot be cut.
        frames_expected: number of displayed pictures (an edit list excludes some decoded ones), plus those in the
            container's index that are missing.
        missing: number of `frames_expected` that are missing, because the file is truncated or its structure damaged.
        missing_s: seconds from the last frame to the duration stated by the container, which matters for Matroska,
            because it does not count frames; 0 if none is stated.
        damage: evidence that the container is damaged and may have lost frames undetected; "" if there is none.
        loss_if_corrupt: a loss, as a reason, for which a corrupt frame is the missing evidence; "" if there is none.
        remark: an irregularity of the container that loses no frame; "" if there is none.
        rotation: counter-clockwise rotation in degrees that makes the stored picture upright.
        pixel_aspect: width of a stored pixel divided by its height.
        hdr: "pq" or "hlg" if pictures are tone-mapped to SDR; "" if they are SDR.
        variable_frame_rate: steps between presentation times differ by more than one tick.
    """

    codec: str
    container: str
    width_px: int
    height_px: int
    track: int
    tracks: int
    rotation: int
    pixel_aspect: Fraction
    hdr: str
    time_base: Fraction
    start_s: float | None
    duration_s: float | None
    frames_expected: int
    missing: int
    missing_s: float
    damage: str
    loss_if_corrupt: str
    remark: str
    pts: np.ndarray | None
    leading: int
    exact: bool
    by_order: bool
    restarts: tuple[int, ...]
    key_pts: np.ndarray
    variable_frame_rate: bool
    audio: AudioInfo | None


@dataclass(frozen=True)
class _FirstPicture:
    track: int
    width_px: int
    height_px: int
    rotation: int
    pixel_aspect: Fraction
    hdr: str


def probe(
    uri: str, max_frame_px: int = MAX_FRAME_PX, track: int | None = None, assume_fps: float | None = None
) -> VideoInfo:
    """Read all packets of the video at `uri`.

    Args:
        max_frame_px, track: as in `open_video`.
        assume_fps: frame rate (Hz) of elementary streams, which have no clock; None: their frames have no times.

    Raises:
        MediaError: it cannot be read as a video. The subclass depends on the cause.
    """
    if is_sequence(uri):
        return _probe_sequence(uri, max_frame_px, assume_fps)
    first = _first_picture(uri, max_frame_px, track)
    with capture_log() as log, open_video(uri, max_frame_px, first.track, whole=True) as (container, stream):
        formats, time_base = format_names(container), stream.time_base or Fraction(1, 1)
        survey = PacketSurvey(container, stream)
        for packet in log.record(packets_of(container, stream), container):
            survey.add(packet)
        survey.finish()
        clock, pictures, absent = survey.clock, survey.pictures, survey.absent
        ignored = "" if uses_edit_lists(container) else "its edit list hides all frames, and is ignored"
        if not pictures:
            raise NoFramesError(f"{uri}: the video stream contains no frames")
        if survey.encrypted == survey.total:
            raise DecoderMissingError(f"{uri}: its frames are encrypted; fix: decrypt it")
        leading = _leading(pictures, uri, max_frame_px, first.track) if TIMED_FORMATS & formats else frozenset()
        pictures = [picture for place, picture in enumerate(pictures) if place not in leading]
        undecodable = f"frames that need others from before its begin, and are not shown: {len(leading)}"
        missing, remark = missing_frames(uri, container, stream, survey.total + len(absent), clock)
        listed, header_valid = clock.listed + len(absent), True
        if "avi" in formats:
            missing += len(absent)
            absent += clock.rest(missing - len(absent)) if missing <= _MOST_MISSING * survey.total else []
        if missing > _MOST_MISSING * survey.total:
            remark = f"its header states {max(stream.frames, listed):,} frames, which is impossible"
            missing, absent, header_valid = 0, [], False
        times = [moment for moment, _ in pictures if moment is not None]
        in_order = times == sorted(times)
        moments = sorted(times + absent)
        complete = len(moments) - len(absent) == len(pictures)
        clocked = complete and bool((TIMED_FORMATS | {"avi"}) & formats)
        decoding_times = in_order and stream.codec_context.has_b_frames
        by_order = "avi" in formats or (
            clocked and (survey.has_pairs or (decoding_times and _is_reordered(uri, max_frame_px, first.track)))
        )
        exact = clocked and not by_order and len(moments) == len(set(moments))
        ticks = np.array([tick for _, tick in moments], np.int64)
        epochs = np.array([epoch for epoch, _ in moments], np.int64)
        placed = moments if complete else _placed(pictures)
        pts = np.array([tick for _, tick in placed], np.int64) if placed else None
        assumed = assume_fps is not None and bool(CLOCKLESS_FORMATS & formats)
        if assumed and assume_fps is not None:
            time_base = 1 / Fraction(assume_fps).limit_denominator(10**6)
            pts = ticks = np.arange(len(pictures), dtype=np.int64)
            epochs = np.zeros(len(ticks), np.int64)
        restarts = tuple((np.flatnonzero(np.diff([epoch for epoch, _ in placed])) + 1).tolist())
        steps = np.diff(ticks)[np.diff(epochs) == 0]
        usual = float(np.median(steps)) if len(steps) else 0.0
        # AVI's duration comes from the number of frames in its header, which may be wrong. The index of an MP4 or MOV
        # proves that nothing is missing, and an edit list may end within a frame.
        indexed = "mov" in formats and stream.frames >= len(pictures)
        trusted = header_valid and not (missing or restarts or assumed or indexed or "avi" in formats)
        missing_s = missing_s_of(stream, ticks, survey.end[1]) if trusted and len(ticks) else 0.0
        gap = bool(len(steps)) and float(steps.max()) > _GAP_STEPS * usual
        damage, remarks = damage_of(uri, log, container, survey.joined, gap, max(survey.last_byte, 0))
        if not in_order and not stream.codec_context.codec.reorder:
            damage = damage or f"frames in an order that is impossible for {stream.codec_context.codec.name}"
        damage = damage or survey.fault(stream.codec_context.name)
        own = stream.id if track is None else None
        damage = damage or joined_part(uri, formats, own, survey.first_byte, survey.stop_byte)
        cuttable = exact and not (restarts or clock.rewound) and bool(SEEKABLE_FORMATS & formats)
        keys = [moment[1] for moment, key in pictures if key and moment is not None] if cuttable else []
        spans = [ticks[epochs == epoch] for epoch in np.unique(epochs)]
        return VideoInfo(
            codec=stream.codec_context.name,
            container=container.format.name,
            width_px=first.width_px,
            height_px=first.height_px,
            track=first.track,
            tracks=len(container.streams.video),
            rotation=first.rotation,
            pixel_aspect=first.pixel_aspect,
            hdr=first.hdr,
            time_base=time_base,
            start_s=float(ticks[0] * time_base) if len(ticks) else None,
            duration_s=float(sum(span[-1] - span[0] + usual for span in spans)) * float(time_base)
            if len(ticks) > 1 else None,
            frames_expected=len(pictures) + missing,
            missing=missing,
            missing_s=missing_s,
            damage=damage,
            loss_if_corrupt="" if damage else loss_if_corrupt(formats),
            remark="; ".join(filter(None, [remark, ignored, undecodable if leading else "", remarks])),
            pts=pts,
            leading=len(leading),
            exact=exact,
            by_order=by_order,
            restarts=restarts,
            key_pts=np.sort(np.array(keys, np.int64)),
            variable_frame_rate=bool(len(steps)) and int(steps.max() - steps.min()) > 1,
            audio=_audio(container),
        )  # fmt: skip


def fingerprint(uri: str) -> str:
    """Return the sha256 of the file's bytes in hexadecimal. Inputs with equal bytes are computed once."""
    digest = hashlib.sha256()
    if is_sequence(uri):
        for file in sequence_files(uri):
            digest.update(f"{fingerprint(file)}\n".encode())
        return digest.hexdigest()
    with opened(uri, whole=True) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _probe_sequence(uri: str, max_frame_px: int, assume_fps: float | None) -> VideoInfo:
    """Return the facts of a sequence of images: size and codec are those of the first image that can be read."""
    files = sequence_files(uri)
    reason: MediaError | None = None
    for file in files:
        try:
            info = probe(file, max_frame_px)
        except MediaError as error:
            reason = reason or error
            continue
        pts = None if assume_fps is None else np.arange(len(files), dtype=np.int64)
        step = Fraction(1) if assume_fps is None else 1 / Fraction(assume_fps).limit_denominator(10**6)
        return replace(
            info, container="image sequence", time_base=step, pts=pts, frames_expected=len(files),
            start_s=None if pts is None else 0.0, duration_s=None if pts is None else float(len(files) * step),
        )  # fmt: skip
    assert reason is not None
    raise reason


def _audio(container: InputContainer) -> AudioInfo | None:
    for stream in container.streams.audio:
        context = stream.codec_context
        if context is None:  # FFmpeg has no decoder for it; the type stub lacks this case
            continue
        start = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
        return AudioInfo(context.name, context.sample_rate, context.channels, start)
    return None


def _first_picture(uri: str, max_frame_px: int, track: int | None) -> _FirstPicture:
    with open_video(uri, max_frame_px, track) as (container, stream):
        track = list(container.streams.video).index(stream)
        display = Display(container, stream, max_frame_px)
        for packet in chain(packets_of(container, stream), [None]):  # None flushes the decoder
            try:
                decoded = top_layers(stream, packet)
            except av.error.FFmpegError:  # `frames` reports lost frames
                continue
            for frame in decoded:
                width, height = display.size(frame)
                rotation = _right_angle(int(frame.rotation))
                upright = (height, width) if rotation % 180 else (width, height)
                return _FirstPicture(track, *upright, rotation, display.pixel_aspect(frame), hdr_of(frame))
        context = stream.codec_context
        return _FirstPicture(track, context.width, context.height, 0, Fraction(1), "")


def _right_angle(degrees: int) -> int:
    """Return the nearest multiple of 90°, because frames are not turned by others; 0 for an invalid matrix."""
    return 90 * round(degrees / 90) if abs(degrees) <= _FULL_TURN else 0


def _leading(pictures: Sequence[tuple[Moment | None, bool]], uri: str, max_frame_px: int, track: int) -> frozenset[int]:
    """Return the places of the pictures before the key frame that begins the file, for which the decoder has no frame.

    In Matroska those with a negative time, as in lossless cuts, have no moment. They follow the key frame directly.

    Args:
        pictures: the moment of each displayed picture, in decoding order, and whether it is a key frame.
    """
    start, is_key = pictures[0]
    if start is None or not is_key:
        return frozenset()
    early: dict[int, Moment | None]
    early = {place: moment for place, (moment, _) in enumerate(pictures) if moment is not None and moment < start}
    timeless = len(list(takewhile(lambda picture: picture[0] is None, pictures[1:])))
    if not 0 < len(early) + timeless < _REORDERED_PACKETS:
        return frozenset()
    shown: set[Moment | None] = set()
    with open_video(uri, max_frame_px, track) as (container, stream):
        if "matroska" in format_names(container):
            early |= dict.fromkeys(range(1, 1 + timeless), None)
        stream.codec_context.copy_opaque = True
        clock = PacketClock(container, stream)
        for packet in chain(islice(packets_of(container, stream), _REORDERED_PACKETS), [None]):
            if packet is not None:
                _, packet.opaque = clock.read(packet)
            try:
                decoded = stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                continue
            if any(frame.is_corrupt for frame in decoded):
                return frozenset()
            shown |= {cast("Moment | None", frame.opaque) for frame in decoded}
            if any(moment is not None and moment > start for moment in shown):
                break  # No frame before the first key frame comes later.
    return frozenset(place for place, moment in early.items() if moment not in shown) if start in shown else frozenset()


def _placed(pictures: Sequence[tuple[Moment | None, bool]]) -> list[Moment]:
    """Return the moments of all pictures, ascending, if one of them has a moment.

    The others are evenly between their neighbors in the file, as damage of a transport stream leaves some.

    Args:
        pictures: as in `_leading`.
    """
    known = [(place, *moment) for place, (moment, _) in enumerate(pictures) if moment is not None]
    if not known:
        return []
    places, epochs, ticks = np.array(known, np.int64).T
    every = np.arange(len(pictures))
    before = epochs[np.maximum(np.searchsorted(places, every, side="right") - 1, 0)]
    between = np.zeros(len(pictures), np.int64)
    for epoch in np.unique(epochs):
        own = epochs == epoch
        between[before == epoch] = np.rint(np.interp(every[before == epoch], places[own], ticks[own]))
    return sorted(zip(before.tolist(), between.tolist(), strict=True))


def _is_reordered(uri: str, max_frame_px: int, track: int) -> bool:
    """Return whether the times of the first displayed frames decrease, because their packets have decoding times."""
    latest: int | None = None
    with open_video(uri, max_frame_px, track) as (container, stream):
        for packet in islice(packets_of(container, stream), _REORDERED_PACKETS):
            try:
                decoded = stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                continue
            for frame in decoded:
                if frame.is_corrupt or frame.pts is None:
                    continue
                if latest is not None and frame.pts < latest:
                    return True
                latest = frame.pts
    return False
