"""The surface of a mask against scikit-image and against solids whose area is known."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import marching_cubes, mesh_surface_area

from spicula.core.geometry import Geometry
from spicula.core.volume import Mask
from spicula.measure.surface import surface_area_mm2


def mask(array, spacing=(1.0, 1.0, 1.0)) -> Mask:
    array = np.asarray(array, dtype=bool)
    return Mask(array, Geometry.from_axes(array.shape, spacing))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 0.65)])
def test_it_is_the_area_of_the_mesh_of_scikit_image(seed, spacing):
    rng = np.random.default_rng(seed)
    array = rng.random((9, 12, 14)) < (0.15, 0.35, 0.5, 0.65, 0.85, 0.02)[seed]
    vertices, faces, *_ = marching_cubes(np.pad(array, 1).astype(float), 0.5, spacing=spacing)
    assert surface_area_mm2(mask(array, spacing)) == pytest.approx(mesh_surface_area(vertices, faces), rel=1e-5)


def test_each_kind_of_cube_alone_is_that_of_scikit_image():
    for kind in range(1, 256, 2):
        array = np.array([kind >> corner & 1 for corner in range(8)]).reshape(2, 2, 2)
        vertices, faces, *_ = marching_cubes(np.pad(array, 1).astype(float), 0.5, spacing=(3.0, 0.6, 0.8))
        expected = mesh_surface_area(vertices, faces)
        assert surface_area_mm2(mask(array, (3.0, 0.6, 0.8))) == pytest.approx(expected, rel=1e-5)


def test_a_large_box_has_its_own_area():
    found = surface_area_mm2(mask(np.ones((20, 30, 40)), (2.0, 1.0, 1.0)))
    assert found == pytest.approx(2 * (40 * 30 + 40 * 40 + 30 * 40), rel=0.02)


def test_a_ball_is_about_eight_percent_too_large():
    grid = np.indices((61, 61, 61)) - 30
    ratio = surface_area_mm2(mask((grid**2).sum(axis=0) <= 25.0**2)) / (4 * np.pi * 25.0**2)
    assert 1.06 < ratio < 1.10


def test_where_the_grid_lies_does_not_matter():
    array = np.random.default_rng(1).random((5, 6, 7)) < 0.5
    turned = Geometry.from_axes(
        (5, 6, 7), (2.0, 0.7, 0.7), origin_xyz_mm=(100, -50, 7), direction_xyz=[[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
    )
    assert surface_area_mm2(Mask(array, turned)) == pytest.approx(surface_area_mm2(mask(array, (2.0, 0.7, 0.7))))


def test_nothing_has_no_surface():
    assert surface_area_mm2(mask(np.zeros((2, 3, 4)))) == 0
