"""Export of a single-frame model to ONNX; `exported` runs the result. It needs the extra `export`."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from aupipe.errors import CheckpointError, ConfigError
from aupipe.faces import CROP_SIZE_PX
from aupipe.models.checkpoint import WEIGHTS, Card
from aupipe.models.configs import SingleFrameConfig
from aupipe.models.embedding import embed
from aupipe.models.exported import CROPS, LOGITS
from aupipe.models.inputs import InputSpec, scaling
from aupipe.models.interfaces import FrameEncoder, System
from aupipe.models.wide_groups import widen_groups
from aupipe.onnx_session import GraphError, open_session

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

MAX_DIFFERENCE = 1e-4  # of a logit; probabilities then differ by at most a quarter of this
_OPSET = 20
_LAYERS = ("Conv", "Gemm")
_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")


def export(system: System, card: Card, weights: bytes) -> bytes:
    """Return the content of `model.onnx`.

    Args:
        weights: the content of `model.safetensors`, in which the graph refers to places.

    Raises:
        ConfigError: a package of the extra `export` is missing.
        CheckpointError: the model looks at more than one frame, or it contains an operation that cannot be exported.
    """
    if not isinstance(card.model, SingleFrameConfig):
        raise CheckpointError(f"{card.model.name} looks at several frames (only single-frame models can be exported)")
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ConfigError(f"the package {error.name} is missing; fix: pip install 'aupipe[export]'") from None
    crops = torch.zeros(2, CROP_SIZE_PX, CROP_SIZE_PX, 3, dtype=torch.uint8)
    for name in ("torch.onnx", "onnx_ir", "onnxscript"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _FromCrops(encoder=system.encoder, inputs=card.input).eval(), (crops,), dynamo=True, verbose=False,
                opset_version=_OPSET, optimize=False, input_names=[CROPS], output_names=[LOGITS],
                dynamic_shapes={CROPS: {0: torch.export.Dim("batch", min=1, max=4096)}},
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        raise CheckpointError(f"torch cannot export it: {' '.join(str(error).split())[:300]}") from None
    assert program is not None
    shape = program.model.graph.inputs[0].shape
    if shape is None or isinstance(shape[0], int):  # as `len(tensor)` in a forward pass makes it
        raise CheckpointError(f"torch exports {card.model.name} for batches of {len(crops)} only")
    tensors = _floats(system)
    norms = _norms(program.model_proto, tensors)
    program.optimize()
    model = program.model_proto
    _refer_to_weights(model, tensors, _places(weights), norms)
    _strip(model)
    widen_groups(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def checked(system: System, card: Card, weights: bytes) -> tuple[bytes, float]:
    """Return the content of `model.onnx`, and its largest difference from torch's logits for 16 random crops.

    Raises:
        ConfigError, CheckpointError: as `export`; or the difference is above `MAX_DIFFERENCE`.
    """
    graph = export(system, card, weights)
    crops = np.random.default_rng(0).integers(0, 256, (16, CROP_SIZE_PX, CROP_SIZE_PX, 3), np.uint8)
    try:
        session = open_session(graph, {WEIGHTS: weights})
    except GraphError as error:
        raise CheckpointError(f"ONNX Runtime cannot run the graph that torch exports ({error})") from None
    logits = session.run([LOGITS], {CROPS: crops})[0]
    expected = embed(system.encoder, card.input.prepare(torch.from_numpy(crops)), len(crops)).numpy()
    difference = float(np.abs(logits - expected).max())
    if difference > MAX_DIFFERENCE:
        raise CheckpointError(f"logits of the graph differ from torch's by {difference:.1g} (≤ {MAX_DIFFERENCE:g})")
    return graph, difference


def _floats(system: System) -> dict[str, np.ndarray]:
    """Return the tensors to which a graph can refer."""
    return {name: tensor.numpy() for name, tensor in system.state_dict().items() if tensor.is_floating_point()}


class _FromCrops(nn.Module):
    """Crops (B, 112, 112, 3) uint8 → logits (B, E): `InputSpec.prepare` and the encoder.

    Scaling is two matrix products, because ONNX Runtime's antialiased resizing is not torch's. The names of the
    constants are not those of operations, with which the exporter would confuse them.
    """

    scaling: Tensor
    scaling_across: Tensor
    channel_means: Tensor
    channel_stds: Tensor

    def __init__(self, *, encoder: FrameEncoder, inputs: InputSpec) -> None:
        super().__init__()
        self.encoder = encoder
        self.left, self.top, self.side = inputs.box_px or (0, 0, CROP_SIZE_PX)
        rows = scaling(self.side, inputs.size_px)
        self.register_buffer("scaling", rows)
        self.register_buffer("scaling_across", rows.flip(0) if inputs.mirrored else rows.clone())
        self.register_buffer("channel_means", torch.tensor(inputs.mean)[:, None, None])
        self.register_buffer("channel_stds", torch.tensor(inputs.std)[:, None, None])

    def forward(self, crops: Tensor) -> Tensor:
        region = crops[:, self.top : self.top + self.side, self.left : self.left + self.side]
        images = self.scaling @ (region.permute(0, 3, 1, 2).float() / 255) @ self.scaling_across.T
        logits: Tensor = self.encoder((images - self.channel_means) / self.channel_stds)
        return logits


@dataclass(frozen=True)
class _Norm:
    """A batch normalization: the prefix of its tensors, its epsilon, and the bias ("": none) of the layer before it."""

    name: str
    epsilon: float
    bias: str


def _norms(model: ModelProto, names: Collection[str]) -> dict[str, _Norm]:
    """Return the batch normalization after each convolution or linear layer, by the name of the layer's weight.

    Args:
        names: of the tensors of the checkpoint. The exporter adds biases of zero, which are not among them.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    found = {}
    for node in model.graph.node:
        layer = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if layer is not None and layer.op_type in _LAYERS:
            (epsilon,) = (attribute.f for attribute in node.attribute if attribute.name == "epsilon")
            bias = next((name for name in layer.input[2:] if name in names), "")
            found[layer.input[1]] = _Norm(node.input[1].removesuffix(".weight"), epsilon, bias)
    return found


