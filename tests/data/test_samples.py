from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aupipe import facs
from aupipe.data import samples
from aupipe.data.samples import DataConfig
from aupipe.errors import DatasetError
from aupipe.facestore import write
from aupipe.facestore.read import FaceStore
from aupipe.facestore.schema import StoreHeader
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


def test_training_rows_are_labeled_and_of_no_held_out_video(index: FaceStore) -> None:
    rows = samples.train_samples(index, DataConfig(held_out=0.25, every_n=3), "au")
    table = index.labels("train")
    assert len(rows.held_out_videos) == 1
    assert not set(rows.videos) & set(rows.held_out_videos)
    assert {table["video_id"][int(r)].as_py() for r in rows.tracks.rows} == set(rows.videos)
    assert {table["frame"][int(r)].as_py() for r in rows.tracks.rows} <= {1, 4, 7, 10, 13, 16}
    assert (rows.targets >= 0).any(axis=1).all()
    assert rows.targets.tolist() == [table["au"][int(r)].as_py() for r in rows.tracks.rows]
    assert np.array_equal(rows.frames, [table["frame"][int(r)].as_py() for r in rows.tracks.rows])


def test_expressions_have_rows_of_their_own_and_the_same_videos_held_out(index: FaceStore) -> None:
    data = DataConfig(held_out=0.25)
    au, expr = (samples.train_samples(index, data, task) for task in ("au", "expr"))
    table = index.labels("train")
    assert expr.targets.tolist() == [table["expression"][int(r)].as_py() for r in expr.tracks.rows]
    assert (expr.targets >= 0).all()
    assert expr.held_out_videos == au.held_out_videos
    assert expr.classes == 4


def test_clips_cover_the_rows_and_mark_their_padding(index: FaceStore) -> None:
    data = DataConfig(held_out=0, clip_frames=5)
    rows = samples.train_samples(index, data, "au")
    clips = rows.clips(data, seed=0, epoch=0)
    assert np.array_equal(np.sort(clips.rows[clips.valid]), np.arange(len(rows.frames)))
    assert not clips.valid.all()
    strided = DataConfig(held_out=0, clip_frames=5, clip_stride=2)
    starts = [rows.clips(strided, seed=0, epoch=epoch).rows[:, 0].tolist() for epoch in (0, 1, 0)]
    assert starts[0] == starts[2] != starts[1]
    assert len(starts[0]) == len(starts[1])


def test_subset_takes_whole_clips_with_more_of_what_is_rare(index: FaceStore) -> None:
    data = DataConfig(held_out=0, clip_frames=4)
    rows = samples.train_samples(index, data, "au")
    every = rows.clips(data, seed=0, epoch=0)
    some = rows.clips(data.model_copy(update={"subset": 0.25}), seed=0, epoch=3)
    assert len(some) == round(len(every) / 4)
    assert {tuple(clip) for clip in some.rows} < {tuple(clip) for clip in every.rows}
    uniform = data.model_copy(update={"subset": 0.25, "subset_choice": "uniform"})
    epochs = [rows.clips(uniform, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 3), (1, 0))]
    assert np.array_equal(epochs[0].rows, epochs[1].rows)  # one subset for all epochs
    assert not np.array_equal(epochs[0].rows, epochs[2].rows)
    assert len(epochs[0]) == len(some)
    assert not np.array_equal(epochs[0].rows, some.rows)


def test_every_class_occurs_equally_often() -> None:
    targets = np.array([0] * 80 + [1] * 15 + [2] * 5)
    chosen = samples.class_balanced(targets, balance=1, seed=1, epoch=0)
    assert len(chosen) == 100
    assert np.bincount(targets[chosen]).tolist() == [33, 34, 33]
    assert set(range(80, 100)) <= set(chosen.tolist())  # all of a rare class
    frequent = [set(samples.class_balanced(targets, balance=1, seed=1, epoch=e)[:33].tolist()) for e in (0, 1)]
    assert frequent[0] != frequent[1]
    assert all(len(each) == 33 for each in frequent)  # of a frequent one none twice
    half = np.bincount(targets[samples.class_balanced(targets, balance=0.5, seed=1, epoch=0)])
    roots = np.sqrt([80, 15, 5])
    assert np.abs(half - 100 * roots / roots.sum()).max() <= 1


