"""A thorax built in code: body, two lungs, windpipe, vessels, table, and nodules where they are asked for.

It is defined in millimetres, so that the same thorax can be had on any grid: coarse, permuted, flipped, oblique.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from spicula.core.finding import Point
from spicula.core.geometry import FloatArray, Geometry
from spicula.core.volume import Volume

Distance = Callable[[FloatArray], FloatArray]

AIR_HU, LUNG_HU, TISSUE_HU, BONE_HU = -1000.0, -860.0, 40.0, 500.0

LUNG_CENTERS: tuple[Point, Point] = ((-75.0, 0.0, 0.0), (75.0, 0.0, 0.0))
LUNG_RADII = (52.0, 72.0, 85.0)
"""Half axes (x, y, z) of both lungs, in mm."""


@dataclass(frozen=True, slots=True)
class Ball:
    """A round nodule.

    Args:
        center_xyz_mm: LPS mm.
        diameter_mm: Of the ball.
        hu: Its density.
    """

    center_xyz_mm: Point
    diameter_mm: float
    hu: float = TISSUE_HU


def thorax_grid(spacing_zyx_mm: Sequence[float] = (2.0, 2.0, 2.0)) -> Geometry:
    """A grid along the LPS axes that covers the thorax and some air around it (320 x 240 x 200 mm)."""
    extent = np.array([200.0, 240.0, 320.0])
    shape = np.rint(extent / np.asarray(spacing_zyx_mm)).astype(int)
    origin = -(shape - 1) * np.asarray(spacing_zyx_mm) / 2
    return Geometry.from_axes(shape.tolist(), spacing_zyx_mm, origin_xyz_mm=origin[::-1].tolist())


def thorax(
    grid: Geometry | None = None, *, balls: Sequence[Ball] = (), lungs: bool = True, vessels: int = 24, seed: int = 0
) -> Volume:
    """Build the thorax.

    Args:
        grid: Where its voxels lie; :func:`thorax_grid` if None.
        balls: Nodules.
        lungs: False fills the lungs with tissue, as in an abdomen.
        vessels: Tubes in each lung.
        seed: Decides where the vessels run.

    Returns:
        int16 volume in HU, without noise; borders are as soft as the voxels are wide.

    Example:
        >>> volume = thorax(thorax_grid((8, 8, 8)))
        >>> int(volume.array_zyx.min()), int(volume.array_zyx.max()) <= 500
        (-1000, True)
    """
    canvas = _Canvas(grid or thorax_grid())
    everywhere = np.full(3, 1e4)
    canvas.paint(-everywhere, everywhere, lambda p: _ellipsoid(p, (0, 0, 0), (145.0, 100.0, 1e5)), TISSUE_HU)
    canvas.paint((-1e4, 105, -1e4), (1e4, 120, 1e4), lambda p: np.abs(p[..., 1] - 112) - 3, BONE_HU / 4)  # the table
    canvas.paint((-20, 60, -1e4), (20, 100, 1e4), lambda p: np.hypot(p[..., 0], p[..., 1] - 80) - 14, BONE_HU)  # spine
    rng = np.random.default_rng(seed)
    for center in LUNG_CENTERS if lungs else ():
        low, high = np.subtract(center, LUNG_RADII), np.add(center, LUNG_RADII)
        canvas.paint(low, high, partial(_ellipsoid, center=center, radii=LUNG_RADII), LUNG_HU)
        hilum = np.array([0.45 * center[0], 0.0, 0.0])
        for _ in range(vessels):
            target, width = center + rng.uniform(-0.75, 0.75, size=3) * LUNG_RADII, float(rng.uniform(0.8, 2.5))
            ends = np.minimum(hilum, target) - width, np.maximum(hilum, target) + width
            canvas.paint(*ends, partial(_tube, start=hilum, end=target, radius=width), TISSUE_HU)
    if lungs:
        canvas.paint(
            (-8, -18, -1e4), (8, -2, 1e4), lambda p: np.hypot(p[..., 0], p[..., 1] + 10) - 8, AIR_HU
        )  # windpipe
    for ball in balls:
        middle, radius = np.asarray(ball.center_xyz_mm), ball.diameter_mm / 2
        canvas.paint(
            middle - radius, middle + radius,
            partial(_ball, center=middle, radius=radius), ball.hu,
        )  # fmt: skip
    return Volume(np.rint(canvas.hu).astype(np.int16), canvas.grid)


class _Canvas:
    """An array in HU on a grid, into which shapes are painted."""

    def __init__(self, grid: Geometry) -> None:
        self.grid, self.hu = grid, np.full(grid.shape_zyx, AIR_HU)
        self.soft_mm = float(np.mean(grid.spacing_zyx_mm))

    def paint(self, low_xyz_mm: ArrayLike, high_xyz_mm: ArrayLike, distance: Distance, value: float) -> None:
        """Mix a density in where the signed distance is negative; look only within a box in mm."""
        ends = np.stack([np.asarray(low_xyz_mm) - self.soft_mm, np.asarray(high_xyz_mm) + self.soft_mm])
        corners = np.array(np.meshgrid(*ends.T)).reshape(3, -1).T
        index = self.grid.world_to_index(corners)
        start = np.clip(np.floor(index.min(axis=0)), 0, self.grid.shape_zyx).astype(int)
        stop = np.clip(np.ceil(index.max(axis=0)) + 1, start, self.grid.shape_zyx).astype(int)
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        axes = np.meshgrid(
            *(np.arange(a, b, dtype=np.float64) for a, b in zip(start, stop, strict=True)), indexing="ij"
        )
        part = np.clip(0.5 - distance(self.grid.index_to_world(np.stack(axes, axis=-1))) / self.soft_mm, 0, 1)
        self.hu[box] += part * (value - self.hu[box])


def _ellipsoid(points: FloatArray, center: Sequence[float], radii: Sequence[float]) -> FloatArray:
    """About the signed distance to an ellipsoid."""
    scaled = (points - np.asarray(center)) / np.asarray(radii)
    length = np.linalg.norm(scaled, axis=-1)
    slope = np.linalg.norm(scaled / np.asarray(radii), axis=-1) / np.maximum(length, 1e-9)
    return np.asarray((length - 1) / np.maximum(slope, 1e-6))


def _ball(points: FloatArray, center: FloatArray, radius: float) -> FloatArray:
    """Signed distance to a ball."""
    return np.asarray(np.linalg.norm(points - center, axis=-1) - radius)


def _tube(points: FloatArray, start: FloatArray, end: FloatArray, radius: float) -> FloatArray:
    """Signed distance to a tube that tapers to half its radius."""
    along = end - start
    t = np.clip((points - start) @ along / (along @ along), 0, 1)
    gap = np.linalg.norm(points - start - t[..., None] * along, axis=-1)
    return np.asarray(gap - radius * (1 - 0.5 * t))
