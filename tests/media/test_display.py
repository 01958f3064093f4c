"""Images as a player displays them: square pixels, SDR colors, and the track that a player chooses."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from aupipe.annotation.settings import AnnotateConfig, MediaConfig
from aupipe.annotation.tracks import link_faces
from aupipe.errors import NoVideoStreamError
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.faces.face_stream import FrameFaces, detect_stream
from aupipe.faces.track import TrackingConfig
from aupipe.media.frames import Frame, frames
from aupipe.media.probe import probe
from harness import oddities, single_process
from harness.clips import scene, write_clip

pytestmark = pytest.mark.unit

SHARP = {"crf": "8", "preset": "veryfast"}


def detect(stream: list[Frame]) -> list[tuple[FrameFaces, np.ndarray]]:
    return list(detect_stream(stream, Detector(DetectorConfig()), 4))


def pictures(path: Path) -> list[np.ndarray]:
    return [frame.image for frame in frames(str(path)) if frame.image is not None]


@pytest.mark.parametrize(
    ("name", "codec", "stored", "aspect"),
    [
        ("wide.mp4", "libx264", (180, 144), Fraction(64, 45)), ("half.mkv", "libx264", (88, 144), Fraction(32, 11)),
        ("narrow.mov", "libx264", (256, 96), Fraction(2, 3)), ("wide.ts", "libx264", (180, 144), Fraction(64, 45)),
        ("wide.mpg", "mpeg2video", (192, 144), Fraction(4, 3)), ("wide.avi", "mpeg4", (180, 144), Fraction(64, 45)),
    ],
)  # fmt: skip
def test_pixels_that_are_not_square_are_stretched(
    tmp_path: Path, name: str, codec: str, stored: tuple[int, int], aspect: Fraction
) -> None:
    square = scene(3, size=(256, 144), face=120)
    images = [cv2.resize(image, stored, interpolation=cv2.INTER_AREA) for image in square]
    tick = Fraction(1, 25) if name.endswith((".avi", ".mpg")) else Fraction(1, 1000)
    options = SHARP if codec == "libx264" else {"qscale": "2"}
    path = write_clip(tmp_path / name, images, codec=codec, pixel_aspect=aspect, tick=tick, options=options)
    images_read = pictures(path)
    assert images_read[0].shape[1] / images_read[0].shape[0] == pytest.approx(16 / 9, rel=0.01)
    assert all(side >= other for side, other in zip(images_read[0].shape[1::-1], stored, strict=True))
    whole = AnnotateConfig(search={"every": 1})  # Regions of drawn faces give less steady boxes than whole frames do.
    record, rows = single_process.annotate(path, tmp_path / "out", whole)
    height, width = images_read[0].shape[:2]
    assert (record["frame_width"], record["frame_height"]) == (width, height)
    assert record["pixel_aspect"] == f"{aspect.numerator}:{aspect.denominator}"
    assert rows["frame_width"].to_pylist() == [width] * 3
    plain = write_clip(tmp_path / "square.mp4", square, options=SHARP)
    _, twin = single_process.annotate(plain, tmp_path / "out", whole)
    for side, box in ((256, "box_x"), (256, "box_w"), (144, "box_y"), (144, "box_h")):
        scale = (width if side == 256 else height) / side
        assert rows[box].to_numpy() / scale == pytest.approx(twin[box].to_numpy(), abs=6)


@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(100, 1), Fraction(1, 40)])
def test_square_or_impossible_pixels_are_unchanged(tmp_path: Path, aspect: Fraction) -> None:
    path = write_clip(tmp_path / "a.mkv", scene(2, size=(96, 72), face=64), pixel_aspect=aspect)
    assert pictures(path)[0].shape == (72, 96, 3)


@pytest.mark.parametrize(("most", "width"), [(192 * 72, 192), (192 * 72 - 1, 96)])
def test_pixels_are_not_stretched_beyond_the_largest_frame(tmp_path: Path, most: int, width: int) -> None:
    path = str(write_clip(tmp_path / "a.mkv", scene(2, size=(96, 72), face=64), pixel_aspect=Fraction(2)))
    assert probe(path, max_frame_px=most).width_px == width
    images = [frame.image for frame in frames(path, max_frame_px=most)]
    assert [image.shape for image in images if image is not None] == [(72, width, 3)] * 2


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("aspect", [None, Fraction(1, 2)])
def test_a_field_of_hevc_has_the_shape_of_its_frame(suffix: str, aspect: Fraction | None, tmp_path: Path) -> None:
    images = scene(3, size=(192, 144), face=120)
    fields = [image[parity::2] for image in images for parity in (0, 1)]
    parameters = "interlace=tff:crf=8:log-level=none:pools=none:frame-threads=1"
    path = write_clip(
        tmp_path / f"a.{suffix}", fields, codec="libx265", pixel_aspect=aspect, tick=Fraction(1, 50),
        times=range(6), options={"x265-params": parameters},
    )  # fmt: skip
    info = probe(str(path))
    assert (info.width_px, info.height_px, info.pixel_aspect, info.frames_expected) == (192, 144, Fraction(1, 2), 6)
    for picture, image in zip(pictures(path), [image for image in images for _ in range(2)], strict=True):
        assert picture.shape == (144, 192, 3)
        assert np.abs(picture.astype(int) - image).mean() < 6


def test_rotated_video_with_wide_pixels(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", scene(2, size=(96, 72), face=64), pixel_aspect=Fraction(2), rotation=90)
    info = probe(str(path))
    assert pictures(path)[0].shape[:2] == (info.height_px, info.width_px) == (192, 72)


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_hdr_looks_like_its_sdr_twin(tmp_path: Path, transfer: str) -> None:
    images = scene(6, size=(128, 96), face=88)
    path = oddities.write_hdr(tmp_path / "a.mov", images, transfer)
    assert probe(str(path)).hdr == transfer
    for image_read, image in zip(pictures(path), images, strict=True):
        assert np.abs(image_read.astype(int) - image).mean() < 9  # without tone mapping it is 40 for PQ, 25 for HLG
    assert probe(str(write_clip(tmp_path / "sdr.mp4", images))).hdr == ""


def test_every_row_has_the_size_of_its_frame(tmp_path: Path) -> None:
    images = scene(12, size=(160, 160), face=120)
    small = [cv2.resize(image, (96, 96), interpolation=cv2.INTER_AREA) for image in images[:6]]
    parts = [
        write_clip(tmp_path / "small.ts", small, times=range(0, 240, 40)),
        write_clip(tmp_path / "large.ts", images[6:], times=range(400, 640, 40)),
    ]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    _, rows = single_process.annotate(path, tmp_path / "out")
    assert rows["frame_width"].to_pylist() == rows["frame_height"].to_pylist() == [96] * 6 + [160] * 6
    assert link_faces(rows, TrackingConfig()).tolist() == [0] * 12


@pytest.mark.parametrize("suffix", ["mpg", "ts"])
def test_no_frame_is_lost_where_mpeg2_changes_its_size(suffix: str, tmp_path: Path) -> None:
    large, small = scene(7, size=(192, 144), face=120), scene(7, size=(96, 80), face=64)
    options = {"g": "6", "bf": "2", "b": "2M"}
    parts = [
        write_clip(tmp_path / f"{n}.{suffix}", images, codec="mpeg2video", tick=Fraction(1, 25), options=options)
        for n, images in enumerate((large, small))
    ]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"".join(parts[number].read_bytes() for number in (0, 1, 0)))
    found = pictures(path)
    assert [picture.shape[0] for picture in found] == [144] * 7 + [80] * 7 + [144] * 7
    for picture, image in zip(found, [*large, *small, *large], strict=True):
        assert np.abs(picture.astype(int) - image).mean() < 8


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_frames_that_the_decoder_returns_late_keep_the_shape_of_their_pixels(codec: str, tmp_path: Path) -> None:
    parts = [
        write_clip(
            tmp_path / f"{number}.ts", [np.full((72, 96, 3), 99, np.uint8)] * 12, codec=codec, tick=Fraction(1, 25),
            options={"bf": "2"}, pixel_aspect=aspect, times=range(12 * number, 12 * number + 12),
        )
        for number, aspect in enumerate((Fraction(1), Fraction(4, 3)))
    ]  # fmt: skip
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert [picture.shape[1] for picture in pictures(path)] == [96] * 12 + [128] * 12


def test_a_plain_frame_is_converted_as_by_pyav(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", scene(3, size=(97 * 2, 144), face=120), options=SHARP)
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert all(map(np.array_equal, pictures(path), expected))


def test_landmarks_are_smoothed_in_the_pixels_of_their_own_frame() -> None:
    images = scene(12, size=(160, 160), face=120)
    small = [cv2.resize(image, (96, 96), interpolation=cv2.INTER_AREA) for image in images]
    mixed = detect([Frame(n, n / 25, (small if n < 6 else images)[n]) for n in range(12)])
    large = detect([Frame(n, n / 25, image) for n, image in enumerate(images)])
    for number, ((_, some), (_, other)) in enumerate(zip(mixed, large, strict=True)):
        assert some * (160 / 96 if number < 6 else 1) == pytest.approx(other, abs=4)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(("options", "track"), [({}, 1), ({"last": True}, 0), ({"pictures": 2}, 1)])
def test_a_poster_is_not_the_video(tmp_path: Path, suffix: str, options: dict[str, int], track: int) -> None:
    plain = write_clip(tmp_path / f"plain.{suffix}", scene(12, size=(96, 72), face=64))
    path = oddities.with_poster(plain, tmp_path / f"a.{suffix}", **options)  # type: ignore[arg-type]
    info = probe(str(path))
    assert (info.track, info.tracks, info.frames_expected) == (track, 2, 12)
    record, _ = single_process.annotate(path, tmp_path / "out")
    assert (record["status"], record["track"], record["tracks"]) == ("ok", track, 2)


def test_the_user_may_choose_the_track(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "plain.mkv", scene(12, size=(96, 72), face=64))
    path = oddities.with_poster(plain, tmp_path / "a.mkv")
    record, rows = single_process.annotate(path, tmp_path / "out", AnnotateConfig(media=MediaConfig(track=0)))
    assert (record["track"], len(rows)) == (0, 1)
    with pytest.raises(NoVideoStreamError, match="2 video tracks"):
        probe(str(path), track=2)
