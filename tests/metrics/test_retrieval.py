from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from spicula.core.errors import InputError
from spicula.metrics import retrieval as rt
from spicula.metrics.bootstrap import bootstrap_interval
from spicula.metrics.neighbors import Distances, distances_between, given_distances
from spicula.metrics.ranking import SCOPES, Scope, closeness_gain, retrieve
from spicula.metrics.rating_consistency import LIDC_SCALE, rating_distances

TOY_DEGREES, TOY_LABELS, TOY_PATIENTS = (0, 10, 20, 35, 60, 80), list("LLMLML"), ["p1", "p1", "p2", "p3", "p2", "p3"]
TOY_VECTORS = [[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in TOY_DEGREES]

# Scope: as published; average precision, queries scored and skipped.
TOY_SCORES: dict[Scope, tuple[float, float, int, int]] = {
    "all": (0.722222, 0.287037, 6, 0),
    "same-patient": (0.888889, 1.0, 6, 0),
    "cross-patient": (0.129630, 0.208333, 4, 2),
}


def _toy(kind: str) -> Distances:
    if kind != "matrix":
        return distances_between(TOY_VECTORS, metric=kind)  # type: ignore[arg-type]
    vectors = np.array(TOY_VECTORS)
    return given_distances(np.sqrt(((vectors[:, None] - vectors[None]) ** 2).sum(axis=2)), own=range(6))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", ["euclidean", "cosine", "matrix"])
def test_toy_oracle(kind: str, scope: Scope) -> None:
    published, average, scored, skipped = TOY_SCORES[scope]
    scores = rt.score_scope(_toy(kind), TOY_LABELS, k=3, scope=scope, patients=TOY_PATIENTS)
    assert round(scores.published.mean, 6) == published
    assert scores.published.skipped == 0
    assert round(scores.average_precision.mean, 6) == average
    assert (scores.average_precision.scored, scores.average_precision.skipped) == (scored, skipped)
    assert (scores.average_precision.without_candidates, scores.average_precision.without_relevant) == (0, skipped)


def test_toy_oracle_rests_on_the_last_bit() -> None:
    # 35 degrees lies midway between 10 and 60. In double precision the two distances differ by 6e-17, and the oracle
    # was run so; with the distances rounded, the tie goes by number and four of its six values change.
    vectors = np.array(TOY_VECTORS)
    rounded = given_distances(np.linalg.norm(vectors[:, None] - vectors[None], axis=2).round(9), own=range(6))
    values = [rt.score_scope(rounded, TOY_LABELS, k=3, scope=s, patients=TOY_PATIENTS) for s in SCOPES]
    assert [round(v.published.mean, 6) for v in values] == [0.740741, 0.888889, 0.157407]
    assert [round(v.average_precision.mean, 6) for v in values] == [0.296296, 1.0, 0.229167]


def _plain(
    matrix: np.ndarray, labels: list, patients: list, k: int, scope: Scope, *, with_query: bool
) -> list[dict[str, float]]:
    """Every measure of every query by loops, straight from its definition."""
    out = []
    for q, row in enumerate(matrix):
        items = [
            i for i in range(len(row))
            if (i != q or (with_query and scope != "cross-patient"))
            and (scope == "all" or (patients[i] == patients[q]) == (scope == "same-patient"))
        ]  # fmt: skip
        ranked = sorted(items, key=lambda i: (row[i], i))
        hits = [labels[i] == labels[q] for i in ranked]
        total, top = sum(hits), hits[:k]
        precisions = [sum(hits[:p]) / p for p in range(1, k + 1)]
        nan = float("nan")
        dcg = sum(h / math.log2(p + 2) for p, h in enumerate(top))
        best = sum(1 / math.log2(p + 2) for p in range(min(total, k)))
        out.append({
            "candidates": len(items),
            "relevant": total,
            "precision": sum(top) / k if items else nan,
            "of_candidates": sum(top) / min(k, len(items)) if items else nan,
            "recall": sum(top) / total if total else nan,
            "average": sum(p for p, h in zip(precisions, top, strict=False) if h) / min(total, k) if total else nan,
            "published": sum(precisions) / k,
            "ndcg": dcg / best if best else nan,
        })  # fmt: skip
    return out


@given(st.integers(0, 10_000), st.integers(1, 14), st.sampled_from(SCOPES), st.booleans())
@settings(max_examples=60, deadline=None)
def test_measures_match_plain_loops(seed: int, k: int, scope: Scope, with_query: bool) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 13))
    vectors = rng.integers(0, 4, (n, 2)).astype(float)
    labels, patients = rng.integers(0, 3, n), rng.integers(0, 4, n)
    matrix = np.sqrt(((vectors[:, None] - vectors[None]) ** 2).sum(axis=2))
    expected = _plain(matrix, labels.tolist(), patients.tolist(), k, scope, with_query=with_query)
    found = retrieve(
        distances_between(vectors), labels, k=k, scope=scope, patients=patients.astype(str), with_query=with_query
    )
    got = {
        "candidates": found.candidates,
        "relevant": found.relevant,
        "precision": rt.precision_at(found).value,
        "of_candidates": rt.precision_at(found, of_candidates=True).value,
        "recall": rt.recall_at(found).value,
        "published": rt.published_average_precision_at(found).value,
        "ndcg": rt.ndcg_at(found).value,
    }
    if not found.with_query:
        scores = rt.average_precision_at(found)
        got["average"] = scores.value
        assert scores.skipped == sum(e["relevant"] == 0 for e in expected)
        assert scores.without_candidates == sum(e["candidates"] == 0 for e in expected)
        assert scores.without_candidates + scores.without_relevant == scores.skipped
    for name, values in got.items():
        np.testing.assert_allclose(values, [e[name] for e in expected], atol=1e-12, err_msg=name)


