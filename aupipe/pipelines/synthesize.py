"""Synthesis as a Ray Data job: one row = one video, or one person, rendered and written by one task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
import ray.data

from aupipe.pipelines.path_visibility import check_visible_on_all_nodes
from aupipe.pipelines.progress import Progress
from aupipe.pipelines.session import session
from aupipe.run_lease import run_lease
from aupipe.storage import Storage
from aupipe.synthesis import render_job, rig
from aupipe.synthesis.render_job import DataSet

_BLOCKS = 1000  # tasks, at most: each is some seconds of work
_WORKER_MEMORY = 512 * 2**20  # imports of Numba, OpenCV and PyAV, the rigs, the pictures of a few seconds


def synthesize(data: DataSet, out: str) -> str:
    """Make the data set, or what is missing of it. Returns it in words.

    Raises:
        ConfigError: a rig cannot be read, or `out` holds something else, or another run is writing there.
    """
    storage = Storage(out)
    render_job.claim(data, storage)
    with run_lease(storage):
        storage.delete_leftovers()
        _make(data, data.units(), storage)
        return data.finish(storage)


def _make(data: DataSet, units: Sequence[Any], storage: Storage) -> None:
    todo = [number for number, unit in enumerate(units) if not data.is_complete(unit, storage)]
    if not todo:
        return
    heads = {named: rig.load(named) for named in data.rigs}
    progress = Progress("synthesize", sum(data.frames_of(units[number]) for number in todo), "frames")
    with session():
        check_visible_on_all_nodes(storage.root, [])
        shared = ray.put((heads, units))  # 9 to 60 MB, once a node: workers need no file of a rig

        def make(row: dict[str, int]) -> dict[str, int]:
            its_heads, its_units = ray.get(shared)
            unit = its_units[row["unit"]]
            data.make(unit, its_heads[unit.rig], storage)
            return {"frames": data.frames_of(unit)}

        rows = ray.data.from_items([{"unit": number} for number in todo], override_num_blocks=min(len(todo), _BLOCKS))
        for done in rows.map(make, num_cpus=1, memory=_WORKER_MEMORY).iter_rows():
            progress.add(done["frames"])
    progress.finish()
