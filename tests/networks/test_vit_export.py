"""ONNX files of the vision transformer: what OpenVINO says against torch, and what is in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")
onnx = pytest.importorskip("onnx", reason="pip install 'spicula[train]'")
pytest.importorskip("onnxscript", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402

SIZE = (56, 84)


def network_of(**changed: Any) -> Any:
    """By chance; norms and LayerScale around 1, so that each block counts."""
    from spicula.networks.vit import VisionTransformer, VitShape

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = VisionTransformer(VitShape(**{"width": 64, "depth": 1, "heads": 2} | changed))
    with torch.no_grad():
        for name, value in network.named_parameters():
            ones = name.endswith("gamma") or ("norm" in name and name.endswith("weight"))
            value.copy_(0.05 * torch.randn(value.shape) + float(ones))
    return network.eval()


def run(content: bytes, images: Any) -> dict[str, Any]:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(content), "CPU", settings)
    assert [value.get_any_name() for value in compiled.inputs] == ["image"]
    found = compiled({"image": images.numpy()})
    return {value.get_any_name(): np.array(found[value]) for value in compiled.outputs}


def differences(network: Any, content: bytes, images: Any) -> dict[str, float]:
    """Largest difference of each output to torch's."""
    with torch.no_grad():
        tokens = network(images, attention=True)
    found = run(content, images)
    assert list(found) == ["cls", "patches", "attention"]
    expected = {name: getattr(tokens, name).numpy() for name in found}
    assert {name: value.shape for name, value in found.items()} == {name: x.shape for name, x in expected.items()}
    return {name: float(np.abs(found[name] - value).max()) for name, value in expected.items()}


@pytest.fixture(scope="module")
def whole() -> tuple[Any, bytes]:
    """With registers and SwiGLU, not square, in float32, of weights in half precision; the network is not changed."""
    from spicula.networks.vit_export import vit_to_onnx

    network = network_of(depth=2, registers=3, positions="antialias", ffn="swiglu", image=70)
    network.train().to(torch.bfloat16).blocks[0].requires_grad_(False)
    before = {name: (value, value.clone(), value.requires_grad) for name, value in network.named_parameters()}
    content = vit_to_onnx(network, SIZE, half=False)
    assert all(module.training for module in network.modules())
    for name, value in network.named_parameters():
        same, copied, learns = before.pop(name)
        assert value is same
        assert value.requires_grad == learns
        assert value.dtype == torch.bfloat16
        assert torch.equal(value, copied)
    assert not before
    return network.eval().float(), content


def test_at_504_the_file_says_the_same_with_weights_in_half_precision() -> None:
    from spicula.networks.vit_export import vit_to_onnx

    network = network_of(width=128)
    content = vit_to_onnx(network, 504)
    images = torch.randn(1, 3, 504, 504)
    found = differences(network, content, images)
    assert max(found.values()) < 2e-3
    assert found["attention"] < 1e-5
    numbers = sum(
        value.numel() for name, value in network.named_parameters() if name not in ("mask_token", "pos_embed")
    )
    assert len(content) < 2 * (numbers + 1297 * 128) + 30_000


def test_in_float32_the_file_says_the_same_for_any_number_of_images(whole) -> None:
    network, content = whole
    for count in (1, 3):
        assert max(differences(network, content, torch.randn(count, 3, *SIZE)).values()) < 1e-5


def test_the_graph_has_fixed_positions_and_a_matrix_for_each_of_q_k_and_v(whole) -> None:
    network, content = whole
    model = onnx.load_from_string(content)
    assert not {node.op_type for node in model.graph.node} & {"Resize", "Attention", "If", "Loop"}
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "image": ["batch", 3, *SIZE], "cls": ["batch", 64], "patches": ["batch", 24, 64], "attention": ["batch", 2, 24],
    }  # fmt: skip
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    with torch.no_grad():
        positions = network.positions_of(4, 6)[:, 1:].numpy()
    assert any(value.shape == positions.shape and np.allclose(value, positions, atol=1e-6) for value in stored.values())
    assert sum(value.size for value in stored.values()) < sum(x.numel() for x in network.parameters())
    weights = [
        stored[node.input[1]] for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in stored
    ]
    for block in network.blocks:
        for part in block.attn.qkv.weight.detach().numpy().reshape(3, 64, 64):
            assert sum(value.shape == (64, 64) and np.array_equal(value, part.T) for value in weights) == 1
    assert len(weights) == 2 * (4 + 2)


def test_the_file_can_be_quantized(whole) -> None:
    from spicula.runtime.quantize import quantize

    network, content = whole
    images = torch.randn(2, 3, *SIZE)
    small = quantize(content, [images.numpy()], threads=1)
    model = onnx.load_from_string(small)
    kept = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    large = [tensor for tensor in model.graph.initializer if tensor.name in kept and np.prod(tensor.dims) >= 4096]
    assert not [tensor.name for tensor in large if len(tensor.dims) in (2, 4)]
    with torch.no_grad():
        expected = network(images, attention=True)
    found = run(small, images)
    for name in ("cls", "patches"):
        other = getattr(expected, name).numpy()
        assert np.corrcoef(found[name].ravel(), other.ravel())[0, 1] > 0.99


def test_wrong_sizes_and_too_many_weights_are_refused() -> None:
    from spicula.networks.vit import SHAPES, VisionTransformer
    from spicula.networks.vit_export import vit_to_onnx

    for size in (500, (504, 500)):
        with pytest.raises(InputError, match="multiples of the patch of 14"):
            vit_to_onnx(network_of(), size)
    with torch.device("meta"):
        giant = VisionTransformer(SHAPES["vit-giant"])
    with pytest.raises(InputError, match=r"4.2 GiB of weights in float32, expected less than 2 GiB"):
        vit_to_onnx(giant, 504)


def test_split_attention_computes_the_same() -> None:
    from spicula.networks.vit_export import SplitAttention

    packed = network_of().blocks[0].attn
    split, x = SplitAttention(packed), torch.randn(2, 5, 64)
    with torch.no_grad():
        torch.testing.assert_close(split(x), packed(x), atol=1e-6, rtol=1e-5)
        mixed, shares = split.with_shares(x)
        torch.testing.assert_close(mixed, packed(x), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(shares, packed.shares(x), atol=1e-6, rtol=1e-5)
