"""`results.py`: runs in; a table per recipe with the published figures out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  results.py run --out results
  results.py folds ablation/baseline ablation/circle ablation/full --out results
  results.py run scores --out results"""


def main(argv: Sequence[str] | None = None, prog: str = "results.py") -> int:
    """Run the job. Return its exit code."""
    parser = job.make_parser(prog, "Collect the scores of runs into tables, beside the published figures.", _EXAMPLES)
    parser.add_argument(
        "runs", type=job.location, nargs="+", metavar="RUN", help="folders of train.py, train.py --folds or evaluate.py"
    )
    parser.add_argument(
        "--out", type=job.location, required=True, metavar="DIR",
        help="folder or URI for results.md, results.csv and results.png",
    )  # fmt: skip
    return job.run(parser, _results, argv)


def _results(args: argparse.Namespace) -> int:
    from aupipe.config import Section, load
    from aupipe.evaluation import results
    from aupipe.storage import Storage

    load(Section, {}, args.overrides)  # This job has no settings, so every key is an error.
    tables = results.collect(args.runs)
    if args.dry_run:
        print(f"would write the tables of {', '.join(tables.recipes())} to {args.out}")  # noqa: T201
        return job.DONE
    out = Storage(args.out)
    out.write("results.csv", tables.csv().encode())
    out.write("results.png", tables.picture())
    out.write("results.md", tables.markdown().encode())
    print(tables.markdown())  # noqa: T201
    return job.DONE
