import pytest

from aupipe.commands.preprocess import main

pytestmark = pytest.mark.unit


def test_a_wrong_folder_is_one_sentence_and_exit_code_2(tmp_path, capsys):
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "store")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"preprocess.py: {tmp_path} is not an Aff-Wild2 folder")
    assert "give the folder that contains the annotations" in error
    assert not (tmp_path / "store").exists()


def test_an_unknown_setting_names_the_nearest(tmp_path, capsys):
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "store"), "--set", "data.editon=abaw2"]) == 2
    assert "unknown setting 'data.editon'; the nearest known one is 'data.edition'" in capsys.readouterr().err


def test_a_store_of_something_else_is_not_replaced(make_store, tmp_path, capsys):
    (tmp_path / "m.csv").write_text("path\nx.jpg\n")
    assert main(["--data", str(tmp_path / "m.csv"), "--out", make_store(), "--dry-run"]) == 2
    assert "contains a store made from test, not images:manifest; fix: name another folder" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["crops", "videos"])
def test_a_source_of_aff_wild2_is_refused_for_images(tmp_path, capsys, source):
    (tmp_path / "m.csv").write_text("path\nx.jpg\n")
    options = ["--data", str(tmp_path / "m.csv"), "--out", str(tmp_path / "store"), "--dry-run"]
    assert main([*options, "--source", source]) == 2
    assert f"--source {source}: {tmp_path}/m.csv is no Aff-Wild2 folder" in capsys.readouterr().err
    assert main([*options, "--source", "images"]) == 0


@pytest.fixture
def crops(tmp_path):
    """Return a folder of Aff-Wild2 with crops."""
    for split, video in (("Train_Set", "a"), ("Validation_Set", "b")):
        folder = tmp_path / "data/annotations/EXPR_Set" / split
        folder.mkdir(parents=True)
        (folder / f"{video}.txt").write_text("Neutral,Anger\n0\n1\n")
        (tmp_path / "data/cropped_aligned" / video).mkdir(parents=True)
    return str(tmp_path / "data")


@pytest.mark.parametrize("setting", ["detector.min_face_px=48", "alignment.smoothing_radius=2", "search.every=1"])
def test_settings_of_videos_are_refused_for_crops(crops, tmp_path, capsys, setting):
    options = ["--data", crops, "--out", str(tmp_path / "store"), "--dry-run"]
    assert main([*options, "--set", setting]) == 2
    assert "has no effect on crops" in capsys.readouterr().err
    assert main([*options, "--set", "detector.min_score=0.5"]) == 0  # faces on crops show how they are aligned


def test_a_dry_run_plans_and_writes_nothing(crops, tmp_path, capsys):
    assert main(["--data", crops, "--out", str(tmp_path / "store"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "edition abaw2, 2 annotated tracks of 2 videos" in printed
    assert "4 rows in 2 files, 0 of them done" in printed
    assert not (tmp_path / "store").exists()
