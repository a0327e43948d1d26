"""Train a dense head on a vision transformer's tokens, or both; a killed training goes on exactly."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.detectors import dino
from spicula.networks import checkpoint
from spicula.pipelines.dino_detection_table import DetectionTable, Records, Stacked


@dataclass(frozen=True, slots=True)
class Recipe:
    """How heads are trained: the dense one in ``steps`` at up to ``rate``, the published one in ``epochs``.

    A backbone that is learned has ``backbone_rate`` times the rate and sees slices whole, else parts of ``window``
    patches a side. ``hidden``, ``fine``, ``upsample`` and ``outline`` are the dense head's.
    """

    steps: int = 2000
    batch: int = 16
    rate: float = 2e-3
    backbone_rate: float = 0.02
    decay: float = 0.05
    window: int = 12
    hidden: int = 96
    fine: int = 48
    upsample: int = 4
    outline: int = 2
    epochs: int = 100
    seed: int = 0
    threads: int = 1
    checkpoint_every: int = 100


class Sampler:
    """Draws parts of slices, or ``whole`` ones, with their targets; half of them show a nodule."""

    def __init__(self, table: DetectionTable, rows: Records, recipe: Recipe, *, whole: bool) -> None:
        self.table, self.rows, self.recipe = table, rows, recipe
        grid = np.array([table.view.rows, table.view.columns])
        self.window = grid if whole else np.minimum(grid, recipe.window)
        self.spare = grid - self.window
        self.entries = table.nodules[np.isin(table.nodules[:, 0], rows)]
        if not len(self.entries):
            raise InputError("slices to learn from", got="none with a nodule", expected="some", hint="raise the limit")
        _, number, slices = np.unique(self.entries[:, 4], return_inverse=True, return_counts=True)
        self.chance = 1 / (slices[number] * len(slices))  # each nodule as often as any other

    def draw(self, rng: np.random.Generator) -> tuple[Records, Records, Any]:
        """Slices ``[n]``, first patch row and column of each part ``[n, 2]``, and the targets as torch tensors."""
        torch = require("torch", extra="train")
        from spicula.networks.dino_detection import DenseTargets, draw_targets

        half, view, many = self.recipe.batch // 2, self.table.view, self.recipe.upsample
        entries = self.entries[rng.choice(len(self.entries), size=half, p=self.chance)]
        records = np.concatenate([entries[:, 0].astype(np.intp), rng.choice(self.rows, size=self.recipe.batch - half)])
        start = rng.integers(0, self.spare + 1, size=(len(records), 2))
        at = np.floor((entries[:, 1:3] + 0.5) / view.patch).astype(np.intp)
        start[:half] = np.clip(at - rng.integers(0, self.window, size=(half, 2)), 0, self.spare)
        cell, (height, width) = view.patch / many, (self.window * many).tolist()
        drawn = []
        for record, first in zip(records, start, strict=True):
            near = [rows[rows[:, 0] == record][:, 1:4] for rows in (self.table.nodules, self.table.ignored)]
            near = [np.column_stack([(n[:, :2] + 0.5) / cell - first * many, n[:, 2]]) for n in near]
            nodules, ignored = (n.tolist() for n in near)
            drawn.append(draw_targets(nodules, ignored, (height, width), cell_mm=cell * view.pixel_mm))
        heat, size, offset, counted = (torch.from_numpy(np.stack(each)) for each in zip(*drawn, strict=True))
        pixels, places = self.window * view.patch, zip(records, start * view.patch, strict=True)
        marked = np.stack([_part(self.table.outline(int(record)), first, pixels) for record, first in places])
        fine = (self.window * many * max(self.recipe.outline, 1)).tolist()
        outline = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(marked.astype(np.float32)), fine)
        return records, start, DenseTargets(heat, size, offset, counted, outline)

    def inputs(self, patches: Stacked | None, records: Records, start: Records) -> Any:
        """Those parts of stored tokens, ``[n, width, rows, columns]``, or the whole images."""
        torch = require("torch", extra="train")
        if patches is None:
            unit = np.stack([self.table.images[int(record)] for record in records]) * np.float32(1 / 255)
            return torch.from_numpy(dino.as_images(unit))
        parts = [_part(patches[int(record)], at, self.window) for record, at in zip(records, start, strict=True)]
        return torch.from_numpy(np.stack(parts).astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def _part(array: NDArray[Any], start: Records, shape: Records) -> NDArray[Any]:
    """The part of the first two axes that begins at ``start``."""
    (top, left), (bottom, right) = start, start + shape
    return array[top:bottom, left:right]


def fit(
    table: DetectionTable, patches: Stacked | None, rows: Records, folder: Path, recipe: Recipe, *, backbone: Any
) -> dict[str, Any]:
    """Train one network on some slices, going on from its checkpoint in ``folder`` if there is one.

    With the frozen backbone's patch tokens ``[n, rows, columns, width]`` the head alone is learned, without them both.

    Returns:
        The weights (moving average) by name: of the head, or under ``backbone.`` and ``head.`` of both.
    """
    if (done := checkpoint.finished_weights(folder)) is not None:
        return done
    torch = require("torch", extra="train")
    from spicula.networks.dino_detection import dense_loss

    torch.manual_seed(recipe.seed)
    detector = detector_of(backbone, recipe).train()
    network = detector if patches is None else detector.head
    learned = [(detector.head, 1.0), (detector.backbone, recipe.backbone_rate)][: 1 + (patches is None)]
    groups = [{**g, "factor": f} for part, f in learned for g in checkpoint.decay_groups(part, recipe.decay)]
    optimizer = torch.optim.AdamW(groups, lr=recipe.rate)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    sampler, started = Sampler(table, rows, recipe, whole=patches is None), time.perf_counter()
    for step in range(checkpoint.resume_checkpoint(folder, network, optimizer, average), recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * checkpoint.cosine_rate(step, recipe.steps, rate=recipe.rate)
        torch.manual_seed(recipe.seed * 100_003 + step)
        records, start, targets = sampler.draw(np.random.default_rng((recipe.seed, step)))
        loss, parts = dense_loss(network(sampler.inputs(patches, records, start)), targets)
        if not bool(torch.isfinite(loss)):
            raise InputError(f"{folder}: loss of step {step}", got=parts, expected="numbers", hint="lower the rate")
        checkpoint.descend(loss, network, optimizer)
        checkpoint.update_average(average, network, step=step)
        parts["seconds"] = time.perf_counter() - started
        checkpoint.append_log(folder, {"step": step, **{k: round(v, 5) for k, v in parts.items()}})
        if (step + 1) % recipe.checkpoint_every == 0:
            checkpoint.save_checkpoint(folder, step + 1, network, optimizer, average)
    checkpoint.save_weights(folder, average)
    return average


def detector_of(backbone: Any, recipe: Recipe, weights: Mapping[str, Any] | None = None) -> Any:
    """A copy of a backbone with a dense head: an untrained one, or with what :func:`fit` gave."""
    from spicula.networks.dino_detection import DenseHead, DinoDetector

    sizes = {name: getattr(recipe, name) for name in ("hidden", "fine", "upsample", "outline")}
    detector = DinoDetector(copy.deepcopy(backbone), DenseHead(backbone.shape.width, **sizes))
    if weights is not None:
        whole = any(name.startswith("backbone.") for name in weights)
        (detector if whole else detector.head).load_state_dict(dict(weights))
    return detector.eval()
