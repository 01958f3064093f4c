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
  train.py --recipe region_relation --list-settings"""


def main(argv: Sequence[str] | None = None, prog: str = "train.py") -> int:
    """Run the job. Return its exit code."""
    parser = job.make_parser(
        prog, "Train a model on a face store with Ray Train. Re-run the same command to resume.", _EXAMPLES
    )
    parser.add_argument("--recipe", required=True, metavar="NAME|FILE", help="recipe of aupipe, or a YAML file")
    parser.add_argument(
        "--quick", action="store_true", help="small variant of the recipe, for rendered data on 2 cores"
    )
    parser.add_argument("--data", type=job.location, required=True, metavar="STORE", help="face store")
    parser.add_argument(
        "--out",
        type=job.location,
        required=True,
        metavar="RUN",
        help="folder or URI for best/, metrics.jsonl and summary.json",
    )
    parser.add_argument(
        "--workers", type=_workers, metavar="N|MIN-MAX",
        help="MIN-MAX: as many as the cluster has room for while nodes join and leave (default: one per GPU, or one "
        "per CPU without GPUs, at most 4)",
    )  # fmt: skip
    parser.add_argument(
        "--split", default="official", metavar="official|fold:K",
        help="fold:K (K = 0 … 3): train on three of four folds of train and validation, score on the fourth",
    )  # fmt: skip
    parser.add_argument(
        "--folds", action="store_true",
        help="train on the official split and on each of the four folds, in RUN/official, RUN/fold-0 …; --set "
        "fold.official.KEY=…, --set fold.2.KEY=… change the model of one of them",
    )  # fmt: skip
    return job.run(parser, _train, argv, job.recipe_settings)


def _train(args: argparse.Namespace) -> int:
    if not args.dry_run:  # before the import of torch
        from aupipe.pipelines.ray_address import check_address

        check_address()
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
        raise ConfigError(f"--split: {args.split} (not with --folds, which trains on every split); fix: leave out one")
    if args.folds and plan.recipe.stages[plan.recipe.needed()[-1]].tasks.au is None:
        raise ConfigError("--folds: the recipe's last stage has no AU task (--folds compares AU scores)")
    if plan.recipe.fold and not args.folds:
        raise ConfigError("--set fold.K: only for the runs of --folds; fix: add --folds")
    if args.dry_run:
        text = train_folds.text(train_folds.check(plan)) if args.folds else train.text(train.check(plan))
        print(text)  # noqa: T201
        return job.DONE
    if args.folds:
        table = train_folds.train_folds(plan)
        print(train_folds.table_text(table))  # noqa: T201
        print("checkpoints:", *(f"{each.out}/best" for each in train_folds.jobs(plan).values()))  # noqa: T201
        return job.DONE
    finished = train.is_finished(plan)
    summary = train.train(plan)
    if finished:
        print(f"{args.out} is complete; nothing to do")  # noqa: T201
    reported = ("recipe", "stages", "cross_validation", "macro_f1", "floor")
    print(json.dumps({key: summary[key] for key in reported if summary.get(key)}))  # noqa: T201
    print(f"checkpoint: {args.out}/best")  # noqa: T201
    return job.DONE


def _workers(text: str) -> int | tuple[int, int]:
    """Return 4 for `4` and (1, 8) for `1-8`."""
    least, dash, most = text.partition("-")
    if not (least.isdecimal() and (most.isdecimal() or not dash) and 1 <= int(least) <= int(most or least)):
        raise argparse.ArgumentTypeError(f"{text!r} (a number from 1 up, or a range such as 1-8)")
    return (int(least), int(most)) if dash else int(least)
