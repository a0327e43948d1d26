"""Rows, scores, diameters, excluded findings and coverage on small made-up sets."""

from __future__ import annotations

import numpy as np
import pytest

from spicula.metrics.doctor import coverage, rows, scores, truth
from spicula.metrics.doctor.complaint import Complaint, some_of, worst_first
from spicula.metrics.hits import NO_POINTS, Points, match

SCANS = [f"s{n}" for n in range(40)]


def some_truth() -> Points:
    """Three nodules in each of 30 scans."""
    names = np.repeat(SCANS[:30], 3)
    centers = np.tile([[0.0, 0, 0], [60, 0, 0], [0, 60, 0]], (30, 1)) + np.arange(90)[:, None]
    return Points(names, centers, np.full(90, 8.0))


def some_marks(seed: int = 0) -> Points:
    """Most nodules, scored above twelve false marks a scan."""
    rng = np.random.default_rng(seed)
    nodules = some_truth()
    hit = rng.random(90) < 0.9
    names = np.append(nodules.scan[hit], np.repeat(SCANS, 12))
    false = rng.uniform(200, 400, (480, 3))
    places = np.vstack([nodules.center_xyz_mm[hit] + rng.normal(0, 0.4, (int(hit.sum()), 3)), false])
    return Points(names, places, np.append(rng.beta(5, 2, int(hit.sum())), rng.beta(2, 5, 480)))


def scored(points: Points, value: np.ndarray) -> Points:
    return Points(points.scan, points.center_xyz_mm, value)


def kept(points: Points, keep: np.ndarray) -> Points:
    return Points(points.scan[keep], points.center_xyz_mm[keep], points.value[keep])


def codes(complaints: tuple[Complaint, ...]) -> list[str]:
    return [f"{c.severity} {c.code}" for c in complaints]


def test_a_sound_set_draws_nothing() -> None:
    marks, nodules = some_marks(), some_truth()
    response = match(marks, nodules, SCANS, max_marks=100)
    assert scores.value_complaints(marks.value) == ()
    assert scores.order_complaints(response) == ()
    assert scores.curve_complaints(response) == ()
    assert rows.row_complaints(marks, max_marks=100) == ()
    assert rows.hit_complaints(response) == ()
    assert truth.diameter_complaints(nodules, marks, luna16=False) == ()
    assert truth.excluded_complaints(NO_POINTS, nodules, SCANS, given=False, luna16=False) == ()
    assert truth.confident_false_complaints(response, excluded=False) == ()
    assert coverage.list_complaints(SCANS, nodules, marks) == ()
    assert coverage.coverage_complaints(marks, nodules, SCANS) == ()


def test_scores_by_themselves() -> None:
    assert codes(scores.value_complaints(np.array([3.0, 97.0]))) == ["note scores.percent"]
    assert codes(scores.value_complaints(np.array([-3.0, 7.0]))) == ["note scores.logits"]
    assert codes(scores.value_complaints(np.array([0.5, 0.5]))) == ["error scores.constant"]
    assert scores.value_complaints(np.array([0.0, 1.0])) == scores.value_complaints(np.zeros(0)) == ()


def test_scores_in_the_wrong_order() -> None:
    marks, nodules = some_marks(), some_truth()

    def seen(value: np.ndarray) -> list[str]:
        return codes(scores.order_complaints(match(scored(marks, value), nodules, SCANS)))

    assert seen(1 - marks.value) == ["error scores.inverted"]
    assert "error scores.unordered" in seen(np.random.default_rng(0).permutation(marks.value))
    assert seen(marks.value.round()) == ["error scores.tied"]
    assert seen(np.minimum(marks.value, 0.6)) == ["warning scores.tied"]


def test_inverted_scores_tell_what_they_would_score() -> None:
    marks, nodules = some_marks(), some_truth()
    inverted = match(scored(marks, -marks.value), nodules, SCANS)
    told = scores.order_complaints(inverted, turned=lambda: match(marks, nodules, SCANS))[0]
    assert float(told.evidence["cpm_turned"]) > 0.6  # type: ignore[arg-type]
    assert "with the sign of the scores turned" in told.problem


def test_false_positives_at_the_top() -> None:
    marks, nodules = some_marks(), some_truth()
    value = marks.value.copy()
    value[-120:] += 1 + np.arange(120) / 1000
    response = match(scored(marks, value), nodules, SCANS)
    assert codes(scores.order_complaints(response)) == ["warning scores.top-is-false"]


