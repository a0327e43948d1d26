from __future__ import annotations

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.metrics.bootstrap import bootstrap_difference, bootstrap_interval, bootstrap_intervals, draws
from spicula.metrics.classification import auprc, auroc


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 150)
    return y, (rng.normal(size=150) + y).round(1), rng.integers(0, 60, 150)


@pytest.mark.parametrize("statistic", [auroc, auprc])
def test_fast_path_is_the_plain_loop(data, statistic) -> None:
    y, score, groups = data
    fast = bootstrap_interval(statistic, (y, score), groups, resamples=200)
    slow = bootstrap_interval(lambda *a: statistic(*a), (y, score), groups, resamples=200)
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high))


def test_mean_has_its_normal_interval() -> None:
    x = np.random.default_rng(1).normal(size=400)
    interval = bootstrap_interval(lambda v: float(np.mean(v)), (x,), resamples=3000)
    reach = 1.96 * x.std() / 20
    assert (interval.low, interval.high) == pytest.approx((x.mean() - reach, x.mean() + reach), abs=0.01)


def test_patients_are_drawn_whole() -> None:
    x = np.repeat(np.random.default_rng(2).normal(size=40), 10)
    groups = np.repeat(np.arange(40), 10)
    whole = bootstrap_interval(lambda v: float(np.mean(v)), (x,), groups, resamples=1000)
    apart = bootstrap_interval(lambda v: float(np.mean(v)), (x,), resamples=1000)
    assert whole.high - whole.low > 2 * (apart.high - apart.low)


def test_seed_and_chunks() -> None:
    a = np.concatenate(list(draws(7, resamples=100, seed=1, chunk=100)))
    b = np.concatenate(list(draws(7, resamples=100, seed=1, chunk=13)))
    assert np.array_equal(a, b)
    assert (a.sum(axis=1) == 7).all()


def test_undefined_resamples_are_counted() -> None:
    interval = bootstrap_interval(auroc, ([0, 0, 1], [0.1, 0.5, 0.4]), resamples=500, fewest=2)
    assert 0 < interval.undefined < 500
    slow = bootstrap_interval(lambda *a: auroc(*a), ([0, 0, 1], [0.1, 0.5, 0.4]), resamples=500, fewest=2)
    assert interval == slow


def test_difference_is_paired(data) -> None:
    y, score, groups = data
    noise = np.random.default_rng(3).normal(size=y.size)
    same = bootstrap_difference(auroc, y, score, score, groups, resamples=200)
    assert (same.difference.low, same.difference.high, same.p_value) == (0, 0, 1)
    worse = bootstrap_difference(auroc, y, score, noise, groups, resamples=500)
    assert worse.difference.low > 0
    assert worse.p_value < 0.05
    back = bootstrap_difference(auroc, y, noise, score, groups, resamples=500)
    assert back.difference.low == pytest.approx(-worse.difference.high)
    assert worse.difference.value == pytest.approx(worse.a - worse.b)


def test_bad_input_is_named(data) -> None:
    y, score, groups = data
    with pytest.raises(InputError, match="one length"):
        bootstrap_interval(auroc, (y, score[:-1]))
    with pytest.raises(InputError, match="groups"):
        bootstrap_interval(auroc, (y, score), groups[:-1])
    with pytest.raises(InputError, match="patients: got 1, expected 10"):
        bootstrap_interval(auroc, (y, score), np.zeros(y.size))
    with pytest.raises(InputError, match="patients: got 9"):
        bootstrap_difference(auroc, y, score, score, groups % 9)
    with pytest.raises(InputError, match="patients: got 1, expected 2"):
        bootstrap_interval(auroc, (y, score), np.zeros(y.size), fewest=0)
    with pytest.raises(InputError, match="both classes"):
        bootstrap_interval(auroc, (np.ones(19), np.arange(19.0)))
    with pytest.raises(InputError, match="resamples"):
        bootstrap_interval(auroc, (y, score), resamples=0)
    with pytest.raises(InputError, match="level"):
        bootstrap_intervals(lambda v: v[:2], (score,), level=95)


def test_many_numbers_have_the_interval_of_each(data) -> None:
    y, score, groups = data
    alone = bootstrap_interval(auroc, (y, score), groups, resamples=100)
    found = bootstrap_intervals(lambda *a: np.array([auroc(*a), np.nan, 1.0]), (y, score), groups, resamples=100)
    assert (found[0].value, found[0].low, found[0].high) == pytest.approx((alone.value, alone.low, alone.high))
    assert np.isnan([found[1].value, found[1].low, found[1].high]).all()
    assert found[1].undefined == 100
    assert (found[2].low, found[2].high, found[2].undefined) == (1, 1, 0)


def test_many_numbers_count_undefined_resamples() -> None:
    arrays = ([0, 0, 1], [0.1, 0.5, 0.4])
    alone = bootstrap_interval(auroc, arrays, resamples=200, fewest=2)
    (found,) = bootstrap_intervals(lambda *a: np.array([auroc(*a)]), arrays, resamples=200, fewest=2)
    assert found == alone
    with pytest.raises(InputError, match="no resample"):
        bootstrap_intervals(_never, ([0, 1, 0, 1], [1, 2, 3, 4]), resamples=5, fewest=2, seed=1)


def _never(y: np.ndarray, score: np.ndarray) -> np.ndarray:
    if len(set(score.tolist())) < 4:
        raise InputError("too few")
    return score
