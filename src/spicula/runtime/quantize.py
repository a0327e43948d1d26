"""Static int8 quantization of an ONNX network: weights and activations, for CPUs with VNNI (needs the extra ``train``).

References:
    Jacob et al. 2018, arXiv 1712.05877 (scale and zero point); Xiao et al. 2023, arXiv 2211.10438 (SmoothQuant: what is
    hard to round in an activation is moved into the weights that follow; here after layer norms, with strength 1/2).
    Departure: the range of an activation is that of the least squared error, not that of its largest value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.extras import require

Array = NDArray[np.float32]

LEAST_WEIGHTS = 4096
"""Layers with fewer weights stay in float32."""

KEPT_ROWS = 64
"""Of an activation and an input, by chance, to choose its range from."""

KEPT_SHARES = tuple(np.linspace(1.0, 0.1, 19))
"""Shares of an activation's full range that are tried."""

FLOAT, HALF = 1, 10
"""ONNX's numbers of its types."""


def quantize(network: bytes | Path, inputs: Iterable[Array], *, threads: int | None = None) -> bytes:
    """Quantize the large matrix products and convolutions of an ONNX network to int8.

    The result is an ONNX network of about a quarter of the size that
    :func:`spicula.runtime.openvino.load_network` runs in int8. Where a CPU lacks VNNI, sums of int8 products can
    overflow: use the unquantized network there.

    Args:
        network: The ONNX file or its bytes, with one input, computed in float32.
        inputs: What the network will see, one batch each; they set the ranges of the activations. A dozen will do.
        threads: For running the inputs; OpenVINO chooses if None.

    Returns:
        The ONNX file. The same network, inputs and machine give the same bytes.

    Raises:
        InputError: There are no inputs, the network has nothing to quantize, or an activation is not finite.
        MissingExtraError: onnx is not installed.
    """
    onnx = require("onnx", extra="train")
    model = onnx.load_from_string(network if isinstance(network, bytes) else network.read_bytes())
    constants = _constants(onnx, model)
    activations = _activations(model, constants)
    if not activations:
        raise InputError("network", got="nothing to quantize", expected=f"a layer of {LEAST_WEIGHTS} weights or more")
    _observe(onnx, model, activations, inputs, threads=threads)
    changed = _Changed(onnx, model)
    for activation in activations:
        weights = {layer.output[0]: constants[layer.input[1]] for layer in activation.layers}
        if activation.norm is not None:
            _smooth(activation, weights, constants, changed)
        changed.quantize_activation(activation)
        for layer in activation.layers:
            changed.quantize_weights(layer, weights[layer.output[0]])
    changed.finish()
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


@dataclass(slots=True, eq=False)
class _Activation:
    """What layers read, and what was seen of it.

    Args:
        name: Of the tensor.
        layers: That read it, perhaps through a slice.
        slices: Through which they read it.
        norm: The layer norm that makes it, where nothing else reads it: its channels can be scaled.
    """

    name: str
    layers: list[Any] = field(default_factory=list)
    slices: list[Any] = field(default_factory=list)
    norm: Any = None
    lows: list[Array] = field(default_factory=list)
    highs: list[Array] = field(default_factory=list)
    rows: list[Array] = field(default_factory=list)

    def see(self, found: Array, rng: np.random.Generator) -> None:
        if not np.isfinite(found).all():
            raise InputError(f"activation {self.name}", got="values that are not finite", expected="numbers")
        rows = found.reshape(-1, found.shape[-1])
        self.lows.append(rows.min(axis=0))
        self.highs.append(rows.max(axis=0))
        self.rows.append(rows[rng.integers(0, len(rows), KEPT_ROWS)])

    def largest(self) -> Array:
        """Of each channel, without sign."""
        return np.asarray(np.maximum(-np.min(self.lows, axis=0), np.max(self.highs, axis=0)))

    def divide(self, by: Array) -> None:
        for seen in (self.lows, self.highs, self.rows):
            seen[:] = [values / by for values in seen]

    def range(self) -> tuple[np.float32, np.uint8]:
        """Scale and zero point of least squared error over what was seen."""
        least, largest = min(0.0, float(np.min(self.lows))), max(0.0, float(np.max(self.highs)))
        values = np.concatenate([*(rows.ravel() for rows in self.rows), np.array([least, largest], dtype=np.float32)])
        found = []
        for share in KEPT_SHARES:
            scale = np.float32(max(share * (largest - least), 1e-8) / 255)
            zero = np.uint8(np.clip(np.rint(-share * least / scale), 0, 255))
            rounded = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
            found.append((float(np.mean((rounded - values) ** 2)), scale, zero))
        _, scale, zero = min(found, key=lambda one: one[0])
        return scale, zero


def _constants(onnx: Any, model: Any) -> dict[str, Array]:
    """Weights by name; those stored in half precision under the name of their cast, too."""
    found = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type in (FLOAT, HALF)}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return {name: onnx.numpy_helper.to_array(tensor).astype(np.float32) for name, tensor in found.items()}


def _activations(model: Any, constants: Mapping[str, Array]) -> list[_Activation]:
    """What the layers that shall be quantized read."""
    maker = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, _Activation] = {}
    for node in model.graph.node:
        if not _is_layer(node, constants):
            continue
        cut = maker.get(node.input[0])
        slices = [cut] if cut is not None and cut.op_type == "Slice" and len(readers[node.input[0]]) == 1 else []
        name = slices[0].input[0] if slices else node.input[0]
        activation = found.setdefault(name, _Activation(name))
        activation.layers.append(node)
        activation.slices += slices
    outputs = {value.name for value in model.graph.output}
    for name, activation in found.items():
        norm, own = maker.get(name), [*activation.layers, *activation.slices]
        alone = name not in outputs and all(any(reader is node for node in own) for reader in readers[name])
        if norm is not None and alone and _can_be_scaled(norm, activation.layers, constants):
            activation.norm = norm
    return list(found.values())


