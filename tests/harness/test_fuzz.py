"""Damaged clips without Ray: frame accounting passes for each of them, and finds errors in wrong annotations.

`bench.py fuzz` runs a thousand of them through the job.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import pytest

from aupipe.commands import bench
from aupipe.errors import AudioLostError
from aupipe.media.audio import audio
from harness import frame_accounting, fuzz, single_process
from harness.clips import decoded_times
from harness.mutate import KINDS

AUDIO_ERRORS = (AudioLostError, av.error.FFmpegError)  # errors that `write_log_mel` turns into a reason


@pytest.mark.unit
def test_every_mutation_is_accounted_for(tmp_path: Path) -> None:
    damaged: set[tuple[str, str]] = set()
    wrong: dict[str, list[str]] = {}
    for name, kind, data in fuzz.mutations(fuzz.clips(tmp_path / "clips"), 35, 20):
        path = tmp_path / name
        path.write_bytes(data)
        record, rows = single_process.annotate(path, tmp_path / "out")
        frames, times = rows["frame"].to_pylist(), rows["time_s"].to_pylist()
        complaints = frame_accounting.complaints(record, frames, times, frame_accounting.read(path))
        wrong |= {name: [kind, *complaints]} if complaints else {}
        damaged.add((kind, path.suffix))
        if record["status"] != "quarantined":
            try:
                assert all(block.samples.shape[1] for block in audio(str(path)))
            except AUDIO_ERRORS:
                continue
    assert wrong == {}
    assert damaged == {(kind, suffix) for kind in KINDS for suffix in (".mp4", ".mkv", ".avi", ".mpg", ".ts")}


@pytest.mark.unit
def test_wrong_annotations_are_found(tmp_path: Path) -> None:
    path = fuzz.clips(tmp_path)[0]
    reading, times = frame_accounting.read(path), decoded_times(path)
    correct: dict[str, Any] = {
        "status": "ok", "reason": "", "frames_expected": 16, "frames_decoded": 16, "frames_lost": 0,
    }  # fmt: skip

    def complaints(record: dict[str, Any], frames: range | list[int], times: list[float | None]) -> str:
        return "; ".join(frame_accounting.complaints(record, frames, times, reading))

    assert complaints(correct, range(16), [*times]) == ""
    fewer = {**correct, "frames_expected": 15, "frames_decoded": 15}
    assert "plain PyAV decodes 16 frames" in complaints(fewer, range(15), [*times[:15]])
    assert complaints({**fewer, "status": "partial", "reason": "truncated: x"}, range(15), [*times[:15]]) == ""
    assert "not documented" in complaints({**fewer, "status": "partial", "reason": "lost: x"}, range(15), [*times[:15]])
    assert "frame 3 is at" in complaints(correct, range(16), [*times[:3], times[3] + 0.0011, *times[4:]])
    assert "do not number" in complaints(correct, [*range(15), 16], [*times])
    assert "and the status is ok" in complaints(
        {**correct, "frames_decoded": 15, "frames_lost": 1}, range(16), [*times]
    )
    assert "without a reason" in complaints({**correct, "status": "quarantined"}, [], [])


@pytest.mark.cluster
@pytest.mark.slow
def test_a_few_through_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["fuzz", "--mutations", "40", "--seed", "3"]) == 0
    totals = json.loads(capsys.readouterr().out)
    assert totals["sound"], totals
    assert sum(totals["statuses"].values()) == 40
