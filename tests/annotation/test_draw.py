from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from aupipe.annotation import schema
from aupipe.annotation.annotated import Annotation
from aupipe.annotation.draw import COLORS
from aupipe.annotation.plot import timeline
from aupipe.errors import ConfigError
from harness.drawn_tables import face, write_video

pytestmark = pytest.mark.unit


def test_a_frame_of_an_annotation_is_drawn_with_its_own_faces(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=4)
    rows = [{"video_id": "a.mp4"} | face(0.9, True, frame=2), {"video_id": "a.mp4", "frame": 3, "status": "no_face"}]
    rows.append({"video_id": "b.mp4"} | face(0.9, True, frame=1))
    video = dict.fromkeys(schema.VIDEOS.names) | {"uri": str(tmp_path / "a.mp4"), "video_id": "a.mp4", "track": 0}
    result = Annotation(
        pa.Table.from_pylist(rows, schema=schema.FRAMES), schema.EVENTS.empty_table(),
        pa.Table.from_pylist([video], schema=schema.VIDEOS), {"AU12": 0.5},
    )  # fmt: skip
    pictures = [result.draw(frame) for frame in range(4)]
    assert [bool((picture == COLORS[0]).all(axis=2).any()) for picture in pictures] == [False, False, True, False]
    assert pictures[0].shape == (120, 160, 3)
    assert np.ptp(pictures[3].astype(int)) < 8  # gray, without a drawing
    with pytest.raises(ConfigError, match=r"frame: 4 of a\.mp4"):
        result.draw(4)
    with pytest.raises(ConfigError, match=r"video_id: b\.mp4"):
        result.draw(0, video_id="b.mp4")


def test_a_duplicate_is_drawn_and_plotted_with_the_faces_of_its_twin(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=2)
    rows = [{"video_id": "a.mp4"} | face(0.9, True, frame=1)]
    given = dict.fromkeys(schema.VIDEOS.names) | {"uri": str(tmp_path / "a.mp4"), "track": 0}
    videos = [given | {"video_id": "a.mp4"}, given | {"video_id": "copy.mp4", "duplicate_of": "a.mp4"}]
    result = Annotation(
        pa.Table.from_pylist(rows, schema=schema.FRAMES), schema.EVENTS.empty_table(),
        pa.Table.from_pylist(videos, schema=schema.VIDEOS), {},
    )  # fmt: skip
    assert (result.draw(1, video_id="copy.mp4") == result.draw(1)).all()
    assert len(result.plot(video_id="copy.mp4").axes) == 12


def test_the_name_of_a_video_is_no_formula_and_takes_no_width_from_the_curves() -> None:
    widths = []
    for name in ("a.mp4", r"a$\foo$.mp4", "x" * 250 + ".mp4"):
        frames = pa.Table.from_pylist([{"video_id": name} | face(0.9, True)], schema=schema.FRAMES)
        figure = timeline(frames, schema.EVENTS.empty_table(), {}, aus=["AU12"])
        figure.draw_without_rendering()
        widths.append(figure.axes[0].get_position().width)
    assert widths == pytest.approx([widths[0]] * 3, abs=0.01)
