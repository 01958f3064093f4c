"""`evaluate.py`: models, or predictions, and a labeled face store in; scores out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  evaluate.py --checkpoint demo/run/best --data demo/store --out demo/scores
  evaluate.py --checkpoint folds/*/best --data other --split all --set ensemble=vote --out scores
  evaluate.py --checkpoint starter --data store --split all --out scores
  evaluate.py --predictions submission.txt --data store --out scores
  evaluate.py --checkpoint run/best --data store --out scores --against other_scores/predictions.parquet
  evaluate.py --checkpoint demo/run/best --data s3://bucket/store --split validation --out s3://bucket/scores"""


def main(argv: Sequence[str] | None = None, prog: str = "evaluate.py") -> int:
    """Run the job. Return its exit code."""
    parser = job.make_parser(prog, "Score models, or predictions, on a split of a face store.", _EXAMPLES)
    scored = parser.add_mutually_exclusive_group(required=True)
    scored.add_argument(
        "--checkpoint", type=job.checkpoint, nargs="+", action="extend", default=[], metavar="CKPT",
        help="model folders, e.g. RUN/best of a training run, or starter, the model of aupipe; several are an ensemble "
        "(--set ensemble=mean|vote)",
    )  # fmt: skip
    scored.add_argument(
        "--predictions", type=job.location, metavar="FILE",
        help="instead of a model: a predictions.parquet, a challenge submission (.txt), or a folder of TRACK.txt",
    )  # fmt: skip
    parser.add_argument("--data", type=job.location, required=True, metavar="STORE", help="face store")
    parser.add_argument(
        "--split", default="validation", metavar="SPLIT", help="validation (default), fold:K (K = 0 … 3), train or all"
    )
    parser.add_argument(
        "--groups",
        type=job.location,
        metavar="MANIFEST",
        help="CSV or Parquet with video_id and other columns: also score each value of each column separately",
    )
    parser.add_argument(
        "--against",
        type=job.location,
        metavar="FILE",
        help="predictions.parquet of another model on the same split: also compute the paired difference",
    )
    parser.add_argument(
        "--out",
        type=job.location,
        required=True,
        metavar="DIR",
        help="folder or URI for scores.json, scores.png, predictions.parquet",
    )
    return job.run(parser, _evaluate, argv, _settings)


def _settings(args: argparse.Namespace) -> job.Sections:
    from aupipe.evaluation.settings import EvaluateConfig

    return [EvaluateConfig]


def _evaluate(args: argparse.Namespace) -> int:
    if args.checkpoint and not args.dry_run:  # before the import of torch
        from aupipe.pipelines.ray_address import check_address

        check_address()
    from aupipe.config import load
    from aupipe.evaluation.settings import EvaluateConfig
    from aupipe.pipelines import evaluate

    plan = evaluate.EvaluateJob(
        checkpoints=tuple(args.checkpoint),
        predictions=args.predictions,
        store=args.data,
        split=args.split,
        out=args.out,
        groups=args.groups,
        against=args.against,
        config=load(EvaluateConfig, {}, args.overrides),
    )
    print(evaluate.text(evaluate.check(plan)) if args.dry_run else evaluate.evaluate(plan))  # noqa: T201
    return job.DONE
