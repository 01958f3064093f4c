from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from aupipe.models.build import BUILDERS, build
from aupipe.models.configs import ModelConfig
from aupipe.models.inputs import InputSpec

pytestmark = pytest.mark.unit

CONFIGS = get_args(get_args(ModelConfig)[0])


def test_every_configuration_has_its_builder() -> None:
    assert [config.model_fields["name"].default for config in CONFIGS] == list(BUILDERS)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_fields["name"].default)
def test_defaults_build_and_a_name_is_enough_to_say_so(config: type) -> None:
    name = config.model_fields["name"].default
    described = TypeAdapter(ModelConfig).validate_python({"name": name})
    assert described == config()
    with torch.device("meta"):
        system = build(described, InputSpec(size_px=112 if name != "multilabel_transformer" else 299))
    assert system.encoder.embed_dim > 0


def test_unknown_systems_and_settings_are_refused() -> None:
    for described in ({"name": "perceptron"}, {"name": "region_relation", "decoder_layers": 2}, {}):
        with pytest.raises(ValidationError):
            TypeAdapter(ModelConfig).validate_python(described)
