"""The stages of an annotation up to the rows of one file, in one process and without Ray."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from aupipe.annotation.counts import frame_counts
from aupipe.annotation.inputs import Input
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.stages import Decode, Probe, SegmentTask, read_probe
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.storage import Storage


def annotate(path: Path | str, out: Path, config: AnnotateConfig | None = None) -> tuple[dict[str, Any], pa.Table]:
    """Return the video's record and its rows, one per frame, ordered by frame."""
    config, storage = config or AnnotateConfig(), Storage(out)
    none = pa.table({"frame": pa.array([], pa.int32()), "time_s": pa.array([], pa.float64())})
    _, probed = read_probe(Probe(config, storage)({"input": json.dumps(asdict(Input(str(path), "v")))}))
    if "reason" in probed:
        return {"status": "quarantined", "reason": probed["reason"]}, none
    tables = []
    for number, segment in enumerate(probed["segments"]):
        for part in Decode(config, storage, ARCFACE_TEMPLATE[None])(SegmentTask(f"{number}", segment).to_row()):
            if part["error"]:
                return {"status": "quarantined", "reason": part["error"]}, none
            tables.append(pa.ipc.open_stream(part["rows"]).read_all())
    rows, record = pa.concat_tables(tables), probed["record"]
    first = rows["frame"].to_pandas().drop_duplicates().index
    return record | frame_counts(rows, record["frames_expected"], record["losses"]), rows.take(pa.array(first))
