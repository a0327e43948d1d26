"""Slices through a nodule: the same as those that the transformer learned from, whatever the axes of the scan."""

from __future__ import annotations

import numpy as np
import pytest

from spicula.core.errors import GeometryError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.pipelines import slice_table
from spicula.transforms import nodule_slices as cut
from spicula.transforms.planes import BACKGROUND_HU

CENTER = (3.1, -4.2, 10.3)


def nodule(spacing=(1.25, 0.6, 0.6), radius=7.0, *, array=None):
    """A ball in noise, with its outline on a part of the grid."""
    shape = (40, 180, 170)
    origin = np.array(CENTER) - (np.array(shape[::-1]) - 1) / 2 * spacing[::-1]
    grid = Geometry.from_axes(shape, spacing, origin_xyz_mm=origin.tolist())
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    inside = np.linalg.norm(grid.index_to_world(index) - CENTER, axis=-1) <= radius
    hu = np.where(inside, 40, -850) + np.random.default_rng(0).normal(0, 60, shape)
    places = np.argwhere(inside)
    start, stop = places.min(axis=0) - 1, places.max(axis=0) + 2
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return Volume(hu.astype(np.int16), grid), Mask(inside[box], grid.crop(start.tolist(), stop.tolist()))


def test_a_slice_is_cut_as_for_the_table():
    volume, mask = nodule()
    found, largest = cut.nodule_slices(volume, mask, most=100)
    assert len(found) == np.count_nonzero(mask.array_zyx.any(axis=(1, 2)))
    first = round(float(volume.geometry.world_to_index(mask.geometry.origin_xyz_mm)[0]))
    _, rows, columns = volume.geometry.shape_zyx
    for number, one in enumerate(found):
        at = first + 1 + number
        flat = Volume(volume.array_zyx[at : at + 1], volume.geometry.crop((at, 0, 0), (at + 1, rows, columns)))
        part = Mask(mask.array_zyx[1 + number : 2 + number],
                    mask.geometry.crop((1 + number, 0, 0), (2 + number, *mask.array_zyx.shape[1:])))  # fmt: skip
        hu, near = slice_table.kept(cut.slice_about(flat, part))
        np.testing.assert_allclose(one.hu, hu, atol=1e-5)
        np.testing.assert_allclose(one.near, near.astype(np.float32) / 255, atol=1e-6)
    areas = [one.inside.sum() for one in found]
    assert areas[largest] == max(areas)
    assert areas[largest] * cut.PIXEL_MM**2 == pytest.approx(np.pi * 49, rel=0.03)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_order_and_direction_of_axes_do_not_matter(order):
    volume, mask = nodule()
    affine = volume.geometry.affine_lps.copy()
    array = volume.array_zyx[:, ::-1]
    affine[:3, 3] += affine[:3, 1] * (array.shape[1] - 1)
    affine[:3, 1] *= -1
    affine[:3, :3] = affine[:3, list(order)]
    turned = Volume(array.transpose(order), Geometry(array.transpose(order).shape, affine))
    (one, at), (two, again) = (cut.nodule_slices(some, mask) for some in (volume, turned))
    assert (len(one), at) == (len(two), again)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a.geometry.affine_lps, b.geometry.affine_lps, atol=1e-9)
        assert np.mean(a.hu != b.hu) < 1e-3
        np.testing.assert_allclose(a.near, b.near, atol=0.005)


def test_a_tilted_scan_is_cut_along_its_own_slices():
    volume, mask = nodule()
    shear = np.eye(4)
    shear[2, 1] = 0.3  # the table moves on along z while the slices lean
    tilted = Volume(volume.array_zyx, Geometry(volume.geometry.shape_zyx, shear @ volume.geometry.affine_lps))
    leaning = Mask(mask.array_zyx, Geometry(mask.geometry.shape_zyx, shear @ mask.geometry.affine_lps))
    straight, upright = (cut.nodule_slices(*some)[0] for some in ((volume, mask), (tilted, leaning)))
    assert len(straight) == len(upright)
    for a, b in zip(straight, upright, strict=True):
        assert b.inside.sum() == pytest.approx(a.inside.sum() * np.hypot(1, 0.3), rel=0.06)
        assert b.hu[b.inside].mean() == pytest.approx(40, abs=60)
        assert b.alone[~b.inside].mean() == pytest.approx(BACKGROUND_HU, abs=10)


def test_alone_hides_what_is_farther_than_its_margin():
    volume, mask = nodule()
    other = Volume(np.where(volume.array_zyx < -400, np.int16(300), volume.array_zyx), volume.geometry)
    one, two = (cut.nodule_slices(some, mask)[0][0] for some in (volume, other))
    assert (one.near == 0).mean() > 0.8
    assert (one.alone[one.near == 0] == BACKGROUND_HU).all()
    np.testing.assert_array_equal(one.alone[one.near == 0], two.alone[two.near == 0])


def test_the_middle_keeps_its_place():
    volume, mask = nodule()
    one = cut.nodule_slices(volume, mask)[0][0]
    part = one.middle(70)
    np.testing.assert_allclose(part.geometry.center_xyz_mm, one.geometry.center_xyz_mm, atol=1e-9)
    np.testing.assert_array_equal(part.hu, one.hu[21:91, 21:91])
    with pytest.raises(GeometryError, match="side in pixels"):
        one.middle(113)


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 9, 31])
def test_chosen_slices_are_few_rising_spread_and_hold_the_largest(most, count):
    area = [0, 0, *np.random.default_rng(count).permutation(np.arange(1, count + 1)).tolist(), 0]
    chosen = cut.evenly_chosen(area, most)
    assert len(chosen) == min(most, count)
    assert chosen == sorted(set(chosen))
    assert int(np.argmax(area)) in chosen
    assert all(area[index] > 0 for index in chosen)
    if most > 1 and count > most:
        assert max(np.diff(chosen)) <= 2 * -(-count // most)


def test_an_outline_thinner_than_a_slice_is_seen():
    volume, _ = nodule((5.0, 0.6, 0.6))
    grid = Geometry.from_axes((1, 3, 3), (0.5, 0.2, 0.2), origin_xyz_mm=(3.1, -4.2, 10.7))
    found, largest = cut.nodule_slices(volume, Mask(np.ones((1, 3, 3), dtype=bool), grid))
    assert (len(found), largest) == (1, 0)
    assert np.isfinite(found[0].hu).all()


def test_an_outline_at_the_end_of_the_volume():
    volume, mask = nodule()
    half = Volume(volume.array_zyx[:20], volume.geometry.crop((0, 0, 0), (20, *volume.geometry.shape_zyx[1:])))
    found, _ = cut.nodule_slices(half, mask)
    assert all(one.hu.shape == (112, 112) for one in found)


def test_what_is_refused():
    volume, mask = nodule()
    with pytest.raises(GeometryError, match="empty outline"):
        cut.nodule_slices(volume, Mask(np.zeros_like(mask.array_zyx), mask.geometry))
    with pytest.raises(GeometryError, match="slices at most"):
        cut.nodule_slices(volume, mask, most=0)
