"""`evaluate.py`: a checkpoint and a labelled face store in, scores out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  evaluate.py --checkpoint demo/run/best --data demo/store --out demo/scores
  evaluate.py --checkpoint demo/run/best --data s3://bucket/store --split validation --out s3://bucket/scores"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = job.make_parser("evaluate", "Score a checkpoint on a split of a face store.", _EXAMPLES)
    parser.add_argument(
        "--checkpoint", required=True, metavar="CKPT", help="model folder, as train.py leaves in RUN/best"
    )
    parser.add_argument("--data", required=True, metavar="STORE", help="face store, as preprocess.py leaves it")
    parser.add_argument("--split", default="validation", help="split of the store (default: validation)")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder or URI for scores.json, predictions.parquet"
    )
    return job.run(parser, _evaluate, argv)


def _evaluate(args: argparse.Namespace) -> int:
    from aupipe.config import load
    from aupipe.pipelines import evaluate

    plan = evaluate.EvaluateJob(
        checkpoint=args.checkpoint,
        store=args.data,
        split=args.split,
        out=args.out,
        config=load(evaluate.EvaluateConfig, {}, args.overrides),
    )
    print(evaluate.describe(plan) if args.dry_run else evaluate.evaluate(plan))  # noqa: T201
    return job.DONE
