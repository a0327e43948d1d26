from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask
from spicula.metrics.segmentation import dice, iou, masks_on_one_grid, volume_error


def _ball(shape: tuple[int, int, int], spacing: tuple[float, float, float], origin, radius: float = 10.0) -> Mask:
    grid = Geometry.from_axes(shape, spacing, origin_xyz_mm=origin)
    places = grid.index_to_world(np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1))
    return Mask((places**2).sum(axis=-1) < radius**2, grid)


def test_on_one_grid_by_hand() -> None:
    a, b = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    a[:2], b[1:3] = True, True
    grid = Geometry.from_axes((4, 4, 4), (1, 1, 1))
    assert dice(a, b) == 0.5
    assert dice(Mask(a, grid), Mask(b, grid)) == 0.5
    assert dice(a, a) == 1
    assert dice(a, ~a) == 0
    assert dice(np.zeros(3, bool), np.zeros(3, bool)) == 1


def test_boxes_of_one_lattice_are_exact() -> None:
    rng = np.random.default_rng(0)
    whole = rng.random((12, 14, 16)) < 0.5
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * [2.5, 0.7, 0.7]
    affine[:3, 3] = [-100, 50, 7]
    grid = Geometry(whole.shape, affine)

    def box(start, stop) -> Mask:
        return Mask(whole[tuple(map(slice, start, stop))], grid.crop(start, stop))

    left, right = box((0, 2, 1), (8, 10, 12)), box((3, 0, 5), (12, 9, 16))
    shared = np.count_nonzero(whole[3:8, 2:9, 5:12])
    total = np.count_nonzero(left.array_zyx) + np.count_nonzero(right.array_zyx)
    assert dice(left, right) == pytest.approx(2 * shared / total)
    assert dice(left, right) == dice(right, left)
    inside = Mask(left.array_zyx & False, left.geometry)
    assert dice(inside, right) == 0


def test_other_grids() -> None:
    fine = _ball((44, 44, 44), (0.5, 0.5, 0.5), (-11, -11, -11))
    coarse = _ball((12, 30, 30), (2.0, 0.8, 0.8), (-11.713, -11.717, -11.231))
    flipped = Mask(coarse.array_zyx[::-1, ::-1].copy(), _flip(coarse.geometry))
    assert dice(fine, coarse) > 0.93
    assert dice(fine, coarse) == pytest.approx(dice(coarse, fine))
    assert dice(coarse, flipped) == pytest.approx(1, abs=1e-9)
    assert dice(fine, flipped) == pytest.approx(dice(fine, coarse), abs=1e-9)


def _flip(grid: Geometry) -> Geometry:
    affine = grid.affine_lps.copy()
    affine[:3, 3] = grid.index_to_world((grid.shape_zyx[0] - 1, grid.shape_zyx[1] - 1, 0))
    affine[:3, :2] *= -1
    return Geometry(grid.shape_zyx, affine)


def test_overlap_against_simpleitk() -> None:
    rng = np.random.default_rng(1)
    for share in (0.1, 0.5, 0.9):
        a, b = rng.random((2, 5, 8, 7)) < share
        theirs = sitk.LabelOverlapMeasuresImageFilter()
        theirs.Execute(*(sitk.GetImageFromArray(m.astype(np.uint8)) for m in (a, b)))
        assert dice(a, b) == pytest.approx(theirs.GetDiceCoefficient())
        assert iou(a, b) == pytest.approx(theirs.GetJaccardCoefficient())
        assert iou(a, b) == pytest.approx(dice(a, b) / (2 - dice(a, b)))
    assert iou(np.zeros(3, bool), np.zeros(3, bool)) == 1


def test_volume_error_on_grids_of_their_own() -> None:
    fine = _ball((44, 44, 44), (0.5, 0.5, 0.5), (-11, -11, -11))
    coarse = _ball((12, 30, 30), (2.0, 0.8, 0.8), (-11.713, -11.717, -11.231), radius=8.0)
    found = volume_error(coarse, fine)
    assert found.relative == pytest.approx(0.8**3 - 1, abs=0.02)
    assert found.signed_mm3 == pytest.approx(found.relative * fine.volume_mm3)
    assert found.absolute_relative == -found.relative
    empty = Mask(fine.array_zyx & False, fine.geometry)
    assert volume_error(empty, fine).relative == -1
    assert np.isnan(volume_error(fine, empty).relative)


def test_masks_come_back_on_one_grid() -> None:
    fine = _ball((44, 44, 44), (0.5, 0.5, 0.5), (-11, -11, -11))
    box = Mask(fine.array_zyx[4:20, 2:30, 3:9], fine.geometry.crop((4, 2, 3), (20, 30, 9)))
    a, b = masks_on_one_grid(fine, box)
    assert a.geometry == b.geometry
    assert b.volume_mm3 == box.volume_mm3
    assert masks_on_one_grid(fine, fine) == (fine, fine)


def test_bad_input_is_named() -> None:
    grid = Geometry.from_axes((1, 1, 1), (1, 1, 1))
    with pytest.raises(InputError, match="two masks"):
        dice(Mask(np.ones((1, 1, 1), bool), grid), np.ones((1, 1, 1), bool))
    with pytest.raises(InputError, match="one shape"):
        dice(np.ones(2, bool), np.ones(3, bool))
