"""The tables of an annotation, as Arrow schemas: plain Arrow types, `schema_version` in the file metadata."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from aupipe import facs

SCHEMA_VERSION = "1"
STATUSES = ("ok", "no_face", "face_too_small", "decode_error")
_METADATA = {"schema_version": SCHEMA_VERSION, "au_order": ",".join(facs.AUS)}

RAW = tuple(f"{au}_raw" for au in facs.AUS)  # model probability
PROB = tuple(f"{au}_prob" for au in facs.AUS)  # smoothed
BOX = ("box_x", "box_y", "box_w", "box_h")

_GEOMETRY = [
    ("frame", pa.int32()),  # 0-based, in presentation order
    ("time_s", pa.float64()),  # presentation time, not re-based to 0; null where the container gives none
    ("status", pa.string()),
    ("detector_score", pa.float32()),
    *((name, pa.float32()) for name in BOX),  # pixels of the upright frame
    (
        "landmarks",
        pa.list_(pa.float32(), 10),
    ),  # x, y of left eye, right eye, nose tip, left, right mouth corner, as seen
]

# One row a face a frame; one row for a frame without a face or not decoded.
FRAMES = pa.schema(
    [
        ("video_id", pa.string()),
        *_GEOMETRY[:2],
        ("face_id", pa.int32()),
        *_GEOMETRY[2:],
        *((name, pa.float32()) for name in (*RAW, *PROB)),
        *((name, pa.bool_()) for name in facs.AUS),
    ],
    metadata=_METADATA,
)

EVENTS = pa.schema(
    [
        ("video_id", pa.string()),
        ("face_id", pa.int32()),
        ("au", pa.string()),
        ("onset_s", pa.float64()),
        ("apex_s", pa.float64()),
        ("offset_s", pa.float64()),  # time of the last frame of the event
        ("peak", pa.float32()),
        ("mean", pa.float32()),
    ],
    metadata=_METADATA,
)

VIDEOS = pa.schema(
    [
        ("uri", pa.string()),
        ("video_id", pa.string()),
        ("fingerprint", pa.string()),
        ("status", pa.string()),  # ok | partial | quarantined | duplicate
        ("reason", pa.string()),  # a code, then what happened
        ("frames_expected", pa.int64()),
        ("frames_decoded", pa.int64()),
        ("frames_lost", pa.int64()),
        ("frames_corrupt", pa.int64()),  # decoded, but the decoder says that part of the picture may be wrong
        ("faces", pa.int64()),
        ("duration_s", pa.float64()),
        ("rotation", pa.int32()),
        ("variable_frame_rate", pa.bool_()),
        ("work_s", pa.float64()),
        ("attempts", pa.int32()),
        ("duplicate_of", pa.string()),
        ("model_sha256", pa.string()),  # of the model that its rows come from
    ],
    metadata=_METADATA,
)

# What observe leaves of a part of a segment for finalise. Embeddings are null where there was no crop.
OBSERVED = pa.schema(
    [
        *_GEOMETRY,
        ("cut", pa.bool_()),  # a shot cut lies between this frame and the one before
        ("corrupt", pa.bool_()),
        ("embedding", pa.list_(pa.float32())),
    ],
    metadata={"schema_version": SCHEMA_VERSION},
)


def to_parquet(table: pa.Table, schema: pa.Schema) -> bytes:
    """The table as Parquet bytes; equal tables give equal bytes."""
    sink = io.BytesIO()
    pq.write_table(
        table.cast(schema).replace_schema_metadata(schema.metadata), sink, compression="zstd", row_group_size=65_536
    )
    return sink.getvalue()


def from_parquet(data: bytes) -> pa.Table:
    """The table in Parquet bytes."""
    return pq.read_table(io.BytesIO(data))
