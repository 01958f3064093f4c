import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from aupipe.errors import AudioLostError, NotFoundError
from aupipe.media.audio import audio
from aupipe.media.probe import probe

pytestmark = pytest.mark.unit

RATE = 16000


def write_video(path, blocks, channels=1):
    """Write a video of 2 s at 25 frames/s, with audio from `blocks` of (start in samples, samples (n,))."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        layout = "mono" if channels == 1 else "5.1"
        tone = out.add_stream("pcm_s16le", rate=RATE, layout=layout)
        for index in range(50):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), index, np.uint8), "rgb24")))
        out.mux(stream.encode())
        for start, wave in blocks:
            frame = av.AudioFrame.from_ndarray(np.repeat(wave, channels)[None], format="s16", layout=layout)
            frame.sample_rate, frame.pts = RATE, start
            out.mux(tone.encode(frame))
        out.mux(tone.encode())
    return str(path)


def test_blocks_are_consecutive_without_loss(tmp_path):
    wave = (np.arange(2 * RATE) % 1000).astype(np.int16)
    pieces = [(start, wave[start : start + 1000]) for start in range(0, len(wave), 1000)]
    blocks = list(audio(write_video(tmp_path / "a.mkv", pieces), block_s=0.5))
    assert len(blocks) > 2
    assert (np.concatenate([block.samples for block in blocks], axis=1)[0] == wave).all()
    for before, now in itertools.pairwise(blocks):
        assert now.start_s == pytest.approx(before.start_s + before.samples.shape[1] / RATE)
    assert blocks[0].rate_hz == RATE


def test_a_hole_becomes_silence_and_a_late_start_is_kept(tmp_path):
    wave = np.full(RATE // 2, 5000, np.int16)
    blocks = list(audio(write_video(tmp_path / "a.mkv", [(RATE // 4, wave), (RATE * 5 // 4, wave)])))
    sound = np.concatenate([block.samples for block in blocks], axis=1)[0]
    assert blocks[0].start_s == pytest.approx(0.25)
    assert len(sound) == pytest.approx(1.5 * RATE, abs=20)
    assert (sound[: RATE // 2] == 5000).all()
    assert (sound[RATE // 2 + 20 : RATE - 20] == 0).all()
    assert (sound[RATE + 20 :] == 5000).all()


@pytest.mark.parametrize(("video_s", "audio_s"), [(-1.0, -1.0), (-0.05, 0.05), (0.05, -0.05)])
def test_a_clock_of_33_bits_wraps_around_as_that_of_the_video(tmp_path, video_s, audio_s):
    path, wrap_s = str(tmp_path / "a.ts"), 2**33 / 90_000
    with av.open(path, "w") as out:
        stream = out.add_stream("mpeg2video", rate=25)
        stream.width = stream.height = 32
        tone = out.add_stream("mp2", rate=RATE, layout="mono")
        packets = []
        for index in range(50):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), index, np.uint8), "rgb24")
            packets += [(packet, wrap_s + video_s) for packet in stream.encode(picture)]
        for start in range(0, 2 * RATE, 1152):
            frame = av.AudioFrame.from_ndarray(np.full((1, 1152), 5000, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            packets += [(packet, wrap_s + audio_s) for packet in tone.encode(frame)]
        for packet, offset_s in packets:
            ticks = round(offset_s / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        for packet, _ in sorted(packets, key=lambda each: each[0].dts * each[0].time_base):
            out.mux(packet)
    info, blocks = probe(path), list(audio(path, block_s=0.5))
    assert blocks[0].start_s - info.start_s == pytest.approx(audio_s - video_s, abs=0.05)
    assert sum(block.samples.shape[1] for block in blocks) == pytest.approx(2 * RATE, abs=2000)


def test_more_than_two_channels_become_two(tmp_path):
    wave = np.full(RATE, 1000, np.int16)
    (block,) = audio(write_video(tmp_path / "a.mkv", [(0, wave)], channels=6))
    assert block.samples.shape == (2, RATE)


def test_no_audio_and_no_file(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        out.mux(stream.encode())
    assert list(audio(str(tmp_path / "a.mp4"))) == []
    with pytest.raises(NotFoundError):
        next(audio(str(tmp_path / "none.mp4")))


def test_a_long_hole_is_filled_in_blocks_and_an_impossible_one_is_an_error(tmp_path):
    wave = np.full(RATE // 2, 5000, np.int16)
    hour = list(audio(write_video(tmp_path / "a.mkv", [(0, wave), (3600 * RATE, wave)])))
    assert sum(block.samples.shape[1] for block in hour) == pytest.approx(3600.5 * RATE, abs=20)
    assert max(block.samples.shape[1] for block in hour) <= 20 * RATE
    with pytest.raises(AudioLostError, match=r"a hole of 1[78],\d{3} s at 0\.5 s"):
        list(audio(write_video(tmp_path / "b.mkv", [(0, wave), (5 * 3600 * RATE, wave)])))


def test_the_sum_of_all_holes_is_limited(tmp_path, monkeypatch):
    wave = np.full(RATE // 2, 5000, np.int16)
    path = write_video(tmp_path / "a.mkv", [(second * RATE, wave) for second in (0, 2, 4, 6)])  # holes of 1.5 s
    monkeypatch.setattr("aupipe.media.audio._MAX_SILENCE_S", 4.6)
    assert sum(block.samples.shape[1] for block in audio(path)) == pytest.approx(6.5 * RATE, abs=20)
    monkeypatch.setattr("aupipe.media.audio._MAX_SILENCE_S", 4.4)
    with pytest.raises(AudioLostError, match=r"a hole of [12] s at 4\.5 s"):
        list(audio(path))


def test_a_rate_that_no_recorder_has_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "RATE", 1_000_000)
    path = write_video(tmp_path / "a.mkv", [(0, np.zeros(1000, np.int16))])
    with pytest.raises(AudioLostError, match="1,000,000 samples a second"):
        list(audio(path))


def test_the_samples_before_an_impossible_hole_are_kept(tmp_path):
    wave, before = np.full(3 * RATE // 2, 5000, np.int16), []
    with pytest.raises(AudioLostError, match="a hole of "):
        before.extend(audio(write_video(tmp_path / "a.mkv", [(0, wave), (5 * 3600 * RATE, wave)])))
    assert sum(block.samples.shape[1] for block in before) == pytest.approx(len(wave), abs=20)


def write_part(path, start_s=0, rate=32000, layout="mono"):
    """Write a transport stream of 1 s that begins at `start_s`, with audio. Return its bytes."""
    with av.open(str(path), "w") as out:
        picture = out.add_stream("mpeg2video", rate=25)
        picture.width = picture.height = 32
        tone = out.add_stream("mp2", rate=rate, layout=layout)
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), index, np.uint8), "rgb24")
            frame.pts, frame.time_base = start_s * 25 + index, Fraction(1, 25)
            out.mux(picture.encode(frame))
        out.mux(picture.encode())
        wave = np.full((1, rate * (1 if layout == "mono" else 2)), 5000, np.int16)
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start_s * rate, Fraction(1, rate)
        for packet in (*tone.encode(frame), *tone.encode()):
            out.mux(packet)
    return path.read_bytes()


def test_audio_that_changes_its_format_has_one_output_format(tmp_path):
    parts = [write_part(tmp_path / "0.ts"), write_part(tmp_path / "1.ts", 1, 48000, "stereo")]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    blocks = list(audio(str(tmp_path / "a.ts")))
    assert {(block.rate_hz, len(block.samples)) for block in blocks} == {(32000, 1)}
    assert sum(block.samples.shape[1] for block in blocks) == pytest.approx(2 * 32000, rel=0.06)


def test_audio_ends_where_its_clock_restarts(tmp_path):
    parts = [write_part(tmp_path / f"{start_s}.ts", start_s) for start_s in (5, 6, 4)]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    blocks = []
    with pytest.raises(AudioLostError, match=r"its clock restarts after 7\.0 s; the rest is omitted"):
        blocks.extend(audio(str(tmp_path / "a.ts")))
    assert blocks[0].start_s == pytest.approx(5, abs=0.05)
    assert sum(block.samples.shape[1] for block in blocks) == pytest.approx(2 * 32000, rel=0.06)


def test_audio_without_a_decoder_is_an_error(tmp_path):
    path = write_video(tmp_path / "a.mkv", [(0, np.full(RATE, 1000, np.int16))])
    whole = (tmp_path / "a.mkv").read_bytes()
    assert b"A_PCM/INT/LIT" in whole
    (tmp_path / "a.mkv").write_bytes(whole.replace(b"A_PCM/INT/LIT", b"A_PCM/XXX/LIT"))
    assert probe(path).audio is None
    with pytest.raises(AudioLostError, match="no decoder"):
        list(audio(path))
