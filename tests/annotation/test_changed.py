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


@pytest.mark.parametrize("content", ["video", "text"])
def test_a_duplicate_of_an_overwritten_file_claims_no_rows(content: str, checkpoint: str, tmp_path: Path) -> None:
    out, command = tmp_path / "out", ["--checkpoint", checkpoint, "--set", "engine=local"]
    for name, count in (("a.mp4", 3), ("other.mp4", 5)):
        write_clip(tmp_path / name, scene(count, size=(96, 72), face=64))
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")

    def run(*named: str) -> tuple[str, str, str | None]:
        """Annotate files. Return status, reason and first video of b.mp4."""
        main([*(str(tmp_path / name) for name in named), "--out", str(out), *command])
        (b,) = [row for row in pq.read_table(out / "videos.parquet").to_pylist() if row["video_id"] == "b.mp4"]
        return b["status"], b["reason"], b["duplicate_of"]

    duplicate = ("duplicate", "duplicate: same bytes as a.mp4", "a.mp4")
    assert run("a.mp4", "b.mp4") == duplicate
    assert run("other.mp4") == run("a.mp4") == duplicate
    (tmp_path / "a.mp4").rename(tmp_path / "away.mp4")
    assert run("a.mp4", "other.mp4") == duplicate  # The rows of a.mp4 are kept.
    if content == "video":
        write_clip(tmp_path / "a.mp4", scene(4, size=(96, 72), face=64, seed=5))
    else:
        (tmp_path / "a.mp4").write_text("no video")
    for named in ("a.mp4", "other.mp4"):
        status, reason, first = run(named)
        assert (status, first) == ("quarantined", None)
        assert reason.startswith("changed: a.mp4, whose rows were those of this file too, has other bytes or ")
    assert run("b.mp4") == ("ok", "", None)
    ids = pads.dataset(out / "frames").to_table()["video_id"].to_pylist()
    assert ids.count("b.mp4") == 3
