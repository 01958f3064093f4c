"""`aupipe JOB …`: the installed command. It runs the same code as `python jobs/JOB.py …`."""

from __future__ import annotations

import difflib
import importlib
import sys

import aupipe

JOBS = {
    "annotate": "detect faces and their Action Units in videos",
    "report": "draw the pages of an annotation",
    "evaluate": "score models, or predictions, on a face store",
    "results": "collect the scores of runs beside the published figures",
    "submit": "write a submission to the ABAW challenge",
    "train": "train a model on a face store",
    "tune": "search for better settings of a recipe",
    "preprocess": "pack a data set into a face store",
    "synthesize": "render a labeled data set",
    "convert": "convert published weights to safetensors",
    "bench": "measure aupipe on this machine",
}


def main() -> int:
    """Run the job that the first argument names. Return its exit code."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first in JOBS:
        command = importlib.import_module(f"aupipe.commands.{first}")
        return int(command.main(sys.argv[2:], prog=f"aupipe {first}"))
    if first in ("-h", "--help"):
        print(_help())  # noqa: T201
        return 0
    if first == "--version":
        print(f"aupipe {aupipe.__version__}")  # noqa: T201
        return 0
    near = difflib.get_close_matches(first, JOBS, n=1)
    problem = f"no job {first!r}" + (f"; did you mean {near[0]!r}?" if near else "") if first else "a job is required"
    print(f"aupipe: {problem} (allowed: {', '.join(JOBS)}); fix: aupipe --help", file=sys.stderr)  # noqa: T201
    return 2


def _help() -> str:
    rows = "\n".join(f"  {name:<12}{line}" for name, line in JOBS.items())
    return (
        "usage: aupipe JOB [OPTION …]\n\nFacial Action Units from any archive of video.\n\n"
        f"jobs:\n{rows}\n\n"
        "  aupipe JOB --help           the options and examples of a job\n"
        "  aupipe JOB --list-settings  what --set changes\n"
        "  aupipe --version"
    )
