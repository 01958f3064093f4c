"""Grouped convolutions of an ONNX graph, rewritten so that ONNX Runtime has a fast kernel for them.

Its kernels for convolutions handle 16 channels at a time on CPUs with AVX-512, and 8 on those with AVX2. A convolution
with groups of fewer channels, as the 8 of a small RegNet, runs in a general kernel that takes several times as long.
So groups are joined into groups of 16 channels, whose further weights are zero. Channels that are missing to a multiple
of 16 are added to the layers around it, with weights of zero. The outputs are the same up to rounding.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

GROUP_CHANNELS = 16


def widen_groups(model: ModelProto) -> None:
    """Join the groups of the convolutions of a graph, where its weights are known before it runs."""
    graph = _Graph(model)
    for node in list(model.graph.node):
        if node.op_type == "Conv" and _groups(node) > 1:
            _widen(graph, node)
    graph.insert()


def _widen(graph: _Graph, conv: NodeProto) -> None:
    from onnx import helper

    if not graph.has_own_weights(conv):
        return
    groups, shape = _groups(conv), graph.shapes[conv.input[1]]
    if shape[1] == 1 or GROUP_CHANNELS % shape[1] or shape[0] != groups * shape[1]:
        return
    channels, width = shape[:2]
    missing = -channels % GROUP_CHANNELS
    if missing:
        around = graph.layers_around(conv)
        if around is None:
            return
        for layer in around.writers:
            graph.pad(layer, missing, axis=0)
        for layer in around.readers:
            graph.pad(layer, missing, axis=1)
        graph.pad(conv, missing, axis=0)
    copies = GROUP_CHANNELS // width
    tiled, masked = f"{conv.input[1]}.tiled", f"{conv.input[1]}.wide"
    graph.before(conv, helper.make_node("Tile", [conv.input[1], graph.constant([1, copies, 1, 1])], [tiled]))
    graph.before(conv, helper.make_node("Mul", [tiled, graph.mask(channels + missing, width)], [masked]))
    conv.input[1] = masked
    conv.attribute.remove(next(each for each in conv.attribute if each.name == "group"))
    conv.attribute.append(helper.make_attribute("group", (channels + missing) // GROUP_CHANNELS))


def _groups(conv: NodeProto) -> int:
    return next((each.i for each in conv.attribute if each.name == "group"), 1)


@dataclass(frozen=True)
class _Around:
    """The layers that write the channels of a convolution, or factors for them, and those that read them."""

    writers: list[NodeProto]
    readers: list[NodeProto]


@dataclass
class _Graph:
    """A graph, and the nodes that are to be inserted into it.

    Attributes:
        shapes: of weights, by name.
    """

    model: ModelProto
    shapes: dict[str, list[int]] = field(init=False)
    _before: dict[str, list[NodeProto]] = field(default_factory=dict)  # by the first output of the node after them

    def __post_init__(self) -> None:
        from onnx import NodeProto, shape_inference

        graph = self.model.graph
        inferred = shape_inference.infer_shapes(self.model, data_prop=True).graph.value_info
        self.shapes = {each.name: [side.dim_value for side in each.type.tensor_type.shape.dim] for each in inferred}
        self.shapes |= {each.name: list(each.dims) for each in graph.initializer}
        self._writer: dict[str, NodeProto] = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._readers[name].append(node)
        for output in graph.output:
            self._readers[output.name].append(NodeProto(op_type="Output"))

    def layers_around(self, conv: NodeProto) -> _Around | None:
        """Return the layers around a convolution whose channels nothing else uses; None if something else does.

        After it may come an activation that is 0 at 0, and a gate by squeeze and excitation.
        """
        writer = self._writer.get(conv.input[0])
        if writer is not None and writer.op_type == "Relu":
            writer = self._writer.get(writer.input[0])
        readers = self._readers[conv.output[0]]
        if len(readers) == 1 and readers[0].op_type == "Relu":
            readers = self._readers[readers[0].output[0]]
        writers = [writer]
        if len(readers) == 2:
            gate = next((each for each in readers if each.op_type == "Mul"), None)
            mean = next((each for each in readers if each.op_type == "ReduceMean"), None)
            if gate is None or mean is None:
                return None
            factors = [self._writer.get(name) for name in gate.input]
            sigmoid = next((each for each in factors if each is not None and each.op_type == "Sigmoid"), None)
            writers.append(sigmoid and self._writer.get(sigmoid.input[0]))
            readers = [*self._readers[mean.output[0]], *self._readers[gate.output[0]]]
        layers = [each for each in writers if each is not None]
        if len(layers) < len(writers) or len(readers) != len(writers) or not all(map(self._is_plain, layers + readers)):
            return None
        return _Around(layers, readers) if all(map(self._is_used_once, layers)) else None

    def has_own_weights(self, layer: NodeProto) -> bool:
        """Return whether no other layer has the weights of this one, and their shape is known."""
        return layer.input[1] in self.shapes and len(self._readers[layer.input[1]]) == 1

    def _is_plain(self, node: NodeProto) -> bool:
        """Return whether a node is a convolution without groups."""
        return node.op_type == "Conv" and _groups(node) == 1 and self.has_own_weights(node)

    def _is_used_once(self, node: NodeProto) -> bool:
        """Return whether the outputs of a layer have one reader, and those of an activation after it too."""
        readers = self._readers[node.output[0]]
        return len(readers) == 1 and (readers[0].op_type != "Relu" or len(self._readers[readers[0].output[0]]) == 1)

    def pad(self, layer: NodeProto, channels: int, axis: int) -> None:
        """Add channels with weights of zero to a convolution: outputs (axis 0) or inputs (axis 1)."""
        from onnx import helper

        for place in (1, 2) if axis == 0 and len(layer.input) > 2 else (1,):
            name = layer.input[place]
            padded, ends = f"{name}.padded{axis}", [0] * len(self.shapes[name])
            ends[axis] = channels
            self.before(layer, helper.make_node("Pad", [name, self.constant([*[0] * len(ends), *ends])], [padded]))
            self.shapes[padded] = [side + end for side, end in zip(self.shapes[name], ends, strict=True)]
            layer.input[place] = padded

    def mask(self, channels: int, width: int) -> str:
        """Return the name of a mask (C, 16, 1, 1) of the inputs that an output of its own group of `width` has."""
        from onnx import numpy_helper

        name = f"groups_{channels}_{width}"
        group = np.arange(channels)[:, None] // width % (GROUP_CHANNELS // width)
        inside = (group == np.arange(GROUP_CHANNELS) // width).astype(np.float32)
        return self._initializer(numpy_helper.from_array(inside[:, :, None, None], name))

    def constant(self, values: list[int]) -> str:
        """Return the name of a vector of integers."""
        from onnx import numpy_helper

        name = "_".join(["integers", *map(str, values)])
        return self._initializer(numpy_helper.from_array(np.array(values, np.int64), name))

    def before(self, node: NodeProto, added: NodeProto) -> None:
        """Insert a node before another one."""
        self._before.setdefault(node.output[0], []).append(added)

    def insert(self) -> None:
        """Insert the added nodes."""
        graph = self.model.graph
        nodes = [each for node in graph.node for each in (*self._before.get(node.output[0], []), node)]
        del graph.node[:], graph.value_info[:]  # the sizes without the added channels too
        graph.node.extend(nodes)

    def _initializer(self, tensor: TensorProto) -> str:
        if tensor.name not in self.shapes:
            self.shapes[tensor.name] = list(tensor.dims)
            self.model.graph.initializer.append(tensor)
        return str(tensor.name)
