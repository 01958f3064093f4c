"""`preprocess.py`: Aff-Wild2 as downloaded, or labeled images in; a face store out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  preprocess.py --data /data/Aff-Wild2 --out /data/store
  preprocess.py --data /data/Aff-Wild2 --out s3://bucket/store --source videos
  preprocess.py --data /data/Aff-Wild2 --out /data/store --set data.edition=abaw5
  preprocess.py --data /data/BP4D --out /data/bp4d-store --set data.template=store:/data/store
  preprocess.py --data /data/faces.csv --out /data/faces-store --set data.license="research only"
  preprocess.py --data /data/glint360k --out /data/identities
  preprocess.py --data /data/faces --out /data/identities --source images"""


def main(argv: Sequence[str] | None = None, prog: str = "preprocess.py") -> int:
    """Run the job. Return its exit code."""
    parser = job.make_parser(prog, "Pack a data set into a face store. Re-run the same command to resume.", _EXAMPLES)
    parser.add_argument(
        "--data",
        type=job.location,
        required=True,
        metavar="DATA",
        help="the folder of Aff-Wild2, BP4D, RAF-DB, Multi-PIE or AffectNet as downloaded; a manifest of images "
        "(.csv, .parquet); a folder with train.rec and train.idx; or, with --source images, one folder per person",
    )
    parser.add_argument("--out", type=job.location, required=True, metavar="STORE", help="folder or URI of the store")
    parser.add_argument(
        "--source",
        choices=("crops", "videos", "images"),
        help="crops: official crops of Aff-Wild2; videos: crops made from its videos; images: one folder per person "
        "(default: crops where there are any, otherwise videos)",
    )
    return job.run(parser, _preprocess, argv, _settings)


def _settings(args: argparse.Namespace) -> job.Sections:
    """Return the settings for the kind of data that is named; those of both kinds where none is."""
    from aupipe.affwild2.job import PreprocessConfig
    from aupipe.images import job as images

    if not (args.data or args.source):
        return [PreprocessConfig, images.ImagesConfig]
    return [images.ImagesConfig if images.is_images(args.data or "", args.source) else PreprocessConfig]


def _preprocess(args: argparse.Namespace) -> int:
    from aupipe.affwild2 import job as affwild2
    from aupipe.config import check_unused, load
    from aupipe.errors import ConfigError
    from aupipe.facestore.job import StoreJob, check, summary_text, text
    from aupipe.images import job as images
    from aupipe.pipelines.preprocess import preprocess

    plan: StoreJob
    if images.is_images(args.data, args.source):
        if args.source not in (None, "images"):
            raise ConfigError(f"--source {args.source}: {args.data} is no Aff-Wild2 folder; fix: leave it out")
        plan = images.prepare(args.data, args.out, load(images.ImagesConfig, {}, args.overrides))
    else:
        config = load(affwild2.PreprocessConfig, {}, args.overrides)
        plan = affwild2.prepare(args.data, args.out, args.source, config)
        if plan.source == "crops":
            of_videos = ("alignment", "search", "detector.min_face_px")
            check_unused(config, of_videos, "--set ", "on crops, which are stored as they are; fix: leave it out")
    check(plan)
    print(text(plan))  # noqa: T201
    if not args.dry_run:
        print(summary_text(preprocess(plan), args.out))  # noqa: T201
    return job.DONE