def test_smaller_k_can_be_read_from_a_greater() -> None:
    rng = np.random.default_rng(3)
    distances, labels = distances_between(rng.normal(size=(40, 3))), rng.integers(0, 3, 40)
    wide, narrow = (retrieve(distances, labels, k=k, gain=closeness_gain(labels, span=2)) for k in (20, 4))
    for measure in (
        rt.precision_at,
        rt.recall_at,
        rt.average_precision_at,
        rt.published_average_precision_at,
        rt.ndcg_at,
    ):
        np.testing.assert_array_equal(measure(wide, 4).value, measure(narrow).value)
        with pytest.raises(InputError, match="4 at most"):
            measure(narrow, 5)


def test_average_precision_over_all_places_is_scikit_learns() -> None:
    rng = np.random.default_rng(4)
    queries, items = rng.normal(size=(12, 5)), rng.normal(size=(60, 5))
    own, others = rng.integers(0, 3, 12), rng.integers(0, 3, 60)
    distances = distances_between(queries, items)
    found = retrieve(distances, own, k=60, index_labels=others)
    matrix = distances.rows(np.arange(12))
    expected = [oracle.average_precision_score(others == label, -row) for label, row in zip(own, matrix, strict=True)]
    np.testing.assert_allclose(rt.average_precision_at(found).value, expected)


