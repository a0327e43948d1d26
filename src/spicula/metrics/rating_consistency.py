"""Whether embeddings that are near belong to findings that readers rate alike: correlation of two kinds of distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist
from scipy.stats import kendalltau

from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray
from spicula.metrics.neighbors import Distances, IndexArray
from spicula.metrics.retrieval import QueryScores

_CELLS = 4_000_000  # distances between single readings held at once


@dataclass(frozen=True, slots=True)
class RatingScale:
    """How ratings of several traits are made comparable: ``(rating - zero) / unit``.

    Args:
        traits: ``[t]`` names, in the order of the ratings.
        lowest: ``[t]``, the least rating that can be given.
        highest: ``[t]``, the greatest.
        zero: ``[t]``, what becomes 0.
        unit: ``[t]``, what becomes 1, above that.
    """

    traits: tuple[str, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    zero: tuple[float, ...]
    unit: tuple[float, ...]

    def apply(self, ratings: ArrayLike) -> FloatArray:
        """Scale ratings.

        Args:
            ratings: ``[..., t]``; means of several readers are allowed.

        Returns:
            float64 ``[..., t]``.

        Raises:
            InputError: Another number of traits, or a rating that cannot be given.
        """
        values = np.asarray(ratings, dtype=np.float64)
        if values.ndim == 0 or values.shape[-1] != len(self.traits):
            raise InputError("ratings", got=f"shape {values.shape}", expected=f"[..., {len(self.traits)}]")
        wrong = np.argwhere(~((values >= self.lowest) & (values <= self.highest)))
        if wrong.size:
            trait = int(wrong[0, -1])
            raise InputError(
                f"rating of {self.traits[trait]}",
                got=values[tuple(wrong[0])],
                expected=f"{self.lowest[trait]:g} to {self.highest[trait]:g}",
            )
        return np.asarray((values - self.zero) / self.unit)


_TRAITS = (
    "subtlety", "internal_structure", "calcification", "sphericity", "margin", "lobulation", "spiculation", "texture",
    "malignancy",
)  # fmt: skip
_LOWEST = (1.0,) * 9
_HIGHEST = (5.0, 4.0, 6.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0)

LIDC_SCALE = RatingScale(_TRAITS, _LOWEST, _HIGHEST, _LOWEST, tuple(h - 1 for h in _HIGHEST))
"""The nine ratings of LIDC-IDRI from 0 (least) to 1 (greatest): ``(x - 1) / (greatest - 1)``."""

LIDC_STANDARDIZED = RatingScale(
    _TRAITS, _LOWEST, _HIGHEST,
    (3.759, 1.011, 5.507, 3.800, 3.964, 1.673, 1.569, 4.459, 2.552),
    (1.091, 0.114, 1.025, 0.801, 1.043, 0.894, 0.899, 1.048, 1.122),
)  # fmt: skip
"""The same with the data set's mean 0 and standard deviation 1 (of github.com/markloyman/LungNoduleRetrieval)."""


def rating_distances(
    readings: Sequence[ArrayLike] | FloatArray,
    index_readings: Sequence[ArrayLike] | FloatArray | None = None,
    *,
    scale: RatingScale | None = LIDC_SCALE,
) -> Distances:
    """Distances between findings by their ratings, each finding a cluster of one or more readings.

    Of two clusters, every reading takes the euclidean distance to the nearest reading of the other; the distance is
    half the mean of these over one cluster and half the mean over the other. With one reading each (or the readers'
    mean given as one) it is the plain euclidean distance. Two sets of which one repeats readings of the other can have
    distance 0.

    Args:
        readings: One ``[readers, t]`` or ``[t]`` for each of q findings (or one ``[q, t]``).
        index_readings: The same for n others; None compares one set with itself.
        scale: How ratings are made comparable; None takes them as they are.

    Returns:
        The distances, in units of the scale.

    Raises:
        InputError: No finding, a finding without readings, another number of traits, or a rating that is not finite or
            not of the scale.

    References:
        Dubuisson, Jain 1994, doi:10.1109/ICPR.1994.576361 (distances of point sets; here the halves are averaged, as
        in github.com/markloyman/LungNoduleRetrieval).

    Example:
        >>> distances = rating_distances([[[1.0], [3.0]], [[3.0]]], scale=None)
        >>> distances.rows(np.array([0])).tolist()
        [[0.0, 0.5]]
    """
    query, query_start = _clusters(readings, scale, what="readings")
    same = index_readings is None
    item, item_start = (query, query_start) if same else _clusters(index_readings or (), scale, what="index readings")
    if query.shape[1] != item.shape[1]:
        raise InputError("index readings", got=f"{item.shape[1]} traits", expected=f"{query.shape[1]}, as the queries")
    shape = (query_start.size, item_start.size)
    if same and shape[0] < 2:
        raise InputError("readings", got="one finding", expected="two or more")
    query_end, item_size = np.append(query_start[1:], len(query)), np.diff(np.append(item_start, len(item)))
    chunk = max(1, int(_CELLS / (len(item) * len(query) / shape[0])))

    def rows(numbers: IndexArray) -> FloatArray:
        parts = [np.zeros((0, shape[1]))]
        for start in range(0, numbers.size, chunk):
            some = numbers[start : start + chunk]
            sizes = query_end[some] - query_start[some]
            at = np.cumsum(sizes) - sizes
            picked = np.repeat(query_start[some] - at, sizes) + np.arange(sizes.sum())
            apart = cdist(query[picked], item)
            of_query = np.add.reduceat(np.minimum.reduceat(apart, item_start, axis=1), at, axis=0) / sizes[:, None]
            of_item = np.add.reduceat(np.minimum.reduceat(apart, at, axis=0), item_start, axis=1) / item_size
            parts.append((of_query + of_item) / 2)
        return np.concatenate(parts)

    def exact(queries: IndexArray, items: IndexArray) -> FloatArray:
        return np.array([rows(np.array([q]))[0, i] for q, i in zip(queries, items, strict=True)])

    own = np.arange(shape[0]) if same else np.full(shape[0], -1)
    return Distances(shape, own.astype(np.intp), rows, rows, None, exact)


