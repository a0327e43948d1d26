from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from spicula.core.errors import InputError
from spicula.metrics import classification as c

rows = st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 5)), min_size=2, max_size=60).filter(
    lambda r: len({y for y, _ in r}) == 2
)


@given(rows)
@settings(max_examples=60, deadline=None)
def test_areas_match_scikit_learn(data: list[tuple[int, int]]) -> None:
    y, score = np.array(data, dtype=float).T
    assert c.auroc(y, score) == pytest.approx(oracle.roc_auc_score(y, score))
    assert c.auprc(y, score) == pytest.approx(oracle.average_precision_score(y, score))


@given(rows, st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_weights_are_repeated_rows(data: list[tuple[int, int]], seed: int) -> None:
    y, score = np.array(data, dtype=float).T
    weights = np.random.default_rng(seed).integers(0, 4, (3, y.size))
    for weighted, plain in ((c.weighted_auroc, c.auroc), (c.weighted_auprc, c.auprc)):
        for w, value in zip(weights, weighted(weights, y, score), strict=True):
            again = np.repeat(y, w), np.repeat(score, w)
            if len(set(again[0])) < 2:
                assert np.isnan(value)
            else:
                assert value == pytest.approx(plain(*again))


@given(rows)
@settings(max_examples=40, deadline=None)
def test_auroc_of_inverted_scores_is_the_rest(data: list[tuple[int, int]]) -> None:
    y, score = np.array(data, dtype=float).T
    assert c.auroc(y, -score) == pytest.approx(1 - c.auroc(y, score))
    assert c.auroc(y, np.exp(score)) == pytest.approx(c.auroc(y, score))


def test_counts_match_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 200), rng.random(200).round(2)
    counts = c.counts_at(y, p, threshold=0.4)
    called = p >= 0.4
    assert counts.accuracy == pytest.approx(oracle.accuracy_score(y, called))
    assert counts.sensitivity == pytest.approx(oracle.recall_score(y, called))
    assert counts.specificity == pytest.approx(oracle.recall_score(y, called, pos_label=0))
    assert counts.precision == pytest.approx(oracle.precision_score(y, called))
    assert counts.negative_predictive_value == pytest.approx(oracle.precision_score(y, called, pos_label=0))
    assert counts.f1 == pytest.approx(oracle.f1_score(y, called))


def test_curve_matches_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    y, p = rng.integers(0, 2, 100), rng.random(100).round(1)
    points = c.curve(y, p)
    false, true, threshold = oracle.roc_curve(y, p, drop_intermediate=False)
    assert points.recall == pytest.approx(true[1:])
    assert points.false_positive_rate == pytest.approx(false[1:])
    assert points.threshold == pytest.approx(threshold[1:])
    precision, _, _ = oracle.precision_recall_curve(y, p)
    assert points.precision[::-1] == pytest.approx(precision[:-1])


def test_counts_at_the_nearest_recall() -> None:
    y, p = [1, 0, 1, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.5]
    counts = c.counts_at_recall(y, p, recall=0.6)
    assert (counts.true_positives, counts.false_positives, counts.threshold) == (2, 1, 0.7)
    assert c.counts_at_recall(y, p, recall=1.0).false_positives == 1
    with pytest.raises(InputError, match="recall"):
        c.counts_at_recall(y, p, recall=1.2)


def test_of_equally_near_recalls_the_lower_one() -> None:
    y, p = [1, 1, 1, 1, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.5, 0.65]
    for recall, hits in ((0.5, 2), (0.7, 3), (0.3, 1), (0.9, 4)):
        assert c.counts_at_recall(y, p, recall=recall).true_positives == hits


def test_at_recalls_matches_the_two_curves_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        y = rng.permutation(np.repeat([0, 1], [60, 37]))
        p = (rng.normal(size=97) + y).round(1)
        false, true, _ = oracle.roc_curve(y, p, drop_intermediate=False)
        precision, recall, _ = oracle.precision_recall_curve(y, p)
        for row in c.at_recalls(y, p):
            assert row.counts.false_positive_rate == false[1:][np.argmin(np.abs(true[1:] - row.target))]
            assert row.loose_precision == pytest.approx(precision[np.argmin(np.abs(recall - row.target))])
            assert row.loose_precision <= row.counts.precision
    assert [row.target for row in c.at_recalls(y, p)] == [0.6, 0.7, 0.8, 0.9]


def test_a_rate_without_cases_is_nan() -> None:
    assert np.isnan(c.counts_at([0, 0], [0.1, 0.2]).sensitivity)


@pytest.mark.parametrize(
    ("y", "score", "says"),
    [
        ([0, 1], [0.1], "shapes"),
        ([], [], "n > 0"),
        ([0, 1], [0.1, np.nan], "score of row 1"),
        ([0, 2], [0.1, 0.2], "label of row 1"),
        ([1, 1], [0.1, 0.2], "both classes"),
    ],
)
def test_bad_input_is_named(y: list[float], score: list[float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        c.auroc(y, score)
