"""`annotate.py`: video in, Action Unit tables out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  annotate.py --input interview.mp4 --checkpoint demo/run/best --out annotation
  annotate.py --input archive/ more/*.mov --checkpoint demo/run/best --out annotation --set thresholds.AU12=0.3
  annotate.py --input archive/ --checkpoint fold0/best fold1/best fold2/best --set ensemble=vote --out annotation
  ray job submit --working-dir . -- python jobs/annotate.py --input s3://bucket/a.mp4 \\
      --checkpoint s3://bucket/best --out s3://bucket/annotation"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = job.make_parser(
        "annotate", "Detect faces and their Action Units in videos; write Parquet tables.", _EXAMPLES
    )
    parser.add_argument(
        "--input",
        type=job.location,
        nargs="+",
        action="extend",
        required=True,
        metavar="PATH",
        help="video files, folders (searched for videos) or URIs; repeatable",
    )
    parser.add_argument(
        "--checkpoint",
        type=job.location,
        nargs="+",
        action="extend",
        required=True,
        metavar="CKPT",
        help="model folder, as train.py leaves it in RUN/best; several decide together (--set ensemble=mean|vote)",
    )
    parser.add_argument(
        "--out",
        type=job.location,
        required=True,
        metavar="DIR",
        help="folder or URI for frames/, events/, videos.parquet, run.json; the same command again goes on",
    )
    parser.add_argument(
        "--workers", type=_positive, metavar="N", help="segments decoded at a time (default: one a CPU)"
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N videos, by video_id")
    parser.add_argument("--keep-intermediate", action="store_true", help="keep the embeddings in OUT/_work/observed")
    return job.run(parser, _annotate, argv)


def _annotate(args: argparse.Namespace) -> int:
    import sys

    from aupipe.annotation.settings import AnnotateConfig
    from aupipe.config import load
    from aupipe.pipelines.annotate import AnnotateJob, annotate, describe

    annotate_job = AnnotateJob(
        inputs=tuple(args.input), checkpoints=tuple(args.checkpoint), out=args.out, workers=args.workers,
        limit=args.limit, keep_intermediate=args.keep_intermediate, config=load(AnnotateConfig, {}, args.overrides),
        command=tuple(sys.argv),
    )  # fmt: skip
    if args.dry_run:
        print(describe(annotate_job))  # noqa: T201
        return job.DONE
    summary = annotate(annotate_job)
    print(summary.text())  # noqa: T201
    if summary.usable == 0:
        return job.FAILED
    return job.SET_ASIDE if summary.set_aside else job.DONE


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
