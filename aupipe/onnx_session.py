"""ONNX Runtime on one thread. The detector and exported models run with it.

Variants on one core with AVX2 (the runtimes are compared by `bench.py front`):

    kept     planes as the detector's input       shorter than a cast and a transposition in the graph, same bits
    kept     8 crops of a starter model per call  fewer take longer, 16 as long
    kept     groups of 16 channels                two thirds of the time of a starter model with AVX-512 (`wide_groups`)
    dropped  transposition of bytes, then a cast  longer than planes, same bits
    dropped  global pooling as one node           as long as a mean over both axes (0.97 with groups of 16)
    dropped  weights and activations in 8 bits    0.65 of the time with groups of 8; logits differ by 0.05 to 0.1
    dropped  OpenVINO                             longer for the detector; for the models as long as groups of 16; 59 MB
    dropped  OpenCV's dnn, eager torch            longer for the detector, longer for the models
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

THREADS = 1  # The CPUs that each stage reserves. More threads could also add in another order.
_LOG_ERRORS = 3  # and nothing below, such as notes about folded constants


class GraphError(Exception):
    """A graph that ONNX Runtime cannot load."""


def open_session(graph: bytes, files: Mapping[str, bytes] | None = None) -> InferenceSession:
    """Return a session that runs a graph on the CPU.

    Args:
        graph: an ONNX model.
        files: name → content of the files to which the graph refers for its weights.

    Raises:
        GraphError: the graph cannot be read or is invalid.
    """
    # Recent packages of ONNX Runtime send events to Microsoft, unless this is set before the first import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = THREADS
    options.log_severity_level = _LOG_ERRORS
    # The plan of memory that ONNX Runtime would keep for each shape of input grows with the number of frame sizes.
    options.enable_mem_pattern = False
    with ExitStack() as stack:
        model: bytes | str = graph
        if files:  # A graph refers to files in its own folder, which are not needed after it is loaded.
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="aupipe-")))
            model = str(folder / "graph.onnx")
            for name, content in {**files, "graph.onnx": graph}.items():
                (folder / name).write_bytes(content)
        try:
            return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except _load_errors() as error:
            raise GraphError(" ".join(str(error).split())[:300]) from None


@cache
def _load_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of ONNX Runtime, which have no common base class."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented,
            state.RuntimeException)  # fmt: skip
