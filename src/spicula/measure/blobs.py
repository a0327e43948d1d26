"""Blobs of all sizes in the lungs: the candidates among which a detector chooses.

Three grids keep it fast: nodules of 3 to 10 mm at about 1.4 mm, larger ones at about 2.8 mm, masses at about 5 mm
within the lungs' hulls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from spicula.core.finding import Point
from spicula.core.geometry import FloatArray, Geometry
from spicula.core.volume import Mask, Volume
from spicula.measure.lungs import lung_hulls
from spicula.transforms.crop import sample
from spicula.transforms.resample import average_blocks, to_lps_axes

LUNG_HU = -900.0
"""Everything outside the searched region is set to this, and nothing below it counts."""

BRIGHT_HU = 100.0
"""Everything above counts as this: calcium and contrast are not rounder than tissue."""

STEP = 2.0**0.5
"""Ratio of neighboring widths."""

LEAST_ROUNDNESS = 0.08
"""Blobs that are flatter or longer are vessels or folds; the real nodules that were tried are above 0.2."""

SCALES: tuple[tuple[float, float, int, bool], ...] = (
    (1.3, 1.2, 3, False),
    (2.7, 3.4, 3, False),
    (5.0, 9.0, 4, True),
)
"""For each grid: spacing in mm, narrowest width (sigma) in mm, number of widths, search in the hulls."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A blob.

    Args:
        center_xyz_mm: LPS mm.
        radius_mm: Of the ball that answers most.
        response: 0 to about 1: a ball of tissue in air gives about 0.5.
        roundness: Least over largest of the three curvatures: 1 for a ball, 0 for a tube, negative for a saddle.
        in_hull: Found by the search for masses.
    """

    center_xyz_mm: Point
    radius_mm: float
    response: float
    roundness: float
    in_hull: bool

    @property
    def strength(self) -> float:
        """What candidates are ranked by before the network sees them."""
        return self.response * max(self.roundness, 0.02)


def find_candidates(volume: Volume, lungs: Mask, *, least_response: float = 0.12) -> list[Candidate]:
    """Find blobs brighter than lung, in all sizes from 3 to 80 mm.

    Args:
        volume: Chest CT in HU.
        lungs: From :func:`spicula.measure.lungs.segment_lungs`.
        least_response: Weaker blobs are not listed.

    Returns:
        Candidates by falling strength, duplicates merged.

    References:
        Lindeberg, Feature detection with automatic scale selection, IJCV 30 (1998) 79, doi:10.1023/A:1008045108935;
        the Laplacian is taken as a difference of Gaussians, in millimetres on any grid.
    """
    ordered = to_lps_axes(volume)
    regions = {False: lungs, True: lung_hulls(lungs)}

    def search(scale: tuple[float, float, int, bool]) -> list[Candidate]:
        spacing, narrowest, count, in_hull = scale
        image, grid = _prepared(ordered, regions[in_hull], spacing)
        found = []
        blobs = _blobs(image, grid, narrowest, count, least_response, ends=not in_hull)
        for index, sigma, response, roundness in blobs:
            if roundness >= LEAST_ROUNDNESS or in_hull:
                x, y, z = grid.index_to_world(index)
                place = (float(x), float(y), float(z))
                found.append(Candidate(place, sigma * 3**0.5, response, roundness, in_hull))
        return found

    with ThreadPoolExecutor(max_workers=2) as pool:
        return merge(chain.from_iterable(pool.map(search, SCALES)))


def merge(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Keep the strongest of candidates whose centers lie within 3 mm or half a radius of each other."""
    ranked = sorted(candidates, key=lambda c: (-c.strength, c.center_xyz_mm))
    if not ranked:
        return []
    places = np.array([c.center_xyz_mm for c in ranked])
    reach = np.array([max(3.0, 0.5 * c.radius_mm) for c in ranked])
    rivals: list[list[int]] = [[] for _ in ranked]
    for n, near in enumerate(cKDTree(places).query_ball_point(places, reach)):
        for other in near:
            rivals[n].append(other)
            rivals[other].append(n)
    alive = np.ones(len(ranked), dtype=bool)
    for n, near in enumerate(rivals):
        if alive[n]:
            alive[[other for other in near if other > n]] = False
    return [candidate for candidate, kept in zip(ranked, alive, strict=True) if kept]


