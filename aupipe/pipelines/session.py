"""Connecting to Ray: the cluster this job was submitted to, or a fresh local one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray.data

from aupipe.config import Resources


@contextmanager
def session(*, num_cpus: int | None = None, dashboard: bool = False, log_to_driver: bool = True) -> Iterator[None]:
    """A Ray connection for the length of the block; an existing one is used and left as it is.

    Inside `ray job submit` (RAY_ADDRESS is set) that cluster is joined; otherwise a local one starts.

    Args:
        num_cpus: logical CPUs of a local Ray; default: the machine's cores.
        dashboard: start the dashboard of a local Ray (Ray Tune needs it to release placement groups).
        log_to_driver: show what workers log.
    """
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": log_to_driver, "logging_level": logging.WARNING}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", **quiet)
    else:
        # RAY_AUTH_MODE is read when ray is imported; unset, a local Ray makes its own token (~/.ray/auth_token).
        ray.init(address="local", num_cpus=num_cpus, include_dashboard=dashboard, **quiet)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # jobs print their own progress
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    try:
        yield
    finally:
        ray.shutdown()


def gpus_per_worker(resources: Resources) -> int:
    """1 if models run on a GPU, else 0. `auto` looks at what the cluster has now."""
    if resources.gpu == "auto":
        return 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
    return int(bool(resources.gpu))
