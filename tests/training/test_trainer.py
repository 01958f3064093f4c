import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from aupipe.data import sampler
from aupipe.errors import AupipeError, ConfigError, DatasetError
from aupipe.facestore.read import FaceStore
from aupipe.models.backbone import make
from aupipe.models.interfaces import FrameEncoder, SequenceBatch, SequenceHead, System
from aupipe.training import learner, optim, recipe, state, task_data
from aupipe.training import trainer as engine
from aupipe.training.learner import Learner, build_learner
from aupipe.training.recipe import Recipe
from harness.training_rank import resume

pytestmark = pytest.mark.unit

TINY = [
    "model.width=16", "model.heads=2", "model.mlp_width=16", "model.dropout=0.2", "input.size_px=32",
    "stages.train.batch=8", "stages.train.epochs=2", "stages.train.tasks.au.data.window_groups=2",
    "stages.train.tasks.au.data.every_n=1",
]  # fmt: skip
AUGMENTED = ("flip", "brightness", "channel_drop", "rotation_turns", "zoom")
CPU = torch.device("cpu")

# Two tasks on one backbone, with momentum and weight decay: which could change a head that is not trained.
TWO_TASKS = """
name: two
model: {name: expression_transfer, backbone: test_resnet, outputs: [au, expr], hidden: [8], dropout: 0.1}
input: {size_px: 32}
stages:
  both:
    init: random
    tasks:
      expr: {loss: {kind: cross_entropy}}
      au: {loss: {kind: bce}}
    alternate: ALTERNATE
    augment: {flip: true, brightness: 0.1}
    optimizer:
      kind: sgd
      groups: [{parameters: [""], schedule: {kind: milestones, lr: 0.05}, weight_decay: 0.01}]
    epochs: 2
    batch: 8
"""


@pytest.fixture(scope="module")
def tiny() -> Recipe:
    return recipe.read("multilabel_transformer", quick=True, overrides=TINY)


