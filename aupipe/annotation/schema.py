"""The tables of an annotation, as Arrow schemas: plain Arrow types, `schema_version` in the file metadata."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aupipe import facs

SCHEMA_VERSION = "2"
_METADATA = {"schema_version": SCHEMA_VERSION, "au_order": ",".join(facs.AUS)}

RAW = tuple(f"{au}_raw" for au in facs.AUS)  # model probability
PROB = tuple(f"{au}_prob" for au in facs.AUS)  # smoothed
BOX = ("box_x", "box_y", "box_w", "box_h")
MEMBERS = "votes_raw"  # with several models: each one's `AUxx_raw`, model after model in run.json's order

_GEOMETRY = [
    ("frame", pa.int32()),  # 0-based, in presentation order
    ("time_s", pa.float64()),  # presentation time, not re-based to 0; null where the container gives none
    ("status", pa.string()),
    ("detector_score", pa.float32()),
    *((name, pa.float32()) for name in BOX),  # pixels of the frame as it is shown: upright, with square pixels
    (
        "landmarks",
        pa.list_(pa.float32(), 10),
    ),  # x, y of left eye, right eye, nose tip, left, right mouth corner, as seen
    ("frame_width", pa.int32()),  # of the frame that box and landmarks refer to; null where it was not decoded
    ("frame_height", pa.int32()),
]

# One row a face a frame; one row for a frame without a face or not decoded.
FRAMES = pa.schema(
    [
        ("video_id", pa.string()),
        *_GEOMETRY[:2],
        ("face_id", pa.int32()),  # in the order of appearance; of those that appear together the largest is first
        *_GEOMETRY[2:],
        *((name, pa.float32()) for name in (*RAW, *PROB)),
        *((name, pa.bool_()) for name in facs.AUS),
    ],
    metadata=_METADATA,
)


def expression_columns(classes: int) -> tuple[str, ...]:
    """Names of the expression columns: the likeliest class, then each class's probability (not smoothed)."""
    return ("EXPR", *(f"EXPR_{name}_prob" for name in facs.EXPRESSIONS[:classes])) if classes else ()


def frames_schema(models: int = 1, classes: int = 0) -> pa.Schema:
    """The frames table of `models` models that tell `classes` expressions: `FRAMES`, and columns after it."""
    members = [pa.field(MEMBERS, pa.list_(pa.float32()))] if models > 1 else []
    names = expression_columns(classes)
    expressions = [pa.field(name, pa.string() if name == "EXPR" else pa.float32()) for name in names]
    return pa.schema([*FRAMES, *members, *expressions], metadata=_METADATA)


def schema_of(frames: pa.Table) -> pa.Schema:
    """The schema of a frames table by its columns."""
    names = set(frames.column_names)
    classes = max(0, len(names & set(expression_columns(len(facs.EXPRESSIONS)))) - 1)
    return frames_schema(2 if MEMBERS in names else 1, classes)


EVENTS = pa.schema(
    [
        ("video_id", pa.string()),
        ("face_id", pa.int32()),
        ("au", pa.string()),
        ("onset_s", pa.float64()),  # null where the frame has no time
        ("apex_s", pa.float64()),
        ("offset_s", pa.float64()),  # time of the last frame of the event
        ("peak", pa.float32()),
        ("mean", pa.float32()),
        ("onset_frame", pa.int32()),
        ("apex_frame", pa.int32()),
        ("offset_frame", pa.int32()),
    ],
    metadata=_METADATA,
)

