import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aupipe.commands.train import main
from aupipe.pipelines import train_stage
from aupipe.training import recipe as recipes

pytestmark = pytest.mark.unit

HEAD_ONLY = "[{parameters: [encoder.au], schedule: {kind: milestones, lr: 0.1}}]"
QUICK = ["--recipe", "multilabel_transformer", "--quick"]


def test_dry_run_prints_parameters_and_steps_and_writes_nothing(
    make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=4, validation=2, frames=10, unknown=0)
    out = tmp_path / "run"
    arguments = ["--data", store, "--out", str(out), "--dry-run", "--set", "stages.train.batch=5"]
    assert main([*QUICK, *arguments]) == 0
    text = capsys.readouterr().out
    assert "15 crops of 3 videos (1 more held out), 3 steps per epoch, scored on 20" in text
    assert "epochs of batches of 5" in text
    assert "trainable" in text
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "nope"], "multilabel_transformer"),
        (["--recipe", "multilabel_transformer"], "--set stages.train.init=timm"),
        ([*QUICK, "--set", "stages.train.epoch=3"], "stages.train.epoch"),
        ([*QUICK, "--set", "stages.train.init=stage:first"], "names no earlier stage"),
        ([*QUICK, "--set", "stages.train.batch=9999"], "fewer than one batch of 9999"),
        ([*QUICK, "--set", "model.backbone=nonet"], "nonet"),
        ([*QUICK, "--workers", "99"], "stages.train.batch"),
        ([*QUICK, "--workers", "1-99"], "stages.train.batch"),
        ([*QUICK, "--set", "stages.train.accumulate=40", "--set", "stages.train.batch=10"], "stages.train.accumulate"),
        ([*QUICK, "--split", "fold:4"], "fold:3"),
        ([*QUICK, "--split", "train"], "--split train"),
        ([*QUICK, "--split", "people:0/0"], "people:K/N with K below N"),
        ([*QUICK, "--split", "people:2/2"], "people:K/N with K below N"),
        ([*QUICK, "--split", "people:0/7"], "6 people are too few for 7 folds of people"),
        ([*QUICK, "--split", "people:0/" + "9" * 5000], "no such split"),
        ([*QUICK, "--split", "fold:" + "9" * 5000], "no such split"),
        ([*QUICK, "--set", "seed=2024-13-45"], "not YAML"),
        ([*QUICK, "--set", "stages.train.tasks.au.data.held_out=0.6"], "tasks.au.data.held_out"),
        ([*QUICK, "--folds", "--split", "fold:1"], "--folds"),
        ([*QUICK, "--set", "fold.1.width=8"], "--folds"),
        (["--recipe", "region_relation"], "InsightFace"),
        (["--recipe", "expression_transfer"], "resnet50"),
        (
            [
                "--recipe",
                "expression_transfer",
                "--quick",
                "--set",
                "stages.aus.optimizer.groups=" + HEAD_ONLY,
                "--set",
                "stages.aus.init=random",
            ],
            "frozen parameters random",
        ),
    ],
)
def test_wrong_configuration_exits_2_and_names_it(
    arguments: list[str], message: str, make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=4, validation=2, frames=10)
    assert main([*arguments, "--data", store, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("positions", "code"), [(16, 0), (8, 0), (17, 2)])
def test_clips_shorter_than_the_models_windows_are_refused(
    positions: int, code: int, make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(train=8, validation=2, frames=48)
    command = ["--recipe", "prompt_tuning", "--quick", "--data", store, "--out", str(tmp_path / "run"), "--dry-run"]
    settings = [f"model.clip_frames={positions}", "stages.base.batch=2", "stages.prompts.batch=2"]
    assert main([*command, *(part for each in settings for part in ("--set", each))]) == code
    if code:
        error = capsys.readouterr().err
        assert "fix: --set stages.base.tasks.au.data.clip_frames=17, or give the model fewer" in error
        assert error.count("\n") == 1


def test_a_folder_that_is_no_store_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*QUICK, "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "preprocess.py" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--folds", "--dry-run"]])
def test_a_store_without_a_validation_split_is_refused_before_training(
    more: list[str], make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=8, validation=0, frames=10)
    arguments = [*QUICK, "--data", store, "--out", str(tmp_path / "run"), "--set", "stages.train.batch=8"]
    assert main([*arguments, *more]) == 2
    error = capsys.readouterr().err
    assert "no validation split to score AUs on; fix: give --split fold:0" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert main([*arguments, "--split", "fold:0", "--dry-run"]) == 0