def test_a_curve_that_stops() -> None:
    marks, nodules = some_marks(), some_truth()
    response = match(kept(marks, marks.value > 0.4), nodules, SCANS)
    told = scores.curve_complaints(response)
    assert codes(told) == ["warning curve.stops"]
    assert list(told[0].evidence["rates"]) == ["4", "8"]  # type: ignore[arg-type]
    assert "is repeated" in told[0].problem
    assert scores.curve_complaints(match(NO_POINTS, nodules, SCANS)) == ()


def test_rows_more_than_once() -> None:
    marks = some_marks()
    n = marks.scan.size
    twice = kept(marks, np.tile(np.arange(n), 2))
    assert codes(rows.row_complaints(twice, max_marks=100)) == ["error rows.duplicated"]
    one = kept(marks, np.append(np.arange(n), 0))
    assert codes(rows.row_complaints(one, max_marks=100)) == ["warning rows.duplicated"]
    shift = np.repeat([0.0, 0.4], n)[:, None]
    near = Points(twice.scan, twice.center_xyz_mm + shift, twice.value)
    assert codes(rows.row_complaints(near, max_marks=100)) == ["warning rows.not-merged"]
    assert codes(rows.row_complaints(marks, max_marks=5)) == ["note rows.more-than-limit"]
    other = Points(np.where(shift[:, 0] > 0, "elsewhere", twice.scan), near.center_xyz_mm, near.value)
    assert "rows.not-merged" not in str(codes(rows.row_complaints(other, max_marks=9999)))
    assert rows.row_complaints(NO_POINTS, max_marks=5) == ()


def test_one_nodule_with_many_hits() -> None:
    marks, nodules = some_marks(), some_truth()
    shift = np.repeat([0.0, 1.2, -1.2], marks.scan.size)[:, None] * [1, 0, 0]
    many = kept(marks, np.tile(np.arange(marks.scan.size), 3))
    many = Points(many.scan, many.center_xyz_mm + shift, many.value)
    assert codes(rows.hit_complaints(match(many, nodules, SCANS))) == ["warning rows.many-hits"]


def test_diameters() -> None:
    marks, nodules = some_marks(), some_truth()

    def seen(value: np.ndarray, *, luna16: bool = False) -> list[str]:
        return codes(truth.diameter_complaints(scored(nodules, value), marks, luna16=luna16))

    def missing(last: float, excluded: Points = NO_POINTS) -> list[str]:
        return codes(truth.missing_diameter_complaints(scored(nodules, np.append(nodules.value[1:], last)), excluded))

    assert missing(8.0) == []
    assert missing(8.0, scored(nodules, np.full(90, -1.0))) == []
    assert missing(-1.0) == ["warning diameters.missing"]
    assert missing(0.0) == missing(8.0, scored(nodules, np.zeros(90))) == ["error diameters.missing"]
    assert seen(nodules.value * 100) == ["error diameters.large"]
    tight = scored(nodules, np.full(90, 1.0))
    assert codes(truth.diameter_complaints(tight, marks, luna16=False)) == ["warning diameters.radii"]
    assert seen(np.full(90, 1.0), luna16=True) == ["error diameters.radii"]
    again = kept(nodules, np.append(np.arange(90), 5))
    assert codes(truth.diameter_complaints(again, marks, luna16=False)) == ["error annotations.duplicated"]


def test_excluded_lists() -> None:
    nodules = some_truth()

    def seen(excluded: Points, *, given: bool = True, luna16: bool = True) -> list[str]:
        return codes(truth.excluded_complaints(excluded, nodules, SCANS, given=given, luna16=luna16))

    assert seen(NO_POINTS, given=False) == ["error excluded.missing"]
    assert seen(NO_POINTS, given=False, luna16=False) == []
    few = Points(np.array(["s1"]), np.ones((1, 3)), np.array([-1.0]))
    assert seen(few) == ["error excluded.too-few"]
    assert seen(few, luna16=False) == []
    assert seen(Points(np.array(["x"]), np.ones((1, 3)), np.ones(1)), luna16=False) == ["warning excluded.too-few"]
    assert seen(nodules) == ["error excluded.is-annotations"]
    every = Points(np.array(SCANS), np.ones((40, 3)), np.full(40, -1.0))
    assert seen(every) == []


def test_confident_false_positives_are_said_without_a_list() -> None:
    marks, nodules = some_marks(), some_truth()
    value = marks.value.copy()
    value[-20:] = 0.999 + np.arange(20) / 1e5
    response = match(scored(marks, value), nodules, SCANS)
    assert codes(truth.confident_false_complaints(response, excluded=False)) == ["note excluded.confident-false"]
    assert truth.confident_false_complaints(response, excluded=True) == ()


