from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
import pytest
from betacal import BetaCalibration as Betacal
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from spicula.core.errors import InputError
from spicula.metrics import calibration as c


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 500)
    y = (rng.uniform(0, 1, 500) < p**2).astype(float)
    assert y.sum() == 184
    return p, y


AT = np.array([0.01, 0.1, 0.5, 0.9, 0.99])


# The published oracle is a solver's that stops early (its likelihood is below ours): it is met to 0.3 %.
@pytest.mark.parametrize(
    ("form", "a", "b", "mapped"),
    [
        ("abm", 1.703653, 0.981449, [0.000219, 0.012002, 0.251276, 0.815951, 0.980380]),
        ("am", 1.243440, 1.243440, [0.001055, 0.020394, 0.242360, 0.830944, 0.989788]),
    ],
)
def test_published_oracle(data, form, a, b, mapped) -> None:
    fit = c.fit_beta(*data, form=form)
    assert (fit.a, fit.b) == (pytest.approx(a, rel=1e-3), pytest.approx(b, rel=1e-3))
    assert fit(AT) == pytest.approx(mapped, rel=3e-3, abs=1e-6)
    if form == "abm":
        assert fit.c == pytest.approx(-0.591222, abs=1e-3)
        assert fit.m == pytest.approx(0.703016, abs=1e-4)


def test_published_oracle_ab(data) -> None:
    fit = c.fit_beta(*data, form="ab")
    assert (fit.a, fit.b) == (pytest.approx(2.408023, abs=4e-3), pytest.approx(0.075930, abs=1e-3))
    assert fit(0.5) == pytest.approx(0.5)


@pytest.mark.parametrize("form", ["abm", "am", "ab"])
def test_betacal_agrees_and_is_never_likelier(data, form) -> None:
    p, y = data
    ours, theirs = c.fit_beta(p, y, form=form), Betacal(form)
    theirs.fit(p.reshape(-1, 1), y)
    assert ours(AT) == pytest.approx(theirs.predict(AT), abs=1e-3)

    def likelihood(q: np.ndarray) -> float:
        return float(np.sum(y * np.log(q) + (1 - y) * np.log(1 - q)))

    assert likelihood(ours(p)) >= likelihood(theirs.predict(p)) - 1e-9


def test_a_negative_weight_is_dropped() -> None:
    rng = np.random.default_rng(4)
    p = rng.uniform(0.02, 0.98, 3000)
    y = rng.random(3000) < 1 / (1 + np.exp(-(-0.5 * np.log(p) - 2 * np.log(1 - p) - 1.5)))
    fit = c.fit_beta(p, y)
    assert fit.a == 0
    assert fit.b > 0
    assert (np.diff(fit(np.linspace(0, 1, 99))) >= 0).all()


@pytest.mark.parametrize("form", ["abm", "am", "ab"])
def test_a_falling_map_is_refused(data, form) -> None:
    p, y = data
    with pytest.raises(InputError, match="inverted"):
        c.fit_beta(1 - p, y, form=form)


@pytest.mark.parametrize("form", ["abm", "am", "ab"])
@pytest.mark.parametrize("seed", range(4))
def test_no_fit_ever_falls(form, seed: int) -> None:
    """Scores that say little or the reverse: a rising map or a refusal, in every form."""
    rng = np.random.default_rng(seed)
    fits = []
    for strength in (-3.0, -0.5, 0.0, 0.3, 1.0, 3.0):
        p = rng.beta(*rng.uniform(0.3, 3, 2), 120).round(2)
        y = rng.random(120) < 1 / (1 + np.exp(-strength * 4 * (p - 0.5) - rng.normal()))
        with suppress(InputError):
            fits.append(c.fit_beta(p, y, form=form))
    assert fits
    for fit in fits:
        assert min(fit.a, fit.b) >= 0
        assert (np.diff(fit(np.linspace(0, 1, 201))) >= 0).all()
        if form == "ab":
            assert fit(0.5) == pytest.approx(0.5)
    with pytest.raises(InputError, match="inverted"):
        y = rng.random(2000) < (p := rng.random(2000))
        c.fit_beta(p, ~y, form=form)


def test_where_betacal_falls_we_refuse(data) -> None:
    """The trap: its refit after dropping a weight is not looked at again."""
    p, y = data
    theirs = Betacal("abm")
    theirs.fit(p.reshape(-1, 1), 1 - y)
    assert (np.diff(theirs.predict(np.linspace(0.05, 0.95, 20))) < 0).all()
    with pytest.raises(InputError, match="inverted"):
        c.fit_beta(p, 1 - y)


def test_a_negative_weight_is_dropped_in_the_form_without_intercept() -> None:
    rng = np.random.default_rng(6)
    p = rng.uniform(0.02, 0.98, 4000)
    logit = -0.4 * np.log(2 * p) - 2.5 * np.log(2 * (1 - p))
    y = rng.random(4000) < 1 / (1 + np.exp(-logit))
    fit = c.fit_beta(p, y, form="ab")
    alone = LogisticRegression(C=1e12, tol=1e-10, fit_intercept=False).fit(-np.log(2 * (1 - p)).reshape(-1, 1), y)
    assert (fit.a, fit.b) == (0, pytest.approx(alone.coef_[0, 0], rel=1e-4))
    assert fit(0.5) == pytest.approx(0.5)


def test_one_probability_alone_has_no_map() -> None:
    for form in ("abm", "am", "ab"):
        with pytest.raises(InputError, match="two different"):
            c.fit_beta([0.3, 0.3, 0.3], [0, 1, 0], form=form)