def test_an_au_without_positives_is_named_once(
    make_store: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = [*QUICK, "--out", str(tmp_path / "run"), "--set", "stages.train.batch=8", "--dry-run"]
    assert main([*arguments, "--data", make_store(train=4, validation=2, frames=16, lacks=("AU15", "AU24"))]) == 0
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "no training row is positive for AU15, AU24" in warning
    caplog.clear()
    assert main([*arguments, "--data", make_store(train=8, validation=2, frames=48)]) == 0
    assert not caplog.records


def test_a_frozen_network_is_named_if_its_input_was_another(
    make_store: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(train=6, validation=2, frames=40)
    command = ["--recipe", "prompt_tuning", "--quick", "--data", store, "--out", str(tmp_path / "run"), "--dry-run"]
    started = [
        "stages.base.init=starter",
        "model.backbone=regnety_002",
        "stages.base.batch=2",
        "stages.prompts.batch=2",
    ]
    command += [part for each in started for part in ("--set", each)]
    assert main(command) == 0
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("stage base: the frozen network of starter was trained on other inputs")
    fix = warning.partition("fix: ")[2].split()
    caplog.clear()
    assert main([*command, *fix]) == 0
    assert not caplog.records
    trained = "stages.base.optimizer.groups=[{parameters: [''], schedule: {kind: milestones, lr: 0.1}}]"
    assert main([*command, "--set", trained]) == 0  # it adapts to its input
    assert not caplog.records


def test_videos_without_audio_are_named_to_a_model_that_uses_it(
    make_store: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(train=6, validation=2, frames=40)
    chosen = ["stages.identities=null", "stages.visual.init=random"]
    chosen += [f"stages.{stage}.batch=4" for stage in ("visual", "audio", "sequence")]
    command = ["--recipe", "multimodal", "--quick", "--data", store, "--out", str(tmp_path / "run"), "--dry-run"]
    command += [part for each in chosen for part in ("--set", each)]
    assert main(command) == 0
    assert not caplog.records
    for number in (1, 4):
        (Path(store) / f"audio/train{number:02d}.mp4.parquet").unlink()
    assert main(command) == 0
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [warning.partition(":")[0] for warning in warnings] == ["stage audio", "stage sequence"]
    assert "2 of 7 videos have no audio" in warnings[0]
    assert "as train01.mp4, and count as silent; fix: " in warnings[0]


def test_an_audio_visual_model_needs_a_store_with_audio(
    make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=8, validation=3, frames=32)
    arguments = ["--recipe", "multimodal", "--quick", "--data", store, "--out", str(tmp_path), "--dry-run"]
    assert main(arguments) == 0
    for file in Path(store, "audio").iterdir():
        file.rename(file.with_name("unused.mp4.parquet"))
    assert main(arguments) == 2
    assert f"stage audio uses audio, and {store} has none; fix: " in capsys.readouterr().err
    shutil.rmtree(Path(store, "audio"))  # as of crops without videos
    assert main(arguments) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("recipe", "stage", "settings", "least"),
    [
        ("expression_transfer", "aus", ["batch=1"], 2),
        ("expression_transfer", "aus", ["batch=7", "accumulate=2", "--workers", "2"], 8),
        ("expression_transfer", "aus", ["batch=3", "--workers", "1-2"], 4),
        ("region_relation", "train", ["batch=1"], 2),
        ("multilabel_transformer", "train", ["batch=1"], 1),
        ("multimodal", "sequence", ["batch=1", "tasks.expr=null", "model.outputs=[au]"], 1),  # clips of several frames
    ],
)
def test_batch_norm_needs_two_clips_per_part_of_a_batch(
    recipe: str, stage: str, settings: list[str], least: int, make_store: Callable[..., str], tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    arguments = ["--recipe", recipe, "--quick", "--data", make_store(train=8, validation=3, frames=32), "--dry-run"]
    arguments += ["--out", str(tmp_path), "--set", "resources.gpu=false"]
    for setting in settings:
        arguments += ["--set", f"stages.{stage}.{setting}"] if "=" in setting else [setting]
    assert main(arguments) == (2 if least > 1 else 0)
    if least > 1:
        error = capsys.readouterr().err
        assert f"fix: --set stages.{stage}.batch={least} (at least 2 per worker and accumulation step)" in error
        assert main([*arguments, "--set", f"stages.{stage}.batch={least}"]) == 0


@pytest.mark.parametrize(("name", "stage", "workers"), [("expression_transfer", "aus", 2), ("starter", "train", 4)])
def test_default_workers_leave_batch_norm_two_clips(
    name: str, stage: str, workers: int, make_store: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_stage, "slots", lambda resources: 9)
    plan = recipes.read(name, quick=True, overrides=[f"stages.{stage}.batch=5"])
    job = train_stage.TrainJob(plan, make_store(train=8, validation=3, frames=32), "out")
    assert train_stage._workers(job, stage, False) == workers


@pytest.mark.parametrize("workers", ["0", "3-1", "0-2", "2-", "two", "-1", "1-2-3"])
def test_workers_are_a_number_or_a_range(workers: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*QUICK, "--data", "store", "--out", "run", f"--workers={workers}"])
    assert "--workers" in capsys.readouterr().err
