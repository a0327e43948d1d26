"""Outlines as a few whole numbers: a box of a volume's grid, in it runs of voxels outside and inside in turn.

The form is plain JSON, ``{"start_zyx": [3], "shape_zyx": [3], "runs": [...]}``: lengths in C order (z, y, x), the
first of voxels outside (0 where the box begins inside).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask

ALIGNED_VOXELS = 0.05
"""How far the voxel centers of a mask may lie from the grid's, in voxels, to be taken for them."""


def runs_of(mask: Mask, geometry: Geometry) -> dict[str, list[int]] | None:
    """Write an outline as runs on a volume's grid.

    Args:
        mask: On a box of the grid, whose voxels are taken as they are, or on any other grid, from which the nearest
            voxel is taken.
        geometry: The volume's grid.

    Returns:
        The smallest box that holds the outline and its runs; None where no voxel of the grid is inside.
    """
    start, array = _on_grid(mask, geometry)
    low = np.clip(-start, 0, array.shape)
    high = np.clip(np.asarray(geometry.shape_zyx) - start, 0, array.shape)
    start, array = start + low, array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    places = np.argwhere(array)
    if not len(places):
        return None
    first, last = places.min(axis=0), places.max(axis=0) + 1
    flat = array[tuple(slice(a, b) for a, b in zip(first, last, strict=True))].ravel()
    edges = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    lengths = np.diff(edges).tolist()
    return {
        "start_zyx": (start + first).tolist(),
        "shape_zyx": (last - first).tolist(),
        "runs": [0, *lengths] if flat[0] else lengths,
    }


def mask_of(runs: Mapping[str, Any], geometry: Geometry) -> Mask:
    """Read an outline from its runs.

    Args:
        runs: As :func:`runs_of` gives them.
        geometry: The grid that they were made for.

    Returns:
        The outline on its box of the grid.

    Raises:
        InputError: They are none, do not fill their box, or the box leaves the grid.
    """
    start, shape = (_whole(runs, name, count=3) for name in ("start_zyx", "shape_zyx"))
    stop = [a + n for a, n in zip(start, shape, strict=True)]
    inside = all(
        a >= 0 and n >= 1 and b <= size for a, n, b, size in zip(start, shape, stop, geometry.shape_zyx, strict=True)
    )
    if not inside:
        expected = f"one inside {geometry.shape_zyx}"
        raise InputError("runs of an outline", got=f"a box from {start} of {shape} voxels", expected=expected)
    lengths = _whole(runs, "runs")
    count = shape[0] * shape[1] * shape[2]
    if min(lengths, default=0) < 0 or sum(lengths) != count:
        raise InputError("runs of an outline", got=f"{sum(lengths)} voxels", expected=f"{count}, as its box has")
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return Mask(flat.reshape(shape), geometry.crop(start, stop))


def _whole(runs: Mapping[str, Any], name: str, *, count: int | None = None) -> list[int]:
    values = runs.get(name) if isinstance(runs, Mapping) else None
    whole = isinstance(values, list | tuple) and all(type(value) is int and abs(value) < 2**31 for value in values)
    if not whole or (count is not None and len(values) != count):  # type: ignore[arg-type]
        expected = "whole numbers" if count is None else f"{count} whole numbers"
        raise InputError(f"{name} of an outline", got=repr(values)[:60], expected=expected)
    return list(values)  # type: ignore[arg-type]


def _on_grid(mask: Mask, geometry: Geometry) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Index of the first voxel of a box of the grid, which may leave it, and the mask there."""
    corners = np.array([[0, 0, 0], *np.diag(np.array(mask.geometry.shape_zyx) - 1)])
    found = geometry.world_to_index(mask.geometry.index_to_world(corners))
    start = np.rint(found[0]).astype(np.intp)
    steps = geometry.world_to_index(mask.geometry.index_to_world(np.eye(3))) - found[0]
    aligned = np.abs(found - (corners + start)).max() <= ALIGNED_VOXELS
    if aligned and np.abs(steps - np.eye(3)).max() <= ALIGNED_VOXELS:  # the axes too: a side may be one voxel long
        return start, np.asarray(mask.array_zyx, dtype=bool)
    return _nearest(mask, geometry)


def _nearest(mask: Mask, geometry: Geometry) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The voxels of the grid whose centers lie in a voxel of the mask that is inside."""
    places = np.argwhere(mask.array_zyx)
    if not len(places):
        return np.zeros(3, dtype=np.intp), np.zeros((1, 1, 1), dtype=bool)
    low, high = places.min(axis=0) - 0.5, places.max(axis=0) + 0.5
    corners = np.array([[z, y, x] for z in (low[0], high[0]) for y in (low[1], high[1]) for x in (low[2], high[2])])
    index = geometry.world_to_index(mask.geometry.index_to_world(corners))
    start = np.maximum(np.floor(index.min(axis=0)).astype(np.intp), 0)
    stop = np.minimum(np.ceil(index.max(axis=0)).astype(np.intp) + 1, geometry.shape_zyx)
    if (stop <= start).any():
        return np.zeros(3, dtype=np.intp), np.zeros((1, 1, 1), dtype=bool)
    array = np.zeros(tuple(stop - start), dtype=bool)
    size = np.asarray(mask.geometry.shape_zyx)
    for z in range(start[0], stop[0]):  # slice by slice: a mask may be a whole volume
        grid = np.stack(np.meshgrid([z], *map(np.arange, start[1:], stop[1:]), indexing="ij"), axis=-1)
        source = np.rint(mask.geometry.world_to_index(geometry.index_to_world(grid))).astype(np.intp)
        known = ((source >= 0) & (source < size)).all(axis=-1)
        source = np.clip(source, 0, size - 1)
        array[z - start[0]] = (known & mask.array_zyx[tuple(np.moveaxis(source, -1, 0))])[0]
    return start, array
