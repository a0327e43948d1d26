from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist

from spicula.core.errors import InputError
from spicula.metrics import rating_consistency as rc
from spicula.metrics.neighbors import distances_between, given_distances


def _readings(rng: np.random.Generator, n: int) -> list[np.ndarray]:
    highest = np.array(rc.LIDC_SCALE.highest, dtype=int)
    return [rng.integers(1, highest + 1, (int(rng.integers(1, 5)), 9)).astype(float) for _ in range(n)]


def _cluster_distance(a: np.ndarray, b: np.ndarray) -> float:
    apart = cdist(a, b)
    return (apart.min(axis=0).mean() + apart.min(axis=1).mean()) / 2


@pytest.mark.parametrize("cells", [1, 200, 4_000_000])
def test_clusters_match_plain_loops(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rc, "_CELLS", cells)
    rng = np.random.default_rng(0)
    readings, others = _readings(rng, 14), _readings(rng, 9)
    scaled, scaled_others = ([rc.LIDC_SCALE.apply(r) for r in group] for group in (readings, others))
    one = rc.rating_distances(readings)
    assert one.one_set
    expected = [[_cluster_distance(a, b) for b in scaled] for a in scaled]
    np.testing.assert_allclose(one.rows(np.arange(14)), expected, atol=1e-12)
    two = rc.rating_distances(readings, others)
    expected = [[_cluster_distance(a, b) for b in scaled_others] for a in scaled]
    np.testing.assert_allclose(two.rows(np.arange(14)), expected, atol=1e-12)
    np.testing.assert_allclose(two.rows(np.array([5, 2])), np.array(expected)[[5, 2]], atol=1e-12)
    np.testing.assert_allclose(two.exact(np.array([5, 2]), np.array([0, 8])), [expected[5][0], expected[2][8]])


def test_single_readings_are_points() -> None:
    ratings = np.concatenate(_readings(np.random.default_rng(1), 8))
    scaled = (ratings - 1) / (np.array([5, 4, 6, 5, 5, 5, 5, 5, 5]) - 1)
    everyone = np.arange(len(ratings))
    np.testing.assert_allclose(rc.rating_distances(ratings).rows(everyone), cdist(scaled, scaled), atol=1e-12)
    np.testing.assert_allclose(
        rc.rating_distances(ratings, scale=None).rows(everyone), cdist(ratings, ratings), atol=1e-12
    )


def test_scales() -> None:
    assert rc.LIDC_SCALE.apply(rc.LIDC_SCALE.highest).tolist() == [1.0] * 9
    assert rc.LIDC_SCALE.apply([1] * 9).tolist() == [0.0] * 9
    assert rc.LIDC_STANDARDIZED.apply(rc.LIDC_STANDARDIZED.zero).tolist() == [0.0] * 9


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_correlations_match_scipy_and_a_count_of_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, readings = rng.normal(size=(9, 3)), _readings(rng, 9)
    embedding, ratings = distances_between(vectors), rc.rating_distances(readings)
    result = rc.rating_consistency(embedding, ratings)
    inflated = rc.rating_consistency(embedding, ratings, with_query=True)
    everyone = np.arange(9)
    for q, a, b in zip(everyone, embedding.rows(everyone), ratings.rows(everyone), strict=True):
        assert inflated.pearson.value[q] == pytest.approx(stats.pearsonr(a, b).statistic)
        assert inflated.kendall.value[q] == pytest.approx(stats.kendalltau(a, b).statistic)
        a, b = np.delete(a, q), np.delete(b, q)
        assert result.pearson.value[q] == pytest.approx(stats.pearsonr(a, b).statistic)
        b = b.round(10)
        signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i in range(8) for j in range(i)]
        untied = [sum(s[side] != 0 for s in signs) for side in (0, 1)]
        assert result.kendall.value[q] == pytest.approx(sum(x * y for x, y in signs) / np.sqrt(untied[0] * untied[1]))
    assert result.pearson.mean == pytest.approx(np.mean(result.pearson.value))
    assert result.kendall.sd == pytest.approx(np.std(result.kendall.value))


