"""The sound of a video in blocks of 16-bit samples with media time: an hour needs no more memory than a minute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt

from aupipe.media.container import open_video

_MAX_CHANNELS = 2
# A shorter hole is jitter of the container's time stamps; a longer one is filled with silence, or later sound would
# stand at the wrong time.
_MAX_JITTER_S = 0.05


@dataclass(frozen=True)
class AudioBlock:
    """Consecutive samples.

    Attributes:
        start_s: media time of the first sample, on the clock of the video's frames.
        rate_hz: samples a second, as recorded.
        samples: (channels, n) int16; one or two channels (more are mixed down to two).
    """

    start_s: float
    rate_hz: int
    samples: npt.NDArray[np.int16]


def audio(uri: str, block_s: float = 10.0) -> Iterator[AudioBlock]:
    """The first audio stream without holes, in blocks of about `block_s`; nothing where there is no sound.

    Raises:
        MediaError: the file cannot be opened as a video.
    """
    held: list[npt.NDArray[np.int16]] = []
    origin_s: float | None = None
    rate = count = given = 0  # samples held, samples given out
    for time_s, rate, samples in _decoded(uri):
        origin_s = time_s if origin_s is None else origin_s
        hole = round((time_s - origin_s) * rate) - given - count
        if hole > _MAX_JITTER_S * rate:
            held.append(np.zeros((samples.shape[0], hole), np.int16))
            count += hole
        held.append(samples)
        count += samples.shape[1]
        if count >= block_s * rate:
            yield AudioBlock(origin_s + given / rate, rate, np.concatenate(held, axis=1))
            held, given, count = [], given + count, 0
    if held and origin_s is not None:
        yield AudioBlock(origin_s + given / rate, rate, np.concatenate(held, axis=1))


def _decoded(uri: str) -> Iterator[tuple[float, int, npt.NDArray[np.int16]]]:
    """(media time, rate, samples (channels, n)) a decoded frame; damaged packets are passed over."""
    with open_video(uri) as (container, _):
        if not container.streams.audio:
            return
        stream = container.streams.audio[0]
        resampler: av.AudioResampler | None = None
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in decoded:
                time_s = frame.time
                if time_s is None:
                    continue
                if resampler is None:
                    layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
                    resampler = av.AudioResampler(format="s16p", layout=layout, rate=frame.sample_rate)
                for plain in resampler.resample(frame):
                    yield time_s, plain.sample_rate, plain.to_ndarray().astype(np.int16)
