from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spicula.datasets.insertion import Insertion
from spicula.metrics.froc import sensitivity_at
from spicula.pipelines import evaluate_detection
from spicula.pipelines.evaluate_detection import Trial, Truth


def some_trials(scan: str = "s", seed: int = 0, copies: int = 4) -> list[Trial]:
    """Twelve nodules a copy, three in four of them found, and sixty false findings that score lower."""
    rng = np.random.default_rng(seed)
    trials = []
    for copy in range(copies):
        truths = tuple(
            Truth(
                f"{copy}-{n}", f"P{copy}-{n // 2}", (30.0 * n, 0.0, 0.0), float(rng.uniform(4, 20)), 1.0 + 4 * (n % 2)
            )
            for n in range(12)
        )
        known = (Truth("label", scan, (0.0, 300.0, 0.0), 20.0, 5.0),)
        found = [((30.0 * n, 1.0, 0.0), float(rng.beta(4, 2))) for n in range(12) if rng.random() < 0.75]
        found += [((30.0 * n, 1.5, 0.0), float(rng.beta(2, 2))) for n in range(3)]
        found += [((30.0 * n, 100.0, 0.0), float(rng.beta(1.5, 4))) for n in range(60)]
        found += [((1.0, 301.0, 0.0), 0.99)]
        trials.append(Trial(scan, f"{scan}-{copy}", truths, known, tuple(found)))
    return trials


@pytest.mark.parametrize("keep", [None, lambda n: n.diameter_mm < 10])
def test_outcomes_are_those_of_the_official_matching(keep: object) -> None:
    trials = some_trials()
    response, found = evaluate_detection.matched(trials, keep=keep), evaluate_detection.outcomes(trials, keep=keep)
    np.testing.assert_array_equal(np.sort(found.best[np.isfinite(found.best)]), np.sort(response.score[response.hit]))
    np.testing.assert_array_equal(np.sort(found.false), np.sort(response.score[~response.hit]))
    assert len(found.best) == response.findings.sum()
    expected = sensitivity_at(response, evaluate_detection.RATES)
    ones = np.ones(len(found.best)), np.ones(len(found.scans))
    np.testing.assert_allclose(evaluate_detection._sensitivity(found, *ones), expected)


def test_intervals_hold_the_value_and_count_patients() -> None:
    rates = evaluate_detection.summary(some_trials())["all"]
    assert (rates["nodules"], rates["patients"], rates["copies"]) == (48, 24, 4)
    for rate in evaluate_detection.RATES:
        row = rates[f"sensitivity at {rate:g} false a scan"]
        assert row["interval_95"][0] <= row["value"] <= row["interval_95"][1]


def test_the_operating_point_keeps_its_promise() -> None:
    trials, unchanged = some_trials(copies=20), {"slope": 1.0, "intercept": 0.0}
    found = evaluate_detection.outcomes(trials)
    for rate in (1.0, 4.0, 30.0):
        point = evaluate_detection.operating_point(trials, unchanged, false_a_scan=rate)
        false = (found.false >= point["least_score"]).sum() / len(trials)
        assert rate - 0.2 < false <= rate
        assert point["false_a_scan"] == pytest.approx(false, abs=1e-3)
        assert point["sensitivity"] == pytest.approx((found.best >= point["least_score"]).mean(), abs=1e-3)


def test_calibration_is_checked_on_the_scan_that_it_did_not_see() -> None:
    alike = evaluate_detection.calibration_check(some_trials("a", 1, 30) + some_trials("b", 2, 30))
    for row in alike.values():
        expected = row["true findings a scan, expected"]
        assert expected == pytest.approx(row["true findings a scan, found"], rel=0.25)
        assert row["expected calibration error"] < 0.03


def test_the_place_of_each_inserted_nodule_is_kept(tmp_path: Path) -> None:
    turn = ((0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    placed = Insertion("LIDC-IDRI-0003_1", "LIDC-IDRI-0003", "lung1", (1.0, 2.0, 3.0), turn)
    truth = Truth("LIDC-IDRI-0003_1", "LIDC-IDRI-0003", (1.1, 2.0, 3.0), 8.0, 5.0, placed)
    trials = [Trial("lung1", "lung1-0", (truth,), (), (((1.0, 2.0, 3.0), 0.5),))]
    evaluate_detection.write_trials(tmp_path / "trials.json", trials)
    assert evaluate_detection.read_trials(tmp_path / "trials.json") == trials
