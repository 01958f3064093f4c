"""The start of a local Ray is quiet, and no process of it is left after its end."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aupipe.pipelines import ray_internals

_STUBBORN = """
import atexit, json, logging, os, signal, subprocess, sys, time
import ray
from aupipe.pipelines import processes
from aupipe.pipelines.session import session

logging.basicConfig(level=logging.INFO, format="%(message)s")

class Stubborn:
    def pids(self):
        ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
        child = subprocess.Popen([sys.executable, "-c", ignore], start_new_session=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        atexit.register(time.sleep, 3600)
        return {"pid": os.getpid(), "child": child.pid}

class Model:
    def __init__(self, weights):
        pass

    def __call__(self, row):
        print("print of a worker", flush=True)
        logging.getLogger("aupipe").warning("warning of a worker")
        return row

with session(num_cpus=3):
    logging.getLogger("aupipe").info("message of the driver")
    pool = ray.data.ActorPoolStrategy(size=2)
    rows = ray.data.from_items([{"row": 0}], override_num_blocks=1)
    list(rows.map(Model, fn_constructor_args=(ray.put(b"0" * 2**20),), compute=pool).iter_rows())
    stubborn = ray.remote(Stubborn).remote()
    row = ray.get(stubborn.pids.remote())
    tree = processes.ProcessTree(processes.children())
    tree.collect()
    pids = [each.pid for each in tree.alive()]
    time.sleep(1)  # until Ray has forwarded what the worker printed
    end = time.monotonic()
print(json.dumps({"row": row, "pids": pids, "end_s": time.monotonic() - end}), flush=True)
"""
_WORKER_PREFIX = re.compile(r"^(\x1b\[\d+m)?\(.*pid=\d+\)(\x1b\[0m)? ")
_STARVED = "Cluster resources are not enough to run any task"
_JOINS = """
import ray
from aupipe.pipelines.session import session
with session():
    print(ray.get(ray.remote(lambda: "joined").remote()))
"""

_NAMES_ITS_PYTHON = """
import os, sys
import ray
from aupipe.pipelines.session import session
with session(num_cpus=1):
    print(ray.get(ray.remote(lambda: sys.executable).remote()) == sys.executable, flush=True)
    print(ray.get(ray.remote(lambda: os.getcwd()).remote()) == os.getcwd(), flush=True)
"""

_HAS_A_GPU_THAT_TORCH_CANNOT_USE = """
import logging, sys
import ray
from aupipe.config import Resources
from aupipe.errors import ConfigError
from aupipe.pipelines.session import gpus_per_worker, session
logging.basicConfig(format="%(message)s")
init = ray.init
ray.init = lambda **options: init(**{"num_gpus": 1} | options)
resources = Resources(gpu="auto" if sys.argv[1] == "auto" else True, device="meta")
try:
    with session(resources, num_cpus=1):
        print("GPUs per worker:", gpus_per_worker(resources))
except ConfigError as error:
    print(error)
"""

_ASKS_FOR_A_GPU = """
from aupipe.config import Resources
from aupipe.errors import ConfigError
from aupipe.pipelines.session import session
try:
    with session(Resources(gpu=True), num_cpus=1):
        print("started")
except ConfigError as error:
    print(error)
"""


def run(script: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.cluster
@pytest.mark.timeout(1200)
def test_a_local_ray_is_quiet_and_ends_with_its_job_and_another_one_lives_on() -> None:
    import ray

    from aupipe.pipelines import processes
    from aupipe.pipelines.session import session

    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with session(num_cpus=1):
        ray.get(ray.remote(lambda: 1).remote())  # so that there is a worker
        others = processes.children()  # raylet, GCS and their helpers; idle workers may end by themselves

        done = run(_STUBBORN, environment)
        assert done.returncode == 0, done.stderr[-2000:]
        result = json.loads(done.stdout.splitlines()[-1])
        # The terminal shows what code of aupipe prints and logs. On a busy machine Ray may add one warning: no task
        # could start for 10 s, on which a user of a cluster can act.
        lines = [_WORKER_PREFIX.sub("", line) for line in done.stderr.splitlines() if _STARVED not in line]
        assert sorted(lines) == ["message of the driver", "warning of a worker"]
        assert sum("print of a worker" in line for line in done.stdout.splitlines()) == 1
        assert len(done.stdout.splitlines()) == 2

        assert {result["row"]["pid"], result["row"]["child"]} <= set(result["pids"])
        deadline = time.monotonic() + 10 - result["end_s"]
        while (left := [pid for pid in result["pids"] if os.path.exists(f"/proc/{pid}/exe")]) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.1)
        assert left == []

        address = ray.get_runtime_context().gcs_address
        token = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")}
        done = run(_JOINS, environment | token | {"RAY_ADDRESS": address})
        assert done.stdout.splitlines() == ["joined"], done.stderr[-2000:]
        # The autoscaler of a cluster may add GPUs. A local Ray has none, which a job would wait for without end.
        done = run(_ASKS_FOR_A_GPU, environment | token | {"RAY_ADDRESS": address})
        assert done.stdout.splitlines() == ["started"], done.stderr[-2000:]
        done = run(_ASKS_FOR_A_GPU, environment | {"CUDA_VISIBLE_DEVICES": ""})
        assert done.stdout.startswith("resources.gpu=true: Ray finds no GPU on this machine"), done.stderr[-2000:]
        assert set(processes.ProcessTree(others).alive()) == others
        assert ray.get(ray.remote(lambda: 1).remote()) == 1


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("gpu", "printed", "logged"),
    [
        ("auto", "GPUs per worker: 0", "models run on CPUs, because torch cannot use the GPU of this machine: "),
        pytest.param(
            "true", "resources.gpu=true: torch cannot use the GPU of this machine (", "", marks=pytest.mark.slow
        ),
    ],
)
def test_a_gpu_that_torch_cannot_use(gpu: str, printed: str, logged: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = run(_HAS_A_GPU_THAT_TORCH_CANNOT_USE, environment, gpu)
    assert done.stdout.startswith(printed), done.stderr[-2000:]
    assert logged in done.stderr


@pytest.mark.cluster
def test_uv_run_sends_no_folder_and_workers_have_the_same_python(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(_NAMES_ITS_PYTHON)
    # Ray recognizes `uv run` by the command line of a parent process.
    (tmp_path / "run").write_text(f"{sys.executable} job.py; true\n")
    done = subprocess.run(
        ["bash", "-c", "exec -a uv sh run"], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout.split() == ["True", "True"], done.stderr[-2000:]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("line", "dropped"),
    [
        ("[2026-11-28 03:14:57,814 E 323 323] core_worker.cc:2740: Actor with class name: 'M' …", True),
        ("[2026-11-28 03:14:57,814 E 323 400] core_worker_process.cc:837: Failed to establish connection to", True),
        ("[2026-11-28 03:14:57,814 W 323 323] (raylet) worker_pool.cc:550: Some workers have not registered", True),
        ("[2026-11-28 03:14:57,814 C 323 323] core_worker.cc:1: An unexpected system state has occurred", False),
        ("[2026-11-28 03:14:57] reading core_worker.cc:1", False),
        ("03:14:57 WARNING clip.mp4: the soundtrack ends early", False),
        ("Traceback (most recent call last):", False),
        ("", False),
    ],
)
def test_only_lines_of_rays_c_code_are_dropped(line: str, dropped: bool) -> None:
    assert ray_internals.is_backend_line(line) is dropped


@pytest.mark.unit
def test_hints_are_dropped_and_other_warnings_of_the_same_logger_are_not(caplog: pytest.LogCaptureFixture) -> None:
    import warnings

    name = "ray.data._internal.execution.operators.map_operator"
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.WARNING, logger=name):
        warnings.simplefilter("always")
        ray_internals.silence_loggers()
        ray_internals.silence_loggers()  # a second session in one process
        assert len(logging.getLogger(name).filters) == 1
        logging.getLogger(name).warning("Specifying both num_cpus and num_gpus for map tasks is experimental, …")
        logging.getLogger(name).warning("The UDF of operator Map is too large")
        warnings.warn("The maximum number of concurrent tasks for 'Map' is set to 2, but …", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert [str(each.message) for each in caught] == ["another"]
    assert [record.getMessage() for record in caplog.records] in ([], ["The UDF of operator Map is too large"])


@pytest.mark.unit
def test_the_level_of_the_c_code_is_set_for_the_connection_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import worker

    levels = []
    name = "RAY_BACKEND_LOG_LEVEL"
    monkeypatch.setenv(name, "")
    monkeypatch.delenv(name)
    monkeypatch.setattr(worker, "connect", lambda: levels.append(os.environ.get(name)))
    original = worker.connect
    with ray_internals.quiet_driver():
        worker.connect()
        assert name not in os.environ
    assert worker.connect is original
    monkeypatch.setenv(name, "debug")
    with ray_internals.quiet_driver():
        worker.connect()
    assert levels == ["fatal", "debug"]


@pytest.mark.unit
def test_a_fixed_group_waits_for_nodes_and_an_elastic_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
    monkeypatch.delenv(name, raising=False)
    with ray_internals.group_start_timeout(elastic=True):
        assert float(os.environ[name]) < 10
    with ray_internals.group_start_timeout(elastic=False):
        assert float(os.environ[name]) > 600
    assert name not in os.environ
    monkeypatch.setenv(name, "77")
    with ray_internals.group_start_timeout(elastic=False):
        assert os.environ[name] == "77"
    assert os.environ[name] == "77"
