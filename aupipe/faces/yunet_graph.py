"""Conversion of YuNet's published ONNX file to the graph that `faces.detect` runs.

The published graph is fixed to 640×640 pixels, planes in BGR and float32. The converted one takes an RGB frame of any
size: the weights of the first layer are in the order of RGB. The four heads of a grid, for class, objectness, box and
points, have 1, 1, 4 and 10 channels. They become one head of 16 channels, the number that ONNX Runtime computes at a
time with AVX-512, and the outputs of the three grids are joined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aupipe.errors import ConfigError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

STRIDES_PX = (8, 16, 32)  # of the grids of anchors
INPUT, OUTPUTS = "planes", ("scores", "boxes", "points")  # of the converted graph
_PUBLISHED_INPUT = "input"
_FLOATS = "floats"  # the planes as float32
_HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}  # channels
_CHANNELS = sum(_HEADS.values())


def convert(published: bytes) -> bytes:
    """Return the converted ONNX file.

    Its input is `planes` (1, 3, H, W) uint8 RGB, with sides that are multiples of 32. Its outputs are `scores` (A,),
    the square root of the class and the objectness probability, `boxes` (A, 4) and `points` (A, 10) of A anchors.

    Raises:
        ConfigError: the file is not YuNet's.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import TensorProto, helper, numpy_helper

    try:
        model = onnx.load_from_string(published)
    except DecodeError:
        raise ConfigError("no ONNX file (face_detection_yunet_2023mar.onnx)") from None
    graph = model.graph
    if [each.name for each in graph.output] != [f"{kind}_{stride}" for kind in _HEADS for stride in STRIDES_PX]:
        raise ConfigError("not YuNet's graph (face_detection_yunet_2023mar.onnx)")
    (first,) = (node for node in graph.node if _PUBLISHED_INPUT in node.input)
    first.input[0] = _FLOATS
    (weights,) = (each for each in graph.initializer if each.name == first.input[1])
    of_rgb = numpy_helper.to_array(weights)[:, ::-1].copy()
    weights.CopyFrom(numpy_helper.from_array(of_rgb, weights.name))
    scores, boxes, points = OUTPUTS
    nodes = [
        helper.make_node("Cast", [INPUT], [_FLOATS], to=TensorProto.FLOAT), *graph.node, *_joined_heads(graph),
        helper.make_node("Concat", [f"rows_{stride}" for stride in STRIDES_PX], ["rows"], axis=2),
        helper.make_node("Squeeze", ["rows"], ["channels"], axes=[0]),
        helper.make_node("Transpose", ["channels"], ["anchors"], perm=[1, 0]),
        helper.make_node("Split", ["anchors"], ["cls", "obj", boxes, points], axis=1, split=list(_HEADS.values())),
        helper.make_node("Sigmoid", ["cls"], ["class_scores"]),
        helper.make_node("Sigmoid", ["obj"], ["face_scores"]),
        helper.make_node("Mul", ["class_scores", "face_scores"], ["products"]),
        helper.make_node("Sqrt", ["products"], ["all_scores"]),
        helper.make_node("Squeeze", ["all_scores"], [scores], axes=[1]),
    ]  # fmt: skip
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]  # the sizes of 640×640 frames too
    graph.node.extend(_used(nodes, OUTPUTS))
    names = {name for node in graph.node for name in node.input}
    for unused in [each for each in graph.initializer if each.name not in names]:
        graph.initializer.remove(unused)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [1, 3, "height", "width"]))
    for name, shape in ((scores, ["anchors"]), (boxes, ["anchors", 4]), (points, ["anchors", 10])):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    onnx.checker.check_model(model, full_check=True)
    converted: bytes = model.SerializeToString(deterministic=True)
    return converted


def _joined_heads(graph: GraphProto) -> list[NodeProto]:
    """Return the nodes of one head per grid, whose outputs are `rows_8` … (1, 16, A), and add their weights."""
    from onnx import helper, numpy_helper

    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    writer = {name: node for node in graph.node for name in node.output}
    shape = numpy_helper.from_array(np.array([1, _CHANNELS, -1], np.int64), "rows_shape")
    graph.initializer.append(shape)
    nodes = []
    for stride in STRIDES_PX:
        layers = zip(*(_layers(writer, f"{kind}_{stride}") for kind in _HEADS), strict=True)
        for number, layer in enumerate(layers):  # 1×1, and 3×3 of each channel by itself
            names = [f"head_{stride}.{number}.{what}" for what in ("weight", "bias")]
            for place, name in enumerate(names, start=1):
                joined = np.concatenate([values[node.input[place]] for node in layer])
                graph.initializer.append(numpy_helper.from_array(joined, name))
            source = f"head_{stride}.0" if number else layer[0].input[0]
            groups, pads = (_CHANNELS if number else 1), [number] * 4
            outputs = [f"head_{stride}.{number}"]
            nodes.append(helper.make_node("Conv", [source, *names], outputs, group=groups, pads=pads))
        nodes.append(helper.make_node("Reshape", [f"head_{stride}.1", shape.name], [f"rows_{stride}"]))
    return nodes


def _layers(writer: dict[str, NodeProto], output: str) -> tuple[NodeProto, NodeProto]:
    """Return the two convolutions of a head, in order."""
    node = writer[output]
    while node.op_type != "Conv":
        node = writer[node.input[0]]
    return writer[node.input[0]], node


def _used(nodes: list[NodeProto], outputs: tuple[str, ...]) -> list[NodeProto]:
    """Return the nodes on which the outputs depend, in order."""
    needed, used = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            used.append(node)
    return used[::-1]
