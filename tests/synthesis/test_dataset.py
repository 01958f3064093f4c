"""A folder holds one data set, and a pair of people is one video."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aupipe.errors import ConfigError
from aupipe.storage import Storage
from aupipe.synthesis.dataset import VideoSet
from aupipe.synthesis.render_job import SynthesisConfig, check, claim

pytestmark = pytest.mark.unit


def spec(seed: int = 0, **config: object) -> VideoSet:
    return VideoSet(
        videos=6,
        pairs=0,
        seconds=0.6,
        seed=seed,
        edition="abaw5",
        rigs=("anny",),
        config=SynthesisConfig.model_validate(config),
    )


def test_a_folder_belongs_to_one_data_set(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "set")
    assert "0 done" in spec().text(storage)
    assert not storage.names()  # A dry run writes nothing.
    claim(spec(), storage)
    check(spec(), storage)
    with pytest.raises(ConfigError, match="seed 0, not 1"):
        check(spec(seed=1), storage)
    with pytest.raises(ConfigError, match="config"):
        check(spec(render={"crf": 9}), storage)
    assert json.loads(storage.read("dataset.json"))["license"] == "CC0-1.0"


def test_a_folder_with_other_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("other")
    with pytest.raises(ConfigError, match="new folder"):
        claim(spec(), Storage(tmp_path))


@pytest.mark.parametrize("content", ["", "[1]", "3", '{"seed": 0'])
def test_a_card_of_something_else_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ConfigError, match=r"dataset\.json is not the card of a rendered data set; fix: "):
        check(spec(), Storage(tmp_path))


def test_a_pair_is_two_people_of_one_split_in_one_file() -> None:
    clips = VideoSet(
        videos=12, pairs=3, seconds=0.6, seed=0, edition="abaw5", rigs=("anny",), config=SynthesisConfig()
    ).units()
    assert len(clips) == 12
    pairs = [clip for clip in clips if len(clip.people) == 2]
    assert [clip.people[0].split for clip in sorted(pairs, key=lambda c: c.people[0].split)] == [
        "train", "train", "validation",
    ]  # fmt: skip
    for clip in pairs:
        assert [person.name for person in clip.people] == [f"{clip.name}_left", f"{clip.name}_right"]
        assert clip.people[0].split == clip.people[1].split
        assert clip.name.endswith("-25-320x160")
    people = [person for clip in clips for person in clip.people]
    assert len({person.seed for person in people}) == len({person.name for person in people}) == 15
