"""`synthesize.py`: a seed in, face video with exact Action Unit labels out, laid out as Aff-Wild2."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  python jobs/synthesize.py --out /data/rendered
  python jobs/synthesize.py --out s3://bucket/rendered --videos 960 --seconds 4 --seed 7
  python jobs/synthesize.py --out /data/rendered2 --edition abaw2 --set render.size_px=224
  python jobs/synthesize.py --out /data/stills --videos 2000 --stills 8 --rig anny ict:/data/ict_facekit_light.npz
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `synthesize.py`. Returns the exit code."""
    parser = job.make_parser(
        "synthesize",
        "Render a labeled data set in the layout of Aff-Wild2; the same command again goes on.",
        _EXAMPLES,
    )
    parser.add_argument("--out", type=job.location, required=True, metavar="DIR", help="the data set (path or URI)")
    parser.add_argument(
        "--videos", type=_count, default=96, metavar="N", help="clips, each of another person; a third for validation"
    )
    parser.add_argument(
        "--pairs", type=_number, default=0, metavar="N", help="of them, show two people (VIDEO_left, VIDEO_right)"
    )
    parser.add_argument("--seconds", type=_seconds, default=2.0, metavar="S", help="length of a clip, at 25 frames/s")
    parser.add_argument(
        "--seed", type=_number, default=0, help="another seed, other people and labels; the same, the same"
    )
    parser.add_argument(
        "--rig", nargs="+", default=["anny"], metavar="RIG",
        help="the heads: anny (CC0-1.0), ict:FILE (ICT-FaceKit as NumPy arrays, MIT), or both in turn (default: anny)",
    )  # fmt: skip
    parser.add_argument(
        "--stills", type=_number, default=0, metavar="N",
        help="no videos: N unrelated pictures of each of --videos people, a tenth for validation, and a manifest of "
        "them for preprocess.py",
    )  # fmt: skip
    parser.add_argument(
        "--edition", choices=("abaw2", "abaw5"), default="abaw5", help="abaw2: 7 expressions; abaw5: 8, other folders"
    )
    return job.run(parser, _synthesize, argv)


def _synthesize(args: argparse.Namespace) -> int:
    from aupipe.config import load
    from aupipe.storage import Storage
    from aupipe.synthesis.dataset import VideoSet
    from aupipe.synthesis.render_job import DataSet, SynthesisConfig
    from aupipe.synthesis.still_dataset import StillSet

    config, rigs = load(SynthesisConfig, {}, args.overrides), tuple(args.rig)
    data: DataSet
    if args.stills:
        data = StillSet(people=args.videos, stills=args.stills, seed=args.seed, rigs=rigs, config=config)
    else:
        data = VideoSet(
            videos=args.videos, pairs=_pairs(args), seconds=args.seconds, seed=args.seed, edition=args.edition,
            rigs=rigs, config=config,
        )  # fmt: skip
    if args.dry_run:
        print(data.describe(Storage(args.out)))  # noqa: T201
        return job.DONE
    from aupipe.pipelines.synthesize import synthesize

    print(synthesize(data, args.out))  # noqa: T201
    return job.DONE


def _count(text: str) -> int:
    value = int(text)
    if value < 3:
        raise argparse.ArgumentTypeError(f"{text}: two splits take at least 3 videos")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.4 <= value <= 60:
        raise argparse.ArgumentTypeError(f"{text}: a clip lasts 0.4 to 60 seconds")
    return value


def _number(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: a number from 0 up is needed")
    return value


def _pairs(args: argparse.Namespace) -> int:
    from aupipe.errors import ConfigError

    if args.pairs > args.videos // 3:
        raise ConfigError(f"--pairs {args.pairs}: at most a third of the --videos {args.videos} can show two people")
    return int(args.pairs)
