import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest

from aupipe import facs
from aupipe.annotation import schema
from aupipe.annotation.draw import COLORS, draw_faces
from aupipe.commands import report as command
from aupipe.report.overlay import write_overlay
from harness.clips import write_clip as harness_clip
from harness.drawn_tables import annotation, face, write_video

pytestmark = pytest.mark.unit

TIMES_S = [0.5, 0.54, 0.7, 0.9, 0.92, 1.5]  # a variable frame rate that does not start at 0


def write_clip(path: Path, size: tuple[int, int] = (161, 121)) -> None:
    """Write a gray video with these times, and a tone from 0.5 s to 1.5 s."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1")
        video.width, video.height, video.pix_fmt = *size, "bgr0"
        video.codec_context.time_base = Fraction(1, 1000)
        voice = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        tone = (8000 * np.sin(np.arange(16_000) / 16_000 * 2 * np.pi * 440)).astype(np.int16)
        sound = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        sound.rate, sound.pts = 16_000, 8_000
        container.mux(voice.encode(sound))
        container.mux(voice.encode(None))
        for time_s in TIMES_S:
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 90, np.uint8))
            frame.pts, frame.time_base = round(time_s * 1000), video.codec_context.time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))


def rows() -> list[dict]:
    return [face(0.9, True, frame=index, time_s=time_s) for index, time_s in enumerate(TIMES_S)]


def test_overlay_has_the_frames_times_and_sound_of_the_original(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv")
    table = pa.Table.from_pylist([{"video_id": "a"} | row for row in rows()], schema=schema.FRAMES)
    assert write_overlay(str(tmp_path / "o.mp4"), str(tmp_path / "a.mkv"), 0, table, {"AU12": 0.5}) == 6
    with av.open(str(tmp_path / "o.mp4")) as container:
        decoded = list(container.decode(video=0))
    assert [frame.time for frame in decoded] == pytest.approx(TIMES_S, abs=1e-4)
    image = decoded[2].to_ndarray(format="rgb24").astype(int)
    assert image.shape == (120, 160, 3)
    edge, background = ((image[40:70, x, 0] - image[40:70, x, 2]).mean() for x in (60, 120))
    assert edge > 60
    assert abs(background) < 10  # the right side of the box is orange, the picture gray
    with av.open(str(tmp_path / "o.mp4")) as container:
        sound = list(container.decode(audio=0))
    assert sound[0].time == pytest.approx(0.5, abs=0.03)
    assert sum(frame.samples for frame in sound) / 48_000 == pytest.approx(1.0, abs=0.05)
    assert max(np.abs(frame.to_ndarray()).max() for frame in sound) > 0.15  # mono in stereo is 3 dB lower


def test_an_assumed_rate_is_that_of_the_overlay_and_the_preview(tmp_path: Path) -> None:
    raw = harness_clip(tmp_path / "a.h264", [np.full((120, 160, 3), 90, np.uint8)] * 12, form="h264")
    for step in (1, 5):  # all frames, and sampled ones
        table = [face(0.9, True, frame=index, time_s=index / 10) for index in range(0, 12, step)]
        out = Path(annotation(tmp_path / f"out{step}", str(raw), table))
        assert command.main([str(out), "--overlay", "--preview"]) == 0
        for folder in ("overlays", "previews"):
            with av.open(str(out / "report" / folder / "00000.mp4")) as container:
                times_s = [frame.time for frame in container.decode(video=0)]
            assert times_s == pytest.approx(np.arange(12) / 10, abs=1e-4), folder


@pytest.mark.parametrize(
    ("annotated", "without", "expected"),
    [
        ([0, 5, 10], [], range(15)),
        ([0, 4, 9, 14], [9], [*range(9), *range(14, 18)]),
        ([3, 4, 5], [], [3, 4, 5]),
        ([2, 3, 12, 13], [], [2, 3, 12, 13]),
        ([4], [], [4]),
    ],
)
def test_faces_are_shown_until_the_next_annotated_frame(
    annotated: list[int], without: list[int], expected: list[int], tmp_path: Path
) -> None:
    write_video(tmp_path / "a.mkv", 18)
    table = [
        {"frame": index, "time_s": index / 25, "status": "no_face"}
        if index in without
        else face(0.9, True, frame=index, time_s=index / 25)
        for index in annotated
    ]
    rows = pa.Table.from_pylist([{"video_id": "a"} | row for row in table], schema=schema.FRAMES)
    write_overlay(str(tmp_path / "o.mp4"), str(tmp_path / "a.mkv"), 0, rows, None)
    with av.open(str(tmp_path / "o.mp4")) as container:
        images = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert [n for n, image in enumerate(images) if np.abs(image - 90).max() > 40] == list(expected)


def test_bars_follow_the_probability_and_panels_stay_inside() -> None:
    image = np.full((120, 160, 3), 90, np.uint8)
    colored = [
        int((draw_faces(image, [face(p, True, box_x=x)]) == COLORS[0]).all(axis=2).sum())
        for p, x in ((0.2, 60.0), (0.9, 60.0), (0.9, 150.0), (0.9, -30.0))
    ]
    assert colored[0] < 0.7 * colored[1]
    assert min(colored[2:]) > colored[0]
    assert (image == 90).all()  # drawn on a copy
    absent = draw_faces(image, [face(0.9, False, box_x=60.0)])
    assert (absent == COLORS[0]).all(axis=2).sum() < colored[0]
    nothing = [face(0.9, True, box_x=None), face(0.5, True) | dict.fromkeys(f"{au}_prob" for au in facs.AUS)]
    assert draw_faces(image, nothing).shape == image.shape


def test_no_panel_is_drawn_over_another() -> None:
    image = np.full((360, 640, 3), 90, np.uint8)
    near = [face(0.9, True, box_x=300.0 + 4 * number, box_y=100.0, face_id=number) for number in range(3)]
    alone = [draw_faces(image, near[:count]) for count in (1, 2, 3)]
    dark = [int((each == 30).all(axis=2).sum()) for each in alone]
    assert dark[1] == pytest.approx(2 * dark[0], rel=0.02)  # one on each side
    assert dark[2] == pytest.approx(dark[1], rel=0.02)  # and no place for a third one


def test_a_video_that_browsers_do_not_play_has_a_preview(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv")
    out = Path(annotation(tmp_path / "out", str(tmp_path / "a.mkv"), rows()))
    assert command.main([str(out), "--preview"]) == 0
    assert 'src="../previews/00000.mp4"' in (out / "report" / "videos" / "00000.html").read_text()
    with av.open(str(out / "report" / "previews" / "00000.mp4")) as container:
        decoded = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(decoded) == 6
    assert max(np.abs(image - 90).max() for image in decoded) < 10  # nothing is drawn
    assert not (out / "report" / "overlays").exists()


def test_a_video_that_browsers_play_has_no_preview(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for _ in TIMES_S:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((120, 160, 3), 90, np.uint8))))
        container.mux(stream.encode(None))
    out = Path(annotation(tmp_path / "out", str(tmp_path / "a.mp4"), rows()))
    assert command.main([str(out), "--preview"]) == 0
    assert not (out / "report" / "previews").exists()
    assert re.search(r'<video [^>]*src="[^"]*a\.mp4"', (out / "report" / "videos" / "00000.html").read_text())


def test_command_writes_overlays_and_links_them(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv")
    out = Path(annotation(tmp_path / "out", str(tmp_path / "a.mkv"), rows()))
    assert command.main([str(out), "--overlay"]) == 0
    page = (out / "report" / "videos" / "00000.html").read_text()
    assert re.search(r'href="\.\./overlays/00000\.mp4"', page)
    with av.open(str(out / "report" / "overlays" / "00000.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 6
    (tmp_path / "a.mkv").unlink()
    assert command.main([str(out), "--overlay", "--out", str(tmp_path / "again")]) == 0
    assert "No overlays/00000.mp4: " in (tmp_path / "again" / "videos" / "00000.html").read_text()
