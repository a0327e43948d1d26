"""Random changes of a cube: determinism, laws, ranges."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from spicula.core.errors import InputError
from spicula.transforms.augment import (
    Augmentation,
    apply_augmentation,
    apply_intensity,
    draw_augmentation,
    points_before,
)
from spicula.transforms.nine_planes import nine_planes, plane_points, sample_points

RNG = np.random.default_rng(0)
CUBE = RNG.random((24, 24, 24)).astype(np.float32)
SMOOTH = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(60,) * 3), 4.0).astype(np.float32)
SMOOTH = (SMOOTH - SMOOTH.min()) / np.ptp(SMOOTH)


def test_no_parameters_change_nothing() -> None:
    np.testing.assert_array_equal(apply_augmentation(CUBE, Augmentation()), CUBE)
    still = draw_augmentation(
        np.random.default_rng(0), flip=0, degrees=0, scale=0, noise_std=0, log_gamma=0, jitter_mm=0
    )
    assert replace(still, noise_seed=0) == Augmentation()
    np.testing.assert_array_equal(apply_augmentation(CUBE, still), CUBE)


@given(st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_a_flip_undoes_itself(flips: tuple[bool, bool, bool]) -> None:
    flip = Augmentation(flips_zyx=flips)
    once = apply_augmentation(CUBE, flip)
    np.testing.assert_array_equal(apply_augmentation(once, flip), CUBE)
    assert np.array_equal(once, CUBE) is not any(flips)


@pytest.mark.parametrize("mode", ["exact", "compat"])
def test_the_same_seed_gives_the_same_cube(mode: str) -> None:
    a, b = (draw_augmentation(np.random.default_rng(7), mode=mode) for _ in range(2))  # type: ignore[arg-type]
    assert a == b
    assert hash(a) == hash(b)
    np.testing.assert_array_equal(apply_augmentation(CUBE, a), apply_augmentation(CUBE, b))
    np.testing.assert_array_equal(apply_augmentation(CUBE, a), apply_augmentation(CUBE, a))
    other = draw_augmentation(np.random.default_rng(8), mode=mode)  # type: ignore[arg-type]
    assert other != a
    assert json.loads(json.dumps(asdict(a)))["noise_seed"] == a.noise_seed


def test_the_draws_are_the_published_ranges() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_augmentation(rng) for _ in range(2000)]
    flips = np.array([a.flips_zyx for a in drawn])
    np.testing.assert_allclose(flips.mean(axis=0), 0.5, atol=0.05)
    for name, low, high in [("degrees_zyx", -10, 10), ("scale_zyx", 0.9, 1.1), ("shift_zyx_mm", -5, 5)]:
        values = np.array([getattr(a, name) for a in drawn])
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
        assert abs(np.corrcoef(values.T)[0, 1]) < 0.1  # each axis by itself
    std = np.array([a.noise_std for a in drawn])
    assert 0 <= std.min() < 0.001 < 0.019 < std.max() <= 0.02
    gamma = np.array([a.log_gamma for a in drawn])
    assert -0.2 <= gamma.min() < -0.19 < 0.19 < gamma.max() <= 0.2
    assert not any(a.plane_jitter for a in drawn)


def test_compat_jitter_is_whole_pixels_for_each_plane() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_augmentation(rng, mode="compat") for _ in range(500)]
    jitter = np.array([a.plane_jitter for a in drawn])
    assert jitter.shape == (500, 9, 2)
    np.testing.assert_array_equal(np.unique(jitter), np.arange(-5, 5))
    np.testing.assert_allclose(np.bincount(jitter.ravel() + 5) / jitter.size, 0.1, atol=0.015)
    assert all(a.shift_zyx_mm == (0, 0, 0) for a in drawn)
    cube = RNG.random((80, 80, 80))
    moved = nine_planes(cube, mode="compat", jitter=drawn[0].plane_jitter)
    row, column = drawn[0].plane_jitter[0]
    np.testing.assert_array_equal(moved[0], cube[40, 15 + row : 65 + row, 15 + column : 65 + column].astype(np.float32))


def test_a_shift_moves_the_content() -> None:
    moved = apply_augmentation(CUBE, Augmentation(shift_zyx_mm=(2.0, 0.0, -4.0)), spacing_mm=2.0, outside=0.0)
    np.testing.assert_allclose(moved[1:, :, :-2], CUBE[:-1, :, 2:], atol=1e-6)
    assert (moved[0] == 0).all()
    assert (apply_augmentation(CUBE, Augmentation(shift_zyx_mm=(2.0, 0, 0)))[0] == CUBE.min()).all()


def test_turns_and_scales_are_those_of_torchio() -> None:
    """A point of known place: TorchIO 0.20's Affine (Euler, z then x then y on the left; scale last) moves it there."""
    middle = np.full(3, 19.5)
    point = middle + np.array([6.0, -3.0, 8.0])
    blob = np.exp(-((np.stack(np.indices((40,) * 3), -1) - point) ** 2).sum(-1) / 8.0).astype(np.float32)
    change = Augmentation(degrees_zyx=(9.0, 5.0, -7.0), scale_zyx=(1.03, 0.93, 1.08))
    moved = apply_augmentation(blob, change).astype(np.float64)
    found = [float((moved * axis).sum() / moved.sum()) for axis in np.indices(moved.shape)]
    z, y, x = np.radians(change.degrees_zyx)
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    there = (rz @ rx @ ry @ (point - middle)[::-1])[::-1] * change.scale_zyx + middle
    np.testing.assert_allclose(found, there, atol=0.05)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_moving_the_points_is_moving_the_cube(seed: int) -> None:
    change = replace(draw_augmentation(np.random.default_rng(seed)), noise_std=0.0, log_gamma=0.0)
    points = plane_points(side=60, pixels=24)
    slow = sample_points(apply_augmentation(SMOOTH, change), points, order=1)
    fast = sample_points(SMOOTH, points_before(points, change, side=60), order=1)
    np.testing.assert_allclose(fast, slow, atol=0.02)
    np.testing.assert_array_equal(points_before(points, Augmentation(), side=60), points)


def test_noise_and_power() -> None:
    noisy = apply_intensity(np.zeros((40, 50, 50)), Augmentation(noise_std=0.02, noise_seed=3))
    assert noisy.std() == pytest.approx(0.02, rel=0.02)
    assert abs(noisy.mean()) < 3e-4
    values = np.array([-0.25, 0.0, 0.25, 1.0])
    found = apply_intensity(values, Augmentation(log_gamma=float(np.log(0.5))))
    np.testing.assert_allclose(found, [-0.5, 0.0, 0.5, 1.0], atol=1e-6)
    assert found.dtype == np.float32


def test_the_input_is_left_alone() -> None:
    before = CUBE.copy()
    apply_augmentation(CUBE, draw_augmentation(np.random.default_rng(0)))
    apply_augmentation(CUBE, Augmentation(noise_std=0.1))
    np.testing.assert_array_equal(CUBE, before)


def test_bad_ranges_are_refused() -> None:
    with pytest.raises(InputError, match="'exact' or 'compat'"):
        draw_augmentation(np.random.default_rng(0), mode="both")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ranges of 0 and more"):
        draw_augmentation(np.random.default_rng(0), degrees=-1)
