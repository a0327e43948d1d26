"""Laws of stacking slices: order, step, gaps, duplicates, shear."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spicula.dicom.stack import measure_stack, normal_of


def positions(matrix: np.ndarray, places: np.ndarray, step_mm: float, shear: float = 0.0) -> np.ndarray:
    return np.array([12.0, -34.0, 56.0]) + np.outer(places * step_mm, matrix[:, 2] + shear * matrix[:, 1])


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    count=st.integers(2, 60),
    step_mm=st.floats(0.3, 10),
    shear=st.sampled_from([0.0, 0.1, -0.4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_shuffled_slices_of_any_orientation_are_put_in_order(
    angles: tuple[float, float, float], count: int, step_mm: float, shear: float, seed: int
) -> None:
    matrix = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()
    orientation = [*matrix[:, 0], *matrix[:, 1]]
    shuffled = np.random.default_rng(seed).permutation(count)
    stack = measure_stack(positions(matrix, shuffled, step_mm, shear), orientation)
    assert stack is not None
    np.testing.assert_allclose(normal_of(orientation), matrix[:, 2], atol=1e-9)
    assert [int(shuffled[index]) for index in stack.order] == list(range(count))
    np.testing.assert_allclose(stack.step_xyz_mm, step_mm * (matrix[:, 2] + shear * matrix[:, 1]), atol=1e-6)
    assert stack.is_regular
    assert stack.is_sheared == (shear != 0)
    assert stack.shear_degrees == pytest.approx(np.degrees(np.arctan(abs(shear))), abs=1e-4)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    count=st.integers(8, 60),
    step_mm=st.floats(0.5, 10),
    rounding_mm=st.sampled_from([0.0, 0.01, 0.1]),
    data=st.data(),
)
def test_lost_and_doubled_slices_are_found(count: int, step_mm: float, rounding_mm: float, data: st.DataObject) -> None:
    inner = st.integers(1, count - 2)
    lost = data.draw(st.sets(inner, max_size=count // 4), label="lost")
    doubled = data.draw(st.sets(inner, max_size=3), label="doubled") - lost
    places = np.array([place for place in range(count) for _ in range(1 + (place in doubled)) if place not in lost])
    where = positions(np.eye(3), places, step_mm)
    if rounding_mm:
        where[:, 2] = np.round(where[:, 2] / rounding_mm) * rounding_mm
    stack = measure_stack(where, (1, 0, 0, 0, 1, 0))
    assert stack is not None
    assert stack.grid_size == count
    np.testing.assert_allclose(stack.missing_mm, 56 + step_mm * np.array(sorted(lost)), atol=rounding_mm + 1e-6)
    np.testing.assert_allclose(stack.duplicate_mm, 56 + step_mm * np.array(sorted(doubled)), atol=rounding_mm + 1e-6)
    assert not stack.irregular_mm


def test_one_place_is_no_stack() -> None:
    assert measure_stack([[1, 2, 3], [1, 2, 3]], (1, 0, 0, 0, 1, 0)) is None


def test_sideways_step_is_irregular() -> None:
    where = positions(np.eye(3), np.arange(10.0), 2.0)
    where[4, 0] += 5
    stack = measure_stack(where, (1, 0, 0, 0, 1, 0))
    assert stack is not None
    assert 64.0 in stack.irregular_mm


def test_two_spacings_in_one_series_are_not_regular() -> None:
    places = np.concatenate([np.arange(10), 9 + 5 * np.arange(1, 6)])
    stack = measure_stack(positions(np.eye(3), places, 1.0), (1, 0, 0, 0, 1, 0))
    assert stack is not None
    assert len(stack.missing_mm) == 20
    assert stack.problems.startswith("20 missing slice positions at 66.00, 67.00")
    assert "and 10 more" in stack.problems
