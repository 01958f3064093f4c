"""The columns of a face store and its card, `store.json`.

STORE/split=train/00000-….parquet    zstd, row groups of ROW_GROUP_ROWS rows, ordered by video, person, frame
STORE/split=validation/…
STORE/audio/VIDEO.parquet            if the video has audio: waveform, rate, start time
STORE/audio/VIDEO.….source           empty; its name identifies the video file that the audio is from
STORE/store.json                     the card, written last: a folder without it is not a store
"""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

from aupipe import facs
from aupipe.config import Section

SCHEMA_VERSION = "2"
ROW_GROUP_ROWS = 256
# 8,192 crops are about 30 MB of Aff-Wild2's JPEGs, and 80 MB of those that aupipe encodes (quality 95, 4:4:4).
FILE_ROWS = 32 * ROW_GROUP_ROWS
SPLITS = ("train", "validation")
TEST = "test"  # the split of rows without labels, which are only predicted; it is not part of the split `all`
CARD = "store.json"
MARK = ".source"  # ends the name of a mark

SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),  # base id, without _left/_right
        ("person", pa.string()),  # "" | "left" | "right"
        ("frame", pa.int32()),  # 1-based, as in the annotation files
        ("time_s", pa.float64()),  # media time; null if the source has only crops and no frame rate
        ("image", pa.binary()),  # JPEG of the 112×112 RGB crop
        ("au", pa.list_(pa.int8(), len(facs.AUS))),  # 0 | 1 | −1 unknown, in the order of facs.AUS
        ("intensity", pa.list_(pa.float32(), len(facs.AUS))),  # 0 … 1; null without an annotation
        ("expression", pa.int8()),  # class index, −1 unknown
        ("identity", pa.string()),  # null without an annotation
        ("source", pa.string()),  # origin of the row, e.g. "affwild2:crops"
    ],
    metadata={"schema_version": SCHEMA_VERSION, "au_order": ",".join(facs.AUS)},
)

# The columns that samplers, folds and thresholds need. They exclude the images.
LABEL_COLUMNS = ("video_id", "person", "frame", "time_s", "au", "expression", "identity")

# One row per block of some seconds, without gaps between blocks.
AUDIO_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),  # base id; both people of a _left/_right pair share it
        ("rate", pa.int32()),  # sample rate in Hz
        ("start_s", pa.float64()),  # media time of the block's first sample
        ("channels", pa.int32()),  # 1 or 2
        ("waveform", pa.list_(pa.int16())),  # (channels, samples) flattened
    ],
    metadata={"schema_version": SCHEMA_VERSION},
)


class TrackSpan(Section):
    """Consecutive rows of one person of one video in a file."""

    video_id: str
    person: str
    rows: int


class Shard(Section):
    """One Parquet file of the store."""

    name: str
    split: str
    rows: int
    spans: tuple[TrackSpan, ...]


class SplitCounts(Section):
    """The numbers of videos, rows and labels in a split. AU counts include only known labels."""

    videos: int = 0  # base videos
    rows: int = 0
    au_rows: int = 0  # rows with at least one known AU
    au_valid: dict[str, int] = dict.fromkeys(facs.AUS, 0)
    au_positives: dict[str, int] = dict.fromkeys(facs.AUS, 0)
    expression_rows: int = 0
    expressions: tuple[int, ...] = (0,) * len(facs.EXPRESSIONS)


class StoreHeader(Section):
    """The properties of a store that are known before any row is written."""

    edition: str
    source: str
    license: str
    template: tuple[tuple[float, float], ...]  # 5 × (x, y) in crop pixels: eyes, nose tip, mouth corners
    template_source: Literal["arcface", "measured", "assumed"]
    n_expressions: int
    expressions: tuple[str, ...] = facs.EXPRESSIONS  # names of the classes in label order
    settings: dict[str, str | int | float | bool | None]  # settings of its creation: detector, smoothing …

    @property
    def separate_images(self) -> bool:
        """True if rows are photographs of their own, so that consecutive frame numbers are not close in time."""
        return self.source.startswith("images:") and self.source != "images:bp4d"  # BP4D has the frames of videos


class StoreCard(StoreHeader):
    """The content of store.json."""

    schema_version: str = SCHEMA_VERSION
    au_order: tuple[str, ...] = facs.AUS
    splits: dict[str, SplitCounts]
    positive_rates: dict[str, float | None]  # AU → positives / known labels of train; None without labels
    annotations: dict[str, int]  # "au.rows" = "au.kept" + every other "au.…"; the same for "expr."
    dropped: dict[str, int]  # annotations that are not in the store, by reason, and leftover images
    mismatches: dict[str, dict[str, int]]  # "VIDEO" or "VIDEO_left" → reason → number dropped
    bad_lines: tuple[str, ...] = ()  # "FILE:LINE problem", at most `write.MAX_BAD_LINES`
    shards: tuple[Shard, ...]
