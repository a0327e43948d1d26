"""The heads that LungNodule-SSM puts on frozen features, and simple ones beside them.

References:
    Noreen and Shaukat 2025, arXiv 2505.15120; the released code: a forest of 100 trees, a tree, five neighbors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spicula.core.extras import require

Array: TypeAlias = NDArray[np.float64]
SEED = 42
"""As published."""


def _forest() -> Any:
    ensemble = require("sklearn.ensemble", extra="train")
    return ensemble.RandomForestClassifier(100, random_state=SEED)


def _tree() -> Any:
    return require("sklearn.tree", extra="train").DecisionTreeClassifier(random_state=SEED)


def _neighbors() -> Any:
    return require("sklearn.neighbors", extra="train").KNeighborsClassifier(5)


def _standardized(head: Any) -> Any:
    scaler = require("sklearn.preprocessing", extra="train").StandardScaler()
    return require("sklearn.pipeline", extra="train").make_pipeline(scaler, head)


def _linear() -> Any:
    models = require("sklearn.linear_model", extra="train")
    return _standardized(models.LogisticRegression(C=0.01, max_iter=5000))


def _mlp() -> Any:
    networks = require("sklearn.neural_network", extra="train")
    return _standardized(networks.MLPClassifier((64,), alpha=10.0, solver="lbfgs", max_iter=500, random_state=SEED))


HEADS: Mapping[str, Callable[[], Any]] = {
    "forest": _forest, "tree": _tree, "knn": _neighbors, "linear": _linear, "mlp": _mlp,
}  # fmt: skip
"""Heads by name; the first three as published."""


def out_of_fold(
    features: NDArray[Any], label: NDArray[np.bool_], fold_of: NDArray[np.intp], *,
    head: str | Callable[[], Any] = "forest", taught: NDArray[np.bool_] | None = None,
    tested: NDArray[Any] | None = None,
) -> Array:  # fmt: skip
    """Probabilities ``[n]`` of rows by a head that was taught on the other folds.

    Args:
        features: ``[n, f]``, or ``[folds, n, f]`` where each fold has features of its own.
        label: ``[n]``.
        fold_of: ``[n]``.
        head: Name in :data:`HEADS`, or what makes one.
        taught: ``[n]`` rows whose label may be used; all if None.
        tested: Features of the rows where they are told, if other than those that are learned from.

    Returns:
        float64; 0.5 for a fold whose other folds show one class alone.
    """
    make = HEADS[head] if isinstance(head, str) else head
    scores = np.full(len(label), 0.5)
    for number, fold in enumerate(np.unique(fold_of)):
        own = features[number] if features.ndim == 3 else features
        other = own if tested is None else tested[number] if tested.ndim == 3 else tested
        learn = (fold_of != fold) & (True if taught is None else taught)
        if len(np.unique(label[learn])) == 2:
            scores[fold_of == fold] = make().fit(own[learn], label[learn]).predict_proba(other[fold_of == fold])[:, 1]
    return scores


COMPONENTS = 4
"""Into so many directions, those that go with the label, features are drawn together before facts join them."""


def beside(features: NDArray[Any], facts: Array, label: NDArray[np.bool_], fold_of: NDArray[np.intp]) -> Array:
    """Probabilities ``[n]`` of rows by features and facts together (late fusion), out of fold.

    Partial least squares draws the features together into a few components. A forest learns from these and the facts:
    some facts mean more for some nodules. A logistic model weighs the forest's log odds and the facts. What it learns
    from of the forest is out of fold too: each of the other folds in turn is told by a forest that has not seen it.

    Args:
        features: ``[n, f]``, or ``[folds, n, f]`` where each fold has features of its own; no ``f`` for facts alone.
        facts: ``[n, k]``; for a diameter its logarithm and the square of that, see :func:`of_diameter`.
        label: ``[n]``.
        fold_of: ``[n]``.
    """
    models = require("sklearn.linear_model", extra="train")
    scores = np.full(len(label), 0.5)
    for number, fold in enumerate(np.unique(fold_of)):
        own = features[number] if features.ndim == 3 else features
        learn = fold_of != fold
        told = facts
        if own.shape[1]:
            said = np.empty(len(label))
            for part in np.unique(fold_of[learn]):
                inner = fold_of == part
                said[inner] = _joined(own, facts, label, learn & ~inner, inner)
            said[~learn] = _joined(own, facts, label, learn, ~learn)
            said = np.clip(said, 0.01, 0.99)
            told = np.concatenate([facts, np.log(said / (1 - said))[:, None]], axis=1)
        model = _standardized(models.LogisticRegression(C=1.0, max_iter=5000))
        scores[~learn] = model.fit(told[learn], label[learn]).predict_proba(told[~learn])[:, 1]
    return scores


def _joined(
    features: NDArray[Any], facts: Array, label: NDArray[np.bool_], learn: NDArray[np.bool_], test: NDArray[np.bool_]
) -> Array:
    """Probabilities of the rows in ``test`` by a forest on components of the features and on facts."""
    cross = require("sklearn.cross_decomposition", extra="train")
    ensemble = require("sklearn.ensemble", extra="train")
    with warnings.catch_warnings():  # where fewer components tell all, the others stay empty
        warnings.filterwarnings("ignore", "y residual is constant")
        drawn = cross.PLSRegression(min(COMPONENTS, features.shape[1]))
        drawn.fit(features[learn], label[learn].astype(np.float64))
    rows = np.concatenate([drawn.transform(features), facts], axis=1)
    forest = ensemble.RandomForestClassifier(300, min_samples_leaf=5, max_features=0.5, random_state=SEED)
    return np.asarray(forest.fit(rows[learn], label[learn]).predict_proba(rows[test])[:, 1])


def of_diameter(diameter_mm: Array) -> Array:
    """The logarithm of a diameter and its square, ``[n, 2]``."""
    log = np.log(diameter_mm)
    return np.stack([log, log**2], axis=1)
