"""`convert.py`: weights as they are published in, the form that aupipe runs out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  convert.py backbone_glint360k_cosface_r100.pth --out weights/iresnet100_glint360k.safetensors
  convert.py backbone.pth --out backbone.safetensors --dry-run
  convert.py face_detection_yunet_2023mar.onnx --out yunet.onnx"""


def main(argv: Sequence[str] | None = None, prog: str = "convert.py") -> int:
    """Run the job. Return its exit code."""
    parser = job.make_parser(
        prog,
        "Convert InsightFace's weights to safetensors and check them, or YuNet's ONNX file for the setting "
        "detector.weights. The face-recognition network (iresnet18, 34, 50, 100, ir_se50) is identified by its "
        "tensors; no code in the file is executed.",
        _EXAMPLES,
    )
    parser.add_argument(
        "file", type=job.location, metavar="FILE", help="state dict (.pth or .safetensors) or .onnx, path or URI"
    )
    parser.add_argument(
        "--out", type=job.location, required=True, metavar="FILE", help=".safetensors, or .onnx of .onnx; path or URI"
    )
    return job.run(parser, _convert, argv)


def _convert(args: argparse.Namespace) -> int:
    from aupipe.config import Section, load
    from aupipe.errors import ConfigError

    load(Section, {}, args.overrides)  # This job has no settings, so every key is an error.
    suffix = ".onnx" if args.file.endswith(".onnx") else ".safetensors"
    if not args.out.endswith(suffix):
        raise ConfigError(f"--out: {args.out} (must end with {suffix})")
    return (_convert_detector if suffix == ".onnx" else _convert_network)(args)


def _convert_network(args: argparse.Namespace) -> int:
    from aupipe.models import insightface

    name, tensors = insightface.read(args.file)
    print(f"{args.file}: {name}, {insightface.parameters(tensors):,} parameters")  # noqa: T201
    if args.dry_run:
        print(f"would write {args.out}")  # noqa: T201
        return job.DONE
    print(f"{args.out}: sha256 {insightface.write(args.out, name, tensors)}")  # noqa: T201
    return job.DONE


def _convert_detector(args: argparse.Namespace) -> int:
    import hashlib

    from aupipe.errors import ConfigError
    from aupipe.faces import yunet_graph
    from aupipe.storage import folder_and_name, open_input

    try:
        with open_input(args.file) as file:
            published = file.read()
    except OSError as error:
        raise ConfigError(f"{args.file} cannot be read ({error.strerror or error})") from None
    converted = yunet_graph.convert(published)
    print(f"{args.file}: YuNet, sha256 {hashlib.sha256(published).hexdigest()}")  # noqa: T201
    if args.dry_run:
        print(f"would write {args.out}")  # noqa: T201
        return job.DONE
    folder, name = folder_and_name(args.out)
    folder.write(name, converted)
    print(f"{args.out}: sha256 {hashlib.sha256(converted).hexdigest()}")  # noqa: T201
    return job.DONE
