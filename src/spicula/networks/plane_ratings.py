"""The compact image tower on single planes with ratings to learn from: what it is pretrained as (needs torch)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class PlaneRatings(nn.Module):  # type: ignore[misc, unused-ignore]
    """An image tower and logits of the readers' ratings.

    Args:
        vision: :class:`spicula.networks.clip_outlined.OutlinedVision`.
        outputs: How many thresholds of ratings.
    """

    def __init__(self, vision: nn.Module, outputs: int) -> None:
        super().__init__()
        self.vision = vision
        self.dropout = nn.Dropout(0.3)
        self.ratings = nn.Linear(vision.output_dim, outputs)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Planes ``[n, 2, rows, columns]``, HU and the outline, to logits ``[n, outputs]``."""
        logits: torch.Tensor = self.ratings(self.dropout(functional.relu(self.vision(planes))))
        return logits


def changed_planes(
    planes: torch.Tensor, *, pixels: int, pixel_mm: float, from_pixel_mm: float, background_hu: float
) -> torch.Tensor:
    """Planes turned by any angle, mirrored, of another size, shifted, of other density and with noise.

    The random numbers are torch's own: seed it before.

    Args:
        planes: float32 ``[n, 2, rows, columns]``, HU and the outline.
        pixels: Rows and columns of the result.
        pixel_mm: Its pixel.
        from_pixel_mm: Pixel of ``planes``.
        background_hu: Beyond them.

    Returns:
        float32 ``[n, 2, pixels, pixels]``; sizes by up to 15 %, shifts by up to 1.5 mm, HU by up to 10 % and 40 HU.
    """
    n, side = len(planes), planes.shape[-1]
    angle = torch.rand(n) * 2 * torch.pi
    size = torch.exp((torch.rand(n) - 0.5) * 0.3) * (pixels * pixel_mm) / (side * from_pixel_mm)
    mirror = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    shift = (torch.rand(n, 2) - 0.5) * (2 * 1.5) * 2 / (side * from_pixel_mm)
    rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), [n, 2, pixels, pixels], align_corners=False)
    offset = planes.new_tensor([background_hu, 0.0])[:, None, None]
    moved = functional.grid_sample(planes - offset, grid.to(planes), align_corners=False)
    slope, level = torch.exp((torch.rand(n, 1, 1) - 0.5) * 0.2), (torch.rand(n, 1, 1) - 0.5) * 80
    hu = moved[:, 0] * slope + level + background_hu
    hu = hu + torch.randn(hu.shape) * (torch.rand(n, 1, 1) * 30)
    return torch.stack([hu, moved[:, 1]], dim=1)
