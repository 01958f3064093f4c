"""The settings of rendered data sets, and the check that a folder holds one data set only.

DIR/dataset.json contains the options of the data set and, when it is complete, its counts.
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
REVISION = 3  # Incremented when the same options give other bytes.
CARD = "dataset.json"


class RenderConfig(Section):
    """Size and compression of the pictures."""

    size_px: int = Field(
        default=160, ge=64, le=1024, multiple_of=2
    )  # Width and height of the picture of one person, in pixels.
    crf: int = Field(default=18, ge=0, le=51)  # H.264's constant rate factor of the videos; lower is better.


class SynthesisConfig(Section):
    """All settings of `synthesize.py`. Every one except the resources is part of the identity of a data set."""

    render: RenderConfig = RenderConfig()
    detector: DetectorConfig = DetectorConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    resources: Resources = Resources()  # All jobs have this section; no part of this one runs on a GPU.


class DataSet(Protocol):
    """A data set to render: units that are each complete or absent, each with the heads of one rig."""

    @property
    def rigs(self) -> tuple[str, ...]: ...

    def units(self) -> Sequence[Any]: ...

    def card(self) -> dict[str, object]: ...

    def frame_count(self, unit: Any) -> int: ...

    def is_complete(self, unit: Any, storage: Storage) -> bool: ...

    def make(self, unit: Any, heads: Rig, storage: Storage) -> None: ...

    def finish(self, storage: Storage) -> str: ...

    def text(self, storage: Storage) -> str: ...


def made_from(seed: int, rigs: Sequence[str], config: SynthesisConfig) -> dict[str, object]:
    """Return the part of the card that all data sets have.

    Raises:
        ConfigError: a rig is not available.
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
    """Write the card of this data set into `storage`, unless it is there.

    Raises:
        ConfigError: `storage` holds another data set or other files.
    """
    check(data, storage)
    if not storage.exists(CARD):
        storage.write(CARD, json_bytes(data.card()))


def check(data: DataSet, storage: Storage) -> None:
    """Raise an error unless `storage` is empty or holds this data set or a part of it.

    Raises:
        ConfigError: a rig is not available, or `storage` holds another data set or other files.
    """
    expected = json.loads(json_bytes(data.card()))
    if not storage.exists(CARD):
        if storage.names():
            raise ConfigError(f"--out: {storage.root} holds files but no {CARD}; fix: name an empty or a new folder")
        return
    try:
        found = dict(json.loads(storage.read(CARD)))
    except (ValueError, TypeError):
        raise ConfigError(
            f"--out: {storage.path(CARD)} is not the card of a rendered data set; fix: name an empty or a new folder"
        ) from None
    for key in expected:
        if found.get(key) != expected[key]:
            raise ConfigError(
                f"--out: {storage.root} holds a data set with {key} {found.get(key)!r}, not {expected[key]!r}; "
                "fix: name another folder, or use the options of that data set"
            )


def json_bytes(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
