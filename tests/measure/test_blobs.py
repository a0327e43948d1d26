from __future__ import annotations

import functools

import numpy as np
import pytest

from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets.phantom import LUNG_RADII, Ball, thorax, thorax_grid
from spicula.measure.blobs import Candidate, find_candidates, mask_on, merge
from spicula.measure.lungs import segment_lungs
from spicula.transforms.crop import sample

SMALL = Ball((-80.0, 20.0, 30.0), 6.0)
MIDDLE = Ball((70.0, -15.0, -40.0), 14.0)
AT_WALL = Ball((-75.0 - LUNG_RADII[0] + 6, 0.0, 0.0), 14.0)
MASS = Ball((75.0, LUNG_RADII[1] - 26, 10.0), 50.0)
BALLS = (SMALL, MIDDLE, AT_WALL, MASS)
GRID = thorax_grid((2.0, 1.5, 1.5))


@functools.cache
def scan() -> Volume:
    return thorax(GRID, balls=BALLS, vessels=8)


@functools.cache
def candidates() -> tuple[Candidate, ...]:
    return tuple(find_candidates(scan(), segment_lungs(scan())))


def nearest(found: tuple[Candidate, ...] | list[Candidate], ball: Ball) -> tuple[float, int]:
    gaps = [float(np.linalg.norm(np.subtract(c.center_xyz_mm, ball.center_xyz_mm))) for c in found]
    return min(gaps), int(np.argmin(gaps))


@pytest.mark.parametrize(("ball", "within"), [(SMALL, 1.0), (MIDDLE, 1.0), (AT_WALL, 3.0), (MASS, 8.0)])
def test_a_ball_is_found_at_its_place_with_its_size(ball: Ball, within: float) -> None:
    gap, index = nearest(candidates(), ball)
    assert gap < within
    found = candidates()[index]
    assert found.radius_mm == pytest.approx(ball.diameter_mm / 2, rel=0.5)
    rank = sorted(candidates(), key=lambda c: -c.strength).index(found)
    assert rank < 20, f"rank {rank} of {len(candidates())}"


def test_the_way_the_array_is_stored_does_not_matter() -> None:
    volume = scan()
    array = np.flip(volume.array_zyx.transpose(1, 2, 0), 0)
    affine = volume.geometry.affine_lps.copy()
    affine[:3, :3] = affine[:3, (1, 2, 0)]
    affine[:3, 3] += affine[:3, 0] * (array.shape[0] - 1)
    affine[:3, 0] *= -1
    other = Volume(np.ascontiguousarray(array), Geometry(array.shape, affine))
    found = find_candidates(other, segment_lungs(other))
    assert len(found) == len(candidates())
    ours, theirs = (np.array([c.center_xyz_mm for c in cs]) for cs in (candidates(), found))
    np.testing.assert_allclose(theirs, ours, atol=1e-6)


def test_a_moved_scan_gives_moved_candidates() -> None:
    volume, shift = scan(), np.array([31.0, -250.0, 777.0])
    affine = volume.geometry.affine_lps.copy()
    affine[:3, 3] += shift
    moved = Volume(volume.array_zyx, Geometry(volume.geometry.shape_zyx, affine))
    found = find_candidates(moved, segment_lungs(moved))
    ours, theirs = (np.array([c.center_xyz_mm for c in cs]) for cs in (candidates(), found))
    np.testing.assert_allclose(theirs - shift, ours, atol=1e-6)


def test_a_dome_that_the_end_of_the_scan_cuts_off_is_no_mass() -> None:
    grid = Geometry.from_axes((60, 120, 120), (2.0, 1.0, 1.0))
    z, y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip((60, 120, 120), (2.0, 1, 1), strict=True)), indexing="ij")
    lungs = Mask(np.ones(grid.shape_zyx, dtype=bool), grid)

    def masses(height: float) -> list[Candidate]:
        dome = (z - height) ** 2 + (y - 60) ** 2 + (x - 60) ** 2 < 20**2
        found = find_candidates(Volume(np.where(dome, 40, -900).astype(np.int16), grid), lungs)
        return [c for c in found if c.in_hull and c.radius_mm > 10]

    assert not masses(0.0)
    assert np.linalg.norm(np.subtract(masses(50.0)[0].center_xyz_mm, (60, 60, 50))) < 2


def test_a_tube_is_weaker_than_a_ball() -> None:
    grid = Geometry.from_axes((60, 60, 60), (1.0, 1.0, 1.0))
    points = np.stack(np.meshgrid(*(np.arange(60.0) - 30,) * 3, indexing="ij"), axis=-1)
    inside = Mask(np.ones(grid.shape_zyx, dtype=bool), grid)

    def strongest(distance: np.ndarray) -> float:
        array = np.where(distance < 3, 40, -900).astype(np.int16)
        return max((c.strength for c in find_candidates(Volume(array, grid), inside)), default=0.0)

    ball, tube = np.linalg.norm(points, axis=-1), np.linalg.norm(points[..., 1:], axis=-1)
    assert strongest(ball) > 3 * strongest(tube)


def test_a_mask_on_another_grid_is_the_sampled_one() -> None:
    rng = np.random.default_rng(0)
    mask = Mask(rng.random((9, 10, 11)) > 0.5, Geometry.from_axes((9, 10, 11), (3, 2, 2), origin_xyz_mm=(5, 6, 7)))
    grid = Geometry.from_axes((20, 21, 22), (1.1, 1.3, 0.9), origin_xyz_mm=(3.03, 7.07, 8.01))
    expected = sample(mask, grid, order=0, outside=0.0) > 0.5
    inner = mask.geometry.contains(
        grid.index_to_world(np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape_zyx), indexing="ij"), axis=-1)),
        margin_mm=-1.6,
    )
    np.testing.assert_array_equal(mask_on(mask, grid)[inner], expected[inner])
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    oblique = Geometry.from_axes((20, 21, 22), (1.1, 1.3, 0.9), origin_xyz_mm=(3.03, 7.07, 8.01), direction_xyz=turn)
    assert mask_on(mask, oblique).any()


def test_duplicates_are_merged_into_the_strongest() -> None:
    weak, strong = Candidate((0, 0, 0), 3, 0.3, 0.5, False), Candidate((1, 0, 0), 3, 0.4, 0.5, False)
    far = Candidate((20, 0, 0), 3, 0.2, 0.5, False)
    assert merge([weak, far, strong]) == [strong, far]
    assert merge([]) == []