def _prepared(ordered: Volume, region: Mask, spacing_mm: float) -> tuple[NDArray[np.float32], Geometry]:
    """The region's box at about a spacing, 0 (lung and all that is outside) to 1 (tissue)."""
    corners = []
    for axes in ((1, 2), (0, 2), (0, 1)):
        marked = np.flatnonzero(region.array_zyx.any(axis=axes))
        corners.append((float(marked[0]) - 0.5, float(marked[-1]) + 0.5))
    world = region.geometry.index_to_world(list(product(*corners)))
    index = ordered.geometry.world_to_index(world)
    # where the scan goes on, nothing lies beside the region; where it ends, its last voxels are repeated
    margin = 2 * spacing_mm / np.asarray(ordered.geometry.spacing_zyx_mm) + 1
    start = np.clip(np.floor(index.min(axis=0) - margin).astype(int), 0, np.asarray(ordered.array_zyx.shape) - 1)
    stop = np.clip(np.ceil(index.max(axis=0) + margin).astype(int) + 1, start + 1, ordered.array_zyx.shape)
    box = ordered.array_zyx[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    wanted = np.rint(spacing_mm / np.asarray(ordered.geometry.spacing_zyx_mm)).astype(int)
    cut = Volume(box, ordered.geometry.crop(start.tolist(), stop.tolist()))
    small = average_blocks(cut, np.clip(wanted, 1, box.shape).tolist())
    image = np.clip((small.array_zyx - LUNG_HU) * np.float32(1 / (BRIGHT_HU - LUNG_HU)), 0, 1)
    image *= mask_on(region, small.geometry)
    return image, small.geometry


def mask_on(mask: Mask, grid: Geometry) -> NDArray[np.bool_]:
    """The mask's nearest voxel for each voxel of a grid; False outside."""
    step = mask.geometry.inverse_lps[:3, :3] @ grid.affine_lps[:3, :3]
    if np.abs(step - np.diag(np.diag(step))).max() > 1e-4:
        return np.asarray(sample(mask, grid, order=0, outside=0.0) > 0.5)
    start = mask.geometry.world_to_index(grid.origin_xyz_mm)
    picks, inside = [], []
    for axis in range(3):
        index = np.floor(start[axis] + step[axis, axis] * np.arange(grid.shape_zyx[axis]) + 0.5).astype(int)
        inside.append((index >= 0) & (index < mask.geometry.shape_zyx[axis]))
        picks.append(np.clip(index, 0, mask.geometry.shape_zyx[axis] - 1))
    return np.asarray(mask.array_zyx[np.ix_(*picks)] & inside[0][:, None, None] & inside[1][:, None] & inside[2])


def _blobs(
    image: NDArray[np.float32], grid: Geometry, narrowest: float, count: int, least: float, *, ends: bool
) -> list[tuple[FloatArray, float, float, float]]:
    """Maxima over space and scale of the difference of Gaussians: index, sigma, response, roundness."""
    spacing = np.asarray(grid.spacing_zyx_mm)
    width = narrowest / STEP**0.5
    blurred = gaussian_filter(image, width / spacing, mode="nearest", truncate=3.0)
    stack, smooth = [], []
    for _ in range(count + 1):
        more = gaussian_filter(blurred, width * (STEP**2 - 1) ** 0.5 / spacing, mode="nearest", truncate=3.0)
        stack.append((blurred - more) * np.float32(1 / (STEP - 1)))
        smooth.append(blurred)
        blurred, width = more, width * STEP
    found = []
    for n in range(count):
        peaks = _maxima(stack, n, least, ends=ends)
        cubes = _neighborhoods(smooth[n], peaks)
        places = peaks + _summits(_neighborhoods(stack[n], peaks))
        for place, peak, roundness in zip(places, peaks, _roundness(cubes, spacing), strict=True):
            found.append((place, narrowest * STEP**n, float(stack[n][tuple(peak)]), float(roundness)))
    return found


def _neighborhoods(array: NDArray[np.float32], peaks: NDArray[np.intp]) -> FloatArray:
    """The 3 x 3 x 3 voxels around each peak, repeated at the border; ``[n, 3, 3, 3]``."""
    steps = np.stack(np.meshgrid(*(np.arange(-1, 2),) * 3, indexing="ij"))
    index = peaks.T[:, :, None, None, None] + steps[:, None]
    limit = np.asarray(array.shape).reshape(3, 1, 1, 1, 1) - 1
    z, y, x = np.clip(index, 0, limit)
    return np.asarray(array[z, y, x], dtype=np.float64)


def _maxima(stack: Sequence[NDArray[np.float32]], n: int, least: float, *, ends: bool) -> NDArray[np.intp]:
    """Voxels of one scale that no neighbor in space, nor the same voxel of a neighboring scale, beats; ``[n, 3]``.

    Without ``ends`` none lies in the outermost layer, where a dome of the diaphragm that the scan cuts off looks like a
    mass.
    """
    inner = tuple(slice(1, -1) if size > 2 and not ends else slice(None) for size in stack[n].shape)
    strong = np.zeros(stack[n].shape, dtype=bool)
    strong[inner] = stack[n][inner] > least
    peaks = np.argwhere(strong)
    value = stack[n][tuple(peaks.T)]
    top = np.ones(len(peaks), dtype=bool)
    for neighbor in (n - 1, n + 1):
        if 0 <= neighbor < len(stack):
            top &= value >= stack[neighbor][tuple(peaks.T)]
    peaks = peaks[top]
    cubes = _neighborhoods(stack[n], peaks)
    return np.asarray(peaks[cubes[:, 1, 1, 1] >= cubes.reshape(len(peaks), 27).max(axis=1, initial=-np.inf)])


def _summits(cubes: FloatArray) -> FloatArray:
    """Offset of the summit of a parabola along each axis, at most half a voxel; ``[n, 3]``."""
    middle = cubes[:, 1, 1, 1]
    offsets = np.zeros((len(cubes), 3))
    for axis in range(3):
        before, after = (cubes[(slice(None), *(s if a == axis else 1 for a in range(3)))] for s in (0, 2))
        bend = before - 2 * middle + after
        offsets[:, axis] = np.where(bend < 0, 0.5 * (before - after) / np.minimum(bend, -1e-9), 0.0)
    return np.asarray(np.clip(offsets, -0.5, 0.5))


def _roundness(cubes: FloatArray, spacing: FloatArray) -> FloatArray:
    """Ratio of the least to the largest curvature of smoothed density; ``[n]``."""
    hessian = np.empty((len(cubes), 3, 3))
    for a in range(3):
        for b in range(3):
            at = [1, 1, 1]

            def value(da: int, db: int, a: int = a, b: int = b, at: list[int] = at) -> FloatArray:
                place = list(at)
                place[a] += da
                place[b] += db
                return np.asarray(cubes[:, place[0], place[1], place[2]])

            if a == b:
                hessian[:, a, a] = (value(1, 0) - 2 * value(0, 0) + value(-1, 0)) / spacing[a] ** 2
            else:
                mixed = value(1, 1) - value(1, -1) - value(-1, 1) + value(-1, -1)
                hessian[:, a, b] = mixed / (4 * spacing[a] * spacing[b])
    bends = np.sort(-np.linalg.eigvalsh(hessian), axis=1)
    return np.asarray(np.clip(bends[:, 0] / np.maximum(bends[:, 2], 1e-9), -1, 1))
