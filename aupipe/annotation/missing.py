"""Jobs none of whose inputs exists: reported at once, before models are loaded or Ray starts."""

from __future__ import annotations

import os
from collections.abc import Sequence

from aupipe import output_folders
from aupipe.annotation.input_search import find_inputs, split_pattern
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.schema import LEDGER
from aupipe.annotation.summary import write_videos
from aupipe.annotation.video_record import VideoRecord
from aupipe.errors import NotFoundError, printable, redact
from aupipe.manifests import SUFFIXES
from aupipe.run_lease import run_lease, storage_errors_as_config_errors
from aupipe.storage import Storage, is_uri


def all_missing(named: Sequence[str], out: str) -> bool:
    """Return whether every input is a local path that does not exist, and no run has committed to `out`.

    If a run has committed, the job itself must run, because rows of these inputs may be kept.
    """
    return all(_is_missing(path) for path in named) and not Storage(out).names(LEDGER)


def record_missing(named: Sequence[str], out: str) -> str:
    """Write videos.parquet with a row per input, and return the message for the terminal.

    Raises:
        ConfigError: `out` is the output of another kind of job.
    """
    inputs, _ = find_inputs(named)
    rows = {
        video.video_id: VideoRecord(
            redact(video.uri), video.video_id, status="quarantined",
            reason=video.refused or f"{NotFoundError.reason}: {redact(video.uri)}: no such file",
        )
        for video in inputs
    }  # fmt: skip
    storage = Storage(out)
    with storage_errors_as_config_errors("--out"):
        output_folders.check(storage, "an annotation")
    with run_lease(storage):
        write_videos(storage, Ledger(storage), rows, inputs)
    lines = [f"{len(rows)} quarantined, nothing to annotate; tables in {redact(out)}"]
    lines += [f"  {row.video_id}: quarantined: {row.reason}" for row in rows.values()]
    return "\n".join(map(printable, lines))


def _is_missing(path: str) -> bool:
    is_list = path.lower().endswith(SUFFIXES)
    return bool(path) and not (is_uri(path) or is_list or split_pattern(path)[1] or os.path.lexists(path))
