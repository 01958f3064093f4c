"""Every system in one process: results depend neither on segments nor on batches, and audio is used."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter

from aupipe.annotation import audio_features, features, model_set
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.encode import Encoders
from aupipe.annotation.extract import CropBatch, extract, with_embeddings
from aupipe.annotation.inputs import Input
from aupipe.annotation.model_set import ModelSet
from aupipe.annotation.postprocess import Decision, apply_decision, predict_video
from aupipe.annotation.schema import PROB, RAW
from aupipe.annotation.segments import Segment, cut_into_segments
from aupipe.annotation.settings import AnnotateConfig
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.faces.detect import Detector
from aupipe.media.frames import frames
from aupipe.media.probe import probe
from aupipe.models.build import build
from aupipe.models.checkpoint import Card, save
from aupipe.models.configs import ModelConfig
from aupipe.models.inputs import InputSpec
from aupipe.storage import Storage
from harness.clips import scene, speaking

pytestmark = pytest.mark.unit

SYSTEMS: dict[str, dict[str, Any]] = {
    "multilabel_transformer": {"backbone": "test_resnet", "width": 32, "heads": 2, "mlp_width": 32},
    "expression_transfer": {"backbone": "test_resnet", "hidden": (16, 16), "outputs": ("au", "expr")},
    "region_relation": {"backbone": "iresnet_quick", "fusion_mlp_width": 64},
    "video_transformer": {
        "backbone": "iresnet_quick", "width": 32, "heads": 4, "mlp_width": 48, "spatial_layers": 1,
        "temporal_layers": 1, "clip_frames": 12, "prompts": {},
    },
    "multimodal": {
        "backbone": "iresnet_quick", "audio": {"width": 16},
        "sequence": {"frames": 10, "heads": 2, "head_width": 8, "mlp_width": 32, "hidden": 16},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a clip with sound of two people, one of whom is absent for a while."""
    both, alone = scene(40, size=(480, 240), people=(0.25, 0.75)), scene(40, size=(480, 240), people=(0.25,))
    images = [*both[:15], *alone[15:20], *both[20:]]
    return speaking(tmp_path_factory.mktemp("clip") / "a.mkv", images, options={"g": "8", "bf": "2", "crf": "18"})


def load(name: str, folder: Path) -> ModelSet:
    config = TypeAdapter(ModelConfig).validate_python({"name": name, **SYSTEMS[name]})
    torch.manual_seed(0)
    card = Card(model=config, input=InputSpec(size_px=64), template=tuple(map(tuple, ARCFACE_TEMPLATE.tolist())))
    save(Storage(folder), build(config, card.input).eval(), card)
    return model_set.load([str(folder)], "mean")


@cache
def see(clip: Path, segment_s: float) -> list[tuple[Segment, list[CropBatch]]]:
    """Return every segment with its parts, as extraction yields them before any model runs."""
    config = AnnotateConfig(tracking={"max_gap_s": 0.4}, search={"every": 6})
    tracking, every = config.effective_tracking, config.search.every
    segments = cut_into_segments(
        Input(str(clip), "v"), probe(str(clip)), segment_s, 4, max_gap_s=tracking.max_gap_s, search_every=every
    )
    detector, template = Detector(config.detector), np.float32([ARCFACE_TEMPLATE])
    return [(s, list(extract(s, frames(s.uri, s.span), detector, 4, template, tracking, every))) for s in segments]


def annotate(clip: Path, models: ModelSet, out: Path, segment_s: float, batch_size: int) -> pa.Table:
    """Annotate one video as the job does, without Ray."""
    storage, config = (
        Storage(out),
        AnnotateConfig(segment_s=segment_s, batch_size=batch_size, tracking={"max_gap_s": 0.4}),
    )
    keys, encoders = CacheKeys(models, config), Encoders(models, batch_size, "cpu")
    audio_features.write_log_mel(storage, keys.video("f"), str(clip))
    files = []
    for segment, parts in see(clip, segment_s):
        for part in parts:
            rows = with_embeddings(part.rows, encoders(part.crops))
            features.write(storage, keys.segment("f", segment), part.number, part.last, rows)
        files += features.segments(storage)[keys.segment("f", segment)]
    video = features.Embeddings(storage, files)
    heard = (
        audio_features.LogMelReader(storage, features.segments(storage)[audio_features.audio_key(keys.video("f"))])
        if models.uses_audio
        else None
    )
    tell = partial(model_set.predict_track, models, video, heard, inference=config.inference)
    table = predict_video("v", video.rows, tell, 1, models.n_expressions, config.effective_tracking)
    return apply_decision(table, Decision("mean", keys.decision.thresholds, (1,)))


@pytest.mark.parametrize("name", SYSTEMS)
def test_segments_and_batches_leave_no_trace(name: str, clip: Path, tmp_path: Path) -> None:
    models = load(name, tmp_path / "model")
    whole = annotate(clip, models, tmp_path / "whole", 1e9, 64)
    # One person is absent from frame 15 to 19. The search finds a new face with its next cell, at frame 24.
    assert len(whole) == 2 * 40 - 9
    assert set(whole["status"].to_pylist()) == {"ok"}
    counts = sorted(whole["face_id"].to_pylist().count(face) for face in (0, 1))
    assert counts == [40 - 9, 40]  # the first frame has two equal faces, whose order depends on the CPU
    assert not any(whole[column].null_count for column in (*RAW, *PROB))
    assert ("EXPR" in whole.column_names) == (models.n_expressions > 0)
    for segment_s in (0.3, 0.7):
        assert len(see(clip, segment_s)) > 1
        assert annotate(clip, models, tmp_path / f"cut {segment_s}", segment_s, 64).equals(whole)
    told = [name for name in whole.column_names if "AU" in name or "EXPR" in name]
    for batch_size in (1, 7):
        small = annotate(clip, models, tmp_path / f"batches of {batch_size}", 0.7, batch_size)
        for column in RAW:
            np.testing.assert_allclose(small[column].to_numpy(), whole[column].to_numpy(), atol=1e-5)
        assert small.drop_columns(told).equals(whole.drop_columns(told))


def test_sound_makes_a_difference_to_a_model_that_listens(clip: Path, tmp_path: Path, monkeypatch: Any) -> None:
    models = load("multimodal", tmp_path / "model")
    whole = annotate(clip, models, tmp_path / "whole", 1e9, 64)
    monkeypatch.setattr(audio_features, "audio", lambda uri: iter(()))
    silent = annotate(clip, models, tmp_path / "silent", 1e9, 64)
    assert np.abs(whole["AU25_raw"].to_numpy() - silent["AU25_raw"].to_numpy()).max() > 1e-5