def _can_be_scaled(norm: Any, layers: Sequence[Any], constants: Mapping[str, Array]) -> bool:
    """Whether it is a layer norm with a weight for each channel that the layers multiply."""
    sizes = {constants[layer.input[1]].shape[0] for layer in layers if layer.op_type == "MatMul"}
    return (
        norm.op_type == "LayerNormalization"
        and all(layer.op_type == "MatMul" for layer in layers)
        and all(name in constants and {*constants[name].shape} == sizes for name in norm.input[1:])
    )


def _is_layer(node: Any, constants: Mapping[str, Array]) -> bool:
    if node.op_type not in ("MatMul", "Gemm", "Conv") or node.input[1] not in constants or node.input[0] in constants:
        return False
    weights = constants[node.input[1]]
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return weights.size >= LEAST_WEIGHTS and not turned and (node.op_type == "Conv" or weights.ndim == 2)


def _observe(
    onnx: Any, model: Any, activations: Sequence[_Activation], inputs: Iterable[Array], *, threads: int | None
) -> None:
    """Run the inputs and look at the activations."""
    import openvino

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    (given,) = [value.name for value in model.graph.input]
    inner = [activation for activation in activations if activation.name != given]
    watched.graph.output.extend(onnx.helper.make_tensor_value_info(one.name, FLOAT, None) for one in inner)
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(watched.SerializeToString()), "CPU", config)
    outputs = compiled.outputs[len(model.graph.output) :]
    rng = np.random.default_rng(0)
    for batch in inputs:
        results = compiled([np.ascontiguousarray(batch, dtype=np.float32)])
        for activation, output in zip(inner, outputs, strict=True):
            activation.see(results[output], rng)
        for activation in activations:
            if activation.name == given:
                activation.see(batch, rng)
    if not activations[0].rows:
        raise InputError("inputs", got="none", expected="some of what the network will see")


def _smooth(
    activation: _Activation, weights: dict[str, Array], constants: Mapping[str, Array], changed: _Changed
) -> None:
    """Divide a layer norm's channels and multiply the weights that read them: the same numbers, easier to round."""
    of_weights = np.max([np.abs(weight).max(axis=1) for weight in weights.values()], axis=0)
    by = np.sqrt(np.maximum(activation.largest(), 1e-5) / np.maximum(of_weights, 1e-5)).astype(np.float32)
    by /= np.exp(np.log(by).mean())
    activation.divide(by)
    for name in weights:
        weights[name] = weights[name] * by[:, None]
    for place, name in enumerate(activation.norm.input[1:], start=1):
        activation.norm.input[place] = changed.constant(f"{activation.name}.norm_{place}", constants[name] / by)


class _Changed:
    """A model with what is put into it."""

    def __init__(self, onnx: Any, model: Any) -> None:
        self.onnx, self.model = onnx, model
        self.first: list[Any] = []
        self.after: dict[str, list[Any]] = {}

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        self.model.graph.initializer.append(self.onnx.numpy_helper.from_array(np.asarray(value), name=name))
        return name

    def quantize_activation(self, activation: _Activation) -> None:
        name = activation.name
        scale, zero = activation.range()
        parts = [self.constant(f"{name}.scale", scale), self.constant(f"{name}.zero", zero)]
        make = self.onnx.helper.make_node
        self.after[name] = [
            make("QuantizeLinear", [name, *parts], [f"{name}.int8"], name=f"{name}.quantize"),
            make("DequantizeLinear", [f"{name}.int8", *parts], [f"{name}.float"], name=f"{name}.dequantize"),
        ]
        for reader in (*activation.layers, *activation.slices):
            if reader.input[0] == name:
                reader.input[0] = f"{name}.float"

    def quantize_weights(self, layer: Any, weights: Array) -> None:
        """To int8 with a scale for each output."""
        turned = any(attribute.name == "transB" and attribute.i for attribute in layer.attribute)
        axis = 0 if layer.op_type == "Conv" or turned else 1
        others = tuple(place for place in range(weights.ndim) if place != axis)
        scale = (np.maximum(np.abs(weights).max(axis=others), 1e-12) / 127).astype(np.float32)
        rounded = np.clip(np.rint(weights / np.expand_dims(scale, others)), -127, 127).astype(np.int8)
        name = f"{layer.output[0]}.weight"
        parts = [
            self.constant(f"{name}.int8", rounded),
            self.constant(f"{name}.scale", scale),
            self.constant(f"{name}.zero", np.zeros(len(scale), dtype=np.int8)),
        ]
        self.first.append(
            self.onnx.helper.make_node("DequantizeLinear", parts, [name], axis=axis, name=f"{name}.dequantize")
        )
        layer.input[1] = name

    def finish(self) -> None:
        """Put the new nodes in their places; constants and casts that nothing reads any more go."""
        graph = self.model.graph
        nodes = [*self.first, *(new for value in graph.input for new in self.after.get(value.name, []))]
        for node in graph.node:
            nodes += [node, *(new for name in node.output for new in self.after.get(name, []))]
        read = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
        nodes = [node for node in nodes if node.op_type != "Cast" or node.output[0] in read]
        read = {name for node in nodes for name in node.input}
        constants = [tensor for tensor in graph.initializer if tensor.name in read]
        for field_name, content in (("node", nodes), ("initializer", constants)):
            graph.ClearField(field_name)
            getattr(graph, field_name).extend(content)
