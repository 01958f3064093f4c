"""`submit.py`: models and a store with test crops, or an annotation, in; a challenge submission out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  submit.py --checkpoint run/best --data store --sample sample.txt --out submission
  submit.py --checkpoint folds/*/best --data store --sample sample.txt --set ensemble=vote --out submission
  submit.py --annotation annotation --sample sample.txt --out submission
  submit.py --checkpoint run/best --data store --out abaw3"""


def main(argv: Sequence[str] | None = None, prog: str = "submit.py") -> int:
    """Run the job. Return its exit code."""
    parser = job.make_parser(prog, "Write a submission to the AU task of the ABAW challenge, and check it.", _EXAMPLES)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--checkpoint", type=job.checkpoint, nargs="+", action="extend", default=[], metavar="CKPT",
        help="model folders, or starter, the model of aupipe, which predict the test crops of --data; several are an "
        "ensemble",
    )  # fmt: skip
    source.add_argument(
        "--annotation", type=job.location, metavar="DIR", help="instead of a model: output of annotate.py of the videos"
    )
    parser.add_argument("--data", type=job.location, metavar="STORE", help="face store with a test split")
    parser.add_argument(
        "--sample", type=job.location, metavar="FILE",
        help="sample file of the organizers: one submission.txt with its lines (ABAW5 and later); without it one "
        "TRACK.txt per track (ABAW3)",
    )  # fmt: skip
    parser.add_argument("--out", type=job.location, required=True, metavar="DIR", help="folder or URI of the files")
    return job.run(parser, _submit, argv, _settings)


def _settings(args: argparse.Namespace) -> job.Sections:
    from aupipe.evaluation.settings import SubmitConfig

    return [SubmitConfig]


def _submit(args: argparse.Namespace) -> int:
    from aupipe.errors import ConfigError

    if bool(args.checkpoint) != bool(args.data):
        raise ConfigError("--data STORE belongs to --checkpoint; fix: give both, or --annotation alone")
    if args.checkpoint and not args.dry_run:  # before the import of torch
        from aupipe.pipelines.ray_address import check_address

        check_address()
    from aupipe.config import load
    from aupipe.evaluation.settings import SubmitConfig
    from aupipe.pipelines import submit

    plan = submit.SubmitJob(
        checkpoints=tuple(args.checkpoint), store=args.data, annotation=args.annotation, sample=args.sample,
        out=args.out, config=load(SubmitConfig, {}, args.overrides),
    )  # fmt: skip
    print(submit.text(submit.check(plan)) if args.dry_run else submit.submit(plan))  # noqa: T201
    return job.DONE
