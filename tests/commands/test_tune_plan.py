"""The plan of a search: `tune.py --dry-run`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aupipe.commands import tune

pytestmark = pytest.mark.unit


def test_trials_with_recipes_of_their_own_do_not_stop_a_search(
    make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, store = tmp_path / "search", make_store(train=8, validation=3, frames=16)
    command = ["--recipe", "multilabel_transformer", "--quick", "--set", "stages.train.init=random", "--data", store]
    command += ["--out", str(out), "--trials", "2", "--dry-run"]
    # The trials of a search with shared stages begin with the checkpoints of these.
    (out / "trials/default").mkdir(parents=True)
    (out / "trials/default/run.json").write_text(json.dumps({"recipe": {"name": "without shared stages"}}))
    assert tune.main(command) == 0
    assert "2 trials" in capsys.readouterr().out
    (out / "run.json").write_text(json.dumps({"recipe": {"name": "another"}}))
    assert tune.main(command) == 2
    assert "contains a run with other settings" in capsys.readouterr().err
    (out / "run.json").unlink()
    (out / "videos.parquet").touch()
    assert tune.main(command) == 2
    assert "holds an annotation (videos.parquet)" in capsys.readouterr().err
