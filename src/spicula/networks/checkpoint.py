"""Checkpoints from which a killed training goes on exactly, and what every training's steps share; no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spicula.core.extras import require
from spicula.core.files import written_aside

CHECKPOINT, WEIGHTS, LOG = "checkpoint.safetensors", "weights.safetensors", "log.jsonl"


def cosine_rate(step: int, steps: int, *, rate: float, warm_part: int = 15) -> float:
    """Learning rate with a linear warm-up over the first fifteenth (or tenth ...) and a cosine decay to 1 %.

    Example:
        >>> [round(cosine_rate(step, 30, rate=1.0), 2) for step in (0, 1, 15, 29)]
        [0.5, 1.0, 0.56, 0.01]
    """
    warm = max(1, steps // warm_part)
    if step < warm:
        return rate * (step + 1) / warm
    return float(rate * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (step - warm) / max(1, steps - warm)))))


def save_checkpoint(folder: Path, step: int, network: Any, optimizer: Any, average: dict[str, Any]) -> None:
    """Write network, running average of its weights and optimizer aside and move them into place.

    Args:
        folder: Where ``checkpoint.safetensors`` goes.
        step: The step (or epoch) to go on with.
        network: A torch module.
        optimizer: Its optimizer.
        average: Running average of the weights, by name.
    """
    safetensors = require("safetensors.torch", extra="train")
    tensors = {f"network.{k}": v.contiguous() for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v.contiguous() for k, v in average.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v.clone().contiguous() for k, v in state.items()}
    with written_aside(folder / CHECKPOINT) as path:
        safetensors.save_file(tensors, path, metadata={"step": str(step)})


def resume_checkpoint(folder: Path, network: Any, optimizer: Any, average: dict[str, Any]) -> int:
    """Load the checkpoint of a folder, if there is one, into network, optimizer and average.

    Args:
        folder: The run's folder; it is made. Without a checkpoint a log that lies in it is removed.
        network: As in :func:`save_checkpoint`.
        optimizer: Likewise.
        average: Updated in place.

    Returns:
        The step to go on with, 0 to begin.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT
    if not path.is_file():
        (folder / LOG).unlink(missing_ok=True)
        return 0
    safetensors = require("safetensors", extra="train")
    with safetensors.safe_open(path, framework="pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no mapping)
        facts = stored.metadata()
        step = int(facts["step"] if "step" in facts else facts["epoch"])  # as older runs call it
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    average.update({k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")})
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return step


def update_average(average: dict[str, Any], network: Any, *, step: int, most_kept: float = 0.99) -> None:
    """Move the running average of the weights toward the network's, faster in the first steps.

    Args:
        average: Updated in place, by name.
        network: A torch module.
        step: From 0; the share that is kept is ``(1 + step) / (10 + step)``.
        most_kept: ... and at most this.
    """
    keep = min(most_kept, (1 + step) / (10 + step))
    for name, value in network.state_dict().items():
        if value.dtype.is_floating_point:
            average[name].mul_(keep).add_(value.detach(), alpha=1 - keep)


def finished_weights(folder: Path) -> dict[str, Any] | None:
    """The weights of a training that has ended, by name; None where it has not."""
    if not (folder / WEIGHTS).is_file():
        return None
    return dict(require("safetensors.torch", extra="train").load_file(folder / WEIGHTS))


def decay_groups(network: Any, decay: float) -> list[dict[str, Any]]:
    """What of a network trains, for its optimizer: weight decay for matrices, none for the rest."""
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]


def descend(loss: Any, network: Any, optimizer: Any, *, longest: float = 5.0) -> float:
    """One step of the optimizer down a loss, the gradient cut to a length.

    Returns:
        The loss.
    """
    torch = require("torch", extra="train")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), longest)
    optimizer.step()
    return float(loss.detach())


def append_log(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add one line of JSON to the training's log."""
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(dict(facts)) + "\n")


def save_weights(folder: Path, average: Mapping[str, Any]) -> None:
    """Write the finished weights; the checkpoint is no longer needed and goes."""
    safetensors = require("safetensors.torch", extra="train")
    with written_aside(folder / WEIGHTS) as path:
        safetensors.save_file({name: value.contiguous() for name, value in average.items()}, path)
    (folder / CHECKPOINT).unlink(missing_ok=True)
