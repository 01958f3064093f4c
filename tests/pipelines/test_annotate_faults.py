"""An internal error on one input, in any stage, quarantines only that input; the next run retries it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import ray
import torch

from aupipe.annotation import features, ledger, ledger_entries, model_set, model_stages, schema, stages
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.encode import Encoders
from aupipe.annotation.inputs import Input
from aupipe.annotation.model_stages import Encode, Export, ExtractAudio, Finalize, Group
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.stages import Decode, DecodedPart, Probe, ProbeRequest, ProbeResult, SegmentTask
from aupipe.annotation.video_record import VideoRecord
from aupipe.commands.annotate import main
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.pipelines import annotate as on_ray
from aupipe.storage import Storage
from harness.clips import scene, speaking, write_clip
from harness.faults import fails


def traces(storage: Storage) -> list[str]:
    return [storage.read(name).decode() for name in storage.names("_logs")]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "out")


@pytest.fixture(scope="module")
def models(checkpoint: str) -> model_set.ModelSet:
    return model_set.load([checkpoint], "mean")


@pytest.mark.unit
def test_probe(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", scene(6, size=(96, 72), face=64))
    probe = Probe(AnnotateConfig(), storage)
    row = ProbeRequest(Input(str(path), "a")).to_row()
    monkeypatch.setattr(stages, "cut_into_segments", fails(len, lambda *_: True))
    result = ProbeResult.from_row(probe(row))
    assert (result.video_id, result.record, result.segments) == ("a", None, [])
    assert result.reason.startswith("internal_error: TypeError: a fault of ours (see _logs/internal_error-")
    assert len(traces(storage)) == len(storage.names()) == 1  # no mark of an attempt
    monkeypatch.undo()
    result = ProbeResult.from_row(probe(row))
    assert result.record is not None
    assert (result.reason, len(result.segments), result.record.frames_expected) == ("", 1, 6)


@pytest.mark.unit
def test_decode(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts before the failure stay; the last row has the reason."""
    path = write_clip(tmp_path / "a.mp4", scene(6, size=(96, 72), face=64))
    probed = ProbeResult.from_row(Probe(AnnotateConfig(), storage)(ProbeRequest(Input(str(path), "a")).to_row()))
    task = SegmentTask("key", probed.segments[0]).to_row()
    monkeypatch.setattr("aupipe.annotation.extract.PART_CROPS", 2)
    whole = stages.extract

    def broken(*args: Any) -> Iterator[Any]:
        parts = whole(*args)
        yield next(parts)
        raise StopAsyncIteration("a fault of ours")

    monkeypatch.setattr(stages, "extract", broken)
    rows = list(Decode(AnnotateConfig(), storage, ARCFACE_TEMPLATE[None])(task))
    assert [(row["number"], row["last"], bool(row["error"])) for row in rows] == [(0, False, False), (0, True, True)]
    assert rows[-1]["error"].startswith("internal_error: StopAsyncIteration: a fault of ours (see ")
    assert len(traces(storage)) == len(storage.names()) == 1


