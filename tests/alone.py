"""What the annotation job does with one file until its rows are known, by the functions of the workers, without Ray."""

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
    """The video's record, and its rows, ordered by frame, one a frame."""
    config, storage = config or AnnotateConfig(), Storage(out)
    none = pa.table({"frame": pa.array([], pa.int32()), "time_s": pa.array([], pa.float64())})
    _, said = read_probe(Probe(config, storage)({"input": json.dumps(asdict(Input(str(path), "v")))}))
    if "reason" in said:
        return {"status": "quarantined", "reason": said["reason"]}, none
    tables = []
    for number, segment in enumerate(said["segments"]):
        for part in Decode(config, storage, ARCFACE_TEMPLATE[None])(SegmentTask(f"{number}", segment).to_row()):
            if part["error"]:
                return {"status": "quarantined", "reason": part["error"]}, none
            tables.append(pa.ipc.open_stream(part["rows"]).read_all())
    rows, record = pa.concat_tables(tables), said["record"]
    first = rows["frame"].to_pandas().drop_duplicates().index
    return record | frame_counts(rows, record["frames_expected"], record["losses"]), rows.take(pa.array(first))
