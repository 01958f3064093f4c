"""Tracks: ids stay through motion and short gaps, end at cuts and long gaps, and are not swapped."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe.faces.track import TrackingConfig, face_ids

pytestmark = pytest.mark.unit
CONFIG = TrackingConfig(max_gap_s=1.0, max_step=0.7)


def _ids(frames: list[list[tuple[float, float]]], cuts: set[int] = frozenset(), rate: float = 25.0) -> list[list[int]]:
    """Faces of 100 px at these corners."""
    boxes = [np.array([[x, y, 100, 100] for x, y in faces], np.float32).reshape(-1, 4) for faces in frames]
    times = [i / rate for i in range(len(frames))]
    return [ids.tolist() for ids in face_ids(boxes, times, [i in cuts for i in range(len(frames))], CONFIG)]


def test_ids_follow_two_people_in_any_order() -> None:
    frames = [[(10 * i, 0), (600 - 10 * i, 0)][:: 1 if i % 2 else -1] for i in range(12)]
    ids = _ids(frames)
    assert [row[:: 1 if i % 2 else -1] for i, row in enumerate(ids)] == [[0, 1]] * 12


def test_a_short_gap_keeps_the_id_and_a_long_one_does_not() -> None:
    face = [(0.0, 0.0)]
    assert _ids([face, *[[]] * 20, face])[-1] == [0]
    assert _ids([face, *[[]] * 30, face])[-1] == [1]


def test_a_cut_ends_every_track() -> None:
    assert _ids([[(0, 0)]] * 4, cuts={2}) == [[0], [0], [1], [1]]


def test_a_far_or_much_larger_face_is_another_one() -> None:
    assert _ids([[(0, 0)], [(150, 0)]])[1] == [1]
    boxes = [np.array([[0, 0, 100, 100]], np.float32), np.array([[-100, -100, 300, 300]], np.float32)]
    assert list(face_ids(boxes, [0, 0.04], [False, False], CONFIG))[1].tolist() == [1]


def test_new_faces_are_numbered_the_largest_first_then_from_left_to_right() -> None:
    assert _ids([[(500, 0), (0, 0), (250, 0)]]) == [[2, 0, 1]]
    boxes = np.array([[0, 0, 80, 80], [300, 0, 100, 100], [600, 0, 60, 60]], np.float32)
    assert next(iter(face_ids([boxes], [0.0], [False], CONFIG))).tolist() == [1, 0, 2]