@pytest.mark.unit
def test_extract_audio(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = speaking(tmp_path / "a.mkv", [np.zeros((32, 32, 3), np.uint8)] * 25, rate_hz=8000)
    row = {"key": "aa", "uri": str(path), "video_id": "a"}
    monkeypatch.setattr("aupipe.annotation.audio_features.decibels", fails(len, lambda *_: True))
    stage = ExtractAudio(AnnotateConfig(), storage)
    assert stage(row)["error"].startswith("internal_error: TypeError: a fault of ours (see ")
    assert len(traces(storage)) == len(storage.names()) == 1
    monkeypatch.undo()
    assert stage(row)["error"] == ""
    assert features.segments(storage)


def part(video_id: str, value: int) -> dict[str, Any]:
    """Return a part of two rows with crops of one gray level."""
    fields = pa.schema([field for field in schema.FEATURES if field.name != "embedding"])
    rows = pa.Table.from_pylist([{"frame": n, "status": "ok"} for n in range(2)], schema=fields)
    return {
        "key": video_id, "video_id": video_id, "error": "", "rows": stages._to_ipc(rows),
        "crops": np.full((2, 1, 112, 112, 3), value, np.uint8).tobytes(), "number": 0, "last": True, "attempts": 1,
        "work_s": 0.0,
    }  # fmt: skip


@pytest.mark.unit
def test_encode(storage: Storage, models: model_set.ModelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crops of one video break the encoder, and the rows of another cannot be written."""
    batch = pa.Table.from_pylist([part("a", 10), part("crops", 200), part("b", 30), part("rows", 40)])
    sound = Storage(f"{storage.root}/sound")
    Encode(models, sound, 3, "cpu")(batch)
    white = lambda _, crops: any(crop.max() == 200 for crop in crops)  # noqa: E731
    monkeypatch.setattr(Encoders, "__call__", fails(Encoders.__call__, white))
    monkeypatch.setattr(model_stages.features, "write", fails(features.write, lambda _, key, *__: key == "rows"))
    done = {row["video_id"]: row for row in Encode(models, storage, 3, "cpu")(batch).to_pylist()}
    assert {key: (row["frames"], row["error"].partition(" (see")[0]) for key, row in done.items()} == {
        "a": (2, ""), "crops": (0, "internal_error: TypeError: a fault of ours"),
        "b": (2, ""), "rows": (0, "internal_error: TypeError: a fault of ours"),
    }  # fmt: skip
    assert list(features.segments(storage)) == ["a", "b"]
    for (name,) in features.segments(storage).values():  # Separately or in one batch, the bits are equal.
        assert storage.read(name) == sound.read(name)
    assert len(traces(storage)) == 2


@pytest.mark.unit
def test_a_broken_device_is_no_inputs_fault(storage: Storage, checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Encoders, "__call__", broken)
    with pytest.raises(torch.AcceleratorError):
        Encode(model_set.load([checkpoint], "mean"), storage, 3, "meta")(
            pa.Table.from_pylist([part("a", 10), part("b", 20)])
        )


def record(video_id: str) -> VideoRecord:
    return VideoRecord(f"{video_id}.mp4", video_id, decide_key="d", fingerprint=video_id, frames_expected=2)


def finalizer(models: model_set.ModelSet, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> tuple[Finalize, Group]:
    """Return the stage, and a group of three extracted videos."""
    names = ["a", "b", "c"]
    Encode(models, storage, 3, "cpu")(pa.Table.from_pylist([part(name, 10) for name in names]))
    group = Group(1, [record(name) for name in names], [features.segments(storage)[name] for name in names], [[]] * 3)
    return Finalize(models, storage, AnnotateConfig(), CacheKeys(models, AnnotateConfig()).decision), group


@pytest.mark.unit
@pytest.mark.parametrize("where", ["decide", "commit"])
def test_finalize(where: str, storage: Storage, models: model_set.ModelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    finalize, group = finalizer(models, storage, monkeypatch)
    if where == "decide":
        guilty = lambda frames, _: frames["video_id"][0].as_py() == "b"  # noqa: E731
        monkeypatch.setattr(model_stages, "apply_decision", fails(model_stages.apply_decision, guilty))
    else:
        holds = lambda _, frames, *__: pc.any(pc.equal(frames["video_id"], "b")).as_py()  # noqa: E731
        monkeypatch.setattr(model_stages.ledger_entries, "commit", fails(ledger_entries.commit, holds))
    result = finalize(group.to_row())
    assert json.loads(result["video_ids"]) == ["a", "b", "c"]
    ((guilty_id, reason),) = json.loads(result["reasons"]).items()
    assert guilty_id == "b"
    assert reason.startswith("internal_error: TypeError: a fault of ours (see ")
    assert sorted(ledger.Ledger.read(storage).current()) == ["a", "c"]
    assert len(traces(storage)) == 1


@pytest.mark.unit
def test_finalize_of_what_is_committed_and_of_nothing_else(
    storage: Storage, models: model_set.ModelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    finalize, group = finalizer(models, storage, monkeypatch)
    assert json.loads(finalize(group.to_row())["reasons"]) == {}
    pairs = list(ledger.Ledger.read(storage).current().values())
    again = Group(2, [replace(each, decide_key="e") for each, _ in pairs], committed=pairs[0][1].frames)
    monkeypatch.setattr(model_stages, "find_events", fails(len, lambda *_: True))
    assert list(json.loads(finalize(again.to_row())["reasons"])) == ["a", "b", "c"]
    current = ledger.Ledger.read(storage).current()
    assert {key: found.decide_key for key, (found, _) in current.items()} == dict.fromkeys("abc", "d")


@pytest.mark.unit
def test_export(storage: Storage, models: model_set.ModelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    finalize, group = finalizer(models, storage, monkeypatch)
    finalize(group.to_row())
    ((_, entry), *_) = ledger.Ledger.read(storage).current().values()
    guilty = lambda _, __, frames, ___: frames["video_id"][0].as_py() == "b"  # noqa: E731
    monkeypatch.setattr(model_stages, "export", fails(model_stages.export, guilty))
    row = model_stages.ExportTask(entry.frames, entry.events, ["a", "b", "c"]).to_row()
    assert list(json.loads(Export(storage, ("csv",))(row)["reasons"])) == ["b"]
    assert storage.names("export") == ["export/csv/a.csv", "export/csv/c.csv"]


OBSERVE, DECIDE, EXPORT = stages.extract, model_stages.apply_decision, model_stages.export


class FaultyDecode(Decode):
    """A stage that raises on one video. Ray reuses the process for other work, so the replaced function is restored."""

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        stages.extract = fails(OBSERVE, lambda segment, *_: segment.video_id == "decode.mp4")
        try:
            yield from super().__call__(row)
        finally:
            stages.extract = OBSERVE


class FaultyEncode(Encode):
    def __init__(self, models: ray.ObjectRef, *more: Any) -> None:
        super().__init__(ray.get(models), *more)

    def _write(self, part: DecodedPart, embeddings: np.ndarray) -> int:
        return fails(super()._write, lambda part, _: part.video_id == "encode.mp4")(part, embeddings)


class FaultyFinalize(Finalize):
    def __init__(self, heads: ray.ObjectRef, *more: Any) -> None:
        super().__init__(ray.get(heads), *more)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        model_stages.apply_decision = fails(DECIDE, lambda frames, _: frames["video_id"][0].as_py() == "finalize.mp4")
        return super().__call__(row)


class FaultyExport(Export):
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        model_stages.export = fails(EXPORT, lambda _, __, frames, ___: frames["video_id"][0].as_py() == "export.mp4")
        try:
            return super().__call__(row)
        finally:
            model_stages.export = EXPORT


def frames_of(out: Path) -> dict[str, list[int]]:
    table = pads.dataset(out / "frames").to_table().to_pandas().sort_values("frame")
    return {name: rows.frame.tolist() for name, rows in table.groupby("video_id")}


@pytest.mark.ray
def test_a_job_does_all_other_videos_and_ends_with_1(
    ray_session: None, exported_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    names = ["decode.mp4", "encode.mp4", "export.mp4", "finalize.mp4", "whole.mp4"]
    for name in names:
        write_clip(tmp_path / "in" / name, scene(10, seed=len(name)), options={"crf": str(20 + names.index(name))})
    out = tmp_path / "out"
    command = [
        "--input",
        str(tmp_path / "in"),
        "--checkpoint",
        exported_checkpoint,
        "--out",
        str(out),
        "--workers",
        "2",
    ]
    command += ["--set", "packet_frames=0"]  # the stages of long videos
    command += ["--export", "csv"]
    monkeypatch.setattr(on_ray, "FINALIZED_HERE", 0)  # as for longer videos
    with monkeypatch.context() as patched:
        for faulty in (FaultyDecode, FaultyEncode, FaultyFinalize, FaultyExport):
            patched.setattr(on_ray, faulty.__name__.removeprefix("Faulty"), faulty)
        assert main(command) == 1
    assert "an error in aupipe (internal_error) affected 4 inputs;" in capsys.readouterr().out
    records = {row["video_id"]: row for row in pq.read_table(out / "videos.parquet").to_pylist()}
    assert {name: row["status"] for name, row in records.items()} == {
        "decode.mp4": "quarantined", "encode.mp4": "quarantined", "export.mp4": "partial",
        "finalize.mp4": "quarantined", "whole.mp4": "ok",
    }  # fmt: skip
    for name in set(names) - {"whole.mp4"}:
        assert records[name]["reason"].startswith("internal_error: TypeError: a fault of ours (see _logs/")
        log = out / records[name]["reason"].partition("(see ")[2].removesuffix(")")
        assert "in faulty" in log.read_text()
    assert frames_of(out) == {name: list(range(10)) for name in ("export.mp4", "whole.mp4")}
    assert [path.name for path in (out / "export" / "csv").iterdir()] == ["whole.mp4.csv"]
    before = pads.dataset(out / "frames").to_table(filter=pads.field("video_id") == "whole.mp4")
    assert main(command) == 0
    assert "30 frames decoded" in capsys.readouterr().out  # of the three quarantined videos
    assert frames_of(out) == {name: list(range(10)) for name in names}
    assert set(pq.read_table(out / "videos.parquet")["status"].to_pylist()) == {"ok"}
    assert pads.dataset(out / "frames").to_table(filter=pads.field("video_id") == "whole.mp4").equals(before)
    assert not list((out / "_logs").iterdir())
    assert len(list((out / "export" / "csv").iterdir())) == 5


@pytest.mark.unit
def test_a_video_that_was_annotated_before_is_withdrawn_and_tried_again(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error only in a new decision withdraws the rows of the old thresholds; the next run writes new ones."""
    for name in ("finalize.mp4", "whole.mp4"):
        write_clip(tmp_path / "in" / name, scene(6, seed=len(name)))
    out = tmp_path / "out"
    command = ["--input", str(tmp_path / "in"), "--checkpoint", checkpoint, "--out", str(out), "--set", "engine=local"]
    assert main(command) == 0
    command += ["--set", "thresholds.AU12=0.0"]
    with monkeypatch.context() as patched:
        guilty = lambda frames, _: frames["video_id"][0].as_py() == "finalize.mp4"  # noqa: E731
        patched.setattr(model_stages, "apply_decision", fails(DECIDE, guilty))
        assert main(command) == 1
    assert frames_of(out) == {"whole.mp4": list(range(6))}
    assert main(command) == 0
    assert frames_of(out) == {name: list(range(6)) for name in ("finalize.mp4", "whole.mp4")}
    assert set(pads.dataset(out / "frames").to_table()["AU12"].to_pylist()) == {True}
