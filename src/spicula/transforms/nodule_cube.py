"""A cube of tissue around a nodule, as the networks of semantic-guided malignancy see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.errors import GeometryError, InputError
from spicula.core.geometry import RAS_TO_LPS, FloatArray, Geometry
from spicula.core.volume import Volume
from spicula.transforms.crop import crop_box, sample
from spicula.transforms.resample import around

Mode = Literal["exact", "compat"]

AIR_HU = -1000.0
"""Outside the scan in exact mode."""
COMPAT_OUTSIDE_HU = 0.0
"""Outside the scan in compat mode: water, since the published code pads before it windows."""
WINDOW_HU = (-1000.0, 500.0)


def nodule_cube(
    volume: Volume,
    center_xyz_mm: Sequence[float],
    *,
    side_mm: float = 100.0,
    spacing_mm: float = 1.0,
    mode: Mode = "exact",
    outside_hu: float | None = None,
) -> NDArray[np.float32]:
    """Cut a cube along the LPS axes around a point, by linear interpolation.

    ``exact`` puts the point at the very middle of the cube, index ``(n - 1) / 2``, between voxels where ``n`` is
    even. ``compat`` follows the published code step by step: the scan is resampled to a grid of its own as MONAI 1.4
    does, the point is truncated to a voxel of that grid, and that voxel becomes index ``n // 2``; the point then lies
    up to one voxel beside it, and further in thick slices, see :func:`monai_index_map`. Only the cube is resampled.

    Args:
        volume: The scan or small volume, HU, on any grid.
        center_xyz_mm: The nodule's center, LPS mm.
        side_mm: Side of the cube: 100 as published (what nine planes in compat mode need) or 50.
        spacing_mm: Distance between voxels of the cube.
        mode: ``"exact"`` or ``"compat"``.
        outside_hu: HU outside the scan; -1000 in exact and 0 in compat mode if omitted.

    Returns:
        float32 ``[n, n, n]`` in HU, ``n = round(side_mm / spacing_mm)``; axis 0 runs to the head, 1 to the back, 2
        to the patient's left.

    Raises:
        GeometryError: The point lies outside the scan or is no point, or a size is not positive.
        InputError: The mode is unknown.

    References:
        arXiv 2504.21344, section 3.2.
    """
    center = np.asarray(center_xyz_mm, dtype=np.float64)
    if center.shape != (3,) or not np.isfinite(center).all():
        raise GeometryError("center_xyz_mm", got=list(center_xyz_mm), expected="three finite numbers, LPS mm")
    if not (np.isfinite([side_mm, spacing_mm]).all() and spacing_mm > 0 and side_mm >= spacing_mm):
        raise GeometryError("side_mm, spacing_mm", got=(side_mm, spacing_mm), expected="a side of at least one voxel")
    require_mode(mode)
    volume.geometry.require_inside(center.tolist(), what=f"the nodule's center in {volume.name}")
    if mode == "exact":
        outside = AIR_HU if outside_hu is None else outside_hu
        return crop_box(volume, center.tolist(), size_mm=side_mm, spacing_mm=spacing_mm, outside=outside)
    outside = COMPAT_OUTSIDE_HU if outside_hu is None else outside_hu
    return _published_cube(volume, center, n=round(side_mm / spacing_mm), spacing_mm=spacing_mm, outside_hu=outside)


def require_mode(mode: str) -> None:
    """Refuse a mode other than ``"exact"`` and ``"compat"``.

    Raises:
        InputError: The mode is another.
    """
    if mode not in ("exact", "compat"):
        raise InputError("mode", got=repr(mode), expected="'exact' or 'compat'")


def window(cube_hu: ArrayLike, low: float = WINDOW_HU[0], high: float = WINDOW_HU[1]) -> NDArray[np.float32]:
    """Bring HU to 0 (at ``low`` and below) up to 1 (at ``high`` and above).

    Raises:
        InputError: ``high`` is not above ``low``.

    Example:
        >>> window([-2000.0, -1000.0, -250.0, 500.0, 3000.0]).tolist()
        [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    if not high > low:
        raise InputError("window", got=(low, high), expected="a high end above the low end")
    scaled = np.asarray(np.asarray(cube_hu, dtype=np.float32) - np.float32(low))
    scaled *= np.float32(1.0 / (high - low))
    return np.asarray(np.clip(scaled, 0.0, 1.0), dtype=np.float32)


def monai_grid(geometry: Geometry, spacing_mm: float = 1.0) -> Geometry:
    """The grid on which MONAI's ``Spacing(diagonal=True)`` and ``Orientation("LPS")`` put a volume.

    The grid starts where the volume's center of its right- and backmost, lowest voxel lies (the smallest corner in
    RAS) and covers the centers of the outermost voxels. A volume whose axes are not those of the world has no
    smallest corner; the grid is then set about the middle, half a voxel of difference in size beside it.

    Args:
        geometry: The volume's grid.
        spacing_mm: Distance between the new voxels.

    Returns:
        The grid along the LPS axes.

    References:
        MONAI 1.4, ``compute_shape_offset``.
    """
    n = np.asarray(geometry.shape_zyx, dtype=np.float64)
    to_ras = RAS_TO_LPS[:3, :3]
    ends = np.stack(np.meshgrid(*((0.0, k - 1.0) for k in n), indexing="ij"), axis=-1).reshape(-1, 3)
    corners = geometry.index_to_world(ends) @ to_ras / spacing_mm
    low = corners.min(axis=0)
    shape_xyz = np.round(np.ptp(corners, axis=0) + 1.0)
    nearest = corners[np.argmin((corners - low).max(axis=1))]
    if (nearest - low).max() <= 1e-8:
        start = nearest * spacing_mm
    else:
        start = geometry.index_to_world(n / 2.0) @ to_ras - spacing_mm * shape_xyz / 2.0
    lps = start @ to_ras
    lps[:2] -= (shape_xyz[:2] - 1.0) * spacing_mm
    return Geometry.from_axes(shape_xyz[::-1].tolist(), (spacing_mm,) * 3, origin_xyz_mm=lps.tolist())


def monai_index_map(source: Geometry, grid: Geometry) -> FloatArray:
    """Where MONAI really samples a volume for a grid: an affine from the grid's indices to the volume's.

    MONAI 1.4 normalizes the affine for one convention of corners (``align_corners=False``) and then applies it in the
    other (``True``), which the published code asks for. The image is stretched about its middle: at the ends of a
    scan of 2.5 mm slices resampled to 1 mm, by 0.7 mm. Where the spacing stays, nothing is stretched.

    Args:
        source: The volume's grid.
        grid: The grid to sample on.

    Returns:
        ``[4, 4]``; maps ``(z, y, x, 1)`` of the grid to ``(z, y, x, 1)`` of the volume.
    """
    true = source.inverse_lps @ grid.affine_lps
    before, after = np.eye(4), np.eye(4)
    for axis in range(3):
        n, m = source.shape_zyx[axis], grid.shape_zyx[axis]
        if m > 1:
            before[axis, axis], before[axis, 3] = m / (m - 1), -0.5
        after[axis, axis], after[axis, 3] = (n - 1) / n, 0.5 * (n - 1) / n
    return np.asarray(after @ true @ before, dtype=np.float64)


def _published_cube(
    volume: Volume, center: FloatArray, *, n: int, spacing_mm: float, outside_hu: float
) -> NDArray[np.float32]:
    grid = monai_grid(volume.geometry, spacing_mm)
    middle = np.trunc(grid.world_to_index(center)).astype(int)
    start = middle - n // 2
    reach = n * spacing_mm / 2 + 3.0 * spacing_mm + 3.0 * max(volume.geometry.spacing_zyx_mm)
    part = around(volume, center.tolist(), reach)
    # One voxel of the value outside, so that the outermost voxels fade into it within a voxel as in torch's sampler.
    padded = Volume(
        np.pad(np.asarray(part.array_zyx, dtype=np.float32), 1, constant_values=outside_hu),
        part.geometry.crop((-1, -1, -1), [k + 1 for k in part.array_zyx.shape]),
    )
    shift = np.eye(4)
    shift[:3, 3] = start
    affine = volume.geometry.affine_lps @ monai_index_map(volume.geometry, grid) @ shift
    cube = sample(padded, Geometry((n, n, n), affine), outside=outside_hu)
    for axis, (first, size) in enumerate(zip(start.tolist(), grid.shape_zyx, strict=True)):
        index = np.arange(first, first + n)
        cube[(slice(None),) * axis + ((index < 0) | (index >= size),)] = outside_hu
    return cube
