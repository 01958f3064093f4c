"""Preprocessing as a Ray Data job: one row in, one complete file of the store out. Existing files are not rewritten."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import ray.data

from aupipe.facestore.job import FileTask, StoreJob, unfinished
from aupipe.facestore.schema import StoreCard
from aupipe.pipelines.path_visibility import check_visible_on_all_nodes
from aupipe.pipelines.progress import Progress
from aupipe.pipelines.session import session, with_time_for
from aupipe.run_lease import run_lease
from aupipe.storage import Storage

# The memory of a worker, imports included: 490 MB were measured on 1080p video, less on crops.
_WORKER_MEMORY = 768 * 2**20


def preprocess(job: StoreJob) -> StoreCard:
    """Write the store of `job`, or the files that are missing from it, and return its card.

    Raises:
        ConfigError: another run is writing the store.
    """
    with run_lease(Storage(job.out)):
        make_files(job.out, job.files())
        return job.complete()


def make_files(out: str, files: Sequence[FileTask]) -> int:
    """Write the files that do not exist yet, or have other inputs, on the whole cluster, and return their number.

    A file is written completely or not at all, and its bytes depend on its task alone, so a killed run resumes. A task
    raises only for a bug. Bad input is counted in its file.
    """
    storage = Storage(out)
    storage.delete_leftovers()
    todo = unfinished(storage, files)
    if not todo:
        return 0

    def make(row: dict[str, bytes]) -> dict[str, int]:
        file: FileTask = pickle.loads(row["file"])
        file.write(storage)
        return {"rows": file.rows}

    with session():
        check_visible_on_all_nodes(out, [])
        progress = Progress("preprocess", sum(file.rows for file in todo), "rows")
        # A task is sent in its row, because every worker would receive all tasks if they were sent with the function.
        rows = ray.data.from_items([{"file": pickle.dumps(file)} for file in todo], override_num_blocks=len(todo))
        made = rows.map(make, num_cpus=1, memory=_WORKER_MEMORY)
        for done in with_time_for(max(file.rows for file in todo), made).iter_rows():
            progress.add(done["rows"])
        progress.finish()
    return len(todo)
