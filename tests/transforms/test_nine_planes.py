"""Nine planes through a nodule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from spicula.core.errors import GeometryError, InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.formats.scans import read_volume
from spicula.transforms.nine_planes import (
    CLIP_MEAN,
    CLIP_STD,
    NAMES,
    clip_normalized,
    nine_planes,
    nine_planes_of_volume,
    plane_points,
    torch_grid,
    zoom_planes,
)
from spicula.transforms.nodule_cube import nodule_cube, window

# What plane i shows along its rows and columns, as (z, y, x); a rotated cube's axes lie between two of them.
H = 0.5**0.5
ROWS = [(0, 1, 0), (1, 0, 0), (1, 0, 0), (0, 1, 0), (H, 0, -H), (H, H, 0), (H, -H, 0), (1, 0, 0), (1, 0, 0)]
COLUMNS = [(0, 0, 1), (0, 0, 1), (0, 1, 0), (H, 0, H), (0, 1, 0), (0, 0, 1), (0, 0, 1), (0, H, H), (0, H, -H)]


def rotated_planes(cube: np.ndarray, jitter: np.ndarray | None = None) -> np.ndarray:
    """The published way: turn the whole cube three times, slice it, cut the middle 50 x 50 out."""
    c = cube.shape[0] // 2
    xz, xy, yz = (ndimage.rotate(cube, 45, axes=axes, reshape=False) for axes in ((0, 2), (1, 2), (0, 1)))
    slices = [cube[c], cube[:, c], cube[:, :, c], xz[c], xz[:, :, c], yz[c], yz[:, c], xy[:, c], xy[:, :, c]]
    starts = (np.zeros((9, 2), int) if jitter is None else jitter) + c - 25
    return np.stack([s[a : a + 50, b : b + 50] for s, (a, b) in zip(slices, starts.tolist(), strict=True)])


def smooth_cube(seed: int = 0, *, side: int = 100, sigma: float = 2.0) -> np.ndarray:
    cube = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side,) * 3), sigma)
    return (cube - cube.min()) / np.ptp(cube)


@pytest.fixture(scope="module")
def smooth() -> np.ndarray:
    return smooth_cube()


def test_compat_equals_turning_the_cube(smooth: np.ndarray) -> None:
    np.testing.assert_allclose(nine_planes(smooth, mode="compat"), rotated_planes(smooth), rtol=0, atol=1e-6)


def test_compat_equals_turning_the_cube_with_jitter_and_noise() -> None:
    rng = np.random.default_rng(1)
    noise = rng.random((100, 100, 100))
    jitter = rng.integers(-5, 5, (9, 2))
    jitter[0], jitter[4] = (-5, 4), (4, -5)
    found = nine_planes(noise, mode="compat", jitter=jitter)
    np.testing.assert_allclose(found, rotated_planes(noise, jitter), rtol=0, atol=1e-6)


@pytest.mark.shared
def test_compat_equals_turning_a_real_nodule(shared: Path) -> None:
    volume = read_volume(shared / "lidc_nodules" / "image" / "LIDC-IDRI-0001_1.nii.gz")
    cube = window(nodule_cube(volume, (56.208, 86.343, -115.868), mode="compat"))
    assert cube.shape == (100, 100, 100)
    assert cube[45:55, 45:55, 45:55].mean() > 0.6
    np.testing.assert_allclose(nine_planes(cube, mode="compat"), rotated_planes(cube), rtol=0, atol=1e-6)


def test_a_smaller_cube_is_cut_likewise() -> None:
    cube = smooth_cube(3, side=60)
    np.testing.assert_allclose(nine_planes(cube, mode="compat"), rotated_planes(cube), rtol=0, atol=1e-6)


def test_the_published_planes_miss_the_middle() -> None:
    """A ball about the middle of the cube: the oblique planes of compat mode pass it at half a voxel."""
    points = plane_points(mode="compat")
    normals = np.cross(ROWS, COLUMNS)
    away = [abs(float((p[0, 0] - 49.5) @ n)) for p, n in zip(points, normals, strict=True)]
    np.testing.assert_allclose(away, 0.5)
    exact = plane_points()
    np.testing.assert_allclose([(p[0, 0] - 49.5) @ n for p, n in zip(exact, normals, strict=True)], 0, atol=1e-12)
    np.testing.assert_allclose(exact.mean(axis=(1, 2)), 49.5)


@pytest.mark.parametrize("mode", ["exact", "compat"])
def test_rows_and_columns_run_where_they_should(mode: str) -> None:
    points = plane_points(mode=mode)  # type: ignore[arg-type]
    np.testing.assert_allclose(np.diff(points, axis=1) - np.array(ROWS)[:, None, None], 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(points, axis=2) - np.array(COLUMNS)[:, None, None], 0, atol=1e-12)
    assert len(NAMES) == 9


def test_exact_planes_go_through_a_given_center() -> None:
    place = np.indices((64, 64, 64)) - np.array([31.3, 30.2, 33.9])[:, None, None, None]
    ball = np.exp(-(place**2).sum(axis=0) / (2 * 6.0**2))
    planes = nine_planes(ball, pixels=51, center_zyx=(31.3, 30.2, 33.9))
    np.testing.assert_allclose(planes[:, 25, 25], 1.0, atol=1e-4)
    np.testing.assert_allclose(planes, planes[:1].repeat(9, axis=0), atol=1e-4)
    np.testing.assert_allclose(planes, planes[:, ::-1, ::-1], atol=1e-4)


def test_trilinear_is_close_on_smooth_tissue(smooth: np.ndarray) -> None:
    difference = np.abs(nine_planes(smooth, order=1) - nine_planes(smooth))
    assert 0 < difference.max() < 0.06
    assert difference.mean() < 0.01


def test_beyond_the_cube_is_the_value_given() -> None:
    planes = nine_planes(np.ones((30, 30, 30)), outside=0.25)
    assert (planes[:, 0, 0] == 0.25).all()
    np.testing.assert_allclose(planes[:, 25, 25], 1.0, atol=1e-6)
    compat = nine_planes(np.ones((30, 30, 30)), mode="compat", outside=0.25)
    assert (compat[:, 0, 0] == 0.25).all()


def linear_volume(spacing: tuple[float, float, float]) -> Volume:
    grid = Geometry.from_axes((60, 140, 140), spacing, origin_xyz_mm=(3, -5, 8))
    index = np.stack(np.indices(grid.shape_zyx), axis=-1)
    return Volume((grid.index_to_world(index) @ (1.0, -2.0, 3.0)).astype(np.float32), grid)


@pytest.mark.parametrize("order", [1, 3])
def test_planes_straight_from_a_scan_lie_where_those_of_its_cube_do(order: int) -> None:
    volume = linear_volume((2.5, 0.7, 0.7))
    center = np.add(volume.geometry.center_xyz_mm, (1.23, -2.1, 0.77)).tolist()
    straight = nine_planes_of_volume(volume, center, order=order)
    assert straight.dtype == np.float32
    through = nine_planes(nodule_cube(volume, center, side_mm=50), order=1)
    np.testing.assert_allclose(straight, through, atol=2e-2)


def test_planes_straight_from_a_scan_have_air_outside() -> None:
    volume = linear_volume((1.0, 0.7, 0.7))
    corner = volume.geometry.origin_xyz_mm
    planes = nine_planes_of_volume(volume, corner, pixels=11, pixel_mm=2.0)
    assert (planes[0, 0] == -1000).all()
    with pytest.raises(GeometryError, match="outside the volume"):
        nine_planes_of_volume(volume, (999, 0, 0))


def test_torch_samples_a_batch_through_the_grids(smooth: np.ndarray) -> None:
    torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")
    torch.set_num_threads(1)
    cubes = np.stack([smooth, smooth[::-1]])[:, None].astype(np.float32)
    grid = torch.as_tensor(torch_grid(plane_points(mode="compat"), 100))[None].expand(2, -1, -1, -1, -1)
    found = torch.nn.functional.grid_sample(torch.as_tensor(cubes.copy()), grid, align_corners=True)
    assert found.shape == (2, 1, 9, 50, 50)
    for cube, planes in zip(cubes, found.numpy(), strict=True):
        np.testing.assert_allclose(planes[0], nine_planes(cube[0], mode="compat", order=1), atol=1e-5)


@pytest.mark.parametrize(("pixels", "wanted"), [(50, 224), (50, 64), (48, 224), (7, 50), (50, 50), (50, 25), (33, 101)])
def test_zoom_is_scipys(pixels: int, wanted: int) -> None:
    planes = np.random.default_rng(0).random((3, pixels, pixels)).astype(np.float32)
    theirs = np.stack([ndimage.zoom(p.astype(np.float64), wanted / pixels, order=1, mode="nearest") for p in planes])
    found = zoom_planes(planes, wanted)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, theirs, atol=1e-6)


def test_zoom_to_224_is_the_published_call() -> None:
    plane = np.random.default_rng(0).random((50, 50)).astype(np.float32)
    np.testing.assert_allclose(zoom_planes(plane), ndimage.zoom(plane, 224 / 50, order=1), atol=1e-6)


def test_clip_channels() -> None:
    planes = np.random.default_rng(0).random((9, 5, 5)).astype(np.float32)
    found = clip_normalized(planes)
    assert found.shape == (9, 3, 5, 5)
    assert found.dtype == np.float32
    for channel in range(3):
        np.testing.assert_allclose(found[:, channel] * CLIP_STD[channel] + CLIP_MEAN[channel], planes, atol=1e-6)


def test_bad_arguments_are_refused() -> None:
    cube = np.zeros((20, 20, 20))
    with pytest.raises(InputError, match="a cube"):
        nine_planes(np.zeros((20, 20, 21)))
    with pytest.raises(InputError, match="'exact' or 'compat'"):
        nine_planes(cube, mode="fast")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="trilinear"):
        nine_planes(cube, order=2)
    with pytest.raises(InputError, match=r"\[9, 2\]"):
        nine_planes(cube, jitter=[1, 2])
    with pytest.raises(InputError, match="none in compat mode"):
        nine_planes(cube, mode="compat", center_zyx=(1, 2, 3))
    with pytest.raises(InputError, match="positive numbers"):
        nine_planes(cube, pixels=0)
    with pytest.raises(InputError, match="three finite numbers"):
        nine_planes(cube, center_zyx=(1, np.nan, 3))
