from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.metrics import froc


def _points(path: Path, *, delimiter: str = ",", pad: bool = False) -> froc.Points:
    with gzip.open(path, "rt", newline="") as stream:
        rows = [row for row in csv.reader(stream, delimiter=delimiter) if row]
    if not rows[0][1].lstrip("-").replace(".", "", 1).isdigit():
        rows = rows[1:]
    scan = np.array([r[0].zfill(5) if pad else r[0] for r in rows])
    numbers = np.array([[float(v) for v in r[1:5]] for r in rows])
    return froc.Points(scan, numbers[:, :3], numbers[:, 3])


@pytest.fixture(scope="module")
def oracle(shared: Path) -> tuple[froc.Points, froc.Points, froc.Points, list[str]]:
    root = shared / "luna16" / "oracle"
    with gzip.open(root / "newseriesuids.csv.gz", "rt") as stream:
        scans = [line.strip().zfill(5) for line in stream if line.strip()]
    return (
        _points(root / "dpn26bs32.csv.gz", delimiter="\t", pad=True),
        _points(root / "newannotations.csv.gz", pad=True),
        _points(root / "newannotations_excluded.csv.gz", pad=True),
        scans,
    )


@pytest.mark.shared
def test_luna16_golden_score(oracle) -> None:
    marks, nodules, excluded, scans = oracle
    assert (len(scans), nodules.scan.size, excluded.scan.size, marks.scan.size) == (888, 1186, 35192, 55677)
    score = froc.luna16(marks, nodules, excluded, scans)
    assert [round(s.value, 4) for s in score.sensitivity] == [0.6922, 0.7690, 0.8238, 0.8651, 0.8929, 0.9174, 0.9334]
    assert round(score.mean.value, 5) == 0.84197
    counts = score.counts
    assert (counts.true_positives, counts.false_negatives, counts.false_positives) == (1136, 50, 46078)
    assert (counts.irrelevant, counts.double, counts.marks, counts.scans) == (5308, 186, 52708, 888)
    # The published interval, of other draws: 0.8116 to 0.8678.
    assert score.mean.low == pytest.approx(0.8116, abs=0.004)
    assert score.mean.high == pytest.approx(0.8678, abs=0.004)


@pytest.mark.shared
def test_luna16_variants(oracle) -> None:
    marks, nodules, excluded, scans = oracle
    no_limit = froc.match(marks, nodules, scans, excluded=excluded)
    counts = no_limit.counts
    assert (counts.false_positives, counts.irrelevant, counts.double, counts.marks) == (48907, 5444, 190, 55677)
    assert round(froc.sensitivity_at(no_limit).mean(), 5) == 0.84197
    wrong = froc.sensitivity_at(froc.match(marks, nodules, scans, max_marks=100))
    assert [round(v, 4) for v in wrong] == [0.4722, 0.5868, 0.6804, 0.7833, 0.8499, 0.8954, 0.9275]
    limited = froc.match(marks, nodules, scans, excluded=excluded, max_marks=100)
    assert round(froc.sensitivity_at(limited, np.linspace(0.125, 8, 10001)).mean(), 4) == 0.9047


def _toy() -> tuple[froc.Points, froc.Points, list[str]]:
    marks = froc.Points(
        np.array(["a", "a", "a", "b"]), np.array([[0, 0, 0], [1, 0, 0], [50, 0, 0], [9, 9, 9]]), np.array([9, 8, 7, 6])
    )
    findings = froc.Points(np.array(["a", "b"]), np.array([[0, 0, 0], [0, 0, 0]]), np.array([10.0, 10.0]))
    return marks, findings, ["a", "b", "c", "d"]


def test_matching_by_hand() -> None:
    marks, findings, scans = _toy()
    response = froc.match(marks, findings, scans)
    assert response.counts == froc.FreeResponseCounts(1, 1, 2, 0, 1, 4, 0, 4)
    assert froc.sensitivity_at(response, [0.0, 0.25, 8.0]).tolist() == [0.5, 0.5, 0.5]
    rate, sensitivity = froc.free_response_curve(response)
    assert rate.tolist() == [0, 0, 0.25, 0.5]
    assert sensitivity.tolist() == [0, 0.5, 0.5, 0.5]


