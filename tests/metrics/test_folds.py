from __future__ import annotations

import itertools

import numpy as np
import pytest
from scikit_posthocs import posthoc_nemenyi_friedman
from scipy import stats

from spicula.core.errors import InputError
from spicula.metrics.folds import friedman, signed_rank, t_interval


def test_t_interval_against_scipy() -> None:
    values = np.random.default_rng(0).normal(0.88, 0.02, 5)
    found = t_interval(values, level=0.9)
    low, high = stats.t.interval(0.9, 4, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.standard_error == pytest.approx(stats.sem(values))
    same = t_interval([0.5, 0.5])
    assert (same.low, same.high, same.standard_deviation) == (0.5, 0.5, 0)


def test_t_interval_covers() -> None:
    rng = np.random.default_rng(1)
    hits = [t.low <= 0 <= t.high for t in (t_interval(rng.normal(size=5), level=0.8) for _ in range(600))]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("n", [3, 5, 8, 20])
def test_signed_rank_is_scipys_exact_one(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.3, 1, n), rng.normal(size=n)
    found, theirs = signed_rank(a, b), stats.wilcoxon(a, b, method="exact")
    assert (found.statistic, found.p_value) == (theirs.statistic, pytest.approx(theirs.pvalue))
    assert found.exact
    assert found.smallest_p == pytest.approx(2 / 2**n)
    assert found.rank_sum_a + found.rank_sum_b == n * (n + 1) / 2


@pytest.mark.parametrize("seed", range(6))
def test_signed_rank_with_ties_counts_all_sign_patterns(seed: int) -> None:
    difference = np.random.default_rng(seed).integers(-3, 4, 9).astype(float)
    kept = difference[difference != 0]
    ranks = stats.rankdata(np.abs(kept))
    low = min(ranks[kept > 0].sum(), ranks[kept < 0].sum())
    sums = [ranks[list(s)].sum() for s in itertools.product([False, True], repeat=kept.size)]
    at_most = np.mean([min(s, ranks.sum() - s) <= low for s in sums])
    found = signed_rank(difference, np.zeros(9))
    assert found.p_value == pytest.approx(at_most)
    assert (found.pairs, found.ties) == (kept.size, 9 - kept.size)


def test_signed_rank_of_many_pairs_is_normal() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(0.2, 1, 80).round(1), rng.normal(size=80).round(1)
    found = signed_rank(a, b)
    theirs = stats.wilcoxon((a - b).round(6), method="asymptotic", correction=False)
    assert (found.statistic, found.p_value) == (theirs.statistic, pytest.approx(theirs.pvalue))
    assert not found.exact


def test_signed_rank_laws() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.random(7), rng.random(7)
    assert signed_rank(a, b).p_value == signed_rank(b, a).p_value
    assert signed_rank(a, b).rank_sum_a == signed_rank(b, a).rank_sum_b
    assert signed_rank(a, a).p_value == 1
    # Differences that are equal but for the last bit share their rank.
    assert signed_rank([0.9, 0.8, 0.7], [0.8, 0.7, 0.8]).rank_sum_b == 2


@pytest.mark.parametrize(("folds", "models", "digits"), [(5, 3, 3), (5, 4, 1), (12, 6, 2)])
def test_friedman_and_nemenyi_against_others(folds: int, models: int, digits: int) -> None:
    rng = np.random.default_rng(folds * models)
    scores = (rng.normal(size=(folds, models)) + 0.5 * np.arange(models)).round(digits)
    found, theirs = friedman(scores), stats.friedmanchisquare(*scores.T)
    assert (found.statistic, found.p_value) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert found.pairwise_p == pytest.approx(posthoc_nemenyi_friedman(scores).to_numpy(), abs=1e-6)
    assert found.mean_rank == pytest.approx(stats.rankdata(-scores, axis=1).mean(axis=0))
    turn = rng.permutation(models)
    assert friedman(scores[:, turn]).pairwise_p == pytest.approx(found.pairwise_p[np.ix_(turn, turn)])


def test_p_values_of_the_published_ablation() -> None:
    """arXiv:2504.21344, table A.5: three models in five folds leave Nemenyi only these p-values."""
    printed = {"0.946", "0.609", "0.254", "0.139", "0.069", "0.031", "0.012", "0.004"}
    orders = list(itertools.permutations(range(3)))
    seen = {1.0}
    for folds in itertools.combinations_with_replacement(orders, 5):
        seen |= set(friedman(np.array(folds)).pairwise_p.ravel().tolist())
    assert printed <= {f"{p:.3f}" for p in seen}
    assert len(seen) == 11  # one for each distance of two rank sums, 0 to 10
    # Two models: 0.063 where one is ahead in all five, 0.125 where it is behind in the closest fold alone.
    assert signed_rank([5, 4, 3, 2, 1], [0, 0, 0, 0, 0]).p_value == 0.0625
    assert signed_rank([5, 4, 3, 2, -1], [0, 0, 0, 0, 0]).p_value == 0.125


def test_all_equal_and_the_critical_difference() -> None:
    found = friedman(np.ones((4, 3)))
    assert (found.statistic, found.p_value) == (0, 1)
    assert (found.pairwise_p == 1).all()
    # Demsar 2006, table 5a: q at 0.05 is 2.343 for three and 2.728 for five models (over the root of two).
    assert friedman(np.eye(3)[[0, 1, 2, 0, 1]]).critical_difference() == pytest.approx(
        2.343 * (12 / 30) ** 0.5, rel=1e-3
    )
    five = friedman(np.random.default_rng(0).random((10, 5)))
    assert five.critical_difference() == pytest.approx(2.728 * (30 / 60) ** 0.5, rel=1e-3)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="2 or more"):
        t_interval([0.5])
    with pytest.raises(InputError, match="level"):
        t_interval([0.5, 0.6], level=95)
    with pytest.raises(InputError, match="value 1"):
        t_interval([0.5, np.nan])
    with pytest.raises(InputError, match="as many"):
        signed_rank([1, 2], [1])
    with pytest.raises(InputError, match="signed_rank"):
        friedman(np.ones((5, 2)))
    with pytest.raises(InputError, match="shape"):
        t_interval([[0.5, 0.6]])
