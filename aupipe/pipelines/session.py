"""The connection to Ray: the cluster that the job was submitted to, or a new local one."""

from __future__ import annotations

import logging
import math
import os
import time
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
from aupipe.interrupts import sigterm_interrupts
from aupipe.periodic import periodically
from aupipe.pipelines import processes, ray_internals
from aupipe.pipelines.ray_address import cluster_address, dashboard_hosts, job_environment, local_options

logger = logging.getLogger(__name__)

Pool = Literal["decode", "infer", "train"]

# The time that the processes of a local Ray have for their own exit after `ray.shutdown`. In Ray 2.60 a worker can
# deadlock at its exit, when a publisher posts to an event loop that shuts down. It would hold its memory for ever.
_EXIT_GRACE_S = 2.0
_POLL_NODES_S, _LOG_WAIT_S = 0.5, 60.0
_ROW_S = 10.0  # at most: a crop in a large network on one CPU takes a second
_ROWS_PER_ACTOR = 1024  # at least; an actor imports torch and loads models for seconds
_COLLECT_S = 0.2  # between two looks for processes while Ray shuts down


@contextmanager
def session(
    resources: Resources | None = None,
    *,
    num_cpus: int | None = None,
    dashboard: bool = False,
    log_to_driver: bool = True,
) -> Iterator[None]:
    """Connect to Ray for the length of the block. An existing connection is used and stays open.

    In a submitted job, or if RAY_ADDRESS names a cluster, the job joins that cluster. Otherwise a local Ray starts, and
    none of its processes is left 10 s after the block. The processes of a cluster that was joined are not touched.
    The user's network settings are passed to the workers of a cluster too, so a path in them has to exist on every
    node. Messages of Ray that no user can act on do not reach the terminal (`ray_internals`).

    Args:
        resources: of the job, if parts of it may run on GPUs. A local Ray starts again without GPUs that torch cannot
            use.
        num_cpus: logical CPUs of a local Ray; default: the machine's cores.
        dashboard: start the dashboard of a local Ray (Ray Tune needs it to release placement groups).
        log_to_driver: show what workers log.

    Raises:
        ConfigError: Ray cannot be reached or started, or a GPU is asked for, and a local Ray has none for torch.
        EnvironmentFailure: in the block, a library at the edges failed on this machine or on a worker.
    """
    if ray.is_initialized():
        yield
        return
    ray_internals.silence_loggers()
    settings = network.environment()
    logs = {"log_to_driver": log_to_driver, "logging_level": logging.WARNING}
    address = cluster_address()
    if dashboard:  # Otherwise Ray Train asks a proxy whether a trial is alive, and never releases its resources.
        settings |= network.bypass_proxies(*dashboard_hosts(address))
    with ExitStack() as stack:
        if address is not None:
            env_vars = job_environment(settings)
            stack.callback(ray.shutdown)
            _start(
                f"RAY_ADDRESS: {address}",
                address=address,
                runtime_env={"env_vars": env_vars} if env_vars else None,
                **logs,
            )
        else:
            options = {"num_cpus": num_cpus, "include_dashboard": dashboard, **logs}
            stack.enter_context(_local_ray(**stack.enter_context(local_options()), **options))
            if resources is not None and not _can_use_gpus(resources):
                stack.close()
                stack.enter_context(_local_ray(**stack.enter_context(local_options()), **options, num_gpus=0))
        if log_to_driver:
            ray_internals.drop_backend_lines()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # jobs print their own progress
        context.print_on_execution_start = False
        with running(), sigterm_interrupts():
            yield


def _start(what: str, **options: Any) -> None:
    """Call `ray.init`.

    Raises:
        ConfigError: for every exception of Ray, since no code of aupipe runs in `ray.init`.
    """
    try:
        with ray_internals.quiet_driver():
            ray.init(**options)
    except Exception as error:
        named = explain(error)
        fix = "check whether the machine is busy or has limits (`ulimit -a`), then run the same command again"
        reason = str(named) if named else f"{one_line(error).rstrip('.')}; fix: {fix}"
        raise ConfigError(f"{what} did not start: {reason}") from error


@contextmanager
def _local_ray(**options: Any) -> Iterator[None]:
    """Run a local Ray for the length of the block, and then end its processes that outlive a grace period."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would send statistics of its use to its developers
    before = processes.children()
    tree = processes.ProcessTree(())
    try:
        try:
            with ray_internals.workers_use_this_python():
                _start("a local Ray", address="local", **options)
        finally:  # also after a start that failed halfway
            tree = processes.ProcessTree(processes.children() - before)
        yield
    finally:
        tree.collect()
        with periodically(tree.collect, _COLLECT_S):
            ray.shutdown()
        tree.end(_EXIT_GRACE_S)


def _can_use_gpus(resources: Resources) -> bool:
    """Return whether torch can use the GPUs of the local Ray, or there are none; if not, log the reason.

    Raises:
        ConfigError: a GPU is asked for, and there is none that torch can use.
    """
    if resources.gpu is False:
        return True
    has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
    if resources.gpu is True and not has_gpus:
        raise ConfigError(
            "resources.gpu=true: Ray finds no GPU on this machine, and tasks would wait for one without end; "
            "fix: leave it out, or set RAY_ADDRESS to the address of a cluster that adds GPU nodes"
        )
    if not has_gpus or resources.device == "cpu":
        return True

    def fault(device: str) -> str:
        from aupipe.models.torch_model import device_fault

        return device_fault(device)

    # A process of its own, because torch would take memory of the GPU in this one until it ends.
    cause: str = ray.get(ray.remote(num_cpus=0, num_gpus=1, max_calls=1)(fault).remote(resources.device))
    if cause and resources.gpu is True:
        raise ConfigError(f"resources.gpu=true: torch cannot use the GPU of this machine ({cause}); fix: leave it out")
    if cause:
        logger.warning("models run on CPUs, because torch cannot use the GPU of this machine: %s", cause)
    return not cause


def label_selector_for(pool: Pool, resources: Resources) -> dict[str, str] | None:
    """Return Ray's label selector for the nodes of a pool; None: any node."""
    selects = pool in alive_pools() if resources.pools == "auto" else resources.pools
    return {"pool": pool} if selects else None


