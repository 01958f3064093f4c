"""Mutated clips through annotate: no crash of the job, no hang, and no loss that it does not report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
import pyarrow.parquet as pq
import torch
from pydantic import TypeAdapter

from aupipe.benchmarks import conservation
from aupipe.benchmarks.clips import scene, speaking, write_clip
from aupipe.benchmarks.mutate import mutate
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.models import checkpoint
from aupipe.models.build import ModelConfig, build
from aupipe.models.inputs import InputSpec
from aupipe.storage import Storage

_RUN = "import sys; from aupipe.commands.annotate import main; sys.exit(main(sys.argv[1:]))"
_FRAMES = 16  # of a clip
_STALL_S = 60.0  # of the job's own watchdog
_FILE_S = 20.0  # that a mutation may take on average, before the whole job counts as hanging


def clips(folder: Path) -> list[Path]:
    """Five tiny clips, each of another container and codec."""
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
    """A name, the kind of damage and the bytes of `count` mutations, the clips in turn."""
    files = [path.read_bytes() for path in originals]
    for number in range(count):
        path = originals[number % len(originals)]
        kind, data = mutate(files[number % len(files)], files, seed * 1_000_003 + number)
        yield f"{number:05d}{path.suffix}", kind, data


def measure(count: int, seed: int) -> dict[str, Any]:
    """The tally of `annotate.py` on mutations; `exit` is None where it hung, `sound` where nothing is wrong.

    `unreported` are videos of which frames are lost, doubled or misplaced without a word (`conservation`); `shorter`
    are those that are `ok` without a reason and still have fewer frames than the clip before it was mutated: of a
    stream that neither counts its frames nor tells its length, what a cut leaves is another, shorter video.
    """
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        originals = clips(root / "clips")
        _make_model(root)
        folder, out = root / "in", root / "out"
        folder.mkdir(parents=True)
        kinds = {}
        for name, kind, data in mutations(originals, count, seed):
            (folder / name).write_bytes(data)
            kinds[name] = kind
        command = [sys.executable, "-c", _RUN, "--input", str(folder), "--checkpoint", str(root), "--out", str(out)]
        start = time.monotonic()
        code = _ends(
            [*command, "--set", f"limits.stall_s={_STALL_S}", "--set", f"limits.probe_s={_STALL_S}"], count * _FILE_S
        )
        seconds = time.monotonic() - start
        tally = (
            _tally(folder, out, kinds) if (out / "videos.parquet").exists() else {"unreported": {"all": ["no tables"]}}
        )
    sound = code in (0, 3) and not tally["unreported"]
    return {"mutations": count, "seed": seed, "sound": sound, "exit": code, "seconds": round(seconds, 1), **tally}


def _make_model(folder: Path) -> None:
    """A small model of random weights that sees, uses_audio and looks over time, so that every phase has its share."""
    model = TypeAdapter[Any](ModelConfig).validate_python({
        "name": "multimodal", "backbone": "iresnet_quick", "audio": {"width": 16},
        "sequence": {"frames": 10, "heads": 2, "head_width": 8, "mlp_width": 32, "hidden": 16},
    })  # fmt: skip
    template = tuple((float(x), float(y)) for x, y in ARCFACE_TEMPLATE)
    card = checkpoint.Card(model=model, input=InputSpec(size_px=64), template=template)
    torch.manual_seed(0)
    checkpoint.save(Storage(folder), build(card.model, card.input).eval(), card)


def _ends(command: list[str], limit_s: float) -> int | None:
    """The exit code of a command; None if it had to be ended."""
    run = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    try:
        return run.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)


def _tally(folder: Path, out: Path, kinds: dict[str, str]) -> dict[str, Any]:
    records = {row["video_id"]: row for row in pq.read_table(out / "videos.parquet").to_pylist()}
    rows = pads.dataset(out / "frames").to_table(columns=["video_id", "frame", "time_s"]).to_pandas()
    rows = rows.drop_duplicates(["video_id", "frame"]).sort_values("frame").astype(object).where(rows.notna(), None)
    by_id = dict(tuple(rows.groupby("video_id")))
    statuses, reasons, unreported = Counter[str](), Counter[str](), {}
    shorter = 0
    for name, kind in kinds.items():
        record, mine = records.get(name), by_id.get(name, rows.iloc[:0])
        if record is None:
            unreported[name] = ["no record"]
            continue
        statuses[record["status"]] += 1
        reasons[(record["reason"] or "none").partition(":")[0]] += 1
        if record["status"] == "duplicate":
            continue
        reading = conservation.read(folder / name)
        wrong = conservation.complaints(record, mine.frame.tolist(), mine.time_s.tolist(), reading)
        if wrong:
            unreported[name] = [kind, *wrong]
        shorter += not record["reason"] and len(mine) < _FRAMES
    return {
        "statuses": dict(sorted(statuses.items())), "reasons": dict(sorted(reasons.items())), "shorter": shorter,
        "attempts": int(max((record["attempts"] or 0 for record in records.values()), default=0)),
        "unreported": unreported,
    }  # fmt: skip
