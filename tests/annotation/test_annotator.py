"""The local runner: it writes the same tables as Ray, without Ray, and never repeats completed work."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import torch

from aupipe.annotation import annotator, model_set
from aupipe.annotation.annotate_job import AnnotateJob
from aupipe.annotation.annotator import annotate_in_memory
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.inputs import Input, Inputs
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.runner import LocalRunner, Runner, local_runner
from aupipe.annotation.settings import AnnotateConfig
from aupipe.commands.annotate import main
from aupipe.storage import Storage
from harness.clips import damage, scene, write_clip
from harness.pending import pending, work_list

LOCAL = ["--set", "engine=local"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Write two clips and a text file."""
    folder = tmp_path / "in"
    write_clip(folder / "a.mp4", scene(30, size=(200, 160), face=120), options={"g": "10"})
    write_clip(folder / "two.mkv", scene(12, size=(320, 160), people=(0.25, 0.75), face=120))
    (folder / "broken.mp4").write_text("I am no video")
    return folder


def files(out: Path) -> dict[str, str]:
    """Return the name and sha256 of every table of frames and events."""
    found = [*(out / "frames").iterdir(), *(out / "events").iterdir()]
    return {f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def statuses(out: Path) -> dict[str, str]:
    """Return the status of each video."""
    return {row["video_id"]: row["status"] for row in pq.read_table(out / "videos.parquet").to_pylist()}


@pytest.mark.unit
def test_a_job_in_this_process(archive: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    command = ["--input", str(archive), "--checkpoint", checkpoint, "--out", str(out), *LOCAL]
    assert main(command) == 3
    assert "42 frames decoded" in capsys.readouterr().out
    frames = pads.dataset(out / "frames").to_table().to_pandas().sort_values(["video_id", "frame"])
    assert frames.groupby("video_id").size().to_dict() == {"a.mp4": 30, "two.mkv": 24}
    assert frames["AU12_prob"].notna().all()
    records = {row["video_id"]: row for row in pq.read_table(out / "videos.parquet").to_pylist()}
    assert {key: row["status"] for key, row in records.items()} == {
        "a.mp4": "ok", "broken.mp4": "quarantined", "two.mkv": "ok",
    }  # fmt: skip
    before = files(out)
    assert main(command) == 3
    assert "; 0 frames decoded" in capsys.readouterr().out
    assert files(out) == before
    assert main([*command, "--set", "thresholds.AU12=0.0"]) == 3
    assert "; 0 frames decoded" in capsys.readouterr().out
    assert set(pads.dataset(out / "frames").to_table()["AU12"].to_pylist()) == {True}
    probabilities = pads.dataset(out / "frames").to_table()["AU12_raw"].to_numpy()
    assert main([*command, "--set", "precision=bfloat16"]) == 3
    assert "42 frames decoded" in capsys.readouterr().out
    changed = pads.dataset(out / "frames").to_table()["AU12_raw"].to_numpy()
    assert 0 < np.abs(changed - probabilities).max() < 0.1
    assert not (out / "_work" / "observed").exists()  # short videos leave no features
    assert not list((out / "_work" / "attempts").iterdir())


@pytest.mark.unit
def test_rows_of_files_that_cannot_be_reached_are_kept(
    archive: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copy(archive / "a.mp4", archive / "copy.mp4")
    named = [str(archive / name) for name in ("a.mp4", "copy.mp4", "two.mkv")]
    out = tmp_path / "out"
    command = ["--input", *named, "--checkpoint", checkpoint, "--out", str(out), *LOCAL]
    assert main(command) == 0
    before = files(out)
    (archive / "a.mp4").rename(tmp_path / "a.mp4")
    for _ in range(2):
        capsys.readouterr()
        assert main(command) == 3
        assert re.search(r"a.mp4: partial: not_found: .*kept\)", capsys.readouterr().out)
        assert files(out) == before
        assert statuses(out) == {"a.mp4": "partial", "copy.mp4": "duplicate", "two.mkv": "ok"}
    (archive / "two.mkv").write_text("I am no video")  # known to be another file
    assert main(command) == 3
    assert statuses(out) == {"a.mp4": "partial", "copy.mp4": "duplicate", "two.mkv": "quarantined"}
    (tmp_path / "a.mp4").rename(archive / "a.mp4")
    assert main(command) == 3
    assert "; 0 frames decoded" in capsys.readouterr().out
    assert statuses(out) == {"a.mp4": "ok", "copy.mp4": "duplicate", "two.mkv": "quarantined"}


@pytest.mark.unit
@pytest.mark.parametrize("change", ["damaged", "missing", "bad_range"])
def test_an_unreadable_file_leaves_the_video_of_another_file_with_its_id(
    change: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be the same archive after a move, so the other videos of the run are not refused."""
    for name in ("one/clip.mp4", "one/other.mp4"):
        write_clip(tmp_path / name, scene(3 + len(name), size=(96, 72), face=64))
    out = tmp_path / "out"

    def run(folder: str, *limits: str) -> int:
        rows = [f"{folder}/clip.mp4,clip.mp4,{folder},{','.join(limits) or ','}", f"{folder}/other.mp4,other.mp4,,,"]
        (tmp_path / "list.csv").write_text("\n".join(["uri,video_id,place,start_s,end_s", *rows, ""]))
        command = ["--checkpoint", checkpoint, "--out", str(out), "--export", "csv", *LOCAL]
        return main([str(tmp_path / "list.csv"), *command])

    def state() -> tuple[object, ...]:
        clip, _ = pq.read_table(out / "videos.parquet").to_pylist()
        return clip, files(out), (out / "export/csv/clip.mp4.csv").read_bytes()

    assert run("one") == 0
    before = state()
    if change != "damaged":
        (tmp_path / "two").mkdir()
        shutil.copy2(tmp_path / "one/other.mp4", tmp_path / "two/other.mp4")
    else:
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        (tmp_path / "two/clip.mp4").write_bytes(b"no video")
    limits = ("2", "1") if change == "bad_range" else ()
    for _ in range(2):
        capsys.readouterr()
        assert run("two", *limits) == 3
        code = {"damaged": "not_a_video", "missing": "not_found"}.get(change, change)
        clip = re.escape(f"{tmp_path / 'one/clip.mp4'}")
        kept = rf"clip.mp4: quarantined: {code}: .* \(the rows with this video_id are kept: they are of {clip}\)"
        assert re.search(kept, capsys.readouterr().out)
        assert state() == before
        assert pq.read_table(out / "videos.parquet")["uri"][1].as_py() == f"{tmp_path}/two/other.mp4"
    assert run("one") == 0
    assert state() == before


@pytest.mark.unit
@pytest.mark.parametrize("others", [[], ["other"]])
def test_a_refused_input_has_no_rows_whether_others_are_due_or_not(
    others: list[str], checkpoint: str, tmp_path: Path
) -> None:
    for name in ("clip", "other"):
        write_clip(tmp_path / f"{name}.mp4", scene(3 + len(name), size=(96, 72), face=64))
    out, listed = tmp_path / "out", tmp_path / "list.csv"

    def run(names: list[str], limits: str, *options: str) -> int:
        listed.write_text(
            "\n".join(["uri,start_s,end_s", f"clip.mp4,{limits}", *(f"{each}.mp4,," for each in names), ""])
        )
        return main([str(listed), "--checkpoint", checkpoint, "--out", str(out), *LOCAL, *options])

    assert run([], ",", "--export", "csv") == 0
    assert (out / "export/csv/clip.mp4.csv").exists()
    for _ in range(2):
        assert run(others, "2,1") == (3 if others else 1)
        assert statuses(out)["clip.mp4"] == "quarantined"
        assert set(pads.dataset(out / "frames").to_table()["video_id"].to_pylist()) == {
            f"{each}.mp4" for each in others
        }
        assert not (out / "export/csv/clip.mp4.csv").exists()
        ledger = sorted((path.name, path.stat().st_mtime_ns) for path in (out / "_work/ledger").iterdir())
    assert run(others, "2,1") == (3 if others else 1)
    assert ledger == sorted((path.name, path.stat().st_mtime_ns) for path in (out / "_work/ledger").iterdir())
    assert run(others, ",") == 0
    assert statuses(out)["clip.mp4"] == "ok"


@pytest.mark.unit
def test_a_moved_archive_is_known_from_then_on(
    archive: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (archive / "broken.mp4").unlink()
    write_clip(archive / "one.mp4", scene(3, size=(96, 72), face=64))
    moved, out = tmp_path / "moved", tmp_path / "out"

    def run(folder: Path, *settings: str) -> tuple[int, str]:
        code = main(["--input", str(folder), "--checkpoint", checkpoint, "--out", str(out), *LOCAL, *settings])
        return code, capsys.readouterr().out

    def uris() -> list[str]:
        return [record.uri for record, _ in Ledger.read(Storage(out)).current().values()]

    assert run(archive)[0] == 0
    before = files(out)
    names = sorted(path.name for path in archive.iterdir())
    archive.rename(moved)
    code, output = run(moved)
    assert (code, "; 0 frames decoded" in output, files(out)) == (0, True, before)
    assert uris() == pq.read_table(out / "videos.parquet")["uri"].to_pylist() == [f"{moved}/{name}" for name in names]
    assert "3 done, 0 to apply a new decision to, 0 to probe" in run(moved, "--dry-run")[1]
    ledger = {path: path.stat().st_mtime_ns for path in (out / "_work/ledger").iterdir()}
    assert run(moved)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "_work/ledger").iterdir()} == ledger
    os.utime(moved / "one.mp4", (1, 1))
    assert "2 done, 0 to apply a new decision to, 1 to probe" in run(moved, "--dry-run")[1]
    assert run(moved)[0] == 0
    assert "3 done" in run(moved, "--dry-run")[1]
    write_clip(moved / "one.mp4", scene(4, size=(96, 72), face=64))
    code, output = run(moved)
    assert (code, "; 4 frames decoded" in output) == (0, True)
    moved.rename(archive)
    code, output = run(archive, "--set", "thresholds.AU12=0.0")
    assert (code, "; 0 frames decoded" in output) == (0, True)
    assert uris() == [f"{archive}/{name}" for name in names]


@pytest.mark.unit
@pytest.mark.parametrize("device", ["cuda", "cuda:7", "gpu"])
def test_a_gpu_that_is_not_there_is_one_sentence(
    device: str, archive: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if torch.cuda.is_available() and device == "cuda":
        pytest.skip("this machine has a GPU")
    settings = ["--set", "resources.gpu=true", "--set", f"resources.device={device}"]
    command = ["--input", str(archive), "--checkpoint", checkpoint, "--out", str(tmp_path / "out"), *LOCAL, *settings]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"resources.gpu=true: torch has no device {device!r} here (" in error
    assert "Traceback" not in error


@pytest.mark.unit
def test_rows_of_other_settings_are_counted(
    archive: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """An output accumulates videos, and run.json describes the last run."""
    one, two, out = str(archive / "a.mp4"), str(archive / "two.mkv"), tmp_path / "out"
    command = ["--checkpoint", checkpoint, "--out", str(out), *LOCAL]
    changed = [*command, "--set", "thresholds.AU12=0.99"]
    for arguments, count in (
        ([one, *command], 0), ([two, *command], 0), ([two, *changed], 1), ([one, two, *changed], 0),
        ([one, *command], 1),
    ):  # fmt: skip
        assert main(arguments) == 0
        assert json.loads((out / "run.json").read_bytes())["videos_of_other_settings"] == count
        assert ("1 video keeps rows of other models or settings" in capsys.readouterr().out) == bool(count)


@pytest.mark.unit
def test_no_export_replaces_that_of_another_video(
    archive: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, one, other = tmp_path / "out", archive / "two.mkv", archive / "two.mp4"
    write_clip(other, scene(3, size=(200, 160), face=120), options={"g": "10"})
    command = ["--checkpoint", checkpoint, "--out", str(out), "--export", "abaw", *LOCAL]
    for further in ([], ["--dry-run"]):
        assert main([*command, str(one), str(other), *further]) == 2
        assert "two.mkv and two.mp4 would have the same name; fix: " in capsys.readouterr().err
        assert not out.exists()
    assert main([*command, str(one)]) == 0
    exported = (out / "export/abaw/two.txt").read_bytes()
    for further in ([], ["--dry-run"]):  # The first video is in the folder, and is no input of these runs.
        assert main([*command, str(other), *further]) == 2
        assert "two.mp4 and two.mkv would have the same name; fix: " in capsys.readouterr().err
    assert (out / "export/abaw/two.txt").read_bytes() == exported
    assert main([*command, str(other), "--prune"]) == 0
    assert (out / "export/abaw/two.txt").read_bytes() != exported


@pytest.mark.unit
def test_it_needs_no_ray_and_a_missing_input_no_models(archive: Path, exported_checkpoint: str, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom aupipe.commands.annotate import main\n"
        "code = main(sys.argv[1:])\nprint(code, sorted({'ray', 'torch'} & set(sys.modules)))"
    )

    def run(*arguments: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        command = [sys.executable, "-c", script, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    one = ["--input", str(archive / "a.mp4"), "--checkpoint", exported_checkpoint, "--out", str(tmp_path / "out")]
    assert run(*one).splitlines()[-1] == "0 []"
    output = run("--input", str(tmp_path / "nowhere.mp4"), "--out", str(tmp_path / "none"))
    assert output.splitlines()[-1] == "1 []"
    assert "not_found" in output
    (row,) = pq.read_table(tmp_path / "none" / "videos.parquet").to_pylist()
    assert (row["video_id"], row["status"]) == ("nowhere.mp4", "quarantined")


@pytest.mark.unit
def test_in_memory_is_what_a_folder_holds(archive: Path, checkpoint: str, tmp_path: Path) -> None:
    inputs = [Input(str(path), path.name) for path in sorted(archive.iterdir())]
    found = annotate_in_memory(inputs, model_set.load([checkpoint], "mean"), AnnotateConfig())
    assert main(["--input", str(archive), "--checkpoint", checkpoint, "--out", str(tmp_path / "out"), *LOCAL]) == 3
    order = [("video_id", "ascending"), ("frame", "ascending")]
    assert found.frames.equals(pads.dataset(tmp_path / "out" / "frames").to_table().sort_by(order))
    assert found.events.num_rows == pads.dataset(tmp_path / "out" / "events").to_table().num_rows
    assert found.videos["status"].to_pylist() == ["ok", "quarantined", "ok"]
    nothing = annotate_in_memory(inputs[1:2], model_set.load([checkpoint], "mean"), AnnotateConfig())
    assert (len(nothing.frames), len(nothing.events), nothing.videos["status"].to_pylist()) == (0, 0, ["quarantined"])


@pytest.mark.unit
def test_small_jobs_are_local_where_no_cluster_is_named(
    archive: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    storage = Storage(tmp_path / "out")
    inputs = [Input(str(archive / "a.mp4"), "a.mp4")]

    def is_local(workers: int | None = None, inputs: list[Input] = inputs, **settings: object) -> bool:
        config = AnnotateConfig(**settings)  # type: ignore[arg-type]
        job = AnnotateJob((), (), storage.root, config, workers=workers)
        due = work_list(pending({}))
        due.to_probe = Inputs.of(inputs)
        return annotator._is_local(job, annotator._State(Inputs.of(inputs), Ledger(storage), due), storage)

    assert is_local()
    assert not is_local(workers=2)
    assert not is_local(engine="ray")
    assert is_local(engine="local", workers=2)
    assert not is_local(inputs=inputs * 21)
    assert not is_local(resources={"gpu": True})
    monkeypatch.setattr(annotator, "LOCAL_FRAMES", 29)
    assert not is_local()
    monkeypatch.setattr(annotator, "LOCAL_FRAMES", 30)
    assert is_local()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert not is_local()
    monkeypatch.delenv("RAY_ADDRESS")
    storage.write("_work/attempts/key-1", b"started")  # an input that ended the process of an earlier run
    assert not is_local()


@pytest.mark.ray
def test_both_runners_write_the_same_bytes(
    ray_session: None, archive: Path, exported_checkpoint: str, tmp_path: Path
) -> None:
    command = ["--input", str(archive), "--checkpoint", exported_checkpoint, "--set", "segment_s=0.5"]
    assert main([*command, "--out", str(tmp_path / "local"), *LOCAL]) == 3
    assert main([*command, "--out", str(tmp_path / "ray"), "--set", "engine=ray", "--workers", "2"]) == 3
    assert files(tmp_path / "local") == files(tmp_path / "ray")
    videos = [pq.read_table(tmp_path / name / "videos.parquet") for name in ("local", "ray")]
    local, on_ray = (table.drop_columns(["work_s", "reason"]) for table in videos)
    assert isinstance(local, pa.Table)
    assert local.equals(on_ray)


@pytest.mark.unit
def test_a_complete_run_stays_so_if_the_end_of_the_cluster_is_interrupted(
    archive: Path, checkpoint: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    before: list[bytes] = []

    @contextmanager
    def ending(job: AnnotateJob, keys: CacheKeys, storage: Storage) -> Iterator[Runner]:
        with local_runner(job, keys, storage) as runner:
            yield runner
            before.append((out / "run.json").read_bytes())
            raise KeyboardInterrupt

    job = AnnotateJob((str(archive),), (checkpoint,), str(out), AnnotateConfig(engine="ray"))
    with pytest.raises(KeyboardInterrupt):
        annotator.annotate(job, ending)
    assert [(out / "run.json").read_bytes()] == before
    assert not json.loads(before[0])["interrupted"]


@pytest.mark.unit
def test_an_interrupted_run_leaves_no_rows_of_a_video_that_it_quarantined(
    archive: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = ["--input", str(archive), "--checkpoint", checkpoint, "--out", str(out), *LOCAL]
    assert main(command) == 3
    (archive / "a.mp4").write_text("I am no video any more")
    write_clip(archive / "new.mp4", scene(3, size=(200, 160), face=120))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalRunner, "annotate_packets", interrupted)
    assert main(command) == 130
    assert statuses(out) == {"a.mp4": "quarantined", "broken.mp4": "quarantined", "two.mkv": "ok"}
    rows = [pq.read_table(path) for path in (out / "frames").iterdir()]
    assert set(pa.concat_tables(rows)["video_id"].to_pylist()) == {"two.mkv"}


@pytest.mark.unit
def test_keys_do_not_depend_on_the_engine(checkpoint: str) -> None:
    models = model_set.load([checkpoint], "mean")
    keys = [CacheKeys(models, AnnotateConfig(engine=engine)).decide_key for engine in ("auto", "local", "ray")]
    assert len(set(keys)) == 1


@pytest.mark.unit
def test_cuts_leave_no_trace_in_a_damaged_file(checkpoint: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "damaged.mp4", scene(60), options={"g": "12", "bf": "2", "crf": "18"})
    damage(path)
    models, inputs = model_set.load([checkpoint], "mean"), [Input(str(path), "v")]
    whole = annotate_in_memory(inputs, models, AnnotateConfig()).frames
    assert annotate_in_memory(inputs, models, AnnotateConfig(segment_s=0.3)).frames.equals(whole)
