"""The columns of a face store and the sidecar `store.json`.

Parquet, zstd, row groups of about `ROW_GROUP_ROWS` rows, ordered by video then frame, one folder a split:
`STORE/split=train/…parquet`, `STORE/split=validation/…parquet`, `STORE/store.json`.
"""

from __future__ import annotations

import pyarrow as pa

from aupipe import facs

SCHEMA_VERSION = "1"
ROW_GROUP_ROWS = 256
SPLITS = ("train", "validation")
CROP_SIZE_PX = 112

SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),  # base id, without _left/_right
        ("person", pa.string()),  # "" | "left" | "right"
        ("frame", pa.int32()),  # 1-based, as in the annotation files
        ("time_s", pa.float64()),  # null where only crops exist and no rate is known
        ("image", pa.binary()),  # JPEG of the 112×112 RGB crop
        ("au", pa.list_(pa.int8(), len(facs.AUS))),  # 0 | 1 | −1 unknown, in the order of facs.AUS
        ("expression", pa.int8()),  # class index, −1 unknown
        ("identity", pa.string()),  # null where nobody says
        ("source", pa.string()),  # what the row came from, e.g. "affwild2:crops"
    ],
    metadata={"schema_version": SCHEMA_VERSION, "au_order": ",".join(facs.AUS)},
)
