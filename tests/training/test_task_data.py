from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aupipe import facs
from aupipe.data import splits
from aupipe.data.readers import CropReader
from aupipe.errors import ConfigError, DatasetError
from aupipe.facestore import read
from aupipe.facestore.read import FaceStore
from aupipe.training import recipe, task_data
from aupipe.training.task_data import TaskData

pytestmark = pytest.mark.unit

LACKED = ("AU25", "AU26")  # BP4D has no labels for them


@pytest.fixture(scope="module")
def stores(make_store: Callable[..., str]) -> tuple[str, str]:
    """Return a store, and one with other videos that lacks two AUs."""
    return make_store(train=4, validation=2, frames=8), make_store(
        train=3, validation=2, frames=8, seed=1, lacks=LACKED, prefix="bp4d-"
    )


def data_with(stores: tuple[str, str], split: str = splits.OFFICIAL, **data: Any) -> TaskData:
    settings = [f"stages.train.tasks.au.data.{key}={value}" for key, value in data.items()]
    of = recipe.read(
        "multilabel_transformer", quick=True, overrides=["stages.train.tasks.au.data.every_n=1", *settings]
    )
    return task_data.task_data(of, "train", FaceStore.open(stores[0]), split)["au"]


def test_another_data_set_is_trained_on_with_its_known_labels(stores: tuple[str, str]) -> None:
    data = data_with(stores, add=f"[{stores[1]}]", held_out=0.25)
    own = data_with(stores, held_out=0.25).train
    assert set(data.train.videos) == {*own.videos, *(f"bp4d-train{number:02d}.mp4" for number in range(3))}
    assert np.array_equal(data.train.targets[: len(own.targets)], own.targets)
    lacked = [facs.AUS.index(name) for name in LACKED]
    of_added = data.train.targets[len(own.targets) :]
    assert (of_added[:, lacked] == facs.UNKNOWN).all()
    assert {0, 1} <= set(np.delete(of_added, lacked, axis=1).ravel().tolist())
    assert not any(name.startswith("bp4d-") for name in data.train.held_out_videos)
    assert data.eval is not None
    assert not any(name.startswith("bp4d-") for name in data.eval.videos)


def test_its_crops_are_those_of_its_labels(stores: tuple[str, str]) -> None:
    data = data_with(stores, add=f"[{stores[1]}]")
    rows = data.train.tracks.rows
    crops = CropReader(data.index, data.train.tracks.split, keep_groups=1).read(rows).numpy()
    # A white square for each AU that is on (see conftest).
    whites = [crops[:, 20 + n // 4 * 34, 16 + n % 4 * 26].min(axis=-1) > 200 for n in range(len(facs.AUS))]
    known = data.train.targets != facs.UNKNOWN
    assert np.array_equal(np.stack(whites, axis=1)[known], data.train.targets[known] == 1)
    assert data.train.tracks.videos[-1] == "bp4d-train02.mp4"


@pytest.mark.parametrize("split", ["fold:1", "people:1/3"])
def test_it_is_in_no_fold(stores: tuple[str, str], split: str) -> None:
    with_it, without = data_with(stores, split, add=f"[{stores[1]}]"), data_with(stores, split)
    assert with_it.eval is not None
    assert without.eval is not None
    assert with_it.eval.videos == without.eval.videos
    assert set(without.train.videos) < set(with_it.train.videos)
    assert {name for name in with_it.train.videos if name.startswith("bp4d-")} == {
        f"bp4d-train{number:02d}.mp4" for number in range(3)
    }


def test_a_mixed_store_is_not_the_store(stores: tuple[str, str]) -> None:
    own, other = (FaceStore.open(store) for store in stores)
    mixed = own.with_extra_stores([other])
    assert mixed.sha256 not in (own.sha256, other.sha256)
    assert mixed.without_extra == own
    assert mixed.rows(read.ALL) == own.rows(read.ALL) + other.rows("train")
    assert mixed.labels("validation") == own.labels("validation")
    assert mixed.audio("bp4d-train00.mp4") is not None


def test_names_that_both_have_are_refused(stores: tuple[str, str], make_store: Callable[..., str]) -> None:
    with pytest.raises(DatasetError, match=r"both have a video 'train00\.mp4'"):
        data_with(stores, add=f"[{make_store(train=2, validation=1, frames=8, seed=2)}]")


def test_a_store_that_is_named_twice_is_refused(stores: tuple[str, str]) -> None:
    own, other = stores
    for add in (f"[{other}, {other}/]", f"[{own}]"):
        with pytest.raises(ConfigError, match=r"data\.add: .* would count twice; fix: name it once"):
            data_with(stores, add=add)


def test_crops_of_another_template_are_refused(stores: tuple[str, str], tmp_path: Path) -> None:
    index = FaceStore.open(stores[1])
    moved = index.card.model_copy(update={"template": tuple((x + 9, y) for x, y in index.card.template)})
    (tmp_path / "store.json").write_text(moved.model_dump_json())
    with pytest.raises(ConfigError, match="another template"):
        data_with(stores, add=f"[{tmp_path}]")


def test_a_stage_without_expressions_keeps_the_names_of_its_initial_weights() -> None:
    assert task_data.expression_names({}, ("Neutral", "Smile")) == ("Neutral", "Smile")
    assert task_data.expression_names({}) == facs.EXPRESSIONS
