"""Laws of the numbers that describe a nodule, on nodules built in code."""

from __future__ import annotations

import numpy as np
import pytest

from spicula.core.errors import GeometryError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.measure.radiomics import describe, feature_vector


def nodule(radius_mm: float = 6.0, *, spacing: tuple[float, float, float] = (1.25, 0.7, 0.7)) -> tuple[Volume, Mask]:
    """A ball of soft tissue with a soft margin and a vessel beside it, in noisy lung."""
    shape = (36, 64, 64)
    grid = Geometry.from_axes(shape, spacing, origin_xyz_mm=(10.0, -20.0, 5.0))
    index = np.moveaxis(np.indices(shape), 0, -1)
    world = grid.index_to_world(index)
    center = np.asarray(grid.center_xyz_mm)
    distance = np.linalg.norm(world - center, axis=-1)
    part = np.clip((radius_mm - distance) / 1.0 + 0.5, 0, 1)
    vessel = np.clip(1.5 - np.hypot(world[..., 1] - center[1], world[..., 2] - center[2]) / 1.5, 0, 1)
    noise = np.random.default_rng(0).normal(0, 20, shape)
    hu = -850 + 880 * np.maximum(part, vessel * (world[..., 0] > center[0])) + noise
    return Volume(hu.astype(np.float32), grid), Mask(part >= 0.5, grid)


def cut(volume: Volume, start: tuple[int, int, int], stop: tuple[int, int, int]) -> Volume:
    region = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return Volume(volume.array_zyx[region], volume.geometry.crop(start, stop))


def reordered(source: Volume | Mask, order: tuple[int, int, int], flips: tuple[int, ...]) -> Volume | Mask:
    array = source.array_zyx.transpose(order)
    affine = source.geometry.affine_lps[:, [*order, 3]].copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
        affine[:3, axis] *= -1
        array = np.flip(array, axis)
    grid = Geometry(array.shape, affine)
    return type(source)(np.ascontiguousarray(array), grid)


@pytest.mark.parametrize("radius", [2.5, 6.0, 10.0])
def test_sizes_are_those_of_the_ball(radius: float) -> None:
    volume, mask = nodule(radius)
    features = describe(volume, mask)
    widest_mm2 = mask.array_zyx.sum(axis=(1, 2)).max() * 0.7**2
    assert np.exp(features["size_area"]) == pytest.approx(np.sqrt(widest_mm2), rel=0.03)
    assert np.exp(features["size_volume"]) == pytest.approx(mask.volume_mm3 ** (1 / 3), rel=0.08)
    assert np.exp(features["size_long"]) == pytest.approx(2 * radius, rel=0.15)
    assert np.exp(features["size_area"]) == pytest.approx(np.sqrt(np.pi) * radius, rel=0.15)


def test_a_ball_is_round_and_solid() -> None:
    features = describe(*nodule(8.0))
    assert features["shape_aspect"] > 0.9
    assert features["shape_solidity"] > 0.93
    assert features["part_above_-300"] > 0.9
    assert features["part_above_200"] == 0


@pytest.mark.parametrize(("order", "flips"), [((0, 1, 2), (1, 2)), ((2, 0, 1), ()), ((1, 2, 0), (0, 2))])
def test_the_order_of_the_axes_does_not_matter(order: tuple[int, int, int], flips: tuple[int, ...]) -> None:
    volume, mask = nodule()
    expected = describe(volume, mask)
    found = describe(reordered(volume, order, flips), reordered(mask, order, flips))
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=2e-3), name


def test_what_is_above_below_and_far_beside_does_not_matter() -> None:
    volume, mask = nodule()
    index = np.argwhere(mask.array_zyx)
    low, high = index.min(axis=0), index.max(axis=0) + 1
    beside = np.array([1, 9, 9])
    small = cut(volume, tuple(low - beside), tuple(high + beside))
    expected, found = describe(volume, mask), describe(small, mask)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-4), name


def test_the_grid_of_the_mask_does_not_matter() -> None:
    volume, mask = nodule()
    start, stop = (4, 8, 8), (32, 56, 56)
    region = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    trimmed = Mask(mask.array_zyx[region], mask.geometry.crop(start, stop))
    assert describe(volume, trimmed) == pytest.approx(describe(volume, mask), abs=1e-9)


def test_an_outline_of_one_voxel_has_finite_numbers() -> None:
    volume, mask = nodule()
    array = np.zeros_like(mask.array_zyx)
    array[18, 32, 32] = True
    features = describe(volume, Mask(array, mask.geometry))
    assert np.isfinite(list(features.values())).all()
    assert list(features) == list(describe(volume, mask))


def test_an_empty_outline_is_refused() -> None:
    volume, mask = nodule()
    with pytest.raises(GeometryError, match="empty outline"):
        describe(volume, Mask(np.zeros_like(mask.array_zyx), mask.geometry))


def test_feature_vector_keeps_the_order() -> None:
    assert feature_vector({"a": 1.0, "b": 2.0}, ["b", "a"]).tolist() == [2.0, 1.0]
