from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spicula.core.errors import GeometryError, InputError
from spicula.core.finding import Size
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_nodules
from spicula.measure.size import axial_axes, axial_axis, measure_size, nodule_density, sphere_diameter_mm


def _ellipsoid(grid: Geometry, semi_xyz_mm, *, center=(0.0, 0.0, 0.0), turn: float = 0.0) -> Mask:
    """An ellipsoid with semi-axes along x, y, z, turned about z."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape_zyx), indexing="ij"), axis=-1)
    place = grid.index_to_world(index) - center
    place = place @ Rotation.from_euler("z", turn).as_matrix()
    return Mask(((place / semi_xyz_mm) ** 2).sum(axis=-1) < 1, grid)


def _grid(spacing=(2.0, 0.7, 0.7), size_mm: float = 44.0, direction=None) -> Geometry:
    shape = [int(size_mm / s) for s in spacing]
    extent = np.array([(n - 1) * s for n, s in zip(shape, spacing, strict=True)])[::-1]
    direction = np.eye(3) if direction is None else direction
    return Geometry.from_axes(shape, spacing, origin_xyz_mm=-(direction @ extent) / 2, direction_xyz=direction)


@given(
    st.floats(4, 30), st.floats(0, 1), st.floats(0, 1), st.sampled_from([(1.0, 1.0), (0.6, 0.6), (0.6, 0.9)])
)  # fmt: skip
@example(6.34375, 0.0, 0.0, (1.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_a_disk_measures_its_diameter(diameter: float, dy: float, dx: float, spacing: tuple[float, float]) -> None:
    grid = Geometry.from_axes((1, 70, 70), (2.0, *spacing), origin_xyz_mm=(-35 * spacing[1], -35 * spacing[0], 0))
    mask = _ellipsoid(grid, (diameter / 2, diameter / 2, 9), center=(dx * spacing[1], dy * spacing[0], 0))
    axes = axial_axes(mask)
    voxel = max(spacing)
    assert axes.long_mm == pytest.approx(diameter, abs=1.1 * voxel)
    # A raster moves each edge by up to half a voxel; disks of 6.33 to 7.21 voxels on a voxel are even one and the same
    # mask. That there is no bias on average is the next test.
    assert axes.mean_mm == pytest.approx(diameter, abs=voxel)


def test_disks_measure_right_on_average() -> None:
    rng = np.random.default_rng(0)
    errors = []
    for diameter in np.linspace(4, 30, 120):
        grid = Geometry.from_axes((1, 50, 50), (2.0, 0.7, 0.7), origin_xyz_mm=(-17.5, -17.5, 0))
        mask = _ellipsoid(grid, (diameter / 2, diameter / 2, 9), center=(*rng.uniform(0, 0.7, 2), 0))
        errors.append((axial_axes(mask).mean_mm - diameter) / 0.7)
    assert abs(np.mean(errors)) < 0.2
    assert np.mean(np.abs(errors) < 0.5) > 0.95


@pytest.mark.parametrize("turn", [0.0, 0.4, 1.1, 2.0])
def test_an_ellipsoid_and_its_ends(turn: float) -> None:
    mask = _ellipsoid(_grid(), (15.0, 9.0, 12.0), turn=turn)
    axes = axial_axes(mask)
    assert axes.long_mm == pytest.approx(30, abs=0.8)
    assert axes.short_mm == pytest.approx(18, abs=0.8)
    (a, b), (c, d) = np.array(axes.long_ends_xyz_mm), np.array(axes.short_ends_xyz_mm)
    assert np.linalg.norm(b - a) == pytest.approx(axes.long_mm)
    assert np.linalg.norm(d - c) == pytest.approx(axes.short_mm)
    assert (b - a) @ (d - c) == pytest.approx(0, abs=1e-6)
    assert np.ptp([a[2], b[2], c[2], d[2]]) == pytest.approx(0, abs=1e-9)
    assert abs((b - a) @ [np.cos(turn), np.sin(turn), 0]) == pytest.approx(axes.long_mm, rel=0.02)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2)])
def test_stored_in_any_order_it_measures_the_same(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    mask = _ellipsoid(_grid((2.0, 0.6, 0.8)), (12.0, 7.0, 8.0), center=(1.1, -0.7, 0.3), turn=0.5)
    array, affine = mask.array_zyx, mask.geometry.affine_lps.copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
        affine[:3, axis] *= -1
        array = np.flip(array, axis)
    affine[:3, :3] = affine[:3, list(order)]
    other = Mask(np.ascontiguousarray(array.transpose(order)), Geometry(array.transpose(order).shape, affine))
    hu = np.where(mask.array_zyx, 30, -900).astype(np.int16)
    there = measure_size(Volume(hu, mask.geometry), mask)
    here = measure_size(Volume(np.where(other.array_zyx, 30, -900).astype(np.int16), other.geometry), other)
    assert other.array_zyx.ndim == 3
    assert (axial_axis(other.geometry), order[axial_axis(other.geometry)]) == (order.index(0), 0)
    for name in ("long_axis_mm", "short_axis_mm", "volume_mm3", "mean_hu", "solid_diameter_mm", "solid_volume_mm3"):
        assert getattr(here, name) == pytest.approx(getattr(there, name), rel=1e-6), name
    assert np.sort(np.array(here.long_axis_ends_xyz_mm), axis=0) == pytest.approx(
        np.sort(np.array(there.long_axis_ends_xyz_mm), axis=0), abs=1e-6
    )


def test_oblique_slices_are_true_millimeters() -> None:
    turned = Rotation.from_euler("xyz", [20, -15, 30], degrees=True).as_matrix()
    ball = _ellipsoid(_grid((2.0, 0.7, 0.9), direction=turned), (10.0, 10.0, 10.0))
    assert axial_axes(ball).mean_mm == pytest.approx(20, abs=0.6)
    assert axial_axis(ball.geometry) == 0


def test_no_slice_is_left_out() -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        array = rng.random((6, 9, 9)) < 0.3
        mask = Mask(array, Geometry.from_axes(array.shape, (2.0, 0.6, 0.9)))
        alone = [axial_axes(Mask(array[i : i + 1], mask.geometry.crop((i, 0, 0), (i + 1, 9, 9)))) for i in range(6)]
        assert axial_axes(mask).long_mm == pytest.approx(max(a.long_mm for a in alone))


def test_one_voxel_and_a_run_of_voxels() -> None:
    grid = Geometry.from_axes((1, 1, 1), (2.0, 0.5, 0.5))
    one = axial_axes(Mask(np.ones((1, 1, 1), bool), grid))
    assert (one.long_mm, one.short_mm) == pytest.approx((0.5, 0.5))
    run = axial_axes(Mask(np.ones((1, 1, 12), bool), Geometry.from_axes((1, 1, 12), (2.0, 0.5, 0.5))))
    assert run.long_mm == pytest.approx(6, abs=0.5)


def test_the_longest_slice_counts_not_the_projection() -> None:
    array = np.zeros((2, 30, 30), bool)
    array[0, 4:8, 4:14], array[1, 20:24, 10:26] = True, True
    axes = axial_axes(Mask(array, Geometry.from_axes(array.shape, (1, 1, 1))))
    assert axes.long_mm == pytest.approx(16, abs=1)
    assert axes.long_ends_xyz_mm[0][2] == 1


def test_solid_part_is_the_largest_connected() -> None:
    grid = _grid((1.0, 0.7, 0.7))
    whole = _ellipsoid(grid, (12.0, 12.0, 12.0))
    core = _ellipsoid(grid, (4.0, 4.0, 4.0), center=(2, 0, 0))
    speck = _ellipsoid(grid, (1.0, 1.0, 1.0), center=(-7, 0, 0))
    hu = np.full(grid.shape_zyx, -850, np.int16)
    hu[whole.array_zyx] = -600
    hu[core.array_zyx | speck.array_zyx] = 20
    size = measure_size(Volume(hu, grid), whole)
    assert size.solid_volume_mm3 == pytest.approx(core.volume_mm3)
    assert size.solid_diameter_mm == pytest.approx(8, abs=0.5)
    assert size.volume_mm3 == pytest.approx(whole.volume_mm3)
    assert size.mean_hu == pytest.approx(hu[whole.array_zyx].mean())
    assert nodule_density(size) == "part-solid"
    assert measure_size(Volume(hu, grid), whole, solid_hu=100).solid_diameter_mm == 0


def test_any_grid_of_the_mask() -> None:
    grid = _grid((1.0, 0.7, 0.7))
    whole = _ellipsoid(grid, (8.0, 6.0, 7.0))
    volume = Volume(np.where(whole.array_zyx, 10, -800).astype(np.float32), grid)
    expected = measure_size(volume, whole)
    box = Mask(whole.array_zyx[5:40, 10:60, 10:55], grid.crop((5, 10, 10), (40, 60, 55)))
    assert measure_size(volume, box) == expected
    other = _ellipsoid(_grid((0.8, 0.5, 0.5)), (8.0, 6.0, 7.0))
    size = measure_size(volume, other)
    assert size.mean_diameter_mm == pytest.approx(expected.mean_diameter_mm, abs=0.7)
    assert size.mean_hu == pytest.approx(expected.mean_hu, abs=60)


def test_beyond_the_volume() -> None:
    grid = _grid((1.0, 0.7, 0.7))
    whole = _ellipsoid(grid, (8.0, 8.0, 8.0))
    half = Volume(np.full((22, 62, 62), 40, np.int16), grid.crop((0, 0, 0), (22, 62, 62)))
    size = measure_size(half, whole)
    assert size.volume_mm3 == whole.volume_mm3
    assert size.mean_hu == 40
    far = Volume(half.array_zyx, Geometry(half.geometry.shape_zyx, _moved(half.geometry, 500)))
    with pytest.raises(GeometryError, match="RAS"):
        measure_size(far, whole)
    with pytest.raises(InputError, match="no voxel"):
        measure_size(half, Mask(np.zeros(grid.shape_zyx, bool), grid))
    with pytest.raises(InputError, match="no voxel"):
        axial_axes(Mask(np.zeros(grid.shape_zyx, bool), grid))


def _moved(grid: Geometry, mm: float) -> np.ndarray:
    affine = grid.affine_lps.copy()
    affine[0, 3] += mm
    return affine


def _size(volume: float, solid: float | None, *, solid_mm: float = 5.0) -> Size:
    end = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    return Size(10, 10, end, end, volume, -100.0, solid_mm, solid)


def test_density_limits() -> None:
    small, large = 100.0, 30000.0
    assert nodule_density(_size(large, 0.0799 * large, solid_mm=4.9)) == "ground-glass"
    assert nodule_density(_size(large, 0.0799 * large, solid_mm=5.0)) == "part-solid"
    assert nodule_density(_size(large, 0.0801 * large, solid_mm=4.9)) == "part-solid"
    assert nodule_density(_size(large, 0.499 * large)) == "part-solid"
    assert nodule_density(_size(large, 0.5 * large)) == "solid"
    edge = np.pi / 6 * (sphere_diameter_mm(small) - 3.0) ** 3
    assert nodule_density(_size(small, edge * 1.001)) == "solid"
    assert nodule_density(_size(small, edge * 0.999)) == "part-solid"
    assert nodule_density(_size(small, 0.0, solid_mm=0.0)) == "ground-glass"
    with pytest.raises(InputError, match="solid"):
        nodule_density(_size(1000, None))


@pytest.mark.shared
def test_the_known_nodule(shared: Path) -> None:
    root = shared / "lidc_nodules"
    (case,) = [
        c for c in lidc_nodules.load_cases(root, with_test_patient=True) if c.patient_id == lidc_nodules.TEST_PATIENT
    ]
    size = measure_size(case.load_volume(), lidc_nodules.load_mask(root, case.case_id))
    # The readers: 32.8 x 26.5 mm, mean 29.6 mm, about 7,500 mm3.
    assert size.mean_diameter_mm == pytest.approx(29.6, rel=0.02)
    assert size.long_axis_mm == pytest.approx(32.8, rel=0.05)
    assert size.short_axis_mm == pytest.approx(26.5, rel=0.06)
    assert size.volume_mm3 == pytest.approx(7500, rel=0.10)
    assert nodule_density(size) == "solid"


@pytest.mark.shared
def test_density_agrees_with_the_readers(shared: Path) -> None:
    root = shared / "lidc_nodules"
    names = {1.0: "ground-glass", 5.0: "solid"}
    right, total = (
        dict.fromkeys(("ground-glass", "part-solid", "solid"), 0),
        dict.fromkeys(("ground-glass", "part-solid", "solid"), 0),
    )
    for case in lidc_nodules.load_cases(root)[::6]:
        truth = names.get(case.findings[0].truth["texture"], "part-solid")
        size = measure_size(case.load_volume(), lidc_nodules.load_mask(root, case.case_id))
        total[truth] += 1
        right[truth] += nodule_density(size) == truth
    assert right["solid"] / total["solid"] > 0.85
    assert right["ground-glass"] / total["ground-glass"] > 0.7
    assert sum(right.values()) / sum(total.values()) > 0.8
