"""Rendered, mutually independent pictures on disk, as labeled images for preprocess.py.

The files are DIR/images/PERSON/NN.jpg and DIR/people/PERSON.json (labels and traits; written last for each person). At
the end DIR/manifest.csv (`aupipe.images.manifest`: path, subject, split, AUs and their intensities), DIR/groups.csv
(video_id, rig, tone, glasses; for `evaluate.py --groups`) and the counts in DIR/dataset.json are written.
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
from aupipe.synthesis.render_job import CARD, SynthesisConfig, json_bytes, made_from
from aupipe.synthesis.rig import Rig
from aupipe.synthesis.stills import stills

VALIDATION_EVERY = 10  # The last of each group of this many people is for validation.
_TRAITS = ("rig", "tone", "glasses")
INTENSITIES = tuple(f"{au}_intensity" for au in facs.AUS)
MANIFEST, GROUPS = "manifest.csv", "groups.csv"


@dataclass(frozen=True)
class Person:
    """The person in the pictures of one folder."""

    name: str
    split: str
    seed: int
    rig: str


@dataclass(frozen=True)
class StillSet:
    """All options that the bytes of a data set depend on: `stills` pictures of each of `people` people."""

    people: int
    stills: int
    seed: int
    rigs: tuple[str, ...]
    config: SynthesisConfig

    def units(self) -> list[Person]:
        """Return the people ordered by name, with the rigs in turn."""
        seeds = [np.random.SeedSequence([self.seed, n]).generate_state(1)[0] for n in range(self.people)]
        return [
            Person(
                name=f"{self.seed:02d}{number + 1:05d}",
                # People are counted per rig, so that both splits contain every rig.
                split="validation" if number // len(self.rigs) % VALIDATION_EVERY == VALIDATION_EVERY - 1 else "train",
                seed=int(seed),
                rig=self.rigs[number % len(self.rigs)],
            )
            for number, seed in enumerate(seeds)
        ]

    def card(self) -> dict[str, object]:
        """Return the initial content of dataset.json. A later run must have the same options."""
        return made_from(self.seed, self.rigs, self.config) | {"people": self.people, "stills": self.stills}

    def frame_count(self, person: Person) -> int:
        """Return the number of pictures of a unit."""
        return self.stills

    def is_complete(self, person: Person, storage: Storage) -> bool:
        return storage.exists(_labels(person))

    def make(self, person: Person, heads: Rig, storage: Storage) -> None:
        """Render the pictures of one person and write them, the labels last."""
        rendered = stills(heads, seed=person.seed, count=self.stills, size_px=self.config.render.size_px)
        rng = np.random.default_rng([person.seed, self.stills])
        for number, picture in enumerate(rendered.pictures):
            quality = int(rng.integers(35, 98))
            _, file = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
            storage.write(_image(person, number), file.tobytes())
        labels = {"au": rendered.au.astype(int).tolist(), "intensity": rendered.intensity.round(3).tolist()}
        storage.write(_labels(person), json_bytes(labels | rendered.traits))

    def finish(self, storage: Storage) -> str:
        """Write the manifests and the counts. Return a summary of the data set."""
        people = self.units()
        every = [json.loads(storage.read(_labels(person))) for person in people]
        rows = [
            [_image(person, number), person.name, person.split, *au, *intensity]
            for person, labels in zip(people, every, strict=True)
            for number, (au, intensity) in enumerate(zip(labels["au"], labels["intensity"], strict=True))
        ]
        storage.write(MANIFEST, _csv(("path", "subject", "split", *facs.AUS, *INTENSITIES), rows))
        traits = [[person.name, *(labels[t] for t in _TRAITS)] for person, labels in zip(people, every, strict=True)]
        storage.write(GROUPS, _csv(("video_id", *_TRAITS), traits))
        rates = np.array([row[3 : 3 + len(facs.AUS)] for row in rows]).mean(0)
        found = {"pictures": len(rows), "positive_rate": dict(zip(facs.AUS, rates.round(4).tolist(), strict=True))}
        storage.write(CARD, json_bytes(self.card() | found))
        text = " ".join(f"{au} {rate:.3f}" for au, rate in zip(facs.AUS, rates, strict=True))
        return f"{len(people):,} people, {len(rows):,} pictures; {text}\ndata set: {storage.path(MANIFEST)}"

    def text(self, storage: Storage) -> str:
        """Return the plan as text."""
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
