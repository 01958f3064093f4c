"""Sources of a task's training batches: crops of a store's rows, or stored embeddings of a frozen encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from aupipe.arrays import Ints
from aupipe.data.augment import AugmentConfig, augment, smooth
from aupipe.data.embedding_store import PREDICT_BATCH, EmbeddingReader, encode_crops
from aupipe.data.readers import CropReader
from aupipe.facestore.read import FaceStore
from aupipe.models.embedding import embed
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import FrameEncoder


@dataclass(frozen=True)
class EmbeddingFolders:
    """Folders with the stored embeddings of a task's rows."""

    train: tuple[str, ...]  # of the training rows, one folder per augmented copy
    eval: tuple[str, ...]  # of the rows to score: one folder, or none if nothing is scored


class Source(Protocol):
    """Reader of model inputs for the rows of one pool."""

    def prefetch(self, rows: Ints, share: float, *, pass_index: int) -> None:
        """Start to load the row groups of rows (N,); `share` as in `CropReader.prefetch`."""

    def read(self, rows: Ints, *, pass_index: int) -> Tensor:
        """Return what is stored for rows (N,) and training pass `pass_index`, on the CPU.

        Threads may read at the same time, because nothing is random yet.

        Returns:
            Crops (N, 112, 112, 3) uint8, or embeddings (N, E).
        """

    def clips(self, stored: Tensor, targets: Tensor, *, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return augmented clips and their targets on the device.

        Args:
            stored: what `read` returned for the rows of B clips of S frames.
            targets: (B, S, …) on the device.

        Returns:
            Normalized frames (B, S, 3, H, W), or embeddings (B, S, E) if the encoder is frozen, and the targets.
        """

    def embeddings(self, rows: Ints) -> Tensor:
        """Return embeddings (N, E) of rows (N,) without augmentation. The encoder is in eval mode afterwards."""


class CropSource:
    """Crops, decoded and augmented at every read."""

    def __init__(
        self, *, index: FaceStore, pool: str, keep_groups: int, encoder: FrameEncoder, inputs: InputSpec,
        config: AugmentConfig, device: torch.device,
    ) -> None:  # fmt: skip
        self._reader = CropReader(index, pool, keep_groups=keep_groups)
        self._encoder, self._inputs, self._augment, self._device = encoder, inputs, config, device
        self._frozen = is_frozen(encoder)

    def prefetch(self, rows: Ints, share: float, *, pass_index: int) -> None:
        self._reader.prefetch(rows, share)

    def read(self, rows: Ints, *, pass_index: int) -> Tensor:
        return self._reader.read(rows)

    def clips(self, stored: Tensor, targets: Tensor, *, generator: Generator) -> tuple[Tensor, Tensor]:
        shape = targets.shape[:2]
        images = self._inputs.scale(stored.to(self._device, non_blocking=True)).unflatten(0, shape)
        images, targets = augment(images, targets, self._augment, generator)
        images = self._inputs.normalize(images)
        if self._frozen:
            images = embed(self._encoder, images.flatten(0, 1), PREDICT_BATCH).unflatten(0, shape)
        return images, targets

    def embeddings(self, rows: Ints) -> Tensor:
        return encode_crops(self._encoder, self._inputs, self._reader, rows, self._device).to(self._device)


class EmbeddingSource:
    """Stored embeddings of a frozen encoder; pass n reads augmented copy n mod K of K."""

    def __init__(
        self, *, index: FaceStore, pool: str, keep_groups: int, folders: Sequence[str], config: AugmentConfig,
        device: torch.device,
    ) -> None:  # fmt: skip
        """
        Args:
            folders: one per augmented copy (see `EmbeddingReader`).
        """
        self._reader = EmbeddingReader(index, pool, folders, keep_groups=keep_groups)
        self._augment, self._device = config, device

    def prefetch(self, rows: Ints, share: float, *, pass_index: int) -> None:
        self._reader.prefetch(rows, share, copy=pass_index)

    def read(self, rows: Ints, *, pass_index: int) -> Tensor:
        return self._reader.read(rows, copy=pass_index)

    def clips(self, stored: Tensor, targets: Tensor, *, generator: Generator) -> tuple[Tensor, Tensor]:
        found = stored.to(self._device, non_blocking=True)
        return found.unflatten(0, targets.shape[:2]), smooth(targets, self._augment)

    def embeddings(self, rows: Ints) -> Tensor:
        return self._reader.read(rows).to(self._device)


def open_source(
    index: FaceStore, pool: str, folders: Sequence[str], *, keep_groups: int, encoder: FrameEncoder,
    inputs: InputSpec, config: AugmentConfig, device: torch.device,
) -> Source:  # fmt: skip
    """Open the stored embeddings of a pool's rows in `folders`, or its crops if there are none."""
    if folders:
        return EmbeddingSource(
            index=index, pool=pool, keep_groups=keep_groups, folders=folders, config=config, device=device
        )
    return CropSource(
        index=index, pool=pool, keep_groups=keep_groups, encoder=encoder, inputs=inputs, config=config, device=device
    )


def is_frozen(encoder: FrameEncoder) -> bool:
    """Return whether no parameter of the encoder is trained."""
    return not any(parameter.requires_grad for parameter in encoder.parameters())
