"""A trained model on disk: a folder with `model.safetensors` (weights) and `model.json` (its card). No pickle.

The card contains everything needed to use the model without its recipe: configuration, AU order, input size and
normalization, the crops' five-point template, thresholds, smoothing, and a description of the training data. It is
read without torch.

The folder of a single-frame model may also contain `model.onnx`, with which it runs without torch (see `exported`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from safetensors import SafetensorError

import aupipe
from aupipe import facs
from aupipe.config import OVERLAP, Inference, Section
from aupipe.errors import CheckpointError
from aupipe.models.configs import ModelConfig
from aupipe.models.inputs import InputSpec
from aupipe.storage import Storage

if TYPE_CHECKING:
    from aupipe.models.interfaces import System

WEIGHTS, CARD, GRAPH = "model.safetensors", "model.json", "model.onnx"

Point = tuple[float, float]


class Smoothing(Section):
    """Smoothing of probabilities over time."""

    radius: int = Field(default=0, ge=0)  # frames on either side of the box mean


class TrainingCard(Section):
    """Origin of the weights."""

    recipe: str = ""
    stage: str = ""
    data: str = ""  # path of the store
    source: str = ""  # origin of the store's crops
    license: str = ""
    seed: int = 0
    split: str = ""
    leak: Literal["drop_train", "drop_val", "off"] = "off"  # see data.splits.LeakFilter; drop_val also when scored
    videos: tuple[str, ...] = ()  # all training videos
    held_out_videos: tuple[str, ...] = ()  # videos used to fit thresholds and smoothing
    thresholds_from: str = "0.5"
    command: str = ""
    limits: str = ""  # limits of use


class Card(Section):
    """The content of `model.json`."""

    model: ModelConfig
    input: InputSpec
    template: tuple[Point, ...] = Field(min_length=5, max_length=5)  # of the training crops, pixels of 112×112
    au_order: tuple[str, ...] = facs.AUS
    thresholds: dict[str, float] = Field(default_factory=lambda: dict.fromkeys(facs.AUS, 0.5))
    # Median probability of people at rest, from which intensities are measured.
    rest: dict[str, float] = Field(default_factory=lambda: dict.fromkeys(facs.AUS, 0.0))
    smoothing: Smoothing = Smoothing()
    expressions: tuple[str, ...] = facs.EXPRESSIONS  # names of the classes of an expression head, in label order
    overlap: float = Field(default=OVERLAP, ge=0, lt=1)  # of windows, as used to fit thresholds
    training: TrainingCard = TrainingCard()
    aupipe_version: str = aupipe.__version__
    weights_sha256: str = ""  # of model.safetensors; set by `save`
    graph_sha256: str = ""  # of model.onnx; set by `save_graph`; "": there is none
    graph_of: str = ""  # `sha256` of the model that the graph was made of, input included

    @field_validator("thresholds", "rest")
    @classmethod
    def _every_au(cls, values: dict[str, float], field: ValidationInfo) -> dict[str, float]:
        if tuple(values) != facs.AUS:
            raise ValueError(
                f"one value of {field.field_name} for each of {', '.join(facs.AUS)} is needed, in that order"
            )
        return values

    def overlap_under(self, inference: Inference) -> float:
        """Return the overlap of this model's windows under a job's settings."""
        return self.overlap if inference.overlap is None else inference.overlap

    @property
    def sha256(self) -> str:
        """Identifier of the model in every output: hash of weights and configuration, without thresholds."""
        described = json.dumps([self.model.model_dump(mode="json"), self.input.model_dump(mode="json")], sort_keys=True)
        return hashlib.sha256((self.weights_sha256 + described).encode()).hexdigest()


def outputs(card: Card) -> dict[str, int]:
    """Return the model's outputs: name → number of logits."""
    import torch  # takes seconds, so it is imported only when needed

    from aupipe.models import sliding_window
    from aupipe.models.build import build

    with torch.device("meta"):
        system = build(card.model, card.input).eval()
        return sliding_window.outputs(system.head, system.encoder.embed_dim)


