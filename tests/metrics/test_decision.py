from __future__ import annotations

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.metrics.bootstrap import bootstrap_interval, bootstrap_intervals
from spicula.metrics.calibration import brier
from spicula.metrics.classification import counts_at
from spicula.metrics.decision import decision_curve, net_benefit


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.beta(1, 4, 400).round(2)
    return (rng.random(400) < p).astype(int), p


def test_by_counting(data) -> None:
    y, p = data
    curve = decision_curve(y, p)
    for t, model, everyone in zip(curve.threshold, curve.model, curve.treat_all, strict=True):
        counts = counts_at(y, p, threshold=t)
        assert model == pytest.approx((counts.true_positives - counts.false_positives * t / (1 - t)) / 400)
        assert everyone == pytest.approx((y.sum() - (1 - y).sum() * t / (1 - t)) / 400)
    assert net_benefit(y, p, threshold=0.3) == pytest.approx(curve.model[29])


def test_a_worked_example() -> None:
    # 1000 patients, 140 cancers; a test finds 120 of them and calls 260 others. At 10 %: 120 - 260 / 9, in 1000.
    y = np.repeat([1, 1, 0, 0], [120, 20, 260, 600])
    p = np.repeat([0.5, 0.05, 0.5, 0.05], [120, 20, 260, 600])
    curve = decision_curve(y, p, thresholds=[0.1])
    assert curve.model[0] == pytest.approx(0.120 - 0.260 / 9)
    assert curve.treat_all[0] == pytest.approx(0.140 - 0.860 / 9)
    # Nobody else would be worked up of 600 who are well and 20 who are not, each of these worth 9 work-ups.
    assert curve.interventions_avoided[0] == pytest.approx(0.600 - 0.020 * 9)


def test_identities(data) -> None:
    y, p = data
    share = y.mean()
    assert decision_curve(y, p, thresholds=[share]).treat_all[0] == pytest.approx(0)
    perfect = decision_curve(y, y.astype(float))
    assert perfect.model == pytest.approx(share)
    assert perfect.standardized == pytest.approx(1)
    curve = decision_curve(y, np.full(400, 0.999))
    assert curve.model == pytest.approx(curve.treat_all)
    assert (curve.gain <= 0).all()
    assert decision_curve(y, p * 0).model == pytest.approx(curve.treat_none)
    # Twice the area between a perfect model's curve and this one's, weighted by 1 - threshold, is the Brier score.
    fine = (np.arange(20_000) + 0.5) / 20_000
    lost = (1 - fine) * (share - decision_curve(y, p, thresholds=fine).model)
    assert 2 * lost.mean() == pytest.approx(brier(y, p).score, abs=1e-4)


def test_prevalence_of_a_case_control_set(data) -> None:
    y, p = data
    whole = decision_curve(y, p)
    weights = np.where(y == 1, 1, 5)
    many = decision_curve(np.repeat(y, weights), np.repeat(p, weights))
    told = decision_curve(y, p, prevalence=many.prevalence)
    assert told.model == pytest.approx(many.model)
    assert told.treat_all == pytest.approx(many.treat_all)
    assert decision_curve(y, p, prevalence=whole.prevalence).model == pytest.approx(whole.model)
    assert np.isnan(decision_curve(y, p, prevalence=0).standardized).all()


def test_one_class_and_the_band(data) -> None:
    y, p = data
    assert decision_curve([0, 0], [0.2, 0.6], thresholds=0.5).model[0] == pytest.approx(-0.5)
    assert decision_curve([1, 1], [0.2, 0.6], thresholds=0.5).model[0] == pytest.approx(0.5)
    at = [0.1, 0.3]
    band = bootstrap_intervals(lambda a, b: decision_curve(a, b, thresholds=at).model, (y, p), resamples=100)
    one = bootstrap_interval(lambda a, b: net_benefit(a, b, threshold=0.3), (y, p), resamples=100)
    assert (band[1].low, band[1].high) == pytest.approx((one.low, one.high))
    assert band[0].low < band[0].value < band[0].high


def test_bad_input_is_named(data) -> None:
    y, p = data
    for thresholds in ([0.0], [1.0], [[0.5]], [np.nan]):
        with pytest.raises(InputError, match="thresholds"):
            decision_curve(y, p, thresholds=thresholds)
    with pytest.raises(InputError, match="prevalence"):
        decision_curve(y, p, prevalence=2.0)
    with pytest.raises(InputError, match="both classes"):
        decision_curve([1, 1], [0.2, 0.3], prevalence=0.1)
    with pytest.raises(InputError, match="logits"):
        decision_curve(y, p * 9)
