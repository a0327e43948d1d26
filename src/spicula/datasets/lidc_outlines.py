"""From a reader's outline to pixels, diameters and volume.

A reader of LIDC-IDRI drew through the first pixels *outside* the nodule. Two things follow, and both are done as pylidc
does them, whose numbers are those that papers report:

- a mask holds the pixels whose centers lie inside the line, without those on it;
- diameters and areas are taken between the centers of the line's pixels, which makes a diameter about one pixel larger
  than the mask's own, whose edge lies half a pixel within the line.

References:
    Armato et al. 2011, doi:10.1118/1.3528204; pylidc, doi:10.1117/1.JMI.3.4.044504.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from spicula.core.errors import InputError
from spicula.datasets.lidc_xml import Mark, Points

Bools = NDArray[np.bool_]
Box = tuple[tuple[int, int, int], tuple[int, int, int]]
"""First index and number of slices, rows and columns."""


def slice_numbers(z_mm: ArrayLike, slices_z_mm: ArrayLike) -> NDArray[np.intp]:
    """Number of the slice nearest to each place.

    Args:
        z_mm: Any shape.
        slices_z_mm: Places of the slices, ascending.

    Returns:
        Same shape; of slices equally near, the first.
    """
    places = np.asarray(slices_z_mm, dtype=np.float64)
    gaps = np.abs(np.asarray(z_mm, dtype=np.float64)[..., None] - places)
    return np.asarray(gaps.argmin(axis=-1))


def inside(points_xy: Points, start_yx: tuple[int, int], shape_yx: tuple[int, int]) -> Bools:
    """The pixels whose centers a closed line surrounds (even-odd rule), without those on it.

    Args:
        points_xy: ``[n, 2]`` pixels of the line; its last point is joined to its first.
        start_yx: First row and column of the result.
        shape_yx: Its rows and columns.

    Returns:
        ``[rows, columns]``.

    Example:
        >>> inside(np.array([[0, 0], [2, 0], [2, 2], [0, 2]], np.int32), (0, 0), (3, 3)).astype(int).tolist()
        [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    """
    a = points_xy - np.asarray(start_yx[::-1], dtype=np.int32)
    b = np.roll(a, -1, axis=0)
    upwards = a[:, 1:] <= b[:, 1:]
    low, high = np.where(upwards, a, b), np.where(upwards, b, a)
    heights = high[:, 1] - low[:, 1]
    edge = np.repeat(np.arange(len(a)), heights)
    along = np.arange(len(edge)) - np.repeat(np.cumsum(heights) - heights, heights)
    row = low[edge, 1] + along
    column = low[edge, 0] + along * (high[edge, 0] - low[edge, 0]) / heights[edge]
    after = np.clip(np.floor(column).astype(np.int64) + 1, 0, shape_yx[1])
    crossings = np.zeros((shape_yx[0], shape_yx[1] + 1), dtype=np.int32)
    seen = (row >= 0) & (row < shape_yx[0])
    np.add.at(crossings, (row[seen], after[seen]), 1)
    plane = (np.cumsum(crossings, axis=1)[:, :-1] & 1).astype(bool)
    line = _pixels_on(a)
    on = ((line >= 0) & (line < np.asarray(shape_yx[::-1]))).all(axis=1)
    plane[line[on, 1], line[on, 0]] = False
    return plane


def _pixels_on(points_xy: Points) -> Points:
    """Every pixel whose center lies on a closed line, ``[m, 2]``: its points, and those between distant ones."""
    along = np.roll(points_xy, -1, axis=0) - points_xy
    steps = np.maximum(np.gcd(*np.abs(along).T), 1)
    edge = np.repeat(np.arange(len(points_xy)), steps)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(steps) - steps, steps)
    return np.asarray(points_xy[edge] + along[edge] // steps[edge, None] * step[:, None], dtype=np.int32)


def box_of(marks: Sequence[Mark], slices_z_mm: ArrayLike) -> Box:
    """The smallest box of slices, rows and columns that holds all outlines of some marks, their lines included."""
    points = np.concatenate([outline.points_xy for mark in marks for outline in mark.traced])
    numbers = slice_numbers([outline.z_mm for mark in marks for outline in mark.traced], slices_z_mm)
    (x, y), (x_end, y_end) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    first, last = int(numbers.min()), int(numbers.max())
    return (first, y, x), (last - first + 1, y_end - y + 1, x_end - x + 1)


def mask_of(mark: Mark, slices_z_mm: ArrayLike, *, box: Box | None = None, with_line: bool = False) -> Bools:
    """One reader's mask; holes are cut last.

    Args:
        mark: With outlines.
        slices_z_mm: Places of all slices, ascending; an outline lies on the nearest.
        box: Where; :func:`box_of` the mark if None.
        with_line: Take the pixels of the line for the nodule too (not those around holes), as some papers do.

    Returns:
        ``[slices, rows, columns]``.
    """
    start, shape = box_of([mark], slices_z_mm) if box is None else box
    mask = np.zeros(shape, dtype=bool)
    for outline in sorted(mark.traced, key=lambda outline: not outline.inside):
        number = int(slice_numbers(outline.z_mm, slices_z_mm)) - start[0]
        within = inside(outline.points_xy, start[1:], shape[1:])
        if outline.inside:
            mask[number] |= within
            mask[number][_line(outline.points_xy, start, shape)] = with_line
        else:
            mask[number] &= ~within
            mask[number][_line(outline.points_xy, start, shape)] = False
    return mask


def _line(points_xy: Points, start: tuple[int, int, int], shape: tuple[int, int, int]) -> tuple[Points, Points]:
    y, x = (_pixels_on(points_xy)[:, ::-1] - np.asarray(start[1:], dtype=np.int32)).T
    on = (y >= 0) & (y < shape[1]) & (x >= 0) & (x < shape[2])
    return y[on], x[on]


def consensus(marks: Sequence[Mark], slices_z_mm: ArrayLike, *, share: float = 0.5) -> tuple[Bools, Box]:
    """The voxels that a share of the readers outlined.

    Args:
        marks: Of one nodule.
        slices_z_mm: Places of all slices, ascending.
        share: Of the marks, at least; at 0.5, two of four are enough.

    Returns:
        Mask ``[slices, rows, columns]`` and its box, which holds all outlines.

    Raises:
        InputError: There is no mark.
    """
    if not marks:
        raise InputError("marks", got="none", expected="one or more of one nodule")
    box = box_of(marks, slices_z_mm)
    votes = sum(mask_of(mark, slices_z_mm, box=box).astype(np.int32) for mark in marks)
    return np.asarray(votes >= share * len(marks)), box


def longest_diameter_mm(mark: Mark, *, pixel_spacing_mm: float) -> float:
    """Largest distance of two points of one outline, as pylidc's ``Annotation.diameter``; mm."""
    return float(_farthest(mark)[0] * pixel_spacing_mm)


def axes_mm(mark: Mark, *, pixel_spacing_mm: float) -> tuple[float, float]:
    """Long axis, and width across it, on the slice where the long axis is longest.

    Args:
        mark: With outlines.
        pixel_spacing_mm: Of both directions.

    Returns:
        Both in mm, between the centers of the line's pixels, never less than one pixel.
    """
    longest, direction, points = _farthest(mark)
    across = points @ np.array([-direction[1], direction[0]])
    pixels = np.maximum([longest, across.max() - across.min()], 1.0)
    return float(pixels[0] * pixel_spacing_mm), float(pixels[1] * pixel_spacing_mm)


def _farthest(mark: Mark) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Largest distance in pixels, its unit vector, and the points of its outline."""
    best, direction, of = 0.0, np.array([1.0, 0.0]), np.zeros((1, 2))
    for outline in mark.traced:
        points = outline.points_xy.astype(np.float64)
        span = points.max(axis=0) - points.min(axis=0)
        if np.hypot(*span) <= best:
            continue
        distances = cdist(points, points)
        first, second = np.unravel_index(int(distances.argmax()), distances.shape)
        if distances[first, second] > best:
            best, of = float(distances[first, second]), points
            direction = (points[second] - points[first]) / best
    return best, direction, of


def volume_mm3(mark: Mark, *, pixel_spacing_mm: float, slice_thickness_mm: float) -> float:
    """Volume as pylidc's ``Annotation.volume``: each outline's area times half the way to both neighboring outlines.

    Args:
        mark: With outlines.
        pixel_spacing_mm: Of both directions.
        slice_thickness_mm: What an outline on one slice alone is high.

    Returns:
        mm3; holes are taken off.
    """
    outlines = mark.traced
    places = np.unique([outline.z_mm for outline in outlines])
    if len(places) > 1:
        padded = np.concatenate([[2 * places[0] - places[1]], places, [2 * places[-1] - places[-2]]])
        heights = (padded[2:] - padded[:-2]) / 2
    else:
        heights = np.array([slice_thickness_mm])
    total = 0.0
    for outline in outlines:
        x, y = outline.points_xy.astype(np.float64).T
        area = abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
        height = float(heights[int(np.abs(places - outline.z_mm).argmin())])
        total += (area if outline.inside else -area) * height
    return total * pixel_spacing_mm**2
