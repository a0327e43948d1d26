from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets.phantom import LUNG_CENTERS, LUNG_RADII, Ball, thorax, thorax_grid
from spicula.formats import read_volume
from spicula.measure.lungs import lung_hulls, segment_lungs, split_sides

GRID = thorax_grid((3.0, 2.5, 2.5))
LUNGS_MM3 = 2 * 4 / 3 * np.pi * float(np.prod(LUNG_RADII))


def value_at(mask: Mask, point: tuple[float, float, float]) -> bool:
    z, y, x = np.rint(mask.geometry.world_to_index(point)).astype(int)
    return bool(mask.array_zyx[z, y, x])


def stored(volume: Volume, order: tuple[int, ...], flips: tuple[int, ...]) -> Volume:
    """The same scan with its array axes in another order and direction."""
    array = volume.array_zyx.transpose(order)
    affine = volume.geometry.affine_lps.copy()
    affine[:3, :3] = affine[:3, order]
    corner = [0, 0, 0]
    for axis in flips:
        corner[axis] = array.shape[axis] - 1
    affine[:3, 3] += affine[:3, :3] @ corner
    affine[:3, list(flips)] *= -1
    return Volume(np.ascontiguousarray(np.flip(array, flips)), Geometry(array.shape, affine))


def test_both_lungs_and_nothing_else() -> None:
    lungs = segment_lungs(thorax(GRID))
    assert lungs.volume_mm3 == pytest.approx(LUNGS_MM3, rel=0.06)
    assert all(value_at(lungs, center) for center in LUNG_CENTERS)
    assert not value_at(lungs, (0, -10, 0)), "the windpipe"
    assert not value_at(lungs, (0, -110, 0)), "air before the chest"
    assert not value_at(lungs, (0, 80, 0)), "the spine"


@pytest.mark.parametrize(("order", "flips"), [((0, 1, 2), (1, 2)), ((2, 0, 1), (0,)), ((1, 2, 0), ())])
def test_the_way_the_array_is_stored_does_not_matter(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    volume = thorax(GRID)
    expected, found = segment_lungs(volume), segment_lungs(stored(volume, order, flips))
    np.testing.assert_array_equal(found.array_zyx, expected.array_zyx)
    np.testing.assert_allclose(found.geometry.affine_lps, expected.geometry.affine_lps, atol=1e-9)


def test_a_nodule_at_the_wall_lies_in_the_lungs() -> None:
    at_wall = Ball((-75.0 - LUNG_RADII[0] + 5, 0.0, 0.0), 14.0)
    lungs = segment_lungs(thorax(GRID, balls=[at_wall]))
    assert value_at(lungs, (at_wall.center_xyz_mm[0] + 3, 0.0, 0.0))


def test_a_mass_at_the_wall_lies_in_the_hull() -> None:
    mass = Ball((75.0, LUNG_RADII[1] - 15, 0.0), 60.0)
    lungs = segment_lungs(thorax(GRID, balls=[mass]))
    hulls = lung_hulls(lungs)
    assert not (lungs.array_zyx & ~hulls.array_zyx).any()
    assert value_at(hulls, (75.0, LUNG_RADII[1] - 25, 0.0))
    assert value_at(hulls, (60.0, LUNG_RADII[1] - 30, 0.0))


def test_sides_are_apart() -> None:
    lungs = segment_lungs(thorax(GRID))
    right, left = split_sides(lungs.array_zyx)
    assert not (right & left).any()
    np.testing.assert_array_equal(right | left, lungs.array_zyx)
    assert right.sum() == pytest.approx(left.sum(), rel=0.02)


@pytest.mark.parametrize("kind", ["abdomen", "all tissue", "all air", "MR"])
def test_no_lungs_is_an_error(kind: str) -> None:
    volume = thorax(GRID, lungs=False)
    array = {
        "abdomen": volume.array_zyx,
        "all tissue": np.full_like(volume.array_zyx, 40),
        "all air": np.full_like(volume.array_zyx, -1000),
        "MR": np.abs(volume.array_zyx),
    }[kind]
    with pytest.raises(InputError, match="no lungs found"):
        segment_lungs(Volume(array, GRID))


def test_gas_of_the_gut_is_no_lung() -> None:
    gut = [Ball((x, -30.0, 0.0), 60.0, hu=-1000.0) for x in (-70.0, 0.0, 70.0)]
    with pytest.raises(InputError, match="no lungs found"):
        segment_lungs(thorax(GRID, lungs=False, balls=gut))


@pytest.mark.shared
def test_agrees_with_a_plain_peer_on_a_real_scan(shared: Path, tmp_path: Path) -> None:
    import tarfile

    from scipy.ndimage import binary_fill_holes
    from skimage.measure import label, regionprops
    from skimage.morphology import isotropic_closing
    from skimage.segmentation import clear_border

    with tarfile.open(shared / "scans" / "LIDC-IDRI-0001.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    volume = read_volume(tmp_path)
    ours = segment_lungs(volume, spacing_mm=2.0)
    z, y, x = (round(a / b) for a, b in zip(ours.geometry.spacing_zyx_mm, volume.geometry.spacing_zyx_mm, strict=True))
    small = volume.array_zyx[z // 2 :: z, y // 2 :: y, x // 2 :: x]
    small = small[tuple(slice(n) for n in ours.array_zyx.shape)]
    air = np.stack([clear_border(plane < -400) for plane in small])
    regions = sorted(regionprops(label(air, connectivity=1)), key=lambda r: -r.area)[:2]
    peer = np.zeros_like(air)
    for region in regions:
        if region.area > 0.1 * regions[0].area:
            peer[tuple(region.coords.T)] = True
    peer = np.stack([binary_fill_holes(plane) for plane in isotropic_closing(peer, 4)])
    overlap = 2 * (peer & ours.array_zyx).sum() / (peer.sum() + ours.array_zyx.sum())
    assert overlap > 0.96
