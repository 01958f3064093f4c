"""Conversion of YuNet's published ONNX file to the graph that `faces.detect` runs.

The published graph is fixed to 640×640 pixels, planes in BGR and float32. The converted one takes an RGB frame of any
size: the weights of the first layer are in the order of RGB, and the outputs of the three grids are joined.
"""

from __future__ import annotations

from aupipe.errors import ConfigError

STRIDES_PX = (8, 16, 32)  # of the grids of anchors
INPUT, OUTPUTS = "planes", ("scores", "boxes", "points")  # of the converted graph
_PUBLISHED_INPUT = "input"
_FLOATS = "floats"  # the planes as float32


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
    published_outputs = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES_PX]
    if [each.name for each in graph.output] != published_outputs:
        raise ConfigError("not YuNet's graph (face_detection_yunet_2023mar.onnx)")
    (first,) = (node for node in graph.node if _PUBLISHED_INPUT in node.input)
    first.input[0] = _FLOATS
    (weights,) = (each for each in graph.initializer if each.name == first.input[1])
    of_rgb = numpy_helper.to_array(weights)[:, ::-1].copy()
    weights.CopyFrom(numpy_helper.from_array(of_rgb, weights.name))
    joined = {"cls": "class_scores", "obj": "face_scores", "bbox": "all_boxes", "kps": "all_points"}
    scores, boxes, points = OUTPUTS
    after = [
        *(
            helper.make_node("Concat", [f"{kind}_{stride}" for stride in STRIDES_PX], [name], axis=1)
            for kind, name in joined.items()
        ),
        helper.make_node("Mul", ["class_scores", "face_scores"], ["products"]),
        helper.make_node("Sqrt", ["products"], ["all_scores"]),
        helper.make_node("Squeeze", ["all_scores"], [scores], axes=[0, 2]),
        helper.make_node("Squeeze", ["all_boxes"], [boxes], axes=[0]),
        helper.make_node("Squeeze", ["all_points"], [points], axes=[0]),
    ]
    cast = helper.make_node("Cast", [INPUT], [_FLOATS], to=TensorProto.FLOAT)
    nodes = [cast, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]  # the sizes of 640×640 frames too
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [1, 3, "height", "width"]))
    for name, shape in ((scores, ["anchors"]), (boxes, ["anchors", 4]), (points, ["anchors", 10])):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    onnx.checker.check_model(model, full_check=True)
    converted: bytes = model.SerializeToString(deterministic=True)
    return converted
