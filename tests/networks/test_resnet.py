"""ResNet-18 against transformers', published weights, and the encoder of regions in OpenVINO."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402
from spicula.networks.resnet import (  # noqa: E402
    RegionEncoder,
    RegionShape,
    ResNet18,
    compact_shape,
    load_resnet18,
    published_shape,
)

TINY = RegionShape(width=4, further=1, dimensions=6)


def parameters(network: Any) -> int:
    return sum(value.numel() for value in network.parameters())


def stirred(network: Any) -> Any:
    """Norms and their running values at random, so that each counts."""
    torch.manual_seed(1)
    for name, value in network.state_dict().items():
        if "bn" in name or "downsample.1" in name or "further.1" in name:
            if name.endswith(("weight", "running_var")):
                value.uniform_(0.5, 1.5)
            elif value.is_floating_point():
                value.normal_(std=0.1)
    return network.eval()


def test_it_has_as_many_parameters_as_the_published_one():
    assert parameters(ResNet18()) + 512 * 1000 + 1000 == 11_689_512
    small = parameters(ResNet18(1, stem="small"))
    assert small == parameters(ResNet18()) - 3 * 64 * 49 + 64 * 9
    further = 2 * (512 * 512 * 9 + 2 * 512)
    assert parameters(RegionEncoder(published_shape())) == small + further + 1


def test_presets():
    assert published_shape().embedding == 512
    assert compact_shape(channels=2).embedding == 128
    assert compact_shape().features == 192


@pytest.mark.parametrize("max_pool", [True, False])
def test_sizes_of_maps(max_pool):
    x = torch.zeros(1, 3, 64, 64)
    side = 4 if max_pool else 8
    assert ResNet18(width=2, stem="small", max_pool=max_pool).eval()(x).shape == (1, 16, side, side)
    assert ResNet18(width=2, max_pool=max_pool).eval()(x).shape == (1, 16, side // 2, side // 2)


def test_it_is_the_resnet_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[2, 2, 2, 2], layer_type="basic"
    )
    ours, theirs = stirred(ResNet18(3, 16)), transformers.ResNetModel(config).eval()
    state = {_their_name(name): value for name, value in ours.state_dict().items()}
    theirs.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x).last_hidden_state, atol=1e-5, rtol=1e-5)


def _their_name(name: str) -> str:
    if not name.startswith("layer"):
        part, rest = name.split(".", 1)
        return f"embedder.embedder.{ {'conv1': 'convolution', 'bn1': 'normalization'}[part] }.{rest}".replace(" ", "")
    layer, block, part, rest = re.fullmatch(r"layer(\d)\.(\d)\.(conv\d|bn\d|downsample\.\d)\.(.+)", name).groups()
    kind = "convolution" if part.startswith("conv") or part == "downsample.0" else "normalization"
    place = "shortcut" if part.startswith("downsample") else f"layer.{int(part[-1]) - 1}"
    return f"encoder.stages.{int(layer) - 1}.layers.{block}.{place}.{kind}.{rest}"


def test_embeddings_have_length_one_and_the_features_any():
    torch.manual_seed(0)
    network = RegionEncoder(replace(TINY, channels=2)).train()
    x = torch.rand(3, 2, 64, 64)
    torch.testing.assert_close(network(x).norm(dim=1), torch.ones(3))
    assert network.features(x).shape == (3, 6)
    assert RegionEncoder(RegionShape(width=2))(x[:, :1]).shape == (3, 16)
    with pytest.raises(InputError, match=r"\[n, 2, rows, columns\]"):
        network(x[:, :1])


def test_published_weights_of_three_channels_serve_gray_images():
    theirs = stirred(ResNet18(3, 4))
    state = theirs.state_dict() | {"fc.weight": torch.zeros(5, 32), "fc.bias": torch.zeros(5)}
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    x = torch.rand(2, 1, 64, 64)
    for channels in (1, 2, 3):
        ours = ResNet18(channels, 4).eval()
        load_resnet18(ours, state)
        with torch.no_grad():
            torch.testing.assert_close(ours(x.expand(2, channels, 64, 64)), theirs(x.expand(2, 3, 64, 64)))


def test_weights_of_a_part_are_read_by_its_prefix():
    whole = stirred(RegionEncoder(TINY))
    ours = ResNet18(1, 4, stem="small")
    load_resnet18(ours, whole.state_dict(), prefix="backbone.")
    torch.testing.assert_close(ours.layer4[1].bn2.running_var, whole.backbone.layer4[1].bn2.running_var)


def test_all_that_does_not_fit_is_told_and_nothing_loaded():
    ours = ResNet18(1, 4, stem="small")
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    state = dict(ResNet18(3, 4).state_dict())
    state["layer5.weight"] = state.pop("bn1.weight")
    with pytest.raises(InputError) as error:
        load_resnet18(ours, state, source="a file")
    for words in (
        "a file",
        "1 missing: bn1.weight",
        "1 unexpected: layer5.weight",
        "conv1.weight (4, 1, 7, 7)",
        "stem",
    ):
        assert words in str(error.value)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, before[name])


@pytest.mark.parametrize("pool", ["gem", "max"])
def test_openvino_says_the_same(pool):
    pytest.importorskip("onnxscript", reason="pip install 'spicula[train]'")
    import openvino

    from spicula.networks.export import to_onnx

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = stirred(RegionEncoder(replace(TINY, pool=pool)))
    x = torch.rand(3, 1, 64, 64)
    content = to_onnx(network, x[:2], half=False, outputs=("embedding",))
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    with torch.no_grad():
        expected = network(x).numpy()
    assert np.abs(compiled({"image": x.numpy()})["embedding"] - expected).max() < 1e-4
