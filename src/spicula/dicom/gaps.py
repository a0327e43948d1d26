"""Fill a regular grid from slices that are missing, duplicate or irregular."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import GeometryError
from spicula.core.volume import Instance
from spicula.dicom.header import Slice
from spicula.dicom.series import Series
from spicula.dicom.stack import SAME_PLACE_MM, Stack

Gaps = Literal["error", "warn", "interpolate"]
"""Refuse; take the nearest slices; interpolate between the neighbors."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How each slice of the volume is made from those that are read.

    Slice ``i`` is ``(1 - weight_of_upper[i]) * sources[lower[i]] + weight_of_upper[i] * sources[upper[i]]``, and
    ``instances[i]`` is the object acquired there, None where there is none.
    """

    sources: tuple[Slice, ...]
    lower: tuple[int, ...]
    upper: tuple[int, ...]
    weight_of_upper: tuple[float, ...]
    instances: tuple[Instance | None, ...]

    def fill(self, array: NDArray[Any]) -> NDArray[Any]:
        """Make the volume's slices from the sources' ``[n, rows, cols]``; the array itself if they are the same."""
        if self.lower == self.upper == tuple(range(array.shape[0])):
            return array
        filled = np.empty((len(self.lower), *array.shape[1:]), array.dtype)
        for place, (low, high, weight) in enumerate(zip(self.lower, self.upper, self.weight_of_upper, strict=True)):
            if weight == 0:
                filled[place] = array[low]
            else:
                mixed = array[low] * np.float32(1 - weight) + array[high] * np.float32(weight)
                filled[place] = np.rint(mixed) if array.dtype == np.int16 else mixed
        return filled


def plan_grid(series: Series, stack: Stack, gaps: Gaps, notes: list[str]) -> Plan:
    """Decide which slices fill the regular grid from the first slice to the last.

    Args:
        series: The series.
        stack: Its stack.
        gaps: The policy.
        notes: Gets a sentence if the stack is not regular.

    Returns:
        The plan.

    Raises:
        GeometryError: The stack is not regular and the policy is to refuse, or more than half would be invented.
    """
    if stack.is_regular:
        places = tuple(range(len(series.slices)))
        return Plan(series.slices, places, places, (0.0,) * len(places), series.instances)
    problem = f"{series.name}: {stack.problems} (step {stack.spacing_mm:.3f} mm, tolerance {stack.tolerance_mm:.2f} mm)"
    if gaps == "error":
        raise GeometryError(problem, hint="--gaps warn takes the nearest slices, --gaps interpolate fills in between")
    along = np.asarray(stack.positions_mm)
    kept = np.flatnonzero(np.concatenate([[True], np.diff(along) > SAME_PLACE_MM]))
    if stack.grid_size > 2 * len(kept):
        got, expected = f"{len(kept)} slices for {stack.grid_size} places", "at least every second slice"
        raise GeometryError(problem, got=got, expected=expected)
    sources = tuple(series.slices[index] for index in kept)
    plan = _between(sources, along[kept], stack, interpolate=gaps == "interpolate")
    filled = sum(1 for item in plan.instances if item is None)
    how = "slices were interpolated" if gaps == "interpolate" else "the nearest slices were taken"
    notes.append(f"{problem}; {how}, {filled} of {stack.grid_size} lie where none was acquired")
    return plan


def _between(sources: tuple[Slice, ...], at: NDArray[np.float64], stack: Stack, *, interpolate: bool) -> Plan:
    """Find the neighbors of each grid place; a slice within reach is taken as it is."""
    wanted = np.linspace(at[0], at[-1], stack.grid_size)
    upper = np.clip(np.searchsorted(at, wanted), 1, len(at) - 1)
    lower = upper - 1
    weight = np.clip((wanted - at[lower]) / (at[upper] - at[lower]), 0.0, 1.0)
    nearest = np.where(weight < 0.5, lower, upper)
    distance = np.abs(wanted - at[nearest])
    half_step = (at[-1] - at[0]) / (stack.grid_size - 1) / 2
    acquired = distance <= stack.tolerance_mm if interpolate else distance < half_step - 1e-6
    as_it_is = acquired if interpolate else np.ones(len(wanted), bool)
    return Plan(
        sources,
        tuple(np.where(as_it_is, nearest, lower).tolist()),
        tuple(np.where(as_it_is, nearest, upper).tolist()),
        tuple(np.where(as_it_is, 0.0, weight).tolist()),
        tuple(sources[index].instance if own else None for index, own in zip(nearest, acquired, strict=True)),
    )
