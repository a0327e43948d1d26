"""How well a search finds what is alike: precision, recall, average precision and discounted gain at k.

:func:`~spicula.metrics.ranking.retrieve` ranks once; each measure is read from its result and keeps one value a query,
so that intervals can be drawn over patients: ``bootstrap_interval(mean_scored, (scores.value,), groups=patients)``
draws the queries' patients and leaves the index as it is. A query for which a measure has no meaning is counted, never
dropped in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.embedding import Scope
from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray
from spicula.metrics.neighbors import BoolArray, Distances, IndexArray, checked_k
from spicula.metrics.ranking import Gain, Retrieved, retrieve


@dataclass(frozen=True, slots=True, eq=False)
class QueryScores:
    """One value for each query; NaN for a query that was skipped because the measure has no meaning for it.

    Args:
        value: float64 ``[q]``.
        without_candidates: Queries that had nothing to find.
        without_relevant: Queries that had candidates, none of them relevant.
    """

    value: FloatArray
    without_candidates: int = 0
    without_relevant: int = 0

    @property
    def scored(self) -> int:
        """Queries that have a value."""
        return int(np.isfinite(self.value).sum())

    @property
    def skipped(self) -> int:
        """Queries that have none."""
        return self.value.size - self.scored

    @property
    def mean(self) -> float:
        """Mean over the scored queries; NaN if there is none."""
        return mean_scored(self.value) if self.scored else float("nan")

    @property
    def sd(self) -> float:
        """Standard deviation over the scored queries (divided by their number); NaN if there is none."""
        return float(np.std(self.value[np.isfinite(self.value)])) if self.scored else float("nan")


def mean_scored(value: ArrayLike) -> float:
    """Mean of the queries that have a value: a statistic for :func:`spicula.metrics.bootstrap.bootstrap_interval`.

    Args:
        value: ``[q]``, NaN for a skipped query.

    Returns:
        The mean.

    Raises:
        InputError: No query has a value.
    """
    values = np.asarray(value, dtype=np.float64)
    kept = values[np.isfinite(values)]
    if kept.size == 0:
        raise InputError("queries", got=f"{values.size}, all skipped", expected="one that is scored, or more")
    return float(kept.mean())


def precision_at(found: Retrieved, k: int | None = None, *, of_candidates: bool = False) -> QueryScores:
    """Share of the first k places that hold a relevant item.

    Args:
        found: From :func:`~spicula.metrics.ranking.retrieve`.
        k: Up to ``found.k``; None takes that.
        of_candidates: Divide by the candidates where these are fewer than k, instead of always by k.

    Returns:
        0 to 1; queries without candidates are skipped.

    Raises:
        InputError: k is above ``found.k``.

    Example:
        >>> from spicula.metrics.neighbors import distances_between
        >>> found = retrieve(distances_between([[0.0], [1.0], [1.5], [3.5]]), ["a", "a", "b", "b"], k=1)
        >>> precision_at(found).value.tolist()
        [1.0, 0.0, 0.0, 1.0]
    """
    k = _places(found, k)
    places = np.minimum(k, found.candidates) if of_candidates else np.full(found.candidates.shape, k)
    return _scores(found, found.hit[:, :k].sum(axis=1), places, defined=found.candidates > 0)


def recall_at(found: Retrieved, k: int | None = None) -> QueryScores:
    """Share of all relevant items that are in the first k places.

    Args:
        found: From :func:`~spicula.metrics.ranking.retrieve`.
        k: Up to ``found.k``; None takes that.

    Returns:
        0 to 1; queries without a relevant item are skipped.

    Raises:
        InputError: k is above ``found.k``.
    """
    k = _places(found, k)
    return _scores(found, found.hit[:, :k].sum(axis=1), found.relevant, defined=found.relevant > 0)


def average_precision_at(found: Retrieved, k: int | None = None) -> QueryScores:
    """Average precision at k: the mean of the precisions at each relevant place, over min(relevant items, k).

    Args:
        found: From :func:`~spicula.metrics.ranking.retrieve`, the query left out.
        k: Up to ``found.k``; None takes that.

    Returns:
        0 to 1, its mean is the mAP at k; queries without a relevant item are skipped.

    Raises:
        InputError: The query was let in, or k is above ``found.k``.

    References:
        Manning, Raghavan, Schuetze 2008, Introduction to Information Retrieval, 8.4, cut at k.
    """
    k = _places(found, k)
    if found.with_query:
        raise InputError("average precision", got="queries among their own candidates", expected="with_query=False")
    total = np.where(found.hit[:, :k], _precisions(found, k), 0.0).sum(axis=1)
    return _scores(found, total, np.minimum(found.relevant, k), defined=found.relevant > 0)


def published_average_precision_at(found: Retrieved, k: int | None = None) -> QueryScores:
    """What the lesion-search paper's code prints as mAP at k: the mean of the precisions at 1, 2, ..., k.

    It is not an average precision: places without a relevant item count, and each precision is divided by its number
    of places even where candidates ran out. No query is skipped: one without candidates counts 0. To have its numbers,
    let the query in (``with_query=True``), which puts one sure hit first within and over all patients.

    Args:
        found: From :func:`~spicula.metrics.ranking.retrieve`.
        k: Up to ``found.k``; None takes that.

    Returns:
        0 to 1.

    Raises:
        InputError: k is above ``found.k``.

    References:
        Lesion Search with Self-supervised Learning, arXiv:2311.11014, and its code (not the text).
    """
    k = _places(found, k)
    everyone = np.ones(found.candidates.shape, dtype=np.bool_)
    return _scores(found, _precisions(found, k).sum(axis=1), np.full(everyone.shape, k), defined=everyone)


def ndcg_at(found: Retrieved, k: int | None = None) -> QueryScores:
    """Normalized discounted cumulative gain: the gain at place i over log2(i + 1), summed, over the best possible sum.

    The gain enters as it is; for the other convention, give ``2**grade - 1`` as the gain when ranking.

    Args:
        found: From :func:`~spicula.metrics.ranking.retrieve`.
        k: Up to ``found.k``; None takes that.

    Returns:
        0 to 1; queries whose candidates are all worth nothing are skipped.

    Raises:
        InputError: k is above ``found.k``.

    References:
        Jarvelin, Kekalainen 2002, doi:10.1145/582415.582418.
    """
    k = _places(found, k)
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = found.ideal_gain[:, :k] @ discount
    return _scores(found, found.gain[:, :k] @ discount, best, defined=best > 0)


@dataclass(frozen=True, slots=True, eq=False)
class ClassPrecision:
    """Precision at several k, for the queries of each class apart.

    Args:
        ks: Places looked at.
        classes: ``[c]`` labels.
        queries: intp ``[c]``: scored queries of each class; those without candidates are left out.
        precision: float64 ``[len(ks), c]``: mean over the queries of a class; NaN for a class without one.
        harmonic: float64 ``[len(ks)]``: harmonic mean over the classes (for two of them also called F1); 0 where a
            class has none right, NaN where a class has no scored query.
    """

    ks: tuple[int, ...]
    classes: NDArray[np.generic]
    queries: IndexArray
    precision: FloatArray
    harmonic: FloatArray

    @property
    def mean(self) -> float:
        """The harmonic means' mean over all k."""
        return float(self.harmonic.mean())

    @property
    def sd(self) -> float:
        """Their standard deviation over all k (divided by their number)."""
        return float(self.harmonic.std())


