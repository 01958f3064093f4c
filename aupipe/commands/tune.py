"""`tune.py`: a recipe and a face store in, the recipe with better settings out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  tune.py --recipe multilabel_transformer --quick --data demo/store --out demo/search
  tune.py --recipe prompt_tuning --quick --data store --out search --trials 4
  tune.py --recipe region_relation --data store --out search --trials 40 --searcher optuna
  tune.py --recipe multilabel_transformer --quick --data store --out search \\
    --set 'search.train={model.width: {choice: [32, 64, 128]}, tasks.au.loss.dice: null}'
  train.py --recipe search/best.yaml --data store --out run
the same command again goes on where it stopped; with more --trials it adds to those that are done"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = job.make_parser(
        "tune",
        "Search for better settings of a recipe with Ray Tune. What is tried is the recipe's section `search`. Trials "
        "learn from people of the train split and are compared on others of it; bad ones are stopped early. The best "
        "one and the recipe as it is are then scored on the validation split.",
        _EXAMPLES,
    )
    parser.add_argument("--recipe", required=True, metavar="NAME|FILE", help="a recipe of aupipe, or a YAML file")
    parser.add_argument("--quick", action="store_true", help="the recipe's small variant, for rendered data on 2 cores")
    parser.add_argument(
        "--data", type=job.location, required=True, metavar="STORE", help="face store, as preprocess.py leaves it"
    )
    parser.add_argument(
        "--out", type=job.location, required=True, metavar="DIR",
        help="folder or URI: best.yaml, best/, trials.parquet, trials.png, summary.json",
    )  # fmt: skip
    parser.add_argument(
        "--trials", type=int, default=8, metavar="N", help="default 8; the recipe as it is is one of them"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="of a trial; as many trials as fit run at once"
    )
    parser.add_argument(
        "--searcher", choices=("random", "optuna"), default="random",
        help="what proposes settings: draws at random, or Optuna (pip install 'aupipe[search]')",
    )  # fmt: skip
    return job.run(parser, _tune, argv)


def _tune(args: argparse.Namespace) -> int:
    from aupipe.errors import ConfigError
    from aupipe.pipelines import tune
    from aupipe.pipelines.tune_trial import TuneJob
    from aupipe.training import recipe

    for option in ("trials", "workers"):
        if getattr(args, option) < 1:
            raise ConfigError(f"--{option} {getattr(args, option)}: at least 1 is needed")
    plan = TuneJob(
        recipe=recipe.read(args.recipe, quick=args.quick, overrides=args.overrides),
        store=args.data,
        out=args.out,
        trials=args.trials,
        workers=args.workers,
        searcher=args.searcher,
        command=" ".join(sys.argv),
    )
    if args.dry_run:
        print(tune.describe(plan))  # noqa: T201
        return job.DONE
    print(tune.text(tune.tune(plan)))  # noqa: T201
    print(f"recipe: {args.out}/{tune.RECIPE}\ncheckpoint: {args.out}/best")  # noqa: T201
    return job.DONE
