"""`aupipe JOB …`: the installed twin of `python jobs/JOB.py …`."""

from __future__ import annotations

import importlib
import sys

JOBS = ("synthesize", "preprocess", "train", "tune", "evaluate", "annotate", "convert", "bench")


def main() -> int:
    """Run the job that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in JOBS:
        print(f"usage: aupipe {{{','.join(JOBS)}}} …   (aupipe JOB --help)", file=sys.stderr)  # noqa: T201
        return 0 if len(sys.argv) == 2 and sys.argv[1] in ("-h", "--help") else 2
    command = importlib.import_module(f"aupipe.commands.{sys.argv[1]}")
    return int(command.main(sys.argv[2:]))
