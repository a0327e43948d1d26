"""An outlined nodule as a cube along the LPS axes, faded away from its outline: what the compact image tower cuts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spicula.core.volume import Mask, Volume
from spicula.transforms.crop import box_geometry, sample
from spicula.transforms.fade import faded
from spicula.transforms.planes import BACKGROUND_HU

SIDE = 64
"""Voxels of a cube's side."""
SPACING_MM = 0.7
"""Distance between its voxels: the cube holds planes of 40 mm and some room to turn and shift them."""
PIXELS, FIELD_MM = 48, 40.0
"""Rows and columns of a plane, and how far its outermost pixels are apart."""
PIXEL_MM = FIELD_MM / (PIXELS - 1)
MIRRORS_ZYX = ((False, False, False), (False, False, True))
"""Flips of the cube over which the mean is taken, in evaluation as in use."""


def outlined_cube(volume: Volume, mask: Mask) -> NDArray[np.float32]:
    """What can be seen of an outlined nodule, as a cube along the LPS axes about the outline's middle.

    Args:
        volume: The scan or small volume, HU.
        mask: The outline, on any grid.

    Returns:
        float32 ``[2, 64, 64, 64]``: HU faded into background, see :func:`spicula.transforms.fade.faded`, and the
        outline, 0 to 1.

    Raises:
        GeometryError: The outline is empty.
    """
    seen = faded(volume, mask)
    middle = mask.geometry.index_to_world(np.argwhere(mask.array_zyx)).mean(axis=0)
    grid = box_geometry(middle.tolist(), shape_zyx=(SIDE,) * 3, spacing_zyx_mm=(SPACING_MM,) * 3)
    return np.stack([sample(seen, grid, outside=BACKGROUND_HU), sample(mask.padded(), grid, outside=0.0)])
