"""`convert.py`: published weights of a face-recognition network in, safetensors out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  convert.py backbone_glint360k_cosface_r100.pth --out weights/iresnet100_glint360k.safetensors
  convert.py backbone.pth --out backbone.safetensors --dry-run"""


def main(argv: Sequence[str] | None = None, prog: str = "convert.py") -> int:
    """Run the job. Return its exit code."""
    parser = job.make_parser(
        prog,
        "Convert InsightFace's weights to safetensors and check them. The network (iresnet18, 34, 50, 100, ir_se50) is "
        "identified by its tensors; no code in the file is executed.",
        _EXAMPLES,
    )
    parser.add_argument("file", type=job.location, metavar="FILE", help="state dict, .pth or .safetensors, path or URI")
    parser.add_argument("--out", type=job.location, required=True, metavar="FILE.safetensors", help="path or URI")
    return job.run(parser, _convert, argv)


def _convert(args: argparse.Namespace) -> int:
    from aupipe.config import Section, load
    from aupipe.errors import ConfigError
    from aupipe.models import insightface

    load(Section, {}, args.overrides)  # This job has no settings, so every key is an error.
    if not args.out.endswith(".safetensors"):
        raise ConfigError(f"--out: {args.out} (must end with .safetensors)")
    name, tensors = insightface.read(args.file)
    print(f"{args.file}: {name}, {insightface.parameters(tensors):,} parameters")  # noqa: T201
    if args.dry_run:
        print(f"would write {args.out}")  # noqa: T201
        return job.DONE
    print(f"{args.out}: sha256 {insightface.write(args.out, name, tensors)}")  # noqa: T201
    return job.DONE
