"""Local paths in a cluster of several nodes: all must see the same files, as where a network disk is mounted."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from aupipe.errors import ConfigError
from aupipe.storage import Storage, is_uri

_ANSWER_S = 120.0
_WORKING_DIRECTORIES = "/runtime_resources/working_dir_files/"  # where `ray job submit --working-dir` unpacks


def check_visible_on_all_nodes(out: str, reads: Sequence[str]) -> None:
    """Refuse what only this node, or only this job, would see. Runs inside a session.

    Args:
        out: folder that is written; a node proves that it sees it by a file with a name that never was before.
        reads: files and folders; what this node does not see either is not looked at.

    Raises:
        ConfigError: naming the path and the node.
    """
    storage = Storage(out)
    if storage.local and _WORKING_DIRECTORIES in storage.root:
        raise ConfigError(
            f"--out {storage.root} lies in the job's working directory, which goes with the job; give an absolute path "
            "that all nodes see, or a URI such as s3://bucket/folder"
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
        there = ray.remote(num_cpus=0)(_unseen)
        nodes = [NodeAffinitySchedulingStrategy(node, soft=True) for node in others]
        asked = [there.options(scheduling_strategy=node).remote(paths) for node in nodes]
        answers = ray.get(asked, timeout=_ANSWER_S)
    finally:
        if storage.local:
            storage.delete(marker)
    for address, unseen in zip(others.values(), answers, strict=True):
        if unseen:
            path = storage.root if unseen[0].endswith(marker) else unseen[0]
            raise ConfigError(
                f"{path} is not there on node {address}, as it is on this one; give a path that all nodes of the "
                "cluster see, or a URI such as s3://bucket/folder"
            )


def _unseen(paths: list[str]) -> list[str]:
    return [path for path in paths if not os.path.exists(path)]
