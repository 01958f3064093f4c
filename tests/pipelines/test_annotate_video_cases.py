"""Frame accounting of unusual clips: each frame is a row at its time, and each loss is reported with a reason."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from aupipe.commands.annotate import main
from harness import frame_accounting, single_process
from harness.video_cases import complaints_of_output, video_cases

DIFFERENT = (
    "h264 b-frames.mp4", "hevc open gop.mkv", "h264 b-frames.avi", "mpeg2 b-frames.mpg", "h264 variable.mov",
    "vp9 late.webm", "h264 edit list.mp4", "mpeg4 one frame.avi", "no frames.mkv", "65x49.mov", "1x1.mkv",
    "turned 270.mp4", "sound only.mp4", "h264 truncated.mp4", "h264 truncated.mkv", "mpeg4 hole at 0.4.avi",
    "hevc hole at 0.4.mkv", "in truth ts.mkv",
    "fields, a packet each.ts", "fields, in pairs.mts", "one more.avi", "packed.avi", "tape type 1.avi",
    "poster first.mkv", "joined.ts", "joined.mp4", "pixels 64 to 45.mkv", "pq.mov", "raw mjpeg.mjpeg",
    "text.mp4", "unreadable.mp4", "😀 emoji ü.mp4",
)  # fmt: skip


@pytest.mark.unit
def test_the_most_different_clips(tmp_path: Path) -> None:
    some = [case for case in video_cases() if case.name.endswith(DIFFERENT)]
    assert len(some) > len(DIFFERENT)
    found = {}
    for case in some:
        path = case.write(tmp_path)
        record, rows = single_process.annotate(path, tmp_path / "out")
        wrong = case.complaints(path, record, rows["frame"].to_pylist(), rows["time_s"].to_pylist())
        found |= {case.name: wrong} if wrong else {}
    assert found == {}


@pytest.mark.unit
def test_a_file_without_permission_is_quarantined(tmp_path: Path) -> None:
    (forbidden,) = [case for case in video_cases() if case.name == "forbidden.mp4"]
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is in a folder that only root may enter
        os.chmod(folder, 0o777)
        path = forbidden.write(Path(folder))
        user = os.geteuid()
        if user == 0:  # root may read every file, so that the test becomes the user "nobody" for a moment
            os.seteuid(65534)
        try:
            record, _ = single_process.annotate(path, Path(folder) / "out")
        finally:
            os.seteuid(user)
    assert record == {"status": "quarantined", "reason": f"permission_denied: {path}: no permission to read it"}


@pytest.mark.ray
@pytest.mark.slow
def test_all_video_cases(ray_session: None, checkpoint: str, tmp_path: Path) -> None:
    """For root, `forbidden.mp4` is a valid clip; the test above covers the missing permission."""
    (tmp_path / "in").mkdir()
    cases = {case.name: case for case in video_cases()}
    assert len(cases) >= 200
    for case in cases.values():
        case.write(tmp_path / "in")
    command = ["--input", str(tmp_path / "in"), "--checkpoint", checkpoint, "--out", str(tmp_path / "out")]
    assert main(command) == 3
    records, _ = frame_accounting.read_output(tmp_path / "out")
    assert records.keys() == cases.keys()
    assert complaints_of_output(tmp_path / "in", tmp_path / "out", cases.values()) == {}
