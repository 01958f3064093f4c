"""Inputs from web servers: read by range, or copied if the server has no ranges; each refusal has a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aupipe.errors import MediaError
from aupipe.media import byte_source
from aupipe.media.frames import Span, frames
from aupipe.media.probe import fingerprint, probe
from harness.clips import decoded_times, scene, write_clip
from harness.webserver import serving

pytestmark = pytest.mark.unit


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "a b.mp4", scene(30, size=(96, 72), face=64), options={"g": "10"})


@pytest.mark.parametrize("ranges", [True, False])
def test_a_video_of_a_web_server_equals_the_local_file(clip: Path, ranges: bool) -> None:
    with serving(clip.parent, ranges=ranges, account="anna:s3cret") as web:
        url = web.url("a%20b.mp4?token=t0p", "anna:s3cret")
        (clip.parent / "a%20b.mp4").write_bytes(clip.read_bytes())
        assert [frame.time_s for frame in frames(url)] == decoded_times(clip)
        assert fingerprint(url) == fingerprint(str(clip))
        gets = [byte_range for method, _, byte_range in web.requests if method == "GET"]
        assert gets
        if ranges:
            assert all(gets)
            assert max(size for _, size in web.answers) <= clip.stat().st_size
        assert all(path.endswith("?token=t0p") for _, path, _ in web.requests)


def test_only_a_part_of_a_large_file_is_fetched(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", scene(5, size=(96, 72), face=64), muxer={"movflags": "faststart"})
    with open(clip, "ab") as file:  # an unknown box of 40 MB after the end
        file.write((40_000_008).to_bytes(4, "big") + b"free" + bytes(40_000_000))
    with serving(tmp_path) as web:
        assert probe(web.url("a.mp4")).frames_expected == 5
        assert sum(size for _, size in web.answers) < 30_000_000


def test_a_part_of_a_video_costs_little_more_than_its_bytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 96, 128, 3), np.uint8)
    clip = write_clip(tmp_path / "a.mp4", list(noise), options={"g": "10", "preset": "ultrafast", "qp": "1"})
    info, size = probe(str(clip)), clip.stat().st_size
    assert size > 10_000_000
    with serving(tmp_path) as web:
        found = list(frames(web.url("a.mp4"), Span.part(info, 150, 450)))
    assert [frame.index for frame in found] == list(range(150, 450))
    assert all(frame.image is not None for frame in found)
    assert sum(answered for _, answered in web.answers) < 1.5 * size / 2


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_a_file_is_read_once_if_it_fits_in_memory(beyond: int, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = clip.stat().st_size
    monkeypatch.setattr(byte_source, "HELD_BYTES", size - beyond)
    clip.rename(clip.with_name("a.mp4"))
    local = str(clip.with_name("a.mp4"))
    with serving(clip.parent) as web:
        url = web.url("a.mp4")
        with byte_source.read_once(url):
            assert not web.requests
            assert probe(url).pts.tolist() == probe(local).pts.tolist()  # type: ignore[union-attr]
            assert fingerprint(url) == fingerprint(local)
            with byte_source.read_once(url):
                assert len(list(frames(url))) == 30
            assert len(list(frames(url))) == 30  # the inner block does not end the outer one
            fetched = sum(answered for _, answered in web.answers)
            assert (fetched < size + 10) == (beyond <= 0)  # and a byte that shows whether the server has ranges
            assert (len(web.requests) <= 3) == (beyond <= 0)
        (clip.with_name("a.mp4")).write_bytes(b"other")
        assert fingerprint(url) == fingerprint(local)  # nothing is kept after the block


def test_a_file_that_cannot_be_read_once_is_an_error_each_time(tmp_path: Path) -> None:
    with serving(tmp_path) as web, byte_source.read_once(web.url("404")):
        for _ in range(2):
            with pytest.raises(MediaError) as error:
                probe(web.url("404"))
            assert error.value.reason == "not_found"


@pytest.mark.parametrize(
    ("name", "reason", "requests"),
    [("404", "not_found", 2), ("403", "permission_denied", 2), ("401", "permission_denied", 2),
     ("410", "not_found", 2), ("400", "unreadable", 2), ("503", "unreadable", 6)],
)  # fmt: skip
def test_each_refusal_has_its_reason(
    tmp_path: Path, name: str, reason: str, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_source, "_RETRIES_S", (0.0, 0.01))
    with serving(tmp_path) as web:
        with pytest.raises(MediaError) as error:
            probe(web.url(f"{name}?key=t0p", "anna:s3cret"))
        assert error.value.reason == reason
        assert str(error.value).startswith(f"http://127.0.0.1:{web.port}/{name}?…: ")
        assert len(web.requests) == requests  # HEAD and GET, repeated if the error may be temporary
    with pytest.raises(MediaError) as error:
        probe(web.url("a.mp4"))  # the server has stopped
    assert error.value.reason == "unreadable"


def test_a_server_without_ranges_cannot_fill_the_disk(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_source, "_COPIED_BYTES", 1000)
    clip.rename(clip.with_name("a.mp4"))
    with serving(clip.parent, ranges=False) as web:
        with pytest.raises(MediaError) as error:
            probe(web.url("a.mp4"))
        assert error.value.reason == "too_large"


def test_an_unknown_protocol_is_a_media_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="hls") as error:
        probe("hls+http://127.0.0.1/x.m3u8")
    assert error.value.reason == "unreadable"


def test_a_server_of_another_protocol_that_refuses_is_a_media_error() -> None:
    with pytest.raises(MediaError, match="Connection refused") as raised, byte_source.opened("ftp://127.0.0.1:9/a.mp4"):
        pass
    assert raised.value.reason == "unreadable"
