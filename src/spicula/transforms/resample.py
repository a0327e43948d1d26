"""Volumes on other grids: canonical axis order, averaged blocks, any spacing through SimpleITK."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import SimpleITK as sitk

from spicula.core.errors import GeometryError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume


def to_lps_axes(volume: Volume) -> Volume:
    """Reorder and flip the array axes so that they run closest to head, back and left (z, y, x of LPS).

    Nothing is interpolated: the array is a view, every voxel keeps its place. The same scan stored along any axis
    order and direction gives the same array.

    Args:
        volume: Any volume.

    Returns:
        The volume with its axes in that order.
    """
    matrix = volume.geometry.affine_lps[:3, :3]
    axes = matrix / np.linalg.norm(matrix, axis=0)
    order = max(permutations(range(3)), key=lambda p: sum(abs(axes[2 - k, p[k]]) for k in range(3)))
    flips = [bool(axes[2 - k, order[k]] < 0) for k in range(3)]
    if order == (0, 1, 2) and not any(flips):
        return volume
    shape = volume.array_zyx.shape
    corner = [0, 0, 0]
    for k, flip in enumerate(flips):
        corner[order[k]] = shape[order[k]] - 1 if flip else 0
    affine = volume.geometry.affine_lps.copy()
    affine[:3, :3] = matrix[:, order] * np.where(flips, -1.0, 1.0)
    affine[:3, 3] = volume.geometry.index_to_world(corner)
    array = volume.array_zyx.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    geometry = Geometry(array.shape, affine, volume.geometry.frame_of_reference_uid)
    return replace(volume, array_zyx=array, geometry=geometry, acquisition=replace(volume.acquisition, instances=()))


def average_blocks(volume: Volume, factors_zyx: Sequence[int]) -> Volume:
    """Average whole blocks of voxels; what is left over at the end of an axis is dropped.

    Args:
        volume: Any volume.
        factors_zyx: Voxels of a block along each axis, at most the axis' length.

    Returns:
        The smaller volume, float32.

    Raises:
        GeometryError: A factor is under 1 or beyond its axis.
    """
    f = tuple(int(n) for n in factors_zyx)
    shape = tuple(n // k if k > 0 else 0 for n, k in zip(volume.array_zyx.shape, f, strict=True))
    if min(shape) < 1:
        raise GeometryError("factors_zyx", got=f, expected=f"1 up to {volume.array_zyx.shape}")
    wide = np.int32 if volume.array_zyx.dtype == np.int16 else np.float32
    total = np.zeros(shape, dtype=wide)
    for offset in product(*(range(k) for k in f)):
        window = tuple(slice(o, o + n * k, k) for o, n, k in zip(offset, shape, f, strict=True))
        total += volume.array_zyx[window]
    affine = volume.geometry.affine_lps.copy()
    affine[:3, 3] = volume.geometry.index_to_world((np.asarray(f) - 1) / 2)
    affine[:3, :3] = affine[:3, :3] * np.asarray(f)
    geometry = Geometry(shape, affine, volume.geometry.frame_of_reference_uid)  # type: ignore[arg-type]
    array = np.asarray(total * np.float32(1 / np.prod(f)), dtype=np.float32)
    return replace(volume, array_zyx=array, geometry=geometry, acquisition=replace(volume.acquisition, instances=()))


def around(volume: Volume, center_xyz_mm: Sequence[float], half_mm: float) -> Volume:
    """The part of a volume that covers a cube around a point: a view, nothing is copied.

    Args:
        volume: Any volume.
        center_xyz_mm: Middle of the cube, LPS mm.
        half_mm: Half of its side, along the LPS axes.

    Returns:
        The part; at least one voxel, the nearest ones where the cube lies outside.
    """
    middle = volume.geometry.world_to_index(center_xyz_mm)
    reach = half_mm * np.abs(volume.geometry.inverse_lps[:3, :3]).sum(axis=1)
    shape = np.asarray(volume.geometry.shape_zyx)
    start = np.clip(np.floor(middle - reach).astype(int), 0, shape - 1)
    stop = np.clip(np.ceil(middle + reach).astype(int) + 1, start + 1, shape)
    array = volume.array_zyx[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    geometry = volume.geometry.crop(start.tolist(), stop.tolist())
    return replace(volume, array_zyx=array, geometry=geometry, acquisition=replace(volume.acquisition, instances=()))


def coarse(volume: Volume, spacing_mm: float) -> Volume:
    """Average a volume, axes in LPS order, to about a spacing; an axis that is already as coarse stays.

    Args:
        volume: Any volume.
        spacing_mm: Wanted distance between voxels.

    Returns:
        float32 volume, axes closest to head, back, left.
    """
    ordered = to_lps_axes(volume)
    wanted = np.rint(spacing_mm / np.asarray(ordered.geometry.spacing_zyx_mm)).astype(int)
    return average_blocks(ordered, np.clip(wanted, 1, ordered.array_zyx.shape).tolist())


def resample(
    volume: Volume,
    spacing_zyx_mm: Sequence[float],
    *,
    along: str = "own",
    outside_hu: float | None = None,
    nearest: bool = False,
) -> Volume:
    """Bring a volume to a spacing, by linear interpolation of averaged blocks.

    Where the new spacing is coarser by two or more, whole blocks are averaged first, so that nothing aliases. A
    sheared grid (gantry tilt) always becomes an upright one.

    Args:
        volume: Any volume.
        spacing_zyx_mm: Wanted distances, along the volume's own axes or, with ``along="lps"``, along z, y, x.
        along: ``"own"`` keeps the axes, the new grid covers the same voxels; ``"lps"`` gives the box along the LPS
            axes that covers them.
        outside_hu: Value where the new grid lies outside the old one; None repeats the nearest voxel.
        nearest: Take the nearest voxel and neither interpolate nor average.

    Returns:
        The volume, of the same dtype (rounded where int16).

    Raises:
        GeometryError: A spacing is not positive, or ``along`` is unknown.
    """
    spacing = np.asarray(spacing_zyx_mm, dtype=np.float64)
    if spacing.shape != (3,) or not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise GeometryError("spacing_zyx_mm", got=list(spacing_zyx_mm), expected="three positive numbers")
    if along not in ("own", "lps"):
        raise GeometryError("along", got=along, expected="'own' or 'lps'")
    own = along == "own" and not volume.geometry.is_sheared
    grid = _own_grid(volume.geometry, spacing) if own else _lps_grid(volume.geometry, spacing)
    source = volume
    if not nearest:
        factors = np.maximum(1, np.floor(spacing / np.asarray(volume.geometry.spacing_zyx_mm) + 1e-6)).astype(int)
        if own and (factors > 1).any():
            source = average_blocks(volume, np.minimum(factors, volume.array_zyx.shape).tolist())
    return _on_grid(source, grid, like=volume, outside_hu=outside_hu, nearest=nearest)


def _own_grid(old: Geometry, spacing: np.ndarray) -> Geometry:
    extent = np.asarray(old.shape_zyx) * np.asarray(old.spacing_zyx_mm)
    shape = np.maximum(1, np.rint(extent / spacing)).astype(int)
    ratio = spacing / np.asarray(old.spacing_zyx_mm)
    affine = old.affine_lps.copy()
    affine[:3, :3] = affine[:3, :3] * ratio
    affine[:3, 3] = old.index_to_world(((np.asarray(old.shape_zyx) - 1) - (shape - 1) * ratio) / 2)
    return Geometry(tuple(shape.tolist()), affine, old.frame_of_reference_uid)


def _lps_grid(old: Geometry, spacing: np.ndarray) -> Geometry:
    ends = np.array(list(product(*((-0.5, n - 0.5) for n in old.shape_zyx))))
    world = old.index_to_world(ends)[:, ::-1]  # z, y, x
    low, high = world.min(axis=0), world.max(axis=0)
    shape = np.maximum(1, np.rint((high - low) / spacing)).astype(int)
    origin = (low + high) / 2 - (shape - 1) * spacing / 2
    return Geometry.from_axes(
        shape.tolist(), spacing.tolist(), origin_xyz_mm=origin[::-1].tolist(),
        frame_of_reference_uid=old.frame_of_reference_uid,
    )  # fmt: skip


def _on_grid(source: Volume, grid: Geometry, *, like: Volume, outside_hu: float | None, nearest: bool) -> Volume:
    """Resample in index space, so that any affine works: ITK's own direction must be orthonormal."""
    matrix = np.linalg.inv(source.geometry.affine_lps[:3, :3]) @ grid.affine_lps[:3, :3]
    start = source.geometry.world_to_index(grid.origin_xyz_mm)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[::-1, ::-1].ravel().tolist())
    transform.SetTranslation(start[::-1].tolist())
    image = sitk.GetImageFromArray(np.ascontiguousarray(source.array_zyx))
    sampler = sitk.ResampleImageFilter()
    sampler.SetSize(grid.shape_zyx[::-1])
    sampler.SetTransform(transform)
    sampler.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    sampler.SetOutputPixelType(sitk.sitkFloat32)
    sampler.SetUseNearestNeighborExtrapolator(outside_hu is None)
    sampler.SetDefaultPixelValue(0.0 if outside_hu is None else float(outside_hu))
    array = sitk.GetArrayFromImage(sampler.Execute(image))
    result = np.rint(array).astype(np.int16) if like.array_zyx.dtype == np.int16 else array
    return replace(like, array_zyx=result, geometry=grid, acquisition=replace(like.acquisition, instances=()))
