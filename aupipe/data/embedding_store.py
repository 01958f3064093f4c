"""Embeddings of a face store's crops by a frozen encoder: computed once, stored on disk and read by row number.

FOLDER/KEY/split=train/00000-….parquet    one file per part of the store, with the same rows and row groups
FOLDER/KEY/embeddings.json                the card, written last

KEY is a hash of everything that the embeddings depend on. Runs, trials and stages with the same encoding therefore
share its files, and writing a file twice is harmless. A part whose file exists is complete.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import ValidationError
from torch import Tensor

from aupipe.arrays import Ints
from aupipe.config import Section
from aupipe.data.augment import AugmentConfig, distort
from aupipe.data.loaded import Loaded
from aupipe.data.readers import CropReader
from aupipe.data.sampler import seed_of
from aupipe.errors import DatasetError
from aupipe.facestore.columns import from_arrays, to_arrays
from aupipe.facestore.read import ALL, FaceStore
from aupipe.facestore.schema import ROW_GROUP_ROWS
from aupipe.facestore.shard_reader import read_group
from aupipe.models.embedding import embed, encoder_sha256
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import FrameEncoder
from aupipe.storage import Storage

PREDICT_BATCH = 64  # fixed, because embeddings must not depend on batch composition
CARD = "embeddings.json"
_SCHEMA_VERSION = "1"
_COLUMN = "embedding"  # float32[E]


class Encoding(Section):
    """Everything that stored embeddings depend on; also the card of their folder."""

    schema_version: str = _SCHEMA_VERSION
    encoder_sha256: str
    width: int  # E
    input: InputSpec
    store_sha256: str
    augment: AugmentConfig | None = None  # None: crops without augmentation
    copy_number: int = 0  # index among the augmented copies

    @property
    def key(self) -> str:
        """Name of the folder of these embeddings."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:32]


def plain_encoding(encoder: FrameEncoder, inputs: InputSpec, index: FaceStore) -> Encoding:
    """Return the encoding of a store's crops without augmentation."""
    return Encoding(
        encoder_sha256=encoder_sha256(encoder), width=encoder.embed_dim, input=inputs, store_sha256=index.sha256
    )


def augmented_encodings(plain: Encoding, augment: AugmentConfig, count: int) -> tuple[Encoding, ...]:
    """Return `count` encodings of augmented crops, derived from the `plain` encoding."""
    # Mixup and label smoothing do not change single crops, so they are not part of the key.
    single = augment.model_copy(update={"mixup_alpha": 0.0, "label_smoothing": 0.0})
    return tuple(plain.model_copy(update={"augment": single, "copy_number": number}) for number in range(count))


def parts_of(index: FaceStore, pool: str, rows: Ints) -> tuple[str, ...]:
    """Return the parts of the store that contain any of these rows of a pool."""
    groups = index.row_groups(pool)
    return tuple(dict.fromkeys(groups[number].file for number in np.unique(groups.of(rows))))


def encode_part(encoder: FrameEncoder, encoding: Encoding, index: FaceStore, part: str, device: torch.device) -> bytes:
    """Return the Parquet file with the embeddings of one part of the store."""
    groups = [group for group in index.row_groups(ALL) if group.file == part]
    rows = np.arange(groups[0].start, groups[-1].start + groups[-1].rows) if groups else np.zeros(0, np.int64)
    (spans,) = (each.spans for _, each in index.shards(ALL) if each.name == part)
    track = np.repeat(np.arange(len(spans)), [span.rows for span in spans])

    def augmented(images: Tensor, chosen: Ints) -> Tensor:
        """Augment images (N, 3, H, W) with one draw per track, equal in all its frames and parts."""
        assert encoding.augment is not None
        tracks, parts = track[chosen - rows[0]], []
        edges = [0, *(np.flatnonzero(np.diff(tracks)) + 1).tolist(), len(tracks)]
        for first, last in itertools.pairwise(edges):
            span = spans[tracks[first]]
            generator = torch.Generator().manual_seed(seed_of("copy", encoding.copy_number, span.video_id, span.person))
            parts.append(distort(images[None, first:last], encoding.augment, generator)[0])
        return torch.cat(parts)

    reader = CropReader(index, ALL, keep_groups=2)
    found = encode_crops(encoder, encoding.input, reader, rows, device, augmented if encoding.augment else None)
    return to_parquet(found)


