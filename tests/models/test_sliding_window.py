"""Windows over a track: coverage of every frame, gaps and short tracks, and the audio of each window."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aupipe.models.interfaces import LogitsHead, SequenceBatch, SequenceHead
from aupipe.models.sliding_window import mel_slice, outputs, plan_windows, run_head
from aupipe.models.tdnn import NETWORKS

pytestmark = pytest.mark.unit


class Recording(SequenceHead):
    """A head that returns the first feature as logit and records its calls."""

    def __init__(self, length: int, uses_audio: bool = False) -> None:
        super().__init__()
        self.window_length, self.uses_audio = length, uses_audio
        self.calls: list[SequenceBatch] = []

    def forward(self, batch: SequenceBatch) -> dict[str, Tensor]:
        self.calls.append(batch)
        return {"au": batch.features[..., :1].expand(-1, -1, 12), "expr": batch.features[..., 1:4]}


class Position(Recording):
    """A head that returns the distance of a frame from the edge of its window."""

    def forward(self, batch: SequenceBatch) -> dict[str, Tensor]:
        place = torch.arange(self.window_length).expand(batch.mask.shape)
        inside = torch.minimum(place, batch.mask.sum(1, keepdim=True) - 1 - place).float()
        return {"au": torch.logit(inside / 100 + 0.01)[..., None].expand(-1, -1, 12)}


def seconds(count: int, *holes: int) -> np.ndarray:
    """Return times at 25 frames per second, with a gap of three seconds before each of `holes`."""
    return np.arange(count) * 0.04 + 3.0 * np.sum([np.arange(count) >= hole for hole in holes], axis=0)


@given(st.integers(1, 200), st.integers(1, 40), st.sampled_from([0.0, 0.1, 0.5, 0.9]), st.sets(st.integers(1, 199)))
def test_windows_cover_every_frame_and_do_not_span_gaps(
    count: int, length: int, overlap: float, holes: set[int]
) -> None:
    time_s = seconds(count, *holes)
    windows = plan_windows(time_s, length, overlap)
    windows = windows.places(np.arange(len(windows)))
    weight = np.zeros(count)
    np.add.at(weight, windows.rows, windows.weights)
    assert weight.min() > 0
    if overlap == 0:
        assert (weight == 1).all()  # exactly once
    for rows, real in zip(windows.rows, windows.valid, strict=True):
        assert (np.diff(rows[real]) == 1).all()
        assert np.diff(time_s[rows]).max(initial=0) < 2


def test_without_overlap_the_last_block_is_the_last_frames() -> None:
    windows = plan_windows(seconds(70), 30, 0).places(np.arange(3))
    assert windows.rows[:, 0].tolist() == [0, 30, 40]
    assert windows.weights.sum(axis=1).tolist() == [30, 30, 10]


def test_no_frame_inside_a_track_is_predicted_only_at_an_edge() -> None:
    found = run_head(Position(30), torch.zeros(100, 4), seconds(100), overlap=0.5)["au"][:, 0]
    inside = (found[15:85] - 0.01) * 100
    assert inside.min() > 6  # one window alone would say 0 at its edge
    assert found[0] == pytest.approx(0.01)


def test_single_frame_heads_return_their_own_probabilities() -> None:
    features = torch.randn(300, 15, generator=torch.Generator().manual_seed(0))
    head = LogitsHead({"au": 12, "expr": 3})
    found = run_head(head, features, seconds(300, 7, 8), overlap=0.5)
    torch.testing.assert_close(found["au"], features[:, :12].sigmoid(), atol=1e-7, rtol=0)
    torch.testing.assert_close(found["expr"], features[:, 12:].softmax(-1), atol=1e-7, rtol=0)
    assert outputs(head, 15) == {"au": 12, "expr": 3}


def test_every_call_has_one_shape_and_short_tracks_are_masked() -> None:
    head = Recording(30)
    features = torch.arange(20.0)[:, None] / 20 + torch.zeros(20, 4)
    found = run_head(head, features, seconds(20, 15), overlap=0.5)
    (batch,) = head.calls
    assert batch.features.shape == (8, 30, 4)
    assert batch.mask.sum(dim=1).tolist() == [15, 5] + [5] * 6
    assert batch.time_s[0, 14] == batch.time_s[0, 29] == pytest.approx(14 * 0.04)
    torch.testing.assert_close(found["au"][:, 0], features[:, 0].sigmoid())


def test_rows_can_be_read_by_slice() -> None:
    features = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    most = 0

    class Lazily:
        def __getitem__(self, rows: slice) -> Tensor:
            nonlocal most
            most = max(most, rows.stop - rows.start)
            return features[rows]

    lazily, at_once = (run_head(Recording(30), rows, seconds(1000), overlap=0.5)["au"] for rows in (Lazily(), features))
    assert torch.equal(lazily, at_once)
    assert most <= 256


def test_a_window_gets_the_audio_around_it() -> None:
    head = Recording(10, uses_audio=True)
    mel = torch.arange(5000.0).expand(64, 5000)
    column = np.where(np.arange(30) < 5, -1, 1000 + 8 * np.arange(30))
    run_head(head, torch.zeros(30, 4), seconds(30), overlap=0, mel=mel, column=column)
    assert len(head.calls) == 3
    for number, batch in enumerate(head.calls):
        part, at = batch.mel, batch.column
        assert part is not None
        assert at is not None
        expected = column[10 * number : 10 * number + 10]
        assert part.shape[0] == 1
        assert part.shape[-1] <= 8 * 10 + 2 * 64 + 1
        assert [float(part[0, 0, c]) if c >= 0 else -1.0 for c in at[0].tolist()] == expected.tolist()
    silent = Recording(10, uses_audio=True)
    run_head(silent, torch.zeros(5, 4), seconds(5), overlap=0)
    assert (silent.calls[0].mel, silent.calls[0].column) == (None, None)


def test_the_audio_of_frames_minutes_apart_contains_no_gap() -> None:
    mel = torch.randn(64, 5000, generator=torch.Generator().manual_seed(0))
    column = np.array([20, 27, -1, 1000, 1129, 1259, 4990, 4999])  # 1259 is one column beyond the margins of 1129
    part, at = mel_slice(mel, column)
    assert part.shape == (64, 92 + 258 + 129 + 74)
    assert at[2] == -1
    assert torch.equal(part[:, at[column >= 0]], mel[:, column[column >= 0]])
    for network in NETWORKS.values():
        torch.manual_seed(0)
        net = network(width=8).eval()
        with torch.inference_mode():
            found, whole = net(part[None])[0][:, at[column >= 0]], net(mel[None])[0][:, column[column >= 0]]
        torch.testing.assert_close(found, whole)


def test_the_audio_of_close_frames_is_one_slice_of_the_spectrogram() -> None:
    mel = torch.arange(3000.0).expand(64, 3000)
    column = np.array([100, 229, 358, -1])
    part, at = mel_slice(mel, column)
    assert torch.equal(part, mel[:, 36:423])
    assert at.tolist() == [64, 193, 322, -1]
    silent, nowhere = mel_slice(mel, np.array([-1, -1]))
    assert (silent.shape, nowhere.tolist()) == ((64, 1), [-1, -1])


def test_the_overlap_is_rounded_to_whole_frames() -> None:
    for length, overlap, step in ((100, 0.29, 71), (15, 0.5, 7), (10, 0.04, 10), (10, 0.99, 1)):
        assert plan_windows(np.arange(300) / 30, length, overlap).start[:2].tolist() == [0, step]
