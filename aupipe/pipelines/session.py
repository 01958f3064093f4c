"""Connecting to Ray: the cluster this job was submitted to, or a fresh local one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import ray
import ray.data
from ray.autoscaler.sdk import request_resources

from aupipe import network
from aupipe.config import Resources
from aupipe.edge_errors import explain, running
from aupipe.errors import ConfigError, one_line
from aupipe.pipelines.ray_address import cluster_address, job_environment, local_options

Pool = Literal["decode", "infer", "train"]

# The first two warn of what we want: tokens, and no progress bars. The others log an error that is raised as well.
_CHATTY = {
    "ray._private.authentication.authentication_token_setup": logging.ERROR,
    "ray.data._internal.progress": logging.ERROR,
    "ray.data.exceptions": logging.CRITICAL,
    "ray.data._internal.execution.streaming_executor_state": logging.CRITICAL,
}


@contextmanager
def session(*, num_cpus: int | None = None, dashboard: bool = False, log_to_driver: bool = True) -> Iterator[None]:
    """Connect to Ray for the length of the block; an existing connection is used and left as it is.

    Inside `ray job submit`, or where RAY_ADDRESS names a cluster, that one is joined; otherwise a local one starts.
    The user's network settings go to the workers of a cluster too: a path among them is one on every node.

    Args:
        num_cpus: logical CPUs of a local Ray; default: the machine's cores.
        dashboard: start the dashboard of a local Ray (Ray Tune needs it to release placement groups).
        log_to_driver: show what workers log.

    Raises:
        ConfigError: Ray cannot be reached or started.
        EnvironmentFailure: in the block, a library at the edges failed on this machine or on a worker.
    """
    if ray.is_initialized():
        yield
        return
    for logger, level in _CHATTY.items():
        logging.getLogger(logger).setLevel(level)
    settings = network.environment()
    quiet = {"log_to_driver": log_to_driver, "logging_level": logging.WARNING}
    address = cluster_address()
    with ExitStack() as stack:
        if address is not None:
            env_vars = job_environment(settings)
            _start(
                f"RAY_ADDRESS: {address}",
                address=address,
                runtime_env={"env_vars": env_vars} if env_vars else None,
                **quiet,
            )
        else:
            # RAY_AUTH_MODE is read when ray is imported; unset, a local Ray makes its own token.
            options = stack.enter_context(local_options())
            _start("a local Ray", address="local", num_cpus=num_cpus, include_dashboard=dashboard, **options, **quiet)
        stack.callback(ray.shutdown)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # jobs print their own progress
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        with running():
            yield


def _start(what: str, **options: Any) -> None:
    """Call `ray.init`.

    Raises:
        ConfigError: for all that Ray raises there, since nothing of ours runs in it.
    """
    try:
        ray.init(**options)
    except Exception as error:
        ray.shutdown()  # or processes that did start would stay
        named = explain(error)
        fix = "see whether the machine is busy or has limits (`ulimit -a`), then run the same command again"
        reason = str(named) if named else f"{one_line(error).rstrip('.')}; fix: {fix}"
        raise ConfigError(f"{what} did not start: {reason}") from error


def label_selector_for(pool: Pool, resources: Resources) -> dict[str, str] | None:
    """Ray's label selector for what shall run on nodes of a pool; None: it may run anywhere."""
    wanted = pool in alive_pools() if resources.pools == "auto" else resources.pools
    return {"pool": pool} if wanted else None


def alive_pools() -> dict[str, int]:
    """How many nodes of each pool there are."""
    return Counter(node["Labels"]["pool"] for node in ray.nodes() if node["Alive"] and "pool" in node["Labels"])


def used_pools() -> dict[str, Counter[str]]:
    """CPUs and GPUs in use by pool."""
    free = ray._private.state.available_resources_per_node()
    found: dict[str, Counter[str]] = {}
    for node in ray.nodes():
        if node["Alive"] and (pool := node["Labels"].get("pool")) and (left := free.get(node["NodeID"])):
            has = {name: node["Resources"].get(name, 0) for name in ("CPU", "GPU")}
            used = Counter({name: int(count - left.get(name, 0)) for name, count in has.items()})
            found[pool] = found.get(pool, Counter()) + used
    return found


@contextmanager
def reserved_resources(needs: Sequence[tuple[Pool, Mapping[str, int]]], resources: Resources) -> Iterator[None]:
    """The autoscaler uses_audio what the block will need before tasks wait for it; and, at the end, that it is over.

    It brings nodes at once then, not a few at a time. Ray Data asks anew, now and then, for what it runs.

    Args:
        needs: one bundle of resources each.
    """
    selectors = [label_selector_for(pool, resources) or {} for pool, _ in needs]
    request_resources(bundles=[dict(bundle) for _, bundle in needs], bundle_label_selectors=selectors)
    try:
        yield
    finally:
        request_resources(bundles=[])


def device_of(resources: Resources) -> str:
    """Where models judge, as torch names it."""
    return resources.device if gpus_per_worker(resources) else "cpu"


def gpus_per_worker(resources: Resources) -> int:
    """1 if models run on a GPU, else 0. `auto` looks at what the cluster has now."""
    if resources.gpu == "auto":
        return 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
    return int(bool(resources.gpu))
