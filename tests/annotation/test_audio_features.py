"""Log-mel spectrograms: written once, read in pieces, equal to the whole; columns by media time."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from aupipe.annotation import audio_features, features
from aupipe.media.audio import audio
from aupipe.media.mel import log_mel
from aupipe.storage import Storage
from harness.clips import scene, speaking, write_clip

pytestmark = pytest.mark.unit

RATE_HZ = 8000


def small(seconds: int) -> list[np.ndarray]:
    return [np.zeros((32, 32, 3), np.uint8)] * (25 * seconds)


def left(storage: Storage) -> audio_features.LogMelReader:
    """Read the spectrogram of the video `aa`."""
    return audio_features.LogMelReader(storage, features.segments(storage)[audio_features.audio_key("aa")])


def test_pieces_of_the_sound_equal_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_features, "_PIECES_PER_PART", 2)
    path = speaking(tmp_path / "a.mkv", small(70), rate_hz=RATE_HZ)
    storage = Storage(tmp_path / "out")
    audio_features.write_log_mel(storage, "aa", str(path))
    heard = left(storage)
    whole = log_mel((block.samples for block in audio(str(path))), RATE_HZ)
    assert whole.shape == (64, 70 * 200 + 1)
    for low, high in ((0, 10), (4000, 4200), (8191, 8193), (13900, 99999), (0, 14001)):
        assert torch.equal(heard[:, low:high], whole[:, low:high])
    at = heard.columns(np.array([0.0, 1.0, np.nan, 69.9, 71.0]))
    assert at.tolist() == [0, 200, -1, 13980, -1]
    assert heard.reason == ""
    assert len(storage.names()) == 2


def test_a_video_without_sound_is_silent(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", scene(2, people=()))
    storage = Storage(tmp_path / "out")
    audio_features.write_log_mel(storage, "aa", str(path))
    heard = left(storage)
    assert heard.columns(np.array([0.0, 0.04])).tolist() == [-1, -1]
    assert heard[:, 0:1].shape == (64, 1)


def test_sound_that_breaks_off_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = list(audio(str(speaking(tmp_path / "a.mkv", small(25), rate_hz=RATE_HZ))))

    def broken(uri: str):
        yield blocks[0]
        raise av.error.InvalidDataError(1, "bad packet")

    monkeypatch.setattr(audio_features, "audio", broken)
    audio_features.write_log_mel(Storage(tmp_path), "aa", "a.mkv")
    heard = left(Storage(tmp_path))
    assert heard.reason.startswith("sound_lost: ")
    assert heard[:, 0:99999].shape[1] == blocks[0].samples.shape[1] * 200 // RATE_HZ + 1
