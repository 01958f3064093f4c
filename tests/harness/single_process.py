"""The stages of an annotation up to the rows of one file, without models and without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from aupipe.annotation.counts import with_counts
from aupipe.annotation.inputs import Input
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.stages import Decode, Probe, ProbeRequest, ProbeResult, SegmentTask
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.storage import Storage


def annotate(path: Path | str, out: Path, config: AnnotateConfig | None = None) -> tuple[dict[str, Any], pa.Table]:
    """Return the record of the video, and its rows, ordered by frame, one row per frame."""
    config, storage = config or AnnotateConfig(), Storage(out)
    none = pa.table({"frame": pa.array([], pa.int32()), "time_s": pa.array([], pa.float64())})
    probed = ProbeResult.from_row(Probe(config, storage)(ProbeRequest(Input(str(path), "v")).to_row()))
    if probed.reason:
        return {"status": "quarantined", "reason": probed.reason}, none
    tables = []
    for number, segment in enumerate(probed.segments):
        for part in Decode(config, storage, ARCFACE_TEMPLATE[None])(SegmentTask(f"{number}", segment).to_row()):
            if part["error"]:
                return {"status": "quarantined", "reason": part["error"]}, none
            tables.append(pa.ipc.open_stream(part["rows"]).read_all())
    rows, record = pa.concat_tables(tables), probed.record
    first = rows["frame"].to_pandas().drop_duplicates().index
    assert record is not None
    return with_counts(record, rows, record.losses).to_row(), rows.take(pa.array(first))