def test_a_mark_on_the_radius_is_no_hit() -> None:
    findings = froc.Points(np.array(["a"]), np.zeros((1, 3)), np.array([10.0]))
    on = froc.Points(np.array(["a"]), np.array([[5.0, 0, 0]]), np.ones(1))
    inside = froc.Points(np.array(["a"]), np.array([[4.999, 0, 0]]), np.ones(1))
    assert froc.match(on, findings, ["a"]).counts.true_positives == 0
    assert froc.match(inside, findings, ["a"]).counts.true_positives == 1
    assert froc.match(on, findings, ["a"], within_mm=6.0).counts.true_positives == 1


def test_excluded_findings_of_unknown_size_are_10_mm() -> None:
    marks, findings, scans = _toy()
    excluded = froc.Points(np.array(["a"]), np.array([[54.0, 0, 0]]), np.array([-1.0]))
    counts = froc.match(marks, findings, scans, excluded=excluded).counts
    assert (counts.irrelevant, counts.false_positives) == (1, 1)


def test_limit_drops_ties_with_the_next_mark() -> None:
    marks = froc.Points(np.array(["a"] * 4), np.zeros((4, 3)) + 99, np.array([0.9, 0.5, 0.5, 0.1]))
    findings = froc.Points(np.array(["a"]), np.zeros((1, 3)), np.array([10.0]))
    assert froc.match(marks, findings, ["a"], max_marks=2).counts.marks == 1
    assert froc.match(marks, findings, ["a"], max_marks=3).counts.marks == 3


def test_bootstrap_is_seeded_and_holds_the_value() -> None:
    rng = np.random.default_rng(3)
    scans = [str(i) for i in range(40)]
    findings = froc.Points(np.array(scans), rng.uniform(0, 300, (40, 3)), np.full(40, 12.0))
    hit = rng.random(40) < 0.7
    centers = np.concatenate([findings.center_xyz_mm[hit], rng.uniform(0, 300, (200, 3))])
    names = np.concatenate([findings.scan[hit], rng.choice(scans, 200)])
    marks = froc.Points(names, centers, np.concatenate([rng.normal(1, 1, hit.sum()), rng.normal(0, 1, 200)]))
    response = froc.match(marks, findings, scans)
    score = froc.free_response_score(response, rates=(1, 4, 8), resamples=300)
    assert score == froc.free_response_score(response, rates=(1, 4, 8), resamples=300)
    for interval in (*score.sensitivity, score.mean):
        assert interval.low <= interval.value <= interval.high
    # Every scan its own patient is the same as no patients at all.
    assert score == froc.free_response_score(response, rates=(1, 4, 8), resamples=300, groups=sorted(range(40)))


def test_bootstrap_counts_are_those_of_repeated_scans() -> None:
    marks, findings, scans = _toy()
    response = froc.match(marks, findings, scans)
    drawn = np.array([[2, 1, 0, 1]], dtype=np.int32)
    pick = [0, 0, 1, 3]
    twice = [f"{scans[i]}{n}" for n, i in enumerate(pick)]

    def repeated(points: froc.Points) -> froc.Points:
        rows = [(j, f"{scans[i]}{n}") for n, i in enumerate(pick) for j in np.flatnonzero(points.scan == scans[i])]
        index = [j for j, _ in rows]
        return froc.Points(np.array([name for _, name in rows]), points.center_xyz_mm[index], points.value[index])

    again = froc.match(repeated(marks), repeated(findings), twice)
    rates = np.array([0.1, 0.25, 0.6])
    assert froc._sensitivities(froc._Steps.of(response), rates, drawn)[0] == pytest.approx(
        froc.sensitivity_at(again, rates)
    )


def test_no_marks_is_no_sensitivity() -> None:
    _, findings, scans = _toy()
    assert froc.sensitivity_at(froc.match(froc.NO_POINTS, findings, scans)).tolist() == [0.0] * 7


