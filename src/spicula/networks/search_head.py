"""From features of regions and measured numbers to a vector whose neighbors turned out alike (needs torch)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

CLIP = 5.0
"""Standardized numbers are held within plus and minus this, so that an odd image cannot leave what was learned."""


class SearchHead(nn.Module):  # type: ignore[misc, unused-ignore]
    """Several small networks side by side; their unit vectors, one after another, make one of unit length.

    Args:
        center: ``[f]`` of the inputs, subtracted.
        scale: ``[f]``, divided by.
        members: How many networks.
        hidden: Features between.
        dimensions: Of each network's vector.
        drop: Share of the inputs, and of the features between, that is left out in training.
    """

    def __init__(
        self, center: torch.Tensor, scale: torch.Tensor, *, members: int, hidden: int, dimensions: int,
        drop: tuple[float, float] = (0.1, 0.3),
    ) -> None:  # fmt: skip
        super().__init__()
        self.register_buffer("center", center.float())
        self.register_buffer("scale", scale.float())
        self.members = nn.ModuleList(
            nn.Sequential(
                nn.Dropout(drop[0]), nn.Linear(len(center), hidden), nn.GELU(), nn.Dropout(drop[1]),
                nn.Linear(hidden, dimensions),
            )
            for _ in range(members)
        )  # fmt: skip

    def apart(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Unit vectors ``[n, dimensions]`` of each member for inputs ``[n, f]``."""
        seen = ((x - self.center) / self.scale).clamp(-CLIP, CLIP)
        return [functional.normalize(member(seen), dim=1) for member in self.members]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, f]`` to ``[n, members * dimensions]`` of length 1."""
        return torch.cat(self.apart(x), dim=1) / len(self.members) ** 0.5
