"""Published data sets of images, read from tiny copies of their folders."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupipe import facs
from aupipe.commands.preprocess import main
from aupipe.errors import CheckpointError, ConfigError, DatasetError
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.facestore.read import FaceStore
from aupipe.facestore.schema import StoreCard
from aupipe.images import datasets, job
from aupipe.images.datasets import Dataset
from aupipe.models import checkpoint, inference
from aupipe.models.build import build
from aupipe.models.configs import ExpressionTransferConfig
from aupipe.models.inputs import InputSpec
from aupipe.storage import Storage
from aupipe.training import recipe, task_data
from harness import image_sets

pytestmark = pytest.mark.unit


def read(root: Path) -> Dataset:
    mark = datasets.detect(Storage(root))
    assert mark is not None
    return datasets.read(Storage(root), *mark)


def packed(root: Path, out: Path, **data: Any) -> tuple[StoreCard, FaceStore]:
    plan = job.prepare(str(root), str(out), job.ImagesConfig.model_validate({"data": data}))
    for file in plan.files():
        Storage(out).write(file.name, file.make())
    return plan.complete(), FaceStore.open(str(out))


def test_bp4d_has_aus_by_number_and_nine_is_unknown(tmp_path: Path) -> None:
    found = read(image_sets.bp4d(tmp_path))
    rows = found.table.to_pylist()
    assert (found.name, len(rows)) == ("bp4d", 3 * 2 * 6)
    first = rows[0]
    assert (first["path"], first["subject"], first["identity"]) == ("2D/F001/T1/0011.jpg", "F001", "F001")
    expected = [(-1, 0, 1)[(11 + au) % 3] for au in facs.AU_NUMBERS[:10]]
    assert first["au"] == [*expected, -1, -1]  # BP4D has no AU25 and AU26
    assert [row["number"] for row in rows[:12]] == list(range(1, 13))
    assert {row["expression"] for row in rows} == {-1}


def test_a_frame_of_bp4d_without_an_image_is_counted(tmp_path: Path) -> None:
    card, index = packed(image_sets.bp4d(tmp_path / "data"), tmp_path / "store")
    assert card.annotations == {"images.rows": 36, "images.kept": 30, "images.no_file": 6}
    assert (card.edition, card.source, card.n_expressions) == ("bp4d", "images:bp4d", 0)
    assert card.license == "BP4D: research only, under the agreement with its authors"
    assert index.labels("train")["identity"].unique().to_pylist() == ["F001", "F002", "F003"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,1,2\n11,0,2\n", r"F001_T1\.csv:2: '11,0,2' \(a frame, then 0, 1 or 9\)"),
        ("0,1,2\n11,0\n", "a frame, then 0, 1 or 9"),
        ("frame,a\n11,0\n", "header 'frame,a'"),
    ],
)
def test_a_damaged_table_of_bp4d_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    image_sets.bp4d(tmp_path, people=1)
    (tmp_path / "AUCoding/AU_OCC/F001_T1.csv").write_text(text)
    with pytest.raises(DatasetError, match=expected):
        read(tmp_path)


def test_two_images_of_a_frame_of_bp4d_are_refused(tmp_path: Path) -> None:
    image_sets.bp4d(tmp_path, people=1)
    image_sets.write_image(tmp_path / "crops/F001/T1/11.jpg", np.random.default_rng(0))
    with pytest.raises(DatasetError, match=r"two images of F001 T1 frame 11, .* and .*; fix"):
        read(tmp_path)


def test_rafdb_has_an_order_of_its_own_and_its_test_set_is_validation(tmp_path: Path) -> None:
    found = read(image_sets.rafdb(tmp_path))
    rows = {row["path"]: row for row in found.table.to_pylist()}
    names = ("Surprise", "Fear", "Disgust", "Happiness", "Sadness", "Anger", "Neutral")
    shown = {path: facs.EXPRESSIONS[row["expression"]] for path, row in rows.items() if "train_" in path}
    originals = {f"basic/Image/original/train_{n + 1:05d}.jpg": names[n % 7] for n in range(1, 14)}
    assert shown == {"basic/Image/aligned/train_00001_aligned.jpg": "Surprise"} | originals
    assert Counter(row["split"] for row in rows.values()) == {"train": 14, "validation": 14}
    assert found.expressions == facs.EXPRESSIONS_ABAW2


def test_a_label_that_rafdb_lacks_is_refused(tmp_path: Path) -> None:
    image_sets.rafdb(tmp_path)
    (tmp_path / "basic/EmoLabel/list_patition_label.txt").write_text("train_00001.jpg 8\n")
    with pytest.raises(DatasetError, match=r"list_patition_label\.txt:1: 'train_00001\.jpg 8'"):
        read(tmp_path)


def test_the_compound_set_of_rafdb_is_not_taken_for_the_basic_one(tmp_path: Path) -> None:
    shutil.rmtree(image_sets.rafdb(tmp_path) / "basic")
    assert datasets.detect(Storage(tmp_path)) is None


def test_multipie_has_expressions_by_session_and_recording(tmp_path: Path) -> None:
    root = image_sets.multipie(tmp_path, people=2)
    image_sets.write_image(root / "data/session01/multiview/001/calibration.png", np.random.default_rng(0))
    image_sets.write_image(root / "data/session01/multiview/001/03/05_1/001_01_03_051_06.png", np.random.default_rng(0))
    found = read(root)
    shown = {
        tuple(row["path"].rpartition("/")[2].split("_")[1:3]): found.expressions[row["expression"]]
        for row in found.table.to_pylist()
    }
    assert shown == {
        ("01", "01"): "Neutral", ("01", "02"): "Smile", ("02", "01"): "Neutral", ("02", "02"): "Surprise",
        ("02", "03"): "Squint", ("03", "01"): "Neutral", ("03", "02"): "Smile", ("03", "03"): "Disgust",
        ("04", "01"): "Neutral", ("04", "02"): "Neutral", ("04", "03"): "Scream",
    }  # fmt: skip
    assert found.left_out == {"no session, recording and camera in its name": 2}
    assert Counter(found.table["identity"].to_pylist()) == {"001": 11, "002": 11}


def test_affectnet_keeps_contempt_as_a_class_of_its_own(tmp_path: Path) -> None:
    found = read(image_sets.affectnet(tmp_path))
    order = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger", "Contempt")
    shown = {row["path"]: found.expressions[row["expression"]] for row in found.table.to_pylist()}
    assert shown == {f"{part}_set/images/{n}.jpg": order[n % 8] for part in ("train", "val") for n in range(16)}
    assert found.expressions == (*facs.EXPRESSIONS[:7], "Contempt")
    assert set(found.table["split"].to_pylist()) == {"train", "validation"}


def test_the_lists_of_affectnet_leave_out_what_is_no_expression(tmp_path: Path) -> None:
    found = read(image_sets.affectnet_lists(tmp_path))
    shown = {row["path"]: found.expressions[row["expression"]] for row in found.table.to_pylist()}
    assert shown["Manually_Annotated_Images/7/training7.jpg"] == "Contempt"
    assert shown["Manually_Annotated_Images/6/validation6.jpg"] == "Anger"
    assert len(shown) == 16
    assert found.left_out == {"None": 1, "Uncertain": 1, "No face": 1}


def test_a_damaged_annotation_of_affectnet_is_refused(tmp_path: Path) -> None:
    image_sets.affectnet(tmp_path, images=1)
    (tmp_path / "train_set/annotations/0_exp.npy").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"0_exp\.npy: no expression"):
        read(tmp_path)


@pytest.mark.parametrize("make", [image_sets.bp4d, image_sets.rafdb, image_sets.multipie, image_sets.affectnet])
def test_a_data_set_without_its_images_is_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    make(tmp_path)
    for path in [*tmp_path.rglob("*.jpg"), *tmp_path.rglob("*.png")]:
        path.unlink()
    with pytest.raises(DatasetError, match="without images; fix: unpack them"):
        read(tmp_path)


def test_two_data_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    image_sets.bp4d(tmp_path)
    image_sets.rafdb(tmp_path)
    with pytest.raises(DatasetError, match=r"several data sets, BP4D \(AUCoding/AU_OCC\) and RAF-DB \(basic/Emo"):
        datasets.detect(Storage(tmp_path))


def test_a_data_set_is_detected_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image_sets.multipie(tmp_path / "data")
    assert main(["--data", str(tmp_path / "data"), "--out", str(tmp_path / "store"), "--dry-run"]) == 0
    assert "55 images, source: images:multipie, edition Multi-PIE" in capsys.readouterr().out


def test_images_are_aligned_to_the_template_of_another_store(tmp_path: Path, make_store: Callable[..., str]) -> None:
    own = FaceStore.open(make_store())
    moved = own.card.model_copy(update={"template": tuple((x + 3, y) for x, y in own.card.template)})
    (tmp_path / "store.json").write_text(moved.model_dump_json())
    image_sets.rafdb(tmp_path / "data")
    plans = [
        job.prepare(str(tmp_path / "data"), "out", job.ImagesConfig.model_validate({"data": data}))
        for data in ({}, {"template": f"store:{tmp_path}"})
    ]
    assert plans[1].template[0][0] == pytest.approx(plans[0].template[0][0] + 3, abs=1e-3)
    assert not {file.name for file in plans[0].files()} & {file.name for file in plans[1].files()}
    with pytest.raises(ValueError, match="template"):
        job.ImagesConfig.model_validate({"data": {"template": "aff"}})


def expressions(store: Path, *settings: str) -> task_data.TaskData:
    of = recipe.read("expression_transfer", quick=True, overrides=settings)
    return task_data.task_data(of, "expressions", FaceStore.open(str(store)))["expr"]


def test_a_class_that_the_head_lacks_is_an_error_unless_it_is_ignored(tmp_path: Path) -> None:
    packed(image_sets.affectnet(tmp_path / "data"), tmp_path / "store")
    seven = "model.expressions=7"
    with pytest.raises(ConfigError, match=r"4 rows .* are Contempt, .*expressions=8, or .*=\[Contempt\]"):
        expressions(tmp_path / "store", seven)
    ignored = expressions(tmp_path / "store", seven, "stages.expressions.tasks.expr.data.ignore=[Contempt]")
    assert ignored.train.classes == 7
    assert expressions(tmp_path / "store").train.classes == 8
    with pytest.raises(ConfigError, match="Other is no class of the store"):
        expressions(tmp_path / "store", seven, "stages.expressions.tasks.expr.data.ignore=[Other]")


@pytest.mark.parametrize(("classes", "name"), [(8, "Contempt"), (7, "Neutral")])
def test_a_class_of_the_head_cannot_be_ignored(tmp_path: Path, classes: int, name: str) -> None:
    packed(image_sets.affectnet(tmp_path / "data"), tmp_path / "store")
    ignore = f"stages.expressions.tasks.expr.data.ignore=[{name}]"
    with pytest.raises(ConfigError, match=rf"ignore: {name} is one of the model's {classes} classes"):
        expressions(tmp_path / "store", f"model.expressions={classes}", ignore)


def test_stores_of_other_classes_are_not_mixed(tmp_path: Path) -> None:
    packed(image_sets.affectnet(tmp_path / "a"), tmp_path / "one")
    packed(image_sets.multipie(tmp_path / "b"), tmp_path / "two")
    packed(image_sets.rafdb(tmp_path / "c"), tmp_path / "three")
    add = "stages.expressions.tasks.expr.data.add"
    with pytest.raises(ConfigError, match=r"the classes of .*two .*Squint.* are not those of .*one"):
        expressions(tmp_path / "one", f"{add}=[{tmp_path}/two]")
    assert expressions(tmp_path / "one", f"{add}=[{tmp_path}/three]").train.classes == 8


def test_the_six_classes_of_multipie_train_a_head_of_six(tmp_path: Path) -> None:
    packed(image_sets.multipie(tmp_path / "data"), tmp_path / "store")
    every = "stages.expressions.tasks.expr.data.every_n=1"
    data = expressions(tmp_path / "store", "model.expressions=6", every)
    assert data.train.classes == 6
    assert task_data.expression_names({"expr": data}) == datasets.MULTIPIE_EXPRESSIONS


def test_a_model_of_other_classes_does_not_name_them_as_those_of_aff_wild2(tmp_path: Path) -> None:
    config = ExpressionTransferConfig(backbone="test_resnet", outputs=("au", "expr"), expressions=8, hidden=(8,))
    points = tuple(map(tuple, ARCFACE_TEMPLATE.tolist()))
    card = checkpoint.Card(
        model=config, input=InputSpec(size_px=64), template=points, expressions=datasets.AFFECTNET_EXPRESSIONS
    )
    checkpoint.save(Storage(tmp_path), build(card.model, card.input), card)
    with pytest.raises(CheckpointError, match=r"expressions Neutral, .*Contempt \(Neutral, .*Other\); fix"):
        inference.load(str(tmp_path))
    checkpoint.save(
        Storage(tmp_path), build(card.model, card.input), card.model_copy(update={"expressions": facs.EXPRESSIONS})
    )
    assert inference.load(str(tmp_path))[1].expressions == facs.EXPRESSIONS
