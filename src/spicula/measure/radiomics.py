"""Numbers that describe an outlined nodule: size, shape, density, margin and texture.

Everything is measured slice by slice in axial planes inside the outline and at most 5 mm beside it, never above or
below it, on a grid along the LPS axes: so neither the storage order of the axes nor the place where a volume ends
changes a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from spicula.core.errors import GeometryError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.transforms.crop import sample

Array = NDArray[np.float64]

REACH_MM = 5.0
"""How far beside the outline anything is looked at."""
SLICE_MM = 1.25
"""Distance of the axial planes that are measured."""
PROFILE_MM = (-4.0, -3.0, -2.0, -1.25, -0.5, 0.25, 1.0, 1.75, 2.5, 3.5)
"""Edges of the signed distances from the margin (negative inside) whose mean density is taken."""
ANGLES = 64


@dataclass(frozen=True, slots=True, eq=False)
class _Slab:
    """The nodule on axial planes: density, outline (0 to 1), signed in-plane distance in mm, pixel size in mm."""

    hu: Array
    part: Array
    inside: NDArray[np.bool_]
    distance: Array
    pixel: float


def describe(volume: Volume, mask: Mask) -> dict[str, float]:
    """Describe an outlined nodule by some eighty numbers.

    Args:
        volume: The scan, or a small volume around the nodule, in HU.
        mask: Its outline, on any grid.

    Returns:
        Named numbers, always the same names in the same order; sizes are logarithms of mm, densities HU / 100.

    Raises:
        GeometryError: The outline is empty.

    References:
        Zwanenburg et al., The Image Biomarker Standardization Initiative, Radiology 295 (2020),
        doi:10.1148/radiol.2020191145 (naming; the numbers here are fewer and in-plane).
    """
    slab = _slab(volume, mask)
    areas = slab.part.sum(axis=(1, 2)) * slab.pixel**2
    widest = int(np.argmax(areas))
    features: dict[str, float] = {}
    features |= _size(slab, areas, widest)
    features |= _shape(slab, areas, widest)
    features |= _density(slab)
    features |= _margin(slab, widest)
    features |= _texture(slab)
    return {name: float(value) for name, value in features.items()}


def _slab(volume: Volume, mask: Mask) -> _Slab:
    if not mask.array_zyx.any():
        raise GeometryError("mask", got="an empty outline", expected="at least one voxel")
    padded = mask.padded()
    corners = np.argwhere(mask.array_zyx)
    low, high = corners.min(axis=0) - 0.5, corners.max(axis=0) + 0.5
    box = np.array([[low[0], high[0]], [low[1], high[1]], [low[2], high[2]]])
    points = np.stack(np.meshgrid(*box, indexing="ij"), axis=-1).reshape(-1, 3)
    world = mask.geometry.index_to_world(points)
    start, stop = world.min(axis=0), world.max(axis=0)
    pixel = float(np.clip((stop - start)[:2].max() / 40, 0.4, 2.0))
    step = np.array([pixel, pixel, SLICE_MM])
    margin = np.array([REACH_MM, REACH_MM, 0.0])
    counts = np.maximum(np.ceil((stop - start + 2 * margin) / step).astype(int) + 1, 1)
    origin = (start + stop) / 2 - (counts - 1) * step / 2
    grid = Geometry.from_axes(counts[::-1].tolist(), step[::-1].tolist(), origin_xyz_mm=origin.tolist())
    part = sample(padded, grid, outside=0.0).astype(np.float64)
    keep = part.max(axis=(1, 2)) > 0.5
    if not keep.any():
        keep[int(np.argmax(part.sum(axis=(1, 2))))] = True
    hu = np.clip(sample(volume, grid)[keep].astype(np.float64), -1024, 1500)
    part = part[keep]
    inside = part >= min(0.5, float(part.max()))
    distance = np.stack([_signed_distance(plane) for plane in inside]) * pixel
    return _Slab(hu, part, inside, distance, pixel)


def _signed_distance(plane: NDArray[np.bool_]) -> Array:
    if not plane.any():
        return np.full(plane.shape, 1e3)
    outside = ndimage.distance_transform_edt(~plane)
    return np.asarray(np.where(plane, 0.5 - ndimage.distance_transform_edt(plane), outside - 0.5))


def _log(value: float) -> float:
    return float(np.log(max(value, 1e-3)))


def _hull(points: Array) -> Array:
    try:
        return np.asarray(points[ConvexHull(points).vertices])
    except (QhullError, ValueError):
        return points


def _axes(plane: NDArray[np.bool_], pixel: float) -> tuple[float, float, float]:
    """Longest axis, the widest extent across it, and the area of the convex hull, in mm and mm2."""
    yx = np.argwhere(plane).astype(np.float64)
    corners = np.concatenate([yx + offset for offset in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5))])
    hull = _hull(corners) * pixel
    distances = np.hypot(*(hull[:, None] - hull[None]).transpose(2, 0, 1))
    a, b = np.unravel_index(int(np.argmax(distances)), distances.shape)
    along = (hull[b] - hull[a]) / max(distances[a, b], 1e-6)
    across = hull @ np.array([-along[1], along[0]])
    y, x = hull.T
    area = 0.5 * abs(float(np.dot(y, np.roll(x, 1)) - np.dot(x, np.roll(y, 1))))
    return float(distances[a, b]), float(across.max() - across.min()), max(area, pixel**2)


def _size(slab: _Slab, areas: Array, widest: int) -> dict[str, float]:
    long_mm, short_mm, _ = _axes(slab.inside[widest], slab.pixel)
    volume = float(areas.sum() * SLICE_MM)
    core = float(np.percentile(slab.hu[slab.inside], 75))
    near = slab.distance[widest] < 2.0
    filled = np.clip((slab.hu[widest][near] + 850) / max(core + 850, 150), 0, 1).sum() * slab.pixel**2
    return {
        "size_volume": _log(volume) / 3,
        "size_area": _log(areas[widest]) / 2,
        "size_area_filled": _log(float(filled)) / 2,
        "size_area_mean": _log(float(areas.mean())) / 2,
        "size_long": _log(long_mm),
        "size_short": _log(short_mm),
        "size_inscribed": _log(float(-slab.distance.min()) + 0.5),
        "size_height": _log(len(areas) * SLICE_MM),
        "size_mass": _log(float(((slab.hu + 1000).clip(0) / 1000 * slab.part).sum() * slab.pixel**2 * SLICE_MM)) / 3,
    }


def _radii(plane: NDArray[np.bool_], pixel: float, middle: Array) -> Array:
    """Distance in mm from the middle to the margin in each of 64 directions."""
    smooth = ndimage.gaussian_filter(plane.astype(np.float64), 0.5 / pixel if pixel < 1 else 0.5)
    angles = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    reach = np.arange(0, max(plane.shape) * 0.75, 0.5)
    y = middle[0] + reach[:, None] * np.sin(angles)
    x = middle[1] + reach[:, None] * np.cos(angles)
    values = ndimage.map_coordinates(smooth, [y, x], order=1, cval=0.0)
    return np.asarray((values > 0.5).sum(axis=0) * 0.5 * pixel)


def _shape(slab: _Slab, areas: Array, widest: int) -> dict[str, float]:
    """Roundness and lobes, as means over the slices of at least half the widest area."""
    chosen = np.flatnonzero(areas >= 0.5 * areas[widest])
    rows = []
    for index in chosen[:: max(1, len(chosen) // 5)]:
        plane = slab.inside[index]
        long_mm, short_mm, hull_area = _axes(plane, slab.pixel)
        area = max(float(plane.sum()) * slab.pixel**2, slab.pixel**2)
        middle = np.argwhere(plane).mean(axis=0)
        radii = _radii(plane, slab.pixel, middle)
        power = np.abs(np.fft.rfft(radii / max(radii.mean(), 1e-3))) / ANGLES
        gradient = np.hypot(*np.gradient(ndimage.gaussian_filter(slab.part[index], 0.7)))
        perimeter = max(float(gradient.sum()) * slab.pixel, 1e-3)
        rows.append(
            [
                short_mm / long_mm,
                area / hull_area,
                area / (np.pi / 4 * long_mm**2),
                4 * np.pi * area / perimeter**2,
                float(power[2]),
                float(np.sqrt((power[3:5] ** 2).sum())),
                float(np.sqrt((power[5:9] ** 2).sum())),
                float(np.sqrt((power[9:20] ** 2).sum())),
                float(radii.min() / max(radii.max(), 1e-3)),
            ]
        )
    names = ["aspect", "solidity", "roundness", "circularity", "power2", "power34", "power58", "power9", "radius_ratio"]
    means = np.mean(rows, axis=0)
    volume = areas.sum() * SLICE_MM
    features = {f"shape_{name}": float(value) for name, value in zip(names, means, strict=True)}
    features["shape_flatness"] = _log(len(areas) * SLICE_MM) - _log(float(areas[widest])) / 2
    features["shape_fill"] = _log(float(volume)) - 1.5 * _log(float(areas[widest]))
    return features


def _density(slab: _Slab) -> dict[str, float]:
    values = slab.hu[slab.inside]
    levels = np.percentile(values, [5, 10, 25, 50, 75, 90, 95, 99])
    features = {f"hu_p{name}": level / 100 for name, level in zip((5, 10, 25, 50, 75, 90, 95, 99), levels, strict=True)}
    spread = max(float(values.std()), 1.0)
    features["hu_mean"] = float(values.mean()) / 100
    features["hu_std"] = spread / 100
    features["hu_skew"] = float((((values - values.mean()) / spread) ** 3).mean())
    deep = slab.distance <= np.quantile(slab.distance[slab.inside], 0.4)
    features["hu_core"] = float(slab.hu[deep].mean()) / 100
    features["hu_core_std"] = float(slab.hu[deep].std()) / 100
    features["hu_core_gain"] = (
        features["hu_core"]
        - float(slab.hu[slab.inside & ~deep].mean() if (slab.inside & ~deep).any() else features["hu_core"] * 100) / 100
    )
    for level in (-600, -300, -50, 100, 200, 300, 500):
        features[f"part_above_{level}"] = float((values > level).mean())
    voxel = slab.pixel**2 * SLICE_MM
    for level in (-300, 200, 300):
        features[f"volume_above_{level}"] = float(np.log1p((values > level).sum() * voxel)) / 3
    return features


def _margin(slab: _Slab, widest: int) -> dict[str, float]:
    features: dict[str, float] = {}
    whole = slab.distance
    last = -8.5
    for low, high in pairwise(PROFILE_MM):
        ring = (whole >= low) & (whole < high)
        last = float(slab.hu[ring].mean()) / 100 if ring.any() else last
        if low < 0 and not ring.any():
            deep = whole <= whole.min() + 0.2
            last = float(slab.hu[deep].mean()) / 100
        features[f"profile_{low:g}"] = last
    smooth = ndimage.gaussian_filter(slab.hu, (0, 0.6 / slab.pixel, 0.6 / slab.pixel))
    gradient = np.hypot(*np.gradient(smooth, slab.pixel, axis=(1, 2)))
    edge = np.abs(whole) < 1.0
    steep = gradient[edge]
    contrast = max(features["profile_-1.25"] - features["profile_2.5"], 0.5) * 100
    for level, name in ((10, "weak"), (50, "median"), (90, "strong")):
        features[f"edge_{name}"] = float(np.percentile(steep, level)) / contrast
    features["edge_steepness"] = float(np.percentile(steep, 50)) / 100
    inward = float(gradient[whole < -1.0].mean()) if (whole < -1.0).any() else float(steep.mean())
    features["edge_inward"] = inward / contrast
    for low, high in ((0.5, 1.5), (1.5, 2.5), (2.5, 4.0)):
        ring = (whole >= low) & (whole < high)
        values = slab.hu[ring]
        features[f"around_{low:g}_std"] = float(values.std()) / 100
        features[f"around_{low:g}_dense"] = float((values > -500).mean())
        features[f"around_{low:g}_p10"] = float(np.percentile(values, 10)) / 100
        features[f"around_{low:g}_p90"] = float(np.percentile(values, 90)) / 100
    return features | _spokes(slab, widest)


def _spokes(slab: _Slab, widest: int) -> dict[str, float]:
    """Strands that leave the margin: rise and fall of the density on the way round, 1.5 and 3 mm beside it."""
    features = {}
    for low, high in ((1.0, 2.0), (2.5, 3.5)):
        counts = []
        for index in range(max(0, widest - 2), min(len(slab.hu), widest + 3)):
            ring = (slab.distance[index] >= low) & (slab.distance[index] < high)
            yx = np.argwhere(ring)
            if len(yx) < 8:
                continue
            middle = np.argwhere(slab.inside[index]).mean(axis=0) if slab.inside[index].any() else yx.mean(axis=0)
            angle = np.arctan2(*(yx - middle).T)
            order = np.argsort(angle, kind="stable")
            around = ndimage.gaussian_filter1d(slab.hu[index][ring][order], len(yx) / ANGLES, mode="wrap")
            counts.append(
                [float(np.abs(np.diff(around)).sum()) / 1000, float((np.diff(np.sign(around + 600)) != 0).sum()) / 2]
            )
        means = np.mean(counts, axis=0) if counts else np.zeros(2)
        features[f"spokes_{low:g}_variation"], features[f"spokes_{low:g}_count"] = float(means[0]), float(means[1])
    return features


def _texture(slab: _Slab) -> dict[str, float]:
    features = {}
    inner = slab.distance < -0.5
    if inner.sum() < 8:
        inner = slab.inside
    for sigma in (0.8, 1.6):
        scale = (0, sigma / slab.pixel, sigma / slab.pixel)
        blob = ndimage.gaussian_filter(slab.hu, scale) - ndimage.gaussian_filter(slab.hu, [1.6 * s for s in scale])
        features[f"texture_{sigma:g}_energy"] = float(np.sqrt((blob[inner] ** 2).mean())) / 100
        features[f"texture_{sigma:g}_low"] = float(np.percentile(blob[inner], 5)) / 100
    counts = np.histogram(slab.hu[slab.inside], bins=np.arange(-1050, 1551, 50))[0]
    share = counts[counts > 0] / counts.sum()
    features["texture_entropy"] = float(-(share * np.log(share)).sum())
    means = np.array([slab.hu[i][slab.inside[i]].mean() for i in range(len(slab.hu)) if slab.inside[i].any()])
    features["texture_slices"] = float(means.std()) / 100 if len(means) > 1 else 0.0
    return features


def feature_vector(features: Mapping[str, float], names: Sequence[str]) -> NDArray[np.float32]:
    """The named features in a fixed order, as float32 ``[len(names)]``."""
    return np.array([features[name] for name in names], dtype=np.float32)
