"""Training of a (beta-)variational autoencoder of regions: reconstruction and divergence (needs torch).

References:
    Kingma and Welling 2014, arXiv 1312.6114; Higgins et al. 2017, beta-VAE (ICLR 2017); "Lesion Search with
    Self-supervised Learning" 2023, arXiv 2311.11014: the baseline of its search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from spicula.core.errors import InputError
from spicula.networks.resnet import RegionShape
from spicula.networks.vae import Latent, RegionVae
from spicula.pretraining.region_views import RegionViewRecipe, compact_views
from spicula.pretraining.schedules import Cosine
from spicula.pretraining.simclr import spread_of

Kind: TypeAlias = Literal["bce", "mse"]

IN_USE = 0.01
"""Numbers of a code whose mean divergence is above this many nats tell something."""


@dataclass(frozen=True, slots=True)
class VaeRecipe:
    """How the autoencoder is trained.

    Args:
        epochs: Of the schedule.
        batch: Regions of a step and process.
        views: How the regions are shown; each view is to be reconstructed itself.
        latent: Numbers of a code.
        beta: Weight of the divergence; 1 is the bound of the likelihood.
        reconstruction: ``"bce"``, cross-entropy of gray values, or ``"mse"``, squared differences.
        rate: Highest learning rate of Adam.
        warm: Epochs of its warm-up.
        seed: Of all chance.
    """

    epochs: int = 1000
    batch: int = 256
    views: RegionViewRecipe = field(default_factory=lambda: RegionViewRecipe(views=1, area=(1.0, 1.0), window=0.0))
    latent: int = 256
    beta: float = 1.0
    reconstruction: Kind = "bce"
    rate: float = 1e-4
    warm: float = 10
    seed: int = 0


def published_recipe(*, beta: float = 1.0) -> VaeRecipe:
    """256 numbers, cross-entropy, regions as they are but for their mirror; epochs as SimCLR's (none are told)."""
    return VaeRecipe(beta=beta)


def compact_recipe(*, epochs: int = 100, beta: float = 1.0) -> VaeRecipe:
    """For some thousand regions about nodules, on a CPU: the views of SimCLR's compact recipe, 64 numbers."""
    views = replace(compact_views(), views=1, noise_hu=0.0, blur=0.0)
    return VaeRecipe(epochs=epochs, batch=64, views=views, latent=64, beta=beta, rate=1e-3, warm=0.1 * epochs)


class Autoencoding(nn.Module):  # type: ignore[misc, unused-ignore]
    """An autoencoder as it is taught: what a step computes, in one call, so that it can be wrapped for many processes.

    Args:
        shape: Of its encoder.
        recipe: How it is trained.
    """

    def __init__(self, shape: RegionShape, recipe: VaeRecipe) -> None:
        super().__init__()
        self.network = RegionVae(shape, latent=recipe.latent)

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, Latent]:
        """See :meth:`spicula.networks.vae.RegionVae.reconstruct`."""
        found: tuple[torch.Tensor, Latent] = self.network.reconstruct(x, noise)
        return found


def divergence(latent: Latent) -> torch.Tensor:
    """Of each number from the standard normal distribution, ``[n, latent]``, in nats.

    References:
        Kingma and Welling 2014, appendix B.
    """
    mean, log_variance = latent
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)


def reconstruction_loss(logits: torch.Tensor, gray: torch.Tensor, kind: Kind = "bce") -> torch.Tensor:
    """What is lost of each region, ``[n]``, summed over its values.

    Args:
        logits: Of gray values, of any shape ``[n, ...]``.
        gray: What they should be, 0 to 1.
        kind: ``"bce"``, cross-entropy, or ``"mse"``, squared differences: in nats for a standard deviation of
            the square root of one half.

    Raises:
        InputError: The shapes differ, or the kind is unknown.
    """
    if logits.shape != gray.shape:
        raise InputError("reconstruction", got=tuple(logits.shape), expected=tuple(gray.shape))
    said = logits.float()
    if kind == "bce":
        each = functional.binary_cross_entropy_with_logits(said, gray.float(), reduction="none")
    elif kind == "mse":
        each = (torch.sigmoid(said) - gray.float()).square()
    else:
        raise InputError("reconstruction", got=repr(kind), expected="'bce' or 'mse'")
    return each.flatten(1).sum(dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """What one step gives.

    Args:
        total: What is descended.
        parts: By name, detached: ``loss``; ``reconstruction`` and ``divergence``, means over regions; ``error``, mean
            absolute difference of gray values; ``in_use``, how many numbers of a code tell something; ``spread``, one
            minus the mean cosine between the codes of different regions.
    """

    total: torch.Tensor
    parts: Mapping[str, torch.Tensor]


def losses_of(network: Any, images: torch.Tensor, recipe: VaeRecipe, rng: np.random.Generator) -> Losses:
    """Reconstruction and beta times divergence of one batch, in one draw.

    Args:
        network: An :class:`Autoencoding`, wrapped or not.
        images: ``[n, channels, 64, 64]``, gray values 0 to 1.
        recipe: How.
        rng: Source of the draw.

    Raises:
        InputError: There are fewer than two regions.
    """
    if len(images) < 2:
        raise InputError("batch", got=f"{len(images)} regions", expected="at least 2")
    noise = torch.from_numpy(rng.standard_normal((len(images), recipe.latent), dtype=np.float32)).to(images.device)
    logits, latent = network(images, noise)
    lost = reconstruction_loss(logits, images, recipe.reconstruction).mean()
    each = divergence(latent).mean(dim=0)
    total = lost + recipe.beta * each.sum()
    with torch.no_grad():
        error = (torch.sigmoid(logits.float()) - images).abs().mean()
        parts = {"loss": total.detach(), "reconstruction": lost.detach(), "divergence": each.detach().sum()}
        health = {"error": error, "in_use": (each > IN_USE).float().sum(), "spread": spread_of(latent.mean)}
    return Losses(total, {**parts, **health})


def require_no_collapse(parts: Mapping[str, float], *, where: str, least: float = 1.0) -> None:
    """Stop where the codes tell nothing: all are the standard normal distribution.

    Args:
        parts: Mean :attr:`Losses.parts` of an epoch; the first epochs may well be so.
        where: Named in the message.
        least: How many numbers of a code must tell something.

    Raises:
        InputError: Fewer do.
    """
    if not parts["in_use"] >= least:
        raise InputError(
            f"{where}: the codes collapsed", got=f"{parts['in_use']:.3g} numbers that tell something",
            expected=f"at least {least:g}", hint="the last good state is kept: lower beta or the learning rate",
        )  # fmt: skip


def optimizer_of(network: nn.Module) -> torch.optim.Optimizer:
    """Adam without decay, at rest: :class:`Schedule` sets its rate."""
    return torch.optim.Adam(network.parameters(), lr=0.0)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate of a recipe at each step.

    Args:
        recipe: The recipe.
        per_epoch: Steps of an epoch.
    """

    recipe: VaeRecipe
    per_epoch: int

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.recipe.epochs * self.per_epoch

    def rate(self, step: int) -> float:
        """Learning rate."""
        warm = min(round(self.recipe.warm * self.per_epoch), self.steps // 2)
        return Cosine(self.recipe.rate, 0.0, self.steps, warm)(step)

    def apply(self, optimizer: Any, step: int) -> None:
        """Set it."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step)
