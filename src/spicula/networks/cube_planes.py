"""Nine planes of a batch of cubes, sampled on the device that trains (needs torch).

References:
    arXiv 2504.21344, section 3.2 (the planes). Departure: nodules are turned by any angle about the body's axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from spicula.networks.clip import clip_pixels
from spicula.transforms.augment import Augmentation, draw_augmentation, points_before
from spicula.transforms.nine_planes import CLIP_PIXELS, plane_points, torch_grid
from spicula.transforms.planes import BACKGROUND_HU


def plane_grid(*, side: int, spacing_mm: float, pixels: int, pixel_mm: float) -> NDArray[np.float64]:
    """Where nine planes through the middle cut a cube, ``[9, pixels, pixels, 3]`` in voxels (z, y, x)."""
    return plane_points(mode="exact", side=side, pixels=pixels, pixel=pixel_mm / spacing_mm)


def turned(rng: np.random.Generator, *, shift_mm: float = 1.0) -> Augmentation:
    """Draw any turn about z, a tilt to 15 degrees, flips, 10 % of size and a small shift; no noise."""
    drawn = draw_augmentation(rng, degrees=15.0, noise_std=0.0, log_gamma=0.0, jitter_mm=shift_mm)
    size = drawn.scale_zyx[0]
    return replace(
        drawn,
        degrees_zyx=(float(rng.uniform(-180.0, 180.0)), *drawn.degrees_zyx[1:]),
        scale_zyx=(size, size, size),
    )


def sample_planes(
    cubes: torch.Tensor,
    points: NDArray[np.float64],
    changes: Sequence[Augmentation] | Augmentation,
    *,
    spacing_mm: float,
) -> torch.Tensor:
    """Nine planes of each cube, changed.

    Args:
        cubes: float32 ``[n, 2, side, side, side]``, HU and outline.
        points: From :func:`plane_grid`.
        changes: One for each cube, or one for all.
        spacing_mm: Between voxels.

    Returns:
        float32 ``[n, 9, 2, pixels, pixels]``; background beyond the cube.
    """
    side = cubes.shape[-1]
    each = [changes] if isinstance(changes, Augmentation) else changes
    grids = np.stack([torch_grid(points_before(points, c, side=side, spacing_mm=spacing_mm), side) for c in each])
    grid = torch.from_numpy(grids).to(cubes.device).expand(len(cubes), -1, -1, -1, -1)
    offset = cubes.new_tensor([BACKGROUND_HU, 0.0])[:, None, None, None]
    planes = functional.grid_sample(cubes - offset, grid, padding_mode="zeros", align_corners=True) + offset
    return planes.transpose(1, 2)


def as_clip_planes(planes: torch.Tensor, *, pixels: int = CLIP_PIXELS, window: tuple[float, float]) -> torch.Tensor:
    """Planes ``[n, 9, 2, rows, columns]`` as the published tower takes them, ``[n, 9, 3, pixels, pixels]``.

    The outline is left out; HU become 0 to 1 in ``window`` and are enlarged linearly.
    """
    low, high = window
    gray = ((planes[:, :, 0] - low) / (high - low)).clamp(0.0, 1.0)
    large = functional.interpolate(gray, size=(pixels, pixels), mode="bilinear", align_corners=True)
    return clip_pixels(large.flatten(0, 1)).unflatten(0, gray.shape[:2])