def encode_crops(
    encoder: FrameEncoder, inputs: InputSpec, reader: CropReader, rows: Ints, device: torch.device,
    distort: Callable[[Tensor, Ints], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Return embeddings (N, E) of rows (N,) on the CPU. The encoder is in eval mode afterwards.

    Args:
        distort: changes images (64, 3, H, W) in 0..1, given with their rows (64,), before normalization.
    """
    result = torch.empty(len(rows), encoder.embed_dim)
    for start in range(0, len(rows), PREDICT_BATCH):
        count = len(rows[start : start + PREDICT_BATCH])
        chosen = np.resize(rows[start : start + PREDICT_BATCH], PREDICT_BATCH)  # padded with its own rows
        images = inputs.scale(reader.read(chosen).to(device))
        images = inputs.normalize(images if distort is None else distort(images, chosen))
        result[start : start + count] = embed(encoder, images, PREDICT_BATCH)[:count].cpu()
    return result


def write_card(folder: Storage, encoding: Encoding) -> None:
    """Write the card. Call it when all files are written."""
    folder.write(CARD, encoding.model_dump_json(indent=1).encode())


def to_parquet(embeddings: Tensor) -> bytes:
    """Return the Parquet file of a part's embeddings (N, E)."""
    kind = pa.list_(pa.float32(), embeddings.shape[1])
    values = from_arrays(embeddings.numpy(), kind, len(embeddings))
    table = pa.table({_COLUMN: values}).replace_schema_metadata({"schema_version": _SCHEMA_VERSION})
    sink = io.BytesIO()
    # Grouping bytes by significance compresses 18 % better. Floats rarely repeat, so a dictionary would not help.
    pq.write_table(
        table, sink, row_group_size=ROW_GROUP_ROWS, compression="zstd", use_dictionary=False,
        use_byte_stream_split=True, write_statistics=False,
    )  # fmt: skip
    return sink.getvalue()


def is_complete(folder: Storage, parts: Iterable[str]) -> bool:
    """Return whether a folder contains the embeddings of all of these parts."""
    return folder.exists(CARD) and set(parts) <= set(folder.names())


class EmbeddingReader:
    """Reader of embeddings by row number in one pool of the store, efficient in the order of `sampler.epoch_order`."""

    def __init__(self, index: FaceStore, pool: str, folders: Sequence[str], *, keep_groups: int) -> None:
        """
        Args:
            folders: one per augmented copy, each named by its `Encoding.key`.
            keep_groups: row groups (about E kB each) that stay in memory; two windows of the plan are enough.

        Raises:
            DatasetError: a folder contains no embeddings of this store.
        """
        self._folders = [Storage(folder) for folder in folders]
        self._width = {_card(folder, index).width for folder in self._folders}.pop()
        self._groups = index.row_groups(pool)
        self._group: Loaded[tuple[int, int], Tensor] = Loaded(lambda key: self._load(*key), keep_groups)

    def read(self, rows: Ints, copy: int = 0) -> Tensor:
        """Return embeddings (N, E) float32 of rows (N,), from copy `copy` mod the number of copies.

        Threads may read at the same time.
        """
        result = torch.empty(len(rows), self._width)
        numbers = self._groups.of(rows)
        for number in np.unique(numbers).tolist():
            positions = np.flatnonzero(numbers == number)
            group = self._group((copy % len(self._folders), number))
            in_group = rows[positions] - self._groups[number].start
            result[torch.from_numpy(positions)] = group[torch.from_numpy(in_group)]
        return result

    def prefetch(self, rows: Ints, share: float, copy: int = 0) -> None:
        """Start to load the row groups of rows (N,); `share` as in `CropReader.prefetch`."""
        numbers = np.unique(self._groups.of(rows))
        numbers = np.roll(numbers, -round(share * len(numbers)))
        self._group.prefetch((copy % len(self._folders), number) for number in numbers.tolist())

    def _load(self, copy: int, number: int) -> Tensor:
        """Return the embeddings (N, E) of a row group."""
        folder, group = self._folders[copy], self._groups[number]
        column = read_group(folder, group.file, group.group, [_COLUMN])[_COLUMN]
        return torch.from_numpy(to_arrays(column).copy())


def _card(folder: Storage, index: FaceStore) -> Encoding:
    if not folder.exists(CARD):
        raise DatasetError(f"{folder.root} contains no embeddings: {CARD} is missing; re-run train.py to make them")
    try:
        found = Encoding.model_validate_json(folder.read(CARD))
    except ValidationError as error:
        raise DatasetError(
            f"{folder.path(CARD)} cannot be read ({error.errors()[0]['msg']}); delete the folder"
        ) from None
    if found.store_sha256 != index.sha256:
        raise DatasetError(f"{folder.root} contains embeddings of another store than {index.storage.root}")
    return found
