"""Jobs under `ray job submit`, against a head of their own with token authentication."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import processes
from harness.clips import scene, write_clip
from harness.clusters import free_port

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
TINY = [
    "model.width=16", "model.heads=2", "model.mlp_width=16", "input.size_px=32", "stages.train.batch=8",
    "stages.train.tasks.au.data.every_n=1",
]  # fmt: skip


class Head:
    """A Ray head. `environment` is what its users need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        dashboard = free_port()
        self.environment = {
            **os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 64, "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # jobs say `python`
        }  # fmt: skip
        # With --working-dir a job brings aupipe along; a path to another one would come first.
        self.environment.pop("PYTHONPATH", None)
        ports = [f"--port={free_port()}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
        ports.append(f"--dashboard-agent-listen-port={free_port()}")
        self.log = folder / "ray.log"
        self.process = subprocess.Popen(
            [RAY, "start", "--head", *ports, "--num-cpus=4", f"--temp-dir={folder}", "--block"],
            env=self.environment, stdout=self.log.open("w"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.environment["RAY_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
        deadline = time.monotonic() + 120
        while self.ray("job", "list").returncode:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()

    def ray(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [RAY, *arguments], check=False, env=self.environment, cwd=ROOT, capture_output=True, text=True
        )

    def submit(self, name: str, *command: str, wait: bool = True) -> subprocess.CompletedProcess:
        options = [] if wait else ["--no-wait"]
        return self.ray(
            "job", "submit", "--working-dir", ".", "--submission-id", name, *options, "--", "python", *command
        )

    def exit_code(self, name: str) -> int | None:
        """The job's own, which `ray job submit` does not hand on."""
        script = (
            "import sys\nfrom ray.job_submission import JobSubmissionClient\n"
            "print(JobSubmissionClient().get_job_info(sys.argv[1]).driver_exit_code)"
        )
        said = subprocess.run(
            [sys.executable, "-c", script, name], env=self.environment, capture_output=True, text=True, check=True
        )
        return None if said.stdout.strip() == "None" else int(said.stdout)

    def status(self, name: str) -> str:
        asked = self.ray("job", "status", name)
        said = asked.stdout + asked.stderr
        found = [word for word in ("succeeded", "failed", "stopped", "running", "pending") if word in said.lower()]
        assert found, said
        return found[0]

    def end(self) -> None:
        """End what belongs to this head, and nothing else."""
        processes.end(self.process.pid)
        self.process.wait()


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # short: Ray puts sockets below it
    found = Head(folder)
    yield found
    found.end()
    shutil.rmtree(folder, ignore_errors=True)


def train(store: str, out: str, epochs: int) -> list[str]:
    settings = [*TINY, f"stages.train.epochs={epochs}", "save_every_s=0"]
    chosen = ["--recipe", "multilabel_transformer", "--quick", "--data", store, "--out", out, "--workers", "1"]
    return ["jobs/train.py", *chosen, *(part for setting in settings for part in ("--set", setting))]


def test_what_fails_is_reported_and_a_folder_that_goes_with_the_job_is_refused(
    head: Head, make_store: Callable[..., str]
) -> None:
    unauthorized = {**head.environment, "RAY_AUTH_TOKEN": "f" * 64}
    refused = subprocess.run([RAY, "job", "list"], env=unauthorized, check=False, capture_output=True)
    assert refused.returncode != 0
    failed = head.submit("relative", *train(make_store(train=3, validation=2, frames=8), "run", 1))
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "is in the job's working directory" in failed.stdout
    assert head.exit_code("relative") == 2


# Exit code of a job → the status by which KubeRay decides, and whether it then builds a new cluster: FAILED alone does.
KUBERAY = {0: "succeeded", 1: "failed", 2: "stopped", 3: "succeeded", -11: "failed"}


def test_exit_codes_as_kuberay_sees_them(head: Head) -> None:
    for code in KUBERAY:
        ends = f"import os, sys; sys.exit({code})" if code >= 0 else f"import os; os.kill(os.getpid(), {-code})"
        wrapped = ["jobs/kuberay/entrypoint.py", "python", "-c", ends]
        assert head.submit(f"code{code}", *wrapped, wait=False).returncode == 0
    deadline = time.monotonic() + 120
    while (found := {code: head.status(f"code{code}") for code in KUBERAY}) != KUBERAY:
        assert time.monotonic() < deadline, (found, [head.ray("job", "logs", f"code{code}").stdout for code in found])
        time.sleep(1)
    assert "wrong usage" in head.ray("job", "logs", "code2").stdout


def test_what_travels_is_small(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    create_package(str(ROOT), tmp_path / "package.zip", include_gitignore=True, excludes=[".git", ".venv"])
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        sizes = {file.filename: file.compress_size for file in package.infolist()}
    # The models that annotate.py takes where nobody names one go along; all else is text.
    weights = sum(size for name, size in sizes.items() if name.startswith("aupipe/weights/"))
    assert weights < 20e6
    assert sum(sizes.values()) - weights < 2e6
    folders = {name.partition("/")[0] for name in sizes}
    assert {"aupipe", "jobs"} <= folders
    assert not {"tests", "demo", ".hypothesis"} & folders


@pytest.mark.slow
def test_train_stop_and_go_on_then_annotate(head: Head, make_store: Callable[..., str], tmp_path: Path) -> None:
    store, out = make_store(train=4, validation=2, frames=16), tmp_path / "run"
    command = train(store, str(out), 40)
    assert head.submit("first", *command, wait=False).returncode == 0
    deadline = time.monotonic() + 400
    while not (out / "metrics.jsonl").exists():
        assert head.status("first") in ("pending", "running"), head.ray("job", "logs", "first").stdout
        assert time.monotonic() < deadline
    stopped = head.ray("job", "stop", "first")
    assert stopped.returncode == 0
    assert head.status("first") == "stopped"
    assert not (out / "summary.json").exists()
    assert not (out / "_running.json").exists()  # it went in order, so the same command may follow at once
    done = len((out / "metrics.jsonl").read_text().splitlines())
    again = head.submit("second", *command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert head.exit_code("second") == 0
    epochs = [json.loads(line)["epoch"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(40))
    assert 0 < done < 40

    tables, places = tmp_path / "annotation", ["--checkpoint", str(out / "best"), "--out", str(tmp_path / "annotation")]
    write_clip(tmp_path / "clip.mp4", scene(20))
    annotated = head.submit("annotate", "jobs/annotate.py", "--input", str(tmp_path / "clip.mp4"), *places)
    assert annotated.returncode == 0, annotated.stdout + annotated.stderr
    assert list((tables / "frames").glob("*.parquet"))


@pytest.mark.slow
def test_a_search_as_a_job(head: Head, make_store: Callable[..., str], tmp_path: Path) -> None:
    _, *chosen = train(make_store(train=6, validation=2, frames=16), str(tmp_path / "search"), 2)
    searched = head.submit("search", "jobs/tune.py", *chosen, "--trials", "2")
    assert searched.returncode == 0, searched.stdout + searched.stderr
    assert head.exit_code("search") == 0
    assert json.loads((tmp_path / "search/summary.json").read_text())["trials"] == 2
