"""What happens to a stored box before the detector's filter learns from it, as one linear map for each axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spicula.core.geometry import FloatArray
from spicula.detectors import blob

SPACINGS_MM = (blob.NEAR_MM, blob.FAR_MM)
THIN_MM = 1.6
"""Slices up to this distance are thin: such boxes look alike along all axes."""

THICK_MM = (2.0, 6.0)
"""Range from which simulated slice distances are drawn."""

Images = NDArray[np.float32]


def augmented(images: NDArray[np.uint8], slice_mm: NDArray[np.float32], rng: np.random.Generator) -> Images:
    """Shift, zoom, mirror and turn stored boxes, blur them, thicken their slices, change their brightness and noise.

    Args:
        images: uint8 ``[n, 2, s, s, s]``, near and far box.
        slice_mm: Distance of the slices from which each was cut, ``[n]``.
        rng: Decides.

    Returns:
        float32 ``[n, 2, 24, 24, 24]``, about 0 to 1.
    """
    count, side = len(images), images.shape[-1]
    maps = np.empty((count, 2, 3, blob.SIDE, side), dtype=np.float32)
    boxes = np.empty(images.shape, dtype=np.float32)
    for n in range(count):
        thin = slice_mm[n] <= THIN_MM
        order = rng.permutation(3) if thin and rng.random() < 0.3 else np.arange(3)
        if rng.random() < 0.5:
            order = order[[0, 2, 1]]
        boxes[n] = images[n].transpose(0, *(order + 1))
        maps[n] = _maps(side, rng, slice_mm=float(slice_mm[n]) if order[0] == 0 or thin else np.inf)
    result = np.matmul(boxes, maps[:, :, 2].swapaxes(-1, -2)[:, :, None])
    result = np.matmul(maps[:, :, 1][:, :, None], result)
    result = np.matmul(maps[:, :, 0], result.reshape(count, 2, side, -1)).reshape(count, 2, *(blob.SIDE,) * 3)
    result *= np.float32(1 / 255)
    shape = (count, 1, 1, 1, 1)
    power = rng.uniform(0.85, 1.18, size=shape).astype(np.float32)
    result = np.clip(result, 0, None) ** power
    result *= rng.uniform(0.88, 1.12, size=shape).astype(np.float32)
    result += rng.normal(scale=0.025, size=shape).astype(np.float32)
    strength = (rng.uniform(0, 0.05, size=shape) * (rng.random(size=shape) < 0.7)).astype(np.float32)
    result += strength * rng.standard_normal(size=result.shape, dtype=np.float32)
    return np.asarray(result, dtype=np.float32)


def _maps(side: int, rng: np.random.Generator, *, slice_mm: float) -> NDArray[np.float32]:
    """For near and far box, the matrices ``[2, 3, 24, side]`` that make z, y and x of the result."""
    zoom = rng.uniform(0.93, 1.07)
    shift_mm = rng.uniform(-1.2, 1.2, size=3)
    blur_mm = rng.uniform(0.4, 1.1) if rng.random() < 0.25 else 0.0
    thick_mm = rng.uniform(*THICK_MM) if rng.random() < 0.5 else 0.0
    phase = rng.random()
    flips = rng.random(3) < 0.5
    maps = np.empty((2, 3, blob.SIDE, side), dtype=np.float32)
    for channel, spacing in enumerate(SPACINGS_MM):
        for axis in range(3):
            middle = (side - 1) / 2 + shift_mm[axis] / spacing + (rng.uniform(-0.4, 0.4) if channel else 0.0)
            wanted = middle + zoom * (np.arange(blob.SIDE) - (blob.SIDE - 1) / 2)
            matrix = between(np.arange(side, dtype=np.float64), wanted)
            if axis == 0 and thick_mm > slice_mm + 0.5:
                matrix = matrix @ thickened(side, thick_mm / spacing, phase=phase)
            elif blur_mm:
                matrix = matrix @ _blur(side, blur_mm / spacing)
            maps[channel, axis] = matrix[::-1] if flips[axis] else matrix
    return maps


def between(places: FloatArray, wanted: FloatArray) -> FloatArray:
    """The matrix of linear interpolation between sorted places, the outermost ones repeated; ``[wanted, places]``."""
    matrix = np.zeros((len(wanted), len(places)))
    rows = np.arange(len(wanted))
    high = np.clip(np.searchsorted(places, wanted), 1, max(len(places) - 1, 1))
    if len(places) == 1:
        matrix[:, 0] = 1
        return matrix
    gap = places[high] - places[high - 1]
    part = np.clip((wanted - places[high - 1]) / gap, 0, 1)
    matrix[rows, high] = part
    matrix[rows, high - 1] = 1 - part
    return matrix


def thickened(side: int, width: float, *, phase: float) -> FloatArray:
    """Average voxels to slices of a width and interpolate back, as a scan with thick slices would show them.

    Args:
        side: Number of voxels.
        width: Of a slice, in voxels.
        phase: 0 to 1, where slices begin.

    Returns:
        ``[side, side]``, rows sum to 1.
    """
    centers = np.arange(phase * width - width, side - 1 + width, width)
    edges = np.arange(side)
    low = np.maximum(edges - 0.5, centers[:, None] - width / 2)
    high = np.minimum(edges + 0.5, centers[:, None] + width / 2)
    share = np.clip(high - low, 0, None)
    inside = share.sum(axis=1) > 0.25 * min(width, 1.0)
    share, centers = share[inside], centers[inside]
    return np.asarray(between(centers, edges.astype(np.float64)) @ (share / share.sum(axis=1, keepdims=True)))


def _blur(side: int, sigma: float) -> FloatArray:
    apart = np.arange(side)[:, None] - np.arange(side)
    weight = np.exp(-0.5 * (apart / sigma) ** 2)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))
