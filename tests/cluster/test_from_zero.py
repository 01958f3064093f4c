"""Jobs on the clusters that the shipped files describe, from zero nodes. Nodes are processes, and GPUs are numbers."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from harness.autoscale import AutoscalingCluster
from harness.clips import scene, write_clip

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TINY = [
    "model.width=16", "model.heads=2", "model.mlp_width=16", "input.size_px=32", "stages.train.batch=8",
    "stages.train.epochs=1", "stages.train.tasks.au.data.every_n=1", "stages.train.tasks.au.data.held_out=0.25",
]  # fmt: skip
ON_DEMAND = ["resources.gpu=true", "resources.pools=true", "resources.device=cpu"]  # a GPU of these nodes is no GPU


@contextmanager
def nodes_of(file: str, update_s: int = 1) -> Iterator[AutoscalingCluster]:
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # short: Ray creates sockets below it
    try:
        with AutoscalingCluster(ROOT / file, folder / "ray", idle_s=60, cpus=2, update_s=update_s) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(cluster: AutoscalingCluster, job: str, *arguments: str, settings: list[str]) -> str:
    options = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, f"jobs/{job}.py", *arguments, *options]
    ended = subprocess.run(
        command, cwd=ROOT, env=cluster.environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


RECIPE = ["--recipe", "multilabel_transformer", "--quick"]


def test_training_calibration_and_evaluation(make_store: Callable[..., str], tmp_path: Path) -> None:
    store = make_store(train=6, validation=2, frames=16)
    entrypoint = yaml.safe_load((ROOT / "jobs/kuberay/train.yaml").read_text())["spec"]["entrypoint"]
    shipped = {value for option, value in itertools.pairwise(shlex.split(entrypoint)) if option == "--set"}
    assert set(ON_DEMAND) - {"resources.device=cpu"} <= shipped
    with nodes_of("jobs/kuberay/train.yaml") as cluster:
        places = ["--data", store, "--out", str(tmp_path / "run"), "--workers", "1-2"]
        run(cluster, "train", *RECIPE, *places, settings=TINY + ON_DEMAND)
        assert json.loads((tmp_path / "run/summary.json").read_text())["macro_f1"] >= 0
    with nodes_of("cluster.yaml") as cluster:
        places = ["--checkpoint", str(tmp_path / "run/best"), "--data", store, "--split", "validation"]
        run(cluster, "evaluate", *places, "--out", str(tmp_path / "scores"), settings=ON_DEMAND)
        assert (tmp_path / "scores/scores.json").exists()


def test_trials_of_a_search_run_at_the_same_time(make_store: Callable[..., str], tmp_path: Path) -> None:
    store = make_store(train=8, validation=2, frames=16)
    with nodes_of("cluster.yaml") as cluster:
        places = ["--data", store, "--out", str(tmp_path / "search"), "--trials", "4", "--concurrent", "2"]
        run(cluster, "tune", *RECIPE, *places, settings=TINY + ON_DEMAND)
    table = pq.read_table(tmp_path / "search/trials.parquet").to_pylist()
    assert [row["status"] for row in table] == ["finished"] * 4
    began = sorted(row["began"] for row in table)
    assert began[1] < min(row["ended"] for row in table)


def test_annotation_on_the_pools_of_its_kubernetes_file(exported_checkpoint: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", scene(12, size=(96, 72), face=64, seed=0))
    with nodes_of("jobs/kuberay/annotate.yaml") as cluster:
        places = ["--input", f"{tmp_path}/clip.mp4", "--checkpoint", exported_checkpoint, "--out", f"{tmp_path}/out"]
        run(cluster, "annotate", *places, "--workers", "2", settings=["engine=ray", *ON_DEMAND])
    assert pq.read_table(tmp_path / "out/videos.parquet")["status"].to_pylist() == ["ok"]


def test_waiting_for_nodes_is_no_lack_of_progress(exported_checkpoint: str, tmp_path: Path) -> None:
    """The first node starts 90 s after the cluster, and the guard ends a job after 50 s."""
    for number in range(2):
        write_clip(tmp_path / f"in/{number}.mp4", scene(12, size=(96, 72), face=64, seed=number))
    settings = ["engine=ray", "resources.pools=true", "resources.gpu=false", "limits.no_progress_s=50"]
    with nodes_of("cluster.yaml", update_s=90) as cluster:
        places = ["--input", f"{tmp_path}/in", "--checkpoint", exported_checkpoint, "--out", f"{tmp_path}/out"]
        run(cluster, "annotate", *places, "--workers", "1", settings=settings)
    assert pq.read_table(tmp_path / "out/videos.parquet")["status"].to_pylist() == ["ok", "ok"]
