"""Set a real nodule from a small volume seamlessly into nodule-free lung of another scan.

The usual practice where whole scans with marks are few: the nodule is moved onto the scan's grid (averaged over the
scan's slice thickness) and blended by its own mask, dilated and feathered in millimetres, so that no border of the
small volume is carried along. Everything is a pure function of its arguments and a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates, uniform_filter

from spicula.core.errors import GeometryError, InputError
from spicula.core.finding import Finding, Point
from spicula.core.geometry import FloatArray, Geometry
from spicula.core.volume import Mask, Volume
from spicula.transforms.crop import sample

AIR_LIKE_HU = -500.0
"""Tissue above this is not aerated lung."""


@dataclass(frozen=True, slots=True)
class Insertion:
    """What was set where: the provenance of one inserted nodule.

    Args:
        case_id: The nodule, for example ``"LIDC-IDRI-0003_1"``.
        nodule_patient: The patient that it comes from.
        scan: Series UID or name of the scan that received it.
        at_xyz_mm: Where its center went, LPS mm.
        orientation: Rows of the ``[3, 3]`` matrix that turned it (LPS).
    """

    case_id: str
    nodule_patient: str
    scan: str
    at_xyz_mm: Point
    orientation: tuple[tuple[float, float, float], ...]


def slices_beyond(mask: Mask) -> tuple[int, int]:
    """Count the slices of a small volume before and after the outline, along its coarsest axis.

    Args:
        mask: The outline on the grid of its small volume.

    Returns:
        Slices without outline at either end.

    Raises:
        InputError: The mask is empty.
    """
    axis = int(np.argmax(mask.geometry.spacing_zyx_mm))
    marked = np.flatnonzero(mask.array_zyx.any(axis=tuple(a for a in range(3) if a != axis)))
    if not marked.size:
        raise InputError("mask", got="no voxel", expected="the outline of a nodule")
    return int(marked[0]), int(mask.array_zyx.shape[axis] - 1 - marked[-1])


def wall_direction(nodule: Volume, mask: Mask, *, minimum: float = 0.15) -> FloatArray | None:
    """Find the side on which a nodule touches the chest wall, mediastinum or diaphragm.

    Args:
        nodule: The small volume.
        mask: Its outline, on the same grid.
        minimum: Share of the shell 2 to 6 mm beyond the outline that must be soft tissue.

    Returns:
        Unit vector in LPS from the nodule to the tissue, ``[3]``; None for a nodule within the lung.
    """
    distance = distance_transform_edt(~mask.array_zyx, sampling=mask.geometry.spacing_zyx_mm)
    shell = (distance > 2) & (distance < 6)
    tissue = shell & (nodule.array_zyx > AIR_LIKE_HU)
    if not shell.any() or tissue.sum() < minimum * shell.sum():
        return None
    middle = mask.geometry.index_to_world(np.argwhere(mask.array_zyx)).mean(axis=0)
    towards = nodule.geometry.index_to_world(np.argwhere(tissue)).mean(axis=0) - middle
    length = float(np.linalg.norm(towards))
    return towards / length if length > 0.5 else None


def random_orientation(rng: np.random.Generator, *, rotate: bool = True) -> FloatArray:
    """Draw flips of all axes and, if wanted, a turn about the body's long axis.

    Args:
        rng: Where the numbers come from.
        rotate: Also turn in the axial plane by any angle.

    Returns:
        ``[3, 3]`` orthogonal matrix in LPS.
    """
    flips = np.diag(rng.choice([-1.0, 1.0], size=3))
    if not rotate:
        return flips
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    return np.asarray(turn @ flips)


def insert_nodule(
    scan: Volume,
    nodule: Volume,
    mask: Mask,
    *,
    at_xyz_mm: Sequence[float],
    nodule_center_xyz_mm: Sequence[float],
    orientation: FloatArray | None = None,
    margin_mm: float = 1.0,
    feather_mm: float = 3.0,
) -> tuple[Volume, Mask]:
    """Set a nodule into a scan.

    Within the outline and ``margin_mm`` beyond, the voxels are the nodule's; over the next ``feather_mm`` they fade
    into the scan's own. Where the small volume ends, its last slice fades over one slice distance, as an interpolated
    scan would. Tissue beyond the margin (wall, neighboring vessels) is left behind.

    Args:
        scan: The scan that receives it.
        nodule: Small volume around the nodule, HU.
        mask: The nodule's outline on the small volume's grid.
        at_xyz_mm: Where the nodule's center goes, LPS mm of the scan.
        nodule_center_xyz_mm: The nodule's center in its own small volume, LPS mm.
        orientation: ``[3, 3]`` orthogonal matrix that turns it, see :func:`random_orientation`; unturned if None.
        margin_mm: How far beyond the outline the nodule's own surroundings come along in full.
        feather_mm: Width of the fade beyond the margin.

    Returns:
        The scan with the nodule (same grid and dtype, a copy) and the nodule's outline on a box of the scan's grid
        (voxels covered by half or more).

    Raises:
        GeometryError: The mask is not on the nodule's grid, or no voxel of the nodule falls inside the scan.
        InputError: The mask is empty.
    """
    if mask.geometry.shape_zyx != nodule.geometry.shape_zyx:
        raise GeometryError("mask", got=mask.geometry.shape_zyx, expected=f"the nodule's {nodule.geometry.shape_zyx}")
    if not mask.array_zyx.any():
        raise InputError("mask", got="no voxel", expected="the outline of a nodule")
    turn = np.eye(3) if orientation is None else np.asarray(orientation, dtype=np.float64)
    weight, tissue = _blend(nodule, mask, margin_mm=margin_mm, feather_mm=feather_mm)
    # scan voxel p (LPS) shows the nodule's point turn^T (p - at) + center
    grid = nodule.geometry.crop((-1, -1, -1), tuple(n + 1 for n in nodule.geometry.shape_zyx))
    back = np.linalg.inv(grid.affine_lps[:3, :3]) @ turn.T
    offset = grid.world_to_index(nodule_center_xyz_mm) - back @ np.asarray(at_xyz_mm, dtype=np.float64)
    box = _reach(scan.geometry, weight, grid, turn, at_xyz_mm, nodule_center_xyz_mm)
    if box is None:
        raise GeometryError("at_xyz_mm", got=tuple(at_xyz_mm), expected="a place inside the scan")
    region = tuple(slice(int(a), int(b)) for a, b in zip(*box, strict=True))
    place = scan.geometry.crop(*box)
    layers = np.stack([weight, weight * tissue, np.pad(mask.array_zyx, 1).astype(np.float32)])
    step = back @ place.affine_lps[:3, :3]
    start = back @ np.asarray(place.origin_xyz_mm) + offset
    shown = _averaged(layers, start, step, place.shape_zyx, _blur_index(scan, nodule, turn))
    array = scan.array_zyx.copy()
    mixed = shown[1] + (1 - shown[0]) * array[region]
    array[region] = np.rint(mixed) if array.dtype == np.int16 else mixed
    truth = Mask(np.asarray(shown[2] >= 0.5), place)
    return replace(scan, array_zyx=array), truth


def _blend(
    nodule: Volume, mask: Mask, *, margin_mm: float, feather_mm: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight of the nodule and its HU, both with a border of one voxel (weight 0)."""
    inside = np.pad(mask.array_zyx, 1)
    distance = distance_transform_edt(~inside, sampling=mask.geometry.spacing_zyx_mm)
    fade = np.clip((distance - margin_mm) / max(feather_mm, 1e-3), 0, 1)
    weight = np.asarray(0.5 + 0.5 * np.cos(np.pi * fade), dtype=np.float32)
    tissue = np.pad(nodule.array_zyx.astype(np.float32), 1, mode="edge")
    # beyond the margin only lung is carried along: what is denser there belongs to something else
    foreign = (distance > margin_mm) & (tissue > AIR_LIKE_HU)
    weight[foreign] *= np.clip(1 - (distance[foreign] - margin_mm), 0, 1)
    border = np.ones(weight.shape, dtype=bool)
    border[1:-1, 1:-1, 1:-1] = False
    weight[border] = 0
    return weight, tissue


