"""The 3-D outline of a nodule from one point inside or near it.

A compact network (bundle ``nodule-outline``) looks twice: first through a box of fixed size in mm, widened while the
outline comes near its walls, then through a box whose side is about three diameters, around the middle of what the
first look found. Small nodules and masses look alike to it that way, and a point that is some millimeters off does no
harm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.transforms.crop import box_geometry, sample

Network = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], ...]]
"""A compiled network: ``[n, 5, 20, 32, 32]`` float32 to logits ``[n, 1, 20, 32, 32]``."""

BOX_SHAPE_ZYX = (20, 32, 32)
"""Voxels of the network's box, along the LPS axes."""

SLICE_RATIO = 1.5
"""The box's spacing along z over the one along x and y."""

FIRST_SPACINGS_MM = (1.25, 2.5, 4.0)
"""In-plane spacings of the first look: boxes of 40, 80 and 128 mm, the next while the outline is large for the box."""

VOXELS_ACROSS = 10.0
"""The second look has a spacing at which a sphere of the nodule's volume is this many voxels wide."""

FINE_SPACING_MM = (0.45, 4.0)
"""Limits of the second look's in-plane spacing."""

BEYOND_MM = 5.0
"""How far outside a volume the middle of the second look may lie; half its smallest box is wider."""

CHANNELS = 5

TISSUE_HU = -300.0
"""Above this a voxel is soft tissue rather than lung or ground glass."""


def box_around(center_xyz_mm: Sequence[float], spacing_mm: float) -> Geometry:
    """The grid of the network's box, with its middle at a point and an in-plane spacing in mm."""
    spacing = (SLICE_RATIO * spacing_mm, spacing_mm, spacing_mm)
    return box_geometry(center_xyz_mm, shape_zyx=BOX_SHAPE_ZYX, spacing_zyx_mm=spacing)


def covering(grid: Geometry, box: Geometry, *, margin: int = 2) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and one-past-last indices on ``grid`` that cover a box; they may lie outside the grid."""
    last = np.asarray(box.shape_zyx) - 1
    corners = np.array([[i, j, k] for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])])
    index = grid.world_to_index(box.index_to_world(corners))
    start = np.floor(index.min(axis=0)).astype(np.intp) - margin
    stop = np.ceil(index.max(axis=0)).astype(np.intp) + margin + 1
    return start, stop


def cut(volume: Volume, start_zyx: NDArray[np.intp], stop_zyx: NDArray[np.intp], *, fill: str = "edge") -> Volume:
    """Cut a float32 block by indices; beyond the volume it is filled as ``numpy.pad`` does in mode ``fill``.

    Raises:
        InputError: The block and the volume have no voxel in common.
    """
    shape = np.asarray(volume.geometry.shape_zyx)
    inner_start, inner_stop = np.clip(start_zyx, 0, shape), np.clip(stop_zyx, 0, shape)
    if (inner_stop <= inner_start).any():
        raise InputError("outline", got="a box outside the volume", expected="a point inside the volume")
    block = volume.array_zyx[tuple(slice(a, b) for a, b in zip(inner_start, inner_stop, strict=True))]
    widths = list(zip(inner_start - start_zyx, stop_zyx - inner_stop, strict=True))
    padded = np.pad(block.astype(np.float32), widths, mode=fill)  # type: ignore[call-overload]
    return Volume(padded, volume.geometry.crop(start_zyx.tolist(), stop_zyx.tolist()))


def resample_block(block: Volume, box: Geometry) -> NDArray[np.float32]:
    """Sample a block on a box, smoothed first along axes that are finer than the box; float32 of the box's shape."""
    steps = block.geometry.world_to_index(box.index_to_world(np.eye(3))) - block.geometry.world_to_index(
        box.origin_xyz_mm
    )
    step = np.linalg.norm(steps, axis=0)
    sigma = 0.35 * np.sqrt(np.maximum(step**2 - 1.0, 0.0))
    array = np.asarray(block.array_zyx, dtype=np.float32)
    if sigma.max() > 0.3:
        array = ndimage.gaussian_filter(array, np.where(sigma > 0.3, sigma, 0.0), mode="nearest", truncate=3.0)
    return sample(Volume(array, block.geometry), box)


