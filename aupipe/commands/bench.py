"""`bench.py NAME`: aupipe's own measurements, one line of JSON each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

from aupipe.commands import job

_EXAMPLES = """\
  bench.py alignment --input videos/
  bench.py detector_bias --input videos/
  bench.py preprocess --crops 20000"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench.py", description="Measure aupipe on this machine; one line of JSON.", allow_abbrev=False,
        epilog=f"examples:\n{_EXAMPLES}", formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    alignment = names.add_parser("alignment", help="how much crops tremble, without and with smoothing")
    alignment.add_argument(
        "--input", type=job.location, nargs="+", required=True, metavar="PATH", help="videos or folders"
    )
    bias = names.add_parser("detector_bias", help="where the detector sees the points of crops that we aligned")
    bias.add_argument("--input", type=job.location, nargs="+", required=True, metavar="PATH", help="videos or folders")
    preprocess = names.add_parser("preprocess", help="how fast crops are packed, and with how much memory")
    preprocess.add_argument("--crops", type=int, default=20_000, metavar="N", help="how many are generated")
    return job.run(parser, _bench, argv)


def _bench(args: argparse.Namespace) -> int:
    print(json.dumps({"bench": args.name, **_MEASURES[args.name](args)}))  # noqa: T201
    return job.DONE


def _alignment(args: argparse.Namespace) -> dict[str, Any]:
    from aupipe.benchmarks import alignment

    return alignment.measure(args.input)


def _detector_bias(args: argparse.Namespace) -> dict[str, Any]:
    from aupipe.benchmarks import detector_bias

    return detector_bias.measure(args.input)


def _preprocess(args: argparse.Namespace) -> dict[str, Any]:
    from aupipe.benchmarks import preprocess

    return preprocess.measure(args.crops)


_MEASURES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "alignment": _alignment,
    "detector_bias": _detector_bias,
    "preprocess": _preprocess,
}