def _refer_to_weights(
    model: ModelProto, tensors: Mapping[str, np.ndarray], places: Mapping[str, _Place], norms: Mapping[str, _Norm]
) -> None:
    """Replace the initializers that are tensors of the checkpoint by references to its file.

    The exporter has folded batch normalizations into the weights and biases before them. Nodes that fold them replace
    these values. ONNX Runtime runs them once, when it loads the graph.
    """
    from onnx import NodeProto, TensorProto, helper, numpy_helper

    graph = model.graph
    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    replaced, nodes = set[str](), list[NodeProto]()
    added: list[TensorProto] = []
    for layer in [node for node in graph.node if node.op_type in _LAYERS and node.input[1] in norms]:
        weight, norm = layer.input[1], norms[layer.input[1]]
        gamma, beta, mean, variance = (f"{norm.name}.{each}" for each in _NORM_TENSORS)
        scale = tensors[gamma] / np.sqrt(tensors[variance] + norm.epsilon)
        shape = (-1, *[1] * (tensors[weight].ndim - 1))
        if not np.allclose(values[weight], tensors[weight] * scale.reshape(shape), rtol=1e-4, atol=1e-6):
            continue  # The exporter has not folded this one.
        epsilon, shape_name = f"{norm.name}.epsilon", f"{norm.name}.shape"
        added.append(helper.make_tensor(epsilon, TensorProto.FLOAT, [], [norm.epsilon]))
        added.append(helper.make_tensor(shape_name, TensorProto.INT64, [len(shape)], shape))
        steps = [
            ("Add", [variance, epsilon], "positive"), ("Sqrt", [f"{norm.name}.positive"], "deviation"),
            ("Div", [gamma, f"{norm.name}.deviation"], "scale"),
            ("Sub", [mean, norm.bias], "center") if norm.bias else ("Identity", [mean], "center"),
            ("Mul", [f"{norm.name}.center", f"{norm.name}.scale"], "shift"),
            ("Sub", [beta, f"{norm.name}.shift"], "folded_bias"),
            ("Reshape", [f"{norm.name}.scale", shape_name], "scale_of_rows"),
            ("Mul", [weight, f"{norm.name}.scale_of_rows"], "folded_weight"),
        ]  # fmt: skip
        nodes += [helper.make_node(kind, inputs, [f"{norm.name}.{output}"]) for kind, inputs, output in steps]
        replaced |= {weight, *layer.input[2:]}
        del layer.input[1:]
        layer.input.extend([f"{norm.name}.folded_weight", f"{norm.name}.folded_bias"])
    left = [each for each in graph.initializer if each.name not in replaced]
    changed = [
        each.name for each in left if each.name in tensors and not np.array_equal(values[each.name], tensors[each.name])
    ]
    if changed:
        raise CheckpointError(f"the exporter has changed {', '.join(changed[:3])} in a way that is not known here")
    used = {name for node in (*nodes, *graph.node) for name in node.input}
    stored = [_stored(name, place) for name, place in places.items() if name in used]
    casts = [
        helper.make_node("Cast", [each.name], [name], to=TensorProto.FLOAT)
        for name, each in zip((name for name in places if name in used), stored, strict=True)
    ]
    del graph.initializer[:]
    graph.initializer.extend([*(each for each in left if each.name not in tensors), *added, *stored])
    ordered = [*casts, *nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(ordered)


@dataclass(frozen=True)
class _Place:
    """The place of a tensor in `model.safetensors`."""

    dtype: str
    shape: list[int]
    offset: int
    length: int


def _places(weights: bytes) -> dict[str, _Place]:
    """Return the places of the tensors of a safetensors file: its header is JSON, after the length of the header."""
    start = 8 + int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8:start])
    places = {}
    for name, each in header.items():
        if name != "__metadata__":
            first, last = each["data_offsets"]
            places[name] = _Place(each["dtype"], each["shape"], start + first, last - first)
    return places


def _stored(name: str, place: _Place) -> TensorProto:
    """Return an initializer whose values are in the file of the weights."""
    from onnx import TensorProto

    dtype = {"F16": TensorProto.FLOAT16, "F32": TensorProto.FLOAT}[place.dtype]
    tensor = TensorProto(
        name=f"{name}.stored", dims=place.shape, data_type=dtype, data_location=TensorProto.EXTERNAL
    )  # fmt: skip
    for key, text in (("location", WEIGHTS), ("offset", str(place.offset)), ("length", str(place.length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text
    return tensor


def _strip(model: ModelProto) -> None:
    """Remove what ONNX Runtime does not need: traces of the exporter, with paths of this machine."""
    graph = model.graph
    del graph.value_info[:], graph.metadata_props[:], model.metadata_props[:]
    for node in graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
