"""Static int8 quantization: what it keeps, what it moves, what it refuses."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from spicula.core.errors import InputError

onnx = pytest.importorskip("onnx", reason="pip install 'spicula[train]'")

from spicula.runtime.openvino import load_network  # noqa: E402
from spicula.runtime.quantize import quantize  # noqa: E402


@pytest.fixture
def images() -> list[np.ndarray]:
    return [np.random.default_rng(seed).normal(size=(1, 6, 64)).astype(np.float32) for seed in range(16)]


def operations(content: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(content).graph.node)


def error(bundle, images) -> float:
    """Root mean square error of the int8 network, as a share of the float32 network's spread."""
    exact, rounded = (load_network(bundle, f"{name}.onnx", threads=1) for name in ("f32", "int8"))
    pairs = [(exact(image)[0], rounded(image)[0]) for image in images]
    return float(np.sqrt(np.mean([(a - b) ** 2 for a, b in pairs])) / np.std([a for a, _ in pairs]))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_an_int8_network_agrees_with_its_original(bundle_of, products, images, half, norm) -> None:
    raw = products(half=half, norm=norm)
    made = quantize(raw, images[:8], threads=1)
    found = operations(made)
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 3)  # one activation, two weights
    assert found["Cast"] == 0
    assert len(made) < 0.45 * len(products(norm=norm))
    assert error(bundle_of({"f32.onnx": raw, "int8.onnx": made}), images[8:]) < 0.02


def test_the_layers_really_run_in_int8(bundle_of, products, images) -> None:
    import openvino

    made = quantize(products(), images, threads=1)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(made), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    info = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    layers = [str(of["runtimePrecision"].astype(str)) for of in info if "FullyConnected" in of["layerType"].astype(str)]
    assert len(layers) == 2
    assert all(precision.lower() in ("i8", "u8") for precision in layers)


def test_large_channels_move_into_the_weights(bundle_of, products, images) -> None:
    raw = products(outliers=100.0)
    made = quantize(raw, images[:8], threads=1)
    model = onnx.load_from_string(made)
    (norm,) = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    of = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    gain = of[norm.input[1]]
    assert gain[3] / np.median(gain) < 5.0  # it was 100
    assert error(bundle_of({"f32.onnx": raw, "int8.onnx": made}), images[8:]) < 0.02


def test_the_same_network_and_inputs_give_the_same_bytes(products, images, tmp_path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(products())
    assert quantize(path, images, threads=1) == quantize(products(), images, threads=1)


def test_a_vision_tower_agrees_and_takes_any_batch(bundle_of) -> None:
    torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")
    pytest.importorskip("onnxscript", reason="pip install 'spicula[train]'")
    from spicula.networks.clip import ClipVision
    from spicula.networks.export import to_onnx

    torch.manual_seed(0)
    tower = ClipVision(image_size=32, patch_size=8, width=64, layers=2, heads=2, output_dim=64)
    raw = to_onnx(tower, torch.zeros(2, 3, 32, 32), half=False)
    images = [np.random.default_rng(seed).normal(size=(3, 3, 32, 32)).astype(np.float32) for seed in range(8)]
    made = quantize(raw, images[:4], threads=1)
    # a convolution, q, k, v, out and two more of each of two blocks, the projection
    assert operations(made)["DequantizeLinear"] - operations(made)["QuantizeLinear"] == 1 + 2 * 6 + 1
    bundle = bundle_of({"f32.onnx": raw, "int8.onnx": made})
    exact, rounded = (load_network(bundle, f"{name}.onnx", threads=1) for name in ("f32", "int8"))
    for image in (images[5], images[6][:1]):
        (a,), (b,) = exact(image), rounded(image)
        assert a.shape == b.shape == (len(image), 64)
        cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosines.min() > 0.995


def test_what_cannot_be_quantized_is_refused(products, images) -> None:
    with pytest.raises(InputError, match="inputs: got none, expected some of what the network will see"):
        quantize(products(), [], threads=1)
    with pytest.raises(InputError, match="activation x: got values that are not finite"):
        quantize(products(), [np.full((1, 6, 64), np.nan, dtype=np.float32)], threads=1)
    model = onnx.load_from_string(products())
    for node in model.graph.node:
        if node.op_type == "MatMul":
            node.op_type = "Mul"
    with pytest.raises(InputError, match="network: got nothing to quantize, expected a layer of 4096 weights or more"):
        quantize(model.SerializeToString(), images, threads=1)
