"""How well two outlines agree, on one grid or on two: overlap and volume.

How far their surfaces lie apart is in :mod:`spicula.metrics.surface`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask
from spicula.transforms.crop import sample

BoolArray = NDArray[np.bool_]


def dice(a: Mask | BoolArray, b: Mask | BoolArray) -> float:
    """Dice overlap of two regions: twice what they share, over the sum of both.

    Masks may lie on different grids. Grids that are boxes of one lattice (the usual case: two crops of a scan) are
    compared voxel for voxel, each empty beyond its own box; others are both sampled (nearest voxel) on the finer of
    the two, extended over both.

    Args:
        a: A mask, or a bool array of b's shape.
        b: The same kind.

    Returns:
        0 to 1; 1 for two empty regions.

    Raises:
        InputError: A mask against a bare array, or arrays of different shape.

    References:
        Dice 1945, doi:10.2307/1932409.

    Example:
        >>> dice(np.array([True, True, False]), np.array([False, True, True]))
        0.5
    """
    first, second = on_one_grid(a, b)
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / total if total else 1.0


def iou(a: Mask | BoolArray, b: Mask | BoolArray) -> float:
    """Intersection over union of two regions (Jaccard's index): dice / (2 - dice).

    Args:
        a: A mask, or a bool array of b's shape.
        b: The same kind; grids may differ as in :func:`dice`.

    Returns:
        0 to 1; 1 for two empty regions.

    Raises:
        InputError: As :func:`dice`.

    References:
        Jaccard 1912, doi:10.1111/j.1469-8137.1912.tb05611.x.

    Example:
        >>> iou(np.array([True, True, False, False]), np.array([False, True, True, True]))
        0.25
    """
    first, second = on_one_grid(a, b)
    union = int(np.count_nonzero(first | second))
    return int(np.count_nonzero(first & second)) / union if union else 1.0


@dataclass(frozen=True, slots=True)
class VolumeError:
    """Volume of an outline against a reference's.

    Args:
        measured_mm3: Of the outline.
        reference_mm3: Of the reference.
    """

    measured_mm3: float
    reference_mm3: float

    @property
    def signed_mm3(self) -> float:
        """Measured less reference: above 0 the outline is too large."""
        return self.measured_mm3 - self.reference_mm3

    @property
    def relative(self) -> float:
        """Signed error as a share of the reference; NaN where that is empty."""
        return self.signed_mm3 / self.reference_mm3 if self.reference_mm3 > 0 else float("nan")

    @property
    def absolute_relative(self) -> float:
        """Relative error without its sign, for means over nodules."""
        return abs(self.relative)


def volume_error(measured: Mask, reference: Mask) -> VolumeError:
    """Compare the volumes of two outlines, each on its own grid (nothing is resampled).

    Args:
        measured: The outline to judge.
        reference: What it should be.

    Returns:
        Both volumes and their signed and relative difference.

    Example:
        >>> grid = Geometry.from_axes((1, 1, 4), (2.0, 1.0, 1.0))
        >>> a, b = Mask(np.array([[[1, 1, 1, 0]]], bool), grid), Mask(np.array([[[0, 0, 1, 1]]], bool), grid)
        >>> volume_error(a, b).signed_mm3, volume_error(a, b).relative
        (2.0, 0.5)
    """
    return VolumeError(measured.volume_mm3, reference.volume_mm3)


def on_one_grid(a: Mask | BoolArray, b: Mask | BoolArray) -> tuple[BoolArray, BoolArray]:
    """Bring two regions on one grid that holds both; as in :func:`dice`.

    Returns:
        Two bool arrays of one shape.

    Raises:
        InputError: As :func:`dice`.
    """
    if isinstance(a, Mask) and isinstance(b, Mask):
        placed = masks_on_one_grid(a, b)
        return placed[0].array_zyx, placed[1].array_zyx
    if isinstance(a, Mask) or isinstance(b, Mask):
        raise InputError("outlines", got="a mask and a bare array", expected="two masks or two arrays")
    first, second = np.asarray(a, dtype=np.bool_), np.asarray(b, dtype=np.bool_)
    if first.shape != second.shape:
        raise InputError("outlines", got=f"shapes {first.shape} and {second.shape}", expected="one shape")
    return first, second


def masks_on_one_grid(a: Mask, b: Mask) -> tuple[Mask, Mask]:
    """Bring two masks on one grid that holds both; as in :func:`dice`.

    Args:
        a: A mask.
        b: Another.

    Returns:
        Two masks of one geometry; the same two where they share it already.
    """
    if np.array_equal(a.geometry.affine_lps, b.geometry.affine_lps) and a.array_zyx.shape == b.array_zyx.shape:
        return a, b
    finer, other = (a, b) if a.geometry.voxel_volume_mm3 <= b.geometry.voxel_volume_mm3 else (b, a)
    grid = finer.geometry
    corners = np.stack(np.meshgrid(*((-0.5, n - 0.5) for n in other.geometry.shape_zyx), indexing="ij"), axis=-1)
    reach = grid.world_to_index(other.geometry.index_to_world(corners.reshape(-1, 3)))
    # A hair's breadth is taken off so that boxes of one lattice are not widened by rounding.
    low = np.minimum(0, np.floor(reach.min(axis=0) + 0.5 + 1e-3)).astype(int)
    high = np.maximum(grid.shape_zyx, np.ceil(reach.max(axis=0) + 0.5 - 1e-3)).astype(int)
    joint = grid.crop(low.tolist(), high.tolist())
    return Mask(_placed(a, joint), joint), Mask(_placed(b, joint), joint)


def _placed(mask: Mask, grid: Geometry) -> BoolArray:
    """The mask on another grid: shifted by whole voxels where that is exact, else nearest voxel."""
    step = mask.geometry.affine_lps[:3, :3]
    shift = grid.world_to_index(mask.geometry.origin_xyz_mm)
    whole = np.round(shift).astype(int)
    if np.allclose(step, grid.affine_lps[:3, :3], rtol=0, atol=1e-4) and np.abs(shift - whole).max() < 1e-2:
        out = np.zeros(grid.shape_zyx, dtype=np.bool_)
        box = tuple(slice(s, s + n) for s, n in zip(whole, mask.array_zyx.shape, strict=True))
        out[box] = mask.array_zyx
        return out
    return np.asarray(sample(mask.padded(), grid, order=0, outside=0.0) > 0.5)
