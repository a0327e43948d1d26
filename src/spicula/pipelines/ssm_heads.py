"""The heads that LungNodule-SSM puts on frozen features, and simple ones beside them.

References:
    Noreen and Shaukat 2025, arXiv 2505.15120; the released code: a forest of 100 trees, a tree, five neighbors.
"""

from __future__ import annotations

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


def beside(
    features: NDArray[Any], facts: Array, label: NDArray[np.bool_], fold_of: NDArray[np.intp], *,
    heads: tuple[str, ...] = ("forest",),
) -> Array:  # fmt: skip
    """Probabilities ``[n]`` of rows by what heads say and by facts together (late fusion), out of fold.

    A logistic model weighs the heads' log odds and the facts. What it learns from of the heads is out of fold too: each
    of the other folds in turn is told by heads that have not seen it.

    Args:
        features: ``[n, f]``, or ``[folds, n, f]`` where each fold has features of its own.
        facts: ``[n, k]``; for a diameter its logarithm and the square of that, see :func:`of_diameter`.
        label: ``[n]``.
        fold_of: ``[n]``.
        heads: Names in :data:`HEADS`; none for the facts alone.
    """
    scores = np.full(len(label), 0.5)
    for number, fold in enumerate(np.unique(fold_of)):
        own = features[number] if features.ndim == 3 else features
        learn = fold_of != fold
        told = list(facts.T)
        for head in heads:
            said = np.empty(len(label))
            said[learn] = out_of_fold(own[learn], label[learn], fold_of[learn], head=head)
            said[~learn] = HEADS[head]().fit(own[learn], label[learn]).predict_proba(own[~learn])[:, 1]
            said = np.clip(said, 0.01, 0.99)
            told.append(np.log(said / (1 - said)))
        rows = np.stack(told, axis=1)
        model = _standardized(require("sklearn.linear_model", extra="train").LogisticRegression(C=1.0, max_iter=5000))
        scores[~learn] = model.fit(rows[learn], label[learn]).predict_proba(rows[~learn])[:, 1]
    return scores


def of_diameter(diameter_mm: Array) -> Array:
    """The logarithm of a diameter and its square, ``[n, 2]``."""
    log = np.log(diameter_mm)
    return np.stack([log, log**2], axis=1)