@dataclass(frozen=True, slots=True, eq=False)
class Consistency:
    """Correlation, for each query, of its distances to all others by two measures. Both lie in -1 to 1.

    Args:
        pearson: Pearson's r; a query to which all others are equally far by either measure is skipped.
        kendall: Kendall's tau-b; the same queries are skipped.
    """

    pearson: QueryScores
    kendall: QueryScores


def rating_consistency(embedding: Distances, ratings: Distances, *, with_query: bool = False) -> Consistency:
    """Correlate, query by query, distances of embeddings with distances of ratings.

    Args:
        embedding: Of q queries to n items, from :func:`~spicula.metrics.neighbors.distances_between`.
        ratings: Of the same, from :func:`rating_distances`.
        with_query: Count the query itself as an item at distance 0 by both, as published code has done; this lifts
            Pearson's r.

    Returns:
        Both correlations for each query; ``mean`` and ``sd`` are over queries.

    Raises:
        InputError: The two are not of the same queries and items, or a query has fewer than two others.

    References:
        Kendall 1945, doi:10.1093/biomet/33.3.239 (tau-b). Distances that differ by less than 1e-12 of a query's
        greatest are tied, so that rounding does not order them.

    Example:
        >>> from spicula.metrics.neighbors import distances_between
        >>> ratings = np.array([[1.0], [2.0], [4.0], [8.0]])
        >>> result = rating_consistency(distances_between(ratings), rating_distances(ratings, scale=None))
        >>> round(result.pearson.mean, 6), round(result.kendall.mean, 6)
        (1.0, 1.0)
    """
    if embedding.shape != ratings.shape or not np.array_equal(embedding.own, ratings.own):
        raise InputError(
            "distances",
            got=f"embeddings {embedding.shape} and ratings {ratings.shape}",
            expected="the same queries and items in the same order",
        )
    if embedding.shape[1] - (0 if with_query else int((embedding.own >= 0).any())) < 2:
        raise InputError("items", got=embedding.shape[1], expected="two or more besides the query")
    pearson, kendall = np.full(embedding.shape[0], np.nan), np.full(embedding.shape[0], np.nan)
    for numbers in embedding.chunks():
        for number, a, b in zip(numbers, embedding.rows(numbers), ratings.rows(numbers), strict=True):
            own = int(embedding.own[number])
            if own >= 0 and not with_query:
                a, b = np.delete(a, own), np.delete(b, own)
            a, b = _ties_joined(a), _ties_joined(b)
            if np.ptp(a) > 0 and np.ptp(b) > 0:
                pearson[number] = _pearson(a, b)
                kendall[number] = kendalltau(a, b).statistic
    return Consistency(QueryScores(pearson), QueryScores(kendall))


def _ties_joined(row: FloatArray) -> FloatArray:
    """The row over its greatest, without the last digits."""
    greatest = float(row.max())
    return np.round(row / greatest, 12) if greatest > 0 else row


def _pearson(a: FloatArray, b: FloatArray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def _clusters(
    readings: Sequence[ArrayLike] | FloatArray, scale: RatingScale | None, *, what: str
) -> tuple[FloatArray, IndexArray]:
    """All readings of all findings ``[m, t]``, and where each finding's begin ``[n]``."""
    clusters: list[FloatArray] = []
    for number, given in enumerate(readings):
        try:
            values = np.atleast_2d(np.asarray(given, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise InputError(f"{what} of finding {number}", got=str(error), expected="[readers, t] numbers") from error
        if values.ndim != 2 or 0 in values.shape or values.shape[1] != (clusters or [values])[0].shape[1]:
            expected = f"[readers, {clusters[0].shape[1]}]" if clusters else "[readers, t]"
            raise InputError(f"{what} of finding {number}", got=f"shape {values.shape}", expected=expected)
        if not np.isfinite(values).all():
            raise InputError(f"{what} of finding {number}", got="a rating that is not finite", expected="numbers")
        try:
            clusters.append(values if scale is None else scale.apply(values))
        except InputError as error:
            raise InputError(
                f"{what} of finding {number}: {error.what}", got=error.got, expected=error.expected
            ) from error
    if not clusters:
        raise InputError(what, got="none", expected="one finding or more")
    return np.concatenate(clusters), np.cumsum([0, *(len(c) for c in clusters[:-1])]).astype(np.intp)
