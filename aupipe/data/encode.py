"""How embeddings are made: the encodings of a store, the file of one part."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from aupipe.arrays import Ints
from aupipe.data.augment import AugmentConfig, distort
from aupipe.data.crop_reader import CropReader
from aupipe.data.embedding_store import Encoding, to_parquet
from aupipe.data.sampler import seed_of
from aupipe.evaluation.inference import encode
from aupipe.facestore.read import ALL, FaceStore
from aupipe.models.embedding import encoder_sha256
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import FrameEncoder


def plain(encoder: FrameEncoder, inputs: InputSpec, index: FaceStore) -> Encoding:
    """The encoding of the crops of a store as they are."""
    return Encoding(
        encoder_sha256=encoder_sha256(encoder), width=encoder.embed_dim, input=inputs, store_sha256=index.sha256
    )


def copies(plain: Encoding, augment: AugmentConfig, count: int) -> tuple[Encoding, ...]:
    """`count` encodings of augmented crops; `plain` is that of the crops as they are."""
    drawn = augment.model_copy(update={"mixup_alpha": 0.0, "label_smoothing": 0.0})  # crops do not depend on them
    return tuple(plain.model_copy(update={"augment": drawn, "copy_number": number}) for number in range(count))


def parts_of(index: FaceStore, pool: str, rows: Ints) -> tuple[str, ...]:
    """The parts of the store that hold any of these rows of a pool."""
    groups = index.row_groups(pool)
    return tuple(dict.fromkeys(groups[number].file for number in np.unique(groups.of(rows))))


def encode_part(encoder: FrameEncoder, encoding: Encoding, index: FaceStore, part: str, device: torch.device) -> bytes:
    """The file of embeddings of a part of the store."""
    groups = [group for group in index.row_groups(ALL) if group.file == part]
    rows = np.arange(groups[0].start, groups[-1].start + groups[-1].rows) if groups else np.zeros(0, np.int64)
    (runs,) = (each.runs for _, each in index.parts(ALL) if each.name == part)
    track = np.repeat(np.arange(len(runs)), [run.rows for run in runs])

    def drawn(images: Tensor, chosen: Ints) -> Tensor:
        """Images (N, 3, H, W), each track changed by its own draw, the same in all its frames and parts."""
        assert encoding.augment is not None
        tracks, parts = track[chosen - rows[0]], []
        edges = [0, *(np.flatnonzero(np.diff(tracks)) + 1).tolist(), len(tracks)]
        for first, last in itertools.pairwise(edges):
            run = runs[tracks[first]]
            generator = torch.Generator().manual_seed(seed_of("copy", encoding.copy_number, run.video_id, run.person))
            parts.append(distort(images[None, first:last], encoding.augment, generator)[0])
        return torch.cat(parts)

    reader = CropReader(index, ALL, keep_groups=2)
    found = encode(encoder, encoding.input, reader, rows, device, drawn if encoding.augment else None)
    return to_parquet(found)
