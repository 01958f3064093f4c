"""From a model configuration to a network: one literal table."""

from __future__ import annotations

from collections.abc import Callable

from aupipe.models import multilabel_transformer
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import System
from aupipe.models.multilabel_transformer import MultilabelTransformerConfig

# One system so far; with a second this becomes a union told apart by `name`.
ModelConfig = MultilabelTransformerConfig

BUILDERS: dict[str, Callable[[ModelConfig, InputSpec], System]] = {
    "multilabel_transformer": multilabel_transformer.build,
}


def build(config: ModelConfig, inputs: InputSpec) -> System:
    """The system that `config` describes, with random weights (torch's global generator)."""
    return BUILDERS[config.name](config, inputs)
