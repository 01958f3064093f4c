"""Pruning: no file that shows a removed video stays, and no file of the user is deleted."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aupipe.annotation import export, schema
from aupipe.annotation.faults import contain_fault
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.prune import delete_shown
from aupipe.commands import report
from aupipe.commands.annotate import main
from aupipe.storage import Storage
from harness.clips import scene, write_clip

pytestmark = pytest.mark.unit

OF_THE_USER = ["export/csv/mine.txt", "export/notes/b.mp4.csv", "export/plan.csv", "report/mine.html"]
OURS = [
    "export/abaw/b.txt", "export/abaw/b_left.txt", "export/csv/deep/a.mp4.csv", "export/elan/b.mp4.eaf",
    "export/events/b.mp4.csv", "export/openface/b.mp4.csv", "report/faces.csv", "report/index.html",
    "report/overlays/00001.mp4", "report/previews/00001.mp4", "report/videos/00001.html",
]  # fmt: skip


def shown(storage: Storage) -> list[str]:
    """Return the names of the files in the folders for exports, reports and logs."""
    return [name for folder in ("_logs", "export", "report") for name in storage.names(folder)]


def clips(folder: Path) -> list[str]:
    """Write a.mp4 and b.mp4, and return their paths."""
    lengths = {"a.mp4": 5, "b.mp4": 8}
    return [str(write_clip(folder / name, scene(count, size=(200, 160), face=120))) for name, count in lengths.items()]


@pytest.mark.parametrize("place", ["{tmp}/out", "memory://aupipe-prune/out"])
def test_exports_and_reports_go_with_a_video_and_other_files_stay(place: str, tmp_path: Path) -> None:
    storage = Storage(place.format(tmp=tmp_path))
    rows = [{"video_id": each, "status": "quarantined"} for each in ("b.mp4", "deep/a.mp4")]
    table = pa.Table.from_pylist(rows, schema=schema.VIDEOS)
    storage.write("videos.parquet", schema.to_parquet(table, schema.VIDEOS))
    for name in [*OURS, *OF_THE_USER]:
        storage.write(name, b"1")
    delete_shown(storage, Ledger.read(storage), pa.array(["b.mp4", "c.mp4", "deep/a.mp4"]))
    assert shown(storage) == sorted([*OURS, *OF_THE_USER])
    delete_shown(storage, Ledger.read(storage), pa.array(["deep/a.mp4"]))
    assert shown(storage) == OF_THE_USER
    folders = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("export/**/") if path.is_dir())
    assert folders == (["out/export", "out/export/csv", "out/export/notes"] if storage.local else [])


def test_a_pruned_video_is_gone_from_all_files(
    checkpoint: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs, out = clips(tmp_path), tmp_path / "out"
    storage, command = Storage(out), ["--checkpoint", checkpoint, "--out", str(out), "--set", "engine=local", "--input"]
    assert main([*command, *inputs, "--export", "csv,abaw"]) == 0
    assert report.main([str(out), "--no-thumbnails", "--overlay"]) == 0
    with contain_fault(storage, "b.mp4"):
        raise ZeroDivisionError
    before = shown(storage)
    assert len(before) == 1 + 4 + 6
    assert main([*command, inputs[0]]) == 0  # without --prune
    assert main([*command, inputs[0], "--prune", "--dry-run"]) == 0
    assert shown(storage) == before
    with caplog.at_level("INFO"):
        assert main([*command, inputs[0], "--prune", "--export", "csv"]) == 0
    assert shown(storage) == ["export/csv/a.mp4.csv"]
    assert f"{out}: --prune removes videos, so all exports and the report are deleted (10 files); " in caplog.text
    assert pq.read_table(out / "videos.parquet")["video_id"].to_pylist() == ["a.mp4"]
    assert report.main([str(out), "--no-thumbnails"]) == 0
    before = shown(storage)
    assert main([*command, inputs[0], "--prune"]) == 0  # no video is removed
    assert shown(storage) == before


def test_exports_of_former_rows_are_rewritten_or_deleted(
    checkpoint: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs, out = clips(tmp_path), tmp_path / "out"
    storage, command = Storage(out), ["--checkpoint", checkpoint, "--out", str(out), "--set", "engine=local", "--input"]
    assert main([*command, *inputs, "--export", "csv,abaw,elan"]) == 0
    storage.write("export/csv/mine.csv", b"1")
    every = shown(storage)
    assert len(every) == 7
    assert main([*command, *inputs]) == 0  # nothing is due
    assert main([*command, *inputs, "--phase", "observe", "--set", "thresholds.AU12=0.98"]) == 0  # no row is replaced
    assert shown(storage) == every
    former = storage.read("export/csv/a.mp4.csv")
    assert main([*command, inputs[0], "--set", "thresholds.AU12=0.99", "--export", "csv"]) == 0
    assert shown(storage) == [name for name in every if name not in ("export/abaw/a.txt", "export/elan/a.mp4.eaf")]
    assert storage.read("export/csv/a.mp4.csv") != former
    assert "exports of former rows deleted: 2 (--export writes them again)" in caplog.text
    for name in ("a_left.txt", "b.txt"):
        storage.write(f"export/abaw/{name}", b"1")
    assert export.delete(storage, ["a.mp4"], ["abaw"], ["a_left.mp4", "b.mp4"]) == 0  # it may be that of another video
    assert export.delete(storage, ["a.mp4", "b.mp4"], ["abaw"], ["b.avi"]) == 1
    assert export.delete(storage, ["b.avi"], ["abaw"]) == 1
    assert not (out / "export/abaw").exists()
    (tmp_path / "b.mp4").write_bytes(b"no video")
    assert main([*command, inputs[1], "--export", "csv"]) == 1
    assert shown(storage) == ["export/csv/a.mp4.csv", "export/csv/mine.csv"]


def test_a_report_of_former_rows_is_named(checkpoint: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inputs, out = clips(tmp_path), tmp_path / "out"
    command = ["--checkpoint", checkpoint, "--out", str(out), "--set", "engine=local", "--input", *inputs]
    message = "report/index.html shows former rows (report.py writes it again)"
    assert main(command) == 0
    assert main([*command, "--set", "thresholds.AU12=0.98"]) == 0  # there is no report yet
    assert report.main([str(out), "--no-thumbnails"]) == 0
    assert main([*command, "--set", "thresholds.AU12=0.98"]) == 0  # nothing is due
    assert message not in caplog.text
    assert main([*command, "--set", "thresholds.AU12=0.99"]) == 0
    assert message in caplog.text
    assert (out / "report/index.html").exists()
    (tmp_path / "b.mp4").write_bytes(b"no video")
    for is_former in (True, False):  # The second report has no rows of b.mp4.
        caplog.clear()
        assert main(command) == 3
        assert (message in caplog.text) is is_former
        assert report.main([str(out), "--no-thumbnails"]) == 0


def test_an_export_needs_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(tmp_path / "a.mp4", scene(3))
    assert main([str(tmp_path / "a.mp4"), "--out", str(tmp_path / "o"), "--phase", "observe", "--export", "csv"]) == 2
    assert "--export csv: --phase observe makes no tables" in capsys.readouterr().err
    sampled = [str(tmp_path / "a.mp4"), "--out", str(tmp_path / "o"), "--sample-fps", "5", "--export"]
    assert main([*sampled, "csv,abaw"]) == 2
    assert "--export abaw: a track has a line for every frame, and sample_fps=5 " in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_nothing_is_deleted_because_a_folder_is_away(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, gone, out = tmp_path / "archive", tmp_path / "gone", tmp_path / "out"
    for number, folder in enumerate((archive / "one", archive / "two", gone)):
        write_clip(folder / f"{number}.mp4", scene(3, size=(96, 72), face=64, seed=number))
    (archive / "link").symlink_to(gone)
    (archive / "other.txt").touch()
    command = ["--checkpoint", checkpoint, "--out", str(out), "--set", "engine=local", "--prune", "--input"]

    def run(*inputs: object) -> tuple[int, str]:
        """Return the exit code and the error, and check that all rows are there after an error."""
        code = main([*command, *map(str, inputs)])
        error = capsys.readouterr().err
        assert (code == 2) == bool(error)
        if error:
            assert set(Ledger.read(Storage(out)).current()) == {"link/2.mp4", "one/0.mp4", "two/1.mp4"}
        return code, error

    assert run(archive) == (0, "")
    away = tmp_path / "away"
    archive.rename(away)
    sentence = "not found, or a folder that cannot be listed, so the rows of its videos would be deleted; fix: mount it"
    assert run(archive) == (2, f"annotate.py: --prune: {archive}: {sentence}, or leave out --prune\n")
    assert run(away / "two", archive, archive / "x.mp4")[1].startswith(f"annotate.py: --prune: {archive} and 1 more: ")
    assert run(archive, "--dry-run")[0] == 2
    archive.mkdir()  # the place of a disk that is not mounted
    assert "no video or image in this folder" in run(archive)[1]
    archive.rmdir()
    away.rename(archive)
    shutil.move(gone, away)
    assert f"{archive / 'link'}: {sentence}" in run(archive)[1]
    shutil.move(away, gone)

    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path) == str(archive / "two"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        assert f"{archive / 'two'}: {sentence}" in run(archive)[1]
    shutil.rmtree(archive / "two")
    assert run(archive) == (0, "")
    assert set(Ledger.read(Storage(out)).current()) == {"link/2.mp4", "one/0.mp4"}


def test_pruning_deletes_the_features_of_removed_videos_only(checkpoint: str, tmp_path: Path) -> None:
    inputs, out = clips(tmp_path), tmp_path / "out"
    storage = Storage(out)
    command = ["--checkpoint", checkpoint, "--out", str(out), "--set", "engine=local", "--input"]

    def observed() -> set[str]:
        """Return the names of the features, of which a small video has one."""
        return {name.rpartition("/")[2] for name in storage.names("_work/observed")}

    assert main([*command, *inputs, "--phase", "observe", "--prune"]) == 0
    both = observed()
    assert len(both) == 2
    assert main([*command, inputs[0], "--phase", "observe", "--prune"]) == 0
    (first,) = observed()
    assert main([*command, inputs[0], "--phase", "finalize", "--keep-intermediate", "--prune"]) == 0
    assert main([*command, *inputs, "--phase", "observe", "--keep-intermediate", "--prune"]) == 0
    assert observed() == both
    assert main([*command, *inputs, "--phase", "finalize", "--keep-intermediate"]) == 0
    assert main([*command, inputs[0], "--keep-intermediate", "--prune"]) == 0  # nothing is due
    assert observed() == {first}
    assert main([*command, inputs[1], "--keep-intermediate", "--prune"]) == 0
    assert observed() == both - {first}
    assert main([*command, inputs[1], "--prune"]) == 0
    assert observed() == set()
