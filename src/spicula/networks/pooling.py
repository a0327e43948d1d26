"""From a feature map to one vector: generalized mean, average or maximum (needs torch).

References:
    Radenovic et al. 2018, arXiv 1711.02512, equations 1 to 3 (GeM).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import nn

from spicula.core.errors import InputError

Pool: TypeAlias = Literal["gem", "average", "max"]


class GeneralizedMean(nn.Module):  # type: ignore[misc, unused-ignore]
    """The generalized mean ``(mean x^p)^(1/p)`` of each channel: the average for p of 1, near the maximum for large p.

    Each channel is divided by its maximum first and multiplied by it last: the same numbers and gradients, which stay
    finite for any p. Computed in float32, also under mixed precision.

    Args:
        power: p at the beginning; it is learned, one for all channels.
        eps: Smaller values are raised to this.

    References:
        Radenovic et al. 2018, arXiv 1711.02512, equation 3.
    """

    def __init__(self, *, power: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.full((1,), power))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, channels, rows, columns]`` to ``[n, channels]``."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float().clamp_min(self.eps)
            highest = x.detach().amax(dim=(2, 3), keepdim=True)
            power = self.power.float()
            mean = (x / highest).pow(power).mean(dim=(2, 3)).pow(1.0 / power)
            return highest[:, :, 0, 0] * mean


class Average(nn.Module):  # type: ignore[misc, unused-ignore]
    """The mean of each channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, channels, rows, columns]`` to ``[n, channels]``."""
        return x.mean(dim=(2, 3))


class Maximum(nn.Module):  # type: ignore[misc, unused-ignore]
    """The largest value of each channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, channels, rows, columns]`` to ``[n, channels]``."""
        return x.amax(dim=(2, 3))


def pooling_of(kind: Pool) -> nn.Module:
    """A new pooling of a kind: ``[n, channels, rows, columns]`` to ``[n, channels]``.

    Args:
        kind: ``"gem"`` (its power is learned), ``"average"`` or ``"max"``.

    Raises:
        InputError: It is another one.
    """
    kinds: dict[str, type[nn.Module]] = {"gem": GeneralizedMean, "average": Average, "max": Maximum}
    if kind not in kinds:
        raise InputError("pooling", got=repr(kind), expected=f"one of {', '.join(kinds)}")
    return kinds[kind]()
