"""Tell heart and great vessels full of contrast medium from nodules and masses."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from spicula.core.volume import Mask, Volume

LEAST_WIDTH_MM = 15.0
"""Narrower findings are not judged: a small vessel and a calcified nodule look alike by density."""

ENHANCED_HU = (150.0, 600.0)
"""Median density of enhanced blood; enhancing lung cancer stays below, dense calcification lies above."""

CORE_DEPTH_MM = 2.0


def is_enhanced_blood(volume: Volume, mask: Mask, *, width_mm: float) -> bool:
    """True where a wide finding has the density of blood with contrast medium throughout.

    Args:
        volume: The scan, HU.
        mask: The outline, on a crop of the volume's grid.
        width_mm: Its mean axial diameter.

    Returns:
        Whether the median of what lies 2 mm and more inside the outline is between 150 and 600 HU.
    """
    if width_mm < LEAST_WIDTH_MM:
        return False
    start = np.round(volume.geometry.world_to_index(mask.geometry.origin_xyz_mm)).astype(int)
    window = tuple(slice(a, a + n) for a, n in zip(start, mask.geometry.shape_zyx, strict=True))
    depth = distance_transform_edt(np.pad(mask.array_zyx, 1), sampling=mask.geometry.spacing_zyx_mm)
    core = np.asarray(depth)[1:-1, 1:-1, 1:-1] > CORE_DEPTH_MM
    if not core.any():
        return False
    low, high = ENHANCED_HU
    return bool(low < np.median(volume.array_zyx[window][core]) < high)