def room(pool: Pool, resources: Resources) -> Counter[str]:
    """Return the CPUs and GPUs of the nodes of a pool that are alive, in use or not."""
    selector = label_selector_for(pool, resources) or {}
    nodes = [node for node in ray.nodes() if node["Alive"] and selector.items() <= node["Labels"].items()]
    return Counter({name: int(sum(node["Resources"].get(name, 0) for node in nodes)) for name in ("CPU", "GPU")})


def slots(resources: Resources, pool: Pool = "train") -> int:
    """Return the number of copies of a model that the nodes of a pool have room for now, at least 1."""
    return max(room(pool, resources)["GPU" if gpus_per_worker(resources) else "CPU"], 1)


def actor_pool(resources: Resources, tasks: int, rows: int, pool: Pool = "train") -> ray.data.ActorPoolStrategy:
    """Return actors on a pool of nodes for so many tasks of models, over so many rows.

    It requests all actors at the start, so that the autoscaler starts all nodes at once, and works as soon as one is
    there. Ray Data would not request more of them later (ray-project/ray#59144).
    """
    size = max(min(resources.workers or slots(resources, pool), tasks, math.ceil(rows / _ROWS_PER_ACTOR)), 1)
    return ray.data.ActorPoolStrategy(min_size=1, max_size=size, initial_size=size)


def with_time_for(rows: int, execution: ray.data.Dataset) -> ray.data.Dataset:
    """Return an execution that Ray Data does not end while a task with so many rows may still be working.

    Ray Data ends one without any result for half an hour, and a task has a result at its end. The limit is not lifted,
    because Ray Data repeats a task whose worker dies every time without end.
    """
    if execution.context.execution_no_progress_timeout_s > 0:  # -1: the user has lifted it
        execution.context.execution_no_progress_timeout_s += _ROW_S * rows
    return execution


def alive_pools() -> dict[str, int]:
    """Return pool → number of live nodes."""
    return Counter(node["Labels"]["pool"] for node in ray.nodes() if node["Alive"] and "pool" in node["Labels"])


def used_pools() -> dict[str, Counter[str]]:
    """Return pool → CPUs and GPUs in use."""
    free = ray_internals.available_resources_by_node()
    found: dict[str, Counter[str]] = {}
    for node in ray.nodes():
        if node["Alive"] and (pool := node["Labels"].get("pool")) and (available := free.get(node["NodeID"])):
            total = {name: node["Resources"].get(name, 0) for name in ("CPU", "GPU")}
            used = Counter({name: int(count - available.get(name, 0)) for name, count in total.items()})
            found[pool] = found.get(pool, Counter()) + used
    return found


@contextmanager
def reserved_resources(bundles: Sequence[tuple[Pool, Mapping[str, int]]], resources: Resources) -> Iterator[None]:
    """Request the resources of the block from the autoscaler before tasks wait for them; withdraw it at the end.

    The autoscaler then starts all nodes at once instead of a few at a time. Ray Data repeats its own requests for the
    tasks that it runs.

    Args:
        bundles: pool and resources of one task or actor each.
    """
    selectors = [label_selector_for(pool, resources) or {} for pool, _ in bundles]
    request_resources(bundles=[dict(bundle) for _, bundle in bundles], bundle_label_selectors=selectors)
    try:
        yield
    finally:
        request_resources(bundles=[])


def await_node(pool: Pool, resources: Resources) -> None:
    """Wait for a node of a pool with a CPU, because a cluster may begin without nodes and take any time to start one.

    Ray Data would end an execution that waits for longer than its time-out without progress.
    """
    selector = label_selector_for(pool, resources) or {}
    start = logged = time.monotonic()
    while not any(
        node["Alive"] and node["Resources"].get("CPU", 0) >= 1 and selector.items() <= node["Labels"].items()
        for node in ray.nodes()
    ):
        now = time.monotonic()
        if now - logged > _LOG_WAIT_S:
            logged = now
            of_pool = f" of the pool {pool}" if selector else ""
            logger.warning("no node%s with a CPU is alive; waiting since %.0f s", of_pool, now - start)
        time.sleep(_POLL_NODES_S)


def device_of(resources: Resources) -> str:
    """Return the torch device that models run on."""
    return resources.device if gpus_per_worker(resources) else "cpu"


def gpus_per_worker(resources: Resources) -> int:
    """Return 1 if models run on a GPU, else 0. `auto` depends on the GPUs that the cluster has now."""
    if resources.gpu == "auto":
        return 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
    return int(bool(resources.gpu))
