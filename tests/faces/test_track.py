"""Tracks: ids stay through motion and short gaps, end at cuts and long gaps, and are not swapped."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe.faces.track import LinkedFaces, TrackingConfig, face_ids

pytestmark = pytest.mark.unit
CONFIG = TrackingConfig(max_gap_s=1.0, max_step=0.7)


def _of_boxes(boxes: list[np.ndarray], cuts: set[int] = frozenset(), links: dict | None = None) -> list[list[int]]:
    """Return the ids of faces that may all continue each other by appearance; links: by (frame, face)."""
    faces = [
        LinkedFaces(
            i, i / 25, b, np.array([(links or {}).get((i, k), -1) for k in range(len(b))]),
            [[(j, k) for j in range(i) for k in range(len(boxes[j]))]] * len(b), i in cuts,
        )
        for i, b in enumerate(boxes)
    ]  # fmt: skip
    return [ids.tolist() for ids in face_ids(faces, CONFIG)]


def _ids(frames: list[list[tuple[float, float]]], cuts: set[int] = frozenset()) -> list[list[int]]:
    """Return the ids of faces of 100 px at these corners."""
    return _of_boxes(
        [np.array([[x, y, 100, 100] for x, y in faces], np.float32).reshape(-1, 4) for faces in frames], cuts
    )


def test_a_link_has_priority_and_without_link_or_resumed_face_an_id_is_new() -> None:
    pair = np.array([[0, 0, 100, 100], [60, 0, 100, 100]], np.float32)
    assert _of_boxes([pair, pair], links={(1, 0): 1, (1, 1): 0}) == [[0, 1], [1, 0]]
    none_to_resume = [[], []]
    faces = [LinkedFaces(i, i / 25, pair, np.full(2, -1), none_to_resume, False) for i in range(3)]
    assert [ids.tolist() for ids in face_ids(faces, CONFIG)] == [[0, 1], [2, 3], [4, 5]]
    faces[2] = LinkedFaces(2, 0.08, pair, np.full(2, -1), [[], [(0, 0)]], False)
    assert list(face_ids(faces, CONFIG))[2].tolist() == [4, 0]


def test_a_link_over_a_gap_that_is_too_long_is_ignored() -> None:
    box = np.array([[0, 0, 100, 100]], np.float32)
    faces = [LinkedFaces(i, i * 1.5, box, np.array([i - 1]), [[]], False) for i in range(2)]
    assert [ids.tolist() for ids in face_ids(faces, CONFIG)] == [[0], [1]]


def test_ids_are_stable_when_the_order_of_faces_changes() -> None:
    frames = [[(10 * i, 0), (600 - 10 * i, 0)][:: 1 if i % 2 else -1] for i in range(12)]
    ids = _ids(frames)
    assert [row[:: 1 if i % 2 else -1] for i, row in enumerate(ids)] == [[0, 1]] * 12


def test_a_short_gap_keeps_the_id_and_a_long_one_does_not() -> None:
    face = [(0.0, 0.0)]
    assert _ids([face, *[[]] * 20, face])[-1] == [0]
    assert _ids([face, *[[]] * 30, face])[-1] == [1]


def test_the_longest_gap_is_included() -> None:
    box = np.array([[0, 0, 100, 100]], np.float32)
    for gap_s, after in ((1.0, [0]), (1.001, [1])):
        times_s = (0.0, gap_s)
        faces = [LinkedFaces(i, times_s[i], box, np.array([-1]), [[(0, 0)][:i]], False) for i in range(2)]
        assert [ids.tolist() for ids in face_ids(faces, CONFIG)] == [[0], after]


def test_a_cut_ends_every_track() -> None:
    assert _ids([[(0, 0)]] * 4, cuts={2}) == [[0], [0], [1], [1]]


def test_a_distant_or_much_larger_face_has_another_id() -> None:
    assert _ids([[(0, 0)], [(150, 0)]])[1] == [1]
    boxes = [np.array([[0, 0, 100, 100]], np.float32), np.array([[-100, -100, 300, 300]], np.float32)]
    assert _of_boxes(boxes)[1] == [1]


def test_new_faces_are_numbered_by_size_then_from_left_to_right() -> None:
    assert _ids([[(500, 0), (0, 0), (250, 0)]]) == [[2, 0, 1]]
    boxes = np.array([[0, 0, 80, 80], [300, 0, 100, 100], [600, 0, 60, 60]], np.float32)
    assert _of_boxes([boxes]) == [[1, 0, 2]]
