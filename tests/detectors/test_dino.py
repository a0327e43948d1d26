from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spicula.core.bundle import write_bundle
from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets.phantom import Ball, thorax, thorax_grid
from spicula.detectors.dino import (
    Heads,
    Peaks,
    View,
    cut_slices,
    detect,
    link_peaks,
    load_detector,
    one_box_a_slice,
    split_channels,
)
from spicula.transforms.imagenet import MEAN, STD

BALL = Ball((-80.0, 20.0, 30.0), 16.0, hu=1200.0)
OTHER = Ball((66.0, -15.0, -22.0), 9.0, hu=1200.0)
VIEW = View(pixel_mm=2.0, rows=8, columns=11, high_hu=1500.0)
SPACING = (4.0, 2.0, 2.0)
CELLS = 4
"""Along a patch."""


def upright() -> Geometry:
    return thorax_grid(SPACING)


def permuted_and_flipped() -> Geometry:
    grid = upright()
    affine = grid.affine_lps[:, [2, 0, 1, 3]].copy()
    shape = tuple(grid.shape_zyx[axis] for axis in (2, 0, 1))
    affine[:3, 3] += affine[:3, 1] * (shape[1] - 1) + affine[:3, 2] * (shape[2] - 1)
    affine[:3, 1:3] *= -1
    return Geometry(shape, affine)


def oblique() -> Geometry:
    turn, tilt = np.deg2rad([9.0, 7.0])
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    direction, shape = about_z @ about_x, (60, 130, 170)
    extent = direction[:, ::-1] @ ((np.array(shape) - 1) * SPACING) / 2
    return Geometry.from_axes(shape, SPACING, origin_xyz_mm=(-extent).tolist(), direction_xyz=direction)


GRIDS: dict[str, Callable[[], Geometry]] = {
    "upright": upright, "permuted and flipped": permuted_and_flipped, "oblique": oblique,
}  # fmt: skip


@functools.cache
def scan(name: str = "upright") -> Volume:
    return thorax(GRIDS[name](), balls=(BALL, OTHER), vessels=4)


def spots(image: np.ndarray) -> list[tuple[float, float, float]]:
    """Row, column and area of each ball in the middle channel of an image: what is denser than bone."""
    from scipy.ndimage import center_of_mass, label

    hu = (image[1] * STD[1] + MEAN[1]) * (VIEW.high_hu - VIEW.low_hu) + VIEW.low_hu
    part = np.clip((hu - 500) / 700, 0, 1)
    regions, count = label(part > 0.1)
    return [(*center_of_mass(part, regions, n), float(part[regions == n].sum())) for n in range(1, count + 1)]