# Codes that a reason in videos.parquet begins with.
REASONS = {
    # quarantined: nothing could be done
    "not_found": "no such file",
    "permission_denied": "no right to read it",
    "unreadable": "the file system refused it",
    "not_a_video": "FFmpeg knows no such format, or it is a playlist, which could halo elsewhere",
    "no_video_stream": "sound only, or cover pictures",
    "no_clock": "a part in time or a sampling rate is asked for, and its frames have no times (`assume_fps`)",
    "no_frames": "a video stream without frames, or none in the part that is asked for",
    "codec_not_supported": "FFmpeg has no decoder for it",
    "decoder_failed": "the decoder gave up on the whole file",
    "too_large": "a frame or the video is beyond `limits`",
    "worker_died": "its worker crashed or ran out of memory, `limits.attempts` times",
    "timed_out": "nothing moved for `limits.stall_s`, or `limits.probe_s` when it was read",
    "internal_error": "a fault of aupipe, whose traceback the named file has; of `partial`: only an export failed",
    "bad_video_id": "a manifest's video_id that would halo out of the output folder",
    "bad_range": "a manifest's end_s that is not after its start_s",
    # partial, or ok with frames_corrupt alone: the rest is there
    "frames_lost": "frames that could not be decoded, with their numbers",
    "frames_corrupt": "frames that the decoder returned, but says that part of them may be wrong",
    "truncated": "it ends before the length that its container promises",
    "container_damaged": "evidence that the container is damaged: frames may be missing without a trace",
    "sound_lost": "its sound breaks off, or cannot be meant, and a model listens",
    # duplicate
    "duplicate": "the same bytes, and the same part of them, as another input",
}

VIDEOS = pa.schema(
    [
        ("uri", pa.string()),
        ("video_id", pa.string()),
        ("fingerprint", pa.string()),
        ("status", pa.string()),  # ok | partial | quarantined | duplicate
        ("reason", pa.string()),  # a code of REASONS, a colon, and what happened
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
        ("model_sha256", pa.string()),  # of the model, or models, that its rows come from
        ("frame_width", pa.int32()),  # of the first frame as it is shown; `frames` has that of each
        ("frame_height", pa.int32()),
        ("pixel_aspect", pa.string()),  # width:height of a stored pixel; pictures are stretched to square pixels
        ("hdr", pa.string()),  # pq or hlg: pictures are tone-mapped to SDR; "" if they are SDR
        ("track", pa.int32()),  # which video track, from 0
        ("tracks", pa.int32()),  # how many video tracks the file has
        ("clock_restarts", pa.int32()),  # how often times start anew: joined streams
        ("remark", pa.string()),  # what is odd about the file, but costs no frame
    ],
    metadata=_METADATA,
)

# What observe leaves of a part of a segment for finalize. Embeddings (of several models, one after another) are null
# where there was no crop.
FEATURES = pa.schema(
    [
        *_GEOMETRY,
        ("cut", pa.bool_()),  # a shot cut lies between this frame and the one before
        ("restart", pa.bool_()),  # the clock starts anew at this frame
        # Which rows may be one person's. What faces look like was compared where they were seen; it is not kept.
        ("link", pa.int32()),  # the same face among those of the frame before, counted from 0; null where there is none
        ("resumes", pa.list_(pa.int32())),  # frame, face, frame, face …: earlier faces that it may continue after a gap
        ("corrupt", pa.bool_()),
        ("embedding", pa.list_(pa.float32())),
    ],
    metadata={"schema_version": SCHEMA_VERSION},
)


def to_parquet(table: pa.Table, schema: pa.Schema) -> memoryview:
    """The table as Parquet bytes; equal tables give equal bytes.

    Of numbers that all differ a dictionary would take a third more room, and twice the memory.
    """
    sink = pa.BufferOutputStream()
    repeating = [field.name for field in schema if pa.types.is_string(field.type)]
    pq.write_table(
        table.cast(schema).replace_schema_metadata(schema.metadata), sink, compression="zstd",
        row_group_size=16_384, use_dictionary=repeating,
    )  # fmt: skip
    return memoryview(sink.getvalue())


def list_column(values: np.ndarray, there: np.ndarray) -> pa.ListArray:
    """(N,) lists: the rows (M, W) float32 of `values` where `there` (N,) bool is True, null elsewhere; N ≥ 0."""
    offsets = np.concatenate([[0], np.cumsum(there) * values.shape[1]]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(values.reshape(-1), pa.float32()), mask=pa.array(~there)
    )


def from_parquet(data: bytes) -> pa.Table:
    """The table in Parquet bytes."""
    return pq.read_table(io.BytesIO(data))
