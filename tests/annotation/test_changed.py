"""A file that is overwritten during a run has no rows until the next run, which annotates it again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from aupipe.annotation.packets import Packet
from aupipe.annotation.runner import LocalRunner
from aupipe.annotation.stages import Row
from aupipe.commands.annotate import main
from harness.clips import scene, write_clip

pytestmark = pytest.mark.unit


def test_an_overwritten_file_is_withdrawn_and_annotated_again(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, out = tmp_path / "in", tmp_path / "out"
    for name in "abc":
        write_clip(archive / f"{name}.mp4", scene(3, size=(96, 72), face=64, seed=ord(name)))
    command = ["--input", str(archive), "--checkpoint", checkpoint, "--out", str(out), "--set", "engine=local"]
    whole = LocalRunner.annotate_packets

    def run(change: str) -> tuple[int, dict[str, str], set[str]]:
        """Annotate; at the end of decoding `change` happens. Return exit code, reasons, and videos with rows."""

        def before_the_end(self: LocalRunner, packets: Sequence[Packet]) -> Iterator[Row]:
            yield from whole(self, packets)
            if change == "touch":
                os.utime(archive / "b.mp4", (1, 1))
            elif change == "delete":
                shutil.rmtree(archive)

        with monkeypatch.context() as patch:
            patch.setattr(LocalRunner, "annotate_packets", before_the_end)
            code = main(command)
        reasons = {row["video_id"]: row["reason"] for row in pq.read_table(out / "videos.parquet").to_pylist()}
        return code, reasons, set(pads.dataset(out / "frames").to_table()["video_id"].to_pylist())

    code, reasons, with_rows = run("touch")
    assert (code, with_rows) == (3, {"a.mp4", "c.mp4"})
    assert reasons["b.mp4"].startswith("changed: ")
    assert reasons["b.mp4"].endswith("b.mp4: it was overwritten during the run")
    assert run("") == (0, dict.fromkeys(("a.mp4", "b.mp4", "c.mp4"), ""), {"a.mp4", "b.mp4", "c.mp4"})
    shutil.rmtree(out)
    assert run("delete") == (0, dict.fromkeys(("a.mp4", "b.mp4", "c.mp4"), ""), {"a.mp4", "b.mp4", "c.mp4"})
