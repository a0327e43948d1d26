"""How far the surfaces of two outlines lie apart, in millimetres.

A surface is the set of an outline's border voxels: those with a neighbor across a face that is outside (beyond the grid
is outside). Distances run between voxel centers, so that they are right on grids that are anisotropic, oblique or
sheared, and each border voxel counts alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from spicula.core.errors import InputError
from spicula.core.volume import Mask
from spicula.metrics.classification import FloatArray
from spicula.metrics.segmentation import BoolArray, masks_on_one_grid, on_one_grid


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceDistances:
    """Distance from each border voxel of one outline to the nearest of the other, both ways.

    Two empty outlines agree: all distances are 0. One empty outline is infinitely far from one that is not: all
    distances are infinite, so that a mean over nodules cannot hide a missed one.

    Args:
        a_to_b_mm: float64 ``[n]``, of each border voxel of A.
        b_to_a_mm: float64 ``[m]``, of each border voxel of B.
    """

    a_to_b_mm: FloatArray
    b_to_a_mm: FloatArray

    @property
    def mean_mm(self) -> float:
        """Mean over the border voxels of both (average symmetric surface distance)."""
        return float(self._both.mean()) if self._both.size else 0.0

    @property
    def median_mm(self) -> float:
        """Median over the border voxels of both."""
        return _quantile(self._both, 0.5)

    @property
    def hausdorff_mm(self) -> float:
        """The farthest that any border voxel of one lies from the other."""
        return float(self._both.max(initial=0.0))

    @property
    def percentile_95_mm(self) -> float:
        """What 95 % of the border voxels stay within, in the worse direction (HD95)."""
        return self.percentile_mm(95)

    def percentile_mm(self, percent: float) -> float:
        """The larger of both directions' percentiles (interpolated between voxels).

        Args:
            percent: 0 to 100; 100 is :attr:`hausdorff_mm`.

        Raises:
            InputError: ``percent`` is out of range.
        """
        if not 0 <= percent <= 100:
            raise InputError("percent", got=percent, expected="0 to 100")
        return max(_quantile(self.a_to_b_mm, percent / 100), _quantile(self.b_to_a_mm, percent / 100))

    def surface_dice(self, tolerance_mm: float) -> float:
        """Share of the border voxels of both that lie within a tolerance of the other surface.

        Args:
            tolerance_mm: 0 or more, for example how far two readers' outlines lie apart.

        Returns:
            0 to 1; 1 for two empty outlines.

        Raises:
            InputError: The tolerance is negative or not finite.

        References:
            Nikolov et al. 2021, doi:10.2196/26151. Departure: border voxels count alike instead of by their area.
        """
        if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
            raise InputError("tolerance_mm", got=tolerance_mm, expected="0 or more")
        # A hair's breadth more, so that a step of 0.7 mm is within 0.7 mm in spite of rounding.
        return float((self._both <= tolerance_mm + 1e-9).mean()) if self._both.size else 1.0

    @property
    def _both(self) -> FloatArray:
        return np.concatenate([self.a_to_b_mm, self.b_to_a_mm])


def surface_distances(
    a: Mask | BoolArray, b: Mask | BoolArray, *, spacing_zyx_mm: Sequence[float] | None = None
) -> SurfaceDistances:
    """Measure how far two outlines' surfaces lie apart.

    Args:
        a: A mask, or a bool array of b's shape.
        b: The same kind; masks may lie on different grids, and are brought on one as in
            :func:`spicula.metrics.segmentation.dice`.
        spacing_zyx_mm: Of bare arrays, one for each axis; masks bring their own.

    Returns:
        The distances both ways, with their mean, median, percentiles and surface Dice.

    Raises:
        InputError: A mask against a bare array, arrays of different shape, or spacing missing or given beside masks.

    References:
        Huttenlocher, Klanderman, Rucklidge 1993, doi:10.1109/34.232073; Maier-Hein et al. 2024,
        doi:10.1038/s41592-023-02151-z (which distance for what).

    Example:
        >>> a, b = np.zeros((1, 1, 8), bool), np.zeros((1, 1, 8), bool)
        >>> a[..., 2:4], b[..., 2:6] = True, True
        >>> found = surface_distances(a, b, spacing_zyx_mm=(1.0, 1.0, 0.5))
        >>> found.hausdorff_mm, found.mean_mm, found.surface_dice(0.5)
        (1.0, 0.25, 0.8333333333333334)
    """
    if isinstance(a, Mask) and isinstance(b, Mask):
        if spacing_zyx_mm is not None:
            raise InputError("spacing_zyx_mm", got=spacing_zyx_mm, expected="none: masks bring their own")
        first, second = masks_on_one_grid(a, b)
        return _between(
            *(mask.geometry.index_to_world(np.argwhere(border(mask.array_zyx))) for mask in (first, second))
        )
    one, other = on_one_grid(a, b)
    if spacing_zyx_mm is None or np.shape(spacing_zyx_mm) != (one.ndim,) or not np.min(spacing_zyx_mm) > 0:
        raise InputError("spacing_zyx_mm", got=spacing_zyx_mm, expected=f"{one.ndim} positive numbers")
    spacing = np.asarray(spacing_zyx_mm, dtype=np.float64)
    return _between(*(np.argwhere(border(array)) * spacing for array in (one, other)))


def border(region: BoolArray) -> NDArray[np.bool_]:
    """Voxels of a region with a neighbor across a face that is outside; beyond the array is outside.

    Args:
        region: bool, of any number of axes.

    Returns:
        bool of the same shape.
    """
    return np.asarray(region & ~ndimage.binary_erosion(region, border_value=0))


def _between(a: FloatArray, b: FloatArray) -> SurfaceDistances:
    """Nearest distances of two clouds of points in mm, both ways."""
    if len(a) == 0 or len(b) == 0:
        return SurfaceDistances(np.full(len(a), np.inf), np.full(len(b), np.inf))
    there, back = cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
    return SurfaceDistances(np.asarray(there, dtype=np.float64), np.asarray(back, dtype=np.float64))


def _quantile(distances: FloatArray, share: float) -> float:
    if distances.size and not np.isfinite(distances).all():
        return float("inf")
    return float(np.quantile(distances, share)) if distances.size else 0.0