def network_input(hu: NDArray[np.float32], *, spacing_mm: float, slice_mm: float) -> NDArray[np.float32]:
    """Compose the channels of the network.

    Args:
        hu: ``[..., 20, 32, 32]`` in HU.
        spacing_mm: In-plane spacing of the box.
        slice_mm: Distance of the volume's own slices (its widest spacing).

    Returns:
        float32 ``[..., 5, 20, 32, 32]``: a lung window, a soft-tissue window, the distance from the middle of the box
        (0 there, 1 at a wall), the spacing and the slice distance (both as logarithms).
    """
    offsets = [np.linspace(-1.0, 1.0, n, dtype=np.float32) for n in hu.shape[-3:]]
    z, y, x = np.meshgrid(*offsets, indexing="ij", sparse=True)
    channels = np.empty((*hu.shape[:-3], CHANNELS, *hu.shape[-3:]), dtype=np.float32)
    channels[..., 0, :, :, :] = np.clip((hu + 500.0) / 500.0, -1.0, 1.2)
    channels[..., 1, :, :, :] = np.clip((hu - 50.0) / 200.0, -1.0, 1.5)
    channels[..., 2, :, :, :] = np.sqrt(z * z + y * y + x * x)
    channels[..., 3, :, :, :] = np.log2(spacing_mm)
    channels[..., 4, :, :, :] = np.log2(slice_mm / spacing_mm) / 2.0
    return channels


def outline(volume: Volume, center_xyz_mm: Sequence[float], *, network: Network) -> Mask:
    """Outline the nodule at a point.

    Args:
        volume: A scan, or a small volume around the nodule; any orientation and spacing.
        center_xyz_mm: A point in or within a few millimeters of the nodule, LPS mm.
        network: The compiled network of the bundle ``nodule-outline``.

    Returns:
        The nodule on a crop of the volume's own grid that holds it with a margin of one voxel where the volume goes
        on; one connected region without holes, of at least one voxel.

    Raises:
        InputError: The point lies outside the volume.
    """
    if not volume.geometry.contains(center_xyz_mm, margin_mm=1.0):
        flips = volume.geometry.flips_that_contain(center_xyz_mm)
        hint = f"flip {flips[0]}" if flips else "give the point in LPS millimeters"
        got = tuple(round(float(v), 1) for v in center_xyz_mm)
        raise InputError(
            f"outline: the point {got} mm lies outside the volume", expected="a point inside it", hint=hint
        )
    center = np.asarray(center_xyz_mm, dtype=np.float64)
    for spacing in FIRST_SPACINGS_MM:
        box = box_around(center.tolist(), spacing)
        hu = _hu(volume, box)
        middle, diameter, crowded = _found(_logits(volume, hu, box, network, mirrored=False), box)
        if not crowded and not _buried(hu):
            break
    middle = _within(volume, middle)
    for _ in range(3):
        fine = float(np.clip(diameter / VOXELS_ACROSS, *FINE_SPACING_MM))
        box = box_around(middle.tolist(), fine)
        logits = _logits(volume, _hu(volume, box), box, network, mirrored=True)
        found, found_diameter, crowded = _found(logits, box)
        if not crowded or found_diameter <= 1.15 * diameter or fine == FINE_SPACING_MM[1]:
            break
        middle, diameter = _within(volume, found), found_diameter
    return _on_own_grid(volume, box, logits, middle)


