"""Static int8 quantization of the two matrix products inside an attention (needs the extra ``train``).

:func:`spicula.runtime.quantize.quantize` rounds layers, which multiply by weights. With many tokens as much time goes
into q times k and into the shares times v, where both sides are activations. q, k and v bear int8 well. The shares
(softmax) are rounded to 256 steps of one length, which loses many small ones where some tokens look at few others. What
an attention gives is compared with and without rounding, and only those that agree are changed.

References:
    Jacob et al. 2018, arXiv 1712.05877; Zhang et al. 2024, arXiv 2410.02367 (SageAttention: q times k in int8).
    Departure: the shares in int8 too, with one scale for all rows, as OpenVINO fuses it.
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

MOST_ERROR = 0.03
"""Of what an attention gives: length of the error over length of the truth."""

KEPT_ROWS = 32
"""Of the queries of each head and input, by chance, to choose the ranges from."""

TRIED = np.geomspace(1.0, 0.01, 30)
"""Parts of the largest share that are tried as the end of their range."""

SIDES = ("q", "k", "v")


@dataclass(frozen=True, slots=True)
class QuantizedAttention:
    """A network whose attentions are computed in int8 where that is close enough.

    Args:
        network: The ONNX file.
        errors: Of each attention, in order, on the inputs: length of the error over length of what it gives.
        changed: Which of them are in int8 now.
    """

    network: bytes
    errors: tuple[float, ...]
    changed: tuple[bool, ...]


def quantize_attention(
    network: bytes | Path, inputs: Iterable[Array], *, most_error: float = MOST_ERROR, threads: int | None = None
) -> QuantizedAttention:
    """Put the products inside attentions into int8, where they bear it; layers stay as they are.

    Call it before :func:`spicula.runtime.quantize.quantize`, with the same inputs.

    Args:
        network: The ONNX file or its bytes, with one input, computed in float32.
        inputs: What the network will see, one batch each; they set the ranges. A few will do.
        most_error: An attention that errs by more stays as it is; see :class:`QuantizedAttention`.
        threads: For running the inputs; OpenVINO chooses if None.

    Returns:
        The network. The same network, inputs and machine give the same bytes.

    Raises:
        InputError: There are no inputs, or no attention (a softmax straight between two products of activations).
        MissingExtraError: onnx is not installed.
    """
    onnx = require("onnx", extra="train")
    model = onnx.load_from_string(network if isinstance(network, bytes) else network.read_bytes())
    attentions = _attentions(model)
    if not attentions:
        raise InputError("network", got="no attention", expected="a softmax between two products of activations")
    _observe(onnx, model, attentions, inputs, threads=threads)
    found = [attention.judged() for attention in attentions]
    changed = tuple(error <= most_error for error, _ in found)
    rewritten = _Rewritten(onnx, model)
    for attention, (_, scale), change in zip(attentions, found, changed, strict=True):
        if change:
            rewritten.quantize(attention, scale)
    rewritten.finish()
    onnx.checker.check_model(model)
    content = bytes(model.SerializeToString(deterministic=True))
    return QuantizedAttention(content, tuple(error for error, _ in found), changed)


@dataclass(slots=True, eq=False)
class _Attention:
    """Two products, a softmax between them, and what was seen of their sides.

    Args:
        names: Of what is multiplied, by side.
        products: What the two products give.
        seen: For each input q of some rows ``[n, heads, rows, f]``, k ``[n, heads, f, tokens]`` and v
            ``[n, heads, tokens, f]``.
    """

    names: dict[str, str]
    products: tuple[str, str]
    seen: list[tuple[Array, Array, Array]] = field(default_factory=list)

    def see(self, q: Array, k: Array, v: Array, rng: np.random.Generator) -> None:
        for name, values in (("q", q), ("k", k), ("v", v)):
            if not np.isfinite(values).all():
                raise InputError(
                    f"activation {self.names[name]}", got="values that are not finite", expected="numbers"
                )  # fmt: skip
        rows = rng.integers(0, q.shape[-2], KEPT_ROWS)
        self.seen.append((q[..., rows, :].copy(), k.copy(), v.copy()))

    def judged(self) -> tuple[float, dict[str, np.float32]]:
        """The error of what it gives, and the scale of each side; that of the shares is the one of least error."""
        scale = {side: _scale([one[place] for one in self.seen]) for place, side in enumerate(SIDES)}
        truth = [_softmax(q @ k) @ v for q, k, v in self.seen]
        rounded = [_softmax(_rounded(q, scale["q"]) @ _rounded(k, scale["k"])) for q, k, _ in self.seen]
        values = [_rounded(v, scale["v"]) for _, _, v in self.seen]
        tried = []
        for step in (TRIED * max(float(shares.max()) for shares in rounded) / 255).astype(np.float32):
            kept = [np.clip(np.rint(shares / step), 0, 255) * step for shares in rounded]
            wrong = [some @ v - right for some, v, right in zip(kept, values, truth, strict=True)]
            tried.append((_length(wrong) / max(_length(truth), 1e-30), step))
        error, scale["shares"] = min(tried, key=lambda one: one[0])
        return error, scale


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float32)


def _length(arrays: Sequence[Array]) -> float:
    return float(np.sqrt(sum(np.square(one, dtype=np.float64).sum() for one in arrays)))


def _rounded(values: Array, scale: np.float32) -> Array:
    return np.asarray(np.clip(np.rint(values / scale), -127, 127) * scale, dtype=np.float32)


def _scale(seen: Sequence[Array]) -> np.float32:
    """The length of a step that gives the least squared error."""
    values = np.concatenate([one.ravel() for one in seen])
    largest = float(np.abs(values).max())
    values = values[:: max(1, len(values) // 500_000)]
    found = []
    for part in np.linspace(1.0, 0.4, 13):
        scale = np.float32(max(part * largest, 1e-12) / 127)
        found.append((float(np.square(_rounded(values, scale) - values).mean()), scale))
    return min(found, key=lambda one: one[0])[1]


def _attentions(model: Any) -> list[_Attention]:
    maker = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    constants = {tensor.name for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        logits, after = maker.get(node.input[0]) if node.input else None, readers.get(node.output[0], [])
        if node.op_type != "Softmax" or logits is None or logits.op_type != "MatMul" or len(after) != 1:
            continue
        (mix,) = after
        if mix.op_type != "MatMul" or mix.input[0] != node.output[0] or {*logits.input, mix.input[1]} & constants:
            continue
        names = dict(zip(SIDES, (*logits.input, mix.input[1]), strict=True))
        found.append(_Attention(names, (logits.output[0], mix.output[0])))
    return found


def _observe(
    onnx: Any, model: Any, attentions: Sequence[_Attention], inputs: Iterable[Array], *, threads: int | None
) -> None:
    """Run the inputs and look at q, k and v."""
    import openvino

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names = list(dict.fromkeys(one.names[side] for one in attentions for side in SIDES))
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(watched.SerializeToString()), "CPU", config)
    outputs = dict(zip(names, compiled.outputs[len(model.graph.output) :], strict=True))
    rng = np.random.default_rng(0)
    for batch in inputs:
        results = compiled([np.ascontiguousarray(batch, dtype=np.float32)])
        for attention in attentions:
            q, k, v = (results[outputs[attention.names[side]]] for side in SIDES)
            attention.see(q, k, v, rng)
    if not attentions[0].seen:
        raise InputError("inputs", got="none", expected="some of what the network will see")


class _Rewritten:
    """A model with what is put before its products."""

    def __init__(self, onnx: Any, model: Any) -> None:
        self.onnx, self.graph = onnx, model.graph
        self.maker = {name: node for node in model.graph.node for name in node.output}
        self.before: dict[str, list[Any]] = {}

    def quantize(self, attention: _Attention, scale: Mapping[str, np.float32]) -> None:
        """Round what the two products read."""
        for product, sides in zip(attention.products, (("q", "k"), ("shares", "v")), strict=True):
            node = self.maker[product]
            self.before[product] = [one for place in (0, 1) for one in self._rounded(node, place, scale[sides[place]])]

    def _rounded(self, node: Any, place: int, scale: np.float32) -> list[Any]:
        """To int8 about 0; shares to uint8 from 0."""
        name, own, make = node.input[place], f"{node.output[0]}.{place}", self.onnx.helper.make_node
        shares = name in self.maker and self.maker[name].op_type == "Softmax"
        zero: NDArray[Any] = np.zeros((), dtype=np.uint8 if shares else np.int8)
        for what, value in (("scale", np.asarray(scale)), ("zero", zero)):
            self.graph.initializer.append(self.onnx.numpy_helper.from_array(value, name=f"{own}.{what}"))
        node.input[place], parts = f"{own}.float", [f"{own}.scale", f"{own}.zero"]
        return [
            make("QuantizeLinear", [name, *parts], [f"{own}.int8"], name=f"{own}.quantize"),
            make("DequantizeLinear", [f"{own}.int8", *parts], [f"{own}.float"], name=f"{own}.dequantize"),
        ]

    def finish(self) -> None:
        """Put the new nodes in their places."""
        nodes = [one for node in self.graph.node for one in (*self.before.get(node.output[0], ()), node)]
        self.graph.ClearField("node")
        self.graph.node.extend(nodes)
