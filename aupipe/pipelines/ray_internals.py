"""Every private call, attribute and setting of Ray that aupipe uses, each with the Ray version and the reason.

No other module of the package names `ray._private`, `ray.data._internal` or `ray.train.*._internal` (asserted by
tests/test_imports.py), so this is the one page to read when Ray is upgraded. Ray is imported inside the functions,
because jobs import this module before they decide whether they need Ray.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.tune.schedulers import ASHAScheduler

# A line that Ray's C++ code logs in a worker or in the raylet: "[2026-11-28 03:14:57,814 E 323 323] file.cc:12: text".
# Level C is left out, because a failed check that ends the process explains a crash.
_BACKEND_LINE = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [DIWE] \d+ \d+\] (\([\w-]+\) )?\w+\.(cc|h):\d+: ")
# Logger → the start of the messages that are dropped there.
_DROPPED_MESSAGES = {
    "ray.data._internal.execution.operators.map_operator": "Specifying both num_cpus and num_gpus for map tasks",
}
# Logger → the level from which its messages reach the terminal.
_LOGGER_LEVELS = {
    "ray._private.authentication.authentication_token_setup": logging.ERROR,
    "ray.data": logging.WARNING,
    "ray.data._internal.progress": logging.ERROR,
    "ray.data.exceptions": logging.CRITICAL,
    "ray.data._internal.execution.streaming_executor_state": logging.CRITICAL,
}
_CONCURRENCY_HINT = r"The (minimum|maximum) number of concurrent (actors|tasks) for "
_BACKEND_LOG_LEVEL = "RAY_BACKEND_LOG_LEVEL"


class _DropMessages(logging.Filter):
    """A filter that drops the messages of one logger that start with a given text."""

    def __init__(self, start: str) -> None:
        super().__init__()
        self._start = start

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self._start)


def silence_loggers() -> None:
    """Keep messages of Ray's Python code that no user can act on away from the terminal. Ray 2.60.

    * `authentication_token_setup` warns that a token is in use, which is what aupipe asks for.
    * `ray.data._internal.progress` warns that progress bars are off. Jobs print their own progress.
    * `ray.data.exceptions` and `streaming_executor_state` log an error that is raised as well.
    * `map_operator` warns that a stage with CPUs and GPUs is experimental. The sizes of stages are aupipe's choice.
    * Concurrency hints (`warnings.warn` of the map operators) advise more blocks for an input with few videos.
    """
    for name, level in _LOGGER_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    for name, start in _DROPPED_MESSAGES.items():
        logger = logging.getLogger(name)
        if not any(isinstance(each, _DropMessages) for each in logger.filters):
            logger.addFilter(_DropMessages(start))
    warnings.filterwarnings("ignore", message=_CONCURRENCY_HINT)


@contextmanager
def quiet_driver() -> Iterator[None]:
    """Keep the errors that Ray's C++ code logs in this process away from stderr. Wrap `ray.init` with it. Ray 2.60.

    `core_worker.cc` reports, for every actor of Ray Data, "constructor arguments in the object store and max_restarts
    > 0": Ray Data puts the function of an operator into the object store and restarts its actors, so no argument of
    ours avoids it. `core_worker_process.cc` reports a metrics agent that started too late. Both go to stderr whatever
    the log level of Ray's Python code. What matters to a job is raised as an exception as well.

    The level of the C++ code is read from the environment when `ray.init` calls the private `connect`. It is set for
    that call alone: the raylet, the GCS and the workers, which start before or elsewhere, keep their log files. The
    file `python-core-driver-*.log` of the session stays nearly empty. A level that the user has set is kept. Ray logs
    that it has read the level before it applies it, so the lines of the call itself are filtered as well.
    """
    from ray._private import worker

    if _BACKEND_LOG_LEVEL in os.environ:
        yield
        return
    connect: Callable[..., Any] = worker.connect

    def quiet_connect(*args: Any, **kwargs: Any) -> Any:
        os.environ[_BACKEND_LOG_LEVEL] = "fatal"
        try:
            with _without_backend_lines_on_stderr():
                return connect(*args, **kwargs)
        finally:
            del os.environ[_BACKEND_LOG_LEVEL]

    worker.connect = quiet_connect
    try:
        yield
    finally:
        worker.connect = connect


@contextmanager
def _without_backend_lines_on_stderr() -> Iterator[None]:
    """Hold back what is written to the file descriptor of stderr in the block, and then write it without C++ lines."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if not is_backend_line(line):
                    sys.stderr.write(f"{line}\n")


