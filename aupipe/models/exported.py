"""A single-frame model in ONNX Runtime, without torch.

`model.onnx` is the graph from crops to logits, input scaling included. It contains no weights: it refers to the places
of the tensors in `model.safetensors`. `export.export` makes it, and a test compares its logits with torch's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from aupipe.arrays import Floats, Ints
from aupipe.errors import CheckpointError
from aupipe.models import checkpoint
from aupipe.models.checkpoint import Card
from aupipe.models.configs import SingleFrameConfig
from aupipe.onnx_session import GraphError, open_session

if TYPE_CHECKING:
    from aupipe.models.inference import Encoder, Rows
    from aupipe.models.sliding_window import Columns

CROPS, LOGITS = "crops", "logits"  # the input and the output of a graph
# More crops per call are hardly faster on a CPU (0.72 and 0.85 ms per crop of two earlier starter models at 8, 0.73 and
# 0.78 at 64), and fewer fit a video's last call better.
_CALL = 8
_PROBABILITY_ROWS = 65536  # per step, so that a long track is not in memory as a whole


@dataclass(frozen=True)
class ExportedModel:
    """A model whose encoder ends in its logits.

    Attributes:
        path: of the checkpoint, for messages.
        graph: the content of `model.onnx`.
        weights: the content of `model.safetensors`.
    """

    path: str
    card: Card
    graph: bytes
    weights: bytes

    @property
    def embed_dim(self) -> int:
        return sum(self.outputs.values())

    @property
    def window_length(self) -> int:
        return 1

    @property
    def uses_audio(self) -> bool:
        return False

    @property
    def outputs(self) -> dict[str, int]:
        assert isinstance(self.card.model, SingleFrameConfig)
        return self.card.model.sizes

    @property
    def encoder_parts(self) -> tuple[object, ...]:
        return "onnxruntime", self.card.graph_sha256, self.card.weights_sha256

    def encoder(self, batch_size: int, device: str) -> Encoder:
        if device != "cpu":
            from aupipe.models.torch_model import TorchModel  # ONNX Runtime's package for CPUs does not use GPUs

            system = checkpoint.restore(self.path, self.card, self.weights)
            return TorchModel(system, self.card).encoder(batch_size, device)
        try:
            session = open_session(self.graph, {checkpoint.WEIGHTS: self.weights})
        except GraphError as error:
            raise CheckpointError(
                f"{self.path}/{checkpoint.GRAPH}: ONNX Runtime cannot run it ({error}); fix: export it again"
            ) from None

        def encode(crops: np.ndarray) -> np.ndarray:
            logits = []
            for start in range(0, len(crops), _CALL):
                chunk = crops[start : start + _CALL]
                padded = chunk[np.arange(_CALL) % len(chunk)]
                logits.append(session.run([LOGITS], {CROPS: padded})[0][: len(chunk)])
            return np.concatenate(logits)

        return encode

    def predict(
        self, features: Rows, time_s: Floats, *, overlap: float,
        mel: Columns | None = None, column: Ints | None = None,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        count = len(time_s)
        found = {name: np.zeros((count, size), np.float32) for name, size in self.outputs.items()}
        for start in range(0, count, _PROBABILITY_ROWS):
            rows = slice(start, min(start + _PROBABILITY_ROWS, count))
            # In float64, because float32 functions of NumPy give other last bits at the end of an array.
            logits, first = features[rows].astype(np.float64), 0
            for name, size in self.outputs.items():
                found[name][rows] = _PROBABILITIES[name](logits[:, first : first + size])
                first += size
        return found

    def without_encoder(self) -> ExportedModel:
        return replace(self, graph=b"", weights=b"")


def _sigmoid(logits: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -logits))


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


_PROBABILITIES = {"au": _sigmoid, "expr": _softmax}