def precision_by_class(found: Retrieved, ks: Sequence[int] = (7, 11, 17)) -> ClassPrecision:
    """Precision at k separately for the queries of each class, and its harmonic mean over classes.

    Args:
        found: From :func:`~spicula.metrics.ranking.retrieve`, with ``found.k`` at least the largest of ks.
        ks: Places to look at.

    Returns:
        Precisions for every class that occurs among the queries.

    Raises:
        InputError: No k is given, or one is above ``found.k``.

    References:
        The measures of github.com/markloyman/LungNoduleRetrieval (benign, malignant, and their "F1").
    """
    if not ks:
        raise InputError("ks", got="none", expected="one k or more")
    present = np.unique(found.query_class)
    of_class = (found.query_class[None, :] == present[:, None]) & (found.candidates > 0)
    queries = of_class.sum(axis=1)
    hits = np.stack([np.where(of_class, precision_at(found, k).value, 0.0).sum(axis=1) for k in ks])
    precision = np.divide(hits, queries, out=np.full(hits.shape, np.nan), where=queries > 0)
    with np.errstate(divide="ignore"):
        harmonic = present.size / (1 / precision).sum(axis=1)
    return ClassPrecision(tuple(int(k) for k in ks), found.classes[present], queries, precision, harmonic)


@dataclass(frozen=True, slots=True, eq=False)
class ScopeScores:
    """All measures of one scope at one k.

    Args:
        scope: What a query could find.
        k: Places looked at.
        precision: See :func:`precision_at`.
        recall: See :func:`recall_at`.
        average_precision: See :func:`average_precision_at`.
        ndcg: See :func:`ndcg_at`.
        published: See :func:`published_average_precision_at`, with the query let in: for comparison only.
    """

    scope: Scope
    k: int
    precision: QueryScores
    recall: QueryScores
    average_precision: QueryScores
    ndcg: QueryScores
    published: QueryScores


def score_scope(
    distances: Distances,
    labels: ArrayLike,
    *,
    k: int = 10,
    scope: Scope = "all",
    index_labels: ArrayLike | None = None,
    patients: ArrayLike | None = None,
    index_patients: ArrayLike | None = None,
    gain: ArrayLike | Gain | None = None,
) -> ScopeScores:
    """Rank and score in one scope, by every measure.

    The arguments are those of :func:`~spicula.metrics.ranking.retrieve`.

    Returns:
        Scores for each query, for each measure.

    Raises:
        InputError: See :func:`~spicula.metrics.ranking.retrieve`.
    """
    found, again = (
        retrieve(
            distances, labels, k=k, scope=scope, index_labels=index_labels, patients=patients,
            index_patients=index_patients, with_query=with_query, gain=None if with_query else gain,
        )
        for with_query in (False, True)
    )  # fmt: skip
    return ScopeScores(
        scope, k, precision_at(found), recall_at(found), average_precision_at(found), ndcg_at(found),
        published_average_precision_at(again),
    )  # fmt: skip


def _places(found: Retrieved, k: int | None) -> int:
    k = found.k if k is None else checked_k(k)
    if k > found.k:
        raise InputError("k", got=k, expected=f"{found.k} at most, as retrieved", hint=f"retrieve(..., k={k})")
    return k


def _precisions(found: Retrieved, k: int) -> FloatArray:
    """float64 ``[q, k]``: hits up to each place over the number of places."""
    return np.asarray(np.cumsum(found.hit[:, :k], axis=1) / np.arange(1, k + 1))


def _scores(found: Retrieved, part: ArrayLike, whole: ArrayLike, *, defined: BoolArray) -> QueryScores:
    top, bottom = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    value = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=defined)
    empty = found.candidates == 0
    return QueryScores(value, int(empty.sum()), int((~empty & (found.relevant == 0)).sum()))
