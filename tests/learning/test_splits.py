from collections.abc import Callable

import numpy as np
import pytest

from aupipe.errors import ConfigError
from aupipe.facestore.read import ALL, StoreIndex
from aupipe.learning import engine, splits
from aupipe.learning.recipe import DataConfig

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def index(make_store: Callable[..., str]) -> StoreIndex:
    return StoreIndex.open(make_store(train=9, validation=4, frames=12, unknown=0.0))


def names(index: StoreIndex, split: str) -> set[str]:
    return set(index.labels(split)["video_id"].to_pylist())


def test_official_is_the_folder_split(index: StoreIndex) -> None:
    assert splits.to_learn(index, "official") == splits.Part("train")
    assert splits.to_score(index, "official") == splits.to_score(index, "validation") == splits.Part("validation")
    assert splits.to_score(index, "all") == splits.Part(ALL)


def test_folds_are_scored_once_each_and_learnt_from_elsewhere(index: StoreIndex) -> None:
    scored = [splits.to_score(index, f"fold:{k}").videos for k in range(4)]
    assert set().union(*scored) == names(index, ALL)
    assert sum(map(len, scored)) == 13
    for k in range(4):
        assert splits.to_learn(index, f"fold:{k}").videos == names(index, ALL) - scored[k]


@pytest.mark.parametrize("split", ["fold:4", "fold:", "fold:x", "test", "fold:-1"])
def test_what_is_no_split_is_named_with_those_there_are(index: StoreIndex, split: str) -> None:
    for part in (splits.to_learn, splits.to_score):
        with pytest.raises(ConfigError, match=f"--split {split}: .*fold:0 … fold:3.*validation"):
            part(index, split)


def test_part_knows_its_rows_and_their_groups(index: StoreIndex) -> None:
    part = splits.to_score(index, "fold:2")
    table = index.labels(part.pool)
    inside = part.mask(table["video_id"])
    assert set(np.array(table["video_id"].to_pylist())[inside]) == part.videos
    held = {video for group in part.row_groups(index) for video in group.video_ids}
    assert part.videos <= held


def test_a_fold_learns_from_rows_of_its_own_videos(index: StoreIndex) -> None:
    learnt = engine.training_rows(index, DataConfig(held_out=0.2), "fold:1")
    scored = engine.labelled_rows(index, "fold:1")
    assert learnt.pool == scored.pool == ALL
    parts = [set(learnt.videos), set(learnt.held_out_videos), set(scored.videos)]
    assert all(parts)
    assert set().union(*parts) == names(index, ALL)
    assert sum(map(len, parts)) == 13
    table = index.labels(ALL)
    for rows in (learnt, scored):
        assert {table["video_id"][int(row)].as_py() for row in rows.rows} == set(rows.videos)
        assert rows.labels.tolist() == [table["au"][int(row)].as_py() for row in rows.rows]
