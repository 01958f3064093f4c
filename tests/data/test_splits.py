from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aupipe.config import load
from aupipe.data import samples, splits
from aupipe.data.sampler import Task
from aupipe.data.samples import DataConfig
from aupipe.errors import ConfigError
from aupipe.facestore import write
from aupipe.facestore.folds import folds
from aupipe.facestore.read import ALL, FaceStore
from aupipe.facestore.schema import StoreHeader
from aupipe.storage import Storage

pytestmark = pytest.mark.unit

ARCFACE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))


@pytest.fixture(scope="module")
def index(make_store: Callable[..., str]) -> FaceStore:
    return FaceStore.open(make_store(train=9, validation=4, frames=12, unknown=0.0))


def names(index: FaceStore, split: str) -> set[str]:
    return set(index.labels(split)["video_id"].to_pylist())


def test_official_is_the_folder_split(index: FaceStore) -> None:
    assert splits.train_part(index, "official") == splits.SplitPart("train")
    assert (
        splits.eval_part(index, "official") == splits.eval_part(index, "validation") == splits.SplitPart("validation")
    )
    assert splits.eval_part(index, "all") == splits.SplitPart(ALL)


def test_folds_are_scored_once_each_and_trained_on_otherwise(index: FaceStore) -> None:
    scored = [splits.eval_part(index, f"fold:{k}").videos for k in range(4)]
    assert set().union(*scored) == names(index, ALL)
    assert sum(map(len, scored)) == 13
    for k in range(4):
        assert splits.train_part(index, f"fold:{k}").videos == names(index, ALL) - scored[k]


@pytest.mark.parametrize("split", ["fold:4", "fold:", "fold:x", "test", "fold:-1"])
def test_unknown_splits_are_named_with_the_allowed_ones(index: FaceStore, split: str) -> None:
    for part in (splits.train_part, splits.eval_part):
        with pytest.raises(ConfigError, match=f"--split {split}: .*fold:0 … fold:3.*validation"):
            part(index, split)


def test_a_part_lists_its_rows_and_their_groups(index: FaceStore) -> None:
    part = splits.eval_part(index, "fold:2")
    table = index.labels(part.split)
    inside = part.mask(table["video_id"])
    assert set(np.array(table["video_id"].to_pylist())[inside]) == part.videos
    held = {video for group in part.row_groups(index) for video in group.video_ids}
    assert part.videos <= held


def test_a_fold_is_trained_on_rows_of_its_own_videos(index: FaceStore) -> None:
    trained = samples.train_samples(index, DataConfig(held_out=0.2), "au", "fold:1")
    scored = samples.eval_samples(index, "fold:1", "au")
    assert trained.tracks.split == scored.tracks.split == ALL
    parts = [set(trained.videos), set(trained.held_out_videos), set(scored.videos)]
    assert all(parts)
    assert set().union(*parts) == names(index, ALL)
    assert sum(map(len, parts)) == 13
    table = index.labels(ALL)
    for rows in (trained, scored):
        assert {table["video_id"][int(row)].as_py() for row in rows.tracks.rows} == set(rows.videos)
        assert rows.targets.tolist() == [table["au"][int(row)].as_py() for row in rows.tracks.rows]


@pytest.mark.parametrize("count", [2, 5])
def test_folds_of_people_are_disjoint_and_together_are_the_store(index: FaceStore, count: int) -> None:
    scored = [splits.eval_part(index, splits.people(k, count)).videos for k in range(count)]
    assert all(scored)
    assert sum(map(len, scored)) == 13
    assert set().union(*scored) == names(index, ALL)
    for k in range(count):
        trained = splits.train_part(index, splits.people(k, count))
        assert (trained.split, trained.videos) == (ALL, names(index, ALL) - scored[k])
        assert not samples.train_samples(
            index, DataConfig(held_out=0.2), "expr", splits.people(k, count)
        ).held_out_videos


