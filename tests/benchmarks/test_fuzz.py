"""Mutated clips without Ray: each is accounted for; what is not is found out. `bench.py fuzz` takes a thousand through
the job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import alone
import av
import pytest
from clips import decoded_times

from aupipe.benchmarks import conservation, fuzz
from aupipe.benchmarks.mutate import KINDS
from aupipe.commands import bench
from aupipe.errors import SoundLostError
from aupipe.media.audio import audio

SOUND_FAILS = (SoundLostError, av.error.FFmpegError)  # what `sound.leave` turns into a reason


@pytest.mark.unit
def test_every_mutation_is_accounted_for(tmp_path: Path) -> None:
    seen, wrong = set(), {}
    for name, kind, data in fuzz.mutations(fuzz.clips(tmp_path / "clips"), 35, 20):
        path = tmp_path / name
        path.write_bytes(data)
        record, rows = alone.annotate(path, tmp_path / "out")
        frames, times = rows["frame"].to_pylist(), rows["time_s"].to_pylist()
        said = conservation.complaints(record, frames, times, conservation.read(path))
        wrong |= {name: [kind, *said]} if said else {}
        seen.add((kind, path.suffix))
        if record["status"] != "quarantined":
            try:
                assert all(block.samples.shape[1] for block in audio(str(path)))
            except SOUND_FAILS:
                continue
    assert wrong == {}
    assert seen == {(kind, suffix) for kind in KINDS for suffix in (".mp4", ".mkv", ".avi", ".mpg", ".ts")}


@pytest.mark.unit
def test_what_is_not_accounted_for_is_found_out(tmp_path: Path) -> None:
    path = fuzz.clips(tmp_path)[0]
    reading, times = conservation.read(path), decoded_times(path)
    sound: dict[str, Any] = {
        "status": "ok", "reason": "", "frames_expected": 16, "frames_decoded": 16, "frames_lost": 0,
    }  # fmt: skip

    def said(record: dict[str, Any], frames: range | list[int], shown: list[float | None]) -> str:
        return "; ".join(conservation.complaints(record, frames, shown, reading))

    assert said(sound, range(16), [*times]) == ""
    fewer = {**sound, "frames_expected": 15, "frames_decoded": 15}
    assert "plain PyAV decodes 16 frames" in said(fewer, range(15), [*times[:15]])
    assert said({**fewer, "status": "partial", "reason": "truncated: x"}, range(15), [*times[:15]]) == ""
    assert "not documented" in said({**fewer, "status": "partial", "reason": "lost: x"}, range(15), [*times[:15]])
    assert "frame 3 stands at" in said(sound, range(16), [*times[:3], times[3] + 0.0011, *times[4:]])
    assert "do not number" in said(sound, [*range(15), 16], [*times])
    assert "and the status is ok" in said({**sound, "frames_decoded": 15, "frames_lost": 1}, range(16), [*times])
    assert "without a reason" in said({**sound, "status": "quarantined"}, [], [])


@pytest.mark.cluster
@pytest.mark.slow
def test_a_few_through_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["fuzz", "--mutations", "40", "--seed", "3"]) == 0
    tally = json.loads(capsys.readouterr().out)
    assert tally["sound"], tally
    assert sum(tally["statuses"].values()) == 40