def test_shuffled_labels_are_a_permutation(index: FaceStore) -> None:
    plain = samples.train_samples(index, DataConfig(), "au")
    mixed = samples.train_samples(index, DataConfig(shuffled_labels=True), "au")
    assert sorted(plain.targets.tolist()) == sorted(mixed.targets.tolist())
    assert (plain.targets != mixed.targets).any(axis=1).mean() > 0.5
    assert np.array_equal(plain.tracks.rows, mixed.tracks.rows)


def test_intensities_are_targets_if_the_store_has_them(tmp_path: Path) -> None:
    intensities = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 12)

    def store(folder: Path, intensity: np.ndarray | None) -> FaceStore:
        part = write.ShardWriter()
        part.add(
            write.rows(
                video_id="v", frames=[1, 2], images=[b"", b""], au=(intensities > 0.5).astype(np.int8),
                expression=np.full(2, -1), intensity=intensity, source="test",
            )
        )  # fmt: skip
        name = write.shard_name("train", 0, "x")
        Storage(folder).write(name, part.finish())
        header = StoreHeader(
            edition="x", source="x", license="x", template=((0.0, 0.0),) * 5, template_source="arcface",
            n_expressions=8, settings={},
        )  # fmt: skip
        write.finish(Storage(folder), header, [name])
        return FaceStore.open(str(folder))

    rows = samples.train_samples(store(tmp_path / "with", intensities), DataConfig(held_out=0, intensity=1.5), "au")
    np.testing.assert_allclose(rows.train_targets, np.minimum(intensities * 1.5, 1), rtol=1e-6)
    assert np.array_equal(rows.targets, intensities > 0.5)  # what is counted stays a label
    with pytest.raises(DatasetError, match="the store has no AU intensities"):
        samples.train_samples(store(tmp_path / "without", None), DataConfig(held_out=0, intensity=1.0), "au")


def test_unknown_time_is_computed_from_frame_numbers(index: FaceStore) -> None:
    rows = samples.eval_samples(index, "validation", "au")
    assert np.array_equal(rows.tracks.time_s, rows.frames / 30)
    assert len(rows.tracks.offsets) == 4


def test_videos_can_count_as_people(index: FaceStore) -> None:
    rows = samples.train_samples(index, DataConfig(held_out=0.25, videos_are_people=True), "identity")
    assert rows.classes == rows.targets.max() + 1
    assert len(set(rows.targets.tolist())) == 3  # numbered over all, whoever is held out
    for track, person in enumerate(rows.tracks.videos):
        span = slice(*rows.tracks.offsets[track : track + 2])
        assert set(rows.targets[span].tolist()) == {int(person[5:7])}


def test_no_rows_to_train_on_is_an_error_that_names_the_task(index: FaceStore, make_store: Callable[..., str]) -> None:
    with pytest.raises(DatasetError, match="identity"):
        samples.train_samples(index, DataConfig(), "identity")
    unlabeled = FaceStore.open(make_store(train=2, validation=1, frames=4, unknown=1.1))
    for task in ("au", "expr"):
        with pytest.raises(DatasetError, match=task):
            samples.eval_samples(unlabeled, "validation", task)


def test_positive_rates_ignore_unknown_labels(index: FaceStore) -> None:
    rows = samples.train_samples(index, DataConfig(held_out=0), "au")
    known = rows.targets[:, 0] != facs.UNKNOWN
    assert rows.positive_rates[0] == (rows.targets[known, 0] == 1).mean()
    never = replace(rows, targets=np.where(np.arange(12) == 5, -1, 0 * rows.targets))
    assert never.positive_rates.tolist() == [0] * 12
