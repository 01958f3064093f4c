"""The audio of a video, in blocks of 16-bit samples with media time. Memory does not depend on the duration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt

from aupipe.errors import AudioLostError
from aupipe.media.clock import unwrapped_s
from aupipe.media.container import PROGRAM_STREAMS, format_names, open_video
from aupipe.media.image_files import is_sequence
from aupipe.media.video_track import to_the_end

# A shorter hole is jitter of the time stamps. A longer one is filled with silence; otherwise later samples would have
# the wrong time.
_MAX_JITTER_S = 0.05
# The limit on the sum of all holes. Beyond it the time stamps are damaged, or crafted to exhaust memory.
_MAX_SILENCE_S = 4 * 3600.0
_MAX_RATE_HZ = 768_000
_RESTART_S = 1.0  # a larger decrease of the time is not jitter: streams were joined


@dataclass(frozen=True)
class AudioBlock:
    """Consecutive samples.

    Attributes:
        start_s: media time of the first sample, on the clock of the video's frames.
        rate_hz: sample rate of the recording.
        samples: (channels, n) int16, one or two channels (more are mixed down to two).
    """

    start_s: float
    rate_hz: int
    samples: npt.NDArray[np.int16]


def audio(uri: str, block_s: float = 10.0) -> Iterator[AudioBlock]:
    """Yield the first audio stream in blocks of about `block_s`, with silence in its holes; nothing without audio.

    Raises:
        AudioLostError: its times or its rate are impossible, or its clock restarts.
        MediaError: the file cannot be opened as a video.
    """
    held: list[npt.NDArray[np.int16]] = []
    origin_s: float | None = None
    rate = count = yielded = silence = 0  # sample rate; numbers of samples held, yielded, and filled with silence

    def block() -> AudioBlock:
        nonlocal held, yielded, count
        assert origin_s is not None
        full = AudioBlock(origin_s + yielded / rate, rate, np.concatenate(held, axis=1))
        held, yielded, count = [], yielded + count, 0
        return full

    try:
        for time_s, rate, samples in _decoded(uri):
            origin_s = time_s if origin_s is None else origin_s
            hole = round((time_s - origin_s) * rate) - yielded - count
            if hole < -_RESTART_S * rate:
                raise AudioLostError(f"its clock restarts after {time_s - hole / rate:,.1f} s; the rest is omitted")
            if hole > _MAX_JITTER_S * rate:
                silence += hole
                if silence > _MAX_SILENCE_S * rate:
                    raise AudioLostError(f"a hole of {hole / rate:,.0f} s at {time_s - hole / rate:,.1f} s")
                while hole:
                    filled = min(hole, max(1, round(block_s * rate)))
                    held.append(np.zeros((samples.shape[0], filled), np.int16))
                    hole, count = hole - filled, count + filled
                    if count >= block_s * rate:
                        yield block()
            held.append(samples)
            count += samples.shape[1]
            if count >= block_s * rate:
                yield block()
    except (AudioLostError, av.error.FFmpegError):
        if held:  # the samples before the error
            yield block()
        raise
    if held:
        yield block()


def _decoded(uri: str) -> Iterator[tuple[float, int, npt.NDArray[np.int16]]]:
    """Yield (media time, rate, samples (channels, n)) per decoded frame. Damaged packets are skipped."""
    if is_sequence(uri):
        return
    with open_video(uri, whole=True) as (container, video):
        if not container.streams.audio:
            return
        stream = next((one for one in container.streams.audio if one.codec_context is not None), None)
        if stream is None:
            raise AudioLostError("FFmpeg has no decoder for it")
        resampler: av.AudioResampler | None = None
        layout, rate, before = "", 0, None
        offset_s, near_s = 0.0, None
        if format_names(container) & PROGRAM_STREAMS and video.start_time is not None and video.time_base is not None:
            near_s = float(video.start_time * video.time_base)  # audio may begin on the other side of a wrap
        for packet in to_the_end(container.demux(stream)):
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in decoded:
                time_s = frame.time
                if time_s is None:
                    continue
                if near_s is not None:
                    near_s = unwrapped_s(time_s + offset_s, near_s)
                    offset_s, time_s = near_s - time_s, near_s
                now = (frame.format.name, frame.layout.name, frame.sample_rate)
                if resampler is None:
                    layout, rate = "mono" if frame.layout.nb_channels == 1 else "stereo", frame.sample_rate
                    if not 0 < rate <= _MAX_RATE_HZ:
                        raise AudioLostError(f"{rate:,} samples a second")
                if resampler is None or now != before:  # the format may change within a stream; the output's is fixed
                    resampler, before = av.AudioResampler(format="s16p", layout=layout, rate=rate), now
                for plain in resampler.resample(frame):
                    yield time_s, rate, plain.to_ndarray().astype(np.int16)
