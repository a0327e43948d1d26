"""Nine planes through a nodule: three along the axes and six between them, the images of a 2-D encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from spicula.core.errors import InputError
from spicula.core.geometry import FloatArray
from spicula.core.volume import Volume
from spicula.transforms.nodule_cube import AIR_HU, Mode, require_mode

NAMES = (
    "axial",
    "coronal",
    "sagittal",
    "axial turned 45 degrees about y",
    "sagittal turned 45 degrees about y",
    "axial turned 45 degrees about x",
    "coronal turned 45 degrees about x",
    "coronal turned 45 degrees about z",
    "sagittal turned 45 degrees about z",
)
"""What the planes are, in their order."""

PIXELS = 50
"""Rows and columns of a plane, 1 mm apart."""
CLIP_PIXELS = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_H = np.sqrt(0.5)
_ROWS_ZYX = np.array(
    [[0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [_H, 0, -_H], [_H, _H, 0], [_H, -_H, 0], [1, 0, 0], [1, 0, 0]]
)
_COLUMNS_ZYX = np.array(
    [[0, 0, 1], [0, 0, 1], [0, 1, 0], [_H, 0, _H], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, _H, _H], [0, _H, -_H]]
)
_NORMALS_ZYX = np.array(
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [_H, 0, -_H], [_H, 0, _H], [_H, -_H, 0], [_H, _H, 0], [0, _H, -_H], [0, _H, _H]]
)
"""Across the plane, on the side to which the published code misses the middle."""
_SPLINE_MARGIN = 14
"""Voxels around the planes that the spline's filter sees: what lies beyond adds about 1e-8 of its value."""


def plane_offsets(*, pixels: int = PIXELS, pixel: float = 1.0) -> FloatArray:
    """Where the pixels of nine planes lie around their common middle.

    Args:
        pixels: Rows and columns.
        pixel: Distance between pixels, in the unit wanted back.

    Returns:
        ``[9, pixels, pixels, 3]`` (z, y, x).
    """
    step = (np.arange(pixels) - (pixels - 1) / 2) * pixel
    rows = step[:, None, None] * _ROWS_ZYX[:, None, None, :]
    columns = step[:, None] * _COLUMNS_ZYX[:, None, None, :]
    return np.asarray(rows + columns, dtype=np.float64)


def plane_points(
    *,
    mode: Mode = "exact",
    side: int = 100,
    pixels: int = PIXELS,
    pixel: float = 1.0,
    center_zyx: Sequence[float] | None = None,
    jitter: ArrayLike | None = None,
) -> FloatArray:
    """Where nine planes cut a cube, as indices of its voxels.

    ``exact``: all planes go through ``center_zyx``, the middle of the cube if omitted. ``compat``: as published, the
    cube is turned about its middle, ``(side - 1) / 2``, but cut at voxel ``side // 2``. With 100 voxels the planes
    along the axes go through voxel 50 and show voxels 25 to 74, the oblique ones pass the middle at half a voxel.

    Args:
        mode: ``"exact"`` or ``"compat"``.
        side: Voxels of the cube's side.
        pixels: Rows and columns of a plane.
        pixel: Distance between pixels, in voxels; the published windows have 1.
        center_zyx: In exact mode, index of the nodule's center, with fractions.
        jitter: ``[9, 2]``, how far the window of each plane moves, in pixels along its rows' and columns' direction.

    Returns:
        ``[9, pixels, pixels, 3]`` (z, y, x), voxels.

    Raises:
        InputError: The mode is unknown, an argument has another shape, or a center is given in compat mode.
    """
    require_mode(mode)
    if pixels < 1 or side < 1 or not (np.isfinite(pixel) and pixel > 0):
        raise InputError("planes", got=f"side {side}, {pixels} pixels of {pixel}", expected="positive numbers")
    points = plane_offsets(pixels=pixels, pixel=pixel)
    middle = np.full(3, (side - 1) / 2)
    if mode == "compat":
        if center_zyx is not None:
            raise InputError("center_zyx", got=list(center_zyx), expected="none in compat mode")
        miss = side // 2 - middle[0]
        points += middle + miss * _NORMALS_ZYX[:, None, None, :]
        start = side // 2 - pixels // 2  # the window's first voxel
        shift = start + (pixels - 1) / 2 - middle[0]
        points += shift * (_ROWS_ZYX + _COLUMNS_ZYX)[:, None, None, :]
    else:
        center = middle if center_zyx is None else np.asarray(center_zyx, dtype=np.float64)
        if center.shape != (3,) or not np.isfinite(center).all():
            raise InputError("center_zyx", got=center.tolist(), expected="three finite numbers")
        points += center
    if jitter is not None:
        moved = np.asarray(jitter, dtype=np.float64) * pixel
        if moved.shape != (9, 2):
            raise InputError("jitter", got=f"shape {moved.shape}", expected="[9, 2]: rows and columns of each plane")
        points += (moved[:, :1] * _ROWS_ZYX + moved[:, 1:] * _COLUMNS_ZYX)[:, None, None, :]
    return points


