"""SimCLR: its loss against a double loop, one step, its schedule."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402
from spicula.networks.resnet import RegionShape  # noqa: E402
from spicula.pretraining.lars import Lars  # noqa: E402
from spicula.pretraining.simclr import (  # noqa: E402
    ProjectionHead,
    Schedule,
    SimclrNetwork,
    SimclrRecipe,
    compact_recipe,
    gathered,
    losses_of,
    nt_xent,
    optimizer_of,
    published_recipe,
    require_no_collapse,
)

SHAPE = RegionShape(width=4, further=1, dimensions=8)
RECIPE = SimclrRecipe(epochs=4, batch=8, hidden=16, projection=8, warm=1)


def projections(n=5, d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, d, dtype=torch.float64, generator=generator) for _ in range(2))


def double_loop(first, second, temperature, groups=None):
    """Equation 1 of the paper."""
    z = np.concatenate([first.numpy(), second.numpy()])
    n, total = len(first), 0.0
    group = list(range(n)) if groups is None else groups.tolist()
    group = group + group

    def alike(i, k):
        return math.exp(z[i] @ z[k] / (np.linalg.norm(z[i]) * np.linalg.norm(z[k])) / temperature)

    for i in range(2 * n):
        j = (i + n) % (2 * n)
        below = sum(alike(i, k) for k in range(2 * n) if k == j or (k != i and group[k] != group[i]))
        total -= math.log(alike(i, j) / below)
    return total / (2 * n)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("groups", [None, torch.tensor([3, 0, 3, 1, 3])])
def test_the_loss_is_the_double_loop(temperature, groups):
    first, second = projections()
    found = nt_xent(first, second, temperature, groups=groups)
    assert float(found) == pytest.approx(double_loop(first, second, temperature, groups), rel=1e-10)


def test_its_gradients():
    first, second = (x.requires_grad_() for x in projections(4))
    groups = torch.tensor([0, 0, 1, 2])
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.5, groups=groups), (first, second))


def test_known_values():
    same = torch.eye(4)
    assert float(nt_xent(same, same, 1.0)) == pytest.approx(math.log(math.e + 6) - 1)
    assert float(nt_xent(same, same, 1.0, groups=torch.zeros(4, dtype=torch.long))) == pytest.approx(0.0)
    half = nt_xent(same.bfloat16(), same.bfloat16(), 1.0)
    assert half.dtype == torch.float32


def test_processes_together_have_the_loss_of_the_whole_batch():
    first, second = (x.requires_grad_() for x in projections(6))
    groups = torch.tensor([0, 1, 1, 2, 1, 0])
    whole = nt_xent(first, second, 0.2, groups=groups)
    wanted = torch.autograd.grad(whole, (first, second))
    shares = []
    for rank, rows in enumerate((slice(0, 3), slice(3, 6))):
        unit = [torch.nn.functional.normalize(x, dim=1) for x in (first, second)]
        answers = iter([*unit, groups])
        shares.append(
            nt_xent(first[rows], second[rows], 0.2, groups=groups[rows], rank=rank, gather=lambda _, a=answers: next(a))
        )
    together = torch.stack(shares).mean()
    torch.testing.assert_close(together, whole)
    torch.testing.assert_close(torch.autograd.grad(together, (first, second)), wanted)


def test_rows_of_all_processes_pass_gradients(tmp_path):
    """With one process, whose rows are all; two were tried by hand."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        first, second = (x.requires_grad_() for x in projections())
        whole, alone = nt_xent(first, second, 0.2, gather=gathered), nt_xent(first, second, 0.2)
        torch.testing.assert_close(whole, alone)
        pairs = (torch.autograd.grad(loss, (first, second)) for loss in (whole, alone))
        torch.testing.assert_close(*pairs)
        assert gathered(torch.arange(3)).tolist() == [0, 1, 2]
    finally:
        torch.distributed.destroy_process_group()


def test_what_does_not_fit_is_refused():
    first, second = projections()
    with pytest.raises(InputError, match="second views"):
        nt_xent(first, second[:2])
    with pytest.raises(InputError, match="temperature"):
        nt_xent(first, second, 0.0)
    with pytest.raises(InputError, match="groups"):
        nt_xent(first, second, groups=torch.zeros(2))


