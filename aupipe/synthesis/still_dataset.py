"""Rendered pictures on disk, unrelated to each other, as labeled images for preprocess.py.

DIR/images/PERSON/NN.jpg, DIR/people/PERSON.json (a person's last file: labels and traits), and at the end
DIR/manifest.csv (`aupipe.images.manifest`: path, subject, split, AUs and how strong they are), DIR/groups.csv
(video_id, rig, tone, glasses: for `evaluate.py --groups`) and DIR/dataset.json.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from aupipe import facs
from aupipe.storage import Storage
from aupipe.synthesis.render_job import CARD, SynthesisConfig, check, json_bytes, made_from
from aupipe.synthesis.rig import Rig
from aupipe.synthesis.stills import stills

VALIDATION_EVERY = 10  # the last of so many people is for validation
_TRAITS = ("rig", "tone", "glasses")
STRONG = tuple(f"{au}_intensity" for au in facs.AUS)
MANIFEST, GROUPS = "manifest.csv", "groups.csv"


@dataclass(frozen=True)
class Person:
    """Who is in the pictures of a folder."""

    name: str
    split: str
    seed: int
    rig: str


@dataclass(frozen=True)
class StillSet:
    """Everything that the bytes of a data set depend on: `stills` pictures of each of `people`."""

    people: int
    stills: int
    seed: int
    rigs: tuple[str, ...]
    config: SynthesisConfig

    def units(self) -> list[Person]:
        """In order of name, their rigs in turn."""
        seeds = [np.random.SeedSequence([self.seed, n]).generate_state(1)[0] for n in range(self.people)]
        return [
            Person(
                name=f"{self.seed:02d}{number + 1:05d}",
                # Counted a rig, so that every rig has its share of both splits.
                split="validation" if number // len(self.rigs) % VALIDATION_EVERY == VALIDATION_EVERY - 1 else "train",
                seed=int(seed),
                rig=self.rigs[number % len(self.rigs)],
            )
            for number, seed in enumerate(seeds)
        ]

    def card(self) -> dict[str, object]:
        """What stands in dataset.json from the start, and what a second run must agree with."""
        return made_from(self.seed, self.rigs, self.config) | {"people": self.people, "stills": self.stills}

    def frames_of(self, person: Person) -> int:
        """How many pictures a unit takes."""
        return self.stills

    def is_complete(self, person: Person, storage: Storage) -> bool:
        return storage.exists(_labels(person))

    def make(self, person: Person, heads: Rig, storage: Storage) -> None:
        """Render one person's pictures and write them, the labels last."""
        shown = stills(heads, seed=person.seed, count=self.stills, size_px=self.config.render.size_px)
        rng = np.random.default_rng([person.seed, self.stills])
        for number, picture in enumerate(shown.pictures):
            quality = int(rng.integers(35, 98))
            _, file = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
            storage.write(_image(person, number), file.tobytes())
        said = {"au": shown.au.astype(int).tolist(), "intensity": shown.intensity.round(3).tolist()} | shown.traits
        storage.write(_labels(person), json_bytes(said))

    def finish(self, storage: Storage) -> str:
        """Write the manifests and what is in the set. Returns the set in words."""
        people = self.units()
        said = [json.loads(storage.read(_labels(person))) for person in people]
        rows = [
            [_image(person, number), person.name, person.split, *au, *strong]
            for person, labels in zip(people, said, strict=True)
            for number, (au, strong) in enumerate(zip(labels["au"], labels["intensity"], strict=True))
        ]
        storage.write(MANIFEST, _csv(("path", "subject", "split", *facs.AUS, *STRONG), rows))
        traits = [[person.name, *(labels[t] for t in _TRAITS)] for person, labels in zip(people, said, strict=True)]
        storage.write(GROUPS, _csv(("video_id", *_TRAITS), traits))
        rates = np.array([row[3 : 3 + len(facs.AUS)] for row in rows]).mean(0)
        found = {"pictures": len(rows), "positive_rate": dict(zip(facs.AUS, rates.round(4).tolist(), strict=True))}
        storage.write(CARD, json_bytes(self.card() | found))
        shown = " ".join(f"{au} {rate:.3f}" for au, rate in zip(facs.AUS, rates, strict=True))
        return f"{len(people):,} people, {len(rows):,} pictures; {shown}\ndata set: {storage.path(MANIFEST)}"

    def describe(self, storage: Storage) -> str:
        """The plan in words.

        Raises:
            ConfigError: as `check`.
        """
        check(self, storage)
        people = self.units()
        done = sum(self.is_complete(person, storage) for person in people)
        return (
            f"{storage.root}: {self.stills} pictures of each of {len(people)} people, {done} of them done; "
            f"seed {self.seed}, rig {', '.join(self.rigs)}"
        )


def _image(person: Person, number: int) -> str:
    return f"images/{person.name}/{number + 1:02d}.jpg"


def _labels(person: Person) -> str:
    return f"people/{person.name}.json"


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
