import numpy as np
import pytest
import torch
import torchaudio

from aupipe.media import mel

pytestmark = [pytest.mark.unit, pytest.mark.filterwarnings("ignore:At least one mel filterbank")]


def sine(frequency_hz: float, *, rate_hz: int = 44100, seconds: float = 1.0, channels: int = 1) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(round(rate_hz * seconds)) / rate_hz)
    return np.tile(wave.astype(np.float32), (channels, 1))


def center_hz(number: int) -> float:
    """Return the center of HTK mel filter `number` of 64 up to 22,050 Hz."""
    top = 2595 * np.log10(1 + 22050 / 700)
    return float(700 * (10 ** ((number + 1) * top / 65 / 2595) - 1))


def test_a_second_at_44100_has_201_columns() -> None:
    assert mel.hop(44100) == 220
    assert mel.log_mel([sine(440, channels=2)], 44100).shape == (64, 201)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100, 48000, 96000])
def test_a_sine_peaks_in_its_filter_at_the_same_level_at_any_rate(rate_hz: int) -> None:
    for number in (20, 25, 30):
        out = mel.log_mel([sine(center_hz(number), rate_hz=rate_hz)], rate_hz)[:, 20:-20].mean(dim=1)
        reference = mel.log_mel([sine(center_hz(number))], 44100)[:, 20:-20].mean(dim=1)
        assert out.argmax() == number
        assert out[number].item() == pytest.approx(reference[number].item(), abs=0.1)  # 2 dB


def test_values_are_those_of_the_authors_transforms() -> None:
    wave = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (2, 44100)).astype(np.float32))
    transform = torchaudio.transforms.MelSpectrogram(
        sample_rate=44100, n_mels=64, n_fft=512, win_length=441, hop_length=220, pad_mode="constant"
    )
    decibels = torchaudio.transforms.AmplitudeToDB(stype="power", top_db=80)(transform(wave))
    expected = ((decibels + 14.8) / 19.895).sum(dim=0)
    torch.testing.assert_close(mel.log_mel([wave.numpy()], 44100), expected, atol=1e-4, rtol=0)


def test_the_result_does_not_depend_on_the_blocks() -> None:
    wave = (np.random.default_rng(0).normal(0, 3000, (1, 16000 * 25))).astype(np.int16)  # longer than one piece
    whole = mel.log_mel([wave], 16000)
    assert whole.shape == (64, 5001)
    assert torch.equal(mel.log_mel(np.array_split(wave, 37, axis=1), 16000), whole)
    assert torch.equal(mel.log_mel([wave.astype(np.float32) / 32768], 16000), whole)


def test_mono_counts_once_and_two_channels_are_added() -> None:
    mono, stereo = (mel.log_mel([sine(1000, channels=channels)], 44100) for channels in (1, 2))
    torch.testing.assert_close(stereo, 2 * mono)


def test_silence_short_audio_and_no_audio() -> None:
    assert mel.log_mel([np.zeros((1, 44100), np.int16)], 44100).isfinite().all()
    assert mel.log_mel([np.ones((2, 3), np.int16)], 44100).shape == (64, 1)
    assert mel.log_mel([], 44100).shape == (64, 0)


def test_a_click_is_at_the_column_of_its_time() -> None:
    """Check the time after two minutes, where columns of 5 ms instead of 220 samples would be off by 0.27 s."""
    start_s, at_s = 0.3, 120.0
    wave = np.zeros((1, 44100 * 121), np.int16)
    wave[0, round((at_s - start_s) * 44100)] = 32767
    loudness = mel.log_mel([wave], 44100).sum(dim=0)
    column = mel.columns(np.array([at_s]), start_s=start_s, rate_hz=44100, count=len(loudness))
    assert abs(int(loudness.argmax()) - int(column[0])) <= 1


def test_columns_follow_media_time() -> None:
    frames_s = (np.arange(1, 3001) - 0.5) / 30
    found = mel.columns(frames_s, start_s=0.0, rate_hz=44100, count=30_000)
    assert found[0] == 3
    assert (np.diff(found) > 0).all()
    shifted = mel.columns(frames_s, start_s=1.0, rate_hz=44100, count=500)
    assert (shifted[frames_s < 0.99] == -1).all(), "before the audio begins"
    assert (shifted[frames_s > 3.6] == -1).all(), "after it ends"
    inside = shifted[(frames_s > 1.0) & (frames_s < 3.4)]
    assert (inside >= 0).all()
    assert inside.max() < 500
    assert mel.columns(frames_s, start_s=0.0, rate_hz=44100, count=0).max() == -1
