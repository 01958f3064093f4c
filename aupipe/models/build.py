"""From a model configuration to a network: one literal table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from aupipe.models import expression_transfer, multilabel_transformer, region_relation
from aupipe.models.expression_transfer import ExpressionTransferConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import System
from aupipe.models.multilabel_transformer import MultilabelTransformerConfig
from aupipe.models.region_relation import RegionRelationConfig

ModelConfig = Annotated[
    MultilabelTransformerConfig | ExpressionTransferConfig | RegionRelationConfig, Field(discriminator="name")
]

# `name` of a configuration → what builds it
BUILDERS: dict[str, Callable[[Any, InputSpec], System]] = {
    "multilabel_transformer": multilabel_transformer.build,
    "expression_transfer": expression_transfer.build,
    "region_relation": region_relation.build,
}


def build(config: ModelConfig, inputs: InputSpec) -> System:
    """The system that `config` describes, with random weights (torch's global generator)."""
    return BUILDERS[config.name](config, inputs)
