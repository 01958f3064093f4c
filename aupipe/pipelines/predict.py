"""Prediction over a face store as a Ray Data job: groups of whole tracks in, probabilities out."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import ray.data
import torch
from safetensors import numpy as safetensors

from aupipe import facs
from aupipe.config import Inference, Resources
from aupipe.data import batches as sources
from aupipe.data import embedding_store, samples
from aupipe.data.augment import AugmentConfig
from aupipe.data.batches import Source
from aupipe.data.readers import LogMelCache
from aupipe.data.samples import Tracks
from aupipe.data.splits import SplitPart
from aupipe.errors import ConfigError, DatasetError
from aupipe.evaluation import decision
from aupipe.evaluation.decision import EnsembleRule, Member
from aupipe.evaluation.inference import predict_tracks
from aupipe.evaluation.predictions import Predictions
from aupipe.faces import template
from aupipe.facestore.read import FaceStore
from aupipe.models import checkpoint
from aupipe.models.interfaces import SequenceHead, System
from aupipe.pipelines.session import Pool, actor_pool, device_of, gpus_per_worker, label_selector_for, with_time_for
from aupipe.storage import Storage

logger = logging.getLogger(__name__)

ROWS_PER_CALL = 1024  # approximately, because a track is never cut


def predict(
    checkpoints: Sequence[str], index: FaceStore, parts: Collection[SplitPart], inference: Inference,
    resources: Resources, embeddings: str | None = None, pool: Pool | None = None,
) -> dict[SplitPart, list[Predictions]]:  # fmt: skip
    """Return the predictions of each model for every row of each part, labeled or not. Runs inside a session.

    Args:
        embeddings: folder or URI of embeddings; those that exist for a model's encoder are read, not computed again.
        pool: nodes to use; default: infer, or decode without GPUs.

    Raises:
        DatasetError: a part has no rows.
    """
    cards = [checkpoint.load_card(path) for path in checkpoints]
    tables = {part: samples.rows_of(index, part) for part in parts}
    chunks = {part: _chunks(part.split, table) for part, table in tables.items()}
    every = [chunk for part in parts for chunk in chunks[part]]
    if not all(chunks.values()):
        raise DatasetError(f"{index.storage.root}: nothing to predict; the split is empty")
    gpus = gpus_per_worker(resources)
    pool = pool or ("infer" if gpus else "decode")
    data = ray.data.from_items([{"chunk": number} for number in range(len(every))], override_num_blocks=len(every))
    data = data.map(
        _Predictor,
        fn_constructor_args=(list(checkpoints), index, every, inference, device_of(resources), embeddings),
        compute=actor_pool(resources, len(every), sum(table.num_rows for table in tables.values()), pool),
        num_cpus=0 if gpus else 1,
        num_gpus=gpus,
        label_selector=label_selector_for(pool, resources),
    )
    found_rows = with_time_for(max(len(chunk.rows) for chunk in every), data).iter_rows()
    outputs = {int(row["chunk"]): [safetensors.load(model) for model in row["models"]] for row in found_rows}
    result, first = {}, 0
    for part in parts:
        of_part = [outputs[number] for number in range(first, first + len(chunks[part]))]
        first += len(of_part)
        found = [_joined(tables[part], each) for each in zip(*of_part, strict=True)]
        result[part] = [
            raw.with_classes(card.expressions, index.card.expressions) for card, raw in zip(cards, found, strict=True)
        ]
    return result


def check_models(
    checkpoints: Sequence[str], index: FaceStore, rule: EnsembleRule
) -> tuple[list[checkpoint.Card], list[str]]:  # fmt: skip
    """Check that models can predict the AUs of a store together.

    Returns:
        Their cards, and the checkpoints of those that use audio.

    Raises:
        ConfigError: a model is damaged, is named twice, predicts no AUs or is for other crops, or a vote could tie.
    """
    decision.check(len(checkpoints), rule)
    cards, with_audio = list[checkpoint.Card](), list[str]()
    for path in checkpoints:
        system, card = checkpoint.load(path)  # damaged weights would fail on every worker
        _check_outputs(path, card)
        _check_template(path, card, index)
        cards.append(card)
        with_audio += [path] if system.head.uses_audio else []
    checkpoint.check_distinct(checkpoints, cards)
    return cards, with_audio


def _check_outputs(path: str, card: checkpoint.Card) -> None:
    """Check that a model predicts AUs.

    Raises:
        ConfigError: it does not.
    """
    if "au" not in (found := checkpoint.outputs(card)):
        raise ConfigError(f"{path} predicts {', '.join(found)}, no AUs; fix: give a later stage")


def check_audio(what: str, used: Sequence[tuple[FaceStore, Collection[str]]], *, required: bool = False) -> None:
    """Log a warning if stores have no audio of some videos, which are then silent to a model that uses audio.

    Args:
        what: the stage or the model.
        used: stores, and base videos of each.
        required: some video needs audio, because a model would learn from silence.

    Raises:
        DatasetError: audio is required, and no video has any.
    """
    videos = {video for _, part in used for video in part}
    silent = {video for index, part in used for video in index.without_audio(part)}
    if required and silent == videos:
        raise DatasetError(
            f"{what} uses audio, and {' and '.join(sorted({index.storage.root for index, _ in used}))} has none; "
            "fix: run preprocess.py again with the videos below its --data, beside the crops, or train another recipe"
        )
    if silent:
        logger.warning(
            "%s: %d of %d videos have no audio in the store, as %s, and count as silent; fix: add their video files to "
            "the data set, and run preprocess.py again",
            what, len(silent), len(videos), min(silent),
        )  # fmt: skip


def _check_template(path: str, card: checkpoint.Card, index: FaceStore) -> None:
    """Check that the crops of a store are aligned as those that a model was trained on.

    Raises:
        ConfigError: they are not.
    """
    trained_on = np.array(card.template)
    if np.ptp(trained_on, axis=0).any():  # five equal points state no alignment
        distance = template.distance(trained_on, index.template)
        if distance >= template.SAME_PX:
            raise ConfigError(
                f"the crops of {index.storage.root} are aligned to another template than those that {path} was trained "
                f"on ({distance:.1f} px apart; below {template.SAME_PX:g} px); remake the store with preprocess.py"
            )


def member(card: checkpoint.Card, raw: Predictions) -> Member:
    """Return the predictions of a model with its own thresholds and smoothing."""
    return Member(raw, np.array([card.thresholds[au] for au in facs.AUS]), card.smoothing.radius)


def _chunks(split: str, table: pa.Table) -> list[Tracks]:
    """Return the tracks of these rows in groups of about `ROWS_PER_CALL` rows."""
    whole = samples.tracks(split, table)
    chunks, first = [], 0
    for last in range(1, len(whole.offsets)):
        if whole.offsets[last] - whole.offsets[first] >= ROWS_PER_CALL or last == len(whole.offsets) - 1:
            chunks.append(whole.part(first, last))
            first = last
    return chunks


def _joined(table: pa.Table, chunks: Sequence[dict[str, np.ndarray]]) -> Predictions:
    """Return the predictions of one model for a part from those for its chunks."""
    outputs = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    return Predictions.of(table, outputs["au"], outputs.get("expr"))


class _Predictor:
    """The models on one worker."""

    def __init__(
        self, checkpoints: list[str], index: FaceStore, chunks: list[Tracks], inference: Inference, device: str,
        embeddings: str | None,
    ) -> None:  # fmt: skip
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        self._device = torch.device(device)
        self._index, self._chunks, self._inference, self._embeddings = index, chunks, inference, embeddings
        self._log_mels = LogMelCache(index)
        self._models = [self._model(*checkpoint.load(folder)) for folder in checkpoints]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        chunk = self._chunks[row["chunk"]]
        outputs = [
            predict_tracks(head, sources[chunk.split].embeddings(chunk.rows), self._log_mels, chunk, overlap)
            for head, sources, overlap in self._models
        ]
        return {"chunk": row["chunk"], "models": [safetensors.save(one) for one in outputs]}

    def _model(self, system: System, card: checkpoint.Card) -> tuple[SequenceHead, dict[str, Source], float]:
        """Return a model's head, split → source of the embeddings of its rows, and the overlap of its windows."""
        system = system.to(self._device).to(memory_format=torch.channels_last)  # same bits as in training
        splits = {chunk.split for chunk in self._chunks}
        stores = {
            split: sources.open_source(
                self._index, split, self._stored(system, card, split), keep_groups=2, encoder=system.encoder,
                inputs=card.input, config=AugmentConfig(), device=self._device,
            )
            for split in splits
        }  # fmt: skip
        return system.head, stores, card.overlap_under(self._inference)

    def _stored(self, system: System, card: checkpoint.Card, split: str) -> tuple[str, ...]:
        """Return the folder with the embeddings of all rows of a split; empty if some are missing."""
        if self._embeddings is None:
            return ()
        key = embedding_store.plain_encoding(system.encoder, card.input, self._index).key
        folder = Storage(f"{self._embeddings}/{key}")
        rows = np.concatenate([chunk.rows for chunk in self._chunks if chunk.split == split])
        parts = embedding_store.parts_of(self._index, split, rows)
        return (folder.root,) if embedding_store.is_complete(folder, parts) else ()