def test_the_head():
    head = ProjectionHead(6, hidden=5, dimensions=3)
    assert head(torch.randn(4, 6)).shape == (4, 3)
    assert sum(p.numel() for p in head.parameters()) == (6 * 5 + 5) + 2 * 5 + 5 * 3


def views(n=8):
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(n, 1, 32, 32, generator=generator)
    return first, (first + 0.05 * torch.randn(n, 1, 32, 32, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("optimizer", ["lars", "adamw"])
def test_steps_lower_the_loss(optimizer):
    torch.manual_seed(0)
    recipe = replace(RECIPE, optimizer=optimizer)
    network = SimclrNetwork(SHAPE, recipe).train()
    descent = optimizer_of(network, recipe)
    assert isinstance(descent, Lars) == (optimizer == "lars")
    totals = []
    for _ in range(12):
        for group in descent.param_groups:
            group["lr"] = 2.0 if optimizer == "lars" else 3e-3
        losses = losses_of(network, views(), recipe)
        descent.zero_grad()
        losses.total.backward()
        descent.step()
        totals.append(float(losses.total.detach()))
    assert totals[-1] < totals[0] - 0.2
    assert set(losses.parts) == {"loss", "found", "alike", "spread"}
    assert not any(value.requires_grad for value in losses.parts.values())


def test_more_views_are_compared_in_pairs():
    network = SimclrNetwork(SHAPE, RECIPE).eval()
    first, second = views(4)
    third = first.flip(-1)
    with torch.no_grad():
        whole = losses_of(network, (first, second, third), RECIPE).total
        pairs = [losses_of(network, p, RECIPE).total for p in ((first, second), (first, third), (second, third))]
    torch.testing.assert_close(whole, torch.stack(pairs).mean(), atol=1e-4, rtol=1e-4)
    for wrong in ((first,), (first[:1], second[:1])):
        with pytest.raises(InputError, match="at least 2"):
            losses_of(network, wrong, RECIPE)


def test_health():
    class Constant(torch.nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 3), torch.eye(4)[torch.arange(len(x)) % 4]

    parts = losses_of(Constant(), (torch.zeros(4, 1), torch.zeros(4, 1)), RECIPE).parts
    assert float(parts["found"]) == 1.0
    assert float(parts["alike"]) == 1.0
    assert float(parts["spread"]) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(InputError, match="epoch 3: the features collapsed"):
        require_no_collapse({name: float(value) for name, value in parts.items()}, where="epoch 3")
    with pytest.raises(InputError, match="collapsed"):
        require_no_collapse({"spread": math.nan}, where="epoch 3")
    require_no_collapse({"spread": 0.2}, where="epoch 3")


def test_the_rate_goes_with_the_batch_up_and_then_down():
    schedule = Schedule(replace(published_recipe(), epochs=100), per_epoch=20, images=512)
    assert schedule.steps == 2000
    assert schedule.rate(0) == 0.0
    assert schedule.rate(200) == pytest.approx(0.6)
    assert schedule.rate(100) == pytest.approx(0.3)
    assert schedule.rate(1100) == pytest.approx(0.3)
    assert schedule.rate(2000) == pytest.approx(0.0)
    plain = Schedule(compact_recipe(epochs=10), per_epoch=20, images=512)
    assert plain.rate(20) == pytest.approx(1e-3)
    short = Schedule(replace(published_recipe(), epochs=2), per_epoch=10, images=256)
    assert short.rate(10) == pytest.approx(0.3)
    network = SimclrNetwork(SHAPE, RECIPE)
    optimizer = optimizer_of(network, RECIPE)
    schedule.apply(optimizer, 100)
    assert {group["lr"] for group in optimizer.param_groups} == {schedule.rate(100)}


def test_presets():
    published, compact = published_recipe(), compact_recipe(epochs=30)
    assert (published.epochs, published.temperature, published.hidden, published.projection) == (1000, 0.1, 512, 256)
    assert (published.optimizer, published.decay, published.warm, published.views.blur) == ("lars", 1e-6, 10, 0.0)
    assert (compact.epochs, compact.warm) == (30, 3.0)
