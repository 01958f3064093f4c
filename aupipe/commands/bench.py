"""`bench.py NAME`: aupipe's own measurements, one line of JSON each.

The package contains the measurements that a user of the wheel runs. Those that kill processes, damage files or draw
whole archives are developer tools: they are in `tests/harness` of a clone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from aupipe.commands import job

_TESTS = Path(__file__).parents[2] / "tests"
_EXAMPLES = """\
  bench.py crop_jitter --input videos/
  bench.py detector_bias --input videos/
  bench.py encode_once
  bench.py face_search --input videos/ --every 5
  bench.py encode_once --case temporal_prompts sequence_iresnet100 --repeats 5
  bench.py pose
  bench.py train
    from a clone of the repository:
  bench.py all
  bench.py annotate --minutes 10 --sizes 1 2 4 8
  bench.py autoscale --checkpoint demo/run/best
  bench.py chaos --checkpoint demo/run/best --kills 50
  bench.py frame_accounting
  bench.py front
  bench.py fuzz --mutations 1000
  bench.py memory --checkpoint demo/run/best --minutes 60
  bench.py preprocess --crops 20000
  bench.py rerun --checkpoint demo/run/best --clips 2000
  bench.py scale --clips 100000 --videos 100 --minutes 60
  bench.py startup"""


def main(argv: Sequence[str] | None = None, prog: str = "bench.py") -> int:
    """Run the job. Return its exit code."""
    parser = job.make_parser(prog, "Measure aupipe on this machine; prints lines of JSON.", _EXAMPLES)
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    jitter = names.add_parser(
        "crop_jitter", aliases=["alignment"], help="frame-to-frame jitter of crops, without and with smoothing"
    )
    bias = names.add_parser("detector_bias", help="offset of the detector's five points on aligned crops")
    once = names.add_parser("encode_once", help="an epoch from stored embeddings against one that encodes; minutes")
    pose = names.add_parser("pose", help="error of the head pose and AU scores by yaw on rendered heads; two minutes")
    search = names.add_parser("face_search", help="search around known faces against that of every whole frame")
    every = names.add_parser("all", help="short forms of front, startup, annotate and train, and a picture of them")
    annotate = names.add_parser("annotate", help="frames per second end to end, beside decoding and a plain loop")
    autoscale = names.add_parser("autoscale", help="nodes that join and leave as annotate.py needs them; two minutes")
    chaos = names.add_parser("chaos", help="annotation while processes are killed at random; tables must be equal")
    accounting = names.add_parser(
        "frame_accounting", aliases=["conservation"], help="more than 200 unusual clips: every frame accounted for"
    )
    front = names.add_parser("front", help="CPU milliseconds of each step of a frame, beside decoding and others")
    fuzz = names.add_parser("fuzz", help="damaged clips through annotate.py: crashes, hangs, unreported losses")
    memory = names.add_parser("memory", help="peak memory of workers for a long video, against a minute of it")
    preprocess = names.add_parser("preprocess", help="rate and memory of packing crops")
    rerun = names.add_parser("rerun", help="time of a finished archive run again, and with other thresholds")
    scale = names.add_parser("scale", help="memory, requests and seconds of the driver on an archive of any size")
    startup = names.add_parser("startup", help="seconds of commands in a new process, beside torch")
    train = names.add_parser("train", help="training samples per second, beside a plain PyTorch loop; minutes")
    for each in (front, startup, train):
        each.add_argument("--repeats", type=int, default=5, metavar="N", help="interleaved rounds; medians are printed")
    for each in (jitter, bias, search):
        each.add_argument(
            "--input", type=job.location, nargs="+", action="extend", required=True, metavar="PATH",
            help="videos or folders; repeatable",
        )  # fmt: skip
    every.add_argument(
        "--out", type=job.location, default=".", metavar="DIR", help="folder of bench.jsonl and bench.png; default: ."
    )
    annotate.add_argument("--minutes", type=float, default=1.0, metavar="M", help="length of an archive of size 1")
    annotate.add_argument(
        "--sizes", type=int, nargs="+", default=[1, 2], metavar="N", help="sizes of the archive; default: 1 2"
    )
    annotate.add_argument("--repeats", type=int, default=3, metavar="N", help="interleaved rounds")
    for each in (annotate, front):
        each.add_argument("--input", type=job.location, metavar="VIDEO", help="default: a drawn face, 640x360")
    for each in (jitter, search):
        each.add_argument("--every", type=int, default=5, metavar="K", help="frames from one whole search to the next")
    for each in (autoscale, chaos, memory, rerun):
        each.add_argument(
            "--checkpoint", type=job.checkpoint, required=True, metavar="CKPT",
            help="model folder, or starter, the model of aupipe",
        )  # fmt: skip
    once.add_argument("--case", nargs="+", default=[], metavar="CASE", help="default: all, quick sizes first")
    once.add_argument("--repeats", type=int, default=3, metavar="N", help="epochs of each way that count")
    pose.add_argument("--heads", type=int, default=500, metavar="N", help="number of rendered heads, 10 per person")
    pose.add_argument("--seed", type=int, default=0, metavar="S", help="random seed of people, poses and scenes")
    autoscale.add_argument(
        "--cluster", type=job.location, default="cluster.yaml", metavar="FILE", help="cluster.yaml with node types"
    )
    chaos.add_argument("--kills", type=int, default=50, metavar="N", help="at least, over as many runs as needed")
    chaos.add_argument("--seed", type=int, default=0, metavar="S", help="random seed of moments and victims")
    accounting.add_argument("--only", default="", metavar="TEXT", help="only clips with this text in their names")
    fuzz.add_argument("--mutations", type=int, default=1000, metavar="N", help="number, of five clips in turn")
    fuzz.add_argument("--seed", type=int, default=0, metavar="S", help="random seed of the damage")
    memory.add_argument("--minutes", type=int, default=60, metavar="N", help="length of the long video, with sound")
    preprocess.add_argument("--crops", type=int, default=20_000, metavar="N", help="number of generated crops")
    rerun.add_argument("--clips", type=int, default=2000, metavar="N", help="number of generated clips, 3 frames each")
    scale.add_argument("--clips", type=int, default=10_000, metavar="N", help="short files")
    scale.add_argument("--seconds", type=float, default=30.0, metavar="S", help="length of a short file")
    scale.add_argument("--videos", type=int, default=0, metavar="N", help="long files beside them")
    scale.add_argument("--minutes", type=float, default=60.0, metavar="M", help="length of a long file")
    scale.add_argument("--remote", action="store_true", help="on a local S3 server, each request 20 ms late")
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


def _harness(name: str, module: str) -> ModuleType:
    """Import the module of `tests/harness` that measures `name`.

    Raises:
        ConfigError: this aupipe is not in a clone.
    """
    from aupipe.errors import ConfigError

    if not (_TESTS / "harness" / f"{module}.py").is_file():
        raise ConfigError(
            f"{name}: not in an installed aupipe, only in a clone; fix: run `python jobs/bench.py {name}` in a clone"
        )
    if str(_TESTS) not in sys.path:
        sys.path.append(str(_TESTS))
    return importlib.import_module(f"harness.{module}")


def _crop_jitter(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import crop_jitter

    return [crop_jitter.measure(args.input, args.every)]


def _detector_bias(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import detector_bias

    return [detector_bias.measure(args.input)]


def _face_search(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import face_search

    return [face_search.measure(args.input, args.every)]


def _encode_once(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import encode_once

    return encode_once.measure(args.case, args.repeats)


def _pose(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import pose

    return [pose.measure(args.heads, args.seed)]


def _train(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    from aupipe.benchmarks import train

    return [train.measure(args.repeats)]


def _frame_accounting(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    return [_harness(args.name, "video_cases").measure(args.only)]


_MEASURES: dict[str, Callable[[argparse.Namespace], Iterable[dict[str, Any]]]] = {
    "alignment": _crop_jitter,
    "crop_jitter": _crop_jitter,
    "detector_bias": _detector_bias,
    "encode_once": _encode_once,
    "pose": _pose,
    "face_search": _face_search,
    "all": lambda args: _harness(args.name, "bench_all").measure(args.out),
    "annotate": lambda args: [
        _harness(args.name, "throughput").measure(args.minutes, args.sizes, args.repeats, args.input)
    ],
    "autoscale": lambda args: _harness(args.name, "autoscale").measure(args.cluster, args.checkpoint),
    "chaos": lambda args: _harness(args.name, "chaos").measure(None, args.checkpoint, args.kills, args.seed),
    "conservation": _frame_accounting,
    "frame_accounting": _frame_accounting,
    "front": lambda args: [_harness(args.name, "speed").front(args.repeats, args.input)],
    "fuzz": lambda args: [_harness(args.name, "fuzz").measure(args.mutations, args.seed)],
    "memory": lambda args: _harness(args.name, "memory").measure(args.checkpoint, args.minutes),
    "preprocess": lambda args: [_harness(args.name, "preprocess").measure(args.crops)],
    "rerun": lambda args: _harness(args.name, "rerun").measure(args.checkpoint, args.clips),
    "scale": lambda args: _harness(args.name, "scale").measure(
        args.clips, args.seconds, args.videos, args.minutes, args.remote
    ),
    "startup": lambda args: [_harness(args.name, "speed").startup(args.repeats)],
    "train": _train,
}
