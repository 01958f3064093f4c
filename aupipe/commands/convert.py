"""`convert.py`: published weights of a face-recognition network in, safetensors out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aupipe.commands import job

_EXAMPLES = """\
  convert.py backbone_glint360k_cosface_r100.pth --out weights/iresnet100_glint360k.safetensors
  convert.py backbone.pth --out backbone.safetensors --dry-run
  convert.py run/best --out run/best/model.onnx"""


def main(argv: Sequence[str] | None = None, prog: str = "convert.py") -> int:
    """Run the job. Return its exit code."""
    parser = job.make_parser(
        prog,
        "Convert InsightFace's weights to safetensors and check them. The network (iresnet18, 34, 50, 100, ir_se50) is "
        "identified by its tensors; no code in the file is executed. Of a checkpoint of a single-frame model, write "
        "the graph for ONNX Runtime, which annotates with it about twice as fast on CPUs.",
        _EXAMPLES,
    )
    parser.add_argument(
        "file", type=job.location, metavar="FILE", help="state dict (.pth, .safetensors) or CKPT; path or URI"
    )
    parser.add_argument(
        "--out",
        type=job.location,
        required=True,
        metavar="FILE",
        help=".safetensors, or of a checkpoint CKPT/model.onnx",
    )
    return job.run(parser, _convert, argv)


def _convert(args: argparse.Namespace) -> int:
    from aupipe.config import Section, load
    from aupipe.errors import ConfigError
    from aupipe.models import insightface
    from aupipe.models.checkpoint import CARD
    from aupipe.storage import Storage

    load(Section, {}, args.overrides)  # This job has no settings, so every key is an error.
    if not args.file.endswith((".pth", ".pt", ".safetensors")) and Storage(args.file).exists(CARD):
        return _export(args)
    if not args.out.endswith(".safetensors"):
        raise ConfigError(f"--out: {args.out} (must end with .safetensors)")
    name, tensors = insightface.read(args.file)
    print(f"{args.file}: {name}, {insightface.parameters(tensors):,} parameters")  # noqa: T201
    if args.dry_run:
        print(f"would write {args.out}")  # noqa: T201
        return job.DONE
    print(f"{args.out}: sha256 {insightface.write(args.out, name, tensors)}")  # noqa: T201
    return job.DONE


def _export(args: argparse.Namespace) -> int:
    from aupipe.errors import ConfigError
    from aupipe.models import checkpoint, export
    from aupipe.storage import Storage

    expected = f"{args.file.rstrip('/')}/{checkpoint.GRAPH}"
    if args.out != expected:
        raise ConfigError(f"--out: {args.out} (must be {expected}, because the graph is part of the checkpoint)")
    system, card = checkpoint.load(args.file)
    weights = checkpoint.read(args.file, checkpoint.WEIGHTS, card.weights_sha256)
    graph, difference = export.checked(system, card, weights)
    print(f"{args.file}: {card.model.name}, logits differ from torch's by at most {difference:.1g}")  # noqa: T201
    if args.dry_run:
        print(f"would write {args.out}")  # noqa: T201
        return job.DONE
    card = checkpoint.save_graph(Storage(args.file), card, graph)
    print(f"{args.out}: sha256 {card.graph_sha256}")  # noqa: T201
    return job.DONE
