"""Drawn clips of a simple face that YuNet detects, in any container, codec and timing; and ways to damage a clip."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

BACKGROUND = 120


def draw_face(size: int = 160, smile: float = 0.0, skin: tuple[int, int, int] = (224, 180, 150)) -> np.ndarray:
    """Return a (size, size, 3) uint8 RGB image of one face that fills most of it."""
    scale = size * 4
    image = np.full((scale, scale, 3), BACKGROUND, np.uint8)

    def ellipse(x: float, y: float, rx: float, ry: float, color: tuple[int, int, int]) -> None:
        center, axes = (round(x * scale), round(y * scale)), (round(rx * scale), round(ry * scale))
        cv2.ellipse(image, center, axes, 0, 0, 360, color, -1, cv2.LINE_AA)

    ellipse(0.5, 0.42, 0.30, 0.36, (60, 40, 30))
    ellipse(0.5, 0.52, 0.25, 0.34, skin)
    for x in (0.40, 0.60):
        ellipse(x, 0.46, 0.05, 0.025, (245, 245, 245))
        ellipse(x, 0.46, 0.022, 0.024, (60, 40, 30))
        ellipse(x, 0.40, 0.065, 0.014, (70, 45, 35))
    ellipse(0.5, 0.57, 0.035, 0.06, (205, 155, 130))
    ellipse(0.5, 0.61, 0.04, 0.02, (190, 140, 120))
    ellipse(0.5, 0.70, 0.09, 0.022 + 0.03 * smile, (170, 70, 75))
    shade = np.linspace(0.75, 1.1, scale)[None, :, None]
    image = np.clip(cv2.GaussianBlur(image, (0, 0), scale / 200) * shade, 0, 255).astype(np.uint8)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def scene(
    count: int, size: tuple[int, int] = (320, 240), people: Sequence[float] = (0.5,), face: int = 160, seed: int = 0
) -> list[np.ndarray]:
    """Return `count` uint8 RGB frames (height, width, 3) of people who smile periodically and sway slightly.

    Args:
        size: width and height in pixels.
        people: center of each face, relative to the width.
        face: side of a face in pixels.
        seed: random seed of the backdrop.
    """
    width, height = size
    backdrop = np.random.default_rng(seed).integers(60, 180, (height // 8, width // 8, 3), np.uint8)
    backdrop = cv2.resize(backdrop, (width, height), interpolation=cv2.INTER_LINEAR)
    images = []
    for index in range(count):
        image = backdrop.copy()
        for center in people:
            sway = round(4 * np.sin(index / 5 + center))
            left, top = round(center * width) - face // 2 + sway, (height - face) // 2
            image[top : top + face, left : left + face] = draw_face(face, smile=abs(np.sin(index / 8)))
        images.append(image)
    return images


def write_clip(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    times: Sequence[int] | None = None,
    tick: Fraction = Fraction(1, 1000),
    pix_fmt: str | None = None,
    rotation: int | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    size: tuple[int, int] | None = None,
    pixel_aspect: Fraction | None = None,
    form: str | None = None,
) -> Path:
    """Encode frames at `times` (in ticks; default 25 per second) to a file whose suffix selects the container.

    Args:
        rotation: degrees counter-clockwise by which a player must rotate the frames.
        size: width and height in pixels; default: those of the first frame.
        pixel_aspect: width of a pixel divided by its height.
        form: FFmpeg's name of the container; default: by the suffix.
    """
    width, height = size or images[0].shape[1::-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=form, options=muxer or {}) as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=25, options=options or {}))
        stream.width, stream.height = width, height
        stream.pix_fmt = pix_fmt or ("yuvj420p" if codec == "mjpeg" else "yuv420p")
        stream.time_base = stream.codec_context.time_base = tick
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation is not None:
            stream.set_display_rotation(rotation)
        container.start_encoding()  # a file without frames needs a header too
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts = times[index] if times is not None else round(index / 25 / tick)
            frame.time_base = tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    # SVT-AV1 gives this process and those that it starts real-time priority if it may, which starves all others.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return path


def from_key_frame(clip: Path, path: Path, number: int = 1, to_zero: bool = False) -> Path:
    """Copy the packets from the key frame `number` on, in decoding order, as recordings and lossless cuts begin.

    Args:
        to_zero: the key frame has the time 0, so that frames displayed before it have negative times.
    """
    muxer = {"avoid_negative_ts": "disabled"} if to_zero else {}
    with av.open(str(clip)) as source, av.open(str(path), "w", options=muxer) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        keys = start = 0
        for packet in source.demux(video=0):
            keys += packet.is_keyframe
            if packet.size and keys > number:
                if to_zero:
                    start = start or cast(int, packet.pts)
                    packet.pts, packet.dts = cast(int, packet.pts) - start, cast(int, packet.dts) - start
                packet.stream = stream
                target.mux(packet)
    return path


def speaking(
    path: Path, images: Sequence[np.ndarray], *, rate_hz: int = 8000, options: dict[str, str] | None = None
) -> Path:
    """Write a Matroska clip of 25 frames per second with noise as its soundtrack."""
    noise = np.random.default_rng(0).integers(-9000, 9000, (1, len(images) * rate_hz // 25), np.int16)
    height, width = images[0].shape[:2]
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=25, options=options or {})
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        voice = container.add_stream("pcm_s16le", rate=rate_hz, layout="mono")
        for image in images:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        container.mux(voice.encode(frame))
        container.mux(voice.encode(None))
    return path


def damage(path: Path, size: int = 2048, key_frame: bool = True) -> int:
    """Overwrite the first `size` bytes of a frame in the middle of the file with noise. Returns the frame's number."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        times = sorted(packet.pts or 0 for packet in packets)
        hit = next(p for p in packets[len(packets) // 2 :] if p.is_keyframe == key_frame)
        position, number = hit.pos, times.index(hit.pts or 0)
    assert position is not None
    data = bytearray(path.read_bytes())
    data[position : position + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(data)
    return number


def sound(path: Path, codec: str) -> Path:
    """Write a file with an audio stream and no video stream."""
    with av.open(str(path), "w") as container:
        stream = cast(AudioStream, container.add_stream(codec, rate=16000, layout="mono"))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def hole(path: Path, at: float, size: int = 2048) -> Path:
    """Overwrite `size` bytes with zeros, from the position `at` (0 … 1) in the file."""
    data = bytearray(path.read_bytes())
    start = int(len(data) * at)
    data[start : start + size] = bytes(len(data[start : start + size]))
    path.write_bytes(data)
    return path


def truncate(path: Path, part: float = 0.6) -> Path:
    """Shorten a file to its first `part` (0 … 1)."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    return path


def free_box(content: bytes) -> bytes:
    """Return a box that readers of MP4 skip: at the end of a file it makes it another one with the same frames."""
    return (8 + len(content)).to_bytes(4, "big") + b"free" + content


def repeat(clip: Path, seconds: float, times: int, path: Path, kinds: Sequence[str] = ("video", "audio")) -> Path:
    """Repeat the packets of a clip in one file: hours of video without encoding them.

    Args:
        seconds: duration of the clip.
        times: number of repetitions.
        kinds: of streams to repeat.
    """
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        repeated = [stream for stream in source.streams if stream.type in kinds]
        outputs = {stream.index: target.add_stream_from_template(stream) for stream in repeated}
        for repetition in range(times):
            source.seek(0)
            for packet in source.demux(repeated):
                if packet.size and packet.pts is not None and packet.dts is not None:
                    ticks = round(repetition * seconds / packet.time_base)
                    packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                    packet.stream = outputs[packet.stream_index]
                    target.mux(packet)
    return path


def decoded_times(path: Path) -> list[float]:
    """Return `frame.time` of every frame, as plain PyAV decodes the file."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]
