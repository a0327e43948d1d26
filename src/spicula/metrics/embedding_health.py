"""Whether a space of embeddings is fit to be searched, with labels or without: hubs, asymmetry, contrast, collapse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray
from spicula.metrics.neighbors import Distances, IndexArray, checked_k, checked_vectors, nearest, without_own
from spicula.metrics.ranking import Retrieved
from spicula.metrics.retrieval import QueryScores

HEALTH_KS = (3, 5, 7, 11, 17)
"""Neighbors over which hubness and symmetry are averaged."""


@dataclass(frozen=True, slots=True, eq=False)
class Health:
    """Indices of a space of n embeddings, each item left out of its own neighbors. None has a unit.

    Args:
        items: n.
        ks: Neighbors that hubness and symmetry look at.
        hubness: float64 ``[len(ks)]``: ``exp(-|skewness of the histogram of the k-occurrences|)``, 0 to 1. The
            histogram's bars, at 0, 1, ... up to the most occurrences, are the sample whose skewness is taken.
        hub_skewness: float64 ``[len(ks)]``: skewness of the k-occurrences themselves, the usual measure of hubs; 0
            where every item is a neighbor equally often, well above 1 where a few items are neighbors of all.
        symmetry: float64 ``[len(ks)]``: share of links to a neighbor that are returned, 0 to 1.
        concentration: Mean over items of standard deviation over mean of the distances to the others; near 0 where
            all items are equally far, which makes neighbors meaningless.
        relative_contrast: Mean over items of (greatest - mean) / mean of these distances.
        kumar_tau: Area under the share of all n items that lie further than (1 + e) times the mean distance to the
            nearest neighbor, over e from -1. In closed form: the mean of the whole distance matrix (with its
            diagonal) over that mean nearest distance. Infinite where every item has an exact double.
    """

    items: int
    ks: tuple[int, ...]
    hubness: FloatArray
    hub_skewness: FloatArray
    symmetry: FloatArray
    concentration: float
    relative_contrast: float
    kumar_tau: float

    @property
    def mean_hubness(self) -> float:
        """Mean over ks."""
        return float(self.hubness.mean())

    @property
    def mean_hub_skewness(self) -> float:
        """Mean over ks."""
        return float(self.hub_skewness.mean())

    @property
    def mean_symmetry(self) -> float:
        """Mean over ks."""
        return float(self.symmetry.mean())


def embedding_health(distances: Distances, *, ks: Sequence[int] = HEALTH_KS) -> Health:
    """Look at the distances of one set for hubs, one-sided neighbors and lost contrast.

    Args:
        distances: Of one set against itself.
        ks: Numbers of neighbors, each below the number of items.

    Returns:
        The indices.

    Raises:
        InputError: Two sets, a k that takes in all other items (then all are neighbors of all), or items that are all
            the same.

    References:
        Radovanovic, Nanopoulos, Ivanovic 2010, JMLR 11:2487 (hubs, concentration); Aggarwal, Hinneburg, Keim 2001,
        doi:10.1007/3-540-44503-X_27 (contrast); github.com/markloyman/LungNoduleRetrieval for hubness, symmetry and
        Kumar's tau as they are here. Its code integrates tau in steps (ours is the limit of small steps), and leaves
        out of the histogram the items after the last one that is a neighbor at all.

    Example:
        >>> from spicula.metrics.neighbors import distances_between
        >>> health = embedding_health(distances_between([[0.0], [1.0], [3.0]]), ks=[1])
        >>> round(health.mean_symmetry, 3)
        0.667
    """
    items = distances.shape[1]
    if not distances.one_set:
        raise InputError(
            "distances", got=f"{distances.shape[0]} queries to {items} items", expected="one set to itself"
        )
    if not ks or max(checked_k(k) for k in ks) >= items:
        raise InputError(
            "ks",
            got=list(ks),
            expected=f"1 to {items - 1}",
            hint=f"each of {items} items has {items - 1} others; leave the greater k out",
        )
    if not distances.rows(np.array([0])).any():
        raise InputError("items", got="all the same", expected="items that differ", hint="see what collapse() says")
    found = nearest(distances, max(ks))
    mean, sd, greatest = _row_statistics(distances)
    flat = np.flatnonzero(mean <= 1e-12 * greatest.max())
    if flat.size:
        raise InputError(f"item {flat[0]}", got="distance 0 to all others", expected="others that differ from it")
    closest = float(found.distance[:, 0].mean())
    occurrences = [np.bincount(found.index[:, :k].ravel(), minlength=items) for k in ks]
    return Health(
        items,
        tuple(int(k) for k in ks),
        np.array([np.exp(-abs(skewness(np.bincount(o)))) for o in occurrences]),
        np.array([skewness(o) for o in occurrences]),
        np.array([_returned(found.index[:, :k]) for k in ks]),
        float((sd / mean).mean()),
        float(((greatest - mean) / mean).mean()),
        float(mean.mean()) * (items - 1) / items / closest if closest > 0 else float("inf"),
    )


def skewness(values: ArrayLike) -> float:
    """Third central moment over the standard deviation cubed (no correction for small samples).

    Args:
        values: ``[n]``, n > 0.

    Returns:
        The skewness; 0 where all values are the same.
    """
    apart = np.asarray(values, dtype=np.float64)
    apart = apart - apart.mean()
    spread = float(np.mean(apart**2))
    return float(np.mean(apart**3)) / spread**1.5 if spread > 0 else 0.0


def knn_correct(found: Retrieved, k: int | None = None) -> QueryScores:
    """Whether the majority of the k nearest has the query's label: the mean is the k-NN accuracy.

    With scope ``"all"`` this leaves one item out, with ``"cross-patient"`` one patient.

    Args:
        found: From :func:`~spicula.metrics.ranking.retrieve`, the query left out.
        k: Neighbors that vote, up to ``found.k``; None takes that. Of labels with equal votes, the first in sorted
            order wins.

    Returns:
        1 or 0 for each query; queries without candidates are skipped.

    Raises:
        InputError: The query was let in, or k is above ``found.k``.

    References:
        Fix, Hodges 1951, doi:10.2307/1403797.
    """
    k = found.k if k is None else checked_k(k)
    if k > found.k:
        raise InputError("k", got=k, expected=f"{found.k} at most, as retrieved")
    if found.with_query:
        raise InputError("k-NN", got="queries among their own neighbors", expected="with_query=False")
    labels = found.found_class[:, :k]
    votes = np.zeros((labels.shape[0], found.classes.size), dtype=np.intp)
    query, place = np.nonzero(labels >= 0)
    np.add.at(votes, (query, labels[query, place]), 1)
    empty = found.candidates == 0
    value = np.where(empty, np.nan, votes.argmax(axis=1) == found.query_class)
    return QueryScores(value, int(empty.sum()), int((~empty & (found.relevant == 0)).sum()))


@dataclass(frozen=True, slots=True)
class Collapse:
    """Signs that embeddings use less of their space than they have. None has a unit.

    Args:
        items: Number of embeddings.
        dimensions: Length of each.
        constant_dimensions: Those in which no item differs from another.
        effective_rank: Exponential of the entropy of the singular values of the centered embeddings, 1 to dimensions;
            0 where all items are the same.
        participation_ratio: (sum of the variances along the principal axes)^2 over the sum of their squares, 1 to
            dimensions; as the rank, but ruled by the strongest axes.
        feature_correlation: Mean absolute correlation of two different dimensions, constant ones left out; NaN with
            fewer than two others.
        mean_cosine: Mean cosine of two different embeddings; near 1 where all point the same way.
    """

    items: int
    dimensions: int
    constant_dimensions: int
    effective_rank: float
    participation_ratio: float
    feature_correlation: float
    mean_cosine: float


def collapse(vectors: ArrayLike) -> Collapse:
    """Look at embeddings for lost dimensions.

    Args:
        vectors: ``[n, d]``, finite, two or more, none of length zero.

    Returns:
        The signs of a collapse.

    Raises:
        InputError: One item, a number that is not finite, or a vector of length zero.

    References:
        Roy, Vetterli 2007, https://zenodo.org/records/40328 (effective rank; here of the centered embeddings).

    Example:
        >>> collapse([[1.0, 1.0], [-1.0, -1.0], [2.0, 2.0]]).effective_rank
        1.0
    """
    array = checked_vectors(vectors, what="vectors")
    if array.shape[0] < 2:
        raise InputError("vectors", got="one item", expected="two or more")
    zero = np.flatnonzero(~array.any(axis=1))
    if zero.size:
        raise InputError(f"row {zero[0]} of the vectors", got="length zero", expected="a direction")
    scale = np.abs(array).max()
    array = array / scale
    centered = array - array.mean(axis=0)
    # Rounding of the mean leaves a trace in a constant dimension.
    centered[:, np.ptp(array, axis=0) == 0] = 0.0
    singular = np.linalg.svd(centered, compute_uv=False)
    singular[singular < singular[0] * max(array.shape) * np.finfo(np.float64).eps] = 0.0
    unit = array / np.abs(array).max(axis=1, keepdims=True)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    n = array.shape[0]
    variances = singular**2
    return Collapse(
        n,
        array.shape[1],
        int((~centered.any(axis=0)).sum()),
        _effective_rank(singular),
        float(variances.sum() ** 2 / (variances**2).sum()) if singular[0] > 0 else 0.0,
        _feature_correlation(centered),
        float((np.square(unit.sum(axis=0)).sum() - n) / (n * (n - 1))),
    )


def _effective_rank(singular: FloatArray) -> float:
    kept = singular[singular > 0]
    if kept.size == 0:
        return 0.0
    share = kept / kept.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _feature_correlation(centered: FloatArray) -> float:
    varying = centered[:, centered.any(axis=0)]
    if varying.shape[1] < 2:
        return float("nan")
    varying = varying / np.abs(varying).max(axis=0)
    varying /= np.linalg.norm(varying, axis=0)
    size = varying.shape[1]
    total = np.abs(varying.T @ varying).sum() - size
    return float(total / (size * (size - 1)))


def _row_statistics(distances: Distances) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean, standard deviation and maximum of each item's distances to the others, each ``[n]``."""
    n = distances.shape[1]
    mean, sd, greatest = np.empty(n), np.empty(n), np.empty(n)
    for rows in distances.chunks():
        block = distances.estimate(rows)
        without_own(block, rows, fill=0.0)
        mean[rows] = block.sum(axis=1) / (n - 1)
        greatest[rows] = block.max(axis=1)
        block -= mean[rows, None]
        without_own(block, rows, fill=0.0)
        sd[rows] = np.sqrt(np.einsum("ij,ij->i", block, block) / (n - 1))
    return mean, sd, greatest


def _returned(index: IndexArray) -> float:
    """Share of the links ``[n, k]`` whose target links back."""
    n, k = index.shape
    links = np.repeat(np.arange(n), k) * n + index.ravel()
    back = index.ravel() * n + np.repeat(np.arange(n), k)
    return float(np.isin(links, back).mean())
