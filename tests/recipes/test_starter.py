"""The training of the starter models is reproducible: rendering, packing and training give the same losses.

The slow test compares the first 200 steps on the first people of the models' data with the losses in
starter_losses.json, which `PYTHONPATH=tests python tests/recipes/test_starter.py` writes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from aupipe.facestore.read import FaceStore
from aupipe.images import job as images
from aupipe.storage import Storage
from aupipe.synthesis import rig
from aupipe.synthesis.render_job import SynthesisConfig, claim
from aupipe.synthesis.still_dataset import MANIFEST, StillSet
from aupipe.training import recipe, task_data
from aupipe.training import trainer as engine
from aupipe.training.learner import build_learner
from harness.external_data import external

pytestmark = pytest.mark.unit

ICT = "rigs/ict_facekit_light.npz"
LOSSES = Path(__file__).with_name("starter_losses.json")
STEPS, EVERY = 200, 20


def rendered(folder: Path, *, people: int, stills: int, rigs: tuple[str, ...]) -> FaceStore:
    """Return a face store of rendered people, made as by synthesize.py and preprocess.py."""
    data, place = StillSet(people=people, stills=stills, seed=0, rigs=rigs, config=SynthesisConfig()), folder / "data"
    storage = Storage(place)
    claim(data, storage)
    heads = {named: rig.load(named) for named in rigs}
    for person in data.units():
        data.make(person, heads[person.rig], storage)
    data.finish(storage)
    plan = images.prepare(str(place / MANIFEST), str(folder / "store"), images.ImagesConfig())
    for file in plan.files():
        Storage(folder / "store").write(file.name, file.make())
    plan.complete()
    return FaceStore.open(str(folder / "store"))


def losses(index: FaceStore, steps: int, *overrides: str) -> list[float]:
    """Return the loss of each of the first `steps` steps."""
    torch.set_num_threads(1)
    plan = recipe.read("starter", quick=False, overrides=overrides)
    data = task_data.task_data(plan, "train", index)
    model, optimizer = build_learner(plan, "train", data, "random")
    trainer = engine.Trainer(
        recipe=plan, stage="train", data=data, model=model, optimizer=optimizer, rank=0, world=1,
        device=torch.device("cpu"),
    )  # fmt: skip
    found: list[float] = []
    for epoch in range(plan.stages["train"].epochs):
        before = 0.0
        for _, total in trainer.train_steps(epoch):
            found.append(total - before)
            before = total
            if len(found) == steps:
                return found
    raise AssertionError(f"only {len(found)} steps in all epochs")


def test_rendering_and_training_are_deterministic(tmp_path: Path) -> None:
    small = ("model.backbone=test_resnet", "input.size_px=64", "stages.train.batch=4")
    small += ("stages.train.tasks.au.data.held_out=0",)
    runs = []
    for name in ("first", "again"):
        index = rendered(tmp_path / name, people=10, stills=1, rigs=("anny",))
        runs.append(losses(index, 3, *small))
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 3


def _long(folder: Path) -> list[float]:
    """Return the mean losses of consecutive blocks of EVERY steps."""
    rigs = ("anny", f"ict:{external(ICT)}")
    found = losses(rendered(folder, people=40, stills=8, rigs=rigs), STEPS, "stages.train.epochs=80")
    return [sum(found[first : first + EVERY]) / EVERY for first in range(0, STEPS, EVERY)]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_first_steps_are_those_of_the_model(tmp_path: Path) -> None:
    # Processors round differently, and the difference grows from step to step.
    assert _long(tmp_path) == pytest.approx(json.loads(LOSSES.read_text()), rel=0.02)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        LOSSES.write_text(json.dumps(_long(Path(place)), indent=1) + "\n")
