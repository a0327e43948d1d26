"""The U-Net and its ONNX export agree, for any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")
pytest.importorskip("onnxscript", reason="pip install 'spicula[train]'")


def test_the_exported_network_computes_the_same(tmp_path: Path) -> None:
    from spicula.core.bundle import write_bundle
    from spicula.networks.export import to_onnx
    from spicula.networks.unet import UNet
    from spicula.runtime.openvino import load_network

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = UNet(5, widths=(4, 8, 8, 16)).train()
    image = torch.randn(3, 5, 12, 16, 16)
    network(image)
    content = to_onnx(network, image[:2], half=True)
    with torch.no_grad():
        expected = network.eval()(image).numpy()
    assert expected.shape == (3, 1, 12, 16, 16)
    manifest = {"name": "t", "version": "1", "task": "outline", "preprocessing": {}, "outputs": [], "card": {}}
    compiled = load_network(write_bundle(tmp_path / "t", manifest, {"network.onnx": content}), threads=1)
    (found,) = compiled(image.numpy())
    assert np.abs(found - expected).max() < 0.02 * max(1.0, float(np.abs(expected).max()))
    (one,) = compiled(image.numpy()[:1])
    assert np.allclose(one, found[:1], atol=1e-4)