@given(st.integers(0, 10_000), st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_an_embedding_of_the_ratings_agrees_wholly(seed: int, scale: float) -> None:
    ratings = np.array([r[0] for r in _readings(np.random.default_rng(seed), 12)])
    result = rc.rating_consistency(
        distances_between(rc.LIDC_SCALE.apply(ratings) * scale), rc.rating_distances(ratings)
    )
    assert result.pearson.value == pytest.approx(1)
    assert result.kendall.value == pytest.approx(1)


def test_order_of_items_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    vectors, readings, order = rng.normal(size=(15, 4)), _readings(rng, 15), rng.permutation(15)
    before = rc.rating_consistency(distances_between(vectors), rc.rating_distances(readings))
    after = rc.rating_consistency(distances_between(vectors[order]), rc.rating_distances([readings[i] for i in order]))
    np.testing.assert_allclose(before.pearson.value[order], after.pearson.value)
    np.testing.assert_allclose(before.kendall.value[order], after.kendall.value)


def test_queries_without_a_spread_are_skipped_and_counted() -> None:
    corners = distances_between(np.eye(4))
    ratings = rc.rating_distances(np.array([[1.0], [2.0], [4.0], [7.0]]), scale=None)
    result = rc.rating_consistency(corners, ratings)
    assert (result.pearson.scored, result.pearson.skipped, result.kendall.skipped) == (0, 4, 4)
    assert np.isnan(result.kendall.mean)


NINE = [[3.0] * 9, [2.0] * 9]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rc.rating_distances([[3.0] * 9, [2.0] * 8]), r"readings of finding 1: got shape \(1, 8\)"),
        (lambda: rc.rating_distances([[3.0] * 9, []]), "readings of finding 1: got shape"),
        (lambda: rc.rating_distances([[3.0] * 9, [np.nan] * 9]), "readings of finding 1: got a rating that is not"),
        (lambda: rc.rating_distances([[3.0] * 9, [3.0, 5.0] + [1.0] * 7]), "finding 1: rating of internal_structure"),
        (
            lambda: rc.rating_distances([[0.0] * 9, [1.0] * 9]),
            "finding 0: rating of subtlety: got 0.0, expected 1 to 5",
        ),
        (lambda: rc.rating_distances([[3.0] * 9]), "one finding"),
        (lambda: rc.rating_distances([]), "readings: got none"),
        (lambda: rc.rating_distances(NINE, []), "index readings: got none"),
        (lambda: rc.rating_distances([["a"] * 9]), "numbers"),
        (lambda: rc.rating_distances([[1.0], [2.0]], [[1.0, 2.0]], scale=None), "2 traits, expected 1"),
        (lambda: rc.LIDC_SCALE.apply([1, 2]), "ratings: got shape"),
        (
            lambda: rc.rating_consistency(distances_between(np.eye(3)), rc.rating_distances(NINE)),
            "the same queries and items",
        ),
        (
            lambda: rc.rating_consistency(given_distances(np.ones((2, 2)), own=None), rc.rating_distances(NINE)),
            "the same queries and items",
        ),
        (lambda: rc.rating_consistency(distances_between(np.eye(2)), rc.rating_distances(NINE)), "besides the query"),
    ],
)
def test_bad_input_is_named(call, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.shared
def test_traits_agree_with_all_ratings_more_than_noise_does(shared: Path) -> None:
    with (shared / "lidc_nodules" / "nodules.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))[:200]
    ratings = np.array([[float(row[t]) for t in rc.LIDC_SCALE.traits] for row in rows])
    scaled = rc.LIDC_SCALE.apply(ratings)
    truth = rc.rating_distances(ratings)
    noise = np.random.default_rng(3).normal(size=scaled.shape)
    own, traits, nothing = (rc.rating_consistency(distances_between(v), truth) for v in (scaled, scaled[:, :8], noise))
    assert own.kendall.value == pytest.approx(1)
    assert 0.7 < traits.kendall.mean < 1
    assert 0.8 < traits.pearson.mean < 1
    assert abs(nothing.kendall.mean) < 0.1
