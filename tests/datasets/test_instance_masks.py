"""The voxels of a finding on an image's grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.core.finding import Finding
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets.instance_masks import corner_of, instance_mask
from spicula.transforms.resample import to_lps_axes

GRID = Geometry.from_axes(
    (20, 24, 28), (2.0, 0.8, 0.7), origin_xyz_mm=(-9, 8, -7), direction_xyz=[[0, -1, 0], [1, 0, 0], [0, 0, -1]]
)


def drawn(mask: Mask, grid: Geometry) -> np.ndarray:
    whole = np.zeros(grid.shape_zyx, dtype=bool)
    corner = corner_of(mask, grid)
    whole[tuple(slice(a, a + n) for a, n in zip(corner, mask.array_zyx.shape, strict=True))] = mask.array_zyx
    return whole


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(0, 12)] * 3), st.booleans())
def test_an_outline_on_the_image_s_grid_keeps_its_voxels(seed, start, flipped):
    array = np.random.default_rng(seed).random((6, 5, 7)) > 0.7
    array[3, 2, 3] = True
    whole = np.zeros(GRID.shape_zyx, dtype=bool)
    whole[tuple(slice(a, a + n) for a, n in zip(start, array.shape, strict=True))] = array
    box = GRID.crop(start, np.add(start, array.shape))
    mask = Mask(array, box)
    if flipped:
        as_lps = to_lps_axes(Volume(array.astype(np.int16), box))
        mask = Mask(as_lps.array_zyx > 0, as_lps.geometry)
    found, source = instance_mask(Finding("1", (0, 0, 0), mask=mask), GRID)
    assert source == "outline"
    np.testing.assert_array_equal(drawn(found, GRID), whole)


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.floats(0.3, 0.7)] * 3), st.floats(0.1, 7))
def test_a_ball_has_the_voxels_within_its_radius_and_at_least_one(where, diameter):
    center = tuple(GRID.index_to_world(np.multiply(where, np.subtract(GRID.shape_zyx, 1))).tolist())
    found, source = instance_mask(Finding("1", center, diameter), GRID)
    distance = np.linalg.norm(GRID.index_to_world(np.moveaxis(np.indices(GRID.shape_zyx), 0, -1)) - center, axis=-1)
    inside, radius = drawn(found, GRID), max(diameter / 2, distance.min())
    assert source == "ball"
    assert inside.any()
    assert inside[distance < diameter / 2 - 1e-6].all()
    assert not inside[distance > radius + 1e-6].any()


def test_an_outline_finer_than_the_image_is_not_lost():
    fine = Geometry.from_axes((3, 3, 3), (0.1, 0.1, 0.1), origin_xyz_mm=GRID.index_to_world((4, 5, 6)) + 0.15)
    found, _ = instance_mask(Finding("1", (0, 0, 0), mask=Mask(np.ones((3, 3, 3), dtype=bool), fine)), GRID)
    assert (corner_of(found, GRID), found.array_zyx.sum()) == ((4, 5, 6), 1)


@pytest.mark.parametrize(
    ("finding", "words"),
    [
        (Finding("7", (np.nan, 0, 0), 5.0), "finding 7: its place is not known"),
        (Finding("7", (0, 0, 0)), "neither an outline nor a diameter"),
        (Finding("7", (900, 0, 0), 5.0), "outside the image"),
    ],
)
def test_what_cannot_be_drawn_is_said(finding, words):
    with pytest.raises(InputError, match=words):
        instance_mask(finding, GRID)
