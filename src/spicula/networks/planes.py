"""A small residual network on axial planes of a nodule, and several of them side by side (needs torch).

References:
    He et al. 2016, doi:10.1109/CVPR.2016.90. Departures: three levels of one block each, mean and maximum pooled.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

WINDOWS_HU = ((-1000.0, 400.0), (-160.0, 240.0), (100.0, 900.0))
"""Lung, soft tissue and calcium: each plane enters three times, scaled to -1 to 1."""


class _Residual(nn.Module):  # type: ignore[misc, unused-ignore]
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.skip = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.skip(x) + self.second(self.first(x)))


class PlaneNet(nn.Module):  # type: ignore[misc, unused-ignore]
    """Logits from planes of HU and of the outline.

    Args:
        planes: How many planes; the input has twice as many channels, HU first.
        outputs: Number of logits.
        width: Features of the first level; the third has four times as many.
        dropout: Before the last layer, in training.
    """

    def __init__(self, planes: int, outputs: int, *, width: int = 24, dropout: float = 0.3) -> None:
        super().__init__()
        self.planes = planes
        channels = planes * (len(WINDOWS_HU) + 1)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.levels = nn.Sequential(
            _Residual(width, width), _Residual(width, 2 * width), _Residual(2 * width, 4 * width)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8 * width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, 2 * planes, rows, columns]`` (HU, then outline 0 to 1) to ``[n, outputs]``."""
        hu, part = x[:, : self.planes], x[:, self.planes :]
        windows = [((hu - low) * (2.0 / (high - low)) - 1.0).clamp(-1.0, 1.0) for low, high in WINDOWS_HU]
        features = self.levels(self.stem(torch.cat([*windows, part], dim=1)))
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        logits: torch.Tensor = self.head(self.dropout(pooled))
        return logits


class Committee(nn.Module):  # type: ignore[misc, unused-ignore]
    """Members of several networks each on one input, averaged over mirror images; keeps the first outputs.

    Args:
        members: The networks of each member, equally many.
        outputs: How many leading logits of each are kept.
    """

    def __init__(self, members: Sequence[Sequence[PlaneNet]], outputs: int) -> None:
        super().__init__()
        self.members = nn.ModuleList([nn.ModuleList(networks) for networks in members])
        self.outputs = outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, channels, rows, columns]`` to ``[n, members * outputs]``, member by member."""
        views = [x, x.flip(2), x.flip(3), x.flip((2, 3))]
        logits = [
            torch.stack([network(view)[:, : self.outputs] for network in networks for view in views]).mean(dim=0)
            for networks in self.members
        ]
        return torch.cat(logits, dim=1)
