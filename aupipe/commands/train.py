"""`train.py`: a recipe and a face store in, a checkpoint out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  train.py --recipe multilabel_transformer --quick --data demo/store --out demo/run
  train.py --recipe multilabel_transformer --data store --out run --workers 8 --set stages.train.init=timm
the same command again goes on where it stopped"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = job.make_parser("train", "Train a system on a face store with Ray Train.", _EXAMPLES)
    parser.add_argument("--recipe", required=True, metavar="NAME|FILE", help="a recipe of aupipe, or a YAML file")
    parser.add_argument("--quick", action="store_true", help="the recipe's small variant, for rendered data on 2 cores")
    parser.add_argument(
        "--data", type=job.location, required=True, metavar="STORE", help="face store, as preprocess.py leaves it"
    )
    parser.add_argument(
        "--out",
        type=job.location,
        required=True,
        metavar="RUN",
        help="folder or URI: best/, metrics.jsonl, summary.json",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="default: one a GPU, else one a CPU, at most 4")
    parser.add_argument(
        "--split", default="official", metavar="official|fold:K",
        help="fold:K (0 … 3): learn from three of four folds of train and validation, score on the fourth",
    )  # fmt: skip
    return job.run(parser, _train, argv)


def _train(args: argparse.Namespace) -> int:
    from aupipe.errors import ConfigError
    from aupipe.learning import recipe
    from aupipe.pipelines import train

    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers {args.workers}: at least 1 is needed")
    plan = train.TrainJob(
        recipe=recipe.read(args.recipe, quick=args.quick, overrides=args.overrides),
        store=args.data,
        out=args.out,
        workers=args.workers,
        split=args.split,
        command=" ".join(sys.argv),
    )
    if args.dry_run:
        print(train.describe(plan))  # noqa: T201
        return job.DONE
    finished = train.is_finished(plan)
    summary = train.train(plan)
    if finished:
        print(f"{args.out} was finished already; nothing to do")  # noqa: T201
    print(json.dumps({key: summary[key] for key in ("recipe", "stages", "macro_f1", "floor")}))  # noqa: T201
    print(f"checkpoint: {args.out}/best")  # noqa: T201
    return job.DONE
