"""Where the lungs are: a mask for the search, and a wider hull for masses at the wall.

Air inside the body is found on a coarse grid (about 2 mm in LPS axis order), gas of the gut and the windpipe are
taken away, and what vessels, nodules and notches in the border left open is closed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, find_objects, gaussian_filter1d, label
from scipy.ndimage import mean as mean_of
from scipy.ndimage import sum as sum_of
from scipy.spatial import ConvexHull, QhullError

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.transforms.resample import coarse

AIR_HU = -400.0
"""Below this is air or lung."""

GAS_HU = -930.0
"""The mean of a region of pure gas (gut, windpipe) is below this, that of lung above."""

LEAST_LUNG_ML = 150.0
"""Less aerated lung than this is taken for none: the sinuses of a head or the gas of a gut hold less."""

Bools = NDArray[np.bool_]


def segment_lungs(volume: Volume, *, spacing_mm: float = 2.0, closing_mm: float = 10.0) -> Mask:
    """Outline the lungs of a chest CT, with the vessels and nodules in them and at their border.

    Args:
        volume: A CT in HU; any axis order, any direction.
        spacing_mm: Grid of the work and of the result; axes that are coarser stay.
        closing_mm: Notches in the border that are narrower than twice this are closed, per lung.

    Returns:
        The lungs on the coarse grid, axes in LPS order; windpipe and main bronchi are left out where they are apart.

    Raises:
        InputError: There are no lungs: a head, an abdomen, an MR, or HU that are none.

    References:
        After Hu, Hoffman, Reinhardt, IEEE TMI 20 (2001) 490, doi:10.1109/42.929615 (threshold, components, closing),
        with a fixed threshold and without the splitting of the lungs along the anterior junction.
    """
    small = coarse(volume, spacing_mm)
    spacing = np.asarray(small.geometry.spacing_zyx_mm)
    air = _inner_air(small.array_zyx < AIR_HU)
    air &= ~_windpipe(air, small.array_zyx, spacing)
    lungs = _lung_components(air, small.array_zyx, small.geometry)
    found_ml = np.count_nonzero(lungs) * small.geometry.voxel_volume_mm3 / 1000
    if found_ml < LEAST_LUNG_ML:
        raise InputError(
            f"{volume.name}: no lungs found",
            got=f"{found_ml:.0f} ml of aerated lung", expected=f"{LEAST_LUNG_ML:g} ml",
            hint="give a chest CT in Hounsfield units; spicula info shows what this is",
        )  # fmt: skip
    for side in split_sides(lungs):
        lungs |= _closed(side, spacing, closing_mm)
    for plane in lungs:
        binary_fill_holes(plane, output=plane)
    return Mask(lungs, small.geometry)


def lung_hulls(lungs: Mask) -> Mask:
    """Widen each lung, slice by slice, to its convex hull, so that a mass at the wall lies inside.

    Args:
        lungs: From :func:`segment_lungs`.

    Returns:
        The hulls on the same grid; they hold parts of the mediastinum and of the diaphragm's dome too.
    """
    hulls = lungs.array_zyx.copy()
    for side in split_sides(lungs.array_zyx):
        for z in np.flatnonzero(side.any(axis=(1, 2))):
            hulls[z] |= _convex(side[z])
    return Mask(hulls, lungs.geometry)


def split_sides(lungs: Bools) -> tuple[Bools, Bools]:
    """Split lungs at the minimum of their left-right profile near the middle.

    Args:
        lungs: bool ``[z, y, x]``.

    Returns:
        The part of lower x (the patient's right) and the other, of the same shape.
    """
    profile = gaussian_filter1d(lungs.sum(axis=(0, 1)).astype(np.float64), 2.0)
    used = np.flatnonzero(profile > 0.01 * profile.max())
    low, high = int(used[0]), int(used[-1]) + 1
    third = (high - low) // 3
    middle = profile[low + third : high - third]
    # the middle of a flat minimum, so that a mirrored scan is split at the mirrored place
    flat = np.flatnonzero(middle <= middle.min() + 1e-9)
    cut = low + third + round(float(flat.mean())) if len(middle) else high
    right, left = lungs.copy(), lungs.copy()
    right[:, :, cut:] = False
    left[:, :, :cut] = False
    return right, left


def _inner_air(air: Bools) -> Bools:
    """Air that is not joined, within its slice, to the border of the slice."""
    inner = air.copy()
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    regions, count = label(air, in_plane)
    border = np.concatenate([regions[:, [0, -1], :].ravel(), regions[:, :, [0, -1]].ravel()])
    outside = np.zeros(count + 1, dtype=bool)
    outside[border] = True
    outside[0] = True
    inner[outside[regions]] = False
    return inner


def _windpipe(air: Bools, hu: NDArray[Any], spacing: NDArray[np.float64]) -> Bools:
    """Small, gaseous regions near the middle of the slices: windpipe, main bronchi, gullet."""
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = True
    regions, count = label(air, in_plane)
    if not count:
        return np.zeros_like(air)
    index = np.arange(1, count + 1)
    area = sum_of(air, regions, index) * spacing[1] * spacing[2]
    dark = mean_of(hu < GAS_HU + 30, regions, index)
    across = np.flatnonzero(air.any(axis=(0, 1)))
    column = np.broadcast_to(np.arange(air.shape[2]), air.shape)
    aside = np.abs(mean_of(column, regions, index) - (across[0] + across[-1]) / 2) / max(len(across), 1)
    small = np.concatenate([[False], (area < 900.0) & (dark > 0.4) & (aside < 0.15)])
    return np.asarray(small[regions])


def _lung_components(air: Bools, hu: NDArray[Any], grid: Geometry) -> Bools:
    """Large components of air whose mean is that of lung, not of gas."""
    regions, count = label(air)
    if not count:
        return np.zeros_like(air)
    index = np.arange(1, count + 1)
    volume_ml = sum_of(air, regions, index) * grid.voxel_volume_mm3 / 1000
    mean_hu = mean_of(hu, regions, index)
    gas = mean_of(hu < GAS_HU - 20, regions, index)
    lung = (volume_ml > max(20.0, 0.02 * volume_ml.max())) & (mean_hu > -960.0) & (gas < 0.6)
    return np.asarray(np.concatenate([[False], lung])[regions])


def _closed(side: Bools, spacing: NDArray[np.float64], radius_mm: float) -> Bools:
    """Morphological closing with a ball in mm, through distance maps of the side's box alone."""
    boxes = find_objects(side.astype(np.uint8))
    if not boxes:
        return side
    pad = np.ceil(radius_mm / spacing).astype(int) + 1
    inner = np.pad(side[boxes[0]], [(int(p), int(p)) for p in pad])
    grown = _distance(inner, spacing) <= radius_mm
    closed = _distance(~grown, spacing) > radius_mm
    closed = closed[tuple(slice(int(p), -int(p)) for p in pad)]
    result = side.copy()
    result[boxes[0]] |= closed
    return result


def _distance(inside: Bools, spacing: NDArray[np.float64]) -> NDArray[np.float32]:
    """Distance in mm from each voxel to the nearest one of ``inside``."""
    image = sitk.GetImageFromArray(inside.astype(np.uint8))
    image.SetSpacing(spacing[::-1].tolist())
    distances = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    return np.asarray(np.maximum(sitk.GetArrayFromImage(distances), 0), dtype=np.float32)


def _convex(plane: Bools) -> Bools:
    """Convex hull of the true pixels of a slice."""
    first = plane.argmax(axis=1)
    rows = np.flatnonzero(plane.any(axis=1))
    last = plane.shape[1] - 1 - plane[:, ::-1].argmax(axis=1)
    points = np.concatenate([np.stack([rows, first[rows]], 1), np.stack([rows, last[rows]], 1)])
    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError):  # a line or a point: nothing to widen
        return plane
    low, high = points.min(axis=0), points.max(axis=0) + 1
    y, x = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]), indexing="ij")
    a, b, c = hull.equations.T[:, :, None, None]
    result = plane.copy()
    result[low[0] : high[0], low[1] : high[1]] |= (a * y + b * x + c <= 1e-6).all(axis=0)
    return result
