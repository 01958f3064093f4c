"""Rows and tables of an annotation whose faces and AUs are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aupipe import facs
from aupipe.annotation import schema


def face(probability: float, present: bool, **columns: Any) -> dict[str, Any]:
    """A row of the frames table whose AUs are all alike."""
    box = {"box_x": 20.0, "box_y": 30.0, "box_w": 40.0, "box_h": 50.0}
    points = {"landmarks": [30.0, 45.0, 50.0, 45.0, 40.0, 55.0, 33.0, 65.0, 47.0, 65.0]}
    aus = {f"{au}_prob": probability for au in facs.AUS} | dict.fromkeys(facs.AUS, present)
    return {"face_id": 0, "frame": 0, "time_s": 0.0, "status": "ok", **box, **points, **aus, **columns}


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
