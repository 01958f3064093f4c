"""Every stage of every recipe takes an optimizer step that changes its trained parameters and nothing else."""

import pytest
import torch
from torch import nn

from aupipe.data import batches, sampler
from aupipe.facestore.read import FaceStore
from aupipe.training import optim, recipe, task_data, trainer
from aupipe.training.learner import Learner, build_learner

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")
PEOPLE = "stages.{}.tasks.identity.data.videos_are_people=true"
STAGES = [(name, stage) for name in recipe.known() for stage in recipe.read(name, quick=True).stages]


# What the stages that freeze something learn; all others learn everything.
LEARNT = {
    ("prompt_tuning", "base"): ("head.",),
    ("prompt_tuning", "prompts"): ("head.spatial.layers.prompts", "head.temporal.layers.prompts"),
    ("prompt_tuning_vit", "train"): ("encoder.backbone.network.blocks.prompts", "encoder.au."),
    ("multimodal", "audio"): ("head.",),
    ("multimodal", "sequence"): ("head.",),
}


def first_step(name: str, stage: str, index: FaceStore, *, quick: bool) -> None:
    """Check that an optimizer step on a batch of 2 changes all trained parameters and nothing else."""
    identities = "identity" in recipe.read(name, quick=quick).stages[stage].tasks.named
    small = [f"stages.{stage}.batch=2", *([PEOPLE.format(stage)] if identities else [])]
    if stage == "prompts":
        small.append("stages.prompts.tasks.au.data.subset=1")
    plan = recipe.read(name, quick=quick, overrides=small)
    data = task_data.task_data(plan, stage, index)
    learner, optimizer = build_learner(plan, stage, data, None)
    one = trainer.Trainer(
        recipe=plan, stage=stage, data=data, model=learner, optimizer=optimizer, rank=0, world=1, device=CPU
    )
    if batches.is_frozen(learner.encoder):
        settle(learner.encoder, plan.input.size_px)
    before = {key: value.clone() for key, value in one.learner.state_dict().items()}
    trained = {key for key, parameter in one.learner.named_parameters() if parameter.requires_grad}
    optim.train_mode(one.model)
    for number, turn in enumerate(sampler.task_schedule(one.steps, "batch", epoch=0)[: len(one.loaders)]):
        assert one._step(turn[0], one._read_ahead([turn]), number).isfinite()
    allowed = LEARNT.get((name, stage), ("",))
    assert trained == {key for key, _ in one.learner.named_parameters() if key.startswith(allowed)}
    after = one.learner.state_dict()
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert len(moved & trained) > 0.3 * len(
        trained
    )  # batch norm over two, and layers that begin as nothing, stop gradients
    frozen = {key for key in before if not any(key.startswith(f"{part}.") for part in _learning(one.learner))}
    assert not moved & frozen  # parameters and buffers


def settle(encoder: nn.Module, size_px: int) -> None:
    """Set batch-norm statistics that fit random weights, because without them a hundred layers overflow."""
    norms = [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None  # the plain average
        norm.reset_running_stats()
    with torch.no_grad():
        encoder.train()(torch.rand(4, 3, size_px, size_px))
    for norm in norms:
        norm.momentum = 0.1


def _learning(learner: Learner) -> set[str]:
    """Return the modules with a trained parameter of their own."""
    return {name.rpartition(".")[0] for name, parameter in learner.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_every_quick_stage_takes_a_step(name: str, stage: str, index: FaceStore) -> None:
    first_step(name, stage, index, quick=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_paper_size_takes_a_whole_optimizer_step(name: str, stage: str, index: FaceStore) -> None:
    first_step(name, stage, index, quick=False)