def sample_points(
    array_zyx: NDArray[np.generic], points_zyx: FloatArray, *, order: int = 3, outside: float = 0.0
) -> NDArray[np.float32]:
    """Interpolate an array at points; only the part of the array around them is filtered for the spline.

    Args:
        array_zyx: Any numbers.
        points_zyx: ``[..., 3]`` (z, y, x), indices with fractions.
        order: Order of the spline: 3 as published, 1 trilinear (about five times faster), 0 the nearest voxel.
        outside: Value beyond the outermost voxel centers.

    Returns:
        float32 ``[...]``.
    """
    size = np.asarray(array_zyx.shape)
    flat = points_zyx.reshape(-1, 3).T
    margin = _SPLINE_MARGIN if order > 1 else 1
    start = np.clip(np.floor(flat.min(axis=1)).astype(int) - margin, 0, size - 1)
    stop = np.clip(np.ceil(flat.max(axis=1)).astype(int) + margin + 1, start + 1, size)
    block = array_zyx[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    if order > 1:
        block = ndimage.spline_filter(block, order=order, output=np.float64)
    elif block.dtype.kind != "f":
        block = block.astype(np.float32)
    values = ndimage.map_coordinates(
        block, flat - start[:, None], output=np.float32, order=order, mode="constant", cval=outside, prefilter=False
    )
    return np.asarray(values.reshape(points_zyx.shape[:-1]), dtype=np.float32)


def nine_planes(
    crop_zyx: ArrayLike,
    *,
    mode: Mode = "exact",
    pixels: int = PIXELS,
    pixel: float = 1.0,
    order: int = 3,
    outside: float = 0.0,
    center_zyx: Sequence[float] | None = None,
    jitter: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Nine planes through the middle of a cube.

    Only the planes are sampled, the cube is not turned. ``compat`` equals three rotations of the cube by
    ``scipy.ndimage.rotate`` and their slices to 1e-6, the published planes.

    Args:
        crop_zyx: Cube ``[n, n, n]``, as published windowed to 0..1 and 100 voxels of 1 mm a side.
        mode: ``"exact"`` or ``"compat"``; see :func:`plane_points`.
        pixels: Rows and columns of a plane.
        pixel: Distance between pixels, in voxels.
        order: Order of the spline: 3 as published, 1 trilinear for speed.
        outside: Value beyond the cube: 0, which is air in a windowed cube.
        center_zyx: In exact mode, index of the nodule's center; the middle if omitted.
        jitter: ``[9, 2]``, how far the window of each plane moves in its own plane, in pixels.

    Returns:
        float32 ``[9, pixels, pixels]`` in the order of :data:`NAMES`.

    Raises:
        InputError: The crop is no cube, or an argument does not fit; see :func:`plane_points`.

    References:
        arXiv 2504.21344, figure 1.

    Example:
        >>> nine_planes(np.ones((60, 60, 60))).shape
        (9, 50, 50)
    """
    crop = np.asarray(crop_zyx)
    if crop.ndim != 3 or len(set(crop.shape)) != 1:
        raise InputError("crop_zyx", got=f"shape {crop.shape}", expected="a cube [n, n, n]")
    if order not in (0, 1, 3):
        raise InputError("order", got=order, expected="3 (as published), 1 (trilinear) or 0 (nearest)")
    points = plane_points(
        mode=mode, side=crop.shape[0], pixels=pixels, pixel=pixel, center_zyx=center_zyx, jitter=jitter
    )
    straight = np.rint(points[:3]).astype(np.intp)
    whole = mode == "compat" and straight.min() >= 0 and straight.max() < len(crop)
    if not (whole and np.array_equal(points[:3], straight)):
        return sample_points(crop, points, order=order, outside=outside)
    planes = np.empty(points.shape[:-1], dtype=np.float32)
    planes[:3] = crop[tuple(np.moveaxis(straight, -1, 0))]
    planes[3:] = sample_points(crop, points[3:], order=order, outside=outside)
    return planes


def nine_planes_of_volume(
    volume: Volume,
    center_xyz_mm: Sequence[float],
    *,
    pixels: int = PIXELS,
    pixel_mm: float = 1.0,
    order: int = 1,
    outside_hu: float = AIR_HU,
) -> NDArray[np.float32]:
    """Nine planes straight from a scan of any spacing, through the nodule's very center: exact mode without a cube.

    One interpolation instead of two, without a cube: ten times faster than both steps, and nearer to the truth than
    trilinear planes through a cube of 1 mm (on a nodule of known values 11 against 20 HU where voxels are 0.7 mm, 48
    against 52 in slices of 2.5 mm; ``benchmarks/bench_planes.py``). The same places as
    ``nine_planes(nodule_cube(volume, center_xyz_mm))``.

    Args:
        volume: The scan, or a box of it such as :func:`spicula.transforms.fade.faded` gives; HU.
        center_xyz_mm: The nodule's center, LPS mm.
        pixels: Rows and columns of a plane.
        pixel_mm: Distance between pixels.
        order: Order of the spline, 1 or 3.
        outside_hu: HU beyond the volume.

    Returns:
        float32 ``[9, pixels, pixels]`` in HU, in the order of :data:`NAMES`.

    Raises:
        GeometryError: The center lies outside the volume.
    """
    volume.geometry.require_inside(center_xyz_mm, what=f"the nodule's center in {volume.name}")
    places = plane_offsets(pixels=pixels, pixel=pixel_mm)[..., ::-1] + np.asarray(center_xyz_mm, dtype=np.float64)
    return sample_points(volume.array_zyx, volume.geometry.world_to_index(places), order=order, outside=outside_hu)


def torch_grid(points_zyx: FloatArray, side: int) -> NDArray[np.float32]:
    """Points of a cube as ``torch.nn.functional.grid_sample(..., align_corners=True)`` wants them.

    A batch of cubes ``[n, 1, side, side, side]`` with grids ``[n, 9, rows, columns, 3]`` gives the trilinear planes
    ``[n, 1, 9, rows, columns]``.

    Args:
        points_zyx: ``[..., 3]`` (z, y, x), voxels.
        side: Voxels of the cube's side.

    Returns:
        float32 ``[..., 3]`` (x, y, z), -1 to 1 from the first voxel's center to the last one's.
    """
    return np.asarray(points_zyx[..., ::-1] * (2.0 / (side - 1)) - 1.0, dtype=np.float32)


def zoom_planes(planes: ArrayLike, pixels: int = CLIP_PIXELS) -> NDArray[np.float32]:
    """Enlarge planes linearly, as ``scipy.ndimage.zoom(order=1)`` does: corners stay on corners.

    Args:
        planes: ``[..., rows, columns]``.
        pixels: Rows and columns wanted.

    Returns:
        float32 ``[..., pixels, pixels]``.
    """
    images = np.asarray(planes, dtype=np.float32)
    rows, columns = (_zoom_weights(n, pixels) for n in images.shape[-2:])
    return np.asarray(rows @ images @ columns.T, dtype=np.float32)


def clip_normalized(planes: ArrayLike) -> NDArray[np.float32]:
    """Gray planes (0 to 1) as CLIP's three channels, with its means and standard deviations.

    Args:
        planes: ``[n, rows, columns]``.

    Returns:
        float32 ``[n, 3, rows, columns]``.
    """
    mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
    return np.asarray((np.asarray(planes, dtype=np.float32)[:, None] - mean) / std, dtype=np.float32)


def _zoom_weights(n: int, pixels: int) -> NDArray[np.float32]:
    """``[pixels, n]`` weights of linear interpolation from n samples."""
    place = np.arange(pixels) * ((n - 1) / (pixels - 1) if pixels > 1 else 0.0)
    low = np.clip(np.floor(place).astype(int), 0, max(n - 2, 0))
    weights = np.zeros((pixels, n))
    part = np.clip(place - low, 0.0, 1.0)
    weights[np.arange(pixels), low] = 1.0 - part
    weights[np.arange(pixels), np.minimum(low + 1, n - 1)] += part
    return weights.astype(np.float32)
