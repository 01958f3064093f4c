"""`preprocess.py`: Aff-Wild2 as downloaded, or labeled images in; a face store out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  python jobs/preprocess.py --data /data/Aff-Wild2 --out /data/store
  python jobs/preprocess.py --data /data/Aff-Wild2 --out s3://bucket/store --source videos
  python jobs/preprocess.py --data /data/Aff-Wild2 --out /data/store --set data.edition=abaw5 --set data.leak=off
  python jobs/preprocess.py --data /data/bp4d.csv --out /data/bp4d-store --set data.license="research only"
  python jobs/preprocess.py --data /data/glint360k --out /data/identities   (train.rec and train.idx, or
  python jobs/preprocess.py --data /data/faces --source images --out /data/identities   one folder a person)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `preprocess.py`. Returns the exit code."""
    parser = job.make_parser(
        "preprocess", "Pack a data set into a face store; the same command again goes on.", _EXAMPLES
    )
    parser.add_argument(
        "--data",
        type=job.location,
        required=True,
        help="the Aff-Wild2 folder as it was downloaded, a manifest (.csv, .parquet) of images, or a folder of images",
    )
    parser.add_argument("--out", type=job.location, required=True, help="the store (path or URI)")
    parser.add_argument(
        "--source",
        choices=("crops", "videos", "images"),
        help="Aff-Wild2: official crops, or ours from the videos (default: crops if any); images: a folder a person",
    )
    return job.run(parser, _body, argv)


def _body(args: argparse.Namespace) -> int:
    from aupipe.affwild2 import job as affwild2
    from aupipe.config import load
    from aupipe.facestore.job import StoreJob, check_out, plan_text, summary_text
    from aupipe.images import job as images
    from aupipe.pipelines.preprocess import preprocess

    plan: StoreJob
    if images.is_images(args.data, args.source):
        plan = images.prepare(args.data, args.out, load(images.ImagesConfig, {}, args.overrides))
    else:
        plan = affwild2.prepare(args.data, args.out, args.source, load(affwild2.PreprocessConfig, {}, args.overrides))
    check_out(plan)
    print(plan_text(plan))  # noqa: T201
    if not args.dry_run:
        print(summary_text(preprocess(plan), args.out))  # noqa: T201
    return job.DONE
