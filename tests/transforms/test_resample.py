from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from spicula.core.errors import GeometryError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.transforms.crop import sample
from spicula.transforms.resample import around, average_blocks, coarse, resample, to_lps_axes

TURN = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])


def smooth_volume(affine: np.ndarray | None = None, *, dtype: type = np.float32) -> Volume:
    noise = np.random.default_rng(3).standard_normal((24, 30, 36))
    array = (gaussian_filter(noise, 3.0) * 3000 - 600).astype(dtype)
    affine = np.diag([1.0, 1.0, 1.0, 1.0]) if affine is None else affine
    return Volume(array, Geometry(array.shape, affine))


def affine_of(matrix: np.ndarray, spacing: tuple[float, ...] = (2.0, 0.9, 0.7)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = matrix[:, ::-1] * np.asarray(spacing)
    affine[:3, 3] = (11, -7, 30)
    return affine


SHEARED = affine_of(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.95]]))


@pytest.mark.parametrize("matrix", [np.eye(3), np.diag([-1.0, -1.0, 1.0]), np.eye(3)[[1, 2, 0]], TURN])
@pytest.mark.parametrize("along", ["own", "lps"])
def test_values_are_those_of_an_independent_sampler(matrix: np.ndarray, along: str) -> None:
    volume = smooth_volume(affine_of(matrix))
    result = resample(volume, (1.5, 0.8, 0.65), along=along)
    expected = sample(volume, result.geometry)
    inner = volume.geometry.contains(_points(result.geometry), margin_mm=-1.1 * 2)
    np.testing.assert_allclose(result.array_zyx[inner], expected[inner], atol=0.05)
    assert result.geometry.spacing_zyx_mm == pytest.approx((1.5, 0.8, 0.65))


def _points(grid: Geometry) -> np.ndarray:
    return grid.index_to_world(np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape_zyx), indexing="ij"), axis=-1))


def test_a_sheared_grid_becomes_upright_and_keeps_places() -> None:
    volume = smooth_volume(SHEARED)
    assert volume.geometry.is_sheared
    result = resample(volume, (2, 1, 1), outside_hu=-1024)
    assert not result.geometry.is_sheared
    expected = sample(volume, result.geometry)
    inner = volume.geometry.contains(_points(result.geometry), margin_mm=-2.2)
    assert inner.mean() > 0.3
    np.testing.assert_allclose(result.array_zyx[inner], expected[inner], atol=0.05)
    outside = ~volume.geometry.contains(_points(result.geometry), margin_mm=1)
    assert (result.array_zyx[outside] == -1024).all()


def test_same_spacing_is_the_identity_and_extent_is_kept() -> None:
    volume = smooth_volume(affine_of(TURN), dtype=np.int16)
    same = resample(volume, volume.geometry.spacing_zyx_mm)
    np.testing.assert_array_equal(same.array_zyx, volume.array_zyx)
    np.testing.assert_allclose(same.geometry.affine_lps, volume.geometry.affine_lps, atol=1e-9)
    finer = resample(volume, (1.0, 0.45, 0.35))
    assert finer.array_zyx.dtype == np.int16
    np.testing.assert_allclose(finer.geometry.center_xyz_mm, volume.geometry.center_xyz_mm, atol=1e-9)


def test_coarser_grids_average_instead_of_skipping() -> None:
    array = np.zeros((16, 16, 16), dtype=np.float32)
    array[:, :, ::2] = 100
    volume = Volume(array, Geometry(array.shape, np.eye(4)))
    np.testing.assert_allclose(resample(volume, (2, 2, 2)).array_zyx, 50, atol=1e-3)
    assert set(np.unique(resample(volume, (2, 2, 2), nearest=True).array_zyx)) <= {0, 100}


def test_lps_axes_do_not_depend_on_storage() -> None:
    volume = smooth_volume(affine_of(np.eye(3)))
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        array = np.flip(volume.array_zyx.transpose(order), 1)
        affine = volume.geometry.affine_lps.copy()
        affine[:3, :3] = affine[:3, order]
        affine[:3, 3] += affine[:3, 1] * (array.shape[1] - 1)
        affine[:3, 1] *= -1
        back = to_lps_axes(Volume(array, Geometry(array.shape, affine)))
        np.testing.assert_array_equal(back.array_zyx, volume.array_zyx)
        np.testing.assert_allclose(back.geometry.affine_lps, volume.geometry.affine_lps, atol=1e-12)


def test_blocks_keep_mean_and_place() -> None:
    volume = smooth_volume(affine_of(TURN))
    small = average_blocks(volume, (2, 3, 4))
    assert small.array_zyx.mean() == pytest.approx(float(volume.array_zyx.mean()), rel=1e-4)
    np.testing.assert_allclose(small.geometry.center_xyz_mm, volume.geometry.center_xyz_mm, atol=1e-9)
    assert coarse(volume, 1.8).geometry.spacing_zyx_mm == pytest.approx((2.0, 1.8, 2.1))
    with pytest.raises(GeometryError, match="factors"):
        average_blocks(volume, (1, 1, 99))


def test_around_is_a_view_that_covers_the_cube() -> None:
    volume = smooth_volume(affine_of(TURN))
    center = volume.geometry.center_xyz_mm
    part = around(volume, center, 6.0)
    assert np.shares_memory(part.array_zyx, volume.array_zyx)
    corners = np.array(np.meshgrid(*[[-6, 6]] * 3)).reshape(3, -1).T + center
    assert part.geometry.contains(corners).all()
    assert around(volume, (1e4, 0, 0), 5.0).array_zyx.size >= 1


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(GeometryError, match="spacing"):
        resample(smooth_volume(), (1, 0, 1))
    with pytest.raises(GeometryError, match="along"):
        resample(smooth_volume(), (1, 1, 1), along="x")
