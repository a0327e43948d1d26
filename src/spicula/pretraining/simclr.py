"""SimCLR: two views of a region are to be more alike than views of any two (needs torch).

References:
    Chen et al. 2020, arXiv 2002.05709; "Lesion Search with Self-supervised Learning" 2023, arXiv 2311.11014, and its
    code. Departures: slices of one nodule need not be each other's negatives; no color.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from spicula.core.errors import InputError
from spicula.networks.resnet import RegionEncoder, RegionShape
from spicula.pretraining.lars import Lars, lars_groups
from spicula.pretraining.region_views import RegionViewRecipe, compact_views
from spicula.pretraining.schedules import Cosine

OptimizerName: TypeAlias = Literal["lars", "adamw"]

Gather: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Rows of this process to those of all processes, one after another; gradients go back to where they came from."""


@dataclass(frozen=True, slots=True)
class SimclrRecipe:
    """How SimCLR is pretrained. The defaults are the published ones.

    Args:
        epochs: Of the schedule.
        batch: Regions of a step and process.
        views: How views are made.
        other_slice: Share of the regions whose second views are made of another slice of the same nodule.
        temperature: Cosines are divided by it.
        hidden: Features of the projection's first layer.
        projection: Of its last.
        optimizer: ``"lars"`` as published, or ``"adamw"``.
        rate: Learning rate; for LARS of a batch of 256, and scaled by the batch.
        warm: Epochs of its warm-up.
        decay: Weight decay.
        seed: Of all chance.
    """

    epochs: int = 1000
    batch: int = 256
    views: RegionViewRecipe = field(default_factory=RegionViewRecipe)
    other_slice: float = 0.0
    temperature: float = 0.1
    hidden: int = 512
    projection: int = 256
    optimizer: OptimizerName = "lars"
    rate: float = 0.3
    warm: float = 10
    decay: float = 1e-6
    seed: int = 0


def published_recipe() -> SimclrRecipe:
    """1000 epochs with LARS; views without blur, as in the authors' code; batch and rate are SimCLR's (not told)."""
    return SimclrRecipe()


def compact_recipe(*, epochs: int = 100) -> SimclrRecipe:
    """For some thousand regions about nodules, on a CPU: small batches, AdamW, views that keep the nodule in sight."""
    return SimclrRecipe(
        epochs=epochs, batch=64, views=compact_views(), other_slice=0.7, hidden=256, projection=64, optimizer="adamw",
        rate=1e-3, warm=0.1 * epochs, decay=1e-2,
    )  # fmt: skip


class ProjectionHead(nn.Module):  # type: ignore[misc, unused-ignore]
    """What is compared while it is taught, and thrown away then: linear, norm, ReLU, linear without bias.

    Args:
        width: Features that come in.
        hidden: Of the first layer.
        dimensions: Of the last.
    """

    def __init__(self, width: int, *, hidden: int = 512, dimensions: int = 256) -> None:
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.last = nn.Linear(hidden, dimensions, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, width]`` to ``[n, dimensions]``."""
        return self.last(torch.relu(self.norm(self.first(x))))


class SimclrNetwork(nn.Module):  # type: ignore[misc, unused-ignore]
    """An encoder of regions and a projection of its vectors, before they get length 1.

    Args:
        shape: Of the encoder.
        recipe: How it is trained.
    """

    def __init__(self, shape: RegionShape, recipe: SimclrRecipe) -> None:
        super().__init__()
        self.encoder = RegionEncoder(shape)
        self.head = ProjectionHead(shape.embedding, hidden=recipe.hidden, dimensions=recipe.projection)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Regions ``[n, channels, pixels, pixels]`` to vectors ``[n, embedding]`` and their projections."""
        features = self.encoder.features(x)
        return features, self.head(features)


def alone(values: torch.Tensor) -> torch.Tensor:
    """The rows of one process: the values themselves."""
    return values


