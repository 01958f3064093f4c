"""Packets of short videos: the same rows as video by video, without files of their own, and faults cost one video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from aupipe.annotation import model_set, model_stages, stages
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.inputs import Input, Inputs
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.packets import AnnotatePacket, Packet, PacketResult, plan_packets
from aupipe.annotation.pending import Pending
from aupipe.annotation.probed import Probed
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.stages import Probe, ProbeRequest, ProbeResult
from aupipe.commands.annotate import main
from aupipe.storage import Storage
from harness.clips import scene, write_clip
from harness.faults import fails
from harness.pending import keys, pending

pytestmark = pytest.mark.unit
NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write clips of 1, 12 and 30 frames; the last one has three key frames and two faces."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "a.mp4", scene(1, size=(96, 72), face=64))
    write_clip(folder / "b.mp4", scene(12, size=(96, 72), face=64, seed=1))
    write_clip(folder / "c.mp4", scene(30, size=(240, 100), people=(0.25, 0.75), face=80), options={"g": "10"})
    return folder


def test_packets_write_the_same_rows_and_no_features(clips: Path, checkpoint: str, tmp_path: Path) -> None:
    tables = []
    for frames in (0, 12, 6000):
        out = tmp_path / str(frames)
        command = ["--input", str(clips), "--checkpoint", checkpoint, "--out", str(out), "--set", "segment_s=0.3"]
        assert main([*command, "--set", "engine=local", "--set", f"packet_frames={frames}"]) == 0
        order = [(name, "ascending") for name in ("video_id", "frame", "face_id")]
        videos = pq.read_table(out / "videos.parquet").drop_columns(["work_s"])
        tables.append((pads.dataset(out / "frames").to_table().sort_by(order), videos))
        assert not [path for path in (out / "_work").rglob("*") if path.is_file() and path.parent.name != "ledger"]
    assert tables[0] == tables[1] == tables[2]
    assert len(Ledger.read(Storage(tmp_path / "6000")).entries) == 1
    assert not (tmp_path / "6000" / "_work" / "observed").exists()
    assert (tmp_path / "0" / "_work" / "observed").exists()


@pytest.fixture
def stage(clips: Path, checkpoint: str, tmp_path: Path) -> tuple[AnnotatePacket, Packet, Storage]:
    config, storage = AnnotateConfig(limits={"attempts": 2}), Storage(tmp_path / "out")
    models = model_set.load([checkpoint], "mean")
    keys = CacheKeys(models, config)
    inputs = [Input(str(clips / f"{name}.mp4"), name) for name in NAMES]
    probe = Probe(config, storage)
    results = Probed.of(ProbeResult.from_row(probe(ProbeRequest(video).to_row())) for video in inputs)
    ((packet,), rows) = plan_packets(Pending(Inputs.of(inputs), results.table(), keys), 6000, 1)
    assert rows.tolist() == [0, 1, 2]
    assert Packet.from_row(packet.to_row(), keys) == packet
    return AnnotatePacket(keys, storage), packet, storage


@pytest.mark.parametrize("where", ["decode", "encode", "decide", "commit"])
def test_a_fault_costs_one_video(
    where: str, stage: tuple[AnnotatePacket, Packet, Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    annotate, packet, storage = stage
    if where == "decode":
        monkeypatch.setattr(stages, "extract", fails(stages.extract, lambda segment, *_: segment.video_id == "b"))
    elif where == "encode":
        write = annotate._encode._write
        monkeypatch.setattr(annotate._encode, "_write", fails(write, lambda part, _: part.video_id == "b"))
    elif where == "decide":
        guilty = lambda frames, _: frames["video_id"][0].as_py() == "b"  # noqa: E731
        monkeypatch.setattr(model_stages, "apply_decision", fails(model_stages.apply_decision, guilty))
    else:
        holds = lambda _, frames, *__: "b" in frames["video_id"].to_pylist()  # noqa: E731
        monkeypatch.setattr(model_stages.ledger_entries, "commit", fails(model_stages.ledger_entries.commit, holds))
    result = PacketResult.from_row(annotate(packet.to_row()))
    assert result.video_ids == NAMES
    assert list(result.reasons) == ["b"]
    assert result.reasons["b"].startswith("internal_error: TypeError: a fault of ours (see _logs/")
    assert sorted(Ledger.read(storage).current()) == ["a", "c"]
    assert not storage.names("_work/attempts")


def test_after_a_death_each_video_has_its_own_mark(stage: tuple[AnnotatePacket, Packet, Storage]) -> None:
    """The worker died twice at video b, in the third attempt at the packet it is quarantined alone."""
    annotate, packet, storage = stage
    assert PacketResult.from_row(annotate(packet.to_row())).reasons == {}
    tables = {name: storage.read(name) for name in [*storage.names("frames"), *storage.names("events")]}
    (_, ((key, _),)) = packet.pending["b"]
    for number in (1, 2):
        storage.write(f"_work/attempts/{packet.key}-{number}", b"started")
        storage.write(f"_work/attempts/{key}-{number}", b"startedFatal Python error: Aborted\n")
    result = PacketResult.from_row(annotate(packet.to_row()))
    assert result.reasons == {"b": "worker_died: the worker died in 2 attempts (Aborted)"}
    assert result.spent["a"][1] == 1
    storage.delete_many(storage.names("_work/attempts"))
    assert PacketResult.from_row(annotate(packet.to_row())).reasons == {}
    assert {name: storage.read(name) for name in tables} == tables  # the same names and bytes again


@pytest.mark.parametrize(
    ("frames", "limit", "packets"),
    [
        ([], 6000, []),
        ([10], 0, []),
        ([10], 6000, [1]),
        ([600, 600, 601], 6000, [1, 1]),  # the third is longer than a packet of so few videos
        ([300, 300, 1], 6000, [2, 1]),
        ([0] * 130, 6000, [64, 64, 2]),
        ([900] * 1024, 6000, [4] * 224 + [1] * 128),  # each has 1/256 of all frames, the last ones less
        ([900] * 10_000, 6000, [6] * 1631 + [1] * 214),
        ([100, 101], 100, [1]),
    ],
)
def test_sizes_of_packets(frames: list[int], limit: int, packets: list[int]) -> None:
    planned, rows = plan_packets(pending({f"{number:06d}": count for number, count in enumerate(frames)}), limit, 1)
    assert len(rows) == sum(packets)
    assert [len(packet.pending) for packet in planned] == packets
    assert Packet.from_row(planned[0].to_row(), keys()) == planned[0] if planned else True


def test_frames_that_need_more_memory_are_in_no_packet() -> None:
    videos = pending(dict.fromkeys("abcd", 10))
    videos.frame_px = np.array([0, 3840 * 2160, 7680 * 4320, 2**27])
    packets, rows = plan_packets(videos, 6000, 1)
    assert rows.tolist() == [0, 1]
    assert [video_id for packet in packets for video_id in packet.pending] == ["a", "b"]


def test_small_files_of_one_size_share_a_packet_or_are_in_none() -> None:
    """Equal bytes can only be among them. Files 0, 3 and 4 have one size, with as many frames as fit in no packet."""
    sizes = [0, 1, 2, 0, 0, 1, *[6] * 64, *[70] * 65]
    videos = pending({f"{number:03d}": 2000 if size == 0 else 10 for number, size in enumerate(sizes)})
    videos.is_probed = np.zeros(len(sizes), bool)
    packets, rows = plan_packets(videos, 4000, 1, np.array(sizes))
    assert rows.tolist() == [1, 2, 5, *range(6, 70)]
    of_packets = [{int(video_id) for video_id in packet.pending} for packet in packets]
    assert sorted(map(len, of_packets)) == [3, 64]
    assert {1, 5} <= min(of_packets, key=len)
    assert plan_packets(videos, 6000, 1, np.array(sizes))[1].tolist() == rows.tolist()  # alone with up to 4,000 frames
