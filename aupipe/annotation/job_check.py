"""The checks of an annotation job before it begins, and its plan, which `--dry-run` shows."""

from __future__ import annotations

from dataclasses import dataclass

from aupipe import output_folders
from aupipe.annotation import model_set, preflight
from aupipe.annotation.annotate_job import AnnotateJob
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.export import check_names
from aupipe.annotation.input_search import find_inputs
from aupipe.annotation.inputs import Inputs, text_of_name
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.skipped_files import SkippedFiles
from aupipe.annotation.stat_signatures import with_signatures
from aupipe.annotation.work_plan import WorkList, plan
from aupipe.errors import ConfigError, redact
from aupipe.faces.detect import Detector
from aupipe.run_lease import storage_errors_as_config_errors
from aupipe.storage import Storage


def checked_inputs(job: AnnotateJob) -> tuple[Inputs, SkippedFiles]:
    """Return the inputs of the job and what was skipped, after a check of OUT and of the names of exports.

    Raises:
        ConfigError: an option, OUT or a name is invalid, or --prune would delete the rows of videos that are away.
    """
    if job.export and job.phase == "observe":
        raise ConfigError(
            f"--export {','.join(job.export)}: --phase observe makes no tables; fix: leave one of them out"
        )
    if "abaw" in job.export and job.config.sample_fps is not None:
        raise ConfigError(
            f"--export abaw: a track has a line for every frame, and sample_fps={job.config.sample_fps:g} skips some; "
            "fix: leave one of them out"
        )
    if job.config.engine == "local":
        for name, count in (("--workers ", job.workers), ("--set encoders=", job.config.encoders)):
            if count is not None:
                raise ConfigError(f"{name}{count}: engine=local runs in one process; fix: leave one of them out")
    inputs, skipped = find_inputs(job.inputs, job.limit, job.config.images)
    if job.prune and skipped.unsearched:
        first, *more = skipped.unsearched
        raise ConfigError(
            f"--prune: {redact(text_of_name(first))}{f' and {len(more)} more' if more else ''}: not found, or a folder "
            "that cannot be listed, so the rows of its videos would be deleted; fix: mount it, or leave out --prune"
        )
    with storage_errors_as_config_errors("--out"):
        output_folders.check(Storage(job.out), "an annotation")
    check_names(job.export, inputs.ids.to_pylist() if job.export else ())
    return inputs, skipped


def check_exports(job: AnnotateJob, inputs: Inputs, committed: Ledger) -> None:
    """Check that no export of an input would replace one of a video that another run annotated and that stays."""
    if not job.export or job.prune:
        return
    current = committed.current()
    annotated = current.table.filter(current.have_rows())["video_id"].to_pylist()
    check_names(job.export, dict.fromkeys([*inputs.ids.to_pylist(), *annotated]))


def loaded_keys(job: AnnotateJob) -> CacheKeys:
    """Load the models of the job, and return them with the keys of what they compute."""
    Detector(job.config.detector)  # Wrong weights must fail here; otherwise they would fail on a worker.
    with storage_errors_as_config_errors("a checkpoint"):
        return CacheKeys(model_set.load(job.checkpoints, job.config.ensemble, job.config.precision), job.config)


@dataclass(frozen=True)
class AnnotatePlan:
    """The checked inputs and models of a job, and the work that is due."""

    job: AnnotateJob
    inputs: Inputs
    skipped: SkippedFiles
    keys: CacheKeys
    work: WorkList

    def text(self) -> str:
        """Return a plan for a terminal; the frames are estimated from the headers of the videos."""
        job, inputs, skipped, work = self.job, self.inputs, self.skipped, self.work
        frames = preflight.estimate_frames(work.to_probe, job.config)
        hours = frames * job.config.cost.frame_cpu_s / 3600
        cost = f", cost about {hours * job.config.cost.cpu_hour:.2f}" if job.config.cost.cpu_hour else ""
        return (
            f"{len(inputs)} inputs ({skipped.files} other files skipped): {len(work.unchanged)} done, "
            f"{len(work.decide)} to apply a new decision to, {len(work.to_probe)} to probe and decode\n"
            f"about {frames:,} frames, {hours:.2f} CPU-hours at {job.config.cost.frame_cpu_s:g} s per frame, "
            f"{60 * hours / job.local_decoders:.0f} minutes with {job.local_decoders} decoders{cost}\n"
            f"{_models(self.keys)}; tables in {redact(job.out)}" + (f"\n{skipped.text()}" if skipped.text() else "")
        )


def check(job: AnnotateJob) -> AnnotatePlan:
    """Check what a job needs, and return its plan. Neither starts Ray nor decodes.

    Raises:
        ConfigError: as `annotate`.
    """
    inputs, skipped = checked_inputs(job)
    keys = loaded_keys(job)
    with storage_errors_as_config_errors("--out"):
        committed = Ledger.read(Storage(job.out))
    check_exports(job, inputs, committed)
    inputs = with_signatures(inputs)
    return AnnotatePlan(job, inputs, skipped, keys, plan(inputs, committed, keys))


def _models(keys: CacheKeys) -> str:
    named = [f"model {m.card.sha256[:12]} ({m.card.model.name})" for m in keys.models.members]
    return f"{keys.config.ensemble} of {', '.join(named)}" if len(named) > 1 else named[0]