class TwoHeads(SequenceHead):
    """A head with two outputs on one embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.au, self.expr = nn.Linear(width, 12), nn.Linear(width, 8)

    def forward(self, batch: SequenceBatch) -> dict[str, torch.Tensor]:
        return {"au": self.au(batch.features), "expr": self.expr(batch.features)}


class Pooled(FrameEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = make("test_resnet", 32)
        self.embed_dim = self.backbone.pooled_width

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.backbone.pooled(self.backbone(frames))


@pytest.fixture
def two_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Recipe]:
    def build(*_: object) -> System:
        encoder = Pooled()
        return System(encoder=encoder, head=TwoHeads(encoder.embed_dim))

    def read(alternate: str) -> Recipe:
        monkeypatch.setattr(learner, "build", build)
        (tmp_path / "two.yaml").write_text(TWO_TASKS.replace("ALTERNATE", alternate))
        return recipe.read(str(tmp_path / "two.yaml"), quick=False)

    return read


def trainer(
    plan: Recipe, index: FaceStore, rank: int = 0, world: int = 1, wrap: Callable = lambda model: model
) -> engine.Trainer:
    (stage,) = plan.stages
    data = task_data.task_data(plan, stage, index)
    model, optimizer = build_learner(plan, stage, data, "random")
    return engine.Trainer(
        recipe=plan,
        stage=stage,
        data=data,
        model=wrap(model),
        optimizer=optimizer,
        rank=rank,
        world=world,
        device=CPU,
    )


def weights(one: engine.Trainer) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in one.learner.state_dict().values()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_weights_are_deterministic_for_a_seed(tiny: Recipe, index: FaceStore) -> None:
    one, two = trainer(tiny, index), trainer(tiny, index)
    other = trainer(tiny.model_copy(update={"seed": 1}), index)
    losses = [t.train_epoch(0) for t in (one, two, other)]
    assert losses[0] == losses[1] != losses[2]
    assert same(weights(one), weights(two))


@pytest.mark.parametrize("kind", ["one task", "epoch", "batch"])
def test_resumes_at_any_step_with_identical_bits(
    kind: str, tiny: Recipe, two_tasks: Callable, index: FaceStore, tmp_path: Path
) -> None:
    plan = tiny if kind == "one task" else two_tasks(kind)
    whole = trainer(plan, index)
    whole.train_epoch(0)
    mean = whole.train_epoch(1)

    stopped = trainer(plan, index)
    stopped.train_epoch(0)
    *_, (done, total) = itertools.islice(stopped.train_steps(1), 3)  # as if killed after step 3 of the second epoch
    state.save(tmp_path, stopped.learner, stopped.optimizer, state.Position(epochs=1, step=done, loss=total))

    torch.manual_seed(999)  # whatever the process did before plays no part
    again = trainer(plan, index)
    position = state.load(tmp_path, again.learner, again.optimizer)
    assert (position.epochs, position.step) == (1, 3)
    *_, (done, total) = again.train_steps(1, position.step, position.loss)
    assert total / done == mean
    assert same(weights(whole), weights(again))


@pytest.fixture
def group(tmp_path: Path) -> object:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("alternate", ["epoch", "batch"])
def test_a_step_does_not_change_the_other_head(
    alternate: str, wrapped: bool, two_tasks: Callable, index: FaceStore, group: object
) -> None:
    def wrap(model: Learner) -> torch.nn.Module:
        options = {"find_unused_parameters": True, "gradient_as_bucket_view": True}  # as in train_worker
        return DistributedDataParallel(model, **options) if wrapped else model

    one = trainer(two_tasks(alternate), index, wrap=wrap)
    heads = {"au": one.learner.head.au, "expr": one.learner.head.expr}
    momentum = one.optimizer.state
    turns = sampler.task_schedule(one.steps, alternate, epoch=0)
    assert turns[0][0] == "expr"
    for number, turn in enumerate(turns[:2] + turns[-2:]):
        optim.train_mode(one.model)
        idle = heads["au" if turn[0] == "expr" else "expr"]
        before = [value.clone() for value in idle.state_dict().values()]
        kept = [momentum[p]["momentum_buffer"].clone() for p in idle.parameters() if p in momentum]
        backbone = [value.clone() for value in one.learner.encoder.backbone.parameters()]
        one._step(turn[0], one._read_ahead([turn]), number)
        assert same(before, list(idle.state_dict().values()))
        assert same(kept, [momentum[p]["momentum_buffer"] for p in idle.parameters() if p in momentum])
        assert not same(backbone, list(one.learner.encoder.backbone.parameters()))
        assert not same(before, list(heads[turn[0]].state_dict().values()))


def test_a_class_beyond_the_head_is_refused_or_ignored(index: FaceStore) -> None:
    settings = ["model.expressions=3", "stages.visual.batch=8"]
    with pytest.raises(ConfigError, match=r"rows of .* are Fear, and the model has 3 classes"):
        task_data.task_data(recipe.read("multimodal", quick=True, overrides=settings), "visual", index)
    settings.append("stages.visual.tasks.expr.data.ignore=[Fear]")
    plan = recipe.read("multimodal", quick=True, overrides=settings)
    expr = task_data.task_data(plan, "visual", index)["expr"]
    assert set(np.unique(expr.train.targets)) == {0, 1, 2}
    assert set(np.unique(expr.eval.targets)) == {0, 1, 2}


def test_a_loss_that_is_not_finite_ends_the_run(tiny: Recipe, index: FaceStore) -> None:
    one = trainer(tiny, index)
    with torch.no_grad():
        next(one.learner.parameters()).fill_(torch.nan)
    with pytest.raises(AupipeError, match="epoch 1: the loss is nan at learning rates"):
        one.train_epoch(0)


def test_parts_of_a_batch_add_up_to_it(index: FaceStore) -> None:
    gradients = []
    for parts in (1, 4):
        changes = [f"stages.train.accumulate={parts}", *(f"stages.train.augment.{kind}=0" for kind in AUGMENTED)]
        one = trainer(recipe.read("multilabel_transformer", quick=True, overrides=[*TINY, *changes]), index)
        one.model.eval()  # without batch statistics and dropout a batch in parts gives the gradient of the whole
        one._step("au", one._read_ahead([("au", 0, 0)]), 0)
        gradients.append([p.grad.clone() for p in one.learner.parameters()])
    for whole, summed in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, summed, rtol=1e-3, atol=1e-5)


def test_learns_a_visible_label(tiny: Recipe, index: FaceStore) -> None:
    one = trainer(tiny, index)
    first = one.train_epoch(0)
    assert one.train_epoch(1) < first


def test_validation_is_the_same_for_any_number_of_ranks(two_tasks: Callable, index: FaceStore) -> None:
    plan = two_tasks("epoch")
    whole = trainer(plan, index).validate()
    assert whole["expr_majority"] > 0.3
    assert 0 <= whole["macro_f1"] <= 1
    assert engine.score(whole, 9.0) == (whole["macro_f1"] + whole["expr_macro_f1"]) / 2
    assert engine.score({}, 9.0) == -9.0
    counted = []
    for rank in range(2):  # the shares of two ranks add up to the whole
        half = trainer(plan, index, rank, world=2)
        half._summed = lambda counts: counted.append(counts) or counts
        half.validate()
    one = trainer(plan, index)
    shares, counted = counted, []
    one._summed = lambda counts: counted.append(counts) or counts
    one.validate()
    assert [np.array_equal(shares[k] + shares[k + 2], counted[k]) for k in range(2)] == [True, True]


def test_fewer_rows_than_a_batch_are_refused(index: FaceStore) -> None:
    huge = recipe.read("multilabel_transformer", quick=True, overrides=[*TINY, "stages.train.batch=1000"])
    with pytest.raises(DatasetError, match="fewer than one batch"):
        trainer(huge, index)


@pytest.mark.slow
def test_three_ranks_resume_to_the_same_bits(tmp_path: Path) -> None:
    multiprocessing.spawn(resume, (3, str(tmp_path / "meeting")), nprocs=3)