def _within(volume: Volume, point_xyz_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """A point that wandered out of the volume, into which the network sees its outermost voxels go on, set back."""
    if volume.geometry.contains(point_xyz_mm, margin_mm=BEYOND_MM):
        return point_xyz_mm
    index = np.clip(volume.geometry.world_to_index(point_xyz_mm), 0, np.asarray(volume.geometry.shape_zyx) - 1)
    return volume.geometry.index_to_world(index)


def _slice_mm(volume: Volume) -> float:
    return max(volume.geometry.spacing_zyx_mm)


def _hu(volume: Volume, box: Geometry) -> NDArray[np.float32]:
    return resample_block(cut(volume, *covering(volume.geometry, box)), box)


def _buried(hu: NDArray[np.float32]) -> bool:
    """True where a ball of half the box's width is nearly all soft tissue: a mass wider than the box can show."""
    offsets = np.meshgrid(*(np.linspace(-1.0, 1.0, n) for n in hu.shape), indexing="ij", sparse=True)
    ball = offsets[0] ** 2 + offsets[1] ** 2 + offsets[2] ** 2 < 0.25
    return bool(np.mean(hu[ball] > TISSUE_HU) > 0.7)


def _logits(
    volume: Volume, hu: NDArray[np.float32], box: Geometry, network: Network, *, mirrored: bool
) -> NDArray[np.float32]:
    """Logits on a box; with ``mirrored`` the mean over four mirror images (x, y, z and none)."""
    spacing = box.spacing_zyx_mm[2]
    axes: list[tuple[int, ...]] = [(), (0,), (1,), (2,)] if mirrored else [()]
    batch = np.stack([np.flip(hu, flip) for flip in axes])
    output = network(network_input(batch, spacing_mm=spacing, slice_mm=_slice_mm(volume)))[0][:, 0]
    back = [np.flip(one, flip) for one, flip in zip(output, axes, strict=True)]
    return np.asarray(np.mean(back, axis=0), dtype=np.float32)


def _found(logits: NDArray[np.float32], box: Geometry) -> tuple[NDArray[np.float64], float, bool]:
    """Middle (LPS mm), diameter of the sphere of equal volume (mm), and whether the box is too small for it."""
    probability = _probability(logits)
    middle_index = (np.asarray(BOX_SHAPE_ZYX) - 1) / 2
    region = _component(probability > min(0.5, 0.8 * float(probability.max())), middle_index, box)
    index = np.argwhere(region)
    weight = probability[region]
    middle = box.index_to_world(np.average(index, axis=0, weights=weight))
    diameter = float((6.0 / np.pi * weight.sum() * box.voxel_volume_mm3) ** (1 / 3))
    last = np.asarray(BOX_SHAPE_ZYX) - 1
    touches = int(((index <= 0) | (index >= last)).any(axis=1).sum())
    crowded = diameter > 0.45 * box.spacing_zyx_mm[2] * BOX_SHAPE_ZYX[2] or touches > 0.02 * len(index)
    return middle, max(diameter, 2.0), bool(crowded or probability.max() < 0.5)


def _probability(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return (1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0)))).astype(np.float32)


def _component(region: NDArray[np.bool_], middle_zyx: NDArray[np.float64], grid: Geometry) -> NDArray[np.bool_]:
    """The connected part with most tissue near a point (in a Gaussian of 2 mm that starts at the nearest voxel)."""
    labels, count = ndimage.label(region)
    if count <= 1:
        return region
    index = np.argwhere(region)
    distance = np.linalg.norm((index - middle_zyx) * np.asarray(grid.spacing_zyx_mm), axis=1)
    weight = np.exp(-0.5 * ((distance - distance.min()) / 2.0) ** 2)
    score = np.bincount(labels[region], weights=weight, minlength=count + 1)
    return np.asarray(labels == int(score[1:].argmax()) + 1)


def _on_own_grid(volume: Volume, box: Geometry, logits: NDArray[np.float32], middle: NDArray[np.float64]) -> Mask:
    """Bring logits from the box to the volume's grid, keep one region, close its holes and trim it."""
    shape = np.asarray(volume.geometry.shape_zyx)
    start, stop = covering(volume.geometry, box, margin=0)
    start, stop = np.clip(start, 0, shape - 1), np.clip(stop, 1, shape)
    grid = volume.geometry.crop(start.tolist(), stop.tolist())
    own = sample(Volume(logits, box), grid, outside=-20.0)
    at = volume.geometry.world_to_index(middle) - start
    region = _component(own > min(0.0, float(own.max()) - 1e-3), at, grid)
    region = ndimage.binary_fill_holes(region)
    index = np.argwhere(region)
    low = np.maximum(index.min(axis=0) - 1, 0)
    high = np.minimum(index.max(axis=0) + 2, region.shape)
    trimmed = region[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    return Mask(np.ascontiguousarray(trimmed), grid.crop(low.tolist(), high.tolist()))
