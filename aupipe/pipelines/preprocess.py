"""Preprocessing as a Ray Data job: one row in, one finished file of the store out. What is there is not made again."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import ray.data

from aupipe.facestore.job import FileTask, StoreJob
from aupipe.facestore.schema import StoreCard
from aupipe.pipelines.path_visibility import check_visible_on_all_nodes
from aupipe.pipelines.progress import Progress
from aupipe.pipelines.session import session
from aupipe.run_lease import run_lease
from aupipe.storage import Storage

# What a worker needs, imports included: 490 MB were measured on 1080p video, less on crops.
_WORKER_MEMORY = 768 * 2**20


def preprocess(job: StoreJob) -> StoreCard:
    """Make the store of `job`, or what is missing of it.

    Raises:
        ConfigError: another run is writing it.
    """
    with run_lease(Storage(job.out)):
        make_files(job.out, job.files())
        return job.complete()


def make_files(out: str, files: Sequence[FileTask]) -> int:
    """Make every file that is not there yet, on the whole cluster. Returns how many that were.

    A file is written whole or not at all, and its bytes depend on its task alone: the run can be killed at any time and
    started again. A task raises on a bug only; bad input is counted inside its file.
    """
    storage = Storage(out)
    storage.delete_leftovers()
    there = set(storage.names())
    todo = [file for file in files if file.name not in there]
    if not todo:
        return 0

    def make(row: dict[str, bytes]) -> dict[str, int]:
        file: FileTask = pickle.loads(row["file"])
        storage.write(file.name, file.make())
        return {"rows": file.rows}

    with session():
        check_visible_on_all_nodes(out, [])
        progress = Progress("preprocess", sum(file.rows for file in todo), "rows")
        # A task travels with its row, not with the function: every worker would get all of them.
        rows = ray.data.from_items([{"file": pickle.dumps(file)} for file in todo], override_num_blocks=len(todo))
        for done in rows.map(make, num_cpus=1, memory=_WORKER_MEMORY).iter_rows():
            progress.add(done["rows"])
        progress.finish()
    return len(todo)
