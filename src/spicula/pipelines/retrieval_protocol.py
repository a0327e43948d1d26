"""How well embeddings find nodules that are alike: one protocol for all of them, with intervals over patients.

The queries of each fold are looked up with the vectors of a network that has not learned from their patients. They may
find every other nodule, as in use: those of the training patients lie where that network has put them, and what became
of them is known. ``unseen`` narrows the search to the fold itself, where the network knows nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.embedding import Scope
from spicula.metrics.bootstrap import bootstrap_interval
from spicula.metrics.neighbors import distances_between
from spicula.metrics.ranking import SCOPES
from spicula.metrics.retrieval import ScopeScores, mean_scored, score_scope
from spicula.pipelines.risk_evaluation import rounded

Array = NDArray[np.float64]
PLACES = 10
"""Places looked at."""

MEASURES = ("precision", "average_precision", "published", "ndcg")
"""Of :class:`spicula.metrics.retrieval.ScopeScores`, those that are told."""

RESAMPLES = 2000
"""Of each bootstrap over patients."""

RATING_SPAN = 4.0
"""Between the lowest and the highest rating of a trait."""


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """The nodules that are looked up.

    Args:
        patients: ``[n]``.
        fold_of: ``[n]``.
        labels: ``[n]`` by what is to agree, for example ``"malignancy"`` and ``"texture"``.
        ratings: ``[n, traits]`` 1 to 5: the nearer, the better is a match; None: the label alone says so.
    """

    patients: NDArray[np.str_]
    fold_of: NDArray[np.intp]
    labels: Mapping[str, NDArray[np.intp]]
    ratings: Array | None = None

    def __len__(self) -> int:
        """Number of nodules."""
        return len(self.patients)


def judge_retrieval(
    vectors: Mapping[str, NDArray[np.floating]], queries: Queries, *, against: Sequence[str] = (), k: int = PLACES
) -> dict[str, Any]:
    """Every measure in every scope for every embedding.

    Args:
        vectors: By name, ``[n, d]``, or ``[folds, n, d]`` where each fold has a network of its own.
        queries: The nodules.
        against: Names of the embeddings that the others are compared with, query by query.
        k: Places looked at.

    Returns:
        By name, by what is to agree, by scope (and ``unseen``), by measure: mean, 95 % interval over patients, queries
        skipped; with ``over`` the paired differences, by the name of the one compared with.
    """
    scores = {name: _scores(one, queries, k) for name, one in vectors.items()}
    result: dict[str, Any] = {}
    for name, of_name in scores.items():
        result[name] = {}
        for (agree, scope, measure), value in of_name.items():
            told = _told(value, queries.patients)
            told["over"] = {
                other: difference_of(value, scores[other][agree, scope, measure], queries.patients)
                for other in against if other != name
            }  # fmt: skip
            result[name].setdefault(agree, {}).setdefault(scope, {})[measure] = told
    return result


def _scores(vectors: NDArray[np.floating], queries: Queries, k: int) -> dict[tuple[str, str, str], Array]:
    """A value for each query by what is to agree, scope and measure; NaN where the query is skipped."""
    found: dict[tuple[str, str, str], Array] = {}
    for number, fold in enumerate(np.unique(queries.fold_of)):
        own = np.asarray(vectors[number] if vectors.ndim == 3 else vectors, dtype=np.float64)
        rows = np.flatnonzero(queries.fold_of == fold)
        for agree in queries.labels:
            for scope, scored in _of_fold(own, rows, queries, agree, k).items():
                for measure in MEASURES:
                    whole = found.setdefault((agree, scope, measure), np.full(len(queries), np.nan))
                    whole[rows] = getattr(scored, measure).value
    return found


def _of_fold(
    vectors: Array, rows: NDArray[np.intp], queries: Queries, agree: str, k: int
) -> dict[str, ScopeScores]:  # fmt: skip
    label, patients = queries.labels[agree], queries.patients
    rated = np.empty((0, 0)) if queries.ratings is None else queries.ratings
    everyone = distances_between(vectors[rows], vectors, own=rows)
    among = distances_between(vectors[rows])

    def scored(scope: Scope, *, seen: bool) -> ScopeScores:
        items = np.arange(len(queries)) if seen else rows

        def gain(asked: NDArray[np.intp]) -> Array:
            apart = np.abs(rated[rows[asked]][:, None] - rated[items][None]).mean(axis=2)
            return np.asarray(np.maximum(0.0, 1.0 - apart / RATING_SPAN))

        index = {"index_labels": label, "index_patients": patients} if seen else {}
        return score_scope(
            everyone if seen else among,
            label[rows],
            k=k,
            scope=scope,
            patients=patients[rows],
            gain=gain if rated.size else None,
            **index,
        )

    return {**{scope: scored(scope, seen=True) for scope in SCOPES}, "unseen": scored("cross-patient", seen=False)}


def _told(value: Array, patients: NDArray[np.str_]) -> dict[str, Any]:
    skipped = int(np.isnan(value).sum())
    if skipped == len(value):
        return {"skipped": skipped}
    return {**rounded(bootstrap_interval(mean_scored, (value,), patients, resamples=RESAMPLES)), "skipped": skipped}


def difference_of(value: Array, other: Array, patients: NDArray[np.str_]) -> dict[str, Any]:
    """Mean difference, query by query, with its 95 % interval over patients; empty where none is scored in both."""
    apart = value - other
    return (
        {}
        if np.isnan(apart).all()
        else rounded(bootstrap_interval(mean_scored, (apart,), patients, resamples=RESAMPLES))
    )
