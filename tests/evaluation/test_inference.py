from collections.abc import Callable

import numpy as np
import pytest
import torch

from aupipe.data.embedding_store import encode_crops
from aupipe.data.readers import CropReader, LogMelCache
from aupipe.data.samples import Tracks
from aupipe.evaluation.inference import predict_tracks
from aupipe.facestore.read import FaceStore
from aupipe.models.build import build
from aupipe.models.configs import ExpressionTransferConfig
from aupipe.models.inputs import InputSpec

pytestmark = pytest.mark.unit


def test_prediction_does_not_depend_on_batch_composition(make_store: Callable[..., str]) -> None:
    index = FaceStore.open(make_store(train=4, validation=3, frames=16))
    inputs = InputSpec(size_px=32)
    system = build(ExpressionTransferConfig(backbone="test_resnet", outputs=("au", "expr"), hidden=(8,)), inputs)
    reader = CropReader(index, "validation", keep_groups=1)

    def predict(rows: np.ndarray, edges: list[int]) -> dict[str, np.ndarray]:
        tracks = Tracks("validation", rows, rows / 30.0, np.array(edges), ("video",) * (len(edges) - 1))
        features = encode_crops(system.encoder, inputs, reader, rows, torch.device("cpu"))
        return predict_tracks(system.head, features, LogMelCache(index), tracks, overlap=0.5)

    rows = np.arange(40)
    together = predict(rows, [0, 16, 32, 40])
    assert together["au"].shape == (40, 12)
    assert together["expr"].shape == (40, 8)
    np.testing.assert_allclose(together["expr"].sum(axis=1), 1, rtol=1e-6)
    separate = [predict(rows[i : i + 7], [0, min(7, 40 - i)]) for i in range(0, 40, 7)]
    for name in together:
        assert np.array_equal(together[name], np.concatenate([part[name] for part in separate]))
