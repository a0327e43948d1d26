"""Square regions about boxes drawn on slices, as the lesion search cuts them, and the outline that a box stands for.

References:
    arXiv 2311.11014 (regions of 64 x 64 pixels about DeepLesion's boxes) and its code (pad, clip, resize).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.errors import GeometryError, InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask
from spicula.transforms.frangi import frangi
from spicula.transforms.nodule_cube import window
from spicula.transforms.nodule_slices import PIXEL_MM
from spicula.transforms.planes import BACKGROUND_HU, FAR_MM, NEAR_MM

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom edge in pixels: x0, y0, x1, y1, counted from 0 at the center of the first pixel."""

REGION_PIXELS = 64
"""Rows and columns of a region, as published."""

AIR_HU = -1024.0
"""What lies beyond the slice."""

THINNEST_PIXELS = 2.0
"""A box that is thinner in either direction is a slip of the hand."""


def checked_box(box: Sequence[float], *, rows: int, columns: int) -> Box:
    """A box as drawn, its corners in order.

    Args:
        box: x0, y0, x1, y1 in pixels; either pair of opposite corners.
        rows: Of the slice.
        columns: Of the slice.

    Raises:
        GeometryError: It reaches outside the slice, or is thinner than two pixels.
        InputError: It is not four finite numbers.

    Example:
        >>> checked_box((30, 8, 10, 20), rows=64, columns=64)
        (10.0, 8.0, 30.0, 20.0)
    """
    values = np.asarray(box, dtype=np.float64)
    if values.shape != (4,) or not np.isfinite(values).all():
        raise InputError("box", got=tuple(box), expected="four finite numbers: x0, y0, x1, y1 in pixels")
    x0, x1 = sorted(values[[0, 2]].tolist())
    y0, y1 = sorted(values[[1, 3]].tolist())
    if min(x0, y0) < -0.5 or x1 > columns - 0.5 or y1 > rows - 0.5:
        raise GeometryError(
            "box", got=f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g}", expected=f"within {columns} columns and {rows} rows",
            hint="give pixels of this slice, counted from 0; x runs along a row",
        )  # fmt: skip
    if min(x1 - x0, y1 - y0) < THINNEST_PIXELS:
        hint = "draw it around the whole nodule, or give the nodule's place (--at)"
        got = f"{x1 - x0:g} x {y1 - y0:g} pixels"
        raise GeometryError("box", got=got, expected="2 pixels or more each way", hint=hint)
    return x0, y0, x1, y1


def box_region(slice_hu: ArrayLike, box: Sequence[float], *, pixels: int = REGION_PIXELS) -> NDArray[np.float32]:
    """Cut a square region about the middle of a box.

    A box that fits is cut with its own pixels; a larger one is drawn together so that its longer side just fits.

    Args:
        slice_hu: ``[rows, columns]`` in HU.
        box: See :func:`checked_box`.
        pixels: Rows and columns of the region.

    Returns:
        float32 ``[pixels, pixels]`` in HU; :data:`AIR_HU` beyond the slice.

    Raises:
        GeometryError: See :func:`checked_box`.
        InputError: The slice is no image of finite numbers.
    """
    from scipy.ndimage import map_coordinates

    hu = np.asarray(slice_hu, dtype=np.float32)
    if hu.ndim != 2 or not np.isfinite(hu).all():
        raise InputError("slice", got=f"shape {hu.shape}", expected="[rows, columns] of finite HU")
    x0, y0, x1, y1 = checked_box(box, rows=hu.shape[0], columns=hu.shape[1])
    step = max(1.0, max(x1 - x0, y1 - y0) / (pixels - 1))
    offset = (np.arange(pixels) - (pixels - 1) / 2) * step
    rows, columns = (y0 + y1) / 2 + offset, (x0 + x1) / 2 + offset
    if step == 1.0:  # whole pixels, so that nothing is smoothed
        rows, columns = np.floor(rows + 0.5), np.floor(columns + 0.5)
    grid = np.meshgrid(rows, columns, indexing="ij")
    return np.asarray(map_coordinates(hu, grid, order=1, mode="constant", cval=AIR_HU), dtype=np.float32)