@pytest.mark.parametrize("split", ["people:0/1", "people:2/2", "people:3/2"])
def test_there_are_at_least_two_folds_of_people(index: FaceStore, split: str) -> None:
    with pytest.raises(ConfigError, match=rf"--split {split}: .*people:K/N with K below N, and N from 2 up"):
        splits.eval_part(index, split)


def store_of(folder: Path, videos: list[tuple[str, int, int]], prefix: str = "v") -> FaceStore:
    """Return a store with a train video v00, v01 … for each (person, expression, number of its frames with AU12)."""
    part = write.ShardWriter()
    for number, (person, expression, smiles) in enumerate(videos):
        count = smiles + 1
        au = np.zeros((count, 12), np.int8)
        au[1:, 6] = 1
        part.add(
            write.rows(
                video_id=f"{prefix}{number:02d}", frames=np.arange(1, count + 1), images=[b"x"] * count, au=au,
                expression=np.full(count, expression), source="test", identity=person,
            )
        )  # fmt: skip
    name = write.shard_name("train", 0, "x")
    Storage(folder).write(name, part.finish())
    header = StoreHeader(
        edition="abaw5", source="test", license="CC0", template=ARCFACE, template_source="arcface", n_expressions=8,
        settings={},
    )  # fmt: skip
    write.finish(Storage(folder), header, [name])
    return FaceStore.open(str(folder))


def test_a_person_of_several_videos_is_in_one_fold(tmp_path: Path) -> None:
    index = store_of(tmp_path, [(f"person{video % 4}", video % 3, 0) for video in range(12)])
    for fold in range(4):
        videos = splits.eval_part(index, splits.people(fold, 4)).videos
        assert len(videos) == 3
        assert len({int(video[1:]) % 4 for video in videos}) == 1


def test_folds_of_people_tell_unknown_expressions_from_others(tmp_path: Path) -> None:
    """Each half has one of two people with unknown expressions, and one of two with the last class."""
    index = store_of(tmp_path, [("a", -1, 0), ("b", 7, 0), ("c", -1, 0), ("d", 7, 0)])
    found = [splits.eval_part(index, splits.people(fold, 2)).videos for fold in range(2)]
    assert found == [{"v00", "v03"}, {"v01", "v02"}]


def test_the_fifth_that_a_search_scores_is_balanced_by_all_positives_of_a_person(tmp_path: Path) -> None:
    smiles = {"a": [1, 1], "b": [0, 9], "c": [2, 2], "d": [4, 3], "e": [5, 0], "f": [2, 6], "g": [0, 0]}
    people = [person for person, counts in smiles.items() for _ in counts]
    index = store_of(tmp_path, [(person, 0, count) for person, counts in smiles.items() for count in counts])
    fold_of = folds({p: np.array([sum(counts), sum(counts) + 2]) for p, counts in smiles.items()}, splits.SEARCH_FOLDS)
    expected = {f"v{number:02d}" for number, person in enumerate(people) if fold_of[person] == 0}
    assert splits.eval_part(index, splits.SEARCH).videos == expected
    assert {"b"} <= {people[int(video[1:])] for video in expected}  # who has most


@pytest.mark.parametrize("split", ["fold:1", "people:0/3", splits.SEARCH])
def test_videos_of_added_stores_are_trained_on_in_every_split_and_scored_in_none(split: str, tmp_path: Path) -> None:
    own = store_of(tmp_path / "own", [(f"p{number}", number, number) for number in range(8)])
    more = store_of(tmp_path / "more", [(f"q{number}", 0, 5) for number in range(10)], "w")
    both = own.with_extra_stores([more])
    assert splits.eval_part(both, split) == splits.eval_part(own, split)
    assert splits.train_part(both, split).videos == splits.train_part(own, split).videos | names(more, "train")


