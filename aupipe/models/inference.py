"""A trained model as annotation runs it: an encoder of crops, and a head for the embeddings of one track.

Torch runs every checkpoint. ONNX Runtime runs those with an exported graph on CPUs in float32, and then torch is not
imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from aupipe import facs
from aupipe.arrays import Floats, Ints
from aupipe.config import Precision
from aupipe.errors import CheckpointError
from aupipe.models import checkpoint
from aupipe.models.checkpoint import Card
from aupipe.models.configs import SingleFrameConfig
from aupipe.models.exported import ExportedModel

if TYPE_CHECKING:
    from aupipe.models.sliding_window import Columns

# Maps crops (n, 112, 112, 3) uint8 RGB to embeddings (n, E) float32. n is at least 1 and at most the batch size.
Encoder = Callable[[np.ndarray], np.ndarray]


class Rows(Protocol):
    """Rows (N, E) float32 that can be read by slice, e.g. an array."""

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


class InferenceModel(Protocol):
    """A model. It can be pickled, and its encoder is opened in the process that uses it."""

    @property
    def embed_dim(self) -> int:
        """E, the size of an embedding."""

    @property
    def window_length(self) -> int:
        """The frames of a window of the head; 1: it predicts each frame separately."""

    @property
    def uses_audio(self) -> bool:
        """True if the head uses the spectrogram."""

    @property
    def outputs(self) -> dict[str, int]:
        """Name → size of the outputs of the head."""

    @property
    def encoder_parts(self) -> tuple[object, ...]:
        """Everything that embeddings depend on, apart from the crops."""

    def encoder(self, batch_size: int, device: str) -> Encoder:
        """Return the encoder on a device. Its calls have a fixed shape, so embeddings do not depend on the batch."""

    def predict(
        self, features: Rows, time_s: Floats, *, overlap: float,
        mel: Columns | None = None, column: Ints | None = None,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """Return probabilities {"au": (N, 12)[, "expr": (N, C)]} float32 of one track (see `run_head`)."""

    def without_encoder(self) -> InferenceModel:
        """Return the model for `predict` only, which takes less memory."""


def load(path: str, precision: Precision = "float32") -> tuple[InferenceModel, Card]:
    """Load a model and its card from the checkpoint at `path` (folder or URI).

    Args:
        precision: of the encoder. Torch runs other ones than float32, on CPUs too.

    Raises:
        CheckpointError: see `checkpoint.load`; or the graph is not the file that the card was written with, or not of
            the model that it describes; or its expression classes are not those of Aff-Wild2, after which tables name
            them.
    """
    card = checkpoint.load_card(path)
    count = min(len(card.expressions), len(facs.EXPRESSIONS))
    if "expr" in getattr(card.model, "outputs", ()) and card.expressions[:count] != facs.EXPRESSIONS[:count]:
        raise CheckpointError(
            f"{path}: expressions {', '.join(card.expressions)} ({', '.join(facs.EXPRESSIONS)}); "
            "fix: give a later stage, which predicts AUs"
        )
    if card.graph_sha256 and isinstance(card.model, SingleFrameConfig) and precision == "float32":
        if card.graph_of != card.sha256:
            raise CheckpointError(
                f"{path}/{checkpoint.GRAPH} was not made of the model and input that {checkpoint.CARD} now describes; "
                f"fix: python jobs/convert.py {path} --out {path}/{checkpoint.GRAPH}"
            )
        weights = checkpoint.read(path, checkpoint.WEIGHTS, card.weights_sha256)
        graph = checkpoint.read(path, checkpoint.GRAPH, card.graph_sha256)
        return ExportedModel(path, card, graph, weights), card
    from aupipe.models.torch_model import TorchModel  # takes seconds, so it is imported only when needed

    return TorchModel(*checkpoint.load(path), precision), card
