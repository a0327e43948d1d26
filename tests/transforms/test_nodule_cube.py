"""Cubes around a nodule: places, the published resampling, the window."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spicula.core.errors import GeometryError, InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.transforms.nodule_cube import monai_grid, monai_index_map, nodule_cube, window

AXES = {
    "upright": np.eye(3),
    "flipped": np.diag([-1.0, -1.0, 1.0]),
    "permuted": np.eye(3)[:, [1, 2, 0]],
    "oblique": Rotation.from_euler("xyz", (0.1, -0.2, 0.15)).as_matrix(),
}
WEIGHTS = (0.5, -1.0, 2.0)


def ramp(axes: str = "upright", *, spacing: tuple[float, float, float] = (2.5, 0.7, 0.7)) -> Volume:
    """HU is a linear function of the place, so that linear interpolation is exact."""
    grid = Geometry.from_axes((30, 90, 100), spacing, origin_xyz_mm=(-12, 40, -200), direction_xyz=AXES[axes])
    index = np.stack(np.indices(grid.shape_zyx), axis=-1)
    return Volume((grid.index_to_world(index) @ WEIGHTS).astype(np.float32), grid)


@pytest.mark.parametrize("axes", list(AXES))
@pytest.mark.parametrize("spacing_mm", [1.0, 0.8])
def test_the_point_is_the_very_middle_in_exact_mode(axes: str, spacing_mm: float) -> None:
    volume = ramp(axes)
    center = volume.geometry.index_to_world((14.3, 44.8, 50.1))
    cube = nodule_cube(volume, center.tolist(), side_mm=16, spacing_mm=spacing_mm)
    n = round(16 / spacing_mm)
    assert cube.shape == (n, n, n)
    assert cube.dtype == np.float32
    assert cube.mean() == pytest.approx(center @ WEIGHTS, abs=1e-3)
    steps = [float(np.diff(cube, axis=axis).mean()) for axis in range(3)]
    np.testing.assert_allclose(steps, np.array(WEIGHTS[::-1]) * spacing_mm, rtol=1e-3)


def test_outside_is_air_in_exact_mode_and_water_in_compat_mode() -> None:
    grid = Geometry.from_axes((20, 20, 20), (1, 1, 1))
    volume = Volume(np.full(grid.shape_zyx, 40, np.int16), grid)
    exact = nodule_cube(volume, (10, 10, 10), side_mm=50)
    compat = nodule_cube(volume, (10, 10, 10), side_mm=50, mode="compat")
    assert (exact[0, 0, 0], compat[0, 0, 0]) == (-1000, 0)
    assert exact[25, 25, 25] == compat[25, 25, 25] == 40
    assert nodule_cube(volume, (10, 10, 10), side_mm=50, outside_hu=-850)[0, 0, 0] == -850
    assert nodule_cube(volume, (10, 10, 10), side_mm=50, mode="compat", outside_hu=-850)[0, 0, 0] == -850
    assert np.count_nonzero(compat) == 20**3


def test_the_point_is_truncated_to_a_voxel_in_compat_mode() -> None:
    """On a 1 mm grid nothing is interpolated: the cube is a block of voxels, cut before the truncated one."""
    grid = Geometry.from_axes((40, 50, 60), (1, 1, 1), origin_xyz_mm=(-7.25, 3.5, 100.125))
    volume = Volume(np.arange(np.prod(grid.shape_zyx), dtype=np.float32).reshape(grid.shape_zyx), grid)
    for index, voxel in [((20.9, 25.9, 30.9), (20, 25, 30)), ((20.1, 25.1, 30.1), (20, 25, 30))]:
        cube = nodule_cube(volume, grid.index_to_world(index).tolist(), side_mm=20, mode="compat")
        z, y, x = voxel
        np.testing.assert_array_equal(cube, volume.array_zyx[z - 10 : z + 10, y - 10 : y + 10, x - 10 : x + 10])


def test_the_stretch_of_the_published_resampling_is_that_of_its_library() -> None:
    """MONAI 1.4 on 20 slices of 2.5 mm: the first sample lies at 0.71 mm and the last at 46.31, not at 0 and 47."""
    source = Geometry.from_axes((20, 30, 30), (2.5, 0.7, 0.7))
    grid = monai_grid(source)
    assert grid.shape_zyx == (48, 21, 21)
    ends = monai_index_map(source, grid) @ np.array([[0.0, 0, 0, 1], [47, 0, 0, 1]]).T
    np.testing.assert_allclose(ends[0] * 2.5, [0.7125, 46.3125], atol=1e-3)
    same = Geometry.from_axes((20, 30, 30), (1, 1, 1))
    np.testing.assert_allclose(monai_index_map(same, monai_grid(same)), np.eye(4), atol=1e-12)


GOLDEN = [
    ("upright", (2.5, 0.7, 0.7), (7.1, 20.2, 22.3), [-203.334, -119.011, -227.25, -223.679, -115.859], 311.028, 0),
    ("upright", (2.5, 0.7, 0.7), (0.4, 1.3, 42.6), [-613.884, 0, 0, -350.747, 0], 48.815, 11640),
    ("flipped", (2.5, 0.7, 0.7), (7.1, 20.2, 22.3), [-303.632, -277.938, -410.144, -377.224, 110.353], 312.161, 0),
    ("permuted", (1.25, 1.3, 0.6), (12.9, 20.2, 2.3), [123.131, 0, 0, -489.49, 0], 94.459, 9456),
    ("oblique", (2.5, 0.7, 0.7), (7.1, 20.2, 22.3), [-246.084, -374.214, -581.733, -326.805, -123.797], 308.471, 6),
]
"""From MONAI 1.4.0: Spacing((1, 1, 1), bilinear, zeros, align_corners, diagonal), Orientation("LPS"), then the voxels
around the truncated seed: five voxels, the mean of the absolute values and the number of zeros."""


@pytest.mark.parametrize(("axes", "spacing", "index", "voxels", "mean", "zeros"), GOLDEN)
def test_compat_equals_monai(
    axes: str,
    spacing: tuple[float, float, float],
    index: tuple[float, float, float],
    voxels: list[float],
    mean: float,
    zeros: int,
) -> None:
    grid = Geometry.from_axes((14, 40, 44), spacing, origin_xyz_mm=(-12.3, 40.1, -200.7), direction_xyz=AXES[axes])
    z, y, x = np.indices(grid.shape_zyx)
    volume = Volume(((z * z * 5 + y * y * 7 + x * x * 11 + y * x * 3) % 1201 - 900).astype(np.int16), grid)
    cube = nodule_cube(volume, grid.index_to_world(index).tolist(), side_mm=24, mode="compat")
    found = [cube[p] for p in [(12, 12, 12), (3, 12, 20), (12, 4, 9), (17, 15, 6), (8, 20, 14)]]
    np.testing.assert_allclose(found, voxels, atol=2e-3)
    assert np.abs(cube.astype(float)).mean() == pytest.approx(mean, abs=2e-3)
    assert np.count_nonzero(cube == 0) == zeros


def test_the_window() -> None:
    hu = np.array([[-3000, -1000], [-250, 2000]], dtype=np.int16)
    found = window(hu)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0, 0], [0.5, 1]])
    assert window(0.0) == pytest.approx(0.6667, abs=1e-4)
    with pytest.raises(InputError, match="a high end above the low end"):
        window(hu, 500, -1000)


def test_bad_arguments_are_refused() -> None:
    volume = ramp()
    center = volume.geometry.center_xyz_mm
    with pytest.raises(GeometryError, match="lies outside the volume"):
        nodule_cube(volume, (9999, 0, 0))
    with pytest.raises(GeometryError, match="three finite numbers"):
        nodule_cube(volume, (np.nan, 0, 0))
    with pytest.raises(GeometryError, match="at least one voxel"):
        nodule_cube(volume, center, spacing_mm=0)
    with pytest.raises(InputError, match="'exact' or 'compat'"):
        nodule_cube(volume, center, mode="paper")  # type: ignore[arg-type]
