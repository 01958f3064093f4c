"""Local paths in a cluster of several nodes: all nodes need the same files, for example on a network disk."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from aupipe.errors import ConfigError
from aupipe.storage import Storage, is_uri

_TIMEOUT_S = 120.0
_WORKING_DIRECTORIES = "/runtime_resources/working_dir_files/"  # where `ray job submit --working-dir` unpacks


def check_visible_on_all_nodes(out: str, reads: Sequence[str]) -> None:
    """Raise an error for a path that exists on this node, or for this job, alone. Runs inside a session.

    Args:
        out: folder that is written. It is checked with a file of a random name, which every node has to find.
        reads: files and folders that are read; paths that do not exist on this node are skipped.

    Raises:
        ConfigError: naming the path and the node.
    """
    storage = Storage(out)
    if storage.local and _WORKING_DIRECTORIES in storage.root:
        raise ConfigError(
            f"--out {storage.root} is in the job's working directory, which is deleted with the job; fix: give an "
            "absolute path that all nodes share, or a URI such as s3://bucket/folder"
        )
    here = ray.get_runtime_context().get_node_id()
    others = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    others.pop(here, None)
    paths = [path for path in reads if not is_uri(path) and os.path.exists(path)]
    if not others or not (storage.local or paths):
        return
    marker = f"_shared-{uuid.uuid4().hex}"
    if storage.local:
        storage.write(marker, b"")
        paths.insert(0, storage.path(marker))
    try:
        task = ray.remote(num_cpus=0)(_missing)
        nodes = [NodeAffinitySchedulingStrategy(node, soft=True) for node in others]
        results = ray.get([task.options(scheduling_strategy=node).remote(paths) for node in nodes], timeout=_TIMEOUT_S)
    finally:
        if storage.local:
            storage.delete(marker)
    for address, missing in zip(others.values(), results, strict=True):
        if missing:
            path = storage.root if missing[0].endswith(marker) else missing[0]
            raise ConfigError(
                f"{path} exists on this node but not on node {address}; fix: give a path that all nodes of the cluster "
                "share, or a URI such as s3://bucket/folder"
            )


def _missing(paths: list[str]) -> list[str]:
    return [path for path in paths if not os.path.exists(path)]
