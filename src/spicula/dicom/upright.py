"""Undo gantry tilt: from a sheared grid to an upright one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from spicula.core.geometry import Geometry


def upright(array_zyx: NDArray[Any], geometry: Geometry, *, outside_hu: float) -> tuple[NDArray[Any], Geometry]:
    """Resample a sheared volume onto perpendicular axes, trilinearly.

    The new slices are stacked along the line on which the tilted ones lie (the table's travel), with their spacing
    and pixel size; the new grid is the smallest that holds all of the old one.

    Args:
        array_zyx: The volume, HU.
        geometry: Its grid.
        outside_hu: Value where the old grid does not reach.

    Returns:
        The volume, of the same dtype, and its upright grid.
    """
    old = geometry.affine_lps[:3, :3]
    spacing = np.asarray(geometry.spacing_zyx_mm)
    z = old[:, 0] / spacing[0]
    x = old[:, 2] - z * (old[:, 2] @ z)
    x /= np.linalg.norm(x)
    y = np.cross(z, x)
    if y @ old[:, 1] < 0:
        y = -y
    axes = np.column_stack([z, y, x])
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in geometry.shape_zyx], indexing="ij")).reshape(3, -1).T
    along = geometry.index_to_world(corners) @ axes / spacing
    low, high = along.min(axis=0), along.max(axis=0)
    shape = tuple(int(n) for n in np.ceil(high - low - 1e-6).astype(int) + 1)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = axes @ (low * spacing)
    grid = Geometry(shape, affine, geometry.frame_of_reference_uid)  # type: ignore[arg-type]
    to_old = np.linalg.inv(geometry.affine_lps) @ affine
    values = affine_transform(
        array_zyx.astype(np.float32),
        to_old[:3, :3],
        offset=to_old[:3, 3],
        output_shape=shape,
        order=1,
        mode="constant",
        cval=outside_hu,
        prefilter=False,
    )
    return (np.rint(values).astype(np.int16) if array_zyx.dtype == np.int16 else values), grid
