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
  train.py --recipe search/best.yaml --data store --out run"""


def main(argv: Sequence[str] | None = None, prog: str = "tune.py") -> int:
    """Run the job. Return its exit code."""
    parser = job.make_parser(
        prog,
        "Search for better settings of a recipe with Ray Tune. The recipe's section `search` defines the search space. "
        "Trials are trained and compared on disjoint people of the train split; bad trials are stopped early. The best "
        "trial and the unmodified recipe are then scored on the validation split. Re-run the same command to resume; "
        "more --trials are added to the completed ones.",
        _EXAMPLES,
    )
    parser.add_argument("--recipe", required=True, metavar="NAME|FILE", help="recipe of aupipe, or a YAML file")
    parser.add_argument(
        "--quick", action="store_true", help="small variant of the recipe, for rendered data on 2 cores"
    )
    parser.add_argument("--data", type=job.location, required=True, metavar="STORE", help="face store")
    parser.add_argument(
        "--out", type=job.location, required=True, metavar="DIR",
        help="folder or URI for best.yaml, best/, trials.parquet, trials.png and summary.json",
    )  # fmt: skip
    parser.add_argument(
        "--trials",
        type=int,
        default=8,
        metavar="N",
        help="number of trials, including the unmodified recipe as a baseline (default: 8)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="workers per trial (default: 1)",
    )
    parser.add_argument(
        "--concurrent", type=int, metavar="N",
        help="trials at a time (default: as many as fit, at least 4 on a cluster that adds nodes on demand)",
    )  # fmt: skip
    parser.add_argument(
        "--searcher", choices=("random", "optuna"), default="random",
        help="search algorithm (default: random; optuna: pip install 'aupipe[search]')",
    )  # fmt: skip
    return job.run(parser, _tune, argv, job.recipe_settings)


def _tune(args: argparse.Namespace) -> int:
    if not args.dry_run:  # before the import of torch
        from aupipe.pipelines.ray_address import check_address

        check_address()
    from aupipe.errors import ConfigError
    from aupipe.pipelines import tune
    from aupipe.pipelines.tune_trial import TuneJob
    from aupipe.training import recipe

    for option in ("trials", "workers", "concurrent"):
        if (value := getattr(args, option)) is not None and value < 1:
            raise ConfigError(f"--{option}: {value} (1 or more)")
    plan = TuneJob(
        recipe=recipe.read(args.recipe, quick=args.quick, overrides=args.overrides),
        store=args.data,
        out=args.out,
        trials=args.trials,
        workers=args.workers,
        concurrent=args.concurrent,
        searcher=args.searcher,
        command=" ".join(sys.argv),
    )
    if args.dry_run:
        print(tune.text(tune.check(plan)))  # noqa: T201
        return job.DONE
    print(tune.summary_text(tune.tune(plan)))  # noqa: T201
    print(f"recipe: {args.out}/{tune.RECIPE}\ncheckpoint: {args.out}/best")  # noqa: T201
    return job.DONE
