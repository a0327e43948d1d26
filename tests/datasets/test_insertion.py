from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spicula.core.errors import GeometryError, InputError
from spicula.core.finding import Finding
from spicula.core.geometry import Geometry
from spicula.core.volume import Acquisition, Mask, Volume
from spicula.datasets import lidc_nodules
from spicula.datasets.insertion import (
    insert_nodule,
    insertion_places,
    random_orientation,
    slices_beyond,
    wall_direction,
)

AT = (3.0, -4.0, 21.0)


def small_volume(radius_mm: float = 6.0, spacing: tuple[float, ...] = (1.0, 0.7, 0.7)) -> tuple[Volume, Mask]:
    shape = tuple(round(32 / s) for s in spacing)
    grid = Geometry.from_axes(shape, spacing, origin_xyz_mm=(100, 50, -20))
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    points = grid.index_to_world(np.stack(axes, axis=-1))
    inside = np.linalg.norm(points - grid.center_xyz_mm, axis=-1) < radius_mm
    return Volume(np.where(inside, 40, -850).astype(np.int16), grid), Mask(inside, grid)


def empty_scan(spacing: tuple[float, ...] = (2.5, 0.8, 0.8), direction: object = None) -> Volume:
    shape = tuple(round(70 / s) for s in spacing)
    grid = Geometry.from_axes(shape, spacing, direction_xyz=direction)  # type: ignore[arg-type]
    shift = np.asarray(AT) - grid.center_xyz_mm
    grid = Geometry.from_axes(shape, spacing, direction_xyz=direction, origin_xyz_mm=shift)  # type: ignore[arg-type]
    return Volume(np.full(shape, -860, dtype=np.int16), grid)


@pytest.mark.parametrize("direction", [None, np.diag([-1.0, -1.0, 1.0]), np.eye(3)[[2, 0, 1]]])
def test_volume_and_center_are_kept_on_any_grid(direction: object) -> None:
    nodule, mask = small_volume()
    scan = empty_scan(direction=direction)
    turn = random_orientation(np.random.default_rng(5))
    after, truth = insert_nodule(
        scan, nodule, mask, at_xyz_mm=AT, nodule_center_xyz_mm=nodule.geometry.center_xyz_mm, orientation=turn
    )
    assert after.array_zyx.dtype == scan.array_zyx.dtype
    assert after.geometry == scan.geometry
    assert truth.volume_mm3 == pytest.approx(mask.volume_mm3, rel=0.05)
    middle = truth.geometry.index_to_world(np.argwhere(truth.array_zyx)).mean(axis=0)
    np.testing.assert_allclose(middle, AT, atol=0.3)
    mass = (after.array_zyx.astype(float) + 860).sum() * scan.geometry.voxel_volume_mm3
    assert mass == pytest.approx(900 * mask.volume_mm3, rel=0.06)


def test_nothing_changes_beyond_the_feather() -> None:
    nodule, mask = small_volume()
    scan = empty_scan()
    before = scan.array_zyx.copy()
    after, _ = insert_nodule(scan, nodule, mask, at_xyz_mm=AT, nodule_center_xyz_mm=nodule.geometry.center_xyz_mm)
    changed = scan.geometry.index_to_world(np.argwhere(after.array_zyx != before))
    assert np.linalg.norm(changed - AT, axis=1).max() < 6 + 4 + 2.5
    np.testing.assert_array_equal(scan.array_zyx, before)


def test_identity_on_its_own_grid_gives_the_nodule_back() -> None:
    nodule, mask = small_volume()
    center = nodule.geometry.center_xyz_mm
    lung = Volume(np.full_like(nodule.array_zyx, -850), nodule.geometry)
    after, truth = insert_nodule(lung, nodule, mask, at_xyz_mm=center, nodule_center_xyz_mm=center)
    np.testing.assert_array_equal(after.array_zyx, nodule.array_zyx)
    assert truth.volume_mm3 == mask.volume_mm3


def test_a_truncated_nodule_ends_softly_and_grows_by_less_than_a_slice() -> None:
    nodule, mask = small_volume()
    z = np.flatnonzero(mask.array_zyx.any(axis=(1, 2)))
    start, stop = (int(z[0]), 0, 0), (int(z[-1]) + 1, *nodule.array_zyx.shape[1:])
    cut = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    grid = nodule.geometry.crop(start, stop)
    short, short_mask = Volume(nodule.array_zyx[cut], grid), Mask(mask.array_zyx[cut], grid)
    assert slices_beyond(short_mask) == (0, 0)
    fine = empty_scan(spacing=(1.0, 0.7, 0.7))
    whole, _ = insert_nodule(fine, nodule, mask, at_xyz_mm=AT, nodule_center_xyz_mm=nodule.geometry.center_xyz_mm)
    ended, _ = insert_nodule(fine, short, short_mask, at_xyz_mm=AT, nodule_center_xyz_mm=nodule.geometry.center_xyz_mm)
    assert np.abs(whole.array_zyx - ended.array_zyx).max() <= 15


