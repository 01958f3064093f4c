from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aupipe import facs
from aupipe.annotation import schema
from aupipe.errors import ConfigError
from aupipe.report import frame_picture

pytestmark = pytest.mark.unit

ORANGE = (0x3B, 0x7B, 0xE0)  # BGR of the first face


def face(probability: float, present: bool, **columns: Any) -> dict[str, Any]:
    """A row of the frames table whose AUs are all alike."""
    box = {"box_x": 20.0, "box_y": 30.0, "box_w": 40.0, "box_h": 50.0}
    points = {"landmarks": [30.0, 45.0, 50.0, 45.0, 40.0, 55.0, 33.0, 65.0, 47.0, 65.0]}
    aus = {f"{au}_prob": probability for au in facs.AUS} | dict.fromkeys(facs.AUS, present)
    return {"face_id": 0, "frame": 0, "time_s": 0.0, "status": "ok", **box, **points, **aus, **columns}


def decode(png: bytes) -> np.ndarray:
    """Return the picture, (H, W, 3) uint8 BGR."""
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def near(image: np.ndarray, color: tuple[int, int, int]) -> int:
    """Count the pixels of a color."""
    return int((np.abs(image.astype(int) - color).max(axis=2) < 6).sum())


def test_bars_grow_with_the_probability_and_are_colored_where_the_au_is_present() -> None:
    image = np.full((120, 160, 3), 90, np.uint8)
    low, high, absent = (
        near(decode(frame_picture.draw(image, [face(p, present)])), ORANGE)
        for p, present in ((0.2, True), (0.9, True), (0.9, False))
    )
    assert high > 2.5 * low > 0
    assert absent < low / 2  # only box and name are left


def test_thresholds_are_marked() -> None:
    image, rows = np.full((120, 160, 3), 90, np.uint8), [face(0.9, True)]
    none, some = (
        near(decode(frame_picture.draw(image, rows, "", thresholds)), ORANGE)
        for thresholds in (None, dict.fromkeys(facs.AUS, 0.5))
    )
    assert some < none - 100  # each mark covers a part of its bar


def test_each_face_has_bars_up_to_a_limit() -> None:
    image = np.full((120, 160, 3), 90, np.uint8)
    widths = [
        decode(frame_picture.draw(image, [face(0.5, True, face_id=number) for number in range(count)])).shape[1]
        for count in (0, 1, 4, 6)
    ]
    assert widths[0] < widths[1] < widths[2] == widths[3]


def test_missing_landmarks_and_probabilities_are_no_error() -> None:
    row = face(0.5, False, landmarks=None, AU12_prob=None, AU12=None)
    assert decode(frame_picture.draw(np.zeros((8, 8, 3), np.uint8), [row])).size


def write_video(path: Path, frames: int) -> None:
    """Write a gray video of 160×120 pixels at 25 frames/s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 160, 120
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((120, 160, 3), 90, np.uint8))))
        container.mux(stream.encode(None))


def annotation(folder: Path, uri: str, rows: list[dict[str, Any]], faces: int = 1) -> str:
    """Write the tables of an annotation of one video."""
    (folder / "frames").mkdir(parents=True)
    video = dict.fromkeys(schema.VIDEOS.names)
    video |= {"uri": uri, "video_id": "a.mp4", "status": "ok", "faces": faces, "track": 0}
    pq.write_table(pa.Table.from_pylist([video], schema=schema.VIDEOS), folder / "videos.parquet")
    table = pa.Table.from_pylist([{"video_id": "a.mp4"} | row for row in rows], schema=schema.FRAMES)
    pq.write_table(table, folder / "frames" / "a.parquet")
    return str(folder)


def test_last_frame_with_a_face_is_drawn(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=6)
    rows = [face(0.9, True, frame=index, time_s=index / 25) for index in range(4)]
    rows.append({"frame": 5, "time_s": 0.2, "status": "no_face"})
    out = annotation(tmp_path / "out", str(tmp_path / "a.mp4"), rows)
    picture = tmp_path / "picture.png"
    assert frame_picture.main([out, str(picture)]) == 0
    assert near(decode(picture.read_bytes()), ORANGE) > 1000


def test_what_cannot_be_drawn_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert frame_picture.main([str(tmp_path), str(tmp_path / "a.png")]) == 2
    assert capsys.readouterr().err.startswith(f"frame_picture: {tmp_path}: no annotation")
    out = annotation(tmp_path / "out", "nowhere.mp4", [], faces=0)
    with pytest.raises(ConfigError, match="no video with a face"):
        frame_picture.last_frame(out)
    with pytest.raises(ConfigError, match=r"no video with a face under the name 'b\.mp4'"):
        frame_picture.last_frame(out, "b.mp4")
