"""`bench.py NAME`: measurements of aupipe itself, one line of JSON each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aupipe.commands import job

_EXAMPLES = """\
  bench.py alignment --input videos/
  bench.py detector_bias --input videos/
  bench.py preprocess --crops 20000
  bench.py autoscale --checkpoint demo/run/best
  bench.py encode_once
  bench.py encode_once --case temporal_prompts sequence_iresnet100 --repeats 5
  bench.py fuzz --mutations 1000
  bench.py chaos --checkpoint demo/run/best --kills 50
  bench.py rerun --checkpoint demo/run/best --clips 2000
  bench.py memory --checkpoint demo/run/best --minutes 60"""


def main(argv: Sequence[str] | None = None, prog: str = "bench.py") -> int:
    """Run the job. Return its exit code."""
    parser = job.make_parser(prog, "Measure aupipe on this machine; prints lines of JSON.", _EXAMPLES)
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    alignment = names.add_parser("alignment", help="frame-to-frame crop jitter, without and with smoothing")
    alignment.add_argument(
        "--input", type=job.location, nargs="+", required=True, metavar="PATH", help="videos or folders"
    )
    bias = names.add_parser("detector_bias", help="landmarks that the detector finds on crops aligned by aupipe")
    bias.add_argument("--input", type=job.location, nargs="+", required=True, metavar="PATH", help="videos or folders")
    preprocess = names.add_parser("preprocess", help="speed and memory of packing crops")
    preprocess.add_argument("--crops", type=int, default=20_000, metavar="N", help="number of generated crops")
    once = names.add_parser(
        "encode_once", help="an epoch from stored embeddings compared with one that encodes; minutes"
    )
    once.add_argument("--case", nargs="+", default=[], metavar="CASE", help="default: all, quick sizes first")
    once.add_argument("--repeats", type=int, default=3, metavar="N", help="measured epochs of each kind")
    fuzz = names.add_parser("fuzz", help="damaged clips in annotate.py: crashes, hangs, unreported losses")
    fuzz.add_argument(
        "--mutations", type=int, default=1000, metavar="N", help="number of damaged clips, made from five clips in turn"
    )
    fuzz.add_argument("--seed", type=int, default=0, metavar="S", help="random seed of the damage")
    autoscale = names.add_parser(
        "autoscale", help="times at which nodes join and leave as annotate.py needs them; two minutes"
    )
    autoscale.add_argument("--checkpoint", type=job.location, required=True, metavar="CKPT", help="any model")
    autoscale.add_argument(
        "--cluster", type=job.location, default="cluster.yaml", metavar="FILE", help="cluster file with the node types"
    )
    chaos = names.add_parser(
        "chaos", help="an annotation whose processes are killed at random: its tables must be the same"
    )
    rerun = names.add_parser("rerun", help="time of a re-run over a finished archive, and of one with other thresholds")
    memory = names.add_parser(
        "memory", help="memory of the workers for a long video, compared with a video of one minute"
    )
    for each in (chaos, rerun, memory):
        each.add_argument("--checkpoint", type=job.location, required=True, metavar="CKPT", help="model folder")
    chaos.add_argument(
        "--kills", type=int, default=50, metavar="N", help="least number of kills, over as many runs as needed"
    )
    chaos.add_argument("--seed", type=int, default=0, metavar="S", help="random seed of the times and processes")
    rerun.add_argument(
        "--clips", type=int, default=2000, metavar="N", help="number of generated clips, of 3 frames each"
    )
    memory.add_argument("--minutes", type=int, default=60, metavar="N", help="length of the long video, with sound")
    return job.run(parser, _bench, argv)


def _bench(args: argparse.Namespace) -> int:
    from aupipe.config import Section, load

    load(Section, {}, args.overrides)  # This job has no settings, so every key is an error.
    if args.dry_run:
        print(f"would run {args.name}")  # noqa: T201
        return job.DONE
    for line in _MEASURES[args.name](args):
        print(json.dumps({"bench": args.name, **line}), flush=True)  # noqa: T201
    return job.DONE


def _alignment(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import alignment

    return [alignment.measure(args.input)]


def _detector_bias(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import detector_bias

    return [detector_bias.measure(args.input)]


def _autoscale(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import autoscale

    return autoscale.measure(args.cluster, args.checkpoint)


def _preprocess(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import preprocess

    return [preprocess.measure(args.crops)]


def _encode_once(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import encode_once

    return encode_once.measure(args.case, args.repeats)


def _fuzz(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import fuzz

    return [fuzz.measure(args.mutations, args.seed)]


def _chaos(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import chaos

    return chaos.measure(None, args.checkpoint, args.kills, args.seed)


def _rerun(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import rerun

    return rerun.measure(args.checkpoint, args.clips)


def _memory(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import memory

    return memory.measure(args.checkpoint, args.minutes)


_MEASURES: dict[str, Callable[[argparse.Namespace], Iterable[dict[str, Any]]]] = {
    "alignment": _alignment,
    "detector_bias": _detector_bias,
    "preprocess": _preprocess,
    "encode_once": _encode_once,
    "fuzz": _fuzz,
    "autoscale": _autoscale,
    "chaos": _chaos,
    "rerun": _rerun,
    "memory": _memory,
}
