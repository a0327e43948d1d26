"""The nearest of many vectors, exactly: estimated by float32 products in blocks, measured again in float64.

All that rounding leaves in doubt is measured again, so the outcome depends neither on the size of a block nor on the
linear algebra library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicula.retrieval.vectors import RowNumbers, Vectors

_BLOCK, _QUERIES = 16_384, 128
_LONGEST = 1.001
"""Vectors are of unit length to 1e-3, see :class:`spicula.core.embedding.Embeddings`."""


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """Rows near one query, the nearest first; those as near as the last that was asked for are all there.

    Args:
        rows: int64 ``[m]``.
        distances: float64 ``[m]``, Euclidean.
    """

    rows: RowNumbers
    distances: NDArray[np.float64]


def nearest_rows(
    vectors: Vectors,
    queries: Vectors,
    k: int,
    *,
    rows: RowNumbers | None = None,
    gaps: RowNumbers | None = None,
    without: Sequence[RowNumbers],
    squares: NDArray[np.float32] | None = None,
) -> list[Near]:
    """Find the k nearest rows of each query among all or some.

    Args:
        vectors: ``[n, d]``, of unit length to 1e-3; may be mapped.
        queries: ``[q, d]``, the same.
        k: How many, 1 or more.
        rows: ``[m]`` ascending row numbers to search; None for all.
        gaps: ``[g]`` ascending row numbers that no query finds.
        without: For each query the ascending row numbers that it must not find.
        squares: ``[n]`` squared lengths of the vectors, from :func:`squared_lengths`; None computes what is needed.

    Returns:
        For each query its k nearest and all as near as the last of them; fewer where there are fewer.
    """
    found: list[Near] = []
    for start in range(0, len(queries), _QUERIES):
        part = slice(start, start + _QUERIES)
        found += _nearest_of_some(vectors, queries[part], k, rows, gaps, without[part], squares)
    return found


def measured(vectors: Vectors, query: Vectors, rows: RowNumbers, k: int) -> Near:
    """Measure one query against some rows: the k nearest and all as near as the last of them.

    Args:
        vectors: ``[n, d]``.
        query: ``[d]``.
        rows: ``[m]``, each once.
        k: How many, 1 or more.

    Returns:
        In order; equal vectors are equally near, to the last bit.
    """
    apart = vectors[rows].astype(np.float64) - query.astype(np.float64)
    apart *= apart
    distances = np.sqrt(apart.sum(axis=1))
    order = np.lexsort((rows, distances))
    rows, distances = rows[order], distances[order]
    if rows.size > k:
        last = int(np.searchsorted(distances, distances[k - 1], side="right"))
        rows, distances = rows[:last], distances[:last]
    return Near(rows, distances)


def merged(one: Near, other: Near, k: int) -> Near:
    """The k nearest of two findings of different rows, and all as near as the last of them."""
    rows, distances = np.concatenate([one.rows, other.rows]), np.concatenate([one.distances, other.distances])
    order = np.lexsort((rows, distances))
    rows, distances = rows[order], distances[order]
    last = int(np.searchsorted(distances, distances[k - 1], side="right")) if rows.size > k else rows.size
    return Near(rows[:last], distances[:last])


def squared_lengths(vectors: Vectors) -> NDArray[np.float32]:
    """Squared length of each row, a block at a time."""
    out = np.empty(len(vectors), dtype=np.float32)
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        out[start : start + _BLOCK] = np.einsum("ij,ij->i", block, block)
    return out


def slack(dimensions: int) -> float:
    """How far apart rounding can put two equal estimates ``|x|^2 - 2 x.q`` in float32, for vectors of unit length."""
    one_estimate = 4 * (dimensions + 8) * float(np.finfo(np.float32).eps) / 2 * _LONGEST**2
    return 2 * one_estimate


def _nearest_of_some(
    vectors: Vectors,
    queries: Vectors,
    k: int,
    rows: RowNumbers | None,
    gaps: RowNumbers | None,
    without: Sequence[RowNumbers],
    squares: NDArray[np.float32] | None,
) -> list[Near]:
    total = len(vectors) if rows is None else len(rows)
    doubt, limit = slack(vectors.shape[1]), np.full(len(queries), np.inf, dtype=np.float32)
    excluded: list[tuple[int | slice, RowNumbers]] = [
        (query, _places(rows, given)) for query, given in enumerate(without) if given.size
    ]
    if gaps is not None and gaps.size:
        excluded.append((slice(None), _places(rows, gaps)))
    hits: list[tuple[RowNumbers, RowNumbers, NDArray[np.float32]]] = []
    for start in range(0, total, _BLOCK):
        place = slice(start, min(start + _BLOCK, total))
        numbers = place if rows is None else rows[place]
        block = vectors[numbers]
        length = np.einsum("ij,ij->i", block, block) if squares is None else squares[numbers]
        near = queries @ block.T
        near *= -2
        near += length
        for query, places in excluded:
            low, high = np.searchsorted(places, (place.start, place.stop))
            near[query, places[low:high] - start] = np.inf
        if near.shape[1] >= k:
            limit = np.minimum(limit, np.partition(near, k - 1, axis=1)[:, k - 1])
        query_of, at = np.nonzero((near <= (limit + doubt)[:, None]) & np.isfinite(near))
        hits.append((query_of, at + start, near[query_of, at]))
    return _remeasured(vectors, queries, k, rows, hits)


def _places(rows: RowNumbers | None, given: RowNumbers) -> RowNumbers:
    """Where given row numbers stand among the rows that are searched."""
    if rows is None:
        return given
    at = np.searchsorted(rows, given)
    at = at[at < rows.size]
    return at[np.isin(rows[at], given)].astype(np.int64)


def _remeasured(
    vectors: Vectors,
    queries: Vectors,
    k: int,
    rows: RowNumbers | None,
    hits: Sequence[tuple[RowNumbers, RowNumbers, NDArray[np.float32]]],
) -> list[Near]:
    """Measure the candidates of all blocks that are still in doubt."""
    nothing = np.empty(0, dtype=np.int64)
    query_of = np.concatenate([hit[0] for hit in hits]) if hits else nothing
    place = np.concatenate([hit[1] for hit in hits]) if hits else nothing
    estimate = np.concatenate([hit[2] for hit in hits]) if hits else nothing.astype(np.float32)
    order = np.argsort(query_of, kind="stable")
    bounds = np.searchsorted(query_of[order], np.arange(len(queries) + 1))
    found = []
    for query in range(len(queries)):
        mine = order[bounds[query] : bounds[query + 1]]
        if mine.size > k:
            last = np.partition(estimate[mine], k - 1)[k - 1] + slack(vectors.shape[1])
            mine = mine[estimate[mine] <= last]
        numbers = place[mine] if rows is None else rows[place[mine]]
        found.append(measured(vectors, queries[query], numbers.astype(np.int64), k))
    return found
