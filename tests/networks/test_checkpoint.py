"""Checkpoints: exact return of network, average and optimizer; older ones; the rate's course."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spicula.networks.checkpoint import CHECKPOINT, LOG, cosine_rate, resume_checkpoint, save_checkpoint

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")
safetensors = pytest.importorskip("safetensors.torch", reason="pip install 'spicula[train]'")


def trained(seed: int) -> tuple[Any, Any, dict[str, Any]]:
    torch.manual_seed(seed)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return network, optimizer, {name: value.detach() / 2 for name, value in network.state_dict().items()}


@pytest.mark.parametrize("name", ["step", "epoch"])
def test_a_checkpoint_returns_what_was_saved(tmp_path: Path, name: str) -> None:
    network, optimizer, average = trained(0)
    save_checkpoint(tmp_path, 7, network, optimizer, average)
    tensors = safetensors.load_file(tmp_path / CHECKPOINT)
    safetensors.save_file(tensors, tmp_path / CHECKPOINT, metadata={name: "7"})  # "epoch": as older runs call it
    other, its_optimizer, its_average = trained(1)
    assert resume_checkpoint(tmp_path, other, its_optimizer, its_average) == 7
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in network.state_dict().items())
    assert all(torch.equal(value, its_average[key]) for key, value in average.items())
    states = [o.state_dict()["state"] for o in (optimizer, its_optimizer)]
    assert all(torch.equal(states[0][i][k], states[1][i][k]) for i in states[0] for k in states[0][i])


def test_without_a_checkpoint_it_begins_and_forgets_the_log(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text("old\n")
    assert resume_checkpoint(tmp_path, *trained(0)) == 0
    assert not (tmp_path / LOG).exists()


def test_the_rate_rises_then_falls() -> None:
    rates = [cosine_rate(step, 100, rate=2.0, warm_part=10) for step in range(100)]
    assert rates.index(max(rates)) in (9, 10)
    assert max(rates) == pytest.approx(2.0)
    assert rates[0] == pytest.approx(0.2)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] >= 0.02
