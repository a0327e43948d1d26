"""The autoencoder of regions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402
from spicula.networks.resnet import RegionShape  # noqa: E402
from spicula.networks.vae import Latent, RegionVae, sampled  # noqa: E402

TINY = RegionShape(width=2)


def regions(n=3, channels=1):
    return torch.rand(n, channels, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("stem", "max_pool"), [("small", True), ("small", False), ("large", True)])
def test_shapes(stem, max_pool):
    network = RegionVae(replace(TINY, channels=2, stem=stem, max_pool=max_pool), latent=5)
    x = regions(channels=2)
    mean, log_variance = network.encode(x)
    assert mean.shape == log_variance.shape == (3, 5)
    assert network.decode(mean).shape == x.shape
    torch.testing.assert_close(network(x).norm(dim=1), torch.ones(3))


def test_the_embedding_is_the_direction_of_the_mean():
    network = RegionVae(TINY, latent=5).eval()
    mean, _ = network.encode(regions())
    torch.testing.assert_close(network(regions()), mean / mean.norm(dim=1, keepdim=True))


def test_without_noise_the_mean_is_decoded():
    network = RegionVae(TINY, latent=5).eval()
    logits, latent = network.reconstruct(regions(), torch.zeros(3, 5))
    torch.testing.assert_close(logits, network.decode(latent.mean))


def test_draws_have_the_mean_and_the_variance():
    mean, log_variance = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([0.5, -1.0, -4.0])
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((200_000, 3), dtype=np.float32))
    drawn = sampled(Latent(mean.expand(200_000, 3), log_variance.expand(200_000, 3)), noise)
    torch.testing.assert_close(drawn.mean(dim=0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.var(dim=0).log(), log_variance, atol=0.02, rtol=0)


def test_draws_pass_gradients():
    mean, log_variance = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    sampled(Latent(mean, log_variance), torch.tensor([[0.5, -1.0]])).sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(1, 2))
    torch.testing.assert_close(log_variance.grad, torch.tensor([[0.25, -0.5]]))


def test_other_sizes_are_refused():
    with pytest.raises(InputError, match="expected 64"):
        RegionVae(replace(TINY, pixels=32))
    with pytest.raises(InputError, match=r"\[n, 1, 64, 64\]"):
        RegionVae(TINY, latent=5).encode(torch.zeros(2, 1, 32, 32))


def test_openvino_says_the_same():
    pytest.importorskip("onnxscript", reason="pip install 'spicula[train]'")
    import openvino

    from spicula.networks.export import to_onnx

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, x = RegionVae(TINY, latent=5).eval(), regions()
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(
        core.read_model(to_onnx(network, x[:2], half=False, outputs=("embedding",))), "CPU", settings
    )
    with torch.no_grad():
        expected = network(x).numpy()
    assert np.abs(compiled({"image": x.numpy()})["embedding"] - expected).max() < 1e-4
