"""A segment that crashes its workers costs its own frames; a stalled archive and an interruption end the job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from aupipe.annotation import judge, model_set, phases, stages
from aupipe.annotation.annotator import annotate_in_memory
from aupipe.annotation.inputs import Input, Inputs
from aupipe.annotation.probed import Probed
from aupipe.annotation.segments import Segment
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.stages import Decode, Probe, ProbeRequest, ProbeResult, Row, SegmentTask
from aupipe.errors import AupipeError, ChangedError, WorkerDiedError
from aupipe.media import byte_source
from aupipe.media.frames import Span
from aupipe.storage import Storage
from harness.clips import scene, write_clip
from harness.pending import pending, run, work_list

pytestmark = pytest.mark.unit
CRASH = "the worker died in 3 attempts (Segmentation fault)"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Input:
    """Write a clip of 60 frames with a key frame every 12."""
    path = tmp_path_factory.mktemp("clips") / "a.mp4"
    write_clip(path, scene(60, size=(160, 128), face=100), options={"g": "12", "bf": "2"})
    return Input(str(path), "a")


def crashing(numbers: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the attempts at segments with these numbers end as after too many crashes."""
    real = stages.extract

    def extract(segment: stages.Segment, *more: object) -> Iterator[object]:
        if segment.number in numbers:
            raise WorkerDiedError(CRASH)
        yield from real(segment, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(stages, "extract", extract)


@pytest.mark.parametrize("packet_frames", [0, 6000])
def test_a_lost_segment_costs_its_own_frames(
    packet_frames: int, video: Input, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, config = model_set.load([checkpoint], "mean"), AnnotateConfig(segment_s=0.3, packet_frames=packet_frames)
    whole = annotate_in_memory([video], models, config)
    crashing({2}, monkeypatch)
    found = annotate_in_memory([video], models, config)
    (record,) = found.videos.to_pylist()
    lost = found.frames.filter(pc.equal(found.frames["status"], "decode_error"))["frame"].to_pylist()
    assert record["status"] == "partial"
    assert lost == list(range(lost[0], lost[-1] + 1))
    assert 8 <= len(lost) < 40
    assert record["reason"] == f"frames_lost: {len(lost)} of 60 ({lost[0]}-{lost[-1]}); worker_died: {CRASH}"
    assert (record["frames_decoded"], record["frames_lost"]) == (60 - len(lost), len(lost))
    assert found.frames["frame"].to_pylist() == list(range(60))
    assert found.frames["time_s"].equals(whole.frames["time_s"])
    intact = pa.array([index not in lost for index in range(60)])
    assert found.frames.filter(intact)["AU12_raw"].equals(whole.frames.filter(intact)["AU12_raw"])


@pytest.mark.parametrize("packet_frames", [0, 6000])
def test_a_video_without_any_segment_left_is_quarantined(
    packet_frames: int, video: Input, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing(set(range(20)), monkeypatch)
    models, config = model_set.load([checkpoint], "mean"), AnnotateConfig(segment_s=0.3, packet_frames=packet_frames)
    found = annotate_in_memory([video], models, config)
    (record,) = found.videos.to_pylist()
    assert (record["status"], record["reason"]) == ("quarantined", f"worker_died: {CRASH}")
    assert len(found.frames) == 0
    (whole,) = annotate_in_memory([video], models, AnnotateConfig()).videos.to_pylist()
    assert (whole["status"], whole["reason"]) == ("quarantined", f"worker_died: {CRASH}")


def test_a_lost_segment_whose_file_is_gone_costs_the_video(video: Input, tmp_path: Path) -> None:
    config, storage = AnnotateConfig(segment_s=0.3), Storage(tmp_path)
    probed = ProbeResult.from_row(Probe(config, storage)(ProbeRequest(video).to_row()))
    storage.write("_work/attempts/key-1", b"timed out")
    gone = replace(probed.segments[1], uri=f"{tmp_path}/gone.mp4")
    decode = Decode(AnnotateConfig(limits={"attempts": 1}), storage, stages.np.zeros((1, 5, 2), "float32"))
    (row,) = decode(SegmentTask("key", gone).to_row())
    assert row["error"].startswith("not_found: ")
    (row,) = decode(SegmentTask("key", probed.segments[1]).to_row())
    assert (row["error"], row["lost"]) == ("", "timed_out: no progress for 300 s in 1 attempts")


@pytest.mark.parametrize(("bad", "stops"), [(3, False), (4, True)])
def test_a_job_stops_when_most_of_its_first_inputs_are_bad(
    bad: int, stops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "_JUDGED_INPUTS", 5)
    inputs = Inputs.of(Input(f"{number}.mp4", str(number), signature="") for number in range(8))
    results = Probed()

    class Runner:
        def probe(self, rows: Sequence[Row]) -> Iterator[Row]:
            for number, row in enumerate(rows):
                reason = "" if 5 > number >= bad else "permission_denied: no permission"
                yield ProbeResult(ProbeRequest.from_row(row).video.video_id, reason).to_row()

    of_job = run(Runner(), Storage(tmp_path), quarantined_share=0.6)
    if not stops:
        phases.probe(of_job, inputs, results)
        assert results.count == 8
        return
    sentence = r"^4 of the first 5 inputs are quarantined, for example permission_denied: .*quarantined_share=1$"
    with pytest.raises(AupipeError, match=sentence):
        phases.probe(of_job, inputs, results)


@pytest.mark.parametrize(
    ("before", "good", "stops"),
    [
        (5, 0, True),
        (5, 1, False),  # 5 of 6 are more than 0.8, but not if the sixth is judged too
        (6, 2, False),
    ],
)
def test_inputs_that_are_probed_first_are_no_sample_of_the_others(before: int, good: int, stops: bool) -> None:
    of_job = judge.Judge(0.84, before + good)
    of_job.begin(before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "_JUDGED_INPUTS", 5)
        with pytest.raises(AupipeError) if stops else nullcontext():
            for _ in range(before):
                of_job.add("empty: no bytes")
        if not stops:
            of_job.begin(good)
            for _ in range(good):
                of_job.add("")


def test_inputs_of_both_kinds_are_judged_together() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "_JUDGED_INPUTS", 5)
        of_job = judge.Judge(0.8, 20)
        of_job.begin(8)
        for _ in range(8):
            of_job.add("not_found: x")
        of_job.begin(12)
        of_job.add("")
        for _ in range(3):
            of_job.add("not_found: y")
        with pytest.raises(AupipeError, match=r"^4 of the first 5 inputs are quarantined, for example not_found: y"):
            of_job.add("not_found: y")  # 8 + 12 · 4/5 of 20


def test_an_overwritten_object_is_a_reason_of_its_own() -> None:
    class FileExpired(OSError):
        """The error of s3fs for an object with another ETag than at its opening."""

    with (
        pytest.raises(ChangedError, match="overwritten while it was read") as error,
        byte_source.named_errors("s3://b/a"),
    ):
        raise FileExpired
    assert error.value.reason == "changed"


@pytest.mark.parametrize("keys", [*permutations(("a.1", "a.2", "a.3"))])
def test_losses_of_a_video_do_not_depend_on_the_order_of_the_workers(keys: tuple[str, ...]) -> None:
    segments = [Segment("u", "a", number, 0, 3, Span(3, True)) for number in (1, 2, 3)]
    reasons = {"a.1": "worker_died: y", "a.2": "timed_out: x", "a.3": "killed: z"}
    work = work_list(pending({"a": 9}, segments))
    assert work.add_losses({"a": {key: reasons[key] for key in keys if key != "a.3"}}) == {}
    assert work.extract["a"][0].losses == ("timed_out: x", "worker_died: y")
    assert work.add_losses({"a": {key: reasons[key] for key in keys}}) == {"a": "worker_died: y"}
