"""Tell heart and great vessels full of contrast medium from nodules and masses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from spicula.core.volume import Mask, Volume

LEAST_WIDTH_MM = 15.0
"""Narrower findings are not judged: a small vessel and a calcified nodule look alike by density."""

ENHANCED_HU = (150.0, 600.0)
"""Median density of enhanced blood; enhancing lung cancer stays below, dense calcification lies above."""

CORE_DEPTH_MM = 2.0

MOST_LUNG_AROUND = 0.6
"""Heart and great vessels border on other tissue; of a calcified nodule's surroundings more than this is lung."""

SHELL_MM = (1.0, 4.0)

LUNG_HU = -500.0


def is_enhanced_blood(volume: Volume, mask: Mask, *, width_mm: float) -> bool:
    """True where a wide finding has the density of blood with contrast medium throughout.

    Args:
        volume: The scan, HU.
        mask: The outline, on a crop of the volume's grid.
        width_mm: Its mean axial diameter.

    Returns:
        Whether the median of what lies 2 mm and more inside the outline is between 150 and 600 HU, and less than
        60 % of the shell of 1 to 4 mm around it is aerated lung.
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
    if not low < np.median(volume.array_zyx[window][core]) < high:
        return False
    return _lung_around(volume, mask, start) < MOST_LUNG_AROUND


def _lung_around(volume: Volume, mask: Mask, start: NDArray[np.intp]) -> float:
    """Share of aerated lung in the shell of 1 to 4 mm around an outline."""
    spacing = np.asarray(mask.geometry.spacing_zyx_mm)
    margin = np.ceil(SHELL_MM[1] / spacing).astype(int) + 1
    low = np.maximum(start - margin, 0)
    high = np.minimum(start + mask.geometry.shape_zyx + margin, volume.array_zyx.shape)
    region = np.pad(mask.array_zyx, list(zip(start - low, high - start - mask.array_zyx.shape, strict=True)))
    distance = np.asarray(distance_transform_edt(~region, sampling=spacing))
    shell = (distance > SHELL_MM[0]) & (distance <= SHELL_MM[1])
    around = volume.array_zyx[tuple(slice(a, b) for a, b in zip(low, high, strict=True))][shell]
    return float(np.mean(around < LUNG_HU)) if around.size else 0.0
