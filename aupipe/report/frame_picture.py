"""One frame of an annotation as a picture: a box around each face, and bars with the probabilities of its AUs.

`python -m aupipe.report.frame_picture OUT PICTURE.png` draws the last frame with a face of the first video in OUT.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from aupipe import facs
from aupipe.errors import AupipeError, ConfigError, one_line
from aupipe.media.frames import Span, frames
from aupipe.media.probe import probe
from aupipe.storage import Storage

MAX_FACES = 4  # faces with bars of their own; the others have a box only
_COLORS = ("#e07b39", "#2a7fb8", "#5b9a4c", "#8d5aa8")
_NEGATIVE = "#c9ced3"


def draw(
    image: np.ndarray,
    faces: Sequence[Mapping[str, Any]],
    title: str = "",
    thresholds: Mapping[str, float] | None = None,
) -> bytes:
    """Draw a frame with its faces, and return the PNG.

    Args:
        image: (H, W, 3) uint8 RGB, the frame as it is shown.
        faces: rows of the frames table, one per face, with box, landmarks and AU columns.
        title: text above the frame.
        thresholds: per AU, marked in its bar; None: no marks, as where several models vote.
    """
    shown = faces[:MAX_FACES]
    figure = Figure(figsize=(5.6 + 3.6 * len(shown), 5.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1, 1 + len(shown), width_ratios=[5.6, *[3.6] * len(shown)])
    picture = figure.add_subplot(grid[0, 0])
    picture.imshow(image)
    picture.set_axis_off()
    picture.set_title(title, fontsize=10, loc="left")
    for number, face in enumerate(faces):
        _draw_face(picture, face, _COLORS[number % len(_COLORS)])
    for number, face in enumerate(shown):
        _draw_bars(figure.add_subplot(grid[0, 1 + number]), face, _COLORS[number], thresholds or {})
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_face(axes: Any, face: Mapping[str, Any], color: str) -> None:
    """Draw box, name and landmarks of one face."""
    corner = (face["box_x"], face["box_y"])
    axes.add_patch(Rectangle(corner, face["box_w"], face["box_h"], fill=False, edgecolor=color, linewidth=2))
    axes.annotate(
        f"face {face['face_id']}", corner, xytext=(0, 3), textcoords="offset points", fontsize=9, color="white",
        bbox={"facecolor": color, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip
    if face["landmarks"] is not None:
        points = np.asarray(face["landmarks"]).reshape(5, 2)
        axes.plot(points[:, 0], points[:, 1], ".", color=color, markersize=5)


def _draw_bars(axes: Any, face: Mapping[str, Any], color: str, thresholds: Mapping[str, float]) -> None:
    """Draw one bar per AU: its length is the smoothed probability, and it is colored where the AU is present."""
    places = list(range(len(facs.AUS)))
    probabilities = [face[f"{au}_prob"] or 0.0 for au in facs.AUS]
    axes.barh(places, [1] * len(places), 0.72, color="#f1f3f5")
    axes.barh(places, probabilities, 0.72, color=[color if face[au] else _NEGATIVE for au in facs.AUS])
    for au, threshold in thresholds.items():
        place = facs.AUS.index(au)
        axes.plot([threshold, threshold], [place - 0.36, place + 0.36], color="#33383d", linewidth=1.2)
    for place, au, probability in zip(places, facs.AUS, probabilities, strict=True):
        weight = "bold" if face[au] else "normal"
        axes.text(0.985, place, f"{probability:.2f}", va="center", ha="right", fontsize=8, fontweight=weight)
    axes.set(xlim=(0, 1), ylim=(len(places) - 0.5, -0.5), xticks=[], yticks=places)
    axes.set_yticklabels([f"{facs.AU_NAMES[au]}  {au}" for au in facs.AUS], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"face {face['face_id']}: probability | threshold (colored: present)", fontsize=9, loc="right")


def last_frame(out: str, video_id: str | None = None) -> bytes:
    """Draw the last frame with a face of one video of an annotation, and return the PNG.

    Args:
        out: output folder of `annotate.py` on a local disk.
        video_id: the video; None: the first one in `videos.parquet` with a face.

    Raises:
        ConfigError: the folder has no such annotation, or the video has no face.
        MediaError: the video cannot be read any more.
    """
    folder = Storage(out)
    if not folder.exists("videos.parquet"):
        raise ConfigError(f"{out}: no annotation (a folder with videos.parquet); fix: annotate.py --out {out}")
    videos = [
        video for video in pq.read_table(io.BytesIO(folder.read("videos.parquet"))).to_pylist()
        if video["faces"] and video_id in (None, video["video_id"])
    ]  # fmt: skip
    if not videos:
        raise ConfigError(f"{out}: no video with a face" + (f" under the name {video_id!r}" if video_id else ""))
    video = videos[0]
    table = ds.dataset(f"{out}/frames", format="parquet")
    wanted = (ds.field("video_id") == video["video_id"]) & (ds.field("status") == "ok")
    index = max(table.to_table(columns=["frame"], filter=wanted)["frame"].to_pylist(), default=None)
    if index is None:
        raise ConfigError(f"{out}: no crop of a face in {video['video_id']!r}")
    rows = table.to_table(filter=wanted & (ds.field("frame") == index)).sort_by("face_id").to_pylist()
    time = "" if rows[0]["time_s"] is None else f", {rows[0]['time_s']:.2f} s"
    run = json.loads(folder.read("run.json")) if folder.exists("run.json") else {}
    image, title = _decode(video["uri"], video["track"], index), f"{video['video_id']}: frame {index}{time}"
    return draw(image, rows, title, run.get("thresholds"))


def _decode(uri: str, track: int | None, index: int) -> np.ndarray:
    """Return frame `index` of a video, (H, W, 3) uint8 RGB."""
    for frame in frames(uri, Span.whole(probe(uri, track=track))):
        if frame.index == index and frame.image is not None:
            return frame.image
    raise ConfigError(f"{uri}: frame {index} cannot be decoded; fix: annotate the video again")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw a picture from the command line, and return the exit code."""
    parser = argparse.ArgumentParser(prog="frame_picture", description=__doc__, allow_abbrev=False)
    parser.add_argument("out", metavar="OUT", help="output folder of annotate.py")
    parser.add_argument("picture", metavar="PICTURE.png", help="file to write")
    parser.add_argument("--video-id", metavar="ID", help="the video (default: the first one with a face)")
    args = parser.parse_args(argv)
    try:
        data = last_frame(args.out, args.video_id)
        with open(args.picture, "wb") as file:
            file.write(data)
    except (AupipeError, OSError) as error:
        print(f"{parser.prog}: {one_line(error)}", file=sys.stderr)  # noqa: T201
        return error.exit_code if isinstance(error, AupipeError) else 1
    print(f"picture: {args.picture}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
