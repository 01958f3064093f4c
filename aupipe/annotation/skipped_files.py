"""The files and folders that a search for inputs skips, and those that it cannot search."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aupipe.annotation.inputs import text_of_name
from aupipe.errors import printable, redact
from aupipe.media.image_files import has_image_suffix

_EXAMPLES = 3
_SUFFIXES_SHOWN = 8


@dataclass
class SkippedFiles:
    """Files and folders that were skipped below the folders that were named.

    Attributes:
        suffixes: the number of files by suffix, in lower case; "" for files without one.
        examples: the first few of these files.
        hidden: the number of hidden and system files and folders; such a folder is not opened and counts once.
        hidden_examples: the first few of them.
        images: how many of the files are images that could be inputs.
        unsearched: named paths that do not exist, and folders that cannot be listed: their videos are not found.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    hidden: int = 0
    hidden_examples: list[str] = field(default_factory=list)
    images: int = 0
    unsearched: list[str] = field(default_factory=list)

    @property
    def files(self) -> int:
        """The number of files that are neither inputs nor hidden."""
        return self.suffixes.total()

    def add(self, path: str) -> None:
        """Count a file that is no input by its suffix."""
        self.images += has_image_suffix(path)
        self.suffixes[text_of_name(os.path.splitext(path)[1].lower())] += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(text_of_name(path))

    def hide(self, path: str) -> None:
        """Count a hidden or system file or folder."""
        self.hidden += 1
        if len(self.hidden_examples) < _EXAMPLES:
            self.hidden_examples.append(text_of_name(path))

    def __add__(self, other: SkippedFiles) -> SkippedFiles:
        return SkippedFiles(
            self.suffixes + other.suffixes, (self.examples + other.examples)[:_EXAMPLES],
            self.hidden + other.hidden, (self.hidden_examples + other.hidden_examples)[:_EXAMPLES],
            self.images + other.images,
            self.unsearched + other.unsearched,
        )  # fmt: skip

    def text(self) -> str:
        """Return a description in one line; "" if nothing was skipped."""
        parts = []
        if self.files:
            ordered = sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))
            kinds = [f"{count} {suffix or 'without suffix'}" for suffix, count in ordered[:_SUFFIXES_SHOWN]]
            if more := sum(count for _, count in ordered[_SUFFIXES_SHOWN:]):
                kinds.append(f"{more} with other suffixes")
            parts.append(f"{self.files} other files skipped: {', '.join(kinds)} ({_first(self.examples)})")
        if self.images:
            parts.append(
                f"{self.images} of them are images; take them with --set images=each (every image is an input) or "
                "--set images=sequence (the images of a folder are one)"
            )
        if self.hidden:
            parts.append(f"{self.hidden} hidden or system files and folders skipped ({_first(self.hidden_examples)})")
        return printable("; ".join(parts))

    def record(self) -> dict[str, Any]:
        """Return the counts for run.json."""
        return {
            "files": self.files,
            "suffixes": dict(sorted(self.suffixes.items())),
            "images": self.images,
            "first": [redact(path) for path in self.examples],
            "hidden": self.hidden,
            "hidden_first": [redact(path) for path in self.hidden_examples],
        }


def _first(paths: Sequence[str]) -> str:
    return "first: " + ", ".join(map(redact, paths))
