"""The semantic-only model: patients apart, the penalty chosen inside, scores against scikit-learn's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from spicula.core.errors import InputError
from spicula.metrics.patients import deal_folds
from spicula.pipelines import semantic_only
from spicula.pipelines.semantic_only import Features, split_hash


def folded(features: Features, fold_of: np.ndarray, *, resamples: int = 20) -> semantic_only.Judged:
    scorers = semantic_only.fit_folds(features, fold_of, semantic_only.sparse_logistic)
    return semantic_only.cross_validated(features, fold_of, scorers, resamples=resamples)


def made(n: int = 240, *, patients: int = 80, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 4))
    malignant = values[:, 0] + 0.5 * values[:, 1] + 0.7 * rng.normal(size=n) > 0.4
    names = np.array([f"P{k:03}" for k in rng.integers(0, patients, size=n)])
    return Features(("a", "b", "noise", "more noise"), values, malignant, names)


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=40, max_size=120), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_a_patient_is_in_one_fold_and_folds_are_even(rows: list[tuple[int, bool]], seed: int) -> None:
    patients, labels = [f"P{p}" for p, _ in rows], [y for _, y in rows]
    if len(set(patients)) < 5:
        return
    fold_of = deal_folds(patients, labels, seed=seed)
    where: dict[str, set[int]] = {}
    for patient, fold in zip(patients, fold_of, strict=True):
        where.setdefault(patient, set()).add(int(fold))
    assert all(len(folds) == 1 for folds in where.values())
    assert set(fold_of) == set(range(5))
    sizes = np.bincount([next(iter(folds)) for folds in where.values()])
    assert sizes.max() - sizes.min() <= 1
    again = deal_folds(patients[::-1], labels[::-1], seed=seed)[::-1]
    assert np.array_equal(fold_of, again), "the order of the rows decides nothing"


def test_the_hash_of_a_split_is_of_patients_and_folds_alone() -> None:
    fold = np.array([0, 1, 1])
    assert split_hash(["a", "b", "b"], fold) == split_hash(["b", "a"], np.array([1, 0]))
    assert split_hash(["a", "b", "b"], fold) != split_hash(["a", "b", "b"], 1 - fold)


def test_folds_score_every_nodule_and_agree_with_scikit_learn() -> None:
    features = made()
    fold_of = deal_folds(features.patients, features.malignant)
    judged = folded(features, fold_of, resamples=100)
    assert judged.auroc.value == pytest.approx(roc_auc_score(features.malignant, judged.score))
    assert judged.auprc.value == pytest.approx(average_precision_score(features.malignant, judged.score))
    areas = [roc_auc_score(features.malignant[fold_of == k], judged.score[fold_of == k]) for k in range(5)]
    assert judged.auroc_over_folds.mean == pytest.approx(np.mean(areas))
    assert judged.auroc_over_folds.standard_deviation == pytest.approx(np.std(areas, ddof=1))
    assert 0.8 < judged.auroc.value < 1
    assert judged.auroc.low < judged.auroc.value < judged.auroc.high
    assert (judged.nodules, judged.patients) == (240, len(set(features.patients)))


def test_labels_of_the_scored_fold_decide_nothing() -> None:
    features = made()
    fold_of = deal_folds(features.patients, features.malignant)
    before = folded(features, fold_of).score
    turned = features.malignant ^ (fold_of == 2)
    other = Features(features.names, features.values, turned, features.patients)
    after = folded(other, fold_of).score
    assert np.array_equal(before[fold_of == 2], after[fold_of == 2])
    assert not np.array_equal(before[fold_of != 2], after[fold_of != 2])


def test_five_models_on_one_part_vary_less_than_its_patients() -> None:
    features = made()
    fold_of = deal_folds(features.patients, features.malignant)
    judged = semantic_only.held_out(features, fold_of, semantic_only.sparse_logistic, resamples=500)
    assert judged.nodules == int((fold_of == 0).sum())
    models = judged.auroc_over_folds.high - judged.auroc_over_folds.low
    assert models < judged.auroc.high - judged.auroc.low


def test_the_penalty_leaves_noise_out() -> None:
    features = made(600, patients=200)
    fitted = semantic_only.sparse_logistic(features.values, features.malignant, features.patients, 0)
    steps = np.eye(4)
    weights = np.abs(fitted(steps) - fitted(np.zeros((4, 4))))
    assert weights[0] > weights[1] > 5 * weights[2:].max()


def test_one_column_scores_itself_and_a_forest_learns() -> None:
    features = made()
    score = semantic_only.first_column(features.values, features.malignant, features.patients, 0)
    assert np.array_equal(score(features.values), features.values[:, 0])
    grown = semantic_only.forest(features.values[:200], features.malignant[:200], features.patients[:200], 0)
    assert roc_auc_score(features.malignant[200:], grown(features.values[200:])) > 0.7


def test_bad_features_are_refused() -> None:
    good = made()
    values = good.values.copy()
    values[3, 1] = np.nan
    with pytest.raises(InputError, match="b of row 3"):
        Features(good.names, values, good.malignant, good.patients)
    with pytest.raises(InputError, match="one class only"):
        Features(good.names, good.values, np.ones(240, dtype=bool), good.patients)
    with pytest.raises(InputError, match="features"):
        Features(good.names[:2], good.values, good.malignant, good.patients)
    with pytest.raises(InputError, match="patients"):
        deal_folds(["a", "b"], [0, 1])
