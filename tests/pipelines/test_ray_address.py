"""The choice of the Ray that a job runs on; a local one starts whatever TMPDIR and HOME are."""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from aupipe.errors import ConfigError
from aupipe.pipelines import ray_address, ray_internals

unit = pytest.mark.unit
JOBS = Path(__file__).parents[2] / "jobs"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", ray_internals.SUBMITTED_JOB):
        monkeypatch.setenv(name, "")  # so that monkeypatch also undoes what the code sets
        monkeypatch.delenv(name)


@unit
@pytest.mark.parametrize("address", ["", "  ", "local", None])
def test_without_an_address_a_local_ray_starts(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert ray_address.cluster_address() is None


@unit
def test_the_dashboard_of_a_cluster_is_found_by_the_ip_address_of_its_head() -> None:
    import ray.util

    here = ["127.0.0.1", ray.util.get_node_ip_address()]
    assert ray_address.dashboard_hosts(None) == ray_address.dashboard_hosts("auto") == here
    assert ray_address.dashboard_hosts("192.0.2.7:6379") == [*here, "192.0.2.7"]
    assert ray_address.dashboard_hosts("[2001:db8::7]:6379") == [*here, "2001:db8::7"]
    name = socket.gethostname()
    assert {name, socket.gethostbyname(name)} <= {*ray_address.dashboard_hosts(f"{name}:6379")}


@unit
@pytest.mark.parametrize(
    ("address", "fix"),
    [
        ("http://127.0.0.1:8265", "`ray job submit --working-dir . -- python jobs/…`, or `unset RAY_ADDRESS`"),
        ("https://me:s3cret@head.test", "`ray job submit --working-dir . -- python jobs/…`, or `unset RAY_ADDRESS`"),
        ("ray://127.0.0.1:10001", "run it on a node of the cluster"),
        ("anyscale://x", "run it on a node of the cluster"),
    ],
)
def test_an_address_of_another_kind_is_refused_at_once(address: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=r"^RAY_ADDRESS: ") as error:
        ray_address.cluster_address()
    assert fix in str(error.value)
    assert "s3cret" not in str(error.value)
    assert error.value.exit_code == 2


@unit
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:{closed}", "Connection refused"),
        ("127.0.0.1:{silent}", "no response within 2 s"),
        ("nosuch.invalid:6379", "gaierror"),
        ("garbage", "(HOST:PORT of a cluster's head)"),
        ("127.0.0.1:port", "(HOST:PORT of a cluster's head)"),
        ("127.0.0.1:99999", "(HOST:PORT of a cluster's head)"),
    ],
)
def test_a_cluster_that_is_gone_is_reported_within_seconds(
    address: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_address, "_RESPONSE_TIMEOUT_S", 2)
    with socket.socket() as silent, socket.socket() as closed:  # accepts connections and never responds
        for each in (silent, closed):
            each.bind(("127.0.0.1", 0))
        silent.listen(8)
        ports = {"silent": silent.getsockname()[1], "closed": closed.getsockname()[1]}
        monkeypatch.setenv("RAY_ADDRESS", address.format(**ports))
        start = time.monotonic()
        with pytest.raises(ConfigError, match=r"^RAY_ADDRESS: ") as error:
            ray_address.cluster_address()
    assert reason in str(error.value)
    assert "`unset RAY_ADDRESS`" in str(error.value)
    assert time.monotonic() - start < 60  # the import of Ray takes most of it on a busy machine


