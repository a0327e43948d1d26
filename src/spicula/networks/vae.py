"""A variational autoencoder of regions: ResNet-18 to a few numbers and back (needs torch).

References:
    Kingma and Welling 2014, arXiv 1312.6114; Higgins et al. 2017, beta-VAE; He et al. 2015, arXiv 1512.03385; "Lesion
    Search with Self-supervised Learning" 2023, arXiv 2311.11014 (the baseline, with 256 numbers). Departure: the
    decoder grows from 4 x 4 by doubling before each of its four stages, whatever the encoder's stem.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from spicula.core.errors import InputError
from spicula.networks.pooling import Average
from spicula.networks.resnet import CENTER, SPREAD, BasicBlock, RegionShape, ResNet18, he_weights

SMALLEST = 4
"""Side of the decoder's first map."""

DOUBLINGS = 4


class Latent(NamedTuple):
    """The normal distribution that a region is encoded as.

    Args:
        mean: ``[n, latent]``.
        log_variance: ``[n, latent]``.
    """

    mean: torch.Tensor
    log_variance: torch.Tensor


class Decoder(nn.Module):  # type: ignore[misc, unused-ignore]
    """The encoder's mirror: four stages of two basic blocks, each after a doubling of rows and columns.

    Args:
        latent: Numbers that come in.
        channels: Of a region.
        width: Features before the last convolution; there are 8 times as many at the beginning.
    """

    def __init__(self, latent: int, channels: int, *, width: int = 64) -> None:
        super().__init__()
        widths = [8 * width, 4 * width, 2 * width, width, width]
        self.first = nn.Linear(latent, widths[0] * SMALLEST**2)
        self.stages = nn.ModuleList(nn.Sequential(BasicBlock(a, b), BasicBlock(b, b)) for a, b in pairwise(widths))
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        he_weights(self)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """``[n, latent]`` to logits of gray values ``[n, channels, 64, 64]``."""
        x = self.first(z).unflatten(1, (-1, SMALLEST, SMALLEST))
        for stage in self.stages:
            x = stage(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        logits: torch.Tensor = self.last(x)
        return logits


class RegionVae(nn.Module):  # type: ignore[misc, unused-ignore]
    """Encoder and decoder of regions of 64 x 64; in use, the mean with length 1 is the embedding.

    Args:
        shape: Of the encoder: channels, width, stem and max-pool; the rest does not matter here.
        latent: Numbers between encoder and decoder.

    Raises:
        InputError: The regions have another size than the decoder makes.
    """

    def __init__(self, shape: RegionShape, *, latent: int = 256) -> None:
        super().__init__()
        side = SMALLEST * 2**DOUBLINGS
        if shape.pixels != side:
            raise InputError("pixels of a region", got=shape.pixels, expected=side)
        self.shape, self.latent = shape, latent
        self.encoder = ResNet18(shape.channels, shape.width, stem=shape.stem, max_pool=shape.max_pool)
        self.pool = Average()
        self.mean = nn.Linear(shape.features, latent)
        self.log_variance = nn.Linear(shape.features, latent)
        self.decoder = Decoder(latent, shape.channels, width=shape.width)

    def encode(self, x: torch.Tensor) -> Latent:
        """Regions ``[n, channels, 64, 64]``, gray values 0 to 1, to their distributions.

        Raises:
            InputError: They have another shape.
        """
        shape = (self.shape.channels, self.shape.pixels, self.shape.pixels)
        if tuple(x.shape[1:]) != shape:
            raise InputError("regions", got=tuple(x.shape), expected=f"[n, {', '.join(map(str, shape))}]")
        pooled = self.pool(self.encoder((x - CENTER) / SPREAD))
        return Latent(self.mean(pooled).float(), self.log_variance(pooled).float())

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Regions to what is compared, ``[n, latent]``: the means, before they get length 1."""
        return self.encode(x).mean

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """``[n, latent]`` to logits of gray values ``[n, channels, 64, 64]``; their sigmoid is the region."""
        found: torch.Tensor = self.decoder(z)
        return found

    def reconstruct(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, Latent]:
        """Regions through both, with a draw between.

        Args:
            x: As for :meth:`encode`.
            noise: ``[n, latent]`` of the standard normal distribution; zeros for the mean itself.

        Returns:
            Logits of gray values; what was encoded.
        """
        latent = self.encode(x)
        return self.decode(sampled(latent, noise)), latent

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Regions to embeddings ``[n, latent]`` of length 1, in float32."""
        return functional.normalize(self.features(x), dim=1)


def sampled(latent: Latent, noise: torch.Tensor) -> torch.Tensor:
    """A draw of each distribution that gradients pass through: mean plus noise times the standard deviation.

    Args:
        latent: The distributions.
        noise: ``[n, latent]`` of the standard normal distribution.

    References:
        Kingma and Welling 2014, section 2.4.
    """
    return latent.mean + noise.to(latent.mean) * torch.exp(0.5 * latent.log_variance)
