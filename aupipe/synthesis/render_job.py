"""What all rendered data sets share: their settings, and a folder that belongs to one data set.

DIR/dataset.json says what the set is made from, later also what is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import Field

from aupipe import facs
from aupipe.config import Resources, Section
from aupipe.errors import ConfigError
from aupipe.faces.align import AlignmentConfig
from aupipe.faces.detect import DetectorConfig
from aupipe.storage import Storage
from aupipe.synthesis import rig
from aupipe.synthesis.au_blendshapes import LIPS_PARTED_DM
from aupipe.synthesis.au_schedule import PRESENT
from aupipe.synthesis.rig import Rig

GENERATOR = "aupipe synthesize"
REVISION = 3  # raised when the same options come to give other bytes
CARD = "dataset.json"


class RenderConfig(Section):
    """The pictures."""

    size_px: int = Field(default=160, ge=64, le=1024, multiple_of=2)  # width and height, a person
    crf: int = Field(default=18, ge=0, le=51)  # H.264's constant rate factor, of videos


class SynthesisConfig(Section):
    """What `--set` reaches. All but the resources is part of the key of a data set."""

    render: RenderConfig = RenderConfig()
    detector: DetectorConfig = DetectorConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    resources: Resources = Resources()  # as every job; nothing here runs on a GPU


class DataSet(Protocol):
    """What the job makes: units, each complete or absent, each of heads of one rig."""

    @property
    def rigs(self) -> tuple[str, ...]: ...

    def units(self) -> Sequence[Any]: ...

    def card(self) -> dict[str, object]: ...

    def frames_of(self, unit: Any) -> int: ...

    def is_complete(self, unit: Any, storage: Storage) -> bool: ...

    def make(self, unit: Any, heads: Rig, storage: Storage) -> None: ...

    def finish(self, storage: Storage) -> str: ...

    def describe(self, storage: Storage) -> str: ...


def made_from(seed: int, rigs: Sequence[str], config: SynthesisConfig) -> dict[str, object]:
    """The part of a card that every data set has.

    Raises:
        ConfigError: a rig is not there.
    """
    labels, licenses = zip(*(rig.label(named) for named in rigs), strict=True)
    return {
        "generator": GENERATOR,
        "revision": REVISION,
        "rig": ", ".join(labels),
        "license": ", ".join(dict.fromkeys(licenses)),
        "seed": seed,
        "config": config.model_dump(exclude={"resources"}),
        "au_order": list(facs.AUS),
        "present_from_intensity": PRESENT,
        "lips_parted_from_dm": LIPS_PARTED_DM,
    }


def claim(data: DataSet, storage: Storage) -> None:
    """Make `storage` the place of this data set.

    Raises:
        ConfigError: it holds another data set, or something else.
    """
    check(data, storage)
    if not storage.exists(CARD):
        storage.write(CARD, json_bytes(data.card()))


def check(data: DataSet, storage: Storage) -> None:
    """Whether `storage` is empty or holds this data set, or part of it.

    Raises:
        ConfigError: it holds another data set, or something else.
    """
    if not storage.exists(CARD):
        if storage.names():
            raise ConfigError(f"--out {storage.root} holds files but no {CARD}; name an empty or a new folder")
        return
    held, wanted = json.loads(storage.read(CARD)), json.loads(json_bytes(data.card()))
    for key in wanted:
        if held.get(key) != wanted[key]:
            raise ConfigError(
                f"--out {storage.root} holds a data set with {key} {held.get(key)!r}, not {wanted[key]!r}; "
                "name another folder, or give the options it was made with"
            )


def json_bytes(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