def test_thick_slices_average_the_nodule() -> None:
    nodule, mask = small_volume(radius_mm=3)
    thick = empty_scan(spacing=(8.0, 0.7, 0.7))
    after, _ = insert_nodule(thick, nodule, mask, at_xyz_mm=AT, nodule_center_xyz_mm=nodule.geometry.center_xyz_mm)
    assert -500 < after.array_zyx.max() < -50


def test_slice_thickness_counts_where_slices_overlap() -> None:
    nodule, mask = small_volume(radius_mm=3)
    scan = empty_scan(spacing=(1.0, 0.7, 0.7))
    thick = Volume(scan.array_zyx, scan.geometry, acquisition=Acquisition(slice_thickness_mm=5.0))
    kwargs = {"at_xyz_mm": AT, "nodule_center_xyz_mm": nodule.geometry.center_xyz_mm}
    thin_max = insert_nodule(scan, nodule, mask, **kwargs)[0].array_zyx.max()
    assert insert_nodule(thick, nodule, mask, **kwargs)[0].array_zyx.max() <= thin_max


def test_the_wall_is_found_and_left_behind() -> None:
    nodule, mask = small_volume()
    walled = nodule.array_zyx.copy()
    walled[:, :, 30:] = 50
    volume = Volume(walled, nodule.geometry)
    direction = wall_direction(volume, mask)
    assert direction is not None
    np.testing.assert_allclose(direction, (1, 0, 0), atol=0.15)
    assert wall_direction(nodule, mask) is None
    after, truth = insert_nodule(
        empty_scan((1.0, 0.7, 0.7)), volume, mask, at_xyz_mm=AT, nodule_center_xyz_mm=volume.geometry.center_xyz_mm
    )
    tissue = np.count_nonzero(after.array_zyx > -500) * after.geometry.voxel_volume_mm3
    assert tissue < 1.4 * truth.volume_mm3


def test_places_keep_away_and_are_seeded() -> None:
    scan = empty_scan(spacing=(2.0, 2.0, 2.0))
    inside = np.zeros(scan.geometry.shape_zyx, dtype=bool)
    inside[3:-3, 3:-3, 3:-3] = True
    array = np.where(inside, -860, 40).astype(np.int16)
    scan, lungs = Volume(array, scan.geometry), Mask(inside, scan.geometry)
    known = Finding("k", center_xyz_mm=(AT[0] + 20, AT[1], AT[2]), diameter_mm=10)
    kwargs = {"count": 3, "radius_mm": 5.0, "avoid": (known,), "apart_mm": 10.0}
    places = insertion_places(scan, lungs, seed=1, **kwargs)
    assert places == insertion_places(scan, lungs, seed=1, **kwargs)
    assert places != insertion_places(scan, lungs, seed=2, **kwargs)
    assert len(places) == 3
    assert all(np.linalg.norm(np.subtract(p, known.center_xyz_mm)) > 22 for p in places)
    at_wall = insertion_places(scan, lungs, seed=1, count=5, radius_mm=5.0, wall_xyz=np.array([1.0, 0, 0]))
    edge = scan.geometry.index_to_world((0, 0, inside.shape[2] - 4))[0]
    assert all(abs(edge - p[0] - 5) < 4 for p in at_wall)
    with pytest.raises(InputError, match="room"):
        insertion_places(scan, lungs, seed=1, count=1, radius_mm=40.0)


def test_bad_arguments_are_refused() -> None:
    nodule, mask = small_volume()
    scan = empty_scan()
    with pytest.raises(GeometryError, match="inside the scan"):
        insert_nodule(scan, nodule, mask, at_xyz_mm=(900, 0, 0), nodule_center_xyz_mm=nodule.geometry.center_xyz_mm)
    with pytest.raises(InputError, match="outline"):
        insert_nodule(
            scan, nodule, Mask(np.zeros_like(mask.array_zyx), mask.geometry), at_xyz_mm=AT, nodule_center_xyz_mm=AT
        )


@pytest.mark.shared
def test_real_nodules_keep_their_volume(shared: Path) -> None:
    root = shared / "lidc_nodules"
    for case in lidc_nodules.load_cases(root)[::200]:
        nodule, mask = case.load_volume(), lidc_nodules.load_mask(root, case.case_id)
        _, truth = insert_nodule(
            empty_scan((1.0, 0.7, 0.7)), nodule, mask, at_xyz_mm=AT, nodule_center_xyz_mm=case.findings[0].center_xyz_mm
        )
        assert truth.volume_mm3 == pytest.approx(mask.volume_mm3, rel=0.15), case.case_id
