"""`annotate.py`: video in, Action Unit tables out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from aupipe.commands import job

if TYPE_CHECKING:
    from aupipe.annotation.annotator import AnnotateJob, Runner
    from aupipe.annotation.cache_keys import CacheKeys
    from aupipe.storage import Storage

_EXAMPLES = """\
  annotate.py --input interview.mp4 --out annotation
  annotate.py --input archive/ more/*.mov --checkpoint demo/run/best --out annotation --set thresholds.AU12=0.3
  annotate.py --input archive/ --checkpoint fold0/best fold1/best fold2/best --set ensemble=vote --out annotation
  annotate.py --input list.csv --sample-fps 5 --checkpoint demo/run/best --out annotation --export openface
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
        help="video files, folders (searched for videos), patterns, URIs, or manifests (.csv, .tsv, .parquet, .jsonl: "
        "uri, video_id, start_s, end_s, …); repeatable",
    )
    parser.add_argument(
        "--checkpoint",
        type=job.location,
        nargs="+",
        action="extend",
        metavar="CKPT",
        help="model folder, as train.py leaves it in RUN/best; several decide together (--set ensemble=mean|vote; "
        "default: the two starter models that come with aupipe)",
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
    parser.add_argument(
        "--sample-fps", type=float, metavar="F", help="look at F frames a second at most (default: at every frame)"
    )
    parser.add_argument(
        "--phase", choices=("observe", "finalize", "all"), default="all",
        help="observe: decode and encode only; finalize: make tables of what is observed (default: both)",
    )  # fmt: skip
    parser.add_argument(
        "--export", type=_forms, default=(), metavar="FORM,…",
        help="also write OUT/export/ in csv, openface (AUxx_r is 5 times the probability) or abaw, a file a video",
    )  # fmt: skip
    parser.add_argument("--prune", action="store_true", help="drop what OUT holds of videos that are not named")
    parser.add_argument("--keep-intermediate", action="store_true", help="keep the embeddings in OUT/_work/observed")
    return job.run(parser, _annotate, argv)


def _annotate(args: argparse.Namespace) -> int:
    import sys

    from aupipe.annotation.annotator import AnnotateJob, annotate, describe
    from aupipe.annotation.settings import AnnotateConfig
    from aupipe.config import load

    if args.checkpoint is None:
        from aupipe.models import default_models

        print(default_models.notice())  # noqa: T201
        args.checkpoint = list(default_models.FOLDERS)
    given = {} if args.sample_fps is None else {"sample_fps": args.sample_fps}
    annotate_job = AnnotateJob(
        inputs=tuple(args.input), checkpoints=tuple(args.checkpoint), out=args.out, workers=args.workers,
        limit=args.limit, phase=args.phase, export=args.export, prune=args.prune,
        keep_intermediate=args.keep_intermediate, config=load(AnnotateConfig, given, args.overrides),
        command=tuple(sys.argv),
    )  # fmt: skip
    if args.dry_run:
        print(describe(annotate_job))  # noqa: T201
        return job.DONE
    summary = annotate(annotate_job, _open_ray)
    print(summary.text())  # noqa: T201
    if summary.usable == 0 or summary.faults:
        return job.FAILED
    missing = args.phase == "finalize" and summary.pending
    return job.PARTIAL if summary.incomplete or missing else job.DONE


def _open_ray(job: AnnotateJob, keys: CacheKeys, storage: Storage) -> AbstractContextManager[Runner]:
    from aupipe.pipelines.annotate import ray_runner

    return ray_runner(job, keys, storage)


def _forms(text: str) -> tuple[str, ...]:
    known, given = ("csv", "openface", "abaw"), tuple(text.split(","))
    for form in given:
        if form not in known:
            raise argparse.ArgumentTypeError(f"{form!r} is none of {', '.join(known)}")
    return given


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
