"""Damaged clips through annotate.py: the job must not crash or hang, and must report every loss."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from harness import frame_accounting, processes
from harness.clips import scene, speaking, write_clip
from harness.mutate import mutate
from harness.random_model import save_multimodal

_FRAMES = 16  # frames of a clip
_STALL_S = 60.0  # setting of the job's own watchdog
_FILE_S = 20.0  # seconds per file, on average, after which the job counts as hanging


def clips(folder: Path) -> list[Path]:
    """Write five tiny clips, each of another container and codec."""
    images = scene(_FRAMES, size=(96, 72), face=64)
    quick = {"preset": "ultrafast", "g": "6", "bf": "2"}
    return [
        write_clip(folder / "h264.mp4", images, options=quick),
        speaking(folder / "sound.mkv", images, options=quick),
        write_clip(folder / "mpeg4.avi", images, codec="mpeg4", tick=Fraction(1, 25), options={"g": "6", "bf": "1"}),
        write_clip(folder / "mpeg2.mpg", images, codec="mpeg2video", tick=Fraction(1, 25), options={"g": "6"}),
        write_clip(folder / "hevc.ts", images, codec="libx265", tick=Fraction(1, 25),
                   options={"preset": "ultrafast", "x265-params": "keyint=6:log-level=none:pools=none"}),
    ]  # fmt: skip


def mutations(originals: list[Path], count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield the name, the kind of damage and the bytes of `count` mutations, the clips in turn."""
    files = [path.read_bytes() for path in originals]
    for number in range(count):
        path = originals[number % len(originals)]
        kind, data = mutate(files[number % len(files)], files, seed * 1_000_003 + number)
        yield f"{number:05d}{path.suffix}", kind, data


def measure(count: int, seed: int) -> dict[str, Any]:
    """Return the totals of `annotate.py` on mutations.

    `exit` is None where the job hung, and `sound` is true where no error was found. `unreported` are videos with
    frames that were lost, duplicated or misplaced without a report (`frame_accounting`). `shorter` is the number of
    videos that are `ok` without a reason and still have fewer frames than the clip before it was damaged: a stream
    that stores neither its number of frames nor its duration becomes a valid, shorter video when its end is removed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        originals = clips(root / "clips")
        folder = root / "in"
        folder.mkdir()
        kinds = {}
        for name, kind, data in mutations(originals, count, seed):
            (folder / name).write_bytes(data)
            kinds[name] = kind
        save_multimodal(root / "model")
        command = processes.command(
            "annotate", "--input", str(folder), "--checkpoint", str(root / "model"), "--out", str(root / "out"),
            "--set", f"limits.stall_s={_STALL_S}", "--set", f"limits.probe_s={_STALL_S}",
        )  # fmt: skip
        code, seconds = processes.run(command, limit_s=count * _FILE_S)
        totals = _totals(folder, root / "out", kinds)
    sound = code in (0, 3) and not totals["unreported"]
    return {"mutations": count, "seed": seed, "sound": sound, "exit": code, "seconds": seconds, **totals}


def _totals(folder: Path, out: Path, kinds: dict[str, str]) -> dict[str, Any]:
    if not (out / "videos.parquet").exists():
        return {"unreported": {"all": ["no tables"]}}
    records, rows = frame_accounting.read_output(out)
    statuses, reasons, unreported = Counter[str](), Counter[str](), {}
    shorter = 0
    for name, kind in kinds.items():
        record = records.get(name)
        frames, times = rows.get(name, ([], []))
        if record is None:
            unreported[name] = ["no record"]
            continue
        statuses[record["status"]] += 1
        reasons[(record["reason"] or "none").partition(":")[0]] += 1
        if record["status"] == "duplicate":
            continue
        wrong = frame_accounting.complaints(record, frames, times, frame_accounting.read(folder / name))
        if wrong:
            unreported[name] = [kind, *wrong]
        shorter += not record["reason"] and len(frames) < _FRAMES
    return {
        "statuses": dict(sorted(statuses.items())), "reasons": dict(sorted(reasons.items())), "shorter": shorter,
        "attempts": int(max((record["attempts"] or 0 for record in records.values()), default=0)),
        "unreported": unreported,
    }  # fmt: skip
