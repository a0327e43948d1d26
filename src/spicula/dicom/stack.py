"""How slices lie in space: their order, step, gaps, duplicates and shear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

POSITION_TOLERANCE = 0.01
"""A slice may be this share of the step away from its place in the grid ..."""
POSITION_TOLERANCE_MM = 0.1
"""... or this far, whichever is more."""
SAME_PLACE_MM = 0.01
"""Slices closer than this lie at the same place."""
SHEAR_TOLERANCE = 5e-4
"""Drift across the normal for each mm along it from which a stack counts as sheared (0.03 degrees)."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The places of parallel slices along their common normal.

    Args:
        order: For each place in the stack, the index of the slice given; ascending along the normal.
        positions_mm: Distance of each slice along the normal, in that order.
        first_xyz_mm: LPS position of the first slice's first pixel.
        step_xyz_mm: From one slice of the regular grid to the next, LPS.
        grid_size: Number of slices of the regular grid from the first to the last slice.
        missing_mm: Grid places (along the normal) with no slice.
        duplicate_mm: Places with more than one slice.
        irregular_mm: Slices that lie off the grid.
        shear_degrees: Angle between the normal and the line along which the slices are stacked.
    """

    order: tuple[int, ...]
    positions_mm: tuple[float, ...]
    first_xyz_mm: tuple[float, float, float]
    step_xyz_mm: tuple[float, float, float]
    grid_size: int
    missing_mm: tuple[float, ...]
    duplicate_mm: tuple[float, ...]
    irregular_mm: tuple[float, ...]
    shear_degrees: float

    @property
    def spacing_mm(self) -> float:
        """Distance between neighboring slices of the grid, from center to center along the step."""
        return float(np.linalg.norm(self.step_xyz_mm))

    @property
    def is_regular(self) -> bool:
        """True where every place of the grid holds exactly one slice."""
        return not (self.missing_mm or self.duplicate_mm or self.irregular_mm)

    @property
    def is_sheared(self) -> bool:
        """True where the slices are not stacked along their normal (gantry tilt)."""
        return bool(np.tan(np.radians(self.shear_degrees)) > SHEAR_TOLERANCE)

    @property
    def problems(self) -> str:
        """The missing, duplicate and irregular places in mm along the normal; empty where there are none."""
        found = []
        named = ((self.missing_mm, "missing"), (self.duplicate_mm, "duplicate"), (self.irregular_mm, "irregular"))
        for places, word in named:
            if places:
                shown = ", ".join(f"{place:.2f}" for place in places[:10])
                more = f" and {len(places) - 10} more" if len(places) > 10 else ""
                found.append(f"{len(places)} {word} slice position{'s' if len(places) > 1 else ''} at {shown}{more} mm")
        return "; ".join(found)

    @property
    def tolerance_mm(self) -> float:
        """How far a slice may lie from its place in the grid."""
        return tolerance_mm(self.spacing_mm)


def tolerance_mm(step_mm: float) -> float:
    """How far from its place a slice may lie: one percent of the step, at least 0.1 mm, less than half a step."""
    return min(max(POSITION_TOLERANCE * step_mm, POSITION_TOLERANCE_MM), 0.45 * step_mm)


def normal_of(orientation: Sequence[float]) -> FloatArray:
    """Unit normal of slices from DICOM's Image Orientation (Patient): row direction times column direction."""
    normal = np.cross(np.asarray(orientation[:3], float), np.asarray(orientation[3:], float))
    return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)


def measure_stack(positions_xyz_mm: ArrayLike, orientation: Sequence[float]) -> Stack | None:
    """Sort slices along their normal and find the regular grid that they fill.

    The step is the median distance of neighbors, refined to ``(last - first) / steps`` so that rounded positions add
    up to no error.

    Args:
        positions_xyz_mm: ``[n, 3]``, LPS position of each slice's first pixel.
        orientation: Image Orientation (Patient), six numbers.

    Returns:
        The stack; None where all slices lie at one place.
    """
    positions = np.asarray(positions_xyz_mm, dtype=np.float64).reshape(-1, 3)
    normal = normal_of(orientation)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    along, positions = along[order], positions[order]
    steps = np.diff(along)
    apart = steps > SAME_PLACE_MM
    if not apart.any():
        return None
    kept = np.concatenate([[True], apart])
    distinct = along[kept]
    extent = float(distinct[-1] - distinct[0])
    typical = float(np.median(np.diff(distinct)))
    counts = {int(np.maximum(1, np.rint(np.diff(distinct) / typical)).sum()), max(1, round(extent / typical))}
    count = min(sorted(counts), key=lambda steps: int(_places(distinct, steps)[1].sum()))
    step = extent / count
    nearest, off = _places(distinct, count)
    missing = np.setdiff1d(np.arange(count + 1), nearest) if count <= 100 * len(distinct) else np.arange(0)
    first, last = positions[0], positions[kept][-1]
    line = (last - first) / count
    across, lateral = _drift(positions, along, normal)
    irregular = set(np.round(distinct[off], 3)) | set(np.round(along[lateral > POSITION_TOLERANCE_MM * 2], 3))
    return Stack(
        order=tuple(int(index) for index in order),
        positions_mm=tuple(float(value) for value in along),
        first_xyz_mm=tuple(first.tolist()),
        step_xyz_mm=tuple(line.tolist()),
        grid_size=count + 1,
        missing_mm=tuple(float(distinct[0] + index * step) for index in missing),
        duplicate_mm=tuple(sorted({float(value) for value in along[1:][~apart]})),
        irregular_mm=tuple(sorted(float(value) for value in irregular)),
        shear_degrees=float(np.degrees(np.arctan(across))),
    )


def _places(distinct: FloatArray, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The grid place nearest to each slice, if the first to the last are ``count`` steps, and which lie off theirs."""
    step = (distinct[-1] - distinct[0]) / count
    places = (distinct - distinct[0]) / step
    nearest = np.rint(places).astype(np.int64)
    off = np.abs(places - nearest) * step > tolerance_mm(float(step))
    off[1:] |= np.diff(nearest) == 0
    return nearest, off


def _drift(positions: FloatArray, along: FloatArray, normal: FloatArray) -> tuple[float, FloatArray]:
    """Drift across the normal for each mm along it, and how far each slice lies from the straight line, in mm."""
    sideways = positions - np.outer(along, normal)
    slope, *_ = np.polyfit(along - along.mean(), sideways, 1)
    fitted = sideways.mean(axis=0) + np.outer(along - along.mean(), slope)
    return float(np.linalg.norm(slope)), np.asarray(np.linalg.norm(sideways - fitted, axis=1))