@contextmanager
def workers_use_this_python() -> Iterator[None]:
    """Start the workers of a local Ray with the Python of this process, also under `uv run`. Ray 2.60.

    Wrap `ray.init` with it. Under `uv run`, Ray would upload the current folder, which fails from 512 MiB on, and `uv`
    would install the environment again for the workers. A variable that the user has set is kept.
    """
    from ray._private import ray_constants

    before = ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = before and "RAY_ENABLE_UV_RUN_RUNTIME_ENV" in os.environ
    try:
        yield
    finally:
        ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = before


def drop_backend_lines() -> None:
    """Forward to the terminal what workers print, without the lines that Ray's C++ code logs there. Ray 2.60.

    Call it after `ray.init`. With `log_to_driver`, Ray forwards the stderr of workers and of the raylet line by line.
    The lines of C++ code are about metrics agents that start late, connections to the GCS that end, and the signals
    by which a run ends its workers. They stay in the session's log files. The handler that Ray registers as
    "ray_print_logs" is replaced by one that filters lines and then calls it; `ray.shutdown` removes it by that name.
    """
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    name = "ray_print_logs"
    for handler_name, handler in list(dispatcher.handlers):
        if handler_name == name:
            dispatcher.remove_handler(name)
            dispatcher.add_handler(name, _without_backend_lines(handler))


