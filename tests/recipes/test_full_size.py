"""The full-size command lines of aupipe/recipes/README.md, on tiny copies of the data sets.

Each line of preprocess.py is planned on a copy of its data set, and each line of train.py on the stores of these
copies. Every stage that the last line of a recipe trains makes one optimizer step with the networks of the paper.
"""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from aupipe.affwild2 import job as affwild2
from aupipe.commands import preprocess, train
from aupipe.data import batches
from aupipe.facestore.job import StoreJob
from aupipe.facestore.read import FaceStore
from aupipe.images import job as images
from aupipe.models.backbone import FACE, make
from aupipe.storage import Storage
from aupipe.training import recipe, task_data
from aupipe.training.learner import build_learner
from aupipe.training.trainer import Trainer
from harness import image_sets
from harness.settle import settle

pytestmark = [pytest.mark.unit, pytest.mark.slow]

PAGE = (Path(recipe.__file__).parents[1] / "recipes/README.md").read_text()
SECTIONS = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
SECTIONS.pop("starter")
STORES = ("store", "multipie-store", "bp4d-store", "glint-store")
BATCH = 2
AU_HEADER = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"


def lines(name: str, job: str) -> Iterator[list[str]]:
    """Yield the arguments of the commands of a job in a recipe's section, once per value of a shell loop."""
    for block in re.findall(r"^```sh\n(.*?)^```", SECTIONS[name], re.MULTILINE | re.DOTALL):
        variable, values = "", [""]
        for line in re.sub(r"#.*", "", block.replace("\\\n", " ")).splitlines():
            if found := re.match(r"for (\w+) in ([^;]+); do", line):
                variable, values = found[1], found[2].split()
                continue
            for each in values:
                command = line.replace(f"${variable}", each) if variable else line
                if found := re.search(rf"python jobs/{job}\.py ([^;]*)", command):
                    yield shlex.split(found[1])
            if line.rstrip().endswith("done"):
                variable, values = "", [""]


TRAIN = [(name, argv) for name in SECTIONS for argv in lines(name, "train")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the data sets, and with their stores under the names of the page."""
    root = tmp_path_factory.mktemp("full")
    image_sets.multipie(root / "MULTIPIE")
    image_sets.bp4d(root / "BP4D")
    image_sets.glint360k(root / "GLINT360K")
    for edition, name in (("abaw5", ""), ("abaw2", "-abaw2")):
        image_sets.aff_wild2(root / f"AFFWILD2{name}", edition)
        data, store = str(root / f"AFFWILD2{name}"), str(root / f"store{name}")
        pack(affwild2.prepare(data, store, None, affwild2.PreprocessConfig()))
    for data, store in (("MULTIPIE", "multipie-store"), ("BP4D", "bp4d-store"), ("GLINT360K", "glint-store")):
        pack(images.prepare(str(root / data), str(root / store), images.ImagesConfig()))
    return root


def pack(job: StoreJob) -> None:
    for file in job.files():
        Storage(job.out).write(file.name, file.make())
    job.complete()


def placed(argv: list[str], root: Path, name: str) -> list[str]:
    """Return the arguments with the paths of the stores and weights, and a batch for which the copies are enough."""
    own = "store-abaw2" if name == "multimodal" else "store"
    moved = [re.sub(r"(?<![\w-])(multipie-store|bp4d-store|glint-store)", rf"{root}/\1", text) for text in argv]
    moved[moved.index("--data") + 1] = f"{root}/{own}"
    read = recipe.read(name, quick=False, overrides=settings(moved))
    for stage, each in read.stages.items():
        moved += ["--set", f"stages.{stage}.batch={BATCH}"]
        if each.tasks.au and each.tasks.au.data.subset:
            moved += ["--set", f"stages.{stage}.tasks.au.data.subset=1"]
        if each.init.endswith((".safetensors", ".pth")):
            file = weights(root, read.model_of(stage).backbone, read.input.size_px)
            moved += ["--set", f"stages.{stage}.init={file}"]
    return moved


def settings(argv: list[str]) -> list[str]:
    """Return the values of --set."""
    return [text for option, text in itertools.pairwise(argv) if option == "--set"]


def weights(root: Path, backbone: str, size_px: int) -> Path:
    """Return a file with random weights of a backbone, in the form of the published ones."""
    file = root / f"{backbone}.safetensors"
    if not file.exists():
        network = make(backbone, size_px).network if backbone in FACE else timm.create_model(backbone, num_classes=0)
        tensors = network.state_dict()
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
    return file


@pytest.mark.parametrize("name", SECTIONS)
def test_each_data_set_is_detected_and_planned(
    name: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv in lines(name, "preprocess"):
        data = argv[argv.index("--data") + 1]
        data += "-abaw2" if name == "multimodal" and data == "AFFWILD2" else ""
        rest = [text.replace("=store:store", f"=store:{place}/store") for text in argv if text.startswith("data.")]
        options = [text for setting in rest for text in ("--set", setting)]
        assert preprocess.main(["--data", f"{place}/{data}", "--out", str(tmp_path / data), *options, "--dry-run"]) == 0
        assert "0 of them done" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "argv"), TRAIN, ids=[f"{name}-{n}" for n, (name, _) in enumerate(TRAIN)])
def test_each_training_line_is_planned(
    name: str, argv: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = train.main([*placed(argv, place, name), "--dry-run"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert f"recipe {name}, store {place}" in printed.out


@pytest.mark.parametrize("name", SECTIONS)
def test_every_stage_makes_one_step_at_full_size(name: str, place: Path) -> None:
    torch.set_num_threads(2)
    *_, argv = [argv for other, argv in TRAIN if other == name]
    arguments = placed(argv, place, name)
    plan = recipe.read(name, quick=False, overrides=settings(arguments))
    index = FaceStore.open(arguments[arguments.index("--data") + 1])
    for stage in plan.needed():
        data = task_data.task_data(plan, stage, index)
        learner, optimizer = build_learner(plan, stage, data, None)
        if batches.is_frozen(learner.encoder):
            settle(learner.encoder, plan.input.size_px)
        before = {key: tensor.clone() for key, tensor in learner.named_parameters()}
        trained = {key for key, parameter in learner.named_parameters() if parameter.requires_grad}
        trainer = Trainer(
            recipe=plan, stage=stage, data=data, model=learner, optimizer=optimizer, rank=0, world=1,
            device=torch.device("cpu"),
        )  # fmt: skip
        done, loss = next(trainer.train_steps(0))
        assert done == 1
        assert np.isfinite(loss)
        moved = {key for key, tensor in learner.named_parameters() if not torch.equal(tensor, before[key])}
        assert moved, stage
        assert moved <= trained
