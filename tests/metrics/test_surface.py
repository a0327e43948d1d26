from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask
from spicula.metrics.surface import border, surface_distances

SPACING = (2.5, 0.7, 0.8)


def _blob(seed: int, shape: tuple[int, int, int] = (9, 22, 20)) -> np.ndarray:
    """A lump that touches the grid's edge now and then, with a hole."""
    rng = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    center = np.array(shape) / 2 + rng.normal(0, 1.5, 3)
    distance = (((index - center) / (np.array(shape) * rng.uniform(0.2, 0.4, 3))) ** 2).sum(axis=-1)
    region = (distance < 1) & (rng.random(shape) < 0.97)
    assert region.any()
    return region


def _image(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    image.SetSpacing(SPACING[::-1])
    return image


def _brute(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    def cloud(region: np.ndarray) -> np.ndarray:
        padded = np.pad(region, 1)
        inner = np.ones_like(region)
        for axis in range(3):
            for step in (-1, 1):
                inner &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
        return np.argwhere(region & ~inner) * SPACING

    apart = np.linalg.norm(cloud(a)[:, None] - cloud(b)[None], axis=-1)
    return apart.min(axis=1), apart.min(axis=0)


@pytest.mark.parametrize("seed", range(4))
def test_against_all_pairs_and_simpleitk(seed: int) -> None:
    a, b = _blob(seed), _blob(seed + 50)
    found = surface_distances(a, b, spacing_zyx_mm=SPACING)
    there, back = _brute(a, b)
    assert found.a_to_b_mm == pytest.approx(there)
    assert found.b_to_a_mm == pytest.approx(back)
    both = np.concatenate([there, back])
    assert (found.mean_mm, found.median_mm, found.hausdorff_mm) == pytest.approx(
        (both.mean(), np.median(both), both.max())
    )
    assert found.percentile_95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert found.surface_dice(1.0) == pytest.approx((both <= 1.0).mean())

    # ITK measures from all voxels of one image to all of the other: given borders, that is ours.
    theirs = sitk.HausdorffDistanceImageFilter()
    theirs.Execute(_image(border(a)), _image(border(b)))
    assert found.hausdorff_mm == pytest.approx(theirs.GetHausdorffDistance(), rel=1e-5)
    maps = [sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(_image(border(m)), False, False, True)) for m in (a, b)]
    assert found.a_to_b_mm == pytest.approx(np.maximum(maps[1][border(a)], 0), abs=1e-5)
    assert found.b_to_a_mm == pytest.approx(np.maximum(maps[0][border(b)], 0), abs=1e-5)


def _ball(shape, spacing, origin, radius: float, center=(0.0, 0.0, 0.0)) -> Mask:
    grid = Geometry.from_axes(shape, spacing, origin_xyz_mm=origin)
    places = grid.index_to_world(np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1))
    return Mask(((places - center) ** 2).sum(axis=-1) < radius**2, grid)


def test_shells_of_balls() -> None:
    box = ((48, 96, 96), (0.5, 0.25, 0.25), (-12.0, -12.0, -12.0))
    small, large = _ball(*box, radius=6.0), _ball(*box, radius=9.0)
    found = surface_distances(small, large)
    assert found.mean_mm == pytest.approx(3.0, abs=0.1)
    assert found.hausdorff_mm == pytest.approx(3.0, abs=0.5)
    assert found.surface_dice(2.4) == 0
    assert found.surface_dice(3.5) == 1
    moved = surface_distances(small, _ball(*box, radius=6.0, center=(0, 0, 2.0)))
    assert moved.hausdorff_mm == pytest.approx(2.0, abs=0.3)
    assert moved.mean_mm < 1.3


