"""Generalized mean, average and maximum."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402
from spicula.networks.pooling import GeneralizedMean, pooling_of  # noqa: E402


def features():
    return torch.rand(3, 5, 4, 4, generator=torch.Generator().manual_seed(0)) * 4


def test_by_hand():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 0.0]]]])
    assert float(GeneralizedMean()(x).detach()) == pytest.approx((36 / 4) ** (1 / 3), rel=1e-5)
    assert float(pooling_of("average")(x)) == 1.5
    assert float(pooling_of("max")(x)) == 3.0


def test_between_average_and_maximum():
    x = features()
    average, highest = pooling_of("average")(x), pooling_of("max")(x)
    torch.testing.assert_close(GeneralizedMean(power=1.0)(x), average)
    torch.testing.assert_close(GeneralizedMean(power=400.0)(x), highest, atol=0.0, rtol=0.02)
    middle = pooling_of("gem")(x)
    assert bool(((middle > average) & (middle < highest)).all())


def test_it_is_the_formula_and_its_gradients():
    pool, x = GeneralizedMean(), features().requires_grad_()
    plain = x.clamp_min(1e-6).pow(pool.power).mean(dim=(2, 3)).pow(1 / pool.power)
    torch.testing.assert_close(pool(x), plain)
    ours = torch.autograd.grad(pool(x).square().sum(), (x, pool.power))
    theirs = torch.autograd.grad(plain.square().sum(), (x, pool.power))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_nothing_overflows_and_zeros_have_gradients():
    x = torch.zeros(1, 2, 3, 3)
    x[0, 0] = 1e4
    x.requires_grad_()
    pool = GeneralizedMean(power=50.0)
    found = pool(x)
    torch.testing.assert_close(found, torch.tensor([[1e4, 1e-6]]))
    found.sum().backward()
    assert bool(torch.isfinite(x.grad).all())
    assert bool(torch.isfinite(pool.power.grad).all())


def test_another_kind_is_refused():
    with pytest.raises(InputError, match="gem, average, max"):
        pooling_of("median")
