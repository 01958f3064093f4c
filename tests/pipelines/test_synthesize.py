"""The synthesis job as a user runs it: complete, repeatable to the byte, and resumable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aupipe.affwild2.labels import parse
from aupipe.affwild2.layout import read_layout
from aupipe.commands import preprocess
from aupipe.commands.synthesize import main
from aupipe.storage import Storage

pytestmark = pytest.mark.ray

SIZE = ["--videos", "3", "--pairs", "1", "--seconds", "0.4"]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_layout_repeats_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = Storage(tmp_path / "first"), Storage(tmp_path / "second")
    assert main(["--out", first.root, *SIZE]) == 0
    layout = read_layout(first.root)
    assert layout.edition == "abaw5"
    assert [set(track.annotations) for track in layout.tracks] == [{"au", "expr"}] * 4
    assert all(track.video and track.crops for track in layout.tracks)
    for track in layout.tracks:
        for task, annotation in track.annotations.items():
            labels = parse(task, first.read(annotation.name), annotation.name)
            assert len(labels.values) == 10
            assert not labels.problems
    card = json.loads(first.read("dataset.json"))
    assert card["splits"]["train"]["people"] == 3
    assert card["splits"]["train"]["crops"] >= 27
    left, right = (track for track in layout.tracks if track.person)
    assert (left.person, right.person) == ("left", "right")
    assert left.video == right.video

    # A killed run: one video lacks its last file, and another one also lacks half of its crops.
    assert main(["--out", second.root, *SIZE]) == 0
    names = second.names()
    last_files = [name for name in names if "AU_Detection" in name and "_left" not in name]
    for name in (*last_files[:2], next(name for name in names if name.endswith("00003.jpg"))):
        second.delete(name)
    assert main(["--out", second.root, *SIZE, "--dry-run"]) == 0
    assert "1 done" in capsys.readouterr().out
    assert main(["--out", second.root, *SIZE]) == 0
    assert first.names() == second.names() == names
    assert all(first.read(name) == second.read(name) for name in names)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_unrelated_pictures_go_into_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, store = tmp_path / "data", tmp_path / "store"
    assert main(["--out", str(data), "--videos", "10", "--stills", "1"]) == 0
    assert "10 people, 10 pictures" in capsys.readouterr().out
    assert preprocess.main(["--data", str(data / "manifest.csv"), "--out", str(store)]) == 0
    card = json.loads((store / "store.json").read_text())
    assert card["splits"]["validation"]["au_rows"] == 1
    assert card["splits"]["train"]["au_rows"] >= 8  # of 9; a face in profile may not be detected


def test_another_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert main(["--out", str(tmp_path), *SIZE]) == 2
    assert "new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
