"""Small files are probed by the task that annotates them: the same tables, and each file is probed once."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from aupipe.annotation import ledger_entries, model_set, packets, probe_cache, retry, stages
from aupipe.annotation.annotator import annotate_in_memory
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.inputs import Input, Inputs
from aupipe.annotation.ledger import Committed, Ledger
from aupipe.annotation.packets import AnnotatePacket, Packet, PacketResult
from aupipe.annotation.runner import LocalRunner
from aupipe.annotation.schema import EVENTS, FRAMES
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.small_files import plan_small_files
from aupipe.annotation.stat_signatures import with_signatures
from aupipe.annotation.video_record import VideoRecord
from aupipe.commands.annotate import main
from aupipe.storage import Storage
from harness.clips import scene, write_clip
from harness.pending import keys

pytestmark = pytest.mark.unit
NONE = pa.array([], pa.string())


def signed(*sizes: int, uri: str = "{}.mp4") -> Inputs:
    """Return inputs with these sizes; of the size -1: without a known one."""
    return Inputs.of(
        Input(uri.format(name := f"{number:04d}"), name, signature=f"{size}:7" if size >= 0 else "")
        for number, size in enumerate(sizes)
    )


def committed(storage: Storage, *records: VideoRecord) -> Committed:
    frames, events = FRAMES.empty_table(), EVENTS.empty_table()
    for record in records:
        ledger_entries.commit(storage, frames, events, [replace(record, status="ok")], 1, 10)
    return Ledger.read(storage).current()


@pytest.fixture
def nothing(tmp_path: Path) -> Committed:
    return Ledger(Storage(tmp_path)).current()


def in_packets(inputs: Inputs, done: Committed, probed: pa.Array = NONE) -> list[list[str]]:
    found, estimates = plan_small_files(inputs, probed, done, keys(), 1)
    ids = [packet.pending.ids.to_pylist() for packet in found]
    assert sorted(chain(*ids)) == estimates["video_id"].to_pylist()
    return ids


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([0], ["0000"]),
        ([10_000, 20_000], ["0000 0001"]),
        ([1_500_000, 1_500_001, 10, 20], ["0001", "0000", "0002 0003"]),  # a frame too many for one packet
        ([100, 6_000_000, 7, 100], ["0001", "0000 0003", "0002"]),
        ([20_000_000, 20_000_001], ["0000"]),  # 4000 frames have a packet of their own, 4001 have segments
        ([3_500_000, 1, 3_500_000], ["0000 0002", "0001"]),  # equal sizes are not parted …
        ([11_000_000, 1, 11_000_000], ["0001"]),  # … and too long together
        ([2**28, 2**28 + 1], []),
        ([0] * 66, [" ".join(f"{number:04d}" for number in range(64)), "0064 0065"]),  # they have no twins
        ([-1, 5], ["0001"]),  # a file on disk whose size is unknown cannot be read
    ],
)
def test_files_are_small_by_their_size(sizes: list[int], expected: list[str], nothing: Committed) -> None:
    assert [" ".join(ids) for ids in in_packets(signed(*sizes), nothing)] == expected


@pytest.mark.parametrize(("equal", "small"), [(1, True), (63, True), (64, True), (65, False), (128, False)])
def test_many_files_of_one_size_are_probed_before(equal: int, small: bool, nothing: Committed) -> None:
    found = in_packets(signed(*[5] * equal, 6), nothing)
    assert sum(map(len, found)) == (equal + 1 if small else 1)
    assert max(map(len, found)) == min(equal + 1, 64) if small else 1


def test_what_may_have_committed_bytes_is_probed_before(tmp_path: Path) -> None:
    inputs = signed(1, 2, 3, 3, 4, 5)
    done = committed(
        Storage(tmp_path),
        VideoRecord("x.mp4", "x", fingerprint="f", stat_signature="2:9"),
        VideoRecord("0002.mp4", "0002", fingerprint="g", stat_signature="77:9"),  # it has changed
    )
    assert in_packets(inputs, done) == [["0000", "0004", "0005"]]  # 0003 has the size of 0002
    assert in_packets(inputs, done, pa.array(["0004"])) == [["0000", "0005"]]


def test_a_file_on_a_server_without_a_size_could_be_any(nothing: Committed, tmp_path: Path) -> None:
    inputs = signed(1, 2, uri="s3://b/{}.mp4")
    assert in_packets(inputs, nothing) == [["0000", "0001"]]
    assert in_packets(signed(1, -1, uri="s3://b/{}.mp4"), nothing) == []
    assert in_packets(signed(1, -1, uri="s3://b/{}/"), nothing) == [["0000"]]  # a folder of images
    done = committed(Storage(tmp_path), VideoRecord("http://h/x.mp4", "x", fingerprint="f"))
    assert in_packets(inputs, done) == []


def test_an_image_is_one_frame(nothing: Committed) -> None:
    _, estimates = plan_small_files(signed(10**6, 10**6 + 1, uri="{}.JPG"), NONE, nothing, keys(), 1)
    assert estimates["frames_expected"].to_pylist() == [1, 1]


def test_estimates_are_in_one_piece(nothing: Committed) -> None:
    """Otherwise each packet combines the columns of all files: 4 ms a packet of a million files."""
    found, estimates = plan_small_files(signed(10**6, 10**6 + 1), NONE, nothing, keys(), 1)
    assert len(found)
    assert all(column.num_chunks == 1 for column in estimates.itercolumns())


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write clips, two with the same bytes, one of the same size with other bytes, and one that is no video."""
    folder = tmp_path_factory.mktemp("archive")
    write_clip(folder / "a.mp4", scene(7, size=(96, 72), face=64))
    shutil.copy(folder / "a.mp4", folder / "e.mp4")
    data = (folder / "a.mp4").read_bytes()
    (folder / "b.mp4").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (folder / "c.mp4").write_bytes(b"no video")
    write_clip(folder / "d.mp4", scene(30, size=(240, 100), people=(0.25, 0.75), face=80), options={"g": "10"})
    return folder


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each file is probed."""
    counted: Counter[str] = Counter()
    probe = stages.probe

    def counting(uri: str, *others: object) -> object:
        counted[Path(uri).name] += 1
        return probe(uri, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(stages, "probe", counting)
    return counted


def tables(out: Path) -> tuple[pa.Table, list[dict[str, object]]]:
    order = [(name, "ascending") for name in ("video_id", "frame", "face_id")]
    videos = pq.read_table(out / "videos.parquet").drop_columns(["work_s"])
    return pads.dataset(out / "frames").to_table().sort_by(order), videos.to_pylist()


@pytest.mark.parametrize(("room", "left"), [(2000, 0), (36, 1), (10, 2), (0, 3)])
def test_the_tables_are_those_of_files_that_are_probed_before(
    room: int, left: int, archive: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    probes: Counter[str],
) -> None:  # fmt: skip
    command = ["--input", str(archive), "--checkpoint", checkpoint, "--set", "engine=local", "--set", "segment_s=0.3"]
    assert main([*command, "--out", f"{tmp_path}/before", "--set", "packet_frames=0"]) == 3
    probes.clear()
    whole, sizes = LocalRunner.annotate_packets, list[int]()

    def recorded(self: LocalRunner, planned: list[Packet]) -> Iterator[stages.Row]:
        for row in whole(self, planned):
            sizes.append(len(PacketResult.from_row(row).left))
            yield row

    monkeypatch.setattr(LocalRunner, "annotate_packets", recorded)
    monkeypatch.setattr(packets, "_ALONE_FRAMES", room)
    if room < 2000:  # The files are then longer than estimated.
        monkeypatch.setattr(Packet, "frames", 1)
    assert main([*command, "--out", f"{tmp_path}/small"]) == 3
    assert probes == dict.fromkeys(["a.mp4", "b.mp4", "d.mp4", "e.mp4"], 1)
    assert sizes[0] - 1 == left  # the twin is left as well
    assert tables(tmp_path / "small") == tables(tmp_path / "before")
    statuses = {row["video_id"]: (row["status"], row["duplicate_of"]) for row in tables(tmp_path / "small")[1]}
    assert statuses == {
        "a.mp4": ("ok", None), "b.mp4": ("ok", None), "c.mp4": ("quarantined", None), "d.mp4": ("ok", None),
        "e.mp4": ("duplicate", "a.mp4"),
    }  # fmt: skip
    probes.clear()
    assert main([*command, "--out", f"{tmp_path}/small"]) == 3
    assert not probes["a.mp4"]


def test_what_is_left_is_not_probed_again_after_a_kill(
    archive: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probes: Counter[str]
) -> None:
    command = ["--input", str(archive / "d.mp4"), "--checkpoint", checkpoint, "--out", str(tmp_path)]
    command += ["--set", "engine=local"]

    whole, calls = LocalRunner.annotate_packets, list[int]()

    def killed(self: LocalRunner, planned: list[Packet]) -> Iterator[stages.Row]:
        calls.append(len(planned))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, planned)

    with monkeypatch.context() as patch:
        patch.setattr(packets, "_ALONE_FRAMES", 10)
        patch.setattr(Packet, "frames", 1)
        patch.setattr(LocalRunner, "annotate_packets", killed)
        assert main(command) == 130
    assert probes == {"d.mp4": 1}
    assert main(command) == 0
    assert probes == {"d.mp4": 1}
    assert not Storage(tmp_path).names(probe_cache._FOLDER)


def test_a_death_is_traced_to_its_file(archive: Path, checkpoint: str, tmp_path: Path) -> None:
    """The worker died three times while it probed d, then d is quarantined alone."""
    config, storage = AnnotateConfig(limits={"attempts": 2}), Storage(tmp_path)
    of_job = CacheKeys(model_set.load([checkpoint], "mean"), config)
    names = ["a", "d"]
    inputs = with_signatures(Inputs.of(Input(str(archive / f"{name}.mp4"), name) for name in names))
    ((packet,), _) = plan_small_files(inputs, NONE, Ledger(storage).current(), of_job, 1)
    annotate, mark = AnnotatePacket(of_job, storage), stages.content_hash("probe", str(archive / "d.mp4"))
    for number in (1, 2):
        storage.write(f"_work/attempts/{packet.key}-{number}", b"started")
        storage.write(f"_work/attempts/{mark}-{number}", b"startedFatal Python error: Aborted\n")
    result = PacketResult.from_row(annotate(packet.to_row()))
    assert (result.reasons, result.unread) == ({}, {"d": "worker_died: the worker died in 2 attempts (Aborted)"})
    assert (result.video_ids, list(result.spent), result.left, result.twins) == (names, ["a"], [], {})
    assert sorted(Ledger.read(storage).current()) == ["a"]


def test_a_file_that_is_overwritten_has_the_facts_of_what_was_read(
    archive: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(archive, tmp_path / "in")
    whole = LocalRunner.annotate_packets

    def overwritten(self: LocalRunner, planned: list[Packet]) -> Iterator[stages.Row]:
        yield from whole(self, planned)
        (tmp_path / "in/d.mp4").write_bytes(b"other")

    monkeypatch.setattr(LocalRunner, "annotate_packets", overwritten)
    command = ["--input", str(tmp_path / "in"), "--checkpoint", checkpoint, "--out", str(tmp_path / "out")]
    assert main([*command, "--set", "engine=local"]) == 3
    record = {row["video_id"]: row for row in pq.read_table(tmp_path / "out/videos.parquet").to_pylist()}["d.mp4"]
    assert record["reason"].startswith("changed: ")
    assert (record["status"], record["frame_width"], record["frames_decoded"]) == ("quarantined", 240, None)


def test_what_cannot_be_extracted_later_is_listed_if_the_run_is_interrupted(
    archive: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mp4", "d.mp4"):
        shutil.copy(archive / name, tmp_path / name)
    whole, calls = LocalRunner.annotate_packets, list[int]()

    def interrupted(self: LocalRunner, planned: list[Packet]) -> Iterator[stages.Row]:
        calls.append(len(planned))
        if len(calls) == 2:
            (tmp_path / "a.mp4").unlink()
            yield from list(whole(self, planned))[:1]
            raise KeyboardInterrupt
        yield from whole(self, planned)

    monkeypatch.setattr(LocalRunner, "annotate_packets", interrupted)
    monkeypatch.setattr(packets, "_ALONE_FRAMES", 0)
    monkeypatch.setattr(Packet, "frames", 0)
    command = ["--input", str(tmp_path), "--checkpoint", checkpoint, "--out", str(tmp_path / "out")]
    assert main([*command, "--set", "engine=local"]) == 130
    records = {row["video_id"]: row["reason"] for row in pq.read_table(tmp_path / "out/videos.parquet").to_pylist()}
    assert records["a.mp4"].startswith("not_found: ")


def test_a_file_is_probed_in_the_time_that_probing_may_take(
    archive: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, storage = AnnotateConfig(limits={"stall_s": 7, "probe_s": 77}), Storage(tmp_path)
    of_job = CacheKeys(model_set.load([checkpoint], "mean"), config)
    inputs = with_signatures(Inputs.of([Input(str(archive / "d.mp4"), "d")]))
    ((packet,), _) = plan_small_files(inputs, NONE, Ledger(storage).current(), of_job, 1)
    limits: list[float | None] = []
    resume = retry.Watchdog.resume

    def recorded(self: retry.Watchdog, stall_s: float | None = None) -> None:
        limits.append(stall_s)
        resume(self, stall_s)

    monkeypatch.setattr(retry.Watchdog, "resume", recorded)
    AnnotatePacket(of_job, storage)(packet.to_row())
    assert [limit for limit in limits if limit is not None] == [77, 7]


@pytest.mark.parametrize("videos", [0, 1, 63, 64, 65, 128])
def test_packets_have_each_file_once(videos: int, nothing: Committed) -> None:
    inputs = signed(*np.random.default_rng(videos).integers(0, 9_000_000, videos).tolist())
    assert sorted(chain(*in_packets(inputs, nothing))) == inputs.ids.to_pylist()


def test_an_archive_in_memory_is_annotated_without_its_twins(archive: Path, checkpoint: str) -> None:
    inputs = [Input(str(archive / f"{name}.mp4"), name) for name in "ae"]
    found = annotate_in_memory(inputs, model_set.load([checkpoint], "mean"), AnnotateConfig())
    assert [row["status"] for row in found.videos.to_pylist()] == ["ok", "duplicate"]
    assert set(found.frames["video_id"].to_pylist()) == {"a"}
