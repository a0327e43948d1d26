"""The semantic-only model: what radiologists' words alone say of malignancy, without a pixel.

An L1-regularized logistic regression on the features that readers rated, as the papers' tables have it beside their
networks. Patients are never on both sides of a split, and the strength of the penalty is chosen inside the training
folds. Two protocols: folds over all patients, and, as the paper did it, one held-out part scored by the models of
five folds of the rest, whose interval over models says nothing of how patients vary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from packaging.version import Version

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.metrics.bootstrap import Interval, bootstrap_interval
from spicula.metrics.classification import FloatArray, auprc, auroc
from spicula.metrics.folds import FoldInterval, t_interval
from spicula.metrics.patients import deal_folds

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Inverse strengths of the penalty that are tried."""

FOLDS = 5

Scorer: TypeAlias = Callable[[FloatArray], FloatArray]
"""Scores ``[m, k]`` features; higher is more surely malignant."""

Model: TypeAlias = Callable[[FloatArray, NDArray[np.bool_], NDArray[np.str_], int], Scorer]
"""Learns from features, labels, patients and a seed."""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Nodules described by numbers.

    Args:
        names: Of the columns.
        values: float64 ``[n, len(names)]``, finite.
        malignant: bool ``[n]``.
        patients: ``[n]`` patient of each nodule.

    Raises:
        InputError: Shapes differ, a value is not finite, or one class only.
    """

    names: tuple[str, ...]
    values: FloatArray
    malignant: NDArray[np.bool_]
    patients: NDArray[np.str_]

    def __post_init__(self) -> None:
        n = len(self.malignant)
        if self.values.shape != (n, len(self.names)) or self.patients.shape != (n,):
            raise InputError(
                "features", got=f"{self.values.shape} for {n} nodules", expected=f"({n}, {len(self.names)})"
            )
        if not np.isfinite(self.values).all():
            row, column = (int(k[0]) for k in np.nonzero(~np.isfinite(self.values)))
            raise InputError(f"{self.names[column]} of row {row}", got=self.values[row, column], expected="a number")
        if self.malignant.all() or not self.malignant.any():
            raise InputError("labels", got="one class only", expected="malignant and benign nodules")

    def rows(self, chosen: NDArray[np.bool_]) -> Features:
        """Some of the nodules."""
        return Features(self.names, self.values[chosen], self.malignant[chosen], self.patients[chosen])


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A model's scores, and what they are worth.

    Args:
        score: float64, one for each nodule that was scored, by models that did not learn from its patient.
        auroc_over_folds: Mean, deviation and t-interval of the folds (or of the models on one test part).
        auprc_over_folds: The same of the step-wise area under the precision-recall curve.
        auroc: Of all scores together, with a bootstrap interval over patients.
        auprc: The same.
        nodules: Scored.
        malignant: Of these.
        patients: Of these.
    """

    score: FloatArray
    auroc_over_folds: FoldInterval
    auprc_over_folds: FoldInterval
    auroc: Interval
    auprc: Interval
    nodules: int
    malignant: int
    patients: int


def split_hash(patients: Sequence[str] | NDArray[np.str_], fold_of: NDArray[np.intp]) -> str:
    """SHA-256 of which patient is in which fold: two results with the same hash had the same split."""
    pairs = sorted({f"{patient}\t{fold}" for patient, fold in zip(patients, fold_of, strict=True)})
    return hashlib.sha256("\n".join(pairs).encode()).hexdigest()


def fit_folds(features: Features, fold_of: NDArray[np.intp], model: Model, *, seed: int = 0) -> list[Scorer]:
    """A model for each fold, that learned from the others.

    Args:
        features: All nodules.
        fold_of: Fold of each, from 0.
        model: Such as :func:`sparse_logistic`.
        seed: Of the inner folds.

    Returns:
        What scores the nodules of fold 0, 1, ...
    """
    parts = [features.rows(fold_of != fold) for fold in range(int(fold_of.max()) + 1)]
    return [model(part.values, part.malignant, part.patients, seed) for part in parts]


def out_of_fold_scores(features: Features, fold_of: NDArray[np.intp], scorers: Sequence[Scorer]) -> FloatArray:
    """The score that every nodule has from the model that did not learn from its fold, ``[n]``."""
    score = np.empty(len(fold_of))
    for fold, scorer in enumerate(scorers):
        score[fold_of == fold] = scorer(features.values[fold_of == fold])
    return score


def cross_validated(
    features: Features, fold_of: NDArray[np.intp], scorers: Sequence[Scorer], *, seed: int = 0, resamples: int = 2000
) -> Judged:
    """Judge the scores that every nodule has from the model that did not learn from its fold.

    Args:
        features: All nodules.
        fold_of: Fold of each.
        scorers: Of :func:`fit_folds` for the same nodules and folds.
        seed: Of the bootstrap.
        resamples: Of the bootstrap over patients.

    Returns:
        Over the folds, and pooled. Scores of different models are pooled as they are.
    """
    score = out_of_fold_scores(features, fold_of, scorers)
    parts = [(features.malignant[fold_of == fold], score[fold_of == fold]) for fold in range(len(scorers))]
    return _judged(features, score, parts, seed=seed, resamples=resamples)


