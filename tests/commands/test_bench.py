"""Measurements of a clone are loaded from `tests/harness`; an installed aupipe refuses them in one sentence."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from aupipe.commands import bench

pytestmark = pytest.mark.unit

HARNESS = {
    "all", "annotate", "autoscale", "chaos", "conservation", "frame_accounting", "front", "fuzz", "memory",
    "preprocess", "rerun", "scale", "startup",
}  # fmt: skip
PACKAGE = {"alignment", "crop_jitter", "detector_bias", "encode_once", "face_search", "pose", "train"}


def test_every_name_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(bench._MEASURES) == HARNESS | PACKAGE
    for name in bench._MEASURES:
        with pytest.raises(SystemExit) as end:
            bench.main([name, "--help"])
        assert end.value.code == 0
        assert capsys.readouterr().out.startswith("usage: bench.py ")


def test_measurements_of_users_are_in_the_package() -> None:
    for name in PACKAGE - {"alignment"}:
        assert importlib.util.find_spec(f"aupipe.benchmarks.{name}")


@pytest.mark.parametrize("name", sorted(HARNESS))
def test_without_a_clone_a_measurement_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "_TESTS", tmp_path)
    model = ["--checkpoint", "model"] if name in ("autoscale", "chaos", "memory", "rerun") else []
    assert bench.main([name, *model]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"bench.py: {name}: not in an installed aupipe, only in a clone; fix: run")
    assert message.count("\n") == 1


def test_a_case_is_accounted_for_by_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    module = bench._harness("conservation", "video_cases")
    given: list[str] = []
    monkeypatch.setattr(module, "measure", lambda only: given.append(only) or {})
    assert bench.main(["conservation", "--only", "h264"]) == 0
    assert given == ["h264"]
