from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from spicula.core.errors import InputError
from spicula.metrics import embedding_health as eh
from spicula.metrics.neighbors import distances_between, given_distances
from spicula.metrics.ranking import retrieve
from spicula.metrics.rating_consistency import LIDC_SCALE


def _matrix(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(((vectors[:, None] - vectors[None]) ** 2).sum(axis=2))


def _kumar_by_steps(matrix: np.ndarray, step: float) -> float:
    n = len(matrix)
    others = [np.delete(row, i) for i, row in enumerate(matrix)]
    sigma = np.mean([row.min() for row in others])
    total = 0.0
    for e in np.arange(-1, 1.01 * (matrix.max() / sigma - 1), step):
        total += step * np.mean([np.count_nonzero(row > (1 + e) * sigma) for row in others]) / n
    return total


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_indices_match_plain_loops(seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(25, 4))
    matrix = _matrix(vectors)
    health = eh.embedding_health(distances_between(vectors))
    neighbors = [sorted((i for i in range(25) if i != q), key=lambda i, q=q: (matrix[q, i], i)) for q in range(25)]
    for at, k in enumerate(health.ks):
        first = [set(row[:k]) for row in neighbors]
        occurrences = [sum(i in f for f in first) for i in range(25)]
        bars = [occurrences.count(v) for v in range(max(occurrences) + 1)]
        assert health.hub_skewness[at] == pytest.approx(stats.skew(occurrences))
        assert health.hubness[at] == pytest.approx(np.exp(-abs(stats.skew(bars))))
        assert health.symmetry[at] == pytest.approx(np.mean([q in first[i] for q in range(25) for i in first[q]]))
    others = [np.delete(row, i) for i, row in enumerate(matrix)]
    assert health.concentration == pytest.approx(np.mean([o.std() / o.mean() for o in others]))
    assert health.relative_contrast == pytest.approx(np.mean([(o.max() - o.mean()) / o.mean() for o in others]))
    assert health.kumar_tau == pytest.approx(_kumar_by_steps(matrix, 5e-3), abs=1e-2)
    assert (health.mean_hubness, health.mean_symmetry) == (health.hubness.mean(), health.symmetry.mean())
    assert health.mean_hub_skewness == health.hub_skewness.mean()


@given(st.integers(0, 10_000), st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_indices_see_neither_rotation_nor_scale_nor_order(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(20, 3))
    turned = vectors[rng.permutation(20)] @ np.linalg.qr(rng.normal(size=(3, 3)))[0] * scale + rng.normal(size=3)
    a, b = (eh.embedding_health(distances_between(v), ks=(3, 5)) for v in (vectors, turned))
    for name in ("hubness", "hub_skewness", "symmetry", "concentration", "relative_contrast", "kumar_tau"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-7, err_msg=name)


def test_a_ring_has_no_hubs_and_a_star_has_one() -> None:
    steps = np.abs(np.arange(12)[:, None] - np.arange(12)[None])
    ring = eh.embedding_health(given_distances(np.minimum(steps, 12 - steps), own=range(12)), ks=[2])
    assert ring.hub_skewness[0] == 0
    assert ring.symmetry[0] == 1
    star = np.where(np.eye(12, dtype=bool), 0.0, 2.0)
    star[0, 1:] = star[1:, 0] = 1.0
    health = eh.embedding_health(given_distances(star, own=range(12)), ks=[1])
    assert health.hub_skewness[0] > 2.5
    assert health.symmetry[0] == pytest.approx(2 / 12)


def test_many_dimensions_concentrate() -> None:
    rng = np.random.default_rng(0)
    low, high = (eh.embedding_health(distances_between(rng.normal(size=(200, d)))) for d in (2, 500))
    assert high.concentration < low.concentration / 5
    assert high.relative_contrast < low.relative_contrast
    assert high.kumar_tau < low.kumar_tau
    assert high.mean_hub_skewness > low.mean_hub_skewness


def test_doubles_leave_tau_without_end() -> None:
    pairs = np.repeat([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]], 2, axis=0)
    health = eh.embedding_health(distances_between(pairs), ks=[1])
    assert health.kumar_tau == float("inf")
    assert health.symmetry[0] == 1


@pytest.mark.parametrize("k", [1, 3, 5, 8])
def test_knn_matches_scikit_learn(k: int) -> None:
    rng = np.random.default_rng(k)
    labels = rng.integers(0, 3, 60)
    vectors = rng.normal(size=(60, 4)) + labels[:, None] * 0.7
    expected = cross_val_predict(KNeighborsClassifier(k), vectors, labels, cv=LeaveOneOut()) == labels
    found = retrieve(distances_between(vectors), labels, k=8)
    assert eh.knn_correct(found, k).value.tolist() == expected.astype(float).tolist()


def test_knn_leaves_out_patients_and_counts_the_skipped() -> None:
    distances = distances_between([[0.0], [0.1], [5.0], [5.1]])
    found = retrieve(distances, [0, 1, 0, 1], k=1, scope="cross-patient", patients=["a", "a", "b", "b"])
    # The nearest of the other patient are items 2, 2, 1 and 1.
    assert eh.knn_correct(found).value.tolist() == [1.0, 0.0, 0.0, 1.0]
    alone = retrieve(distances, [0, 1, 0, 1], k=1, scope="same-patient", patients=["a", "a", "b", "c"])
    scores = eh.knn_correct(alone)
    assert (scores.skipped, scores.without_candidates, scores.without_relevant) == (2, 2, 2)


def test_collapse_matches_numpy() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(80, 6)) @ np.diag([5, 3, 2, 1, 0.5, 0.1]) @ rng.normal(size=(6, 6)) + 1
    result = eh.collapse(vectors)
    eigenvalues = np.linalg.eigvalsh(np.cov(vectors.T))
    assert result.effective_rank == pytest.approx(np.exp(stats.entropy(np.sqrt(eigenvalues))))
    assert result.participation_ratio == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    off = ~np.eye(6, dtype=bool)
    assert result.feature_correlation == pytest.approx(np.abs(np.corrcoef(vectors.T))[off].mean())
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert result.mean_cosine == pytest.approx((unit @ unit.T)[~np.eye(80, dtype=bool)].mean())
    assert (result.items, result.dimensions, result.constant_dimensions) == (80, 6, 0)


