"""Construction of a system from its model configuration, by one literal table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from aupipe.models import (
    expression_transfer,
    image_transformer,
    multilabel_transformer,
    multimodal,
    region_relation,
    video_transformer,
)
from aupipe.models.expression_transfer import ExpressionTransferConfig
from aupipe.models.image_transformer import ImageTransformerConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import System
from aupipe.models.multilabel_transformer import MultilabelTransformerConfig
from aupipe.models.multimodal import MultimodalConfig
from aupipe.models.region_relation import RegionRelationConfig
from aupipe.models.video_transformer import VideoTransformerConfig

ModelConfig = Annotated[
    MultilabelTransformerConfig
    | ExpressionTransferConfig
    | RegionRelationConfig
    | ImageTransformerConfig
    | VideoTransformerConfig
    | MultimodalConfig,
    Field(discriminator="name"),
]

# `name` of a configuration → its builder
BUILDERS: dict[str, Callable[[Any, InputSpec], System]] = {
    "multilabel_transformer": multilabel_transformer.build,
    "expression_transfer": expression_transfer.build,
    "region_relation": region_relation.build,
    "image_transformer": image_transformer.build,
    "video_transformer": video_transformer.build,
    "multimodal": multimodal.build,
}


def build(config: ModelConfig, inputs: InputSpec) -> System:
    """Return the system of `config` with random weights (torch's global generator)."""
    return BUILDERS[config.name](config, inputs)
