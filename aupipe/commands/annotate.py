"""`annotate.py`: video in, Action Unit tables out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from aupipe.commands import job

if TYPE_CHECKING:
    from aupipe.annotation.annotate_job import AnnotateJob
    from aupipe.annotation.cache_keys import CacheKeys
    from aupipe.annotation.runner import Runner
    from aupipe.storage import Storage

_EXAMPLES = """\
  annotate.py interview.mp4 --out annotation
  annotate.py archive/ more/*.mov --out annotation --checkpoint run/best --set thresholds.AU12=0.3
  annotate.py archive/ --out annotation --checkpoint fold0/best fold1/best fold2/best --set ensemble=vote
  annotate.py list.csv --out annotation --sample-fps 5 --export csv,openface
  ray job submit --working-dir . -- python jobs/annotate.py --input s3://bucket/archive/ --out s3://bucket/annotation"""


def main(argv: Sequence[str] | None = None, prog: str = "annotate.py") -> int:
    """Run the job. Return its exit code."""
    parser = job.make_parser(
        prog,
        "Detect faces and their Action Units in videos; write Parquet tables. Re-run the same command to resume.",
        _EXAMPLES,
    )
    parser.add_argument(
        "paths", type=job.location, nargs="*", metavar="INPUT",
        help="video files, images, folders (searched for both), patterns, URIs, or manifests (.csv, .tsv, "
        ".parquet, .jsonl: uri, video_id, start_s, end_s, …); give at least one, before the options",
    )  # fmt: skip
    parser.add_argument(
        "--input", type=job.location, nargs="+", action="extend", default=[], metavar="INPUT",
        help="more videos, images, folders, patterns, URIs or manifests; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=job.location, required=True, metavar="DIR",
        help="folder or URI for frames/, events/, videos.parquet and run.json",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", type=job.checkpoint, nargs="+", action="extend", metavar="CKPT",
        help="model folders, e.g. RUN/best of a training run; several are an ensemble (--set ensemble=mean|vote; "
        "default: starter, the model of aupipe)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=_positive, metavar="N", help="segments decoded at a time (default: one per CPU)"
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N videos, ordered by video_id")
    parser.add_argument(
        "--sample-fps", type=float, metavar="F", help="use at most F frames per second (default: every frame)"
    )
    parser.add_argument(
        "--phase", choices=("observe", "finalize", "all"), default="all",
        help="observe: decode and encode only; finalize: only make tables of the videos that are observed "
        "(default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--export", type=_forms, action="extend", default=[], metavar="FORM,…",
        help="also write OUT/export/, one file per video: csv, openface (AUxx_r is 5 times the intensity), events, "
        "elan or abaw (named without the suffix, so that a.mp4 and a.mkv of one folder are refused); repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--prune", action="store_true",
        help="delete from OUT every video that is not an input and, if there is one, the exports and the report of all "
        "videos in OUT/export/ and OUT/report/",
    )  # fmt: skip
    parser.add_argument("--keep-intermediate", action="store_true", help="keep the embeddings in OUT/_work/observed")
    return job.run(parser, _annotate, argv, _settings)


def _settings(args: argparse.Namespace) -> job.Sections:
    from aupipe.annotation.settings import AnnotateConfig

    return [AnnotateConfig]


def _annotate(args: argparse.Namespace) -> int:
    import sys

    from aupipe.errors import ConfigError

    inputs = (*args.paths, *args.input)
    if not inputs:
        raise ConfigError("no input (at least one is required); fix: name a video, folder, URI or manifest")
    from aupipe.annotation.missing import all_missing, record_missing
    from aupipe.annotation.settings import AnnotateConfig
    from aupipe.config import load

    given = {} if args.sample_fps is None else {"sample_fps": args.sample_fps}
    config = load(AnnotateConfig, given, args.overrides)
    if given and config.sample_fps != args.sample_fps:
        raise ConfigError(f"--sample-fps {args.sample_fps:g} and --set sample_fps={config.sample_fps} (give one)")
    # Other settings may be wrong too, and that comes first.
    if not (args.dry_run or args.checkpoint or args.overrides) and all_missing(inputs, args.out):
        print(record_missing(inputs, args.out))  # noqa: T201
        return job.FAILED

    if config.engine != "local" and not args.dry_run:  # before the models are loaded
        from aupipe.pipelines.ray_address import check_address

        check_address()
    from aupipe.annotation.annotate_job import AnnotateJob
    from aupipe.annotation.annotator import annotate

    if args.checkpoint is None:
        from aupipe.models import default_models

        print(default_models.notice())  # noqa: T201
        args.checkpoint = list(default_models.FOLDERS)
    annotate_job = AnnotateJob(
        inputs=inputs, checkpoints=tuple(args.checkpoint), out=args.out, workers=args.workers,
        limit=args.limit, phase=args.phase, export=tuple(args.export), prune=args.prune,
        keep_intermediate=args.keep_intermediate, config=config,
        command=tuple(sys.argv),
    )  # fmt: skip
    if args.dry_run:
        from aupipe.annotation.job_check import check

        print(check(annotate_job).text())  # noqa: T201
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
    known, given = ("csv", "openface", "events", "elan", "abaw"), tuple(text.split(","))
    for form in given:
        if form not in known:
            raise argparse.ArgumentTypeError(f"{form!r} is none of {', '.join(known)}")
    return given


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number (1, 2, …)")
    return int(text)
