"""Outlines of a region on a plane, as closed lines."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def outlines(plane: ArrayLike, *, level: float = 0.5) -> list[NDArray[np.float64]]:
    """Trace where a plane crosses a level.

    Args:
        plane: ``[rows, columns]``, a mask or a soft mask (0 to 1); beyond its edge it counts as 0.
        level: What counts as inside.

    Returns:
        Closed lines ``[n, 2]`` of (row, column) in pixels, the first point repeated at the end, the one that
        encloses the most area first. (0, 0) is the *center* of the first pixel. Holes are lines of their own.

    Example:
        >>> [line.shape for line in outlines([[0, 0, 0], [0, 1, 0], [0, 0, 0]])]
        [(5, 2)]
    """
    import contourpy

    field = np.pad(np.asarray(plane, dtype=np.float64), 1)
    if min(field.shape) < 2 or field.max() < level:
        return []
    lines = contourpy.contour_generator(z=field, line_type=contourpy.LineType.Separate).lines(level)
    closed = [np.asarray(line)[:, ::-1] - 1.0 for line in lines if len(line) > 3]
    return sorted(closed, key=lambda line: -abs(enclosed_area(line)))


def enclosed_area(line: NDArray[np.float64]) -> float:
    """Signed area inside a closed line ``[n, 2]``, in the square of its unit (shoelace formula)."""
    a, b = line[:-1], line[1:]
    return float(np.sum(a[:, 1] * b[:, 0] - b[:, 1] * a[:, 0]) / 2)
