"""LARS by hand, on a quadratic, and going on."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402
from spicula.pretraining.lars import Lars, lars_groups  # noqa: E402


def test_two_steps_by_hand():
    weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    bias = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = Lars(
        [{"params": [weight]}, {"params": [bias], "adapts": False, "weight_decay": 0.0}], lr=2.0, weight_decay=0.1
    )
    w, v, b, u = np.array([[3.0, 4.0]]), np.zeros((1, 2)), 1.0, 0.0
    for gradient in (np.array([[0.5, -1.0]]), np.array([[1.0, 1.0]])):
        weight.grad, bias.grad = torch.tensor(gradient, dtype=torch.float32), torch.tensor([0.25])
        optimizer.step()
        way = gradient + 0.1 * w
        v = 0.9 * v + 2.0 * 0.001 * np.linalg.norm(w) / np.linalg.norm(way) * way
        w = w - v
        u = 0.9 * u + 2.0 * 0.25
        b = b - u
        np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-6)
        assert float(bias.detach()) == pytest.approx(b)


def test_without_length_the_rate_is_not_adapted():
    still, new = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.zeros(2, 2))
    still.grad, new.grad = torch.zeros(2, 2), torch.ones(2, 2)
    Lars([{"params": [still, new]}], lr=0.5, weight_decay=0.0).step()
    assert torch.equal(still.detach(), torch.ones(2, 2))
    assert torch.equal(new.detach(), -0.5 * torch.ones(2, 2))


def test_the_step_does_not_depend_on_the_scale_of_the_gradient():
    found = []
    for scale in (1.0, 1e4):
        weight = torch.nn.Parameter(torch.tensor([[1.0, 2.0]]))
        weight.grad = scale * torch.tensor([[1.0, -1.0]])
        Lars([{"params": [weight]}], lr=1.0, weight_decay=0.0).step()
        found.append(weight.detach())
    torch.testing.assert_close(found[0], found[1])


def test_a_quadratic_goes_down():
    weight = torch.nn.Parameter(torch.tensor([[2.0, -1.0, 4.0]]))
    goal = torch.tensor([[1.0, 1.0, 3.0]])
    optimizer = Lars([{"params": [weight]}], lr=3.0)

    def closure():
        optimizer.zero_grad()
        loss = (weight - goal).square().sum()
        loss.backward()
        return float(loss.detach())

    first = optimizer.step(closure)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 3.0 * (1 - step / 400)
        last = optimizer.step(closure)
    assert first == pytest.approx(6.0)
    assert last < 1e-3


def test_it_goes_on_exactly():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))

    def train(network, optimizer, steps):
        for step in steps:
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            network(x).square().sum().backward()
            optimizer.step()

    def start(network):
        return Lars(lars_groups(network), lr=5.0)

    optimizer = start(network)
    train(network, optimizer, range(3))
    again = copy.deepcopy(network)
    resumed = start(again)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(network, optimizer, range(3, 6))
    train(again, resumed, range(3, 6))
    for one, two in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_checkpoint_goes_on_exactly(tmp_path):
    from spicula.networks.checkpoint import resume_checkpoint, save_checkpoint

    network = torch.nn.Linear(3, 2)
    optimizer = Lars(lars_groups(network), lr=1.0)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path, 7, network, optimizer, {})
    other = torch.nn.Linear(3, 2)
    resumed = Lars(lars_groups(other), lr=1.0)
    assert resume_checkpoint(tmp_path, other, resumed, {}) == 7
    for one, two in ((network.weight, other.weight), (network.bias, other.bias)):
        assert torch.equal(one, two)
        assert torch.equal(optimizer.state[one]["momentum"], resumed.state[two]["momentum"])


def test_biases_norms_and_powers_neither_adapt_nor_decay():
    from spicula.networks.resnet import RegionEncoder, RegionShape

    network = RegionEncoder(RegionShape(width=2, dimensions=4))
    network.linear.bias.requires_grad_(False)
    matrices, rest = lars_groups(network, weight_decay=0.5)
    assert (matrices["weight_decay"], matrices["adapts"]) == (0.5, True)
    assert (rest["weight_decay"], rest["adapts"]) == (0.0, False)
    names = {id(value): name for name, value in network.named_parameters()}
    assert all("bn" not in names[id(value)] for value in matrices["params"])
    assert {"pool.power", "backbone.bn1.weight"} <= {names[id(value)] for value in rest["params"]}
    assert len(matrices["params"]) + len(rest["params"]) == len(names) - 1


def test_senseless_numbers_are_refused():
    with pytest.raises(InputError, match="momentum 1"):
        Lars([{"params": [torch.nn.Parameter(torch.ones(1))]}], lr=0.1, momentum=1.0)
