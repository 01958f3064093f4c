"""`synthesize.py`: a seed in, face video with exact Action Unit labels out, in the layout of Aff-Wild2."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aupipe.commands import job

if TYPE_CHECKING:
    from aupipe.synthesis.render_job import SynthesisConfig

_EXAMPLES = """\
  synthesize.py --out /data/rendered
  synthesize.py --out s3://bucket/rendered --videos 960 --seconds 4 --seed 7
  synthesize.py --out /data/rendered2 --edition abaw2 --set render.size_px=224
  synthesize.py --out /data/stills --videos 2000 --stills 8 --rig anny ict:/data/ict_facekit_light.npz"""

_SECONDS, _EDITION = 2.0, "abaw5"


def main(argv: Sequence[str] | None = None, prog: str = "synthesize.py") -> int:
    """Run the job. Return its exit code."""
    parser = job.make_parser(
        prog,
        "Render a labeled data set in the layout of Aff-Wild2. Re-run the same command to resume.",
        _EXAMPLES,
    )
    parser.add_argument("--out", type=job.location, required=True, metavar="DIR", help="folder or URI of the data set")
    parser.add_argument(
        "--videos",
        type=_count,
        default=96,
        metavar="N",
        help="clips, each of a different person, one third for validation (default: 96)",
    )
    parser.add_argument(
        "--pairs",
        type=_number,
        default=0,
        metavar="N",
        help="clips that show two people, annotated as VIDEO_left and VIDEO_right (default: 0)",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=_SECONDS,
        metavar="S",
        help="length of a clip, at 25 frames per second (default: 2)",
    )
    parser.add_argument(
        "--seed",
        type=_number,
        default=0,
        metavar="S",
        help="random seed; the output is deterministic for a given seed (default: 0)",
    )
    parser.add_argument(
        "--rig", nargs="+", default=["anny"], metavar="RIG",
        help="head models, used in turn: anny (CC0-1.0, default), ict:FILE (ICT-FaceKit as NumPy arrays, MIT)",
    )  # fmt: skip
    parser.add_argument(
        "--stills", type=_number, default=0, metavar="N",
        help="instead of videos, render N unrelated pictures of each of --videos people, one tenth for validation, and "
        "write a manifest of them",
    )  # fmt: skip
    parser.add_argument(
        "--edition",
        choices=("abaw2", "abaw5"),
        default=_EDITION,
        help="annotations of abaw2 (7 expressions) or abaw5 (8 expressions, other folders; default)",
    )
    return job.run(parser, _synthesize, argv, _settings)


def _settings(args: argparse.Namespace) -> job.Sections:
    from aupipe.synthesis.render_job import SynthesisConfig

    return [SynthesisConfig]


def _synthesize(args: argparse.Namespace) -> int:
    from aupipe.config import load
    from aupipe.storage import Storage
    from aupipe.synthesis.dataset import VideoSet
    from aupipe.synthesis.render_job import DataSet, SynthesisConfig, check
    from aupipe.synthesis.still_dataset import StillSet

    config, rigs = load(SynthesisConfig, {}, args.overrides), tuple(args.rig)
    data: DataSet
    if args.stills:
        _check_stills(args, config)
        data = StillSet(people=args.videos, stills=args.stills, seed=args.seed, rigs=rigs, config=config)
    else:
        data = VideoSet(
            videos=args.videos, pairs=_pairs(args), seconds=args.seconds, seed=args.seed, edition=args.edition,
            rigs=rigs, config=config,
        )  # fmt: skip
    if args.dry_run:
        check(data, Storage(args.out))
        print(data.text(Storage(args.out)))  # noqa: T201
        return job.DONE
    from aupipe.pipelines.synthesize import synthesize

    print(synthesize(data, args.out))  # noqa: T201
    return job.DONE


def _check_stills(args: argparse.Namespace, config: SynthesisConfig) -> None:
    """Refuse options of videos, which have no effect on pictures."""
    from aupipe.config import check_unused
    from aupipe.errors import ConfigError

    where = "on --stills (an option of videos); fix: leave it out"
    for option, default in (("pairs", 0), ("seconds", _SECONDS), ("edition", _EDITION)):
        if getattr(args, option) != default:
            raise ConfigError(f"--{option} has no effect {where}")
    check_unused(config, ("render.crf", "detector", "alignment"), "--set ", where)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) >= 3):
        raise argparse.ArgumentTypeError(f"{text} (at least 3, for two splits)")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.4 <= value <= 60:
        raise argparse.ArgumentTypeError(f"{text} (0.4 to 60 seconds)")
    return value


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} (0 or more)")
    return int(text)


def _pairs(args: argparse.Namespace) -> int:
    from aupipe.errors import ConfigError

    if args.pairs > args.videos // 3:
        raise ConfigError(f"--pairs: {args.pairs} (at most a third of --videos {args.videos})")
    return int(args.pairs)
