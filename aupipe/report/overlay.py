"""A video with the boxes, ids and AU bars of its faces, with the times and the sound of the original."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe.annotation.draw import draw_faces
from aupipe.errors import AudioLostError
from aupipe.media.audio import AudioBlock, audio
from aupipe.media.frames import Frame, Span, frames
from aupipe.media.probe import probe

logger = logging.getLogger(__name__)

_TICKS = 90_000  # per second
_ASSUMED_STEP_S = 0.04  # between frames without times, which nothing can place better
_SOUND_BLOCK_S = 0.5
_SOUND_RATE_HZ = 48_000
_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"  # FFmpeg's name of the container
_PLAYABLE = {(codec, _MP4) for codec in ("h264", "av1", "vp9")}
_WEBM = ("vp8", "vp9", "av1")
_SHOWN_IMAGES = ("jpeg_pipe", "png_pipe", "bmp_pipe", "webp_pipe")


def write_overlay(
    path: str, uri: str, track: int | None, rows: pa.Table, thresholds: Mapping[str, float] | None, draws: bool = True
) -> int:
    """Write the video as H.264 and AAC in MP4, and return the number of its frames.

    Every frame of the video is written at its presentation time, also if that follows from an assumed frame rate. A
    frame that cannot be decoded is black. The faces of a frame are shown until the next one that was annotated.

    Args:
        path: the file to write, local.
        uri, track: the video and its track.
        rows: its rows of the frames table.
        thresholds: per AU; None: bars without marks.
        draws: False: the plain video, for browsers that do not play the original.

    Raises:
        MediaError: the video cannot be read any more.
        OSError: the video is not there any more, or the file cannot be written.
    """
    info = probe(uri, track=track)
    assume_fps = _assumed_fps(rows) if info.start_s is None else None
    faces, until = _faces(rows), _shown_until(rows) if draws else {}
    shown, end = list[dict[str, Any]](), 0
    sound, count, last = _sound(uri), 0, -1
    block = next(sound, None)
    with av.open(path, "w", format="mp4") as container:
        video = container.add_stream("libx264", options={"crf": "21", "preset": "veryfast"})
        video.pix_fmt, video.codec_context.time_base = "yuv420p", Fraction(1, _TICKS)
        voice = container.add_stream("aac", rate=_SOUND_RATE_HZ, layout="stereo") if block else None
        size: tuple[int, int] | None = None
        for frame in frames(uri, Span.whole(info, assume_fps)):
            if size is None:
                size = _even(frame, rows)
                video.width, video.height = size
            pts = last + round(_ASSUMED_STEP_S * _TICKS) if frame.time_s is None else round(frame.time_s * _TICKS)
            last = max(pts, last + 1)  # a clock that restarts must not go back
            while voice and block and block.start_s * _TICKS <= last:
                container.mux(voice.encode(_audio_frame(block)))
                block = next(sound, None)
            if frame.index in until:
                shown, end = faces[frame.index], until[frame.index]
            picture = _picture(frame, shown if frame.index < end else [], size, thresholds)
            picture.pts, picture.time_base = last, Fraction(1, _TICKS)
            container.mux(video.encode(picture))
            count += 1
        while voice and block:
            container.mux(voice.encode(_audio_frame(block)))
            block = next(sound, None)
        if size is not None:
            container.mux(video.encode(None))
        if voice:
            container.mux(voice.encode(None))
    return count


def plays_in_browsers(uri: str) -> bool:
    """Return whether common browsers play the video track, by its codec and container, or show the image.

    Raises:
        MediaError: the video cannot be read any more.
        OSError: the video is not there any more.
    """
    info = probe(uri)
    is_webm = info.codec in _WEBM and uri.lower().endswith(".webm")
    return (info.codec, info.container) in _PLAYABLE or info.container in _SHOWN_IMAGES or is_webm


def _assumed_fps(rows: pa.Table) -> float | None:
    """Return the frame rate of a video without a clock, from the times of its rows; None if they have no times."""
    timed = rows.filter(pc.greater(rows["time_s"], 0))
    return pc.max(timed["frame"]).as_py() / pc.max(timed["time_s"]).as_py() if len(timed) else None


def _faces(rows: pa.Table) -> dict[int, list[dict[str, Any]]]:
    """Return the rows with a face by frame."""
    faces: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows.filter(pc.is_valid(rows["face_id"])).to_pylist():
        faces[row["frame"]].append(row)
    return faces


def _shown_until(rows: pa.Table) -> dict[int, int]:
    """Return for each annotated frame the first one that does not show its faces: the next annotated frame.

    After the last one, and where two are much further apart than most, as at the end of a part in time, their faces are
    shown for a usual step.
    """
    annotated = np.unique(rows["frame"].to_numpy())
    steps = np.diff(annotated)
    usual = int(np.median(steps)) if len(steps) else 1
    lasts = np.append(np.where(steps <= 2 * usual, steps, usual), usual)
    return dict(zip(annotated.tolist(), (annotated + lasts).tolist(), strict=False))


def _picture(
    frame: Frame, faces: list[dict[str, Any]], size: tuple[int, int], thresholds: Mapping[str, float] | None
) -> av.VideoFrame:
    if frame.image is None:
        return av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8))
    drawn = draw_faces(frame.image, faces, thresholds)
    if drawn.shape[1::-1] != size:
        drawn = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
    return av.VideoFrame.from_ndarray(drawn)


def _even(frame: Frame, rows: pa.Table) -> tuple[int, int]:
    """Return width and height of the first decoded frame, made even, because H.264 halves the color planes."""
    if frame.image is not None:
        height, width = frame.image.shape[:2]
    else:
        width, height = (pc.max(rows[name]).as_py() or 2 for name in ("frame_width", "frame_height"))
    return max(2, width // 2 * 2), max(2, height // 2 * 2)


def _sound(uri: str) -> Iterator[AudioBlock]:
    """Yield the sound; where it is damaged, end with a warning, as the overlay is for looking at."""
    try:
        yield from audio(uri, _SOUND_BLOCK_S)
    except AudioLostError as error:
        logger.warning("%s: the sound of the overlay ends early: %s", uri, error)


def _audio_frame(block: AudioBlock) -> av.AudioFrame:
    layout = "stereo" if len(block.samples) == 2 else "mono"
    made = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.samples), format="s16p", layout=layout)
    made.rate, made.pts, made.time_base = (
        block.rate_hz,
        round(block.start_s * block.rate_hz),
        Fraction(1, block.rate_hz),
    )
    return made