def held_out(
    features: Features, fold_of: NDArray[np.intp], model: Model, *, test_fold: int = 0, seed: int = 0,
    resamples: int = 2000,
) -> Judged:  # fmt: skip
    """Hold one fold out, split the rest into five folds, and score the held-out part by the five models.

    Args:
        features: All nodules.
        fold_of: Fold of each.
        model: Such as :func:`sparse_logistic`.
        test_fold: Which is held out.
        seed: Of the folds within the rest and the bootstrap.
        resamples: Of the bootstrap over patients.

    Returns:
        Over the five models, each on the whole test part; and of the mean of their scores.

    References:
        Zhuang et al. 2025, arXiv:2504.21344, sections 3.3.2 and 3.5.
    """
    test, rest = fold_of == test_fold, features.rows(fold_of != test_fold)
    inner = deal_folds(rest.patients, rest.malignant, seed=seed + 1)
    scores = [scorer(features.values[test]) for scorer in fit_folds(rest, inner, model, seed=seed)]
    chosen = features.rows(test)
    parts = [(chosen.malignant, score) for score in scores]
    return _judged(chosen, np.mean(scores, axis=0), parts, seed=seed, resamples=resamples)


def sparse_logistic(values: FloatArray, malignant: NDArray[np.bool_], patients: NDArray[np.str_], seed: int) -> Scorer:
    """Logistic regression with an L1 penalty on standardized columns; its strength from folds by patient.

    Args:
        values: ``[n, k]`` of training.
        malignant: ``[n]``.
        patients: ``[n]``.
        seed: Of the inner folds.

    Returns:
        What gives the log odds of ``[m, k]`` features.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    inner = deal_folds(patients, malignant, seed=seed + 2)
    areas = []
    for strength in STRENGTHS:
        folds = []
        for fold in range(FOLDS):
            train, test = inner != fold, inner == fold
            fitted = _sparse(values[train], malignant[train], strength)
            folds.append(auroc(malignant[test], fitted(values[test])))
        areas.append(float(np.mean(folds)))
    best = max(areas)
    strength = next(s for s, area in zip(STRENGTHS, areas, strict=True) if area >= best - 1e-4)
    return _sparse(values, malignant, strength)


def _sparse(values: FloatArray, malignant: NDArray[np.bool_], strength: float) -> Scorer:
    sklearn = require("sklearn", extra="evaluate")
    linear = require("sklearn.linear_model", extra="evaluate")
    lasso: Mapping[str, Any] = (
        {"l1_ratio": 1.0} if Version(sklearn.__version__) >= Version("1.8") else {"penalty": "l1"}
    )
    middle, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    fitted = linear.LogisticRegression(
        solver="liblinear", C=strength, intercept_scaling=10.0, max_iter=500, tol=1e-5, random_state=0, **lasso
    ).fit((values - middle) / spread, malignant)

    def score(new: FloatArray) -> FloatArray:
        return np.asarray(fitted.decision_function((new - middle) / spread), dtype=np.float64)

    return score


def forest(values: FloatArray, malignant: NDArray[np.bool_], patients: NDArray[np.str_], seed: int) -> Scorer:
    """Random forest of 300 trees with five nodules a leaf, as a check of what the features hold.

    Args:
        values: ``[n, k]`` of training.
        malignant: ``[n]``.
        patients: Not used: nothing is chosen.
        seed: Of the trees.

    Returns:
        What gives the probability of ``[m, k]`` features.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    ensemble = require("sklearn.ensemble", extra="evaluate")
    trees = ensemble.RandomForestClassifier(300, min_samples_leaf=5, random_state=seed, n_jobs=1).fit(values, malignant)

    def score(new: FloatArray) -> FloatArray:
        return np.asarray(trees.predict_proba(new)[:, 1], dtype=np.float64)

    return score


def first_column(values: FloatArray, malignant: NDArray[np.bool_], patients: NDArray[np.str_], seed: int) -> Scorer:
    """The first feature as it is, for one that needs no model: a diameter."""
    return lambda new: np.asarray(new[:, 0], dtype=np.float64)


def _judged(
    features: Features, score: FloatArray, parts: Sequence[tuple[NDArray[np.bool_], FloatArray]], *, seed: int,
    resamples: int,
) -> Judged:  # fmt: skip
    labels, patients = features.malignant, features.patients
    return Judged(
        score,
        t_interval([auroc(y, s) for y, s in parts]),
        t_interval([auprc(y, s) for y, s in parts]),
        bootstrap_interval(auroc, (labels, score), patients, resamples=resamples, seed=seed),
        bootstrap_interval(auprc, (labels, score), patients, resamples=resamples, seed=seed),
        len(labels),
        int(labels.sum()),
        len(set(patients.tolist())),
    )