def test_bad_input_is_named() -> None:
    marks, findings, scans = _toy()
    with pytest.raises(InputError, match="leading zeros"):
        froc.match(marks, findings, ["0a", "0b"])
    with pytest.raises(InputError, match="each once"):
        froc.match(marks, findings, ["a", "a"])
    with pytest.raises(InputError, match="findings"):
        froc.match(marks, froc.NO_POINTS, scans)
    with pytest.raises(InputError, match="not finite"):
        froc.Points(np.array(["a"]), np.array([[0, np.nan, 0]]), np.ones(1))
    with pytest.raises(InputError, match="rates"):
        froc.sensitivity_at(froc.match(marks, findings, scans), [-1.0])
    with pytest.raises(InputError, match="groups"):
        froc.free_response_score(froc.match(marks, findings, scans), groups=[0, 1])


def _many(n: int) -> tuple[froc.FreeResponse, list[str]]:
    rng = np.random.default_rng(n)
    scans = [str(i) for i in range(n)]
    findings = froc.Points(np.array(scans), rng.uniform(0, 300, (n, 3)), np.full(n, 12.0))
    names = np.concatenate([scans, rng.choice(scans, 10 * n)])
    centers = np.concatenate([findings.center_xyz_mm, rng.uniform(0, 300, (10 * n, 3))])
    score = np.concatenate([rng.normal(1, 1, n), rng.normal(0, 1, 10 * n)]).round(1)
    return froc.match(froc.Points(names, centers, score), findings, scans), scans


def test_band_is_the_interval_at_each_rate() -> None:
    response, scans = _many(30)
    groups = [int(s) // 2 for s in scans]
    score = froc.free_response_score(response, rates=(0.5, 2, 8), resamples=200, seed=4, groups=groups)
    band = froc.free_response_band(response, rates=(0.5, 2, 8), resamples=200, seed=4, groups=groups)
    for number, interval in enumerate(score.sensitivity):
        expected = (interval.value, interval.low, interval.high)
        assert (band.sensitivity[number], band.low[number], band.high[number]) == pytest.approx(expected)
    whole = froc.free_response_band(response, resamples=20)
    assert set(froc.LUNA16_RATES) <= set(whole.rates.round(12))
    assert (np.diff(whole.sensitivity) >= 0).all()


def test_steps_give_the_very_numbers_of_the_whole_curve() -> None:
    rng = np.random.default_rng(0)
    rates = np.array([0, 0.1, 0.125, 0.5, 1, 8.0])
    for _ in range(40):
        n, scans = int(rng.integers(1, 60)), int(rng.integers(2, 8))
        score, hit = rng.integers(0, 12, n).astype(float), rng.random(n) < 0.4
        scan, findings = rng.integers(0, scans, n), rng.integers(0, 6, scans) + 1
        response = froc.FreeResponse(score, hit, scan, findings, froc.FreeResponseCounts(0, 0, 0, 0, 0, 0, 0, scans))
        drawn = rng.multinomial(scans, np.full(scans, 1 / scans), 5).astype(np.int32)
        found = froc._sensitivities(froc._Steps.of(response), rates, drawn)
        for row, times in zip(found, drawn, strict=True):
            curve = [(0.0, 0.0)]
            for least in sorted(set(score), reverse=True):
                called = times[scan] * (score >= least)
                curve.append(((called * ~hit).sum() / times.sum(), (called * hit).sum() / (times @ findings)))
            assert row.tolist() == np.interp(rates, *np.array(curve).T).tolist()


def test_few_scans_have_no_interval() -> None:
    response, _ = _many(9)
    with pytest.raises(InputError, match="got 9, expected 10 or more"):
        froc.free_response_score(response, resamples=10)
    assert froc.free_response_score(response, resamples=10, fewest=2).mean.resamples == 10
    with pytest.raises(InputError, match="0 resamples"):
        froc.free_response_score(response, resamples=0)
    with pytest.raises(InputError, match="level 2"):
        froc.free_response_band(response, level=2)
