"""The interface of preprocessing jobs to the cluster, for every data set: the files to make, then the card."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from aupipe import facs, output_folders
from aupipe.errors import ConfigError
from aupipe.faces.detect import Detector
from aupipe.faces.template import Template, template_of
from aupipe.facestore import jpeg
from aupipe.facestore.read import read_card, sample_images
from aupipe.facestore.schema import CARD, MARK, StoreCard
from aupipe.storage import Storage

_SAMPLED_CROPS = 400


@dataclass(frozen=True)
class FileTask:
    """One file of the store to make. Picklable.

    Attributes:
        mark: the name of an empty file that is written after it and identifies its inputs, because its own name does
            not; "": its name identifies them.
    """

    name: str
    rows: int  # number of input rows that it reads
    make: Callable[[], bytes]
    mark: str = ""

    def is_done(self, existing: Collection[str]) -> bool:
        """Return whether the file is among the names of a store, made from these inputs."""
        return self.name in existing and (not self.mark or self.mark in existing)

    def write(self, storage: Storage) -> None:
        """Make the file, and write it and its mark."""
        storage.write(self.name, self.make())
        if self.mark:
            storage.write(self.mark, b"")


class StoreJob(Protocol):
    """A planned preprocessing job."""

    @property
    def out(self) -> str:
        """Path or URI of the store."""

    @property
    def origin(self) -> str:
        """Source of the store, as in `StoreHeader.source`."""

    def files(self) -> list[FileTask]:
        """Return all files of the store except the card."""

    def complete(self) -> StoreCard:
        """Write the card, after all files exist."""

    def text(self) -> str:
        """Return the plan, except for the files, as text."""


def measured_template(out: str, parts: Iterable[str], detector: Detector) -> Template:
    """Return the template of the third-party crops in these shards."""
    return template_of(_decoded(sample_images(Storage(out), list(parts), _SAMPLED_CROPS)), detector)


def check(job: StoreJob) -> None:
    """Raise an error if the job would replace a store of another source.

    Raises:
        ConfigError: the folder contains a store made from another source.
    """
    storage = Storage(job.out)
    output_folders.check(storage, "a face store")
    if storage.exists(CARD) and (origin := read_card(storage).source) != job.origin:
        raise ConfigError(
            f"--out {job.out} contains a store made from {origin}, not {job.origin}; "
            "fix: name another folder, or delete it"
        )


def unfinished(storage: Storage, files: Sequence[FileTask]) -> list[FileTask]:
    """Return the files that a store lacks, or has from other inputs, and delete the marks of those inputs.

    The marks go first: one that outlived its file would be believed when its inputs return.
    """
    existing, marks = set(storage.names()), {file.mark for file in files}
    storage.delete_many(sorted(name for name in existing if name.endswith(MARK) and name not in marks))
    return [file for file in files if not file.is_done(existing)]


def text(job: StoreJob) -> str:
    """Return the plan as text, with the number of files that already exist."""
    files, existing = job.files(), set(Storage(job.out).names())
    done = sum(file.is_done(existing) for file in files)
    return "\n".join([job.text(), f"{sum(f.rows for f in files):,} rows in {len(files)} files, {done} of them done"])


def summary_text(card: StoreCard, out: str) -> str:
    """Return a summary of the store as text."""
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
        image = jpeg.decode(data)
        if image is not None:
            yield image
