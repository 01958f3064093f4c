"""Synthesis as a Ray Data job: one task renders and writes one row, which is one video or one person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
import ray.data

from aupipe.pipelines.path_visibility import check_visible_on_all_nodes
from aupipe.pipelines.progress import Progress
from aupipe.pipelines.session import session, with_time_for
from aupipe.run_lease import run_lease
from aupipe.storage import Storage
from aupipe.synthesis import render_job, rig
from aupipe.synthesis.render_job import DataSet

_MAX_BLOCKS = 1000  # tasks; each is some seconds of work
_WORKER_MEMORY = 512 * 2**20  # imports of Numba, OpenCV and PyAV, the rigs, the pictures of a few seconds


def synthesize(data: DataSet, out: str) -> str:
    """Render the data set, or the videos that are missing from it. Return a summary in words.

    Raises:
        ConfigError: a rig cannot be read, or `out` contains other files, or another run is writing there.
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
    frames = [data.frame_count(units[number]) for number in todo]
    progress = Progress("synthesize", sum(frames), "frames")
    with session():
        check_visible_on_all_nodes(storage.root, [])
        shared = ray.put((heads, units))  # 9 to 60 MB, once per node, so workers need no rig file

        def make(row: dict[str, int]) -> dict[str, int]:
            heads, units = ray.get(shared)
            unit = units[row["unit"]]
            data.make(unit, heads[unit.rig], storage)
            return {"frames": data.frame_count(unit)}

        blocks = min(len(todo), _MAX_BLOCKS)
        rows = ray.data.from_items([{"unit": number} for number in todo], override_num_blocks=blocks)
        made = rows.map(make, num_cpus=1, memory=_WORKER_MEMORY)
        for done in with_time_for(max(frames) * -(-len(todo) // blocks), made).iter_rows():
            progress.add(done["frames"])
    progress.finish()
