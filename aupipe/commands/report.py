"""`report.py`: an annotation in, pages that open in a browser out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  report.py annotation
  report.py s3://bucket/annotation --out report
  report.py annotation --overlay
  report.py annotation --no-thumbnails"""


def main(argv: Sequence[str] | None = None, prog: str = "report.py") -> int:
    """Run the job. Return its exit code."""
    parser = job.make_parser(
        prog,
        "Write pages about an annotation: an overview, and per video a player with boxes, AU curves, events and "
        "tables. They open from disk, without a server or network. They replace the report that is there.",
        _EXAMPLES,
    )
    parser.add_argument(
        "annotation", type=job.location, metavar="ANNOTATION", help="output folder or URI of annotate.py"
    )
    parser.add_argument(
        "--out", type=job.location, metavar="DIR", help="folder or URI of the pages (default: ANNOTATION/report)"
    )
    parser.add_argument(
        "--no-thumbnails", action="store_true", help="do not open the videos: pages without pictures of the apexes"
    )
    parser.add_argument(
        "--overlay", action="store_true",
        help="also write an MP4 per video with boxes, ids and AU bars, with the times and the sound of the original",
    )  # fmt: skip
    parser.add_argument(
        "--preview", action="store_true",
        help="also write an MP4 of each input that browsers do not show: other formats, folders of images, files on "
        "no local disk",
    )  # fmt: skip
    return job.run(parser, _report, argv)


def _report(args: argparse.Namespace) -> int:
    from aupipe.annotation import report_files
    from aupipe.config import Section, load
    from aupipe.report import pages
    from aupipe.storage import Storage

    load(Section, {}, args.overrides)  # This job has no settings, so every key is an error.
    plan = pages.ReportJob(
        annotation=args.annotation, out=args.out or Storage(args.annotation).path(report_files.FOLDER),
        thumbnails=not args.no_thumbnails, overlay=args.overlay, preview=args.preview,
    )  # fmt: skip
    print(pages.text(pages.check(plan)) if args.dry_run else f"report: {pages.write(plan)}")  # noqa: T201
    return job.DONE