def perfect(images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Heads that see the balls as they are."""
    cell = VIEW.patch / CELLS
    shape = (len(images), images.shape[2] * CELLS // VIEW.patch, images.shape[3] * CELLS // VIEW.patch)
    heat, size = np.full(shape, -9.0, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    offset = np.zeros((shape[0], 2, *shape[1:]), dtype=np.float32)
    for n, image in enumerate(images):
        for row, column, area in spots(image):
            at = np.array([row + 0.5, column + 0.5]) / cell
            r, c = at.astype(int)
            heat[n, r, c] = 2 + area / 20
            size[n, r, c] = np.log(BALL.diameter_mm if column < images.shape[3] / 2 else OTHER.diameter_mm)
            offset[n, :, r, c] = at - (r, c)
    return heat, size, offset


def silent(images: np.ndarray) -> tuple[np.ndarray, ...]:
    shape = (len(images), 32, 44)
    return np.full(shape, -9.0, np.float32), np.zeros(shape, np.float32), np.zeros((len(images), 2, 32, 44), np.float32)


@pytest.mark.parametrize("name", list(GRIDS))
def test_a_perfect_heat_map_gives_the_right_places_on_any_grid(name: str) -> None:
    found = detect(scan(name), perfect, view=VIEW)
    assert len(found) == 2
    axes = cut_slices(scan(name), VIEW).volume.geometry.direction_xyz
    for ball in (BALL, OTHER):
        gaps = np.array([np.subtract(f.center_xyz_mm, ball.center_xyz_mm) for f in found]) @ axes
        best = int(np.argmin(np.linalg.norm(gaps, axis=1)))
        assert (np.abs(gaps[best]) < [0.2, 0.2, SPACING[0] / 2]).all()  # in the plane, and across slices
        assert found[best].diameter_mm == pytest.approx(ball.diameter_mm, rel=0.01)
    scores = [f.score for f in found]
    assert scores == sorted(scores, reverse=True)
    assert [f.id for f in found] == ["1", "2"]


def test_an_empty_lung_gives_no_finding() -> None:
    assert detect(thorax(upright(), vessels=0), perfect, view=VIEW) == []
    assert detect(scan(), silent, view=VIEW) == []
    assert one_box_a_slice(scan(), lambda x: (np.full((len(x), 2), [9, -9.0]), np.zeros((len(x), 4))), view=VIEW) == []


def test_fields_that_overlap_find_the_same_and_each_nodule_once() -> None:
    small = View(pixel_mm=2.0, rows=5, columns=6, high_hu=1500.0)
    slices = cut_slices(scan(), small)
    assert len(slices.corners) > 1
    sides = np.array(slices.corners)
    index = slices.volume.geometry.world_to_index(
        slices.hull.geometry.index_to_world(np.argwhere(slices.hull.array_zyx))
    )
    inside = [((index[:, 1:] >= c - 1) & (index[:, 1:] <= c + small.shape)).all(axis=1) for c in sides]
    assert np.any(inside, axis=0).all()
    found = detect(slices, perfect, view=small)
    assert len(found) == 2
    for ball in (BALL, OTHER):
        assert min(np.linalg.norm(np.subtract(f.center_xyz_mm, ball.center_xyz_mm)) for f in found) < 1.0


def test_what_lies_outside_the_lungs_is_left_out() -> None:
    wall = thorax(upright(), balls=(Ball((0.0, 55.0, 0.0), 16.0, hu=1200.0), BALL), vessels=0)
    found = detect(wall, perfect, view=VIEW)
    assert len(found) == 1
    assert np.linalg.norm(np.subtract(found[0].center_xyz_mm, BALL.center_xyz_mm)) < 1.0


def test_one_box_a_slice_finds_the_largest_ball_in_each() -> None:
    def heads(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        classes, boxes = np.tile([4.0, -4.0], (len(images), 1)), np.zeros((len(images), 4))
        for n, image in enumerate(images):
            for row, column, _ in spots(image):
                side = 8.0
                height, width = image.shape[1:]
                boxes[n] = (
                    (column + 0.5 - side / 2) / width,
                    (row + 0.5 - side / 2) / height,
                    side / width,
                    side / height,
                )
                classes[n] = -4, 4
        return classes, boxes

    found = one_box_a_slice(scan(), heads, view=VIEW)
    assert len(found) == 2
    assert all(f.diameter_mm == pytest.approx(8 * VIEW.pixel_mm) for f in found)
    for ball in (BALL, OTHER):
        assert min(np.linalg.norm(np.subtract(f.center_xyz_mm, ball.center_xyz_mm)) for f in found) < 2.1


def peaks(rows: list[tuple[float, float, float, float, float]]) -> Peaks:
    table = np.array(rows, dtype=np.float64)
    return Peaks(table[:, :3], table[:, 3], table[:, 4])


def test_peaks_of_neighboring_slices_are_one_finding_and_others_are_not() -> None:
    nodule = [(10.0 + n, 50.0, 50.0 + 0.5 * n, 8.0, 0.9 - 0.1 * abs(n)) for n in (-1, 0, 1)]
    beyond = [(20.0, 50.0, 50.0, 8.0, 0.5)]
    beside = [(10.0, 50.0, 80.0, 8.0, 0.4)]
    found = link_peaks(peaks(nodule + beyond + beside), step_mm=2.0, pixel_mm=1.0)
    assert [sorted(chain.tolist()) for chain in found] == [[0, 1, 2], [3], [4]]
    assert found[0][0] == 1  # the best peak comes first


def test_a_missing_slice_is_bridged_where_slices_are_thin() -> None:
    rows = peaks([(10.0, 50.0, 50.0, 20.0, 0.9), (12.0, 50.0, 50.0, 20.0, 0.8)])
    assert len(link_peaks(rows, step_mm=1.0, pixel_mm=1.0)[0]) == 2
    alone = link_peaks(rows, step_mm=5.0, pixel_mm=1.0)
    assert len(alone[0]) == 1


def test_a_vessel_that_goes_on_is_no_longer_than_its_width_allows() -> None:
    rows = peaks([(float(z), 50.0, 50.0 + z, 4.0, 0.5 + (z == 20) * 0.2) for z in range(40)])
    first = link_peaks(rows, step_mm=1.0, pixel_mm=1.0)[0]
    assert np.ptp(rows.place[first, 0]) <= 2 * 0.75 * 4.0


def test_a_nodule_seen_in_one_of_many_slices_scores_less() -> None:
    seen = iter(range(10**6))

    def once(images: np.ndarray) -> tuple[np.ndarray, ...]:
        heat, size, offset = perfect(images)
        heat[:, :, heat.shape[2] // 2 :] = -9  # the larger ball alone
        for n in range(len(heat)):
            if heat[n].max() > 0 and next(seen) > 0:
                heat[n] = -9
        return heat, size, offset

    whole, rare = detect(scan(), perfect, view=VIEW, limit=1)[0], detect(scan(), once, view=VIEW)[0]
    assert whole.attributes["slices"] > rare.attributes["slices"] == 1
    assert (rare.score or 0) < 0.75 * (whole.score or 0)


def test_thin_slices_are_averaged_and_thick_ones_kept() -> None:
    volume = thorax(thorax_grid((0.5, 4.0, 4.0)), vessels=0)
    assert cut_slices(volume, VIEW).volume.geometry.spacing_zyx_mm[0] == pytest.approx(1.0)
    slices = cut_slices(scan(), VIEW)
    np.testing.assert_allclose(slices.volume.geometry.spacing_zyx_mm, (4.0, 2.0, 2.0))
    once = cut_slices(scan(), View(pixel_mm=2.0, rows=8, columns=11, neighbors=False))
    z = int(once.shown[5])
    image = once.images([z], once.corners[0])[0]
    gray = image * np.array(STD)[:, None, None] + np.array(MEAN)[:, None, None]
    np.testing.assert_allclose(gray[0], gray[2], atol=1e-5)
    three = slices.field(z, slices.corners[0])
    np.testing.assert_array_equal(three[1], once.field(z, once.corners[0])[0])
    np.testing.assert_array_equal(three[0], once.field(z - 1, once.corners[0])[0])


def test_a_field_beyond_the_scan_is_air() -> None:
    slices = cut_slices(scan(), VIEW)
    far = slices.field(0, (10_000, -10_000))
    assert (far == VIEW.low_hu).all()
    top = slices.field(int(slices.shown[0]), (-3, -5))
    assert (top[:, :3] == VIEW.low_hu).all()
    np.testing.assert_array_equal(
        top[1, 3:, 5:], slices.volume.array_zyx[slices.shown[0]][: top.shape[1] - 3, : top.shape[2] - 5]
    )


def test_bad_input_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no lungs"):
        detect(thorax(thorax_grid((4, 4, 4)), lungs=False), perfect, view=VIEW)
    with pytest.raises(InputError, match="empty mask"):
        detect(scan(), perfect, view=VIEW, lungs=Mask(np.zeros((2, 2, 2), bool), thorax_grid((100, 120, 160))))
    with pytest.raises(InputError, match="heat and size"):
        detect(scan(), lambda x: (x[:, 0], x[:, 1, ::2], x[:, :2]), view=VIEW)
    with pytest.raises(InputError, match="boxes"):
        one_box_a_slice(scan(), lambda x: (np.zeros((len(x), 3)), np.zeros((len(x), 4))), view=VIEW)
    for wrong in ({"pixel_mm": 0.0}, {"rows": 0}, {"low_hu": 600.0}):
        with pytest.raises(InputError, match="view"):
            View(**wrong)
    manifest = {"name": "t", "version": "1", "task": "risk", "preprocessing": {}, "outputs": {}, "card": {}}
    with pytest.raises(InputError, match="task"):
        load_detector(write_bundle(tmp_path / "t", manifest, {}))


def test_channels_come_apart() -> None:
    output = np.arange(2 * 8 * 3 * 4, dtype=np.float32).reshape(2, 8, 3, 4)
    heat, size, offset, outline = split_channels(output)
    assert (heat.shape, size.shape, offset.shape, outline.shape) == ((2, 3, 4), (2, 3, 4), (2, 2, 3, 4), (2, 6, 8))
    np.testing.assert_array_equal(outline[:, 1::2, ::2], output[:, 6])
    assert len(split_channels(output[:, :4])) == 3


def test_heads_are_what_is_called() -> None:
    sizes: list[int] = []

    def counting(images: np.ndarray) -> tuple[np.ndarray, ...]:
        assert images.dtype == np.float32
        assert images.shape[1:] == (3, *VIEW.shape)
        sizes.append(len(images))
        return silent(images)

    heads: Heads = counting
    detect(scan(), heads, view=VIEW, batch=7)
    assert set(sizes[:-1]) == {7}
    assert sum(sizes) == len(cut_slices(scan(), VIEW).shown)
