"""The batches of a task: shares of ranks, padding, audio, and repetition from the place in the plan alone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from aupipe.errors import DatasetError
from aupipe.facestore.read import FaceStore
from aupipe.models.interfaces import SequenceBatch
from aupipe.training import recipe, task_data
from aupipe.training.learner import build_learner
from aupipe.training.task_loader import Place, TaskLoader

pytestmark = pytest.mark.unit

PLAIN = ["augment.flip=false", "augment.gain=0", "augment.contrast=0", "augment.saturation=0"]


def loader(index: FaceStore, name: str, stage: str, *overrides: str) -> TaskLoader:
    plan = recipe.read(name, quick=True, overrides=[f"stages.{stage}.{each}" for each in overrides])
    data = task_data.task_data(plan, stage, index)
    model, _ = build_learner(plan, stage, data, None)
    return TaskLoader(
        "au", data=data["au"], stage=plan.stages[stage], seed=7, encoder=model.encoder, head=model.head,
        inputs=plan.input, device=torch.device("cpu"),
    )  # fmt: skip


def same(one: tuple[SequenceBatch, Tensor], other: tuple[SequenceBatch, Tensor]) -> bool:
    return torch.equal(one[0].features, other[0].features) and torch.equal(one[1], other[1])


def batch_at(
    loads: TaskLoader, pass_index: int, step: int, *, rank: int, world: int, part: tuple[int, int]
) -> tuple[SequenceBatch, Tensor]:
    return loads.batch(loads.read(Place(pass_index, step, rank, world, part)))


def test_ranks_and_parts_share_one_batch(index: FaceStore) -> None:
    loads = loader(index, "prompt_tuning", "base", "batch=2", *PLAIN)
    whole, targets = batch_at(loads, 0, 0, rank=0, world=1, part=(0, 2))
    shares = [batch_at(loads, 0, 0, rank=rank, world=2, part=(0, 1)) for rank in (0, 1)]
    parts = [batch_at(loads, 0, 0, rank=0, world=1, part=part) for part in ((0, 1), (1, 2))]
    for pieces in (shares, parts):
        assert torch.equal(torch.cat([batch.time_s for batch, _ in pieces]), whole.time_s)
        assert torch.equal(torch.cat([labels for _, labels in pieces]), targets)
        torch.testing.assert_close(torch.cat([batch.features for batch, _ in pieces]), whole.features)


def test_a_batch_depends_only_on_its_place(index: FaceStore) -> None:
    loads, again = (loader(index, "multilabel_transformer", "train", "batch=8") for _ in range(2))
    places = [(p, step, rank) for p in (0, 1) for step in (0, 1) for rank in (0, 1)]
    found = [batch_at(loads, p, s, rank=r, world=2, part=(0, 4)) for p, s, r in places]
    torch.manual_seed(999)
    for (p, s, r), batch in list(zip(places, found, strict=True))[::-1]:
        assert same(batch_at(again, p, s, rank=r, world=2, part=(0, 4)), batch)
    assert not any(same(one, other) for n, one in enumerate(found) for other in found[:n])


def test_each_rank_pass_step_and_part_augments_by_draws_of_its_own(index: FaceStore) -> None:
    loads = loader(index, "multilabel_transformer", "train", "batch=8", "augment.brightness=0.5")
    place = Place(0, 0, 0, 2, (0, 4))
    others = [
        Place(0, 0, 1, 2, (0, 4)),
        Place(1, 0, 0, 2, (0, 4)),
        Place(0, 1, 0, 2, (0, 4)),
        Place(0, 0, 0, 2, (1, 5)),
    ]
    stored = loads.read(place)  # the same crops at every place
    batches = [loads.batch(replace(stored, place=each)) for each in (place, *others)]
    assert not any(same(one, other) for n, one in enumerate(batches) for other in batches[:n])
    assert same(loads.batch(stored), batches[0])


def test_padding_has_no_labels(index: FaceStore) -> None:
    loads = loader(index, "prompt_tuning", "base", "batch=1", "model.clip_frames=64")  # longer than any track
    batch, targets = batch_at(loads, 0, 0, rank=0, world=1, part=(0, 1))
    count = int(batch.mask.sum())
    assert 0 < count < 64
    assert batch.mask[0, :count].all()
    assert (targets[0, count:] == -1).all()
    assert (targets[0, :count] >= 0).any()


@pytest.mark.parametrize(("stage", "hears"), [("visual", False), ("sequence", True)])
def test_only_a_head_that_uses_audio_gets_it(index: FaceStore, stage: str, hears: bool) -> None:
    batch, _ = batch_at(loader(index, "multimodal", stage, "batch=2"), 0, 0, rank=0, world=1, part=(0, 2))
    assert (batch.mel is not None, batch.column is not None) == (hears, hears)
    if batch.mel is not None and batch.column is not None:
        assert batch.mel.shape[:2] == (2, 64)
        assert batch.column.shape == batch.mask.shape
        assert ((batch.column >= 0) & (batch.column < batch.mel.shape[-1])).any()


def test_fewer_clips_than_a_batch_are_refused(index: FaceStore) -> None:
    with pytest.raises(DatasetError, match="fewer than one batch of 4096"):
        loader(index, "multilabel_transformer", "train", "batch=4096")
