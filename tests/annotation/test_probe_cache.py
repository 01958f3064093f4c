"""Results of probing: those of a killed run are used by the next one, unless the file or the settings changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from aupipe.annotation import phases, probe_cache
from aupipe.annotation.inputs import Input, Inputs
from aupipe.annotation.probe_cache import ProbeCache
from aupipe.annotation.probed import Probed, to_results
from aupipe.annotation.runner import LocalRunner
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.stages import Probe, ProbePacket, ProbeRequest, ProbeResult, Row
from aupipe.annotation.video_record import VideoRecord
from aupipe.commands.annotate import main
from aupipe.errors import AupipeError
from aupipe.faces.search import SearchConfig
from aupipe.storage import Storage
from harness.clips import scene, write_clip
from harness.pending import run

pytestmark = pytest.mark.unit


def test_a_killed_run_keeps_its_results(checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        write_clip(tmp_path / "in" / f"{number}.mp4", scene(3, size=(96, 72), face=64, seed=number))
    (tmp_path / "in" / "0.mp4").write_text("no video")
    out = tmp_path / "out"
    command = ["--input", str(tmp_path / "in"), "--checkpoint", checkpoint, "--out", str(out)]
    command += ["--set", "engine=local", "--set", "packet_frames=0"]
    probed: list[int] = []
    probe = LocalRunner.probe

    def interrupted(self: LocalRunner, rows: Sequence[Row]) -> Iterator[Row]:
        for number, row in enumerate(probe(self, rows)):
            if number == stop:
                raise KeyboardInterrupt
            probed.append(number)
            yield row

    monkeypatch.setattr(LocalRunner, "probe", interrupted)
    monkeypatch.setattr(probe_cache, "_WRITE_VIDEOS", 1)
    stop = 3
    assert main(command) == 130
    assert len(probed) == 3
    probed.clear()
    stop = 99
    assert main(command) == 3
    assert len(probed) == 3  # the one that is no video, and the two that were not probed
    assert not list((out / "_work" / "probed").iterdir())
    probed.clear()
    assert main(command) == 3
    assert len(probed) == 1


def test_the_key_covers_the_file_and_the_settings(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", scene(3, size=(96, 72), face=64))
    video, storage, config = Input(str(path), "a"), Storage(tmp_path / "out"), AnnotateConfig()
    result = ProbeResult.from_row(Probe(config, storage)(ProbeRequest(video).to_row()))
    cache = ProbeCache(storage, config)
    cache.add(replace(video, signature="1:2"), result)
    cache.write()

    def found(video: Input = video, config: AnnotateConfig = config, signature: str = "1:2") -> ProbeResult | None:
        table = ProbeCache(storage, config).read(Inputs.of([replace(video, signature=signature)])).table()
        return next(to_results(table, [video] * len(table)), None)

    assert found() == result
    assert found(signature="1:3") is None
    assert found(signature="") is None
    assert found(Input(str(path), "a", end_s=1.0)) is None
    assert found(config=AnnotateConfig(segment_s=3)) is None
    assert found(config=AnnotateConfig(search=SearchConfig(every=3))) is None
    assert found(config=AnnotateConfig(batch_size=3)) == result
    probe_cache.delete_all(storage)
    assert found() is None


def test_a_file_without_a_signature_is_not_kept(tmp_path: Path) -> None:
    cache = ProbeCache(Storage(tmp_path), AnnotateConfig())
    cache.add(Input("a.mp4", "a", signature=""), ProbeResult("a", record=VideoRecord("a.mp4", "a", fingerprint="f")))
    cache.write()
    assert Storage(tmp_path).names() == []


class Packets:
    """A runner that probes in packets with a limit in time."""

    def __init__(self, probe: Callable[[Row], Row], budget_s: float) -> None:
        self.stage, self.calls = ProbePacket(probe, budget_s), 0  # type: ignore[arg-type]

    def probe(self, rows: Sequence[Row]) -> Iterator[Row]:
        self.calls += 1
        for row in ProbePacket.rows(rows, 3):
            yield from self.stage(row)


@pytest.mark.parametrize(("budget_s", "calls"), [(60.0, 1), (0.0, 4)])
def test_packets_end_early_and_the_rest_is_probed_again(budget_s: float, calls: int, tmp_path: Path) -> None:
    inputs = Inputs.of(Input(f"{name}.mp4", name, signature="") for name in "abcdefg")
    results = Probed()
    runner = Packets(lambda row: ProbeResult(ProbeRequest.from_row(row).video.video_id).to_row(), budget_s)
    phases.probe(run(runner, Storage(tmp_path)), inputs, results)
    assert results.table()["video_id"].to_pylist() == list("abcdefg")
    assert runner.calls == calls


def test_a_runner_without_results_ends_the_job(tmp_path: Path) -> None:
    class Nothing:
        def probe(self, rows: Sequence[Row]) -> list[Row]:
            return []

    with pytest.raises(AupipeError, match="no result for 1 inputs"):
        phases.probe(run(Nothing(), Storage(tmp_path)), Inputs.of([Input("a.mp4", "a")]), Probed())
