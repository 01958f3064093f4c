"""Hostile input: no reference is followed, limits are checked before memory is allocated, no secret is stored."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from aupipe.annotation.settings import AnnotateConfig, LimitsConfig
from aupipe.commands.annotate import main
from harness import single_process
from harness.clips import decoded_times, scene, write_clip
from harness.webserver import serving

IMAGES = scene(6, size=(96, 72), face=64)

PLAYLISTS = {
    "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{at}\n#EXT-X-ENDLIST\n",
    "hls master.mkv": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{at}\n",
    "hls key.mp4": '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-KEY:METHOD=AES-128,URI="{at}"\n#EXTINF:9,\n{at}\n',
    "dash.mp4": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period><AdaptationSet '
    'mimeType="video/mp4"><Representation id="1" bandwidth="9"><BaseURL>{at}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
    "concat.mp4": "ffconcat version 1.0\nfile '{at}'\n",
    "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{at}\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "rtsp.mov": "RTSPtext\r\n{at}\r\n",
    "image pattern.mp4": "{at}",
}


def put_playlists(folder: Path, targets: dict[str, str]) -> list[str]:
    """Write every kind of playlist for every target, and return their names."""
    names = []
    for kind, text in PLAYLISTS.items():
        for label, target in targets.items():
            names.append(f"{label} {kind}")
            (folder / names[-1]).write_text(text.replace("{at}", target))
    return names


@pytest.mark.unit
def test_no_playlist_is_followed(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "real.mp4", IMAGES)
    with serving(tmp_path) as web:
        targets = {
            "file": str(clip), "file uri": f"file:{clip}", "web": web.url("real.mp4"),
            "part": f"subfile,,start,0,end,0,,:{clip}", "both": f"concat:{clip}|{clip}",
            "crypto": f"crypto+file:{clip}",
        }  # fmt: skip
        for name in put_playlists(tmp_path, targets):
            record, _ = single_process.annotate(tmp_path / name, tmp_path / "out")
            assert record["reason"].startswith("not_a_video: "), name
            record, rows = single_process.annotate(web.url(name.replace(" ", "%20")), tmp_path / "out")
            assert len(rows) == 0, name
        assert not [path for _, path, _ in web.requests if "real" in path]
        for name in (f"concat:{clip}|{clip}", f"subfile,,start,0,end,0,,:{clip}", f"http:{clip}", "-", "pipe:0"):
            assert single_process.annotate(name, tmp_path / "out")[0]["reason"].startswith("not_found: ")


@pytest.mark.unit
def test_a_reference_out_of_a_container_is_not_followed(tmp_path: Path) -> None:
    """A QuickTime data reference names the file with the samples."""
    secret = write_clip(tmp_path / "secret.mov", IMAGES, codec="mjpeg")
    clip = tmp_path / "x.mov"
    clip.write_bytes(with_reference(secret.read_bytes(), secret.name))
    with av.open(str(clip), options={"enable_drefs": "1"}) as container:  # so it could be followed
        assert sum(1 for _ in container.decode(video=0)) == len(IMAGES)
    record, rows = single_process.annotate(clip, tmp_path / "out")
    assert record["reason"].startswith("no_frames: ")
    assert len(rows) == 0


def with_reference(data: bytes, name: str) -> bytes:
    """A QuickTime file whose first data reference is an alias to another file in its folder."""
    path = name.encode()
    alias = bytearray(150)
    alias[50] = len(path)  # as FFmpeg's mov_read_dref reads it: volume at 10, file name at 50, then tagged fields
    alias[51 : 51 + len(path)] = path
    alias[130:134] = struct.pack(">HH", 1, 1)  # levels up from here and down to there
    fields = struct.pack(">hH", 2, len(path)) + path + bytes(len(path) % 2) + struct.pack(">hH", -1, 0)
    body = b"\0\0\0\0" + bytes(alias) + fields
    entry = struct.pack(">I", len(body) + 8) + b"alis" + body
    start = data.index(b"dref") - 4
    size = struct.unpack(">I", data[start : start + 4])[0]
    box = data[start + 4 : start + 16] + entry
    out = bytearray(data[:start] + struct.pack(">I", len(box) + 4) + box + data[start + size :])
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        place = out.rindex(parent, 0, start) - 4
        old = struct.unpack(">I", out[place : place + 4])[0]
        out[place : place + 4] = struct.pack(">I", old + len(box) + 4 - size)
    return bytes(out)


def enlarge(path: Path, width: int, height: int, *, container: bool, picture: bool) -> Path:
    """Make a QuickTime file of PNG declare a larger size, in the header of its container or of its images."""
    data = bytearray(path.read_bytes())
    if picture:
        place = data.index(b"IHDR") + 4
        data[place : place + 8] = struct.pack(">II", width, height)
    if container:
        place = data.index(b"png ", data.index(b"stsd")) + 28
        data[place : place + 4] = struct.pack(">HH", width, height)
    path.write_bytes(data)
    return path


WEIGH = """
import resource, sys
from aupipe.annotation import preflight, settings
from aupipe.errors import MediaError
from aupipe.media.frames import frames
for path in sys.argv[1:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        said = [frame.image is None for frame in frames(path)]
        preflight.check(path, settings.LimitsConfig())
    except MediaError as error:
        said = error.reason
    print(said, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.unit
def test_a_huge_picture_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    paths = []
    for side, container, picture in ((30_000, 1, 1), (30_000, 0, 1), (16_000, 0, 1), (12_000, 1, 1)):
        path = write_clip(tmp_path / f"{len(paths)}.mov", IMAGES[:1], codec="png", pix_fmt="rgb24")
        paths.append(str(enlarge(path, side, side, container=bool(container), picture=bool(picture))))
    done = subprocess.run([sys.executable, "-c", WEIGH, *paths], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        reason, grown_mb = line.split()
        assert reason == "too_large"
        assert int(grown_mb) < 100


@pytest.mark.unit
def test_a_stream_that_grows_on_the_way_loses_those_frames_only(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mov", IMAGES, codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    place = data.rindex(b"IHDR") + 4
    data[place : place + 8] = struct.pack(">II", 16_000, 16_000)
    path.write_bytes(data)
    record, rows = single_process.annotate(path, tmp_path / "out")
    assert record["reason"] == "frames_lost: 1 of 6 (5)"
    assert len(rows) == 6


@pytest.mark.unit
def test_absurd_lengths_are_refused_and_absurd_promises_make_no_rows(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.avi", IMAGES, codec="mjpeg", tick=Fraction(1, 25))
    whole, at = clip.read_bytes(), clip.read_bytes().index(b"strh") + 8 + 32  # dwLength, of a stream
    said = {}
    for frames in (len(IMAGES) + 3, 10**7, 2**31 - 1):
        clip.write_bytes(whole[:at] + struct.pack("<I", frames) + whole[at + 4 :])
        record, rows = single_process.annotate(clip, tmp_path / "out")
        said[frames] = (record["status"], record["reason"].partition(":")[0], len(rows))
    assert said == {
        9: ("ok", "", 6), 10**7: ("ok", "", 6),  # the index and the chunks agree: a remark
        2**31 - 1: ("quarantined", "too_large", 0),
    }  # fmt: skip
    times = [0, 40, 10**9]
    far = write_clip(tmp_path / "far.mkv", IMAGES[:3], times=times, codec="ffv1")
    record, _ = single_process.annotate(far, tmp_path / "out")
    assert record["reason"].endswith("1,000,000 s are beyond limits.duration_s=400,000")
    record, rows = single_process.annotate(far, tmp_path / "out", AnnotateConfig(limits=LimitsConfig(duration_s=1e9)))
    assert (record["status"], rows["time_s"].to_pylist()) == ("ok", [time / 1000 for time in times])


@pytest.mark.unit
def test_hostile_inputs_through_the_job(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inputs are quarantined with reasons, web files are read, no playlist is followed, and no secret is stored."""
    folder, out, secret = tmp_path / "in", tmp_path / "out", ("s3cret", "t0p")
    clip = write_clip(folder / "good.mp4", IMAGES)
    huge = write_clip(folder / "huge.mov", IMAGES[:1], codec="png", pix_fmt="rgb24")
    enlarge(huge, 30_000, 30_000, container=True, picture=True)
    with serving(folder, account="anna:s3cret") as web, serving(folder, ranges=False) as plain:
        names = put_playlists(folder, {"at file": str(clip), "at web": plain.url("never")})
        lines = [
            f"{web.url('good.mp4', 'anna:s3cret')}?sig=t0p,t0p:t0p,web.mp4", f"{plain.url('good.mp4')}?x=t0p,plain.mp4",
            f"{plain.url('good.mp4')}?name=t0p,", f"{web.url('good.mp4', 'anna:t0p@x')},refused.mp4",
            f"{plain.url('gone.mp4')}?t0p,gone.mp4", f"{huge},huge.mov", f"{clip},../../x", f"{clip},/etc/x",
            *(f'"{folder / name}","{name}"' for name in names),
        ]  # fmt: skip
        (tmp_path / "list.csv").write_text("\n".join(["uri,video_id", *lines]).replace("t0p,t0p:t0p", "t0p:t0p"))
        before = {path for path in tmp_path.rglob("*") if out not in path.parents}
        command = ["--input", str(tmp_path / "list.csv"), "--checkpoint", checkpoint, "--out", str(out)]
        assert main([*command, "--set", "engine=local"]) == 3
        assert not [path for _, path, _ in plain.requests if "never" in path]
    assert {path for path in tmp_path.rglob("*") if out not in path.parents} - {out} == before
    records = {row["video_id"]: row for row in pq.read_table(out / "videos.parquet").to_pylist()}
    codes = {name: (row["reason"] or "").partition(":")[0] for name, row in records.items()}
    assert codes == {
        **dict.fromkeys(names, "not_a_video"), "good.mp4": "", "plain.mp4": "duplicate", "web.mp4": "duplicate",
        "refused.mp4": "permission_denied", "gone.mp4": "not_found", "huge.mov": "too_large",
        "../../x": "bad_video_id", "/etc/x": "bad_video_id",
    }  # fmt: skip
    assert pads.dataset(out / "frames").to_table()["time_s"].to_pylist() == decoded_times(clip)
    written = "".join(path.read_bytes().decode("latin-1") for path in out.rglob("*") if path.is_file())
    written += json.dumps([list(records.values()), [*capsys.readouterr()]], default=str)
    assert not [word for word in secret if word in written]
