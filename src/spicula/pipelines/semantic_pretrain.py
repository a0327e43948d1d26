"""Pretrain the compact image tower on single slices of many more nodules, with all ratings of their readers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.extras import require
from spicula.datasets.lidc_nodules import TRAITS
from spicula.networks.checkpoint import (
    append_log,
    cosine_rate,
    decay_groups,
    descend,
    finished_weights,
    resume_checkpoint,
    save_checkpoint,
    save_weights,
    update_average,
)
from spicula.pipelines.semantic_crops import PLANE_MM, CropTable
from spicula.transforms.outlined_cube import PIXEL_MM, PIXELS
from spicula.transforms.planes import BACKGROUND_HU

THRESHOLDS: Mapping[str, tuple[int, ...]] = {
    "malignancy": (2, 3, 4, 5),
    "subtlety": (3, 4, 5),
    "calcification": (6,),
    "sphericity": (3, 4, 5),
    "margin": (3, 4, 5),
    "lobulation": (2, 3, 4),
    "spiculation": (2, 3, 4),
    "texture": (2, 3, 4, 5),
}
"""What is learned of each rating: whether it is at or above each of these."""

MALIGNANCY_WEIGHT = 3.0
"""How much heavier malignancy's thresholds weigh."""

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class PretrainRecipe:
    """How the image tower is pretrained.

    Args:
        epochs: Passes over the crops.
        batch: Crops of a step.
        rate: Highest learning rate, after a warm-up; it falls as a cosine.
        decay: Weight decay of matrices.
        seed: Of all chance.
        threads: Threads of torch.
    """

    epochs: int = 8
    batch: int = 96
    rate: float = 3e-3
    decay: float = 0.05
    seed: int = 0
    threads: int = 1


def goals(ratings: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is learned of medians ``[n, traits]``: ``[n, thresholds]``, one half for a median just below a threshold.

    Example:
        >>> rows = np.full((1, len(TRAITS)), 1.0, dtype=np.float32)
        >>> rows[0, TRAITS.index("malignancy")] = 3.5
        >>> goals(rows)[0, :4].tolist()
        [1.0, 1.0, 0.5, 0.0]
    """
    columns = [
        np.clip(ratings[:, TRAITS.index(name)] - (step - 1), 0.0, 1.0)
        for name, steps in THRESHOLDS.items()
        for step in steps
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def chances(table: CropTable, rows: Rows) -> NDArray[np.float64]:
    """How often to draw each crop: nodules alike whatever their number of crops, more with more readers."""
    _, place, count = np.unique(table.nodules[rows], return_inverse=True, return_counts=True)
    readers = np.array([table.crops[row].readers for row in rows], dtype=np.float64)
    weight = np.minimum(readers, 4.0) / np.sqrt(count[place.reshape(-1)])
    return np.asarray(weight / weight.sum())


def pretrain(table: CropTable, rows: Rows, folder: Path, recipe: PretrainRecipe, *, make_vision: Any) -> dict[str, Any]:
    """Pretrain the image tower, going on from its checkpoint if there is one.

    Args:
        table: All crops.
        rows: Those to learn from.
        folder: Where ``checkpoint.safetensors``, ``weights.safetensors`` and ``log.jsonl`` go.
        recipe: How.
        make_vision: Makes the image tower with random weights.

    Returns:
        Weights of the tower by name (a running average).

    Raises:
        InputError: A loss was not finite; the checkpoint holds the last good epoch.
    """
    torch = require("torch", extra="train")
    from spicula.networks.clip_losses import require_finite
    from spicula.networks.plane_ratings import PlaneRatings, changed_planes

    done = finished_weights(folder)
    if done is not None:
        return done
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    wanted = torch.from_numpy(goals(table.ratings))
    network = PlaneRatings(make_vision(), wanted.shape[1]).to(memory_format=torch.channels_last)
    network.train()
    optimizer = torch.optim.AdamW(decay_groups(network, recipe.decay), lr=recipe.rate)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    first = resume_checkpoint(folder, network, optimizer, average)
    heavy = torch.tensor([MALIGNANCY_WEIGHT if n == "malignancy" else 1.0 for n, s in THRESHOLDS.items() for _ in s])
    chance, steps = chances(table, rows), max(1, len(rows) // recipe.batch)
    for epoch in range(first, recipe.epochs):
        started, total = time.perf_counter(), 0.0
        order = np.random.default_rng((4, recipe.seed, epoch)).choice(rows, size=steps * recipe.batch, p=chance)
        for step in range(steps):
            number = epoch * steps + step
            torch.manual_seed((recipe.seed * 1_000_003 + epoch) * 10_007 + step)
            for group in optimizer.param_groups:
                group["lr"] = cosine_rate(number, recipe.epochs * steps, rate=recipe.rate, warm_part=10)
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            planes = changed_planes(
                torch.from_numpy(table.planes[chosen].astype(np.float32)), pixels=PIXELS,
                pixel_mm=PIXEL_MM, from_pixel_mm=PLANE_MM, background_hu=BACKGROUND_HU,
            ).contiguous(memory_format=torch.channels_last)  # fmt: skip
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = network(planes)
            cross = torch.nn.functional.binary_cross_entropy_with_logits(
                logits.float(), wanted[chosen], reduction="none"
            )
            loss = (cross * heavy).sum(dim=1).mean() / heavy.sum()
            require_finite(loss, [f"{step} of epoch {epoch}: {table.crops[chosen[0]].path.name}"])
            total += descend(loss, network, optimizer)
            update_average(average, network, step=number)
        facts = {"epoch": epoch, "loss": round(total / steps, 5), "seconds": round(time.perf_counter() - started, 2)}
        append_log(folder, facts)
        save_checkpoint(folder, epoch + 1, network, optimizer, average)
    tower = {name.removeprefix("vision."): value for name, value in average.items() if name.startswith("vision.")}
    save_weights(folder, tower)
    return tower
