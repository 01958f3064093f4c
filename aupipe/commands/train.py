"""`train.py`: a recipe and a face store in, a checkpoint out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  train.py --recipe multilabel_transformer --quick --data demo/store --out demo/run
  train.py --recipe region_relation --data store --out run --set ablation=arl
  train.py --recipe region_relation --data store --out folds --folds --set fold.2.fusion=fixed
  train.py --recipe multilabel_transformer --data store --out run --workers 1-8 --set stages.train.init=timm
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
    parser.add_argument(
        "--workers", type=_workers, metavar="N|MIN-MAX",
        help="MIN-MAX: as many as there is room for, while nodes come and go (default: one a GPU, else one a CPU, at "
        "most 4)",
    )  # fmt: skip
    parser.add_argument(
        "--split", default="official", metavar="official|fold:K",
        help="fold:K (0 … 3): learn from three of four folds of train and validation, score on the fourth",
    )  # fmt: skip
    parser.add_argument(
        "--folds", action="store_true",
        help="train on the official split and on each of the four folds, in RUN/official, RUN/fold-0 …; what shall "
        "differ in the model of one: --set fold.official.KEY=…, --set fold.2.KEY=…",
    )  # fmt: skip
    return job.run(parser, _train, argv)


def _train(args: argparse.Namespace) -> int:
    from aupipe.errors import ConfigError
    from aupipe.pipelines import train, train_folds
    from aupipe.pipelines.train_stage import TrainJob
    from aupipe.training import recipe

    plan = TrainJob(
        recipe=recipe.read(args.recipe, quick=args.quick, overrides=args.overrides),
        store=args.data,
        out=args.out,
        workers=args.workers,
        split=args.split,
        command=" ".join(sys.argv),
    )
    if args.folds and args.split != "official":
        raise ConfigError(f"--folds trains on every split; leave out --split {args.split}")
    if args.folds and plan.recipe.stages[plan.recipe.needed()[-1]].tasks.au is None:
        raise ConfigError("--folds compares AU scores; the recipe's last stage learns none")
    if plan.recipe.fold and not args.folds:
        raise ConfigError("fold.K settings are for the runs of --folds; give --folds")
    if args.dry_run:
        print(train_folds.describe(plan) if args.folds else train.describe(plan))  # noqa: T201
        return job.DONE
    if args.folds:
        table = train_folds.train_folds(plan)
        print(train_folds.text(table))  # noqa: T201
        print("checkpoints:", *(f"{each.out}/best" for each in train_folds.jobs(plan).values()))  # noqa: T201
        return job.DONE
    finished = train.is_finished(plan)
    summary = train.train(plan)
    if finished:
        print(f"{args.out} was finished already; nothing to do")  # noqa: T201
    shown = ("recipe", "stages", "cross_validation", "macro_f1", "floor")
    print(json.dumps({key: summary[key] for key in shown if summary.get(key)}))  # noqa: T201
    print(f"checkpoint: {args.out}/best")  # noqa: T201
    return job.DONE


def _workers(text: str) -> int | tuple[int, int]:
    """`4` or `1-8`."""
    least, dash, most = text.partition("-")
    if not (least.isdecimal() and (most.isdecimal() or not dash) and 1 <= int(least) <= int(most or least)):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 1 on, nor a range such as 1-8")
    return (int(least), int(most)) if dash else int(least)
