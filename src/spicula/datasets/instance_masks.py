"""The voxels of a finding on an image's own grid: its outline, or a ball of its diameter where it has none."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.finding import Finding
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask
from spicula.datasets.places import has_place

MaskSource: TypeAlias = Literal["outline", "ball"]


def instance_mask(finding: Finding, geometry: Geometry) -> tuple[Mask, MaskSource]:
    """Say which voxels of an image belong to a finding.

    Args:
        finding: With an outline, or with a place and a diameter.
        geometry: Grid of the image.

    Returns:
        The region on the smallest box of that grid that holds it, at least one voxel, and what it was made from. A
        voxel is in it where its center is in the outline or the ball; where no center is, the voxel nearest to the
        middle is taken.

    Raises:
        InputError: There is neither an outline nor a place with a diameter, or the finding lies outside the image.
    """
    if finding.mask is not None and finding.mask.array_zyx.any():
        return _outlined(finding, finding.mask, geometry), "outline"
    if not has_place(finding):
        raise InputError(f"finding {finding.id}: its place is not known")
    if finding.diameter_mm is None or finding.diameter_mm <= 0:
        raise InputError(f"finding {finding.id}: neither an outline nor a diameter is known")
    center = np.asarray(finding.center_xyz_mm)
    radius = finding.diameter_mm / 2
    start, shape = _box(geometry, center - radius, center + radius, finding)
    points = geometry.index_to_world(_indices(start, shape))
    inside = np.asarray(np.linalg.norm(points - center, axis=-1) <= radius)
    return _tight(geometry, start, inside, center, finding), "ball"


def _outlined(finding: Finding, mask: Mask, geometry: Geometry) -> Mask:
    index = np.argwhere(mask.array_zyx)
    ends = np.array([index.min(axis=0) - 0.5, index.max(axis=0) + 0.5])
    corners = np.array(np.meshgrid(*ends.T)).reshape(3, -1).T
    world = mask.geometry.index_to_world(corners)
    start, shape = _box(geometry, world.min(axis=0), world.max(axis=0), finding)
    nearest = np.rint(mask.geometry.world_to_index(geometry.index_to_world(_indices(start, shape)))).astype(int)
    there = np.asarray(((nearest >= 0) & (nearest < mask.array_zyx.shape)).all(axis=-1))
    z, y, x = np.moveaxis(np.where(there[..., None], nearest, 0), -1, 0)
    inside = np.asarray(mask.array_zyx[z, y, x] & there)
    return _tight(geometry, start, inside, mask.geometry.index_to_world(index.mean(axis=0)), finding)


def _box(
    geometry: Geometry, low_xyz_mm: NDArray[np.float64], high_xyz_mm: NDArray[np.float64], finding: Finding
) -> tuple[list[int], list[int]]:
    """First index and shape of the part of the grid that covers a box in mm."""
    corners = np.array(np.meshgrid(*np.stack([low_xyz_mm, high_xyz_mm]).T)).reshape(3, -1).T
    index = geometry.world_to_index(corners)
    start = np.clip(np.floor(index.min(axis=0)), 0, geometry.shape_zyx).astype(int)
    stop = np.clip(np.ceil(index.max(axis=0)) + 1, 0, geometry.shape_zyx).astype(int)
    if (stop <= start).any():
        raise InputError(f"finding {finding.id}: it lies outside the image", got=tuple(finding.center_xyz_mm))
    return start.tolist(), (stop - start).tolist()


def _indices(start: list[int], shape: list[int]) -> NDArray[np.float64]:
    axes = [np.arange(n, dtype=np.float64) + first for first, n in zip(start, shape, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def _tight(
    geometry: Geometry, start: list[int], inside: NDArray[np.bool_], middle: NDArray[np.float64], finding: Finding
) -> Mask:
    """The region without empty margins."""
    if not inside.any():
        nearest = np.rint(geometry.world_to_index(middle)).astype(int)
        if (nearest < 0).any() or (nearest >= geometry.shape_zyx).any():
            raise InputError(f"finding {finding.id}: it lies outside the image", got=tuple(finding.center_xyz_mm))
        one: list[int] = nearest.tolist()
        return Mask(np.ones((1, 1, 1), dtype=np.bool_), geometry.crop(one, [n + 1 for n in one]))
    index = np.argwhere(inside)
    low, high = index.min(axis=0), index.max(axis=0) + 1
    first, last = np.add(start, low).tolist(), np.add(start, high).tolist()
    return Mask(inside[tuple(map(slice, low, high))], geometry.crop(first, last))


def corner_of(mask: Mask, geometry: Geometry) -> tuple[int, int, int]:
    """Index in the image of the first voxel of a mask that :func:`instance_mask` made."""
    z, y, x = np.rint(geometry.world_to_index(mask.geometry.origin_xyz_mm)).astype(int)
    return int(z), int(y), int(x)
