"""Several models: their order has no effect, templates are shared, and incompatible models are rejected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from aupipe.annotation import features as observed
from aupipe.annotation import model_set
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.encode import Encoders
from aupipe.annotation.extract import with_embeddings
from aupipe.annotation.schema import FEATURES
from aupipe.annotation.settings import AnnotateConfig
from aupipe.config import Inference
from aupipe.errors import CheckpointError, ConfigError
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.models import checkpoint as checkpoints
from aupipe.models.interfaces import FrameEncoder, SequenceBatch, SequenceHead, System
from aupipe.models.torch_model import TorchModel
from aupipe.storage import Storage

pytestmark = pytest.mark.unit

MakeCheckpoint = Callable[..., str]


def moved(x_px: float) -> tuple[tuple[float, float], ...]:
    return tuple((float(x) + x_px, float(y)) for x, y in ARCFACE_TEMPLATE)


class Mean(FrameEncoder):
    """An encoder that embeds a crop as its mean color."""

    embed_dim = 3

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.mean(dim=(2, 3))


class Faces(SequenceHead):
    """A head that predicts expressions, and optionally AUs, from the mean color."""

    window_length = 5

    def __init__(self, *, au: bool, classes: int) -> None:
        super().__init__()
        self.au, self.classes = au, classes

    def forward(self, batch: SequenceBatch) -> dict:
        tell = {"expr": self.classes} | ({"au": 12} if self.au else {})
        return {name: batch.features[..., :1].expand(-1, -1, size) + torch.arange(size) for name, size in tell.items()}


@pytest.fixture
def load(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., model_set.ModelSet]:
    """Return `load(head, …)`, which loads models with these heads."""

    def make(*heads: SequenceHead) -> model_set.ModelSet:
        card = checkpoints.load_card(checkpoint)
        cards = {str(n): card.model_copy(update={"weights_sha256": str(n)}) for n in range(len(heads))}
        systems = [System(encoder=Mean(), head=head) for head in heads]
        found = {str(n): (TorchModel(system, cards[str(n)]), cards[str(n)]) for n, system in enumerate(systems)}
        monkeypatch.setattr(model_set.models_inference, "load", lambda path, precision: found[path])
        return model_set.load(list(found), "mean")

    return make


def test_the_order_of_the_checkpoints_makes_no_difference(make_checkpoint: MakeCheckpoint) -> None:
    paths = [make_checkpoint(seed=seed, template=moved(x)) for seed, x in ((0, 0.0), (1, 1.5), (2, 7.0))]
    first, second = (model_set.load(order, "vote") for order in (paths, paths[::-1]))
    assert first.sha256 == second.sha256
    assert first.encoders_key == second.encoders_key
    assert first.templates.shape == (2, 5, 2)  # 1.5 px apart is one template
    assert len({member.template for member in first.members if member.card.template[0][0] < 41}) == 1
    config = AnnotateConfig(ensemble="vote")
    assert CacheKeys(first, config).decide_key == CacheKeys(second, config).decide_key
    alone = model_set.load(paths[:1], "mean")
    assert alone.sha256 == alone.members[0].card.sha256
    assert CacheKeys(alone, config).head_key != CacheKeys(first, config).head_key
    assert CacheKeys(first, AnnotateConfig()).decide_key != CacheKeys(first, config).decide_key
    assert CacheKeys(first, AnnotateConfig()).head_key == CacheKeys(first, config).head_key


def test_another_rule_of_sampling_renews_only_sampled_videos(
    load: Callable[..., model_set.ModelSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = load(Faces(au=True, classes=7))

    def keys() -> list[tuple[str, str, str]]:
        both = [CacheKeys(models, config) for config in (AnnotateConfig(), AnnotateConfig(sample_fps=5))]
        return [(each.head_key, each.decide_key, each.video("f")) for each in both]

    before = keys()
    monkeypatch.setattr("aupipe.annotation.cache_keys.SAMPLING", 0)
    after = keys()
    assert before[0] == after[0]
    assert not set(before[1]) & set(after[1])


def test_another_head_keeps_the_embeddings(load: Callable[..., model_set.ModelSet]) -> None:
    models = load(Faces(au=True, classes=7))
    assert models.n_expressions == 7
    one, other = (CacheKeys(models, AnnotateConfig(inference=Inference(overlap=o))) for o in (0.5, 0.0))
    assert one.head_key != other.head_key
    assert one._extract("f") == other._extract("f")
    default = CacheKeys(models, AnnotateConfig())  # the overlap that the thresholds were fitted with
    assert models.members[0].card.overlap == 0.5
    assert default.head_key == one.head_key


def test_what_cannot_decide_together_is_refused(
    load: Callable[..., model_set.ModelSet], checkpoint: str, make_checkpoint: MakeCheckpoint
) -> None:
    with pytest.raises(CheckpointError, match="the same model"):
        model_set.load([checkpoint, checkpoint], "mean")
    with pytest.raises(ConfigError, match="tie"):
        model_set.load([checkpoint, make_checkpoint(seed=5)], "vote")
    with pytest.raises(CheckpointError, match=r"predicts no Action Units \(its outputs: expr\)"):
        load(Faces(au=False, classes=7))
    with pytest.raises(CheckpointError, match="different numbers of expressions"):
        load(Faces(au=True, classes=7), Faces(au=True, classes=8))


def test_each_model_gets_its_own_embeddings_and_expressions_are_averaged(
    load: Callable[..., model_set.ModelSet], tmp_path: Path
) -> None:
    models = load(Faces(au=True, classes=2), Faces(au=True, classes=2))
    crops = np.random.default_rng(0).integers(0, 255, (9, 1, 112, 112, 3), np.uint8)
    embeddings = Encoders(models, 4, "cpu")(crops)
    assert embeddings.shape == (9, 6)
    np.testing.assert_allclose(embeddings[:, :3], (crops[:, 0] / 127.5 - 1).mean(axis=(1, 2)), atol=1e-5)
    assert Encoders(models, 4, "cpu")(crops[:0]).shape == (0, 6)
    rows = pa.Table.from_pylist([{"frame": n, "status": "ok"} for n in range(9)], schema=FEATURES).drop(["embedding"])
    observed.write(Storage(tmp_path), "aa", 0, True, with_embeddings(rows, embeddings + np.eye(6, dtype=np.float32)[3]))
    video = observed.Embeddings(Storage(tmp_path), observed.segments(Storage(tmp_path))["aa"])
    probabilities = np.full((9, 2 * 12 + 2), np.nan, np.float32)
    for columns, probability in model_set.predict_track(
        models.heads, video, None, np.arange(9), np.arange(9) * 0.04, Inference()
    ):
        probabilities[:, columns] = probability
    logit = torch.from_numpy(embeddings[:, 0])
    np.testing.assert_allclose(probabilities[:, 0], logit.sigmoid(), atol=1e-6)
    np.testing.assert_allclose(probabilities[:, 12], (logit + 1).sigmoid(), atol=1e-6)
    np.testing.assert_allclose(probabilities[:, 24:], np.tile(torch.arange(2.0).softmax(0), (9, 1)), atol=1e-6)
