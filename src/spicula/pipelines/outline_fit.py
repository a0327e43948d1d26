"""Train one outline network on crops, with checkpoints to go on from."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.extras import require
from spicula.measure import segment
from spicula.networks.checkpoint import (
    append_log,
    cosine_rate,
    descend,
    finished_weights,
    resume_checkpoint,
    save_checkpoint,
    save_weights,
    update_average,
)
from spicula.pipelines import outline_crops

WIDTHS = (8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one network is trained: number of batches, boxes a batch, highest learning rate, threads."""

    steps: int = 1000
    batch: int = 8
    rate: float = 3e-3
    seed: int = 0
    threads: int = 1
    checkpoint_every: int = 50


def fit(
    crops: outline_crops.Crops,
    rows: NDArray[np.intp],
    folder: Path,
    recipe: Recipe,
    *,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train one network, going on from its checkpoint if there is one.

    Args:
        crops: All boxes.
        rows: The cases to learn from.
        folder: Where ``checkpoint.safetensors``, ``weights.safetensors`` and ``log.jsonl`` go.
        recipe: How.
        start: Weights (``weights.safetensors``) to begin with; random ones if None.

    Returns:
        The weights (moving average), by name, as torch tensors.
    """
    torch = require("torch", extra="train")
    safetensors = require("safetensors.torch", extra="train")
    done = finished_weights(folder)
    if done is not None:
        return done
    from spicula.networks.unet import UNet

    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    network = UNet(segment.CHANNELS, widths=WIDTHS).to(memory_format=torch.channels_last_3d)
    if start is not None:
        network.load_state_dict(safetensors.load_file(start))
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=1e-4)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    first = resume_checkpoint(folder, network, optimizer, average)
    network.train()
    for step in range(first, recipe.steps):
        started = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(step, recipe.steps, rate=recipe.rate)
        loss = _learn(torch, network, optimizer, _batch(torch, crops, rows, step, recipe))
        update_average(average, network, step=step)
        seconds = round(time.perf_counter() - started, 3)
        append_log(folder, {"step": step, "loss": round(loss, 5), "seconds": seconds})
        if (step + 1) % recipe.checkpoint_every == 0:
            save_checkpoint(folder, step + 1, network, optimizer, average)
    save_weights(folder, average)
    return average


def _batch(torch: Any, crops: outline_crops.Crops, rows: NDArray[np.intp], step: int, recipe: Recipe) -> list[Any]:
    """The boxes of one step: the same for the same seed and step, however often the run was stopped."""
    rng = np.random.default_rng((recipe.seed, step))
    chosen = rng.choice(rows, size=recipe.batch, replace=len(rows) < recipe.batch)
    columns = rng.integers(crops.hu.shape[1], size=recipe.batch)
    return [torch.from_numpy(array) for array in outline_crops.batch_of(crops, chosen, columns, rng)]


def _learn(torch: Any, network: Any, optimizer: Any, batch: list[Any]) -> float:
    """One step of the optimizer; returns the loss."""
    image, truth, known = batch
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(image.to(memory_format=torch.channels_last_3d))
    loss = _loss(torch, logits.float(), truth, known)
    return descend(loss, network, optimizer)


def _loss(torch: Any, logits: Any, truth: Any, known: Any) -> Any:
    """Soft Dice of each box plus cross-entropy, over the voxels whose truth is known."""
    cross = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, weight=known, reduction="sum")
    probability = torch.sigmoid(logits) * known
    real = truth * known
    axes = (1, 2, 3, 4)
    # linear in soft truth: equals 1 only where prediction and truth agree voxel by voxel
    overlap = 2 * torch.minimum(probability, real).sum(axes) + 1
    dice = overlap / (probability.sum(axes) + real.sum(axes) + 1)
    return (1 - dice).mean() + 3.0 * cross / known.sum()
