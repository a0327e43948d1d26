"""Planes through a nodule for 2-D networks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spicula.core.errors import GeometryError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.transforms.crop import sample

PIXELS = 48
"""Rows and columns of a plane."""
PIXEL_MM = 0.65
"""Finest pixel: 48 of them hold a nodule of 24 mm with a margin; wider nodules get wider pixels."""
NODULE_PIXELS = 36
"""How many pixels the longest side of the outline's box may fill."""
PLANES = 3
NEAR_MM, FAR_MM = 4.0, 8.0
"""From the first distance beside the outline on, the image fades; at the second it is gone."""
BACKGROUND_HU = -850.0


def axial_planes(volume: Volume, mask: Mask, *, pixels: int = PIXELS) -> NDArray[np.float32]:
    """Three axial planes through an outlined nodule, and the outline on them.

    The planes lie at the mean height of the outline and one standard deviation of its heights below and above it,
    so always within it. In the plane, what is farther than 4 to 8 mm from the outline fades into lung density: the
    planes are the same from a whole scan and from any small volume that holds the nodule with that margin.

    Args:
        volume: The scan or small volume, HU.
        mask: The nodule's outline, on any grid.
        pixels: Rows and columns; more than 48 widens the field, not the pixels.

    Returns:
        float32 ``[6, pixels, pixels]``: HU of the lower, middle and upper plane, then the outline on each, 0 to 1;
        rows run to the back, columns to the patient's left.

    Raises:
        GeometryError: The outline is empty.
    """
    index = np.argwhere(mask.array_zyx)
    if len(index) == 0:
        raise GeometryError("mask", got="an empty outline", expected="at least one voxel")
    world = mask.geometry.index_to_world(index)
    half = float(mask.geometry.spacing_zyx_mm[0]) / 2
    low, high = world.min(axis=0), world.max(axis=0)
    middle = np.append((low + high)[:2] / 2, world[:, 2].mean())
    step = max(float(world[:, 2].std()), min(0.5, half))
    pixel = max(PIXEL_MM, float((high - low)[:2].max()) / NODULE_PIXELS)
    extent = (pixels - 1) * pixel / 2
    grid = Geometry.from_axes(
        (PLANES, pixels, pixels),
        (step, pixel, pixel),
        origin_xyz_mm=(middle[0] - extent, middle[1] - extent, middle[2] - step),
    )
    hu = np.clip(sample(volume, grid), -1024.0, 1500.0)
    part = sample(mask.padded(), grid, outside=0.0)
    for plane in range(PLANES):
        inside = part[plane] >= 0.5
        if not inside.any():
            inside = part.max(axis=0) >= 0.5 * part.max()
        distance = ndimage.distance_transform_edt(~inside) * pixel
        keep = np.clip((FAR_MM - distance) / (FAR_MM - NEAR_MM), 0.0, 1.0)
        hu[plane] = BACKGROUND_HU + keep * (hu[plane] - BACKGROUND_HU)
    return np.concatenate([hu, part]).astype(np.float32)
