"""The files beside the tables that show removed videos: logs, exports and the report."""

from __future__ import annotations

import logging

import pyarrow as pa
import pyarrow.compute as pc

from aupipe.annotation import export, faults, report_files
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.summary import listed_ids
from aupipe.annotation.video_rows import one_piece
from aupipe.errors import redact
from aupipe.storage import Storage

logger = logging.getLogger(__name__)


def delete_shown(storage: Storage, committed: Ledger, kept: pa.Array) -> None:
    """Delete the logs of videos that are not kept and, if there are any, the exports and the report of all videos.

    A page has the number of its video, and the index has the names of all. Files that aupipe does not write stay.

    Args:
        kept: the video_id of each video that stays.
    """
    known = pa.chunked_array([one_piece(committed.table["video_id"]), listed_ids(storage)], pa.string())
    removed = known.filter(pc.invert(pc.is_in(known, value_set=kept)))
    if not len(removed):
        return
    faults.delete_logs(storage, removed.to_pylist())
    report = Storage(storage.path(report_files.FOLDER))
    if count := export.delete_all(storage) + report_files.delete_all(report):
        logger.info(
            "%s: --prune removes videos, so all exports and the report are deleted (%d files); "
            "annotate.py --export and report.py write them again",
            redact(storage.root), count,
        )  # fmt: skip
