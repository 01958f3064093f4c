"""What is on disk: the claim on a folder, and a video that says of itself when it is complete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aupipe.errors import ConfigError
from aupipe.storage import Storage
from aupipe.synthesis.dataset import Spec, SynthesisConfig, check, claim, describe

pytestmark = pytest.mark.unit


def spec(seed: int = 0, **config: object) -> Spec:
    return Spec(videos=6, seconds=0.6, seed=seed, edition="abaw5", config=SynthesisConfig.model_validate(config))


def test_a_folder_belongs_to_one_data_set(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "set")
    assert "0 done" in describe(spec(), storage)
    assert not storage.names()  # a dry run leaves nothing
    claim(spec(), storage)
    check(spec(), storage)
    with pytest.raises(ConfigError, match="seed 0, not 1"):
        check(spec(seed=1), storage)
    with pytest.raises(ConfigError, match="config"):
        check(spec(render={"samples": 9}), storage)
    assert json.loads(storage.read("dataset.json"))["licence"] == "CC0-1.0"


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="new folder"):
        claim(spec(), Storage(tmp_path))
