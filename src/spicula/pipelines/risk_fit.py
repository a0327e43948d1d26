"""Fit the two judges of the risk model: a kernel machine in closed form, a small network step by step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.classifiers.risk import TARGETS, Kernel, gaussian_kernel, standardize
from spicula.core.extras import require
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
from spicula.pipelines.risk_table import FIELD_PIXELS, Table
from spicula.transforms.planes import PIXELS, PLANES

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class KernelRecipe:
    """Kernel ridge regression: width of the kernel over the number of features, the ridge, and what is learned.

    What is learned is in part the label, for the rest the share of readers behind it. The label of a trait is no more
    than its readers' mean cut at a threshold, so the share alone says more; that of malignancy counts readers.
    """

    gamma: float = 0.48
    ridge: float = 1.0
    label_part_malignancy: float = 0.5
    label_part_traits: float = 0.0


@dataclass(frozen=True, slots=True)
class NetworkRecipe:
    """How one network is trained."""

    epochs: int = 30
    batch: int = 32
    rate: float = 3e-3
    decay: float = 0.05
    width: int = 20
    seed: int = 0
    threads: int = 1


def goals(table: Table, *, malignancy: float = 0.5, traits: float = 0.5) -> Array:
    """What is learned, between the share of readers (0) and the label made of it (1), ``[n, targets]``."""
    part = np.array([malignancy if target == "malignancy" else traits for target in TARGETS])
    return part * table.labels + (1 - part) * table.shares


def fit_kernel(table: Table, members: list[Rows], recipe: KernelRecipe) -> Kernel:
    """Solve one member for each set of rows; all variants of a row take part, together as heavy as one row.

    Args:
        table: All nodules.
        members: Rows that each member learns from.
        recipe: How.

    Returns:
        The kernel machine.
    """
    _, variants, f = table.features.shape
    rows = np.unique(np.concatenate(members))
    support = table.features[rows].reshape(-1, f)
    wanted = goals(table, malignancy=recipe.label_part_malignancy, traits=recipe.label_part_traits)
    wanted = np.repeat(wanted[rows], variants, axis=0)
    center, scale = np.zeros((len(members), f)), np.ones((len(members), f))
    dual = np.zeros((len(support), len(members), len(TARGETS)))
    offset = np.zeros((len(members), len(TARGETS)))
    gamma = recipe.gamma / f
    for index, chosen in enumerate(members):
        own = np.repeat(np.isin(rows, chosen), variants)
        center[index] = table.features[chosen, 0].mean(axis=0)
        scale[index] = np.maximum(table.features[chosen, 0].std(axis=0), 1e-6)
        x = standardize(support[own], center[index], scale[index])
        offset[index] = wanted[own].mean(axis=0)
        gram = gaussian_kernel(x, x, gamma) + recipe.ridge * variants * np.eye(len(x))
        dual[own, index] = np.linalg.solve(gram, wanted[own] - offset[index])
    return Kernel(table.names, center, scale, support, dual, offset, gamma)


def fit_network(table: Table, rows: Rows, folder: Path, recipe: NetworkRecipe) -> dict[str, Any]:
    """Train one network, going on from its checkpoint if there is one.

    Args:
        table: All nodules.
        rows: Those to learn from.
        folder: Where ``checkpoint.safetensors``, ``weights.safetensors`` and ``log.jsonl`` go.
        recipe: How.

    Returns:
        The weights (moving average), by name, as torch tensors.
    """
    torch = require("torch", extra="train")
    done = finished_weights(folder)
    if done is not None:
        return done
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    wanted = torch.from_numpy(_wanted(table)).float()
    network = new_network(table, recipe).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(decay_groups(network, recipe.decay), lr=recipe.rate)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    first = resume_checkpoint(folder, network, optimizer, average)
    network.train()
    steps = max(1, len(rows) // recipe.batch)
    for epoch in range(first, recipe.epochs):
        started = time.perf_counter()
        order = np.random.default_rng((recipe.seed, epoch)).permutation(rows)
        total = 0.0
        for step in range(steps):
            torch.manual_seed((recipe.seed * 1_000_003 + epoch) * 10_007 + step)  # dropout and turning alike
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            for group in optimizer.param_groups:
                group["lr"] = cosine_rate(epoch * steps + step, recipe.epochs * steps, rate=recipe.rate, warm_part=10)
            planes = _batch(torch, table, chosen, epoch).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = network(planes)
            loss = _loss(torch, output.float(), wanted[chosen])
            total += descend(loss, network, optimizer)
            update_average(average, network, step=epoch * steps + step)
        facts = {"epoch": epoch, "loss": round(total / steps, 5), "seconds": round(time.perf_counter() - started, 2)}
        append_log(folder, facts)
        save_checkpoint(folder, epoch + 1, network, optimizer, average)
    save_weights(folder, average)
    return average


def new_network(table: Table, recipe: NetworkRecipe) -> Any:
    """An untrained network of the right shape."""
    from spicula.networks.planes import PlaneNet

    return PlaneNet(PLANES, len(TARGETS) + table.steps.shape[1] + 1, width=recipe.width)


def committee_of(table: Table, members: Sequence[Sequence[dict[str, Any]]], recipe: NetworkRecipe) -> Any:
    """The networks of all members, by their weights, as one network in evaluation mode."""
    from spicula.networks.planes import Committee

    def loaded(weights: dict[str, Any]) -> Any:
        network = new_network(table, recipe)
        network.load_state_dict(weights)
        return network

    return Committee([[loaded(weights) for weights in member] for member in members], len(TARGETS)).eval()


def network_logits(table: Table, rows: Rows, weights: Sequence[dict[str, Any]], recipe: NetworkRecipe) -> Array:
    """Mean logits of one member's networks on undisturbed nodules and their mirror images, ``[len(rows), targets]``."""
    torch = require("torch", extra="train")
    torch.set_num_threads(recipe.threads)
    committee = committee_of(table, [weights], recipe)
    edge = (FIELD_PIXELS - PIXELS) // 2
    with torch.no_grad():
        parts = [
            committee(_planes(torch, table, some, np.zeros(len(some), np.intp))[:, :, edge:-edge, edge:-edge])
            for some in np.array_split(rows, max(1, len(rows) // 64))
        ]
    return np.asarray(torch.cat(parts).double().numpy())


def _wanted(table: Table) -> Array:
    size = np.log(table.diameter_mm)[:, None] - 2.0
    return np.concatenate([goals(table), table.steps, size], axis=1)


def _loss(torch: Any, output: Any, wanted: Any) -> Any:
    """Cross-entropy against shares, malignancy twice, further thresholds a third as heavy; the size as a distance."""
    count = output.shape[1] - 1
    weights = torch.full((count,), 0.35)
    weights[: len(TARGETS)] = 1.0
    weights[0] = 2.0
    cross = torch.nn.functional.binary_cross_entropy_with_logits(output[:, :count], wanted[:, :count], reduction="none")
    size = torch.nn.functional.smooth_l1_loss(output[:, count], wanted[:, count], beta=0.2)
    return (cross * weights).sum(dim=1).mean() / weights.sum() + 0.2 * size


def _planes(torch: Any, table: Table, rows: Rows, columns: Rows) -> Any:
    planes = torch.from_numpy(table.planes[rows, columns].astype(np.float32))
    planes[:, PLANES:] /= 1000
    return planes


def _batch(torch: Any, table: Table, rows: Rows, epoch: int) -> Any:
    """Planes turned, mirrored, scaled by up to 8 percent, shifted by up to 2 mm, with noise, from random variants."""
    n = len(rows)
    columns = np.random.default_rng((epoch, *rows[:2].tolist())).integers(table.planes.shape[1], size=n)
    planes = _planes(torch, table, rows, columns)
    swap = torch.rand(n) < 0.5
    planes[swap] = planes[swap][:, [2, 1, 0, 5, 4, 3]]
    angle, scale = torch.rand(n) * 2 * torch.pi, torch.exp((torch.rand(n) - 0.5) * 0.16) * PIXELS / FIELD_PIXELS
    mirror = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = (torch.rand(n, 2) - 0.5) * 6.0 * 2 / FIELD_PIXELS
    matrix = torch.stack(
        [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)], 1
    )
    grid = torch.nn.functional.affine_grid(matrix, (n, planes.shape[1], PIXELS, PIXELS), align_corners=False)
    turned = torch.nn.functional.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    hu = turned[:, :PLANES]
    hu += torch.randn(n, 1, 1, 1) * 15 + torch.randn_like(hu) * (torch.rand(n, 1, 1, 1) * 25)
    return turned