def save(folder: Storage, system: System, card: Card, *, half: bool = False) -> Card:
    """Write the checkpoint and return its card. The card is written last, so a folder with a card is complete.

    Args:
        half: store weights as float16, except tensors with values beyond its range; `load` converts them to float32.
    """
    from safetensors import torch as safetensors

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in system.state_dict().items()}
    if half:
        halves = {name: tensor.half() for name, tensor in tensors.items() if tensor.is_floating_point()}
        tensors |= {name: tensor for name, tensor in halves.items() if tensor.isfinite().all()}
    weights = safetensors.save(tensors)
    card = card.model_copy(
        update={"weights_sha256": hashlib.sha256(weights).hexdigest(), "graph_sha256": "", "graph_of": ""}
    )
    folder.write(WEIGHTS, weights)
    folder.write(CARD, card.model_dump_json(indent=1).encode())
    return card


def save_graph(folder: Storage, card: Card, graph: bytes) -> Card:
    """Add the exported graph to a checkpoint. Return its card, which is written last."""
    card = card.model_copy(update={"graph_sha256": hashlib.sha256(graph).hexdigest(), "graph_of": card.sha256})
    folder.write(GRAPH, graph)
    folder.write(CARD, card.model_dump_json(indent=1).encode())
    return card


def load_card(path: str) -> Card:
    """Return the card of the checkpoint at `path` (folder or URI).

    Raises:
        CheckpointError: it is missing or invalid, or its AU order is not `facs.AUS`.
    """
    folder = Storage(path)
    missing = [name for name in (CARD, WEIGHTS) if not folder.exists(name)]
    if missing:
        best = f"{folder.root}/best" if folder.exists(f"best/{CARD}") else "RUN/best of train.py"
        raise CheckpointError(f"{path} is no checkpoint: {' and '.join(missing)} missing; give the folder {best}")
    try:
        described = json.loads(folder.read(CARD))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}/{CARD} is not JSON ({error}); rewrite the checkpoint") from None
    if not isinstance(described, dict) or "model" not in described:
        raise CheckpointError(f"{path}/{CARD} is not a model's card; give the folder RUN/best of train.py")
    order = described.get("au_order")
    if order != list(facs.AUS):
        raise CheckpointError(
            f"{path} was trained on the AUs {order}, in that order; aupipe's are {list(facs.AUS)}: retrain it"
        )
    try:
        return Card.model_validate(described)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise CheckpointError(
            f"{path}/{CARD}: {where}: {problem['msg']}; written by another version of aupipe?"
        ) from None


def check_distinct(paths: Sequence[str], cards: Sequence[Card]) -> None:
    """Refuse a model that is named twice in an ensemble, in which it would count twice.

    Raises:
        CheckpointError: two of the checkpoints have the same weights and configuration.
    """
    found: dict[str, str] = {}
    for path, card in zip(paths, cards, strict=True):
        if card.sha256 in found:
            raise CheckpointError(
                f"{found[card.sha256]} and {path} are the same model ({card.sha256[:12]}); name it once"
            )
        found[card.sha256] = path


def load(path: str) -> tuple[System, Card]:
    """Load the system in eval mode and its card from a folder or URI.

    Raises:
        CheckpointError: see `load_card`; or the weights are damaged or do not fit the configuration.
    """
    card = load_card(path)
    return restore(path, card, read(path, WEIGHTS, card.weights_sha256)), card


def read(path: str, name: str, sha256: str) -> bytes:
    """Return the content of a file of the checkpoint at `path`.

    Raises:
        CheckpointError: it is missing, or its sha256 differs from the card's.
    """
    folder = Storage(path)
    data = folder.read(name) if folder.exists(name) else b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(
            f"{path}/{name} is not the file that its card was written with; copy the checkpoint again"
        )
    return data


def restore(path: str, card: Card, weights: bytes) -> System:
    """Return the system in eval mode from the card and the content of `model.safetensors`.

    Args:
        path: the checkpoint, for messages.

    Raises:
        CheckpointError: the weights are damaged, not numbers, or do not fit the configuration.
    """
    from safetensors import torch as safetensors

    from aupipe.models.build import build

    try:
        system = build(card.model, card.input)
    except (ValueError, RuntimeError, AssertionError, ZeroDivisionError) as error:  # raised for impossible sizes
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}/{CARD} describes no model that can be built: {text}") from None
    try:
        system.load_state_dict(safetensors.load(weights), strict=True)
    except (RuntimeError, SafetensorError) as error:
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}/{WEIGHTS} does not fit the model that its card describes: {text}") from None
    if damaged := next((name for name, tensor in system.state_dict().items() if tensor.isnan().any()), None):
        raise CheckpointError(f"{path}/{WEIGHTS}: {damaged} is not a number; fix: train it again at a lower rate")
    return system.eval()
