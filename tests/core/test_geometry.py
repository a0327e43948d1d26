"""Laws of the grid, and SimpleITK as an independent oracle."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spicula.core.errors import GeometryError
from spicula.core.geometry import Geometry

SIGNED_AXES = [
    np.diag(signs)[:, list(order)]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]

spacings = st.tuples(*[st.floats(0.3, 6.0)] * 3)
origins = st.tuples(*[st.floats(-400, 400)] * 3)
rotations = st.tuples(*[st.floats(-np.pi, np.pi)] * 3).map(lambda a: Rotation.from_euler("xyz", a).as_matrix())
directions = st.one_of(st.sampled_from(SIGNED_AXES), rotations)


def grids() -> st.SearchStrategy[Geometry]:
    shapes = st.tuples(*[st.integers(1, 30)] * 3)
    return st.builds(
        lambda shape, spacing, origin, direction: Geometry.from_axes(
            shape, spacing, origin_xyz_mm=origin, direction_xyz=direction
        ),
        shapes,
        spacings,
        origins,
        directions,
    )


@given(grids(), st.lists(origins, min_size=1, max_size=4))
def test_world_and_index_are_inverse(grid: Geometry, points: list[tuple[float, float, float]]) -> None:
    back = grid.index_to_world(grid.world_to_index(points))
    np.testing.assert_allclose(back, points, atol=1e-8)


@given(grids(), st.tuples(*[st.integers(-5, 40)] * 3))
def test_places_are_those_of_simpleitk(grid: Geometry, index_zyx: tuple[int, int, int]) -> None:
    image = sitk.Image([int(n) for n in grid.shape_zyx[::-1]], sitk.sitkInt16)
    image.SetSpacing([float(s) for s in grid.spacing_zyx_mm[::-1]])
    image.SetOrigin(grid.origin_xyz_mm)
    image.SetDirection(grid.direction_xyz.ravel().tolist())
    theirs = image.TransformContinuousIndexToPhysicalPoint([float(i) for i in index_zyx[::-1]])
    np.testing.assert_allclose(grid.index_to_world(index_zyx), theirs, atol=1e-6)


@given(grids())
def test_axes_are_taken_apart_and_put_together(grid: Geometry) -> None:
    again = Geometry.from_axes(
        grid.shape_zyx, grid.spacing_zyx_mm, origin_xyz_mm=grid.origin_xyz_mm, direction_xyz=grid.direction_xyz
    )
    np.testing.assert_allclose(again.affine_lps, grid.affine_lps, atol=1e-9)
    assert grid.voxel_volume_mm3 == pytest.approx(np.prod(grid.spacing_zyx_mm))
    assert not grid.is_sheared


@given(grids(), st.tuples(*[st.integers(-3, 3)] * 3))
def test_a_crop_keeps_every_place(grid: Geometry, start: tuple[int, int, int]) -> None:
    stop = tuple(a + n for a, n in zip(start, (4, 5, 6), strict=True))
    part = grid.crop(start, stop)
    assert part.shape_zyx == (4, 5, 6)
    np.testing.assert_allclose(part.index_to_world((1, 2, 3)), grid.index_to_world(np.add(start, (1, 2, 3))), atol=1e-9)


def test_contains_ends_at_the_outer_faces_of_the_voxels() -> None:
    grid = Geometry.from_axes((2, 2, 2), (2.0, 1.0, 1.0))
    assert grid.contains((1.49, 0, 0))
    assert not grid.contains((1.51, 0, 0))
    assert grid.contains((1.51, 0, 0), margin_mm=0.1)
    np.testing.assert_array_equal(grid.contains([(0, 0, 2.9), (0, 0, 3.1)]), [True, False])


def test_shear_is_seen() -> None:
    affine = np.eye(4)
    affine[1, 0] = np.tan(np.radians(5))
    assert Geometry((3, 3, 3), affine).is_sheared


def test_the_flip_that_would_help_is_named() -> None:
    grid = Geometry.from_axes((10, 10, 10), (1, 1, 1), origin_xyz_mm=(20, 30, -300))
    assert grid.flips_that_contain((-25, -35, -295)) == ["x and y (the point looks like RAS)"]
    assert grid.flips_that_contain((25, 35, 295)) == ["z"]
    assert grid.flips_that_contain((500, 500, 500)) == []


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3), np.diag([1.0, 1, 0, 1])])
def test_nonsense_is_refused(affine: np.ndarray) -> None:
    with pytest.raises(GeometryError, match="affine_lps"):
        Geometry((2, 2, 2), affine)
    with pytest.raises(GeometryError, match="shape_zyx"):
        Geometry((2, 0, 2), np.eye(4))


def test_grids_compare_and_hash_by_value() -> None:
    one, other = (Geometry.from_axes((2, 3, 4), (1, 2, 3)) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Geometry.from_axes((2, 3, 5), (1, 2, 3))
    assert one != "grid"


def test_a_point_outside_is_refused_with_the_flip_that_helps() -> None:
    grid = Geometry.from_axes((10, 10, 10), (1, 1, 1), origin_xyz_mm=(20, 30, -300))
    grid.require_inside((25, 35, -295), what="nodule 1")
    with pytest.raises(GeometryError, match=r"nodule 1 lies outside.*flipping x and y \(the point looks like RAS\)"):
        grid.require_inside((-25, -35, -295), what="nodule 1")
    with pytest.raises(GeometryError, match="voxels, or of another scan"):
        grid.require_inside((500, 0, 0), what="nodule 1")
