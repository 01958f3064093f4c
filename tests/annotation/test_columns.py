"""Archives in columns: objects come back unchanged at every size of a batch, and a clip takes a bounded memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from aupipe.annotation import inputs as inputs_module
from aupipe.annotation import ledger, ledger_entries, probed, stat_signatures, video_rows
from aupipe.annotation.inputs import FoundInputs, Input, Inputs
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.packets import plan_packets
from aupipe.annotation.pending import Pending
from aupipe.annotation.probed import Probed, to_results
from aupipe.annotation.schema import EVENTS, FRAMES
from aupipe.annotation.segments import Segment
from aupipe.annotation.stages import ProbeResult
from aupipe.annotation.video_record import VideoRecord
from aupipe.annotation.video_rows import LazyList, first_equal, order_of, rows_of, take_rows
from aupipe.annotation.work_plan import plan
from aupipe.errors import ConfigError
from aupipe.media.frames import Span
from aupipe.parquet import read_stored
from aupipe.storage import Storage
from harness.pending import keys, pending
from harness.sizes import sizes

pytestmark = pytest.mark.unit
BATCH = 3


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (video_rows, inputs_module, probed):
        monkeypatch.setattr(module, "BATCH", BATCH)


def clip(number: int) -> Input:
    further = {"speaker": "anna"} if number % 2 else {}
    end_s = 2.5 if number % 3 == 1 else None
    return Input(f"s3://me:secret@in/{number:02d}.mp4", f"{number:02d}.mp4", end_s=end_s, further=further)


def result(number: int) -> ProbeResult:
    """Return a result with `number` segments, the last of which has sampled frames; none at all for 2."""
    video = clip(number)
    if number == 2:
        return ProbeResult(video.video_id, "not_found: 02.mp4")
    spans = [Span(9, True, each, -each, None, (5, 1), None, 12.5 if each else None) for each in range(number)]
    segments = [
        Segment(video.uri, video.video_id, each, 9 * each, None if each == number - 1 else 9 * each + 9, span)
        for each, span in enumerate(spans)
    ]
    segments = [*segments[:-1], *(replace(segment, sampled_frames=(0, 3, 7)) for segment in segments[-1:])]
    record = VideoRecord(
        "s3://in/" + video.video_id, video.video_id, fingerprint=f"f{number}", source_hash=f"f{number}[, 2.5 s)",
        losses=("truncated: 1 s",) * (number % 2), frames_expected=number, duration_s=None, hdr="", remark="odd",
    )  # fmt: skip
    return ProbeResult(video.video_id, record=record, segments=segments)


@pytest.mark.parametrize("count", sizes(BATCH))
def test_inputs_come_back(count: int) -> None:
    expected = [clip(number) for number in range(count)]
    inputs = Inputs.of(expected)
    assert list(inputs) == expected
    assert [video.further for video in inputs] == [video.further for video in expected]
    assert [inputs[number] for number in range(count)] == expected
    assert list(inputs[1:]) == expected[1:]
    assert list(inputs[::2]) == expected[::2]
    assert list(Inputs.of(expected[::-1] + expected).sorted()) == expected
    assert inputs.asked(2.0).to_pylist() == [video.asked(2.0) for video in expected]
    assert inputs.redacted_uris().to_pylist() == [video.uri.replace("me:secret@", "") for video in expected]
    if count:
        with pytest.raises(IndexError):
            inputs[count]
        with pytest.raises(ConfigError, match=f"in/b and s3://in/{count - 1:02}.mp4 would both be video_id"):
            Inputs.of([replace(expected[-1], uri="in/b"), *expected]).sorted()


@pytest.mark.parametrize("count", sizes(BATCH))
def test_files_that_are_found_come_back_in_order(count: int) -> None:
    names = [f"{number:02d}.mp4" for number in range(count)]
    found = FoundInputs()
    found.add_files([f"in/{name}" for name in names], names)
    found.add_all([clip(99)])
    found.add("s3://in/a", "a", "1:etag")
    expected = [
        *((f"in/{name}", name, None) for name in names),
        (clip(99).uri, "99.mp4", None),
        ("s3://in/a", "a", "1:etag"),
    ]
    assert [(each.uri, each.video_id, each.signature) for each in found.inputs()] == expected
    assert {each.refused for each in found.inputs()} == {""}
    assert len(found) == count + 2


@pytest.mark.parametrize("count", sizes(BATCH))
def test_signatures_of_inputs(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stat_signatures, "_FILES_TOGETHER", BATCH)
    listed = [Input(f"{tmp_path}/{number}", str(number)) for number in range(count)]
    for video in listed[::2]:
        Path(video.uri).write_bytes(b"1")
    if listed:
        listed[-1] = replace(listed[-1], signature="1:etag")
        (tmp_path / "pictures").mkdir()
        (tmp_path / "pictures/1.png").write_bytes(b"1")
        listed[0] = replace(listed[0], uri=f"{tmp_path}/pictures/", signature=listed[0].signature)
    signed = [video.signature for video in stat_signatures.with_signatures(Inputs.of(listed))]
    expected = [stat_signatures.stat_signature(video.uri) for video in listed[:-1]] + ["1:etag"] * bool(count)
    assert signed == expected
    assert "" in signed or count < 3


@pytest.mark.parametrize("count", sizes(BATCH))
def test_results_of_probing_come_back(count: int) -> None:
    expected = [result(number) for number in range(count)]
    found = Probed.of(reversed(expected))
    assert found.count == count
    videos = [clip(number) for number in range(count)]
    assert list(to_results(found.table(), videos)) == expected
    further = Probed([found.table()])
    further.add(replace(result(1), video_id="a"))
    assert further.table()["video_id"].to_pylist() == [*(video.video_id for video in videos), "a"]


@pytest.mark.parametrize("count", sizes(BATCH))
def test_videos_by_id(count: int) -> None:
    names = [f"{number:02d}é" for number in range(count)]
    videos = pending({name: number for number, name in enumerate(names)})
    assert list(videos) == names
    assert [record.video_id for record, _ in videos.values()] == names
    assert [(key, record.frames_expected) for key, (record, _) in videos.pairs()] == list(
        zip(names, range(count), strict=True)
    )
    assert ("" in videos, "zz" in videos, None in videos) == (False, False, False)
    with pytest.raises(KeyError):
        videos["zz"]
    for name in names[::2]:
        assert videos.pop(name)[0].video_id == name
        videos.remove(name)
        assert name not in videos
    assert list(videos) == [key for key, _ in videos.pairs()] == names[1::2]
    assert len(videos) == count // 2
    rest = videos.subset(np.arange(count)[::2])
    assert list(rest) == names[::2]


@pytest.mark.parametrize("count", sizes(BATCH))
def test_entries_are_read_in_batches_and_packed(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_entries, "_READ_TOGETHER", BATCH)
    monkeypatch.setattr(ledger, "_ENTRIES_PER_PACK", BATCH)
    storage, expected = Storage(tmp_path), {}
    for number in range(count):
        for name in (f"a{number}", f"b{number}"):
            expected[name] = VideoRecord("u", name, fingerprint=name, source_hash=name, decide_key="k", faces=number)
        records = [expected[f"a{number}"], expected[f"b{number}"]]
        ledger_entries.commit(storage, FRAMES.empty_table(), EVENTS.empty_table(), records, 1 + number, 10)
    before = Ledger.read(storage)
    assert {key: record for key, (record, _) in before.current().items()} == expected
    before.reconcile()
    after = Ledger.read(storage)
    assert dict(after.current()) == dict(before.current())
    assert after.entries == before.entries
    packs = [read_stored(storage, name)["entry"] for name in storage.names("_work/ledger", ".parquet")]
    own = [len(pack.unify_dictionaries().chunk(0).dictionary) for pack in packs]
    # A pack does not name the entries of the others, which are many in a large archive.
    assert sorted(own) == sorted([BATCH] * (count // BATCH) + [count % BATCH] * (count > BATCH and count % BATCH > 0))
    assert len(storage.names("_work/ledger", ".json")) == (count if count < BATCH else 0)


def test_rows_of_texts() -> None:
    ids = pa.array(["b", "a", "b", "ä", "z"])
    assert order_of(ids).tolist() == [1, 0, 2, 4, 3]
    assert first_equal(ids).tolist() == [0, 1, 0, 3, 4]
    assert rows_of(ids[1:], pa.array(["z", "x", "a", None])).tolist() == [3, -1, 0, -1]
    table = pa.table({"a": pa.chunked_array([["x"], ["y", "z"]])})
    for whole in (table, table.combine_chunks()):
        for rows in ([], [0, 1, 2], [2, 0], [1], [1, 2], [0, 0, 2], [0, 2, 1, 2]):
            taken = take_rows(whole, np.array(rows, np.int64))["a"]
            assert taken.to_pylist() == [["x", "y", "z"][row] for row in rows]
            assert taken.num_chunks == 1


def test_a_lazy_list_makes_what_is_asked_for() -> None:
    made: list[int] = []
    numbers = LazyList(4, lambda number: made.append(number) or number)  # type: ignore[func-returns-value]
    assert (numbers[1], numbers[-1], numbers[1:3], len(numbers), made) == (1, 3, [1, 2], 4, [1, 3, 1, 2])
    assert list(numbers) == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        numbers[4]


def test_duplicates_are_found_among_new_and_committed_videos(tmp_path: Path) -> None:
    def video(name: str, content: str) -> ProbeResult:
        record = VideoRecord(name, name, fingerprint=content, source_hash=content, frames_expected=6)
        return ProbeResult(name, record=record)

    storage = Storage(tmp_path)
    record = replace(video("m", "1").record or VideoRecord("", ""), status="ok", head_key="m", decide_key="m d")
    ledger_entries.commit(storage, FRAMES.empty_table(), EVENTS.empty_table(), [record], 1, 10)
    contents = {"a": "1", "b": "2", "c": "2", "m": "3", "n": "3", "o": "4"}
    inputs = Inputs.of(Input(name, name, signature="s") for name in contents)
    results = Probed.of(video(name, content) for name, content in contents.items())
    # Other bytes were found of `m`, so the rows of its former bytes are no longer those of another video.
    work = plan(inputs, Ledger.read(storage), keys(), results)
    assert (list(work.extract), {key: row.duplicate_of for key, row in work.quarantined.items()}) == (
        ["a", "b", "m", "o"], {"c": "b", "n": "m"},
    )  # fmt: skip
    results = Probed.of(video(name, content) for name, content in contents.items() if name != "m")
    work = plan(Inputs.of(v for v in inputs if v.video_id != "m"), Ledger.read(storage), keys(), results)
    assert (list(work.extract), {key: row.duplicate_of for key, row in work.quarantined.items()}) == (
        ["b", "n", "o"], {"a": "m", "c": "b"},
    )  # fmt: skip


def test_a_clip_takes_a_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probed, "BATCH", 4096)
    count, digest = 128, "0123456789abcdef" * 4
    span = Span(75, True, 0, 0, 74, (0,), 0)
    names = [f"clip/{number // 1000:04d}/{number:07d}.mp4" for number in range(count)]
    signature = "1234567:1764350000123456789"
    inputs = Inputs.of(Input(f"s3://archive/in/{name}", name, signature=signature) for name in names)
    records = [
        VideoRecord(
            f"s3://archive/in/{name}", name, fingerprint=digest, source_hash=digest, frames_expected=75,
            duration_s=30.0, rotation=0, variable_frame_rate=False, frame_width=1280, frame_height=720,
            pixel_aspect="1:1", hdr="", track=0, tracks=1, clock_restarts=0, remark="",
        )
        for name in names
    ]  # fmt: skip
    results = Probed.of(
        ProbeResult(name, record=record, segments=[Segment("", name, 0, 0, None, span)])
        for name, record in zip(names, records, strict=True)
    )
    due = Pending(inputs, results.table(), keys())
    packets, _ = plan_packets(due, 6000, 1)
    rows = sum(len(packet.to_row()["videos"]) for packet in packets)
    done = [
        replace(
            record, status="ok", reason="", stat_signature=signature, head_key=digest, decide_key=digest,
            model_sha256=digest, work_s=75.0, attempts=1, faces=1, frames_decoded=75, frames_lost=0, frames_corrupt=0,
        )
        for record in records
    ]  # fmt: skip
    storage = Storage(tmp_path)
    ledger_entries.commit(storage, FRAMES.empty_table(), EVENTS.empty_table(), done, 1, 100)
    bytes_per_clip = {
        "inputs": inputs.table.nbytes / count, "probed": results.table().nbytes / count, "packets": rows / count,
        "ledger": Ledger.read(storage).current().table.nbytes / count,
    }  # fmt: skip
    limits = {"inputs": 160, "probed": 300, "packets": 250, "ledger": 450}
    assert {name: size for name, size in bytes_per_clip.items() if size > limits[name]} == {}
    assert all(size > 10 for size in bytes_per_clip.values())


def test_chained_sequences_are_one() -> None:
    both = video_rows.chained(LazyList(2, str), ["x", "y", "z"])
    assert list(both) == both[:] == ["0", "1", "x", "y", "z"]
    assert (both[-1], both[1], both[2]) == ("z", "1", "x")
    assert list(video_rows.chained([], ["x"])) == list(video_rows.chained(["x"], [])) == ["x"]


class Lengths(video_rows.VideoRows[int]):
    """Videos of which each is the number of its row."""

    def take(self, rows: np.ndarray) -> list[int]:
        return rows.tolist()


def test_removed_videos_are_gone_from_every_view() -> None:
    videos = Lengths(pa.array(list("abcdefgh")))
    videos.remove("c")
    videos.remove("c")
    videos.remove("absent")
    assert videos.pop("f") == 5
    left = dict(zip("abdegh", (0, 1, 3, 4, 6, 7), strict=True))
    assert (len(videos), dict(videos), dict(videos.pairs())) == (6, left, left)
    assert list(videos.pairs(np.array([7, 5, 2, 0]))) == [("h", 7), ("a", 0)]
    assert ("c" in videos, "absent" in videos, None in videos, "a" in videos) == (False, False, False, True)
    with pytest.raises(KeyError):
        videos["f"]


@pytest.mark.parametrize(
    ("row", "source"),
    [({}, "f"), ({"source_hash": ""}, "f"), ({"content": "g"}, "g"), ({"source_hash": "h", "content": "g"}, "h")],
)
def test_records_of_older_versions_have_a_source(row: dict[str, str], source: str) -> None:
    record = VideoRecord.from_row({"uri": "a.mp4", "video_id": "a", "fingerprint": "f", "unknown": 1} | row)
    assert (record.source_hash, record.losses, record.status) == (source, (), None)


def test_records_with_rows() -> None:
    statuses = (None, "ok", "partial", "quarantined", "duplicate")
    assert [VideoRecord("a", "a", status=each).has_rows for each in statuses] == [False, True, True, False, False]
