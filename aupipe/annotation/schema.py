"""The Arrow schemas of the tables of an annotation, with `schema_version` in the file metadata."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aupipe import facs

SCHEMA_VERSION = "4"
_ROW_GROUP = 16_384  # rows of a Parquet file that are written together
_METADATA = {"schema_version": SCHEMA_VERSION, "au_order": ",".join(facs.AUS)}

RAW = tuple(f"{au}_raw" for au in facs.AUS)  # model probability
PROB = tuple(f"{au}_prob" for au in facs.AUS)  # smoothed
INTENSITY = tuple(f"{au}_intensity" for au in facs.AUS)  # 0 … 1 above the face at rest; see rest.py
POSE = ("pose_yaw", "pose_pitch", "pose_roll")
BOX = ("box_x", "box_y", "box_w", "box_h")
MEMBERS = "votes_raw"  # `AUxx_raw` of each of several models, in the order of run.json

_GEOMETRY = [
    ("frame", pa.int32()),  # 0-based, in presentation order
    ("time_s", pa.float64()),  # presentation time, not shifted to 0; null if the container gives none
    ("status", pa.string()),
    ("detector_score", pa.float32()),
    *((name, pa.float32()) for name in BOX),  # pixels of the displayed frame: upright, with square pixels
    (
        "landmarks",
        pa.list_(pa.float32(), 10),
    ),  # x, y of left eye, right eye, nose tip, left and right mouth corner, as in the image
    ("frame_width", pa.int32()),  # of the frame that box and landmarks refer to; null if it was not decoded
    ("frame_height", pa.int32()),
    # Degrees, of the smoothed landmarks: 0 if the face looks along its line of sight to the camera. Positive yaw turns
    # the nose to the left of the picture, positive pitch turns it down, positive roll turns the head clockwise.
    *((name, pa.float32()) for name in POSE),
    ("sharpness", pa.float32()),  # variance of the Laplacian in the crop of the first model; null without a crop
]

# One row per face per frame; one row per frame without a face, or that was not decoded.
FRAMES = pa.schema(
    [
        ("video_id", pa.string()),
        *_GEOMETRY[:2],
        ("face_id", pa.int32()),  # in order of appearance; of faces that appear together, the largest comes first
        *_GEOMETRY[2:],
        *((name, pa.float32()) for name in (*RAW, *PROB, *INTENSITY)),
        *((name, pa.bool_()) for name in facs.AUS),
    ],
    metadata=_METADATA,
)


def expression_columns(classes: int) -> tuple[str, ...]:
    """Return the names of the expression columns: the most likely class, then the unsmoothed probability of each."""
    return ("EXPR", *(f"EXPR_{name}_prob" for name in facs.EXPRESSIONS[:classes])) if classes else ()


def frames_schema(models: int = 1, classes: int = 0) -> pa.Schema:
    """Return the schema of the frames table of `models` models with `classes` expressions: `FRAMES` and more."""
    members = [pa.field(MEMBERS, pa.list_(pa.float32()))] if models > 1 else []
    names = expression_columns(classes)
    expressions = [pa.field(name, pa.string() if name == "EXPR" else pa.float32()) for name in names]
    return pa.schema([*FRAMES, *members, *expressions], metadata=_METADATA)


def schema_of(frames: pa.Table) -> pa.Schema:
    """Return the schema of a frames table, derived from its columns."""
    names = set(frames.column_names)
    classes = max(0, len(names & set(expression_columns(len(facs.EXPRESSIONS)))) - 1)
    return frames_schema(2 if MEMBERS in names else 1, classes)


EVENTS = pa.schema(
    [
        ("video_id", pa.string()),
        ("face_id", pa.int32()),
        ("au", pa.string()),
        ("onset_s", pa.float64()),  # null if the frame has no time
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

LEDGER = "_work/ledger"  # the folder of the entries that commit rows, in an output folder

# The codes at the start of a reason in videos.parquet.
REASONS = {
    # Status quarantined: the video has no rows. With the first three, it is partial if an earlier run wrote rows.
    "not_found": "no such file; if partial, the rows of an earlier run are kept",
    "permission_denied": "no permission to read it; if partial, the rows of an earlier run are kept",
    "unreadable": "storage could not read it; if partial, the rows of an earlier run are kept",
    "changed": "overwritten during the run, or a duplicate of a file that was later; the next run annotates it",
    "not_a_video": "FFmpeg does not support the format, or it is a playlist, which references other files or hosts",
    "no_video_stream": "only sound or cover pictures",
    "no_clock": "a part in time or a sampling rate is requested, but its frames have no times (`assume_fps`)",
    "no_frames": "a video stream without frames, or without frames in the requested part",
    "codec_not_supported": "FFmpeg has no decoder for it, or it is encrypted",
    "decoder_failed": "the decoder failed on the whole file",
    "too_large": "a frame or the video exceeds `limits`",
    "worker_died": "its worker crashed or ran out of memory, `limits.attempts` times",
    "timed_out": "no progress for `limits.stall_s`, or for `limits.probe_s` while packets or sound were read",
    "internal_error": "an error in aupipe, with its traceback in the named file; if partial, only an export failed",
    "bad_video_id": "a manifest's video_id that would lead out of the output folder, or contains a control character",
    "bad_range": "a manifest's end_s that is not after its start_s",
    # Status partial, or ok if frames_corrupt is the only one: the other rows exist.
    "frames_lost": "frames that could not be decoded, with their indices",
    "frames_corrupt": "frames that the decoder returned with a warning that part of them may be wrong",
    "truncated": "it ends before the duration or the frames that its container gives, or is an image that is cut short",
    "container_damaged": "the container is damaged: frames may be missing without a trace",
    "sound_lost": "its sound ends early or is invalid, and a model uses audio",
    # Status duplicate.
    "duplicate": "the same bytes and the same part as another input",
}

VIDEOS = pa.schema(
    [
        ("uri", pa.string()),
        ("video_id", pa.string()),
        ("fingerprint", pa.string()),
        ("status", pa.string()),  # ok | partial | quarantined | duplicate
        ("reason", pa.string()),  # a code of REASONS, a colon and a message
        ("frames_expected", pa.int64()),
        ("frames_decoded", pa.int64()),
        ("frames_lost", pa.int64()),
        ("frames_corrupt", pa.int64()),  # decoded, with a warning that part of the frame may be wrong
        ("faces", pa.int64()),
        ("duration_s", pa.float64()),
        ("rotation", pa.int32()),
        ("variable_frame_rate", pa.bool_()),
        ("work_s", pa.float64()),
        ("attempts", pa.int32()),
        ("duplicate_of", pa.string()),
        ("model_sha256", pa.string()),  # of the model or models that predicted its rows
        ("frame_width", pa.int32()),  # of the first displayed frame; the frames table has that of each
        ("frame_height", pa.int32()),
        ("pixel_aspect", pa.string()),  # width:height of a stored pixel; frames are resized to square pixels
        ("hdr", pa.string()),  # pq or hlg: frames are tone-mapped to SDR; "" if they are SDR
        ("track", pa.int32()),  # 0-based number of the video track
        ("tracks", pa.int32()),  # number of video tracks in the file
        ("clock_restarts", pa.int32()),  # number of clock restarts, as in joined streams
        ("remark", pa.string()),  # an anomaly of the file that loses no frame
    ],
    metadata=_METADATA,
)

# The rows that extraction stores for finalize. Embeddings (of several models, concatenated) are null for rows without a
# crop.
FEATURES = pa.schema(
    [
        *_GEOMETRY,
        ("cut", pa.bool_()),  # a shot boundary lies between this frame and the previous one
        ("restart", pa.bool_()),  # the clock restarts at this frame
        # The rows that may show one person. Extraction compared the appearance of the faces; it is not stored.
        ("link", pa.int32()),  # 0-based index of the same face in the previous frame; null if there is none
        ("resumes", pa.list_(pa.int32())),  # frame, face, frame, face …: earlier faces that it may continue after a gap
        ("corrupt", pa.bool_()),
        ("embedding", pa.list_(pa.float32())),
    ],
    metadata={"schema_version": SCHEMA_VERSION},
)


def to_parquet(table: pa.Table, schema: pa.Schema, distinct: Collection[str] = ()) -> memoryview:
    """Return the table as Parquet bytes; equal tables give equal bytes.

    Only strings use a dictionary. For distinct values it would take more space, and twice the time and memory.

    Args:
        distinct: columns of strings that do not repeat.
    """
    sink = pa.BufferOutputStream()
    repeating = [field.name for field in schema if pa.types.is_string(field.type) and field.name not in distinct]
    with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=repeating) as writer:
        for start in range(0, max(len(table), 1), _ROW_GROUP):  # A cast copies, so it is done in parts.
            rows = table.slice(start, _ROW_GROUP).cast(schema).replace_schema_metadata(schema.metadata)
            writer.write_table(rows, row_group_size=_ROW_GROUP)
    return memoryview(sink.getvalue())


def list_column(values: np.ndarray, is_valid: np.ndarray) -> pa.ListArray:
    """Return (N,) lists: the rows (M, W) float32 of `values` where `is_valid` (N,) is True, null elsewhere; N ≥ 0."""
    offsets = np.concatenate([[0], np.cumsum(is_valid) * values.shape[1]]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(values.reshape(-1), pa.float32()), mask=pa.array(~is_valid)
    )
