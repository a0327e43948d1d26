"""The autoencoder's losses and steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402
from spicula.networks.resnet import RegionShape  # noqa: E402
from spicula.networks.vae import Latent  # noqa: E402
from spicula.pretraining.vae import (  # noqa: E402
    Autoencoding,
    Schedule,
    VaeRecipe,
    compact_recipe,
    divergence,
    losses_of,
    optimizer_of,
    published_recipe,
    reconstruction_loss,
    require_no_collapse,
)

SHAPE = RegionShape(width=2)
RECIPE = VaeRecipe(epochs=2, batch=8, latent=4, warm=0)


def latent(n=3, d=4):
    generator = torch.Generator().manual_seed(0)
    return Latent(*(torch.randn(n, d, generator=generator) for _ in range(2)))


def test_the_divergence_is_torchs():
    found = latent()
    normal = torch.distributions.Normal(found.mean, torch.exp(0.5 * found.log_variance))
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(divergence(found), expected)
    assert float(divergence(Latent(torch.zeros(1, 2), torch.zeros(1, 2))).sum()) == 0.0
    assert float(divergence(Latent(torch.tensor([[2.0]]), torch.zeros(1, 1)))) == 2.0


def test_the_reconstruction_by_hand():
    gray = torch.tensor([[[0.0, 1.0]], [[0.5, 0.25]]])
    logits = torch.logit(torch.tensor([[[0.5, 0.5]], [[0.5, 0.75]]]))
    torch.testing.assert_close(reconstruction_loss(logits, gray, "mse"), torch.tensor([0.5, 0.25]))
    log = np.log
    expected = [-2 * log(0.5), -log(0.5) - 0.25 * log(0.75) - 0.75 * log(0.25)]
    torch.testing.assert_close(reconstruction_loss(logits, gray), torch.tensor(expected, dtype=torch.float32))
    with pytest.raises(InputError, match="'bce' or 'mse'"):
        reconstruction_loss(logits, gray, "mae")
    with pytest.raises(InputError, match="reconstruction"):
        reconstruction_loss(logits, gray[:1])


def images(n=8):
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    radii = torch.linspace(0.2, 0.8, n)[:, None, None]
    return torch.sigmoid(20 * (radii - torch.sqrt(x**2 + y**2)))[:, None]


@pytest.mark.parametrize("kind", ["bce", "mse"])
def test_steps_lower_the_loss(kind):
    torch.manual_seed(0)
    recipe = replace(RECIPE, reconstruction=kind)
    network = Autoencoding(SHAPE, recipe).train()
    optimizer = optimizer_of(network)
    rng, totals = np.random.default_rng(0), []
    for _ in range(20):
        optimizer.param_groups[0]["lr"] = 1e-2
        losses = losses_of(network, images(), recipe, rng)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        totals.append(float(losses.total.detach()))
    assert totals[-1] < 0.7 * totals[0]
    assert set(losses.parts) == {"loss", "reconstruction", "divergence", "error", "in_use", "spread"}
    assert not any(value.requires_grad for value in losses.parts.values())


def test_beta_weighs_the_divergence_and_the_generator_draws():
    torch.manual_seed(0)
    network = Autoencoding(SHAPE, RECIPE).eval()
    one, four, again = (
        losses_of(network, images(), replace(RECIPE, beta=beta), np.random.default_rng(0)) for beta in (1.0, 4.0, 1.0)
    )
    torch.testing.assert_close(four.total - one.total, 3 * one.parts["divergence"], rtol=1e-3, atol=1e-3)
    assert torch.equal(one.total, again.total)
    torch.testing.assert_close(one.total.detach(), one.parts["reconstruction"] + one.parts["divergence"])
    other = losses_of(network, images(), RECIPE, np.random.default_rng(1))
    assert not torch.equal(one.total, other.total)
    with pytest.raises(InputError, match="at least 2"):
        losses_of(network, images()[:1], RECIPE, np.random.default_rng(0))


def test_collapse_is_told():
    with pytest.raises(InputError, match="epoch 9: the codes collapsed"):
        require_no_collapse({"in_use": 0.2}, where="epoch 9")
    require_no_collapse({"in_use": 3.0}, where="epoch 9")


def test_schedule_and_presets():
    schedule = Schedule(replace(published_recipe(), epochs=100), per_epoch=2)
    assert schedule.rate(20) == pytest.approx(1e-4)
    assert schedule.rate(200) == pytest.approx(0.0)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], lr=0.0)
    schedule.apply(optimizer, 10)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-5)
    assert published_recipe(beta=4.0).beta == 4.0
    assert published_recipe().latent == 256
    assert compact_recipe(epochs=20).warm == 2.0
    assert compact_recipe().views.views == 1
