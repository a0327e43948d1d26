"""Attention in int8: what it keeps, what it leaves alone, what it refuses."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from spicula.core.errors import InputError

onnx = pytest.importorskip("onnx", reason="pip install 'spicula[train]'")

from spicula.runtime.openvino import load_network  # noqa: E402
from spicula.runtime.quantize import quantize  # noqa: E402
from spicula.runtime.quantize_attention import quantize_attention  # noqa: E402

HEADS, TOKENS, WIDTH = 2, 130, 64


def attention(sharp: float) -> bytes:
    """Input ``[batch, heads, tokens, width]``; the sharper, the fewer tokens each looks at."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    scale = {"q": sharp / 8, "k": 1 / 8, "v": 1 / 8}
    stored = [
        numpy_helper.from_array((rng.normal(size=(WIDTH, WIDTH)) * s).astype(np.float32), name=f"to_{name}")
        for name, s in scale.items()
    ]
    nodes = [
        *(helper.make_node("MatMul", ["image", f"to_{name}"], [name], name=f"make_{name}") for name in scale),
        helper.make_node("Transpose", ["k"], ["turned"], perm=[0, 1, 3, 2], name="turn"),
        helper.make_node("MatMul", ["q", "turned"], ["logits"], name="look"),
        helper.make_node("Softmax", ["logits"], ["shares"], axis=-1, name="share"),
        helper.make_node("MatMul", ["shares", "v"], ["mixed"], name="mix"),
    ]
    size = ["batch", HEADS, TOKENS, WIDTH]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name in ("image", "mixed")]
    graph = helper.make_graph(nodes, "t", ports[:1], ports[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [np.random.default_rng(seed).normal(size=(1, HEADS, TOKENS, WIDTH)).astype(np.float32) for seed in range(6)]


def operations(content: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(content).graph.node)


def error(bundle, images) -> float:
    exact, rounded = (load_network(bundle, f"{name}.onnx", threads=1) for name in ("f32", "int8"))
    pairs = [(exact(image)[0], rounded(image)[0]) for image in images]
    wrong, right = (np.concatenate(some) for some in ([b - a for a, b in pairs], [a for a, _ in pairs]))
    return float(np.linalg.norm(wrong) / np.linalg.norm(right))


@pytest.mark.parametrize("sharp", [0.05, 0.4])
def test_the_error_is_told_as_it_is_later(bundle_of, images, sharp) -> None:
    raw = attention(sharp)
    made = quantize_attention(raw, images[:3], most_error=0.09, threads=1)
    assert made.changed == (True,)
    assert operations(made.network)["QuantizeLinear"] == 4
    real = error(bundle_of({"f32.onnx": raw, "int8.onnx": made.network}), images[3:])
    assert 0.7 < real / made.errors[0] < 1.4


def test_what_would_err_too_much_stays(bundle_of, images) -> None:
    raw = attention(0.4)
    made = quantize_attention(raw, images[:3], most_error=0.01, threads=1)
    assert made.changed == (False,)
    assert made.errors[0] > 0.01
    assert operations(made.network)["QuantizeLinear"] == 0
    assert error(bundle_of({"f32.onnx": raw, "int8.onnx": made.network}), images[3:]) < 1e-6


def test_layers_beside_it_can_be_quantized_too_and_any_batch_runs(bundle_of, images) -> None:
    raw = attention(0.05)
    made = quantize(quantize_attention(raw, images[:3], threads=1).network, images[:3], threads=1)
    assert operations(made)["QuantizeLinear"] == 5
    bundle = bundle_of({"f32.onnx": raw, "int8.onnx": made})
    assert error(bundle, images[3:]) < 0.05
    assert load_network(bundle, "int8.onnx", threads=1)(np.concatenate(images[:3]))[0].shape[0] == 3


def test_both_products_really_run_in_int8(images) -> None:
    import openvino

    made = quantize_attention(attention(0.05), images, threads=1).network
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(made), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [str(node.get_rt_info()["primitiveType"].astype(str)) for node in compiled.get_runtime_model().get_ops()]
    assert any("8" in name and "32" not in name for name in names)


def test_the_same_network_and_inputs_give_the_same_bytes(images, tmp_path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(attention(0.1))
    first, second = (quantize_attention(given, images, threads=1) for given in (path, attention(0.1)))
    assert first == second


def test_nothing_to_do_is_an_error(products, images) -> None:
    with pytest.raises(InputError, match="no attention"):
        quantize_attention(products(), images, threads=1)
    with pytest.raises(InputError, match="none"):
        quantize_attention(attention(0.1), [], threads=1)
    with pytest.raises(InputError, match="not finite"):
        quantize_attention(attention(0.1), [images[0] * np.nan], threads=1)