def test_weights_are_repeated_rows(data) -> None:
    p, y = data
    weights = np.random.default_rng(2).integers(0, 3, p.size)
    weighted = c.fit_beta(p, y, weights=weights)
    repeated = c.fit_beta(np.repeat(p, weights), np.repeat(y, weights))
    assert weighted(AT) == pytest.approx(repeated(AT), rel=1e-6)


def test_separated_data_stay_finite_and_ends_are_mapped() -> None:
    fit = c.fit_beta([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])
    assert np.isfinite([fit.a, fit.b, fit.c]).all()
    out = fit([0.0, 1.0])
    assert out[0] < 0.01
    assert out[1] > 0.99


def test_ends_are_kept_off_by_the_dtype() -> None:
    identity = c.BetaCalibration(1.0, 1.0, 0.0)
    assert identity(np.float32([1.0]))[0] == pytest.approx(1 - np.finfo(np.float32).eps, abs=1e-9)
    assert identity(np.array([0]))[0] == pytest.approx(np.finfo(np.float64).eps)


def test_json_round_trip(data) -> None:
    fit = c.fit_beta(*data)
    assert c.BetaCalibration.from_json(json.loads(json.dumps(fit.to_json()))) == fit
    with pytest.raises(InputError, match="a, b and c"):
        c.BetaCalibration.from_json({"a": 1.0})
    for form in ("abm", "am", "ab"):
        fit = c.fit_beta(*data, form=form)
        back = c.BetaCalibration.from_json(json.loads(json.dumps(fit.to_json())))
        assert (back(AT) == fit(AT)).all()
    for record in ({"a": "1", "b": 1, "c": 0}, {"a": None, "b": 1, "c": 0}, {"a": True, "b": 1, "c": 0}):
        with pytest.raises(InputError, match=r"calibration, a: .* expected a number"):
            c.BetaCalibration.from_json(record)
    with pytest.raises(InputError, match="a, b and c"):
        c.BetaCalibration.from_json([1.0, 1.0, 0.0])
    for record in ({"a": -1.0, "b": 2.0, "c": 0.0}, {"a": 0, "b": 0, "c": 1}, {"a": 1.0, "b": 1.0, "c": np.nan}):
        with pytest.raises(InputError, match="rising"):
            c.BetaCalibration.from_json(record)
    assert c.BetaCalibration(0.0, 1.0, 2.0).m is None


def test_ece_by_hand() -> None:
    y, p = [0, 1, 1, 1], [0.1, 0.3, 0.6, 0.8]
    assert c.expected_calibration_error(y, p, bins=2) == pytest.approx((0.3 + 0.3) / 2)
    assert c.expected_calibration_error(y, p, bins=4, mass="by_width") == pytest.approx((0.1 + 0.7 + 0.4 + 0.2) / 4)


def test_ece_does_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(5)
    p = rng.random(200).round(1)
    y = rng.integers(0, 2, 200)
    turn = rng.permutation(200)
    for mass in ("equal", "by_width"):
        assert c.expected_calibration_error(y, p, mass=mass) == pytest.approx(
            c.expected_calibration_error(y[turn], p[turn], mass=mass)
        )
    assert c.reliability(y, p).count.tolist() == [20] * 10
    assert c.expected_calibration_error([0, 1], [0.5, 0.5]) == 0


def test_the_band_of_the_diagram_is_wilsons(data) -> None:
    p, y = data
    points = c.reliability(y, p, bins=7)
    for low, high, share, count in zip(*points.band(level=0.9), points.observed, points.count, strict=True):
        theirs = stats.binomtest(round(share * count), int(count)).proportion_ci(0.9, method="wilson")
        assert (low, high) == pytest.approx((theirs.low, theirs.high))
    none = c.reliability([0, 0, 1], [0.1, 0.1, 0.9], bins=2, mass="by_width").band()
    assert none[0][0] == 0
    assert none[1][1] == 1


def test_brier_adds_up(data) -> None:
    p, y = data
    for mass in ("equal", "by_width"):
        parts = c.brier(y, p, mass=mass)
        assert parts.score == pytest.approx(brier_score_loss(y, p))
        whole = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins
        assert whole == pytest.approx(parts.score)
    exact = c.brier(y, p.round(1).clip(0.05, 0.95), bins=1000, mass="by_width")
    assert exact.within_bins == pytest.approx(0, abs=1e-12)


def test_calibration_line_against_scikit_learn(data) -> None:
    p, y = data
    line = c.calibration_line(y, p)
    fit = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(np.log(p / (1 - p)).reshape(-1, 1), y)
    assert line.slope == pytest.approx(fit.coef_[0, 0], rel=1e-4)
    assert line.intercept == pytest.approx(fit.intercept_[0], rel=1e-4)
    # Mended by its own line, a model is calibrated.
    mended = 1 / (1 + np.exp(-(line.slope * np.log(p / (1 - p)) + line.intercept)))
    again = c.calibration_line(y, mended)
    assert (again.slope, again.intercept, again.in_the_large) == pytest.approx((1, 0, 0), abs=1e-6)


def test_bad_input_is_named(data) -> None:
    p, y = data
    with pytest.raises(InputError, match="logits"):
        c.expected_calibration_error(y, p * 3)
    with pytest.raises(InputError, match="bins"):
        c.reliability(y, p, bins=0)
    with pytest.raises(InputError, match="weights"):
        c.fit_beta(p, y, weights=-np.ones(p.size))
    with pytest.raises(InputError, match="both classes"):
        c.fit_beta(p, np.ones(p.size))
    with pytest.raises(InputError, match="form"):
        c.fit_beta(p, y, form="b")  # type: ignore[arg-type]