def test_a_search_is_scored_on_people_of_train_and_never_on_validation(index: FaceStore) -> None:
    trained, scored = splits.train_part(index, splits.SEARCH), splits.eval_part(index, splits.SEARCH)
    assert trained.split == scored.split == "train"
    assert trained.videos | scored.videos == names(index, "train")
    assert not trained.videos & scored.videos
    assert 1 <= len(scored.videos) <= 3
    held = samples.train_samples(index, DataConfig(held_out=0.2), "au", splits.SEARCH).held_out_videos
    assert held
    assert not set(held) & scored.videos


def two_task_store(folder: Path) -> FaceStore:
    """Return a store whose video "both" is in train for AUs and in validation for expressions."""
    parts = []
    for split, videos in (("train", ("a", "both", "c")), ("validation", ("both", "d"))):
        part = write.ShardWriter()
        for video in videos:
            expression_only = (split, video) == ("validation", "both")
            part.add(
                write.rows(
                    video_id=video, frames=[1, 2], images=[b"", b""], source="test",
                    au=np.full((2, 12), -1 if expression_only else 1, np.int8),
                    expression=np.full(2, -1 if (split, video) == ("train", "both") else 2),
                )
            )  # fmt: skip
        parts.append(write.shard_name(split, 0, "x"))
        Storage(folder).write(parts[-1], part.finish())
    header = StoreHeader(
        edition="abaw5", source="test", license="x", template=ARCFACE, template_source="arcface", n_expressions=8,
        settings={},
    )  # fmt: skip
    write.finish(Storage(folder), header, parts)
    return FaceStore.open(str(folder))


@pytest.mark.parametrize(
    ("leak", "trained", "scored"),
    [
        ("off", {"au": {"a", "both", "c"}, "expr": {"a", "c"}}, {"au": {"d"}, "expr": {"both", "d"}}),
        ("drop_train", {"au": {"a", "c"}, "expr": {"a", "c"}}, {"au": {"d"}, "expr": {"both", "d"}}),
        ("drop_val", {"au": {"a", "both", "c"}, "expr": {"a", "c"}}, {"au": {"d"}, "expr": {"d"}}),
    ],
)
def test_a_recipe_chooses_what_becomes_of_videos_in_both_splits(
    tmp_path: Path, leak: splits.LeakFilter, trained: dict[str, set[str]], scored: dict[str, set[str]]
) -> None:
    index = two_task_store(tmp_path)
    assert index.in_both_splits == {"both"}
    data = DataConfig(held_out=0, leak=leak)
    tasks: tuple[Task, ...] = ("au", "expr")
    assert {task: set(samples.train_samples(index, data, task).videos) for task in tasks} == trained
    assert {task: set(samples.eval_samples(index, "official", task, leak=leak).videos) for task in tasks} == scored
    assert splits.eval_part(index, "validation", leak) == splits.eval_part(index, "official", leak)


def test_a_search_drops_training_videos_of_both_splits_and_folds_drop_none(tmp_path: Path) -> None:
    index = two_task_store(tmp_path)
    of_search = (splits.train_part(index, "search", "drop_train"), splits.eval_part(index, "search"))
    assert "both" not in (of_search[0].videos or ())
    folds = [splits.eval_part(index, f"fold:{k}", "drop_val").videos or frozenset() for k in range(4)]
    assert set().union(*folds) == {"a", "both", "c", "d"}
    for k in range(4):
        assert splits.train_part(index, f"fold:{k}", "drop_train") == splits.train_part(index, f"fold:{k}")


def test_off_may_be_written_without_quotes() -> None:
    assert load(DataConfig, {}, ["leak=off"]).leak == "off"


def test_rows_of_a_video_in_both_splits_are_two_tracks(tmp_path: Path) -> None:
    index = two_task_store(tmp_path)
    part = splits.SplitPart(ALL, frozenset({"both"}))  # as a fold of a small store
    found = samples.tracks(ALL, samples.rows_of(index, part))
    assert (found.videos, found.offsets.tolist()) == (("both", "both"), [0, 2, 4])