def _reach(
    scan: Geometry,
    weight: NDArray[np.float32],
    grid: Geometry,
    turn: FloatArray,
    at_xyz_mm: Sequence[float],
    center_xyz_mm: Sequence[float],
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Index box of the scan that the weights reach, one voxel wider; None outside the scan."""
    used = np.argwhere(weight > 0)
    corners = np.array(np.meshgrid(*zip(used.min(axis=0) - 1, used.max(axis=0) + 1, strict=True))).reshape(3, -1).T
    world = (grid.index_to_world(corners) - np.asarray(center_xyz_mm)) @ turn.T + np.asarray(at_xyz_mm)
    index = scan.world_to_index(world)
    start = np.maximum(np.floor(index.min(axis=0)) - 1, 0).astype(int)
    stop = np.minimum(np.ceil(index.max(axis=0)) + 2, scan.shape_zyx).astype(int)
    if (stop <= start).any():
        return None
    return tuple(int(n) for n in start), tuple(int(n) for n in stop)


def _blur_index(scan: Volume, nodule: Volume, turn: FloatArray) -> list[FloatArray]:
    """Offsets in scan indices, for each axis, over which a scan voxel averages the nodule (none if it is as coarse)."""
    spacing = np.asarray(scan.geometry.spacing_zyx_mm)
    width = spacing.copy()
    coarsest = int(np.argmax(spacing))
    width[coarsest] = max(spacing[coarsest], scan.acquisition.slice_thickness_mm or 0.0)
    axes = turn.T @ (scan.geometry.affine_lps[:3, :3] / spacing)
    own_spacing = np.asarray(nodule.geometry.spacing_zyx_mm)
    own_axes = nodule.geometry.affine_lps[:3, :3] / own_spacing
    own = np.linalg.norm((own_axes.T @ axes) * own_spacing[:, None], axis=0)
    offsets = []
    for axis in range(3):
        extra = float(np.sqrt(max(width[axis] ** 2 - own[axis] ** 2, 0.0))) if width[axis] > 1.1 * own[axis] else 0.0
        n = int(np.clip(np.ceil(extra / own[axis]) + 1, 1, 9)) if extra else 1
        offsets.append(((np.arange(n) + 0.5) / n - 0.5) * extra / spacing[axis])
    return offsets


def _averaged(
    layers: NDArray[np.float32],
    start: FloatArray,
    step: FloatArray,
    shape_zyx: tuple[int, int, int],
    offsets: Sequence[FloatArray],
) -> NDArray[np.float32]:
    """Sample each layer at ``start + step @ index``, averaged over the offsets; 0 outside."""
    axes = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape_zyx), indexing="ij")
    index = np.stack([start[i] + sum(step[i, a] * axes[a] for a in range(3)) for i in range(3)])
    total = np.zeros((len(layers), *shape_zyx), dtype=np.float32)
    shifts = np.array(np.meshgrid(*offsets, indexing="ij")).reshape(3, -1).T
    for shift in shifts:
        where = index + (step @ shift)[:, None, None, None]
        for n, layer in enumerate(layers):
            total[n] += map_coordinates(layer, where, order=1, mode="constant", cval=0.0, output=np.float32)
    return np.asarray(total / len(shifts), dtype=np.float32)


def insertion_places(
    scan: Volume,
    lungs: Mask,
    *,
    count: int,
    seed: int,
    radius_mm: float = 8.0,
    avoid: Sequence[Finding] = (),
    apart_mm: float = 30.0,
    wall_xyz: FloatArray | None = None,
    most_tissue: float = 0.12,
) -> list[Point]:
    """Draw places in nodule-free lung.

    Args:
        scan: The scan.
        lungs: Its lungs, on any grid of the same space.
        count: How many places; fewer are returned where the lungs have no more room.
        seed: Decides the places.
        radius_mm: Radius of the nodule that will be set there: the ball around a place is nearly all aerated lung.
        avoid: Known nodules; places keep 15 mm and both radii away from them.
        apart_mm: Least distance between two places.
        wall_xyz: For a nodule that touches the wall (:func:`wall_direction`, turned as the nodule will be): places
            ``radius_mm`` from the lung's border whose nearest border lies in this direction.
        most_tissue: Largest share of soft tissue (vessels) in the cube around a place.

    Returns:
        LPS points in mm.

    Raises:
        InputError: There is no such place at all.
    """
    allowed = _room(scan, lungs, radius_mm=radius_mm, wall_xyz=wall_xyz, most_tissue=most_tissue)
    points = lungs.geometry.index_to_world(np.argwhere(allowed))
    for finding in avoid:
        clearance = 15.0 + radius_mm + (finding.diameter_mm or 10.0) / 2
        points = points[np.linalg.norm(points - np.asarray(finding.center_xyz_mm), axis=1) > clearance]
    if not len(points):
        raise InputError(
            "insertion place", got="no lung with room for it", expected=f"a radius of {radius_mm:g} mm", hint="smaller"
        )
    rng = np.random.default_rng(seed)
    jitter = min(lungs.geometry.spacing_zyx_mm) / 2
    places: list[Point] = []
    for index in rng.permutation(len(points)):
        point = points[index]
        if all(np.linalg.norm(point - np.asarray(other)) >= apart_mm for other in places):
            x, y, z = point + rng.uniform(-jitter, jitter, size=3)
            places.append((float(x), float(y), float(z)))
        if len(places) == count:
            break
    return places


def _room(
    scan: Volume, lungs: Mask, *, radius_mm: float, wall_xyz: FloatArray | None, most_tissue: float
) -> NDArray[np.bool_]:
    """Voxels of the lungs' grid at which a nodule of this radius has room."""
    spacing = np.asarray(lungs.geometry.spacing_zyx_mm)
    aerated, depth, outward = _lung(scan, lungs)
    size = np.maximum(1, np.rint(2 * radius_mm / spacing)).astype(int)
    tissue = uniform_filter((lungs.array_zyx & ~aerated).astype(np.float32), size=size, mode="constant")
    room = aerated & (tissue <= most_tissue)
    if wall_xyz is None:
        return np.asarray(room & (depth >= radius_mm + 1.0))
    aligned = np.tensordot(np.asarray(wall_xyz), outward, axes=1) > 0.8
    near = np.abs(depth - radius_mm) <= max(1.5, float(spacing.max()) / 2)
    return np.asarray(aerated & near & aligned & (tissue <= 2 * most_tissue))


@lru_cache(maxsize=1)
def _lung(scan: Volume, lungs: Mask) -> tuple[NDArray[np.bool_], FloatArray, FloatArray]:
    """Aerated voxels, depth below the lung's border in mm, and the way out; kept, as many nodules ask for one scan."""
    spacing = np.asarray(lungs.geometry.spacing_zyx_mm)
    aerated = lungs.array_zyx & (sample(scan, lungs.geometry) < AIR_LIKE_HU)
    depth = distance_transform_edt(np.pad(lungs.array_zyx, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    smooth = gaussian_filter(depth, 3.0 / spacing)
    slope = np.stack(np.gradient(smooth, *spacing))
    outward = -np.einsum("ij,j...->i...", lungs.geometry.affine_lps[:3, :3] / spacing, slope)
    outward /= np.maximum(np.linalg.norm(outward, axis=0), 1e-6)
    return aerated, depth, outward
