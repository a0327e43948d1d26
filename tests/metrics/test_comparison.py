from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as oracle

from spicula.core.errors import InputError
from spicula.metrics.bootstrap import bootstrap_difference
from spicula.metrics.classification import auroc
from spicula.metrics.comparison import auroc_covariance, delong, mcnemar


def _plain(y: np.ndarray, scores: list[np.ndarray]) -> np.ndarray:
    """DeLong's covariance by comparing every pair."""
    above, below = [], []
    for s in scores:
        pairs = s[y == 1][:, None] - s[y == 0][None]
        kernel = (pairs > 0) + 0.5 * (pairs == 0)
        above.append(kernel.mean(axis=1))
        below.append(kernel.mean(axis=0))
    return np.cov(above) / (y == 1).sum() + np.cov(below) / (y == 0).sum()


def test_against_the_plain_form_and_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    a, b = (rng.normal(size=300) + y).round(1), (rng.normal(size=300) + 0.4 * y).round(1)
    areas, covariance = auroc_covariance(y, [a, b])
    assert areas == pytest.approx([auroc(y, a), auroc(y, b)])
    assert covariance == pytest.approx(_plain(y, [a, b]))
    result = delong(y, a, b)
    drawn = bootstrap_difference(auroc, y, a, b, resamples=3000).difference
    assert (result.low, result.high) == pytest.approx((drawn.low, drawn.high), abs=0.01)


def test_laws() -> None:
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1], 30)
    a, b = rng.normal(size=60) + y, rng.normal(size=60)
    there, back = delong(y, a, b), delong(y, b, a)
    assert there.difference == -back.difference
    assert there.p_value == pytest.approx(back.p_value)
    same = delong(y, a, 2 * a)
    assert (same.difference, same.p_value) == (0, 1)
    with pytest.raises(InputError, match="two rows"):
        delong([0, 1, 1], [1, 2, 3], [1, 2, 3])


def test_p_values_are_uniform_without_a_difference() -> None:
    rng = np.random.default_rng(2)
    y = np.repeat([0, 1], 60)
    p = [delong(y, rng.normal(size=120) + y, rng.normal(size=120) + y).p_value for _ in range(400)]
    assert np.mean(np.array(p) < 0.1) == pytest.approx(0.1, abs=0.05)


def _calls(counts: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat([1, 1, 0, 0], counts), np.repeat([1, 0, 1, 0], counts)


@pytest.mark.parametrize("counts", [(30, 9, 2, 4), (5, 40, 21, 7), (1, 0, 6, 0), (8, 3, 3, 0), (8, 1, 0, 0)])
def test_mcnemar_against_statsmodels(counts: tuple[int, int, int, int]) -> None:
    a, b = _calls(counts)
    found = mcnemar(np.ones(a.size), a, b)
    assert (found.both_right, found.only_a_right, found.only_b_right, found.both_wrong) == counts
    table = np.reshape(counts, (2, 2))
    assert found.p_value == pytest.approx(oracle(table, exact=True).pvalue)
    assert found.p_value == pytest.approx(stats.binomtest(counts[1], counts[1] + counts[2]).pvalue)
    if abs(counts[1] - counts[2]) >= 1:
        theirs = oracle(table, exact=False, correction=True)
        assert (found.statistic, found.p_chi_square) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert found.difference == pytest.approx(a.mean() - b.mean())
    assert found.p_mid <= found.p_value


def test_mcnemar_laws() -> None:
    rng = np.random.default_rng(3)
    y, a, b = rng.choice(["solid", "part-solid", "ground glass"], (3, 60))
    there, back = mcnemar(y, a, b), mcnemar(y, b, a)
    assert (there.p_value, there.p_mid, there.difference) == (back.p_value, back.p_mid, -back.difference)
    assert (y == a).mean() - (y == b).mean() == pytest.approx(there.difference)
    same = mcnemar(y, a, a)
    assert (same.statistic, same.p_value, same.p_chi_square, same.p_mid) == (0, 1, 1, 1)
    p = [mcnemar(np.ones(200), *(rng.random((2, 200)) < 0.8)).p_value for _ in range(300)]
    assert np.mean(np.array(p) < 0.1) <= 0.12


def test_mcnemar_refuses_scores_and_holes() -> None:
    with pytest.raises(InputError, match="are these scores"):
        mcnemar([0, 1, 1], [0.2, 0.7, 0.8], [0.1, 0.4, 0.9])
    with pytest.raises(InputError, match="call of model B of row 1"):
        mcnemar([0, 1], [0, 1], [0, np.nan])
    with pytest.raises(InputError, match="three"):
        mcnemar([0, 1], [0, 1], [0])
    assert mcnemar([1, 1], [0, 0], [0.0, 0.0]).both_wrong == 2
