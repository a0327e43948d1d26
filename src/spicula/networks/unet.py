"""A compact anisotropic 3-D U-Net for outlines (needs torch; inference runs its ONNX file instead).

References:
    Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28; Cicek et al. 2016, doi:10.1007/978-3-319-46723-8_49.
    Departures: the full resolution has one light layer each way, the first pooling keeps the slices (they are
    coarser than the pixels), levels are added after one-by-one convolutions instead of joined.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def _conv(
    inputs: int, outputs: int, kernel: tuple[int, int, int], *, stride: tuple[int, int, int] = (1, 1, 1)
) -> nn.Module:
    padding = tuple(k // 2 for k in kernel)
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):  # type: ignore[misc, unused-ignore]
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels, (3, 3, 3))
        self.second = nn.Sequential(nn.Conv3d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm3d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(self.first(x)))


class UNet(nn.Module):  # type: ignore[misc, unused-ignore]
    """Logits of a region on the grid of the input.

    Args:
        channels: Number of input channels.
        widths: Features at full, half (in-plane), quarter and eighth resolution.
    """

    def __init__(self, channels: int, *, widths: Sequence[int] = (8, 16, 32, 64)) -> None:
        super().__init__()
        full, half, quarter, eighth = widths
        self.stem = _conv(channels, full, (1, 3, 3))
        self.down1 = _conv(full, half, (1, 3, 3), stride=(1, 2, 2))
        self.encode1 = _Residual(half)
        self.down2 = _conv(half, quarter, (3, 3, 3), stride=(2, 2, 2))
        self.encode2 = _Residual(quarter)
        self.down3 = _conv(quarter, eighth, (3, 3, 3), stride=(2, 2, 2))
        self.encode3 = _Residual(eighth)
        self.up3 = nn.Conv3d(eighth, quarter, 1)
        self.decode2 = _Residual(quarter)
        self.up2 = nn.Conv3d(quarter, half, 1)
        self.decode1 = _Residual(half)
        self.up1 = nn.Conv3d(half, full, 1)
        self.decode0 = _conv(full, full, (3, 3, 3))
        self.head = nn.Conv3d(full, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[n, channels, z, y, x]`` to logits ``[n, 1, z, y, x]``; y, x divisible by 8 and z by 4."""
        level0 = self.stem(x)
        level1 = self.encode1(self.down1(level0))
        level2 = self.encode2(self.down2(level1))
        level3 = self.encode3(self.down3(level2))
        y = self.decode2(level2 + self._up(self.up3(level3), (2, 2, 2)))
        y = self.decode1(level1 + self._up(self.up2(y), (2, 2, 2)))
        y = self.decode0(level0 + self._up(self.up1(y), (1, 2, 2)))
        return self.head(y)

    @staticmethod
    def _up(x: torch.Tensor, factor: tuple[int, int, int]) -> torch.Tensor:
        return nn.functional.interpolate(x, scale_factor=[float(f) for f in factor], mode="nearest")
