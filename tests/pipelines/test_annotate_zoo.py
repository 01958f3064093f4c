"""Frame accounting: every frame of every test clip has a row at its time, and every loss has a reason."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import alone
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from zoo import COUNT, Animal, animals

from aupipe.benchmarks import conservation
from aupipe.commands.annotate import main

DIFFERENT = (
    "h264 b-frames.mp4", "hevc open gop.mkv", "h264 b-frames.avi", "mpeg2 b-frames.mpg", "h264 variable.mov",
    "vp9 late.webm", "h264 edit list.mp4", "mpeg4 one frame.avi", "no frames.mkv", "65x49.mov", "1x1.mkv",
    "turned 270.mp4", "sound only.mp4", "h264 truncated.mp4", "h264 truncated.mkv", "mpeg4 hole at 0.4.avi",
    "hevc hole at 0.4.mkv", "in truth ts.mkv",
    "fields, a packet each.ts", "fields, in pairs.mts", "one more.avi", "packed.avi", "tape type 1.avi",
    "poster first.mkv", "joined.ts", "joined.mp4", "pixels 64 to 45.mkv", "pq.mov", "raw mjpeg.mjpeg",
    "text.mp4", "unreadable.mp4", "😀 emoji ü.mp4",
)  # fmt: skip


def wrong(
    animal: Animal, path: Path, record: Mapping[str, Any], frames: Sequence[int], times: Sequence[float | None]
) -> list[str]:
    """Return the errors in the annotation of a clip, by an independent reading and by its construction."""
    code = (record["reason"] or "").partition(":")[0]
    if record["status"] == "duplicate":
        return ["a duplicate"]
    if record["status"] == "quarantined":
        return [] if code in animal.codes else [f"quarantined: {record['reason']}"]
    reading = conservation.read(path)
    assert reading is not None
    found = conservation.complaints(record, frames, times, reading)
    if code and code not in animal.codes:
        found.append(f"unexpected: {record['reason']}")
    if animal.codes and not code and len(frames) < COUNT:
        found.append(f"{COUNT - len(frames)} frames are lost without a word")
    if animal.frames is not None and len(frames) != animal.frames:
        found.append(f"{len(frames)} rows instead of {animal.frames}")
    elif animal.times is not None:
        found += conservation.off(times, animal.times, reading.tick)
    if record["rotation"] % 360 != animal.rotation:
        found.append(f"turned by {record['rotation']}")
    return found


@pytest.mark.unit
def test_the_most_different_clips(tmp_path: Path) -> None:
    some = [animal for animal in animals() if animal.name.endswith(DIFFERENT)]
    assert len(some) > len(DIFFERENT)
    found = {}
    for animal in some:
        path = animal.put(tmp_path)
        record, rows = alone.annotate(path, tmp_path / "out")
        found[animal.name] = wrong(animal, path, record, rows["frame"].to_pylist(), rows["time_s"].to_pylist())
    assert {name: said for name, said in found.items() if said} == {}


@pytest.mark.unit
def test_a_file_without_permission_is_quarantined(tmp_path: Path) -> None:
    (forbidden,) = [animal for animal in animals() if animal.name == "forbidden.mp4"]
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is in a folder that only root may enter
        os.chmod(folder, 0o777)
        path = forbidden.put(Path(folder))
        own = os.geteuid()
        if own == 0:  # Root may read everything, so the test briefly runs as nobody.
            os.seteuid(65534)
        try:
            record, _ = alone.annotate(path, Path(folder) / "out")
        finally:
            os.seteuid(own)
    assert record == {"status": "quarantined", "reason": f"permission_denied: {path}: no permission to read it"}


@pytest.mark.ray
@pytest.mark.slow
def test_the_whole_zoo(ray_session: None, checkpoint: str, tmp_path: Path) -> None:
    """`forbidden.mp4` is no loss for root; the test above covers it."""
    (tmp_path / "in").mkdir()
    zoo = {animal.name: animal for animal in animals()}
    assert len(zoo) >= 200
    for animal in zoo.values():
        animal.put(tmp_path / "in")
    # Inputs are named one by one, because a folder is searched for files only, and a pipe is no file.
    command = ["--input", str(tmp_path / "in"), "--checkpoint", checkpoint, "--out", str(tmp_path / "out")]
    assert main(command) == 3
    records = {row["video_id"]: row for row in pq.read_table(tmp_path / "out" / "videos.parquet").to_pylist()}
    assert records.keys() == zoo.keys()
    rows = pads.dataset(tmp_path / "out" / "frames").to_table(columns=["video_id", "frame", "time_s"]).to_pandas()
    rows = rows.drop_duplicates(["video_id", "frame"]).sort_values("frame").astype(object).where(rows.notna(), None)
    by_id = dict(tuple(rows.groupby("video_id")))
    found = {}
    for name, animal in zoo.items():
        mine = by_id.get(name, rows.iloc[:0])
        found[name] = wrong(animal, tmp_path / "in" / name, records[name], mine.frame.tolist(), mine.time_s.tolist())
    assert {name: said for name, said in found.items() if said} == {}
