"""A data set of pictures: complete people, both splits, and a manifest that preprocess.py reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from aupipe.evaluation import fairness
from aupipe.images.manifest import read_manifest
from aupipe.manifests import read_table
from aupipe.storage import Storage
from aupipe.synthesis import rig
from aupipe.synthesis.render_job import SynthesisConfig, claim
from aupipe.synthesis.still_dataset import GROUPS, MANIFEST, StillSet

pytestmark = pytest.mark.unit


def still_set(people: int, rigs: tuple[str, ...] = ("anny",)) -> StillSet:
    return StillSet(people=people, stills=2, seed=3, rigs=rigs, config=SynthesisConfig())


def test_a_person_is_complete_or_absent_and_the_manifest_names_all(tmp_path: Path) -> None:
    data, storage = still_set(2), Storage(tmp_path)
    claim(data, storage)
    heads = rig.load("anny")
    for person in data.units():
        assert not data.is_complete(person, storage)
        data.make(person, heads, storage)
        assert data.is_complete(person, storage)
    assert "4 pictures" in data.finish(storage)
    table = read_manifest(storage, MANIFEST)
    assert table["number"].to_pylist() == [1, 2, 1, 2]
    assert all(storage.exists(path) for path in table["path"].to_pylist())
    traits = read_table(storage, GROUPS, "video_id", ("person",))
    fairness.check(traits.columns, GROUPS)
    assert traits.columns["video_id"] == sorted(set(table["subject"].to_pylist()))


def test_every_rig_has_people_in_both_splits_and_more_people_do_not_change_the_first() -> None:
    people = still_set(40, ("anny", "ict:x.npz")).units()
    for named in ("anny", "ict:x.npz"):
        splits = [person.split for person in people if person.rig == named]
        assert (splits.count("train"), splits.count("validation")) == (18, 2)
    assert people[:12] == still_set(12, ("anny", "ict:x.npz")).units()
