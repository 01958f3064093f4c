"""The sound of a video in blocks of 16-bit samples with media time: an hour needs no more memory than a minute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt

from aupipe.errors import SoundLostError
from aupipe.media.container import open_video
from aupipe.media.image_files import is_sequence

# A shorter hole is jitter of the container's time stamps; a longer one is filled with silence, or later sound would
# stand at the wrong time.
_MAX_JITTER_S = 0.05
# Of all holes together; beyond it the time stamps are damaged, or made to fill memory.
_MAX_SILENCE_S = 4 * 3600.0
_MAX_RATE_HZ = 768_000
_RESTART_S = 1.0  # a time that falls by more is no jitter: streams were joined


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
        SoundLostError: its times or its rate are impossible, or its clock starts anew.
        MediaError: the file cannot be opened as a video.
    """
    held: list[npt.NDArray[np.int16]] = []
    origin_s: float | None = None
    rate = count = given = silence = 0  # samples a second, held, given out, and made up

    def block() -> AudioBlock:
        nonlocal held, given, count
        assert origin_s is not None
        full = AudioBlock(origin_s + given / rate, rate, np.concatenate(held, axis=1))
        held, given, count = [], given + count, 0
        return full

    for time_s, rate, samples in _decoded(uri):
        origin_s = time_s if origin_s is None else origin_s
        hole = round((time_s - origin_s) * rate) - given - count
        if hole < -_RESTART_S * rate:
            if held:
                yield block()
            raise SoundLostError(f"its clock starts anew after {time_s - hole / rate:,.1f} s; what follows is left out")
        if hole > _MAX_JITTER_S * rate:
            silence += hole
            if silence > _MAX_SILENCE_S * rate:
                raise SoundLostError(f"a hole of {hole / rate:,.0f} s at {time_s - hole / rate:,.1f} s")
            while hole:
                some = min(hole, max(1, round(block_s * rate)))
                held.append(np.zeros((samples.shape[0], some), np.int16))
                hole, count = hole - some, count + some
                if count >= block_s * rate:
                    yield block()
        held.append(samples)
        count += samples.shape[1]
        if count >= block_s * rate:
            yield block()
    if held:
        yield block()


def _decoded(uri: str) -> Iterator[tuple[float, int, npt.NDArray[np.int16]]]:
    """(media time, rate, samples (channels, n)) a decoded frame; damaged packets are passed over."""
    if is_sequence(uri):
        return
    with open_video(uri) as (container, _):
        if not container.streams.audio:
            return
        stream = next((one for one in container.streams.audio if one.codec_context is not None), None)
        if stream is None:
            raise SoundLostError("FFmpeg has no decoder for it")
        resampler: av.AudioResampler | None = None
        layout, rate, before = "", 0, None
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in decoded:
                time_s = frame.time
                if time_s is None:
                    continue
                now = (frame.format.name, frame.layout.name, frame.sample_rate)
                if resampler is None:
                    layout, rate = "mono" if frame.layout.nb_channels == 1 else "stereo", frame.sample_rate
                    if not 0 < rate <= _MAX_RATE_HZ:
                        raise SoundLostError(f"{rate:,} samples a second")
                if resampler is None or now != before:  # sound may change its form on the way; what leaves does not
                    resampler, before = av.AudioResampler(format="s16p", layout=layout, rate=rate), now
                for plain in resampler.resample(frame):
                    yield time_s, rate, plain.to_ndarray().astype(np.int16)
