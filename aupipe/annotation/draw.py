"""Boxes, ids and AU bars of faces on the frame itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from aupipe import facs

# RGB, from the palette of Okabe and Ito (2008), which color-blind people can tell apart.
COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0))
_INACTIVE = (150, 150, 150)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
MAX_PANELS = 4  # faces with bars; the others have a box only


def draw_faces(
    image: np.ndarray, faces: Sequence[Mapping[str, Any]], thresholds: Mapping[str, float] | None = None
) -> np.ndarray:
    """Return a copy of a frame with a box, the id and the bars of each face.

    A bar's length is the smoothed probability. It has the face's color where the AU is present, and a mark at the
    threshold.

    Args:
        image: (H, W, 3) uint8 RGB, the frame as it is shown.
        faces: rows of the frames table; rows without a box are skipped.
        thresholds: per AU; None: no marks.
    """
    drawn = np.ascontiguousarray(image).copy()
    line = max(1, round(min(drawn.shape[:2]) / 300))
    boxed = [face for face in faces if face["box_x"] is not None]
    panels: list[tuple[int, int]] = []
    for number, face in enumerate(boxed):
        color = COLORS[face["face_id"] % len(COLORS)]
        left, top, width, height = (round(face[name]) for name in ("box_x", "box_y", "box_w", "box_h"))
        cv2.rectangle(drawn, (left, top), (left + width, top + height), color, line, cv2.LINE_AA)
        scale = max(0.35, min(drawn.shape[:2]) / 900)
        place = (max(0, left), max(round(24 * scale), top - 4 * line))
        cv2.putText(drawn, f"face {face['face_id']}", place, _FONT, scale, (0, 0, 0), 3 * line, cv2.LINE_AA)
        cv2.putText(drawn, f"face {face['face_id']}", place, _FONT, scale, color, line, cv2.LINE_AA)
        if number < MAX_PANELS and face[f"{facs.AUS[0]}_prob"] is not None:
            panel = _panel_place(drawn.shape, (left, top, width), panels)
            if panel is not None:
                panels.append(panel)
                _draw_panel(drawn, panel, face, color, thresholds or {})
    return drawn


def _panel_size(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return width and height of a panel in a frame of (H, W, 3), the height of its rows and the width of its names."""
    row = max(8, shape[0] // 36)
    label, bar = 4 * row * 3 // 4, 4 * row
    return label + bar + row // 2, row * len(facs.AUS), row, label


def _panel_place(
    shape: tuple[int, ...], box: tuple[int, int, int], panels: Sequence[tuple[int, int]]
) -> tuple[int, int] | None:
    """Return left and top of the panel beside a box (left, top, width), without those of other panels; None: no place.

    Faces in the left half have it on the left and others on the right, so that two people's panels do not meet.
    """
    total, tall, row, _ = _panel_size(shape)
    sides = box[0] - total - row // 2, box[0] + box[2] + row // 2
    for left in sides if box[0] + box[2] / 2 < shape[1] / 2 else sides[::-1]:
        place = max(0, min(left, shape[1] - total)), max(0, min(box[1], shape[0] - tall))
        if all(abs(place[0] - x) >= total or abs(place[1] - y) >= tall for x, y in panels):
            return place
    return None


def _draw_panel(
    drawn: np.ndarray, place: tuple[int, int], face: Mapping[str, Any], color: tuple[int, int, int],
    thresholds: Mapping[str, float],
) -> None:  # fmt: skip
    """Draw the bars of one face on a darkened panel whose left and top are `place`."""
    (left, top), (total, tall, row, label) = place, _panel_size(drawn.shape)
    bar = 4 * row
    panel = drawn[top : top + tall, left : left + total]
    panel[:] = panel // 3
    for number, au in enumerate(facs.AUS):
        low = top + number * row
        ink = color if face[au] else _INACTIVE
        cv2.putText(
            drawn, au, (left + 2, low + row * 4 // 5), _FONT, row / 32, ink, max(1, row // 16), cv2.LINE_AA
        )  # fmt: skip
        end = left + label + round(bar * face[f"{au}_prob"])
        cv2.rectangle(drawn, (left + label, low + row // 5), (end, low + row * 4 // 5), ink, -1)
        if au in thresholds:
            mark = left + label + round(bar * thresholds[au])
            cv2.line(drawn, (mark, low + row // 8), (mark, low + row * 7 // 8), (255, 255, 255), max(1, row // 16))
