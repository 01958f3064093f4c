"""Planning: an input that needs no work gets none, batches are bounded, and postponed work stays listed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from aupipe.annotation import ledger_entries, schema
from aupipe.annotation.inputs import Input, Inputs
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.probed import Probed
from aupipe.annotation.segments import Segment
from aupipe.annotation.stages import DecodedPart, ProbeRequest, ProbeResult, SegmentTask
from aupipe.annotation.video_record import VideoRecord
from aupipe.annotation.work_plan import WorkList, plan
from aupipe.errors import ConfigError
from aupipe.media.frames import Span
from aupipe.storage import Storage
from harness.pending import keys, pending, work_list

pytestmark = pytest.mark.unit

SEGMENT = Segment("a.mp4", "a", 0, 0, None, Span(6, True), (0, 2))
A, B = Input("a.mp4", "a"), Input("b.mp4", "b")


def signed(signature: str, *inputs: Input) -> Inputs:
    """Return the inputs, by default A, with this signature."""
    return Inputs.of(replace(video, signature=signature) for video in inputs or (A,))


def probed(video_id: str, fingerprint: str) -> ProbeResult:
    record = VideoRecord(f"{video_id}.mp4", video_id, fingerprint=fingerprint, source_hash=fingerprint)
    return ProbeResult(video_id, record=record, segments=[SEGMENT])


def assert_due(work: WorkList, **expected: list[str]) -> None:
    """Compare the videos of each kind of work but `quarantined`."""
    found = {
        "unchanged": list(work.unchanged), "decide": list(work.decide), "extract": list(work.extract),
        "to_probe": [video.video_id for video in work.to_probe],
    }  # fmt: skip
    assert {name: ids for name, ids in found.items() if ids} == expected


def commit(storage: Storage, *records: VideoRecord) -> Ledger:
    frames, events = schema.FRAMES.empty_table(), schema.EVENTS.empty_table()
    ledger_entries.commit(storage, frames, events, [replace(record, status="ok") for record in records], 1, 10)
    return Ledger.read(storage)


@pytest.fixture
def committed(tmp_path: Any) -> Ledger:
    """Commit the video `a`."""
    work = plan(signed("s"), Ledger(Storage(tmp_path)), keys(), Probed.of([probed("a", "f")]))
    return commit(Storage(tmp_path), work.extract["a"][0])


def test_a_new_input_is_probed_then_extracted(tmp_path: Any) -> None:
    empty = Ledger(Storage(tmp_path))
    assert_due(plan(signed("s"), empty, keys()), to_probe=["a"])
    work = plan(signed("s"), empty, keys(), Probed.of([probed("a", "f")]))
    record, segments = work.extract["a"]
    assert segments == [("f.0", SEGMENT)]
    assert (record.head_key, record.decide_key, record.stat_signature) == ("m", "m d", "s")
    assert_due(work, extract=["a"])


def test_completed_work_is_not_repeated(committed: Ledger) -> None:
    assert_due(plan(signed("s"), committed, keys()), unchanged=["a"])
    work = plan(signed("s"), committed, keys(decision="e"))
    assert_due(work, decide=["a"])
    assert (work.decide["a"][0].decide_key, committed.current()["a"][0].decide_key) == ("m e", "m d")
    assert_due(plan(signed("s"), committed, keys(model="n")), to_probe=["a"])
    again = plan(signed("s"), committed, keys(model="n"), Probed.of([probed("a", "f")]))
    assert_due(again, extract=["a"])  # no duplicate of its own rows
    part = replace(A, end_s=1.0)
    assert_due(plan(signed("s", part), committed, keys()), to_probe=["a"])
    assert_due(plan(signed("s", replace(A, uri="b.mp4")), committed, keys()), to_probe=["a"])


@pytest.mark.parametrize("signature", ["t", ""])
def test_a_touched_file_is_probed_and_its_bytes_decide(signature: str, committed: Ledger) -> None:
    assert_due(plan(signed(signature), committed, keys()), to_probe=["a"])
    assert list(plan(signed(signature), committed, keys(), Probed.of([probed("a", "f")])).unchanged) == ["a"]
    (record, _) = plan(signed(signature), committed, keys(decision="e"), Probed.of([probed("a", "f")])).decide["a"]
    assert record.stat_signature == signature
    assert list(plan(signed(signature), committed, keys(), Probed.of([probed("a", "g")])).extract) == ["a"]


def test_only_files_that_were_touched_or_moved_are_renewed(committed: Ledger) -> None:
    results, moved = Probed.of([probed("a", "f")]), replace(A, uri="moved/a.mp4")
    ids = [
        [video.video_id for video in plan(inputs, committed, keys(), results).touched]
        for inputs in (signed("s"), signed("t"), signed("s", moved), signed(""))
    ]
    assert ids == [[], ["a"], ["a"], ["a"]]
    assert not plan(signed("t"), committed, keys(decision="e"), results).touched  # its record is written anyway
    assert not plan(signed("t"), committed, keys(), Probed.of([probed("a", "g")])).touched


def test_a_video_that_fails_after_its_commit_has_no_counts_of_rows(tmp_path: Any) -> None:
    counts = {"frames_decoded": 5, "frames_lost": 1, "frames_corrupt": 2, "faces": 3}
    a, b = (VideoRecord(f"{name}.mp4", name, fingerprint=name, frames_expected=6, **counts) for name in "ab")
    work = work_list(pending({}))
    work.quarantine_committed({"a": "changed: it was replaced", "c": "x: y"}, commit(Storage(tmp_path), a, b).current())
    (record,) = work.quarantined.values()
    assert record == VideoRecord(
        "a.mp4", "a", fingerprint="a", source_hash="a", frames_expected=6, status="quarantined",
        reason="changed: it was replaced",
    )  # fmt: skip


def test_the_plan_of_some_videos_is_added() -> None:
    work, other = work_list(pending(dict.fromkeys("abc", 3))), work_list(pending({"b": 3}))
    other.quarantine({"b": "x: y"})
    other.work_s = 2.0
    work.add(other)
    assert (list(work.extract), list(work.quarantined), work.work_s) == (["a", "c"], ["b"], 2.0)


def test_duplicates_refusals_and_failed_probes_are_quarantined(committed: Ledger) -> None:
    refused = Input("c.mp4", "c", refused="bad_range: no")
    results = Probed.of([probed("b", "f"), ProbeResult("d", "not_found: d.mp4")])
    inputs = signed("s", A, B, refused, Input("d.mp4", "d"))
    work = plan(inputs, committed, keys(), results)
    assert_due(work, unchanged=["a"])
    assert {key: (row.status, row.reason) for key, row in work.quarantined.items()} == {
        "b": ("duplicate", "duplicate: same bytes as a"), "c": ("quarantined", "bad_range: no"),
        "d": ("quarantined", "not_found: d.mp4"),
    }  # fmt: skip


@pytest.mark.parametrize("changed", [{"decision": "e"}, {"model": "n"}])
def test_a_copy_has_rows_of_its_own_where_those_of_the_first_are_made_otherwise(
    changed: dict[str, str], committed: Ledger
) -> None:
    """The first one is no input of the run, so it keeps its rows."""
    inputs, results = signed("s", B), Probed.of([probed("b", "f")])
    assert plan(inputs, committed, keys(), results).quarantined["b"].duplicate_of == "a"
    assert_due(plan(inputs, committed, keys(**changed), results), extract=["b"])
    both = plan(signed("s", A, B), committed, keys(**changed), Probed.of([probed("a", "f"), probed("b", "f")]))
    assert both.quarantined["b"].duplicate_of == "a"
    moved = Probed.of([ProbeResult("a", "not_found: a.mp4"), probed("b", "f")])  # its former rows are kept
    assert list(plan(signed("t", A, B), committed, keys(**changed), moved).extract) == ["b"]
    assert plan(signed("t", A, B), committed, keys(), moved).quarantined["b"].duplicate_of == "a"


def test_another_video_with_the_same_id_is_rejected(committed: Ledger) -> None:
    moved = probed("a", "g")
    assert moved.record is not None
    result = replace(moved, record=replace(moved.record, uri="x/a.mp4"))
    with pytest.raises(ConfigError, match="would be video_id 'a'"):
        plan(signed("s", Input("x/a.mp4", "a")), committed, keys(), Probed.of([result]))


def test_requests_and_results_survive_a_row() -> None:
    for request in (ProbeRequest(Input("a", "a", 1.0, 2.0)), probed("a", "f"), ProbeResult("a", "x: y")):
        assert type(request).from_row(request.to_row()) == request
    assert SegmentTask.from_row(SegmentTask("k", SEGMENT).to_row()).key == "k"
    part = DecodedPart("k", "a", 1, False, b"r", b"c", 2, 0.5)
    assert [DecodedPart.from_row(row) for row in pa.Table.from_pylist([part.to_row()]).to_pylist()] == [part]


def test_batches_are_bounded_and_complete() -> None:
    frames = {"a": 400, "b": 400, "c": 5000, "d": 300, "e": 300, "f": 300}
    work = work_list(pending(frames))
    batches = work.disk_bounded_batches(1000 * 200, embed_dim=25)  # 200 bytes per frame
    assert [[key for key, _ in work.extract.pairs(batch)] for batch in batches] == [["a", "b"], ["c"], ["d", "e", "f"]]
    assert work_list(pending({})).disk_bounded_batches(1000, embed_dim=25) == []


def test_postponed_and_quarantined_videos_are_listed_once() -> None:
    work = work_list(pending(dict.fromkeys("abc", 3)))
    work.add_spent({"a": (1.5, 2)})
    work.add_spent({"a": (0.5, 1)})
    work.quarantine({"a": "timed_out: it stalls"})
    work.postpone(["b"])
    assert (list(work.extract), work.pending, work.quarantined["a"].status) == (["c"], {"b"}, "quarantined")
    assert (work.quarantined["a"].work_s, work.quarantined["a"].attempts) == (2.0, 2)