@unit
@pytest.mark.parametrize("command", ["train", "tune", "evaluate", "annotate"])
def test_a_wrong_address_is_found_before_any_model_is_loaded(command: str, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        options = {
            "train": ["--recipe", "region_relation", "--quick", "--data", "missing"],
            "tune": ["--recipe", "region_relation", "--quick", "--data", "missing"],
            "evaluate": ["--checkpoint", "missing", "--data", "missing"],
            "annotate": [__file__, "--checkpoint", "missing"],
        }[command]
        done = subprocess.run(
            [sys.executable, str(JOBS / f"{command}.py"), *options, "--out", str(tmp_path / "out")],
            capture_output=True, text=True, env=os.environ | {"RAY_ADDRESS": address}, check=False,
        )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert f"RAY_ADDRESS: {address} is no cluster that responds: ConnectionRefusedError" in done.stderr
    assert not (tmp_path / "out").exists()


@unit
def test_a_submitted_job_uses_the_address_that_ray_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    given = {"runtime_env": {"working_dir": "x", "env_vars": {"http_proxy": "http://a:1"}}}
    monkeypatch.setenv(ray_internals.SUBMITTED_JOB, json.dumps(given))
    assert ray_address.cluster_address() == "127.0.0.1:1"
    variables = {"http_proxy": "http://b:2", "no_proxy": "c"}
    assert ray_address.job_environment(variables) == {"no_proxy": "c"}  # Ray refuses a variable that is set twice
    monkeypatch.setenv(ray_internals.SUBMITTED_JOB, json.dumps({"runtime_env": None}))
    assert ray_address.job_environment(variables) == variables


def home(folder: Path, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    monkeypatch.setenv("HOME", str(folder))
    if token is not None:
        (folder / ".ray").mkdir()
        (folder / ".ray" / "auth_token").write_text(token)


@unit
def test_a_short_temporary_folder_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    with ray_address.local_options() as options:
        assert options == {}


@unit
@pytest.mark.parametrize(("more", "short"), [(0, False), (1, True)])
def test_a_folder_is_too_long_by_one_byte(more: int, short: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        sockets = "/ray/session_2026-11-28_02-24-11_377277_4194304/sockets/plasma_store.1"
        top = Path(parent) / ("x" * (107 + more - len(sockets) - len(parent) - 1))
        top.mkdir()
        monkeypatch.setenv("TMPDIR", str(top))
        with ray_address.local_options() as options:
            assert ("_temp_dir" in options) == short


@unit
@pytest.mark.parametrize("letter", ["x", "ü"])
def test_a_long_folder_gets_spilled_objects_and_a_short_one_the_sockets(
    letter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / (letter * 60)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    with ray_address.local_options() as options:
        assert options["object_spilling_directory"] == str(long)
        folder = Path(options["_temp_dir"])
        sockets = f"{folder}/session_2026-11-28_02-24-11_377277_4194304/sockets/plasma_store.1"
        assert len(os.fsencode(sockets)) <= 107
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "a").write_text("x")
    assert not folder.exists()


@unit
@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize("place", ["/proc", "/proc/nosuch/dir", "a file"])
def test_a_folder_that_cannot_be_written_is_not_used(
    name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_text("")
    monkeypatch.setenv(name, f"{tmp_path}/f" if place == "a file" else place)
    with ray_address.local_options() as options:
        assert list(options) == ["_temp_dir"]


@unit
def test_no_folder_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/proc")
    monkeypatch.setattr(ray_address, "_SHORT_FOLDERS", ("/proc", "/proc/self"))
    with (
        pytest.raises(
            ConfigError, match=r"^temporary folder: /proc, /proc, /proc/self \(.*\); fix: export RAY_TMPDIR="
        ),
        ray_address.local_options(),
    ):
        pass


@unit
@pytest.mark.parametrize(("limit", "starts"), [(1023, False), (1024, True), (resource.RLIM_INFINITY, True)])
def test_too_few_open_files_are_an_error(limit: int, starts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, limit))
    if starts:
        with ray_address.local_options():
            pass
        return
    with pytest.raises(ConfigError, match=r"^limit on open files: 1023 "), ray_address.local_options():
        pass


@unit
@pytest.mark.parametrize(("token", "kept"), [(None, False), ("", False), ("\n", False), ("abc", True)])
def test_the_token_is_in_memory_unless_a_file_has_it(
    token: str | None, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home(tmp_path, monkeypatch, token)
    with ray_address.local_options():
        first = os.environ.get("RAY_AUTH_TOKEN")
    assert (first is None) == kept
    with ray_address.local_options():
        assert os.environ.get("RAY_AUTH_TOKEN") == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ([] if token is None else [".ray"])


_STARTS = """
import errno, os, ray
from aupipe.edge_errors import explain
from aupipe.errors import AupipeError
from aupipe.pipelines.session import session

def full(row):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/out/a.parquet")

def ours(row):
    return row["id"].nosuch

def seen(body):
    try:
        with session(num_cpus=1, log_to_driver=False):
            body()
    except Exception as error:
        print(type(error).__name__, getattr(error, "exit_code", None), str(error).splitlines()[0])

seen(lambda: print("proxy", ray.get(ray.remote(lambda: os.environ.get("https_proxy")).remote())))
seen(lambda: ray.data.range(3).map_batches(full).materialize())
seen(lambda: ray.data.range(3).map_batches(ours).materialize())
"""


@pytest.mark.cluster
@pytest.mark.slow  # tests/pipelines/test_ray_internals.py starts a local Ray in make test
def test_a_local_ray_starts_and_its_workers_errors_have_a_sentence(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 20)
    long.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"TMPDIR": str(long), "HOME": "/proc/nobody", "ALL_PROXY": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", _STARTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    lines = done.stdout.splitlines()
    assert lines[0] == "proxy http://127.0.0.1:9", done.stderr[-1000:]
    assert lines[1].startswith("EnvironmentFailure 1 /out/a.parquet: No space left on device; fix: free space")
    assert lines[2].startswith("RayTaskError(UserCodeException) None ")
    assert len(lines) == 3
    assert "Exception occurred in user code" not in done.stderr
