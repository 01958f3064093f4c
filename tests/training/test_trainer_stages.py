"""Every stage of every recipe takes an optimizer step that changes its trained parameters and nothing else."""

from collections.abc import Callable

import pytest
import torch

from aupipe.data import batches, sampler
from aupipe.facestore.read import FaceStore
from aupipe.training import optim, recipe, task_data, trainer
from aupipe.training.learner import Learner, build_learner
from harness.settle import settle

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")
PEOPLE = "stages.{}.tasks.identity.data.videos_are_people=true"
STAGES = [(name, stage) for name in recipe.known() for stage in recipe.read(name, quick=True).stages]
STARTER = ["ablation=starter"]
STARTER_STAGES = [
    (name, stage)
    for name in recipe.known()
    if name != "starter"
    for stage in recipe.read(name, quick=True, overrides=STARTER).needed()
]


# What the stages that freeze something learn; all others learn everything.
LEARNT = {
    ("prompt_tuning", "base"): ("head.",),
    ("prompt_tuning", "prompts"): ("head.spatial.layers.prompts", "head.temporal.layers.prompts"),
    ("prompt_tuning_vit", "train"): ("encoder.backbone.network.blocks.prompts", "encoder.au."),
    ("prompt_tuning_vit", "pretrain", *STARTER): ("encoder.vit.", "encoder.au."),
    ("prompt_tuning_vit", "train", *STARTER): ("encoder.vit.network.blocks.prompts", "encoder.au."),
    ("multilabel_transformer", "train", *STARTER): ("encoder.image.", "encoder.decoder."),
    ("region_relation", "train", *STARTER): tuple(f"encoder.{each}." for each in ("lrp", "arl", "whole", "fusion")),
    ("multimodal", "audio"): ("head.",),
    ("multimodal", "sequence"): ("head.",),
}


def first_step(name: str, stage: str, index: FaceStore, *, quick: bool, row: tuple[str, ...] = ()) -> None:
    """Check that an optimizer step on a batch of 2 changes all trained parameters and nothing else."""
    identities = "identity" in recipe.read(name, quick=quick).stages[stage].tasks.named
    small = [f"stages.{stage}.batch=2", *([PEOPLE.format(stage)] if identities else [])]
    if stage == "prompts":
        small.append("stages.prompts.tasks.au.data.subset=1")
    plan = recipe.read(name, quick=quick, overrides=[*row, *small])
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
    allowed = LEARNT.get((name, stage, *row), LEARNT.get((name, stage), ("",)))
    assert trained == {key for key, _ in one.learner.named_parameters() if key.startswith(allowed)}
    after = one.learner.state_dict()
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert len(moved & trained) > 0.3 * len(
        trained
    )  # batch norm over two, and layers that begin as nothing, stop gradients
    frozen = {key for key in before if not any(key.startswith(f"{part}.") for part in _learning(one.learner))}
    assert not moved & frozen  # parameters and buffers


def _learning(learner: Learner) -> set[str]:
    """Return the modules with a trained parameter of their own."""
    return {name.rpartition(".")[0] for name, parameter in learner.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_every_quick_stage_takes_a_step(name: str, stage: str, index: FaceStore) -> None:
    first_step(name, stage, index, quick=True)


@pytest.mark.parametrize(("name", "stage"), STARTER_STAGES)
def test_every_stage_of_the_rows_with_a_starter_network_takes_a_step(name: str, stage: str, index: FaceStore) -> None:
    first_step(name, stage, index, quick=True, row=tuple(STARTER))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_paper_size_takes_a_whole_optimizer_step(name: str, stage: str, index: FaceStore) -> None:
    first_step(name, stage, index, quick=False)


def test_class_centers_are_not_clipped(make_store: Callable[..., str]) -> None:
    """InsightFace clips the gradient of the network alone."""
    moved = {}
    for norm in (1e-9, 1e9):
        settings = [PEOPLE.format("identities"), "stages.identities.batch=4", "stages.identities.epochs=1"]
        settings += [f"stages.identities.optimizer.clip_norm={norm}", "stages.identities.optimizer.kind=sgd"]
        plan = recipe.read("multimodal", quick=True, overrides=settings)
        data = task_data.task_data(plan, "identities", FaceStore.open(make_store(train=3, validation=1, frames=12)))
        learner, optimizer = build_learner(plan, "identities", data, None)
        one = trainer.Trainer(
            recipe=plan, stage="identities", data=data, model=learner, optimizer=optimizer, rank=0, world=1, device=CPU
        )
        optim.train_mode(learner)
        (turn, *_) = sampler.task_schedule(one.steps, "batch", epoch=0)
        one._step("identity", one._read_ahead([turn]), 0)
        parts = (learner.encoder, learner.loss)
        moved[norm] = [sum(float(p.grad.norm()) for p in part.parameters() if p.grad is not None) for part in parts]
    assert moved[1e-9][0] < 1e-6 < moved[1e9][0]
    assert moved[1e-9][1] == pytest.approx(moved[1e9][1])
    assert moved[1e9][1] > 0
