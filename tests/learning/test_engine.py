from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from aupipe.errors import DatasetError
from aupipe.facestore.read import StoreIndex
from aupipe.learning import engine, metrics, optim, recipe, state
from aupipe.learning.crops import CropReader
from aupipe.learning.recipe import DataConfig, Recipe

pytestmark = pytest.mark.unit

TINY = [
    "model.width=16", "model.heads=2", "model.mlp_width=16", "model.dropout=0.2", "input.size_px=32",
    "stages.train.batch=8", "stages.train.epochs=2", "stages.train.data.window_groups=2",
]  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def index(make_store: Callable[..., str]) -> StoreIndex:
    return StoreIndex.open(make_store(train=4, validation=3, frames=16))


@pytest.fixture(scope="module")
def tiny() -> Recipe:
    return recipe.read("multilabel_transformer", quick=True, overrides=TINY)


def trainer(tiny: Recipe, index: StoreIndex, rank: int = 0, world: int = 1) -> engine.Trainer:
    system = engine.build_system(tiny, "train", "random")
    optimiser = optim.build(system, tiny.stages["train"].optimiser)
    return engine.Trainer(
        recipe=tiny, stage="train", index=index, model=system, optimiser=optimiser, rank=rank, world=world, device=CPU
    )


def weights(one: engine.Trainer) -> list[torch.Tensor]:
    return list(one.system.state_dict().values())


def test_training_rows_are_labelled_and_of_no_held_out_video(index: StoreIndex) -> None:
    rows = engine.training_rows(index, DataConfig(held_out=0.25, every_n=3))
    table = index.labels("train")
    assert len(rows.held_out_videos) == 1
    assert not set(rows.videos) & set(rows.held_out_videos)
    assert {table["video_id"][int(r)].as_py() for r in rows.rows} == set(rows.videos)
    assert {table["frame"][int(r)].as_py() for r in rows.rows} <= {1, 4, 7, 10, 13, 16}
    assert (rows.labels >= 0).any(axis=1).all()
    assert rows.labels.tolist() == [table["au"][int(r)].as_py() for r in rows.rows]


def test_same_seed_same_weights_other_seed_others(tiny: Recipe, index: StoreIndex) -> None:
    one, two = trainer(tiny, index), trainer(tiny, index)
    other = trainer(tiny.model_copy(update={"seed": 1}), index)
    losses = [t.train_epoch(0) for t in (one, two, other)]
    assert losses[0] == losses[1] != losses[2]
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))


def test_goes_on_from_any_step_to_the_same_bits(tiny: Recipe, index: StoreIndex, tmp_path: Path) -> None:
    whole = trainer(tiny, index)
    for epoch in range(2):
        whole.train_epoch(epoch)

    stopped = trainer(tiny, index)
    stopped.train_epoch(0)
    optim.train_mode(stopped.model)
    for step in range(3):  # as if killed after step 3 of the second epoch
        stopped._step(_picked(stopped, epoch=1, step=step), 1, step)
    state.save(tmp_path, stopped.system, stopped.optimiser, state.Position(epochs=1))

    torch.manual_seed(999)  # whatever the process did before plays no part
    again = trainer(tiny, index)
    assert state.load(tmp_path, again.system, again.optimiser).epochs == 1
    again.train_epoch(1, first_step=3)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(again), strict=True))


def _picked(one: engine.Trainer, epoch: int, step: int) -> np.ndarray:
    groups = one.reader.group_of(one.selection.rows)
    order = engine.sampling.epoch_order(groups, seed=one.seed, epoch=epoch, window=one.settings.data.window_groups)
    return engine.sampling.rank_rows(order, step=step, batch=one.settings.batch, rank=0, world=1)


def test_learns_what_can_be_seen(tiny: Recipe, index: StoreIndex) -> None:
    one = trainer(tiny, index)
    first = one.train_epoch(0)
    assert one.train_epoch(1) < first


def test_prediction_does_not_depend_on_its_company(tiny: Recipe, index: StoreIndex) -> None:
    system = engine.build_system(tiny, "train", "random").eval()
    reader = CropReader(index, "validation", keep_groups=1)
    rows = np.arange(40)
    together = engine.predict(system, tiny.input, reader, rows, CPU)
    assert together.shape == (40, 12)
    apart = np.concatenate([engine.predict(system, tiny.input, reader, rows[i : i + 7], CPU) for i in range(0, 40, 7)])
    assert np.array_equal(together, apart)


def test_validation_counts_the_labelled_entries(tiny: Recipe, index: StoreIndex) -> None:
    one = trainer(tiny, index)
    selection = engine.labelled_rows(index, "validation")
    counts = one.validate(CropReader(index, "validation", keep_groups=1), selection)
    assert np.array_equal(counts.sum(axis=1), (selection.labels >= 0).sum(axis=0))
    parts = []
    for rank in range(2):  # the shares of two ranks add up to the whole
        half = trainer(tiny, index, rank, world=2)
        parts.append(half.validate(CropReader(index, "validation", keep_groups=1), selection))
    assert np.array_equal(parts[0] + parts[1], counts)
    assert metrics.macro_f1(counts) >= 0


def test_fewer_rows_than_a_batch_and_an_unlabelled_store_are_refused(
    tiny: Recipe, index: StoreIndex, make_store: Callable[..., str]
) -> None:
    huge = recipe.read("multilabel_transformer", quick=True, overrides=[*TINY, "stages.train.batch=1000"])
    with pytest.raises(DatasetError, match="less than one batch"):
        trainer(huge, index)
    with pytest.raises(DatasetError, match="no labelled row"):
        engine.training_rows(StoreIndex.open(make_store(train=2, validation=1, frames=4, unknown=1.1)), DataConfig())


def test_paper_size_takes_a_whole_optimiser_step(index: StoreIndex) -> None:
    overrides = ["stages.train.init=random", "stages.train.batch=2", "stages.train.data.every_n=1"]
    one = trainer(recipe.read("multilabel_transformer", quick=False, overrides=overrides), index)
    before = [weight.clone() for weight in one.system.parameters()]
    optim.train_mode(one.model)
    assert np.isfinite(one._step(np.array([0, 1]), 0, 0))
    moved = [not torch.equal(a, b) for a, b in zip(before, one.system.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)
    assert one.optimiser.param_groups[0]["lr"] == 5e-5