def test_one_fold_against_all_names_the_fold() -> None:
    marks, nodules = some_marks(), some_truth()
    folds = {name: str(n // 10) for n, name in enumerate(SCANS)}
    told = coverage.coverage_complaints(kept(marks, np.isin(marks.scan, SCANS[10:20])), nodules, SCANS, folds=folds)
    assert codes(told) == ["error series.one-fold"]
    assert list(told[0].evidence["folds"]) == ["1"]  # type: ignore[arg-type]
    assert "10 of 40 scans only (fold 1)" in told[0].problem
    assert told[0].evidence["best_sensitivity"] == round(1 / 3, 4)


def test_a_missing_fold_is_named() -> None:
    marks, nodules = some_marks(), some_truth()
    folds = {name: str(n // 10) for n, name in enumerate(SCANS)}
    keep = ~np.isin(marks.scan, SCANS[10:20])
    told = coverage.coverage_complaints(kept(marks, keep), nodules, SCANS, folds=folds)
    assert codes(told) == ["error series.fold-missing"]
    assert list(told[0].evidence["folds"]) == ["1"]  # type: ignore[arg-type]
    without = coverage.coverage_complaints(kept(marks, keep), nodules, SCANS)
    assert codes(without) == ["warning series.without-detections"]


def test_divisors() -> None:
    marks, nodules = some_marks(), some_truth()
    diseased = kept(marks, np.isin(marks.scan, SCANS[:30]))
    told = coverage.coverage_complaints(diseased, nodules, SCANS)
    assert codes(told) == ["error divisor.only-with-findings"]
    assert coverage.coverage_complaints(diseased, nodules, SCANS[:30]) == ()
    assert codes(coverage.list_complaints(SCANS[:30], nodules, diseased)) == ["warning series.only-with-findings"]


def test_lists_of_scans() -> None:
    marks, nodules = some_marks(), some_truth()
    assert codes(coverage.list_complaints([*SCANS, "s1"], nodules, marks)) == ["error series.duplicated"]
    lacking = coverage.list_complaints(SCANS[5:], nodules, marks)
    assert codes(lacking) == ["warning annotations.outside"]
    assert lacking[0].evidence["findings"] == 15
    fold = kept(marks, np.isin(marks.scan, SCANS[5:]))
    assert codes(coverage.list_complaints(SCANS[5:], nodules, fold)) == ["note annotations.outside"]
    few = kept(marks, ~np.isin(marks.scan, SCANS[:4]))
    assert codes(coverage.coverage_complaints(few, nodules, SCANS)) == ["warning series.without-detections"]


def test_folds() -> None:
    marks = some_marks()
    rows_of_folds = [(name, str(n // 20)) for n, name in enumerate(SCANS)]
    assert coverage.fold_complaints(marks, SCANS, rows_of_folds) == ()
    assert codes(coverage.fold_complaints(marks, SCANS, [*rows_of_folds, ("s1", "1")])) == ["error folds.overlap"]
    assert codes(coverage.fold_complaints(marks, SCANS, rows_of_folds[:-3])) == ["warning folds.missing"]
    first = np.isin(marks.scan, SCANS[:20])
    value = marks.value.copy()
    n = min(int(first.sum()), int((~first).sum()))
    value[np.flatnonzero(~first)[:n]] = value[np.flatnonzero(first)[:n]]
    assert codes(coverage.fold_complaints(scored(marks, value), SCANS, rows_of_folds)) == ["error folds.same-scores"]


def test_the_number_of_luna16s_nodules_is_known() -> None:
    scans = [f"{n:05d}" for n in range(888)]
    nodules = Points(np.array(scans[:600]), np.zeros((600, 3)), np.full(600, 5.0))
    of_lidc = [f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{name}" for name in scans]
    assert coverage.is_luna16(of_lidc, nodules)
    assert not coverage.is_luna16(of_lidc[:400], nodules)
    assert not coverage.is_luna16(scans, nodules), "888 scans of another set are not LUNA16"
    all_of_it = Points(np.array(scans * 2)[:1186], np.zeros((1186, 3)), np.full(1186, 5.0))
    assert coverage.is_luna16(scans, all_of_it)
    assert codes(coverage.list_complaints(scans, nodules, NO_POINTS)) == ["warning annotations.not-luna16"]


def test_complaints_are_plain_data_and_sorted() -> None:
    note, error = Complaint("b", "note", "p", ""), Complaint("a", "error", "p", "m", {"names": ("x", "y")})
    assert worst_first([note, error]) == (error, note)
    assert error.to_json() == {
        "code": "a", "severity": "error", "problem": "p", "mend": "m", "evidence": {"names": ["x", "y"]}
    }  # fmt: skip
    assert some_of(range(5)) == "'0', '1', '2' and 2 more"
    with pytest.raises(AttributeError):
        error.code = "c"  # type: ignore[misc]
