"""Fixed boxes in millimetres around a point, the same wherever the volume ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume


def box_geometry(
    center_xyz_mm: Sequence[float], *, shape_zyx: Sequence[int], spacing_zyx_mm: Sequence[float], frame_uid: str = ""
) -> Geometry:
    """The grid of a box along the LPS axes with its middle at a point.

    Args:
        center_xyz_mm: Middle of the box, LPS mm (between voxels where a side is even).
        shape_zyx: Number of voxels.
        spacing_zyx_mm: Distance between voxel centers.
        frame_uid: Frame of Reference UID to keep.

    Returns:
        The grid.
    """
    extent_xyz = (np.asarray(shape_zyx[::-1]) - 1) * np.asarray(spacing_zyx_mm[::-1])
    origin = np.asarray(center_xyz_mm, dtype=np.float64) - extent_xyz / 2
    return Geometry.from_axes(
        shape_zyx, spacing_zyx_mm, origin_xyz_mm=origin.tolist(), frame_of_reference_uid=frame_uid
    )


def sample(
    source: Volume | Mask, grid: Geometry, *, order: int = 1, outside: float | None = None
) -> NDArray[np.float32]:
    """Sample a volume (HU) or a mask (0 to 1) on another grid.

    Args:
        source: What is sampled.
        grid: Where the samples lie.
        order: Spline order of the interpolation, 0 or 1.
        outside: Value beyond the outermost voxel centers; None repeats the nearest voxel.

    Returns:
        float32 array of the grid's shape.
    """
    step = source.geometry.inverse_lps[:3, :3] @ grid.affine_lps[:3, :3]
    first = source.geometry.world_to_index(grid.origin_xyz_mm)
    last = first + step @ (np.asarray(grid.shape_zyx) - 1)
    reach = np.abs(step) @ (np.asarray(grid.shape_zyx) - 1)
    middle = (first + last) / 2
    size = np.asarray(source.geometry.shape_zyx)
    start = np.clip(np.floor(middle - reach / 2).astype(int) - 1, 0, size - 1)
    stop = np.clip(np.ceil(middle + reach / 2).astype(int) + 2, start + 1, size)
    block = source.array_zyx[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))].astype(np.float32)
    axes = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in grid.shape_zyx), indexing="ij", sparse=True)
    origin = first - start
    index = [origin[i] + step[i, 0] * axes[0] + step[i, 1] * axes[1] + step[i, 2] * axes[2] for i in range(3)]
    coordinates = np.stack([np.broadcast_to(i, grid.shape_zyx) for i in index])
    if outside is None:
        values = map_coordinates(block, coordinates, order=order, mode="nearest", output=np.float32)
    else:
        values = map_coordinates(block, coordinates, order=order, mode="constant", cval=outside, output=np.float32)
    return np.asarray(values, dtype=np.float32)


def crop_box(
    volume: Volume, center_xyz_mm: Sequence[float], *, size_mm: float, spacing_mm: float, outside: float | None = None
) -> NDArray[np.float32]:
    """Cut a cube around a point at isotropic spacing, along the LPS axes.

    Args:
        volume: Where to cut.
        center_xyz_mm: Middle of the cube, LPS mm.
        size_mm: Side of the cube.
        spacing_mm: Distance between samples.
        outside: HU beyond the volume; None repeats its outermost voxels.

    Returns:
        float32 cube in HU, ``round(size_mm / spacing_mm)`` samples a side; axis 0 runs to the head, 1 to the back,
        2 to the patient's left.
    """
    n = round(size_mm / spacing_mm)
    grid = box_geometry(center_xyz_mm, shape_zyx=(n, n, n), spacing_zyx_mm=(spacing_mm,) * 3)
    return sample(volume, grid, outside=outside)