def test_collapse_counts_what_is_left() -> None:
    rng = np.random.default_rng(2)
    line = np.outer(rng.normal(size=50), [1.0, 2.0, -1.0, 0.0])
    line[:, 3] = 0.3
    result = eh.collapse(line)
    assert result.effective_rank == pytest.approx(1, abs=1e-6)
    assert result.participation_ratio == pytest.approx(1)
    assert result.constant_dimensions == 1
    assert result.feature_correlation == pytest.approx(1)
    point = eh.collapse(np.full((5, 3), 0.1))
    assert (point.effective_rank, point.participation_ratio, point.constant_dimensions) == (0, 0, 3)
    assert point.mean_cosine == pytest.approx(1)
    assert np.isnan(point.feature_correlation)


@given(st.integers(2, 8))
@settings(max_examples=7, deadline=None)
def test_independent_axes_have_full_rank(d: int) -> None:
    result = eh.collapse(np.concatenate([np.eye(d), -np.eye(d)]))
    assert result.effective_rank == pytest.approx(d)
    assert result.participation_ratio == pytest.approx(d)
    assert result.feature_correlation == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: eh.embedding_health(distances_between([[0.0], [1.0]], [[0.0], [1.0]])), "one set to itself"),
        (
            lambda: eh.embedding_health(distances_between(np.eye(4)), ks=(3, 4)),
            "expected 1 to 3. Hint: each of 4 items",
        ),
        (lambda: eh.embedding_health(distances_between(np.eye(4)), ks=[]), r"ks: got \[\]"),
        (lambda: eh.embedding_health(distances_between(np.eye(4)), ks=[0]), "k: got 0"),
        (lambda: eh.embedding_health(distances_between(np.full((4, 3), 0.1)), ks=[1]), "all the same"),
        (
            lambda: eh.embedding_health(given_distances([[0, 1, 1], [0, 0, 0], [1, 1, 0]], own=range(3)), ks=[1]),
            "item 1: got distance 0 to all others",
        ),
        (lambda: eh.knn_correct(retrieve(distances_between(np.eye(3)), [0, 0, 1], k=2), 3), "2 at most"),
        (
            lambda: eh.knn_correct(retrieve(distances_between(np.eye(3)), [0, 0, 1], with_query=True)),
            "with_query=False",
        ),
        (lambda: eh.collapse([[1.0, 2.0]]), "one item"),
        (lambda: eh.collapse([[1.0, 2.0], [0.0, 0.0]]), "row 1 of the vectors: got length zero"),
        (lambda: eh.collapse([[1.0, 2.0], [0.0, np.nan]]), "row 1 of the vectors: got nan"),
    ],
)
def test_bad_input_is_named(call, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.shared
def test_readers_ratings_are_a_healthy_space(shared: Path) -> None:
    with (shared / "lidc_nodules" / "nodules.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    ratings = LIDC_SCALE.apply([[float(row[t]) for t in LIDC_SCALE.traits] for row in rows])[:, :8]
    label, patient = np.array([int(row["label"]) for row in rows]), [row["patient_id"] for row in rows]
    found = retrieve(distances_between(ratings), label, k=11, scope="cross-patient", patients=patient)
    accuracy = eh.knn_correct(found)
    assert accuracy.skipped == 0
    assert accuracy.mean > max(label.mean(), 1 - label.mean()) + 0.1
    health = eh.embedding_health(distances_between(ratings))
    assert health.items == 798
    assert 0 < health.mean_hubness < 1
    assert 0 < health.mean_symmetry < 1
    # Internal structure is 1 for nearly all nodules, which leaves about seven traits.
    assert 6 < eh.collapse(ratings).effective_rank < 8
