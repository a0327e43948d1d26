"""Boxes around an outline that do not tell where a volume ends."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicula.core.errors import GeometryError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_nodules
from spicula.formats.scans import read_volume
from spicula.transforms.fade import BACKGROUND_HU, FAR_MM, faded, reach_mm
from spicula.transforms.nine_planes import nine_planes_of_volume
from spicula.transforms.nodule_cube import nodule_cube, window
from spicula.transforms.resample import to_lps_axes


def scene(radius_mm: float = 7.0, *, direction: np.ndarray | None = None) -> tuple[Volume, Mask, tuple[int, ...]]:
    """A textured scan of 2 mm slices with a ball in it; the last is the ball's first and last index by axis."""
    grid = Geometry.from_axes((30, 60, 64), (2.0, 0.8, 0.8), origin_xyz_mm=(5, -9, 70), direction_xyz=direction)
    away = (np.stack(np.indices(grid.shape_zyx), axis=-1) - (14.3, 29.1, 32.6)) * grid.spacing_zyx_mm
    inside = (away**2).sum(axis=-1) <= radius_mm**2
    texture = np.random.default_rng(0).normal(0, 150, grid.shape_zyx)
    hu = (np.where(inside, 30, -820) + texture).astype(np.int16)
    index = np.argwhere(inside)
    return Volume(hu, grid), Mask(inside, grid), (*index.min(axis=0), *index.max(axis=0))


def cut(volume: Volume, start: list[int], stop: list[int]) -> Volume:
    region = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return Volume(volume.array_zyx[region], volume.geometry.crop(start, stop))


@given(
    st.tuples(st.integers(0, 5), st.integers(0, 5)), st.lists(st.integers(4, 12), min_size=4, max_size=4), st.booleans()
)
@settings(max_examples=25, deadline=None)
def test_a_small_volume_of_any_depth_gives_the_same_cube(
    beyond: tuple[int, int], sides: list[int], flipped: bool
) -> None:
    volume, mask, box = scene(direction=np.diag([-1.0, -1, 1]) if flipped else None)
    start = [int(box[0]) - beyond[0], int(box[1]) - sides[0], int(box[2]) - sides[1]]
    stop = [int(box[3]) + 1 + beyond[1], int(box[4]) + 1 + sides[2], int(box[5]) + 1 + sides[3]]
    small = cut(volume, start, stop)
    assert reach_mm(small, mask)[0] >= FAR_MM
    whole, part = faded(volume, mask), faded(small, mask)
    np.testing.assert_array_equal(part.array_zyx, whole.array_zyx)
    np.testing.assert_allclose(part.geometry.affine_lps, whole.geometry.affine_lps, atol=1e-9)
    center = mask.geometry.index_to_world(np.argwhere(mask.array_zyx)).mean(axis=0).tolist()
    cubes = [nodule_cube(v, center, side_mm=30, outside_hu=BACKGROUND_HU) for v in (whole, part)]
    np.testing.assert_allclose(cubes[1], cubes[0], atol=1e-3)


@pytest.mark.shared
def test_a_real_scan_and_its_small_volume_give_the_same_cube(shared: Path, tmp_path: Path) -> None:
    with tarfile.open(shared / "scans" / "LIDC-IDRI-0001.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    scan = read_volume(tmp_path)
    small = read_volume(shared / "lidc_nodules" / "image" / "LIDC-IDRI-0001_1.nii.gz")
    mask = lidc_nodules.load_mask(shared / "lidc_nodules", "LIDC-IDRI-0001_1")
    center = (56.20840547, 86.34341278, -115.8675792)
    box = mask.array_zyx.any(axis=(1, 2)).nonzero()[0]
    none_beyond = cut(small, [int(box[0]), 0, 0], [int(box[-1]) + 1, *small.array_zyx.shape[1:]])
    whole = faded(scan, mask)
    cube = nodule_cube(whole, center, outside_hu=BACKGROUND_HU)
    planes = window(nine_planes_of_volume(whole, center, outside_hu=BACKGROUND_HU))
    assert np.ptp(cube[45:55, 45:55, 45:55]) > 50
    for volume in (small, none_beyond):
        part = faded(volume, mask)
        np.testing.assert_allclose(nodule_cube(part, center, outside_hu=BACKGROUND_HU), cube, atol=1e-2)
        found = window(nine_planes_of_volume(part, center, outside_hu=BACKGROUND_HU))
        np.testing.assert_allclose(found, planes, atol=1e-5)
    unlike = np.abs(nodule_cube(small, center) - nodule_cube(scan, center))
    assert unlike.max() > 500  # without it, the ends show


@pytest.mark.shared
def test_every_small_volume_goes_on_far_enough_in_the_plane(shared: Path) -> None:
    root = shared / "lidc_nodules"
    cases = lidc_nodules.load_cases(root, with_test_patient=True)[::40]
    ways = [reach_mm(case.load_volume(), lidc_nodules.load_mask(root, case.case_id)) for case in cases]
    assert min(way for way, _ in ways) >= FAR_MM
    assert min(depth for _, depth in ways) == 0


def test_the_outline_and_what_is_near_stay() -> None:
    volume, mask, _ = scene()
    box = faded(volume, mask, near_mm=2.0, far_mm=5.0)
    start = np.rint(volume.geometry.world_to_index(box.geometry.origin_xyz_mm)).astype(int)
    region = tuple(slice(a, a + n) for a, n in zip(start, box.array_zyx.shape, strict=True))
    inside = mask.array_zyx[region]
    np.testing.assert_array_equal(box.array_zyx[inside], volume.array_zyx[region][inside])
    for face in (box.array_zyx[0], box.array_zyx[-1], box.array_zyx[:, 0], box.array_zyx[:, :, -1]):
        assert (face == BACKGROUND_HU).all()


def test_slices_beyond_the_outline_are_seen_only_on_demand() -> None:
    volume, mask, _ = scene()
    closed, open_ = faded(volume, mask, far_mm=6.0), faded(volume, mask, far_mm=6.0, through=True)
    depth = np.ptp(np.argwhere(mask.array_zyx)[:, 0]) + 1
    assert (closed.array_zyx != BACKGROUND_HU).any(axis=(1, 2)).sum() == depth
    assert (open_.array_zyx != BACKGROUND_HU).any(axis=(1, 2)).sum() > depth


def test_what_a_volume_lacks_is_background() -> None:
    volume, mask, box = scene()
    small = cut(volume, [int(b) for b in box[:3]], [int(b) + 1 for b in box[3:]])
    found = faded(small, mask)
    assert found.array_zyx.shape == faded(volume, mask).array_zyx.shape
    assert (found.array_zyx[:, :3] == BACKGROUND_HU).all()
    assert reach_mm(small, mask) == (0.0, 0.0)


def test_an_outline_on_another_grid_may_be_thinner_than_a_voxel() -> None:
    volume, _, _ = scene()
    place = volume.geometry.index_to_world((10.2, 20.3, 30.4))
    grid = Geometry.from_axes((1, 1, 1), (0.2, 0.2, 0.2), origin_xyz_mm=place.tolist())
    box = faded(volume, Mask(np.ones((1, 1, 1), bool), grid))
    assert (box.array_zyx != BACKGROUND_HU).any()
    assert to_lps_axes(box) is box


def test_bad_arguments_are_refused() -> None:
    volume, mask, _ = scene()
    with pytest.raises(GeometryError, match="empty outline"):
        faded(volume, Mask(np.zeros_like(mask.array_zyx), mask.geometry))
    with pytest.raises(GeometryError, match="near_mm < far_mm"):
        faded(volume, mask, near_mm=4, far_mm=4)
