"""Construction of a system from its model configuration, by one literal table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aupipe.models import (
    expression_transfer,
    geometry,
    image_transformer,
    multilabel_transformer,
    multimodal,
    region_relation,
    video_transformer,
)
from aupipe.models.configs import ModelConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import System

# `name` of a configuration → its builder
BUILDERS: dict[str, Callable[[Any, InputSpec], System]] = {
    "multilabel_transformer": multilabel_transformer.build,
    "expression_transfer": expression_transfer.build,
    "region_relation": region_relation.build,
    "image_transformer": image_transformer.build,
    "geometry": geometry.build,
    "video_transformer": video_transformer.build,
    "multimodal": multimodal.build,
}


def build(config: ModelConfig, inputs: InputSpec) -> System:
    """Return the system of `config` with random weights (torch's global generator)."""
    return BUILDERS[config.name](config, inputs)