class _Gather(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """Its way back sums what all processes say of the rows of this one."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, values.contiguous())
        ctx.rows = len(values)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *above: torch.Tensor) -> torch.Tensor:
        whole = above[0].clone()
        torch.distributed.all_reduce(whole)
        return whole.split(ctx.rows)[torch.distributed.get_rank()]


def gathered(values: torch.Tensor) -> torch.Tensor:
    """The rows of all processes of ``torch.distributed``, which have as many each; see :data:`Gather`."""
    found: torch.Tensor = _Gather.apply(values)
    return found


def nt_xent(
    first: torch.Tensor, second: torch.Tensor, temperature: float = 0.1, *, groups: torch.Tensor | None = None,
    gather: Gather = alone, rank: int = 0,
) -> torch.Tensor:  # fmt: skip
    """The normalized, temperature-scaled cross-entropy: each view is to find the other among all views of the batch.

    Computed in float32 or wider, also under mixed precision.

    Args:
        first: Projections of first views ``[n, d]``, of any length.
        second: Of second views of the same regions.
        temperature: Cosines are divided by it.
        groups: Integers ``[n]``; views of other regions of the same group are no negatives.
        gather: Rows of all processes; the negatives are theirs too.
        rank: Which process this is.

    Returns:
        The mean over the 2 n views of this process.

    Raises:
        InputError: The shapes do not fit, or the temperature is not positive.

    References:
        Chen et al. 2020, arXiv 2002.05709, equation 1 and algorithm 1.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise InputError("second views", got=tuple(second.shape), expected=f"[n, d] as the first, {tuple(first.shape)}")
    if temperature <= 0:
        raise InputError("temperature", got=temperature, expected="a positive number")
    n, device = len(first), first.device
    with torch.autocast(device.type, enabled=False):
        views = [functional.normalize(_wide(x), dim=1) for x in (first, second)]
        whole = [gather(x) for x in views]
        logits = torch.cat(views) @ torch.cat(whole).T / temperature
    place = rank * n + torch.arange(n, device=device)
    own, other = torch.cat((place, place + len(whole[0]))), torch.cat((place + len(whole[0]), place))
    left_out = torch.zeros_like(logits, dtype=torch.bool)
    if groups is not None:
        if groups.shape != (n,):
            raise InputError("groups", got=tuple(groups.shape), expected=(n,))
        left_out = groups.repeat(2)[:, None] == gather(groups).repeat(2)[None]
    rows = torch.arange(2 * n, device=device)
    left_out[rows, own], left_out[rows, other] = True, False
    return functional.cross_entropy(logits.masked_fill(left_out, -torch.inf), other)


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.float()


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """What one step gives.

    Args:
        total: What is descended.
        parts: By name, detached: ``loss``; ``found``, share of the first views whose nearest second view is their own;
            ``alike``, mean cosine of two views of a region; ``spread``, one minus the mean cosine between the vectors
            of different regions.
    """

    total: torch.Tensor
    parts: Mapping[str, torch.Tensor]


def losses_of(
    network: Any, views: Sequence[torch.Tensor], recipe: SimclrRecipe, *, groups: torch.Tensor | None = None,
    gather: Gather = alone, rank: int = 0,
) -> Losses:  # fmt: skip
    """The loss of one batch: the mean over all pairs of views.

    Args:
        network: A :class:`SimclrNetwork`, wrapped or not.
        views: Two or more, each ``[n, channels, pixels, pixels]``.
        recipe: How.
        groups: See :func:`nt_xent`.
        gather: See :func:`nt_xent`.
        rank: See :func:`nt_xent`.

    Raises:
        InputError: There are fewer than two views or regions.
    """
    n = len(views[0]) if len(views) else 0
    if len(views) < 2 or n < 2:
        raise InputError("batch", got=f"{len(views)} views of {n} regions", expected="at least 2 of at least 2")
    features, projections = network(torch.cat(list(views)))
    said = projections.split(n)
    pairs = [
        nt_xent(a, b, recipe.temperature, groups=groups, gather=gather, rank=rank) for a, b in combinations(said, 2)
    ]
    total = torch.stack(pairs).mean()
    return Losses(total, {"loss": total.detach(), **_health(features[:n], said[0], said[1])})


@torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
def _health(features: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> dict[str, torch.Tensor]:
    a, b = (functional.normalize(x.float(), dim=1) for x in (first, second))
    nearest = (a @ b.T).argmax(dim=1) == torch.arange(len(a), device=a.device)
    return {"found": nearest.float().mean(), "alike": (a * b).sum(dim=1).mean(), "spread": spread_of(features)}


@torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
def spread_of(vectors: torch.Tensor) -> torch.Tensor:
    """One minus the mean cosine between different rows of ``[n, d]``, n at least 2: 0 where all point the same way."""
    unit, n = functional.normalize(vectors.float(), dim=1), len(vectors)
    return 1 - (unit.sum(dim=0).square().sum() - unit.square().sum()) / (n * (n - 1))


def require_no_collapse(parts: Mapping[str, float], *, where: str, least: float = 1e-4) -> None:
    """Stop where all regions look the same to the encoder.

    Args:
        parts: Mean :attr:`Losses.parts` of an epoch.
        where: Named in the message.
        least: Smallest spread that is none.

    Raises:
        InputError: The representation has collapsed.
    """
    if not parts["spread"] >= least:
        raise InputError(
            f"{where}: the features collapsed",
            got=f"a spread of {parts['spread']:.2g} between regions (1 minus their mean cosine)",
            expected=f"at least {least:g}",
            hint="the last good state is kept: lower the learning rate, or warm it up for longer",
        )


def optimizer_of(network: nn.Module, recipe: SimclrRecipe) -> torch.optim.Optimizer:
    """The optimizer of a recipe, at rest: :class:`Schedule` sets its rate."""
    groups = lars_groups(network, weight_decay=recipe.decay)
    if recipe.optimizer == "lars":
        return Lars(groups, lr=0.0)
    plain = [{"params": group["params"], "weight_decay": group["weight_decay"]} for group in groups]
    return torch.optim.AdamW(plain, lr=0.0)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate of a recipe at each step.

    Args:
        recipe: The recipe.
        per_epoch: Steps of an epoch.
        images: Regions of a step, over all processes.
    """

    recipe: SimclrRecipe
    per_epoch: int
    images: int

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.recipe.epochs * self.per_epoch

    @property
    def peak(self) -> float:
        """The highest rate: that of LARS goes with the batch, that of AdamW stays."""
        return self.recipe.rate * (self.images / 256 if self.recipe.optimizer == "lars" else 1.0)

    def rate(self, step: int) -> float:
        """Learning rate."""
        warm = min(round(self.recipe.warm * self.per_epoch), self.steps // 2)
        return Cosine(self.peak, 0.0, self.steps, warm)(step)

    def apply(self, optimizer: Any, step: int) -> None:
        """Set it."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step)
