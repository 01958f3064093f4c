"""What a preprocessing job is to the cluster, whatever the data set: files to make, then a card to write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from aupipe import facs
from aupipe.errors import ConfigError
from aupipe.faces.detect import Detector
from aupipe.faces.template import Template, template_of
from aupipe.facestore.read import FaceStore, sample_images
from aupipe.facestore.schema import CARD, StoreCard
from aupipe.storage import Storage

_SAMPLED_CROPS = 400


@dataclass(frozen=True)
class FileTask:
    """One file of the store to make. Picklable."""

    name: str
    rows: int  # rows that it takes a look at
    make: Callable[[], bytes]


class StoreJob(Protocol):
    """A planned run."""

    @property
    def out(self) -> str:
        """The store."""

    @property
    def origin(self) -> str:
        """What the store is made from, as in `StoreHeader.source`."""

    def files(self) -> list[FileTask]:
        """All files of the store but the card."""

    def complete(self) -> StoreCard:
        """Write the card, when all files are there."""

    def describe(self) -> list[str]:
        """The plan in words."""


def measured_template(out: str, parts: Iterable[str], detector: Detector) -> Template:
    """The template of the foreign crops in these parts."""
    return template_of(_decoded(sample_images(Storage(out), list(parts), _SAMPLED_CROPS)), detector)


def check_out(job: StoreJob) -> None:
    """Whether the place of the store is free for it.

    Raises:
        ConfigError: a store made from something else is there, which the job would replace.
    """
    storage = Storage(job.out)
    if storage.exists(CARD) and (origin := FaceStore.open(job.out).card.source) != job.origin:
        raise ConfigError(
            f"--out {job.out} holds a store made from {origin}, not {job.origin}; name another folder, or delete it"
        )


def plan_text(job: StoreJob) -> str:
    """The plan, and how much of it is done, in words."""
    files, there = job.files(), set(Storage(job.out).names())
    done = sum(file.name in there for file in files)
    return "\n".join(
        [*job.describe(), f"{sum(f.rows for f in files):,} rows in {len(files)} files, {done} of them done"]
    )


def summary_text(card: StoreCard, out: str) -> str:
    """The store in words."""
    lines = []
    for split, found in card.splits.items():
        lines.append(
            f"{split}: {found.rows:,} crops of {found.videos:,} videos, {found.au_rows:,} with AUs, "
            f"{found.expression_rows:,} with an expression"
        )
    if any(split.au_rows for split in card.splits.values()):
        rates = " ".join(f"{au} {'-' if (r := card.positive_rates[au]) is None else f'{r:.3f}'}" for au in facs.AUS)
        lines.append(f"positive rates (train): {rates}")
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in card.dropped.items())
    lines.append(f"not in the store: {dropped or 'nothing'}")
    lines.extend(f"  {line}" for line in card.bad_lines[:10])
    if card.template_source == "assumed":
        lines.append("warning: no faces were found on the crops; their template is assumed to be ArcFace's")
    else:
        lines.append(f"template: {card.template_source}")
    return "\n".join([*lines, f"store: {out}"])


def _decoded(images: Iterator[bytes]) -> Iterator[np.ndarray]:
    for data in images:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is not None:
            yield image
