from __future__ import annotations

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.metrics.bootstrap import bootstrap_difference
from spicula.metrics.classification import auroc
from spicula.metrics.comparison import auroc_covariance, delong


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