def box_ellipse(geometry: Geometry, slice_index: int, box: Sequence[float]) -> Mask:
    """The ellipse that fills a box drawn on a slice: what stands for a lesion whose outline nobody knows.

    Args:
        geometry: Grid of the volume.
        slice_index: Along its first axis.
        box: In pixels of that slice, see :func:`checked_box`.

    Returns:
        A mask on a part of that slice.

    Raises:
        GeometryError: There is no such slice, or see :func:`checked_box`.
    """
    slices, rows, columns = geometry.shape_zyx
    if not 0 <= slice_index < slices:
        raise GeometryError("slice", got=slice_index, expected=f"0 to {slices - 1}", hint="slices are counted from 0")
    x0, y0, x1, y1 = checked_box(box, rows=rows, columns=columns)
    first = (slice_index, max(0, int(np.floor(y0))), max(0, int(np.floor(x0))))
    last = (slice_index + 1, min(rows, int(np.ceil(y1)) + 1), min(columns, int(np.ceil(x1)) + 1))
    y = (np.arange(first[1], last[1]) - (y0 + y1) / 2) / ((y1 - y0) / 2)
    x = (np.arange(first[2], last[2]) - (x0 + x1) / 2) / ((x1 - x0) / 2)
    return Mask((y[:, None] ** 2 + x[None, :] ** 2 <= 1.0)[None], geometry.crop(first, last))


def near_outline(
    hu: NDArray[np.float32], near: NDArray[np.float32], *, pixel_mm: float = PIXEL_MM
) -> NDArray[np.float32]:
    """Let what is far from a nodule's outline fade into lung, so that a small volume shows what a whole scan does.

    Args:
        hu: float32 ``[n, side, side]`` in HU.
        near: Alike, 1 within 1 mm of the outline, as :class:`spicula.transforms.nodule_slices.NoduleSlice` has it.
        pixel_mm: Side of a pixel.

    Returns:
        float32 HU, alike: as it is within 4 mm of the outline, :data:`BACKGROUND_HU` from 8 mm on.
    """
    from scipy.ndimage import distance_transform_edt

    faded = np.empty(hu.shape, dtype=np.float32)
    for number, (image, close) in enumerate(zip(hu, near, strict=True)):
        distance = 1.0 + distance_transform_edt(close < 1.0) * pixel_mm
        keep = np.clip((FAR_MM - distance) / (FAR_MM - NEAR_MM), 0.0, 1.0)
        faded[number] = BACKGROUND_HU + keep * (image - BACKGROUND_HU)
    return faded


def region_input(
    hu: NDArray[np.float32], *, middle: float = 1.0, pixels: int = REGION_PIXELS, with_frangi: bool = False
) -> NDArray[np.float32]:
    """Regions as an encoder sees them in use: their middle, windowed, with Frangi's response as a second channel.

    Args:
        hu: float32 ``[n, side, side]`` in HU.
        middle: Side of what is shown, as a share of the region's.
        pixels: Rows and columns that it is drawn into, bilinearly.
        with_frangi: Whether the encoder has the second channel.

    Returns:
        float32 ``[n, 1 or 2, pixels, pixels]``, 0 to 1, as
        :func:`spicula.pretraining.region_views.undisturbed` gives them.

    Raises:
        InputError: The regions are not square.
    """
    if hu.ndim != 3 or hu.shape[1] != hu.shape[2]:
        raise InputError("regions", got=tuple(hu.shape), expected="[n, side, side]")
    side = hu.shape[1]
    at = ((2 * np.arange(pixels) + 1) / pixels - 1) * middle
    weights = _bilinear((at + 1) * side / 2 - 0.5, side)
    gray = window(np.asarray(weights @ hu @ weights.T, dtype=np.float32))
    channels = [gray, frangi(gray, batched=True)] if with_frangi else [gray]
    return np.stack(channels, axis=1).astype(np.float32)


def _bilinear(places: NDArray[np.float64], side: int) -> NDArray[np.float32]:
    """``[len(places), side]``: what each pixel of a row weighs at each place; beyond the first and last, nothing."""
    return np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(side))).astype(np.float32)