def test_grids_need_not_be_the_same() -> None:
    whole = _ball((40, 40, 40), (1.0, 0.8, 0.8), (-16, -16, -20), 8.0)
    other = _ball((40, 40, 40), (1.0, 0.8, 0.8), (-16, -16, -20), 9.0, center=(1.0, 0, 0))
    plain = surface_distances(whole, other)
    box = Mask(other.array_zyx[8:33, 6:35, 7:36], other.geometry.crop((8, 6, 7), (33, 35, 36)))
    assert other.array_zyx.sum() == box.array_zyx.sum()
    cropped = surface_distances(whole, box)
    assert np.sort(cropped.a_to_b_mm) == pytest.approx(np.sort(plain.a_to_b_mm))
    assert (cropped.mean_mm, cropped.percentile_95_mm) == pytest.approx((plain.mean_mm, plain.percentile_95_mm))
    finer = _ball((64, 80, 80), (0.6, 0.4, 0.4), (-16, -16, -19), 8.0)
    assert surface_distances(whole, finer).mean_mm < 0.5


def test_turned_and_sheared_grids_measure_the_same_places() -> None:
    a, b = _blob(1), _blob(2)
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    straight = surface_distances(a, b, spacing_zyx_mm=SPACING)
    affine = np.eye(4)
    affine[:3, :3] = turn * SPACING
    affine[:3, 3] = [-120, 30, 900]
    oblique = Geometry(a.shape, affine)  # type: ignore[arg-type]
    assert surface_distances(Mask(a, oblique), Mask(b, oblique)).mean_mm == pytest.approx(straight.mean_mm)
    affine[:3, 0] += [0, 0.6, 0]
    tilted = Geometry(a.shape, affine)  # type: ignore[arg-type]
    places = [tilted.index_to_world(np.argwhere(border(m))) for m in (a, b)]
    apart = np.linalg.norm(places[0][:, None] - places[1][None], axis=-1)
    assert surface_distances(Mask(a, tilted), Mask(b, tilted)).a_to_b_mm == pytest.approx(apart.min(axis=1))


def test_laws_and_empty_outlines() -> None:
    a, b, nothing = _blob(3), _blob(4), np.zeros((9, 22, 20), bool)
    there, back = (surface_distances(*p, spacing_zyx_mm=SPACING) for p in ((a, b), (b, a)))
    for name in ("mean_mm", "median_mm", "hausdorff_mm", "percentile_95_mm"):
        assert getattr(there, name) == pytest.approx(getattr(back, name))
    assert there.percentile_mm(100) == there.hausdorff_mm
    assert there.median_mm <= there.percentile_95_mm <= there.hausdorff_mm
    same = surface_distances(a, a, spacing_zyx_mm=SPACING)
    assert (same.mean_mm, same.hausdorff_mm, same.surface_dice(0.0)) == (0, 0, 1)
    missed = surface_distances(a, nothing, spacing_zyx_mm=SPACING)
    assert np.isinf([missed.mean_mm, missed.median_mm, missed.hausdorff_mm, missed.percentile_95_mm]).all()
    assert missed.surface_dice(1000.0) == 0
    agreed = surface_distances(nothing, nothing, spacing_zyx_mm=SPACING)
    assert (agreed.mean_mm, agreed.median_mm, agreed.hausdorff_mm, agreed.percentile_95_mm) == (0, 0, 0, 0)
    assert agreed.surface_dice(0.0) == 1


def test_bad_input_is_named() -> None:
    a = _blob(0)
    with pytest.raises(InputError, match="3 positive"):
        surface_distances(a, a)
    with pytest.raises(InputError, match="3 positive"):
        surface_distances(a, a, spacing_zyx_mm=(1, 0, 1))
    with pytest.raises(InputError, match="one shape"):
        surface_distances(a, a[1:], spacing_zyx_mm=SPACING)
    mask = Mask(a, Geometry.from_axes(a.shape, SPACING))
    with pytest.raises(InputError, match="bring their own"):
        surface_distances(mask, mask, spacing_zyx_mm=SPACING)
    found = surface_distances(mask, mask)
    with pytest.raises(InputError, match="tolerance"):
        found.surface_dice(-1)
    with pytest.raises(InputError, match="percent"):
        found.percentile_mm(101)