@pytest.mark.parametrize("k", [1, 5, 30])
def test_ndcg_is_scikit_learns(k: int) -> None:
    rng = np.random.default_rng(5)
    vectors, grades = rng.normal(size=(30, 4)), rng.integers(1, 6, 30).astype(float)
    distances = distances_between(vectors)
    gain = closeness_gain(grades, span=4)
    matrix, worth = distances.rows(np.arange(30)), gain(np.arange(30))
    for form in (gain, worth):
        found = retrieve(distances, grades, k=k, gain=form)
        expected = [
            oracle.ndcg_score([np.delete(worth[q], q)], [-np.delete(matrix[q], q)], k=k, ignore_ties=True)
            for q in range(30)
        ]
        np.testing.assert_allclose(rt.ndcg_at(found).value, expected)
    within = retrieve(distances, grades, k=k, gain=gain, scope="cross-patient", patients=np.arange(30) // 3)
    expected = [
        oracle.ndcg_score([worth[q][others]], [-matrix[q][others]], k=k, ignore_ties=True)
        for q in range(30)
        for others in [np.arange(30) // 3 != q // 3]
    ]
    np.testing.assert_allclose(rt.ndcg_at(within).value, expected)


@given(st.integers(0, 10_000), st.sampled_from(SCOPES))
@settings(max_examples=30, deadline=None)
def test_order_of_items_does_not_matter(seed: int, scope: Scope) -> None:
    rng = np.random.default_rng(seed)
    vectors, labels, patients = rng.normal(size=(25, 3)), rng.integers(0, 3, 25), rng.integers(0, 6, 25)
    order = rng.permutation(25)
    before, after = (
        rt.score_scope(distances_between(vectors[o]), labels[o], k=5, scope=scope, patients=patients[o])
        for o in (np.arange(25), order)
    )
    for name in ("precision", "recall", "average_precision", "ndcg", "published"):
        np.testing.assert_array_equal(getattr(before, name).value[order], getattr(after, name).value)


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_a_perfect_space_scores_one_and_its_opposite_nothing(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), 4)
    apart = distances_between(np.eye(3)[labels] * 10 + rng.uniform(0, 0.1, (12, 3)))
    found = retrieve(apart, labels, k=k)
    assert rt.average_precision_at(found).value == pytest.approx(1)
    assert rt.ndcg_at(found).value == pytest.approx(1)
    assert rt.recall_at(found).value == pytest.approx(min(k, 3) / 3)
    assert rt.precision_at(found).value == pytest.approx(min(k, 3) / k)
    against = given_distances((labels[:, None] == labels[None]).astype(float), own=range(12))
    worst = retrieve(against, labels, k=min(k, 8))
    assert rt.average_precision_at(worst).mean == rt.precision_at(worst).mean == 0


def test_more_places_than_items() -> None:
    found = retrieve(distances_between([[0.0], [1.0], [2.0]]), ["a", "a", "b"], k=5)
    assert found.index.tolist() == [[1, 2, -1, -1, -1], [0, 2, -1, -1, -1], [1, 0, -1, -1, -1]]
    assert found.candidates.tolist() == [2, 2, 2]
    assert rt.precision_at(found).value == pytest.approx([0.2, 0.2, 0])
    assert rt.precision_at(found, of_candidates=True).value == pytest.approx([0.5, 0.5, 0])
    assert rt.average_precision_at(found).value == pytest.approx([1, 1, np.nan], nan_ok=True)


def test_precision_by_class() -> None:
    rng = np.random.default_rng(6)
    labels = rng.permutation(np.repeat(["benign", "malignant"], [40, 20]))
    vectors = rng.normal(size=(60, 4)) + (labels == "malignant")[:, None]
    distances = distances_between(vectors)
    result = rt.precision_by_class(retrieve(distances, labels, k=17))
    assert result.ks == (7, 11, 17)
    assert result.classes.tolist() == ["benign", "malignant"]
    assert result.queries.tolist() == [40, 20]
    matrix = distances.rows(np.arange(60)) + np.diag(np.full(60, np.inf))
    for row, k in enumerate(result.ks):
        expected = []
        for name in result.classes:
            each = [(labels[np.argsort(matrix[q])[:k]] == name).mean() for q in np.flatnonzero(labels == name)]
            expected.append(np.mean(each))
        assert result.precision[row] == pytest.approx(expected)
        assert result.harmonic[row] == pytest.approx(2 * expected[0] * expected[1] / sum(expected))
    assert result.mean == pytest.approx(np.mean(result.harmonic))
    assert result.sd == pytest.approx(np.std(result.harmonic))


def test_precision_by_class_at_its_edges() -> None:
    none_right = rt.precision_by_class(retrieve(distances_between([[0.0], [1.0], [1.5]]), ["a", "b", "a"], k=1), [1])
    assert none_right.harmonic.tolist() == [0.0]
    found = retrieve(
        distances_between([[0.0], [1.0], [2.0]]), ["a", "a", "b"], k=1, scope="same-patient", patients=[1, 1, 2]
    )
    alone = rt.precision_by_class(found, [1])
    assert alone.queries.tolist() == [2, 0]
    assert np.isnan(alone.harmonic).all()
    with pytest.raises(InputError, match="ks"):
        rt.precision_by_class(found, [])


def test_one_patient_has_nothing_across_patients() -> None:
    scores = rt.score_scope(
        distances_between([[0.0], [1.0], [2.0]]), [0, 0, 1], k=2, scope="cross-patient", patients=["a", "a", "a"]
    )
    assert scores.precision.skipped == scores.precision.without_candidates == 3
    assert np.isnan(scores.precision.mean)
    assert np.isnan(scores.average_precision.sd)
    assert scores.published.mean == 0
    assert scores.published.without_candidates == 3
    with pytest.raises(InputError, match="all skipped"):
        rt.mean_scored(scores.precision.value)


def test_intervals_draw_patients() -> None:
    rng = np.random.default_rng(7)
    labels, patients = rng.integers(0, 2, 50), np.arange(50) // 5
    found = retrieve(distances_between(rng.normal(size=(50, 2))), labels, scope="cross-patient", patients=patients)
    scores = rt.average_precision_at(found)
    interval = bootstrap_interval(rt.mean_scored, (scores.value,), groups=patients, resamples=200)
    assert interval.value == scores.mean
    assert interval.low < scores.mean < interval.high


TWO = distances_between([[0.0], [1.0]])
APART = distances_between([[0.0], [1.0]], [[0.0], [1.0], [2.0]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: retrieve(TWO, [0, 1, 1]), r"labels of the queries: got shape \(3,\), expected \[2\]"),
        (lambda: retrieve(TWO, [0, np.nan]), "labels of the queries, row 1: got nan"),
        (lambda: retrieve(TWO, [0, None]), "type object"),
        (lambda: retrieve(APART, [0, 1]), "labels of the items: got none"),
        (lambda: retrieve(APART, [0, 1], index_labels=["a", "b", "c"]), "one kind of value"),
        (
            lambda: retrieve(APART, [0, 1], index_labels=[0, 1]),
            r"labels of the items: got shape \(2,\), expected \[3\]",
        ),
        (lambda: retrieve(TWO, [0, 1], scope="same-patient"), "scope same-patient: got no patients"),
        (lambda: retrieve(TWO, [0, 1], scope="near"), "all, same-patient, cross-patient"),  # type: ignore[arg-type]
        (lambda: retrieve(TWO, [0, 1], index_labels=[1, 0]), "labels of query 0: got 0, expected 1"),
        (lambda: retrieve(TWO, [0, 1], gain=[[1.0, 2.0]]), "gain: got shape"),
        (lambda: retrieve(TWO, [0, 1], gain=[[1.0, -2.0], [0.0, 0.0]]), "none negative"),
        (lambda: retrieve(TWO, [0, 1], gain=lambda rows: np.zeros((1, 1))), "gain of queries 0 to 1"),
        (lambda: retrieve(TWO, [0, 1], k=-1), "k: got -1"),
        (lambda: rt.average_precision_at(retrieve(TWO, [0, 1], with_query=True)), "with_query=False"),
        (lambda: closeness_gain([1, 2], span=0), "span: got 0"),
        (lambda: closeness_gain([1, np.nan], span=1), "grades"),
    ],
)
def test_bad_input_is_named(call, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.shared
def test_readers_ratings_find_nodules_of_their_own_label(shared: Path) -> None:
    with (shared / "lidc_nodules" / "nodules.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    traits = [t for t in LIDC_SCALE.traits if t != "malignancy"]
    ratings = np.array([[float(row[t]) for t in traits] for row in rows])
    label, patient = [int(row["label"]) for row in rows], [row["patient_id"] for row in rows]
    graded = closeness_gain([float(row["malignancy"]) for row in rows], span=4)
    distances = distances_between(ratings)
    shuffled = distances_between(np.random.default_rng(8).permutation(ratings))
    chance = np.array([(np.delete(label, q) == label[q]).mean() for q in range(len(label))])
    for scope in SCOPES:
        scores = rt.score_scope(distances, label, k=10, scope=scope, patients=patient, gain=graded)
        average = scores.average_precision
        if scope == "same-patient":
            # 251 patients have one nodule here; some others have one benign and one malignant.
            assert scores.precision.without_candidates == 251
            assert average.skipped == 251 + average.without_relevant
            continue
        assert average.skipped == 0
        random = rt.score_scope(shuffled, label, k=10, scope=scope, patients=patient, gain=graded)
        for gained in (scores.precision.value - chance, scores.ndcg.value - random.ndcg.value):
            assert bootstrap_interval(rt.mean_scored, (gained,), groups=patient, resamples=300).low > 0.05
    # All nine ratings, the malignancy among them, as clusters of one reading each.
    nine = rating_distances([[float(row[t]) for t in LIDC_SCALE.traits] for row in rows])
    with_malignancy = rt.score_scope(nine, label, k=10, scope="cross-patient", patients=patient)
    assert with_malignancy.precision.mean > scores.precision.mean