def _without_backend_lines(handler: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def handle(batch: dict[str, Any]) -> None:
        lines = [line for line in batch["lines"] if not is_backend_line(line)]
        if lines:
            handler(batch | {"lines": lines})

    return handle


def is_backend_line(line: str) -> bool:
    """Return whether a line was logged by Ray's C++ code below the level at which it ends the process."""
    return _BACKEND_LINE.match(line) is not None


def temporary_folder(path: str) -> dict[str, str]:
    """Return the option of `ray.init` for the folder of sockets and logs. Ray 2.60.

    `_temp_dir` is private. The public variable RAY_TMPDIR is read by workers and user code as well.
    """
    return {"_temp_dir": path}


# The variable that Ray sets for the driver of a submitted job.
SUBMITTED_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def submitted_variables() -> frozenset[str] | None:
    """Return the names of the environment variables that a job was submitted with; None outside a submitted job.

    Ray 2.60 refuses a variable in `ray.init` that the submission has set too, and has no public call that lists them.
    """
    if SUBMITTED_JOB not in os.environ:
        return None
    runtime_env = json.loads(os.environ[SUBMITTED_JOB] or "{}").get("runtime_env") or {}
    return frozenset(runtime_env.get("env_vars") or {})


def submission_id() -> str:
    """Return the id of the submitted job that this process belongs to. Ray 2.60 has no public call for it.

    Raises:
        KeyError: the process does not belong to a submitted job.
    """
    identity: str = json.loads(os.environ[SUBMITTED_JOB])["metadata"]["job_submission_id"]
    return identity


def version_probe(timeout_s: float) -> str:
    """Return a script that prints the version of the Ray cluster at `sys.argv[1]`, for a process of its own. Ray 2.60.

    Public clients wait 40 s for an address that does not respond, and cannot be interrupted. The exit code is 0 for
    the version of this machine, 8 for another version, 7 for an error, which is printed, and 9 for no response. The
    timeout starts after the import of Ray, which may be slow itself.
    """
    return f"""
import os, socket, sys, threading
import ray
from ray._common.usage.usage_lib import get_cluster_metadata
from ray._private import services
from ray._raylet import GcsClient
threading.Timer({timeout_s}, os._exit, (9,)).start()
try:
    address = services.canonicalize_bootstrap_address(sys.argv[1])  # replaces 127.0.0.1 by the machine's own address
    host, port = (address if sys.argv[1] == "auto" else sys.argv[1]).rsplit(":", 1)
    socket.create_connection((host.strip("[]"), int(port)), {timeout_s}).close()
    version = (get_cluster_metadata(GcsClient(address=address)) or {{}}).get("ray_version", ray.__version__)
    print(f"\\n{{version}}", flush=True)
    code = 0 if version == ray.__version__ else 8
except BaseException as error:
    print(f"\\n{{type(error).__name__}}: {{' '.join(str(error).split())}}", flush=True)
    code = 7
os._exit(code)
"""


def available_resources_by_node() -> dict[str, dict[str, float]]:
    """Return node id → free resources. Ray 2.60; the public `ray.available_resources` adds up all nodes."""
    from ray._private import state

    return state.available_resources_per_node()


def configure_train() -> None:
    """Set the undocumented settings of Ray Train 2.60 for this job. A variable that is already set is kept.

    RAY_TRAIN_HEALTH_CHECK_INTERVAL_S: 0.5 instead of 2, because a report younger than a poll is lost if a worker dies.
    RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S: 1 instead of 5, because some notices come only seconds ahead.
    RAY_CHDIR_TO_TRIAL_DIR: off, so that a recipe's relative paths mean the same on the workers.
    """
    for name, value in {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }.items():
        os.environ.setdefault(name, value)


@contextmanager
def group_start_timeout(*, elastic: bool) -> Iterator[None]:
    """Set how long Ray Train waits for the nodes of a worker group that starts in the block. Ray 2.60.

    An elastic group starts on nodes that are there, and after a node is lost the first attempt waits for it in vain, so
    3 s (default: 60) are enough. A group of fixed size has to wait until its nodes have come, which takes minutes on a
    cloud; a new attempt would withdraw the request for them. A variable that is already set is kept.
    """
    name = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
    if name in os.environ:
        yield
        return
    os.environ[name] = "3" if elastic else "1800"
    try:
        yield
    finally:
        del os.environ[name]


def configure_tune() -> None:
    """Set the undocumented settings of Ray Tune 2.60 for this job. A variable that is already set is kept.

    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS: the run of a trial writes its own figures.
    TUNE_DISABLE_SIGINT_HANDLER: Ctrl-C ends a search as it ends any job.
    TUNE_DISABLE_STRICT_METRIC_CHECKING: a trial that fails before its first epoch has no score, and ends no search.
    RAY_AIR_NEW_OUTPUT: off, because the new output prints tables whatever `verbose` is.
    """
    for name, value in {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it warns of the figures that the first setting turns off


@contextmanager
def train_actors_use_this_cluster() -> Iterator[None]:
    """Pass the address of this Ray to the actors of Ray Train that start in the block. Ray 2.60.

    One of these actors releases the resources of a run that was stopped. It connects to the newest Ray of the machine
    by default, and ends a run that is unknown there. Ray Train copies the variables in ENV_VARS_TO_PROPAGATE.
    """
    import ray
    from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAY_ADDRESS"]
        else:
            os.environ["RAY_ADDRESS"] = before


def update_node_list() -> Callable[[], Any]:
    """Return a function that updates the nodes that Ray Train schedules on. Ray 2.60.

    Ray Train reads them from Ray Data's coordinator, which looks every 20 s. For so long a worker group would restart
    in vain with workers of a node that is gone.
    """
    from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
        get_or_create_autoscaling_coordinator,
    )

    return get_or_create_autoscaling_coordinator()._tick.remote


def replay_trial(scheduler: ASHAScheduler, name: str, scores: Sequence[float]) -> None:
    """Give a scheduler the scores per epoch of a trial of an earlier run. Ray 2.60.

    Ray Tune restores a scheduler only together with its own trials. ASHA reads nothing of a trial but its id, and
    nothing of the controller.
    """
    past = SimpleNamespace(trial_id=name)
    scheduler.on_trial_add(None, past)
    for epoch, score in enumerate(scores):
        scheduler.on_trial_result(None, past, {"epoch": epoch, "score": score})


def trial_error(trial: Any) -> BaseException | None:
    """Return the last error of a trial of Ray Tune, which keeps it in the trial's local folder alone. Ray 2.60."""
    file = trial.pickled_error_file
    if file is None:
        return None
    with open(file, "rb") as stream:
        error: BaseException = pickle.load(stream)
    return error
