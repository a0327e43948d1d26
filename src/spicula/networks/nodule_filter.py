"""A small 3-D network that tells nodules from vessels, airways and the wall, in two boxes around a candidate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class NoduleFilter(nn.Module):  # type: ignore[misc]
    """Two towers of plain 3-D convolutions, one for each box, joined by a small head.

    The first stage takes every second voxel (its kernels see them all), each later one but the last is pooled.

    Args:
        widths: Channels of the four stages of a tower.
        dropout: Before the last layer.
    """

    def __init__(self, widths: Sequence[int] = (12, 16, 32, 64), *, dropout: float = 0.3) -> None:
        super().__init__()
        self.near = _tower(widths)
        self.far = _tower(widths)
        self.head = nn.Sequential(
            nn.Linear(4 * widths[-1], 64), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(64, 1)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Judge candidates.

        Args:
            image: ``[n, 2, z, y, x]``, near and far box.

        Returns:
            ``[n, 1]`` logits.
        """
        features = []
        for tower, box in ((self.near, image[:, :1]), (self.far, image[:, 1:])):
            maps = tower(box)
            features += [maps.mean(dim=(2, 3, 4)), maps.amax(dim=(2, 3, 4))]
        return self.head(torch.cat(features, dim=1))


def _tower(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = 1
    for stage, width in enumerate(widths):
        layers += [
            nn.Conv3d(before, width, 3, stride=1 if stage else 2, padding=1, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        ]
        if 0 < stage < len(widths) - 1:
            layers.append(nn.MaxPool3d(2))
        before = width
    return nn.Sequential(*layers)
