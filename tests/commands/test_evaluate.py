import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aupipe import facs
from aupipe.affwild2 import submission
from aupipe.commands.evaluate import main
from aupipe.evaluation.predictions import Predictions
from aupipe.facestore.read import FaceStore
from aupipe.models import checkpoint
from aupipe.models.build import build
from aupipe.models.configs import AudioConfig, MultilabelTransformerConfig, MultimodalConfig
from aupipe.models.inputs import InputSpec
from aupipe.storage import Storage
from conftest import ARCFACE

pytestmark = pytest.mark.unit


@pytest.fixture
def trained(tmp_path: Path) -> str:
    card = checkpoint.Card(
        model=MultilabelTransformerConfig(backbone="test_resnet", width=16, heads=2, mlp_width=16),
        input=InputSpec(size_px=32),
        template=((0, 0),) * 5,
    )  # fmt: skip
    checkpoint.save(Storage(tmp_path / "best"), build(card.model, card.input), card)
    return str(tmp_path / "best")


def test_dry_run_prints_the_number_of_crops(
    trained: str, make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=1, validation=2, frames=10, unknown=0)
    assert main(["--checkpoint", trained, "--data", store, "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "20 labeled crops of validation" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_model_is_not_scored_on_videos_that_its_recipe_drops(
    trained: str, make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(make_store(train=1, validation=2, frames=10, unknown=0), tmp_path / "store")
    card = tmp_path / "store/store.json"
    card.write_text(card.read_text().replace('"train00.mp4"', '"validation00.mp4"'))  # now in both splits
    for leak, rows in (("off", 20), ("drop_val", 10)):
        model = tmp_path / "best/model.json"
        described = json.loads(model.read_text())
        described["training"]["leak"] = leak
        model.write_text(json.dumps(described))
        data = ["--data", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
        assert main(["--checkpoint", trained, *data, "--dry-run"]) == 0
        assert f"{rows} labeled crops of validation" in capsys.readouterr().out


def test_videos_without_audio_are_named_to_a_model_that_uses_it(
    make_store: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(train=1, validation=3, frames=10)
    config = MultimodalConfig(backbone="test_resnet", audio=AudioConfig(width=8), outputs=("au",))
    card = checkpoint.Card(model=config, input=InputSpec(size_px=32), template=ARCFACE)
    checkpoint.save(Storage(tmp_path / "best"), build(card.model, card.input), card)
    command = ["--checkpoint", str(tmp_path / "best"), "--data", store, "--out", str(tmp_path / "out"), "--dry-run"]
    assert main(command) == 0
    assert not caplog.records
    for split in ("train", "validation"):
        (Path(store) / f"audio/{split}00.mp4.parquet").unlink()
    assert main(command) == 0
    (warning,) = caplog.records
    assert "best: 1 of 3 videos have no audio in the store, as validation00.mp4" in warning.getMessage()


def test_wrong_checkpoint_split_or_setting_exits_2(
    trained: str, make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=1, validation=2, frames=10)
    out = ["--out", str(tmp_path / "out")]
    for arguments, message in (
        (["--checkpoint", str(tmp_path / "none"), "--data", store], "no checkpoint"),
        (["--checkpoint", trained, "--data", store, "--split", "test"], "validation"),
        (["--checkpoint", trained, "--data", store, "--split", "fold:4"], "fold:3"),
        (["--checkpoint", trained, "--data", str(tmp_path)], "preprocess.py"),
        (["--checkpoint", trained, "--data", store, "--set", "resource.gpu=false"], "resources"),
        (["--checkpoint", trained, trained, "--data", store, "--set", "ensemble=vote"], "odd"),
        (["--checkpoint", trained, trained, "--data", store], "are the same model"),
        (["--checkpoint", trained, "--data", store, "--groups", "none.csv"], "no such file"),
        (["--predictions", "none.parquet", "--data", store], "none.parquet"),
        (["--predictions", "none.txt", "--data", store], "no submission"),
        (["--predictions", "none.txt", "--data", store, "--set", "evaluate.tune=true"], "--checkpoint"),
        (["--predictions", "none.txt", "--data", store, "--set", "ensemble=vote"], "ensemble has no effect on"),
        (["--predictions", "none.txt", "--data", store, "--set", "inference.overlap=0"], "inference has no effect on"),
    ):
        assert main([*arguments, *out]) == 2, arguments
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    for arguments in ([], ["--checkpoint", trained, "--predictions", "x.txt"]):
        with pytest.raises(SystemExit, match="2"):
            main([*arguments, "--data", store, *out])


@pytest.mark.parametrize(("moved_px", "code"), [(1.5, 0), (2.5, 2)])
def test_crops_of_another_template_are_not_scored(
    moved_px: float, code: int, make_store: Callable[..., str], make_checkpoint: Callable[..., str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model = make_checkpoint(size_px=32, template=tuple((x + moved_px, y) for x, y in ARCFACE))
    store = make_store(train=1, validation=2, frames=10)
    command = ["--checkpoint", model, "--data", store, "--out", str(tmp_path / "out"), "--dry-run"]
    assert main(command) == code
    error = capsys.readouterr().err
    assert ("aligned to another template than those that" in error) == (code == 2)


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize("damaged", ["model.safetensors", "model.json"])
def test_a_damaged_checkpoint_exits_2_before_ray_starts(
    damaged: str, more: list[str], trained: str, make_store: Callable[..., str], tmp_path: Path,
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("aupipe.pipelines.evaluate.session", lambda: pytest.fail("Ray was started"))
    file = tmp_path / "best" / damaged
    if damaged == "model.json":
        file.write_text(file.read_text().replace('"width": 16', '"width": 32'))  # the weights no longer fit
    else:
        file.write_bytes(file.read_bytes()[:1000])
    store = make_store(train=1, validation=2, frames=10)
    assert main(["--checkpoint", trained, "--data", store, "--out", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "best/model.safetensors" in error


def test_videos_that_a_model_was_trained_on_are_not_scored(
    trained: str, make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=3, validation=2, frames=10)
    card = checkpoint.load_card(trained)
    training = checkpoint.TrainingCard(videos=("train00.mp4",), held_out_videos=("train02.mp4",))
    system, _ = checkpoint.load(trained)
    checkpoint.save(Storage(trained), system, card.model_copy(update={"training": training}))
    arguments = ["--checkpoint", trained, "--data", store, "--out", str(tmp_path / "out"), "--dry-run"]
    assert main(arguments) == 0
    for split in ("train", "all"):
        assert main([*arguments, "--split", split]) == 2
        error = capsys.readouterr().err
        assert "2 of the" in error
        assert "train00.mp4" in error
        assert "--set evaluate.allow_seen=true" in error
        assert main([*arguments, "--split", split, "--set", "evaluate.allow_seen=true"]) == 0


def test_two_sets_of_predictions_are_compared_on_the_same_videos(
    make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=2, validation=3, frames=20, unknown=0)
    truth = Predictions.of(FaceStore.open(store).labels("validation"), np.zeros((60, 12)))
    right, wrong = (str(tmp_path / f"{name}.parquet") for name in ("right", "wrong"))
    Path(right).write_bytes(truth.to_parquet(truth.labels == 1))
    Path(wrong).write_bytes(truth.to_parquet(np.ones((60, 12), dtype=bool)))
    command = ["--predictions", right, "--data", store, "--out", str(tmp_path / "out")]
    assert main([*command, "--against", wrong]) == 0
    found = json.loads((tmp_path / "out/scores.json").read_text())
    assert found["against"]["macro_f1"] == found["floor"]
    assert found["against"]["difference"] == 1 - found["floor"]
    assert f"macro F1 against {wrong}" in capsys.readouterr().out
    assert main([*command, "--against", str(tmp_path / "none.parquet")]) == 2
    assert "--against" in capsys.readouterr().err


def test_a_submission_and_a_table_of_predictions_are_scored_without_a_model(
    make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=2, validation=2, frames=40, unknown=0.2)
    rows = FaceStore.open(store).labels("validation")
    truth = Predictions.of(rows, np.zeros((80, 12)))
    decided = truth.labels == 1
    order = list(zip(truth.video_id.tolist(), truth.frame.tolist(), strict=True))
    by_video = {name: decided[truth.video_id == name] for name in dict.fromkeys(truth.video_id)}
    (tmp_path / "submission.txt").write_text(submission.write_single(order, by_video))
    (tmp_path / "predictions.parquet").write_bytes(truth.to_parquet(decided))
    (tmp_path / "people.csv").write_text("video_id,gender\nvalidation00.mp4,w\nvalidation01.mp4,m\n")
    for name in ("submission.txt", "predictions.parquet"):
        out = tmp_path / name.partition(".")[0]
        groups = ["--groups", str(tmp_path / "people.csv")]
        assert main(["--predictions", str(tmp_path / name), "--data", store, "--out", str(out), *groups]) == 0
        assert "macro F1 by gender:" in capsys.readouterr().out
        scores = json.loads((out / "scores.json").read_text())
        assert scores["macro_f1"] == scores["acc_exact"] == 1
        assert scores["n_frames"] == int(truth.labeled().sum())
        assert scores["per_au"]["AU01"]["threshold"] is None
        assert set(scores["groups"]["gender"]) == {"w", "m"}
        assert scores["stages"]["as_given"]["per_au"] == dict.fromkeys(facs.AUS, 1.0)
        assert (out / "scores.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "submission.txt").write_text(submission.write_single(order[:-12], by_video))
    assert main(["--predictions", str(tmp_path / "submission.txt"), "--data", store, "--out", str(tmp_path / "x")]) == 2
    assert "labeled rows have no prediction" in capsys.readouterr().err
    (tmp_path / "people.csv").write_text("video_id,gender\nanother.mp4,w\n")
    assert main(["--predictions", str(tmp_path / name), "--data", store, "--out", str(tmp_path / "x"), *groups]) == 2
    assert "none of the videos" in capsys.readouterr().err
