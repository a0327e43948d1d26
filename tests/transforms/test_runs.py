"""Outlines as runs, and back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask
from spicula.transforms.runs import mask_of, runs_of

OBLIQUE = Rotation.from_euler("xyz", (10, -20, 30), degrees=True).as_matrix()
GRID = Geometry.from_axes((9, 11, 13), (2.5, 0.8, 0.7), origin_xyz_mm=(-20.5, 14.25, -300.0), direction_xyz=OBLIQUE)


def whole(mask: Mask, grid: Geometry) -> np.ndarray:
    """The mask on the whole grid."""
    start = np.rint(grid.world_to_index(mask.geometry.origin_xyz_mm)).astype(int)
    array = np.zeros(grid.shape_zyx, dtype=bool)
    for place in np.argwhere(mask.array_zyx) + start:
        if (place >= 0).all() and (place < grid.shape_zyx).all():
            array[tuple(place)] = True
    return array


@st.composite
def boxes(draw: st.DrawFn) -> Mask:
    """A region on any box that meets the grid or leaves it."""
    start = [draw(st.integers(-3, n + 1)) for n in GRID.shape_zyx]
    shape = [draw(st.integers(1, 6)) for _ in range(3)]
    array = draw(arrays(np.bool_, shape, elements=st.booleans()))
    return Mask(array, GRID.crop(start, [a + n for a, n in zip(start, shape, strict=True)]))


@settings(max_examples=150, deadline=None)
@given(boxes())
def test_there_and_back_is_the_same_region(mask: Mask) -> None:
    runs = runs_of(mask, GRID)
    expected = whole(mask, GRID)
    if runs is None:
        assert not expected.any()
        return
    back = mask_of(json.loads(json.dumps(runs)), GRID)
    np.testing.assert_array_equal(whole(back, GRID), expected)
    assert runs["shape_zyx"] == list(back.array_zyx.shape)
    for axis in range(3):  # the box is the smallest
        sides = back.array_zyx.any(axis=tuple(a for a in range(3) if a != axis))
        assert sides[0]
        assert sides[-1]
    assert all(length > 0 for length in runs["runs"][1:])
    assert runs_of(back, GRID) == runs


def test_the_first_run_is_of_voxels_outside() -> None:
    array = np.array([[[False, True, True], [True, False, False]]])
    runs = runs_of(Mask(array, GRID.crop((2, 3, 4), (3, 5, 7))), GRID)
    assert runs == {"start_zyx": [2, 3, 4], "shape_zyx": [1, 2, 3], "runs": [1, 3, 2]}
    full = runs_of(Mask(np.ones((1, 1, 2), dtype=bool), GRID.crop((0, 0, 0), (1, 1, 2))), GRID)
    assert full == {"start_zyx": [0, 0, 0], "shape_zyx": [1, 1, 2], "runs": [0, 2]}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_axes_in_another_order_or_direction_are_the_same_region(order: tuple[int, int, int]) -> None:
    array = np.random.default_rng(0).random(GRID.shape_zyx) > 0.7
    affine = GRID.affine_lps.copy()
    affine[:3, 3] = GRID.index_to_world((GRID.shape_zyx[0] - 1, 0, 0))
    affine[:3, :3] = (GRID.affine_lps[:3, :3] * (-1, 1, 1))[:, order]
    turned = np.ascontiguousarray(array[::-1].transpose(order))
    assert runs_of(Mask(turned, Geometry(turned.shape, affine)), GRID) == runs_of(Mask(array, GRID), GRID)


def test_another_grid_is_resampled_by_the_nearest_voxel() -> None:
    fine = Geometry.from_axes((60, 60, 60), (0.5, 0.4, 0.3), origin_xyz_mm=np.array(GRID.center_xyz_mm) - (9, 12, 15))
    index = np.stack(np.meshgrid(*map(np.arange, fine.shape_zyx), indexing="ij"), axis=-1)
    ball = np.linalg.norm(fine.index_to_world(index) - GRID.center_xyz_mm, axis=-1) <= 3.5
    runs = runs_of(Mask(ball, fine), GRID)
    assert runs is not None
    back = mask_of(runs, GRID)
    index = np.stack(np.meshgrid(*map(np.arange, GRID.shape_zyx), indexing="ij"), axis=-1)
    distance = np.linalg.norm(GRID.index_to_world(index) - GRID.center_xyz_mm, axis=-1)
    found = whole(back, GRID)
    assert found[distance < 3.0].all()
    assert not found[distance > 4.0].any()
    far = Geometry(fine.shape_zyx, fine.affine_lps + np.diag([0.0, 0, 0, 0]) + 500 * np.eye(4)[:, [3, 0, 1, 2]][:4])
    assert runs_of(Mask(ball, far), GRID) is None
    assert runs_of(Mask(np.zeros_like(ball), fine), GRID) is None


GOOD = {"start_zyx": [0, 0, 0], "shape_zyx": [1, 2, 2], "runs": [1, 3]}


@pytest.mark.parametrize(
    "change",
    [
        {"runs": [1, 2]}, {"runs": [5, -1]}, {"runs": [1.0, 3]}, {"runs": None}, {"runs": [True, 3]}, {"runs": []},
        {"start_zyx": [0, 0]}, {"start_zyx": [-1, 0, 0]}, {"start_zyx": [9, 0, 0]}, {"shape_zyx": [0, 2, 2]},
        {"shape_zyx": [10**12, 1, 1]}, {"start_zyx": "abc"}, {"runs": [2**40, 3]},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    mask_of(GOOD, GRID)
    with pytest.raises(InputError, match="of an outline"):
        mask_of({**GOOD, **change}, GRID)
    with pytest.raises(InputError):
        mask_of([1, 2], GRID)  # type: ignore[arg-type]
