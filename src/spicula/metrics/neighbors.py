"""Distances between items and the nearest of them, in blocks, so that no matrix of all pairs need be held.

The search is exact: blocks are estimated by a matrix product, then all items that rounding leaves in doubt are measured
again, coordinate by coordinate. The outcome depends neither on the size of a block nor on the linear algebra library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray

IndexArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]
Metric = Literal["euclidean", "cosine"]
Rows = Callable[[IndexArray], FloatArray]

_CELLS = 4_000_000  # distances held at once


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """Distances of q queries to n items, made when they are asked for.

    Made by :func:`distances_between` and :func:`given_distances`.

    Args:
        shape: ``(q, n)``.
        own: ``[q]``, the item that is the query itself; -1 where it is not among the items.
        rows: Takes query numbers ``[r]``; returns float64 ``[r, n]`` that the caller may write to.
        estimate: The same, faster, off by rounding.
        slack: float64 ``[q]``: how far the square of an estimate can be off; None if estimates are what they stand for.
        exact: Takes query and item numbers ``[p]``; returns float64 ``[p]``.
    """

    shape: tuple[int, int]
    own: IndexArray
    rows: Rows
    estimate: Rows
    slack: FloatArray | None
    exact: Callable[[IndexArray, IndexArray], FloatArray]

    @property
    def one_set(self) -> bool:
        """Whether each query is the item of the same number: one set against itself."""
        return self.shape[0] == self.shape[1] and bool(np.array_equal(self.own, np.arange(self.shape[0])))

    def chunks(self) -> Iterator[IndexArray]:
        """Numbers of the queries, a block at a time."""
        size = max(1, _CELLS // self.shape[1])
        for start in range(0, self.shape[0], size):
            yield np.arange(start, min(start + size, self.shape[0]))


def distances_between(
    vectors: ArrayLike,
    index_vectors: ArrayLike | None = None,
    *,
    metric: Metric = "euclidean",
    own: ArrayLike | None = None,
) -> Distances:
    """Measure embeddings against others, or against each other.

    Args:
        vectors: ``[q, d]``, finite.
        index_vectors: ``[n, d]`` of the items to search; None searches ``vectors`` themselves, each without itself.
        metric: ``"euclidean"``, or ``"cosine"``: euclidean between the vectors at unit length, ``sqrt(2 - 2 cos)``,
            which orders as the cosine does.
        own: ``[q]``, for queries that are among the items: the number of the item that is the query, -1 for none.

    Returns:
        The distances.

    Raises:
        InputError: A vector that is not finite, a vector of length zero under ``"cosine"``, lengths that do not
            agree, or a single item against itself.

    Example:
        >>> nearest(distances_between([[0.0], [1.0], [3.0]]), 1).index.tolist()
        [[1], [0], [1]]
    """
    queries = checked_vectors(vectors, what="vectors")
    items = queries if index_vectors is None else checked_vectors(index_vectors, what="index vectors")
    if queries.shape[1] != items.shape[1]:
        raise InputError(
            "index vectors", got=f"length {items.shape[1]}", expected=f"{queries.shape[1]}, as the queries"
        )
    if metric == "cosine":
        queries = _unit(queries, what="vectors")
        items = queries if index_vectors is None else _unit(items, what="index vectors")
    elif metric != "euclidean":
        raise InputError("metric", got=metric, expected="'euclidean' or 'cosine'")
    if index_vectors is None:
        if own is not None:
            raise InputError("own", got="given without index vectors", expected="index vectors that it points into")
        own = np.arange(queries.shape[0])
    shape = (queries.shape[0], items.shape[0])
    estimate, slack = _products(queries, items)
    return Distances(
        shape,
        _checked_own(own, shape),
        lambda rows: np.asarray(cdist(queries[rows], items)),
        estimate,
        slack,
        lambda rows, columns: _measured(queries, items, rows, columns),
    )


def given_distances(matrix: ArrayLike, *, own: ArrayLike | None) -> Distances:
    """Take distances that were computed before, of any kind; the smaller the nearer.

    Args:
        matrix: ``[q, n]``, finite and not negative; may be memory-mapped.
        own: ``[q]``, the item that is the query itself, -1 for none. ``range(n)`` for one set against itself, None
            for two sets without a common item.

    Returns:
        The distances.

    Raises:
        InputError: Not a matrix, a number that is not finite or is negative, or a single item against itself.

    Example:
        >>> nearest(given_distances([[0, 2, 1], [2, 0, 3], [1, 3, 0]], own=range(3)), 1).index.tolist()
        [[2], [0], [0]]
    """
    try:
        table = np.asanyarray(matrix)
    except ValueError as error:
        raise InputError("distances", got=f"no table ({error})", expected="[q, n] numbers") from error
    if table.ndim != 2 or 0 in table.shape or table.dtype.kind not in "biuf":
        raise InputError("distances", got=f"shape {table.shape} of {table.dtype}", expected="[q, n] numbers, not empty")

    def rows(numbers: IndexArray) -> FloatArray:
        return np.array(table[numbers], dtype=np.float64)

    def exact(queries: IndexArray, items: IndexArray) -> FloatArray:
        return np.array(table[queries, items], dtype=np.float64)

    shape = (table.shape[0], table.shape[1])
    distances = Distances(shape, _checked_own(own, shape), rows, rows, None, exact)
    for numbers in distances.chunks():
        block = rows(numbers)
        wrong = np.argwhere(~(np.isfinite(block) & (block >= 0)))
        if wrong.size:
            at, column = int(wrong[0, 0]), int(wrong[0, 1])
            raise InputError(
                f"distance of query {numbers[at]} to item {column}", got=block[at, column], expected="a number >= 0"
            )
    return distances


@dataclass(frozen=True, slots=True, eq=False)
class Neighbors:
    """The nearest items of each query, the nearest first, equally near ones by their number.

    Args:
        index: intp ``[q, k]`` item numbers; -1 after the last candidate.
        distance: float64 ``[q, k]``; infinite there.
        candidates: intp ``[q]``: how many items each query could have found.
    """

    index: IndexArray
    distance: FloatArray
    candidates: IndexArray


def nearest(
    distances: Distances,
    k: int,
    *,
    with_query: bool = False,
    allowed: Callable[[IndexArray], BoolArray] | None = None,
) -> Neighbors:
    """Find the k nearest items of each query.

    Args:
        distances: Of queries to items.
        k: How many; more than there are is allowed and leaves places empty.
        with_query: Let a query find itself.
        allowed: Takes query numbers ``[r]``; returns bool ``[r, n]``, the items that each may find. None allows all.

    Returns:
        Exactly what sorting all distances (ties by item number) would give.

    Raises:
        InputError: k is not a positive whole number.
    """
    checked_k(k)
    queries = distances.shape[0]
    index = np.full((queries, k), -1, dtype=np.intp)
    distance = np.full((queries, k), np.inf)
    candidates = np.zeros(queries, dtype=np.intp)
    for rows in distances.chunks():
        near = distances.estimate(rows)
        if allowed is not None:
            near[~allowed(rows)] = np.inf
        if not with_query:
            without_own(near, distances.own[rows], fill=np.inf)
        candidates[rows] = np.isfinite(near).sum(axis=1)
        at, column, value, rank = _closest(distances, rows, near, k)
        index[rows[at], rank] = column
        distance[rows[at], rank] = value
    return Neighbors(index, distance, candidates)


def _closest(
    distances: Distances, rows: IndexArray, near: FloatArray, k: int
) -> tuple[IndexArray, IndexArray, FloatArray, IndexArray]:
    """Row, item, distance and rank of all neighbors in a block of estimates."""
    width = min(k, near.shape[1])
    limit = np.partition(near, width - 1, axis=1)[:, width - 1]
    if distances.slack is not None:
        limit = np.sqrt(limit * limit + distances.slack[rows])
    at, column = np.nonzero((near <= limit[:, None]) & np.isfinite(near))
    value = distances.exact(rows[at], column) if distances.slack is not None else near[at, column]
    order = np.lexsort((column, value, at))
    at, column, value = at[order], column[order], value[order]
    rank = np.arange(at.size) - np.searchsorted(at, at)
    kept = rank < k
    return at[kept], column[kept], value[kept], rank[kept]


def without_own(block: FloatArray, own: IndexArray, *, fill: float) -> None:
    """Overwrite, in a block of rows ``[r, n]``, each query's distance to itself; ``own`` is ``[r]``, -1 for none."""
    at = np.flatnonzero(own >= 0)
    block[at, own[at]] = fill


def checked_k(k: int) -> int:
    """Return k.

    Raises:
        InputError: It is not a whole number, or below one.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise InputError("k", got=k, expected="a whole number, 1 or more")
    return int(k)


def checked_vectors(vectors: ArrayLike, *, what: str) -> FloatArray:
    """Turn embeddings into an array, or say what is wrong with them.

    Args:
        vectors: ``[n, d]``, finite.
        what: Their name, for the message.

    Returns:
        float64 ``[n, d]``.

    Raises:
        InputError: Not a matrix of numbers, empty, or with a number that is not finite or too large to be squared.
    """
    try:
        array = np.ascontiguousarray(vectors, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(what, got=f"no table of numbers ({error})", expected="[n, d] numbers") from error
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(what, got=f"shape {array.shape}", expected="[n, d], not empty")
    wrong = np.flatnonzero(~(np.abs(array) < 1e150).all(axis=1))
    if wrong.size:
        row = array[wrong[0]]
        value = row[~(np.abs(row) < 1e150)][0]
        raise InputError(f"row {wrong[0]} of the {what}", got=value, expected="finite numbers below 1e150")
    return array


def _unit(vectors: FloatArray, *, what: str) -> FloatArray:
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    if (largest == 0).any():
        row = int(np.flatnonzero(largest == 0)[0])
        raise InputError(
            f"row {row} of the {what}",
            got="a vector of length zero",
            expected="a direction, for the cosine",
            hint="look at the item's image, or measure by 'euclidean'",
        )
    scaled = vectors / largest
    return np.asarray(scaled / np.linalg.norm(scaled, axis=1, keepdims=True))


def _checked_own(own: ArrayLike | None, shape: tuple[int, int]) -> IndexArray:
    if own is None:
        return np.full(shape[0], -1, dtype=np.intp)
    numbers = np.asarray(own)
    if numbers.shape != shape[:1] or numbers.dtype.kind not in "iu":
        raise InputError("own", got=f"shape {numbers.shape} of {numbers.dtype}", expected=f"[{shape[0]}] item numbers")
    if numbers.min() < -1 or numbers.max() >= shape[1]:
        raise InputError(
            "own", got=f"{numbers.min()} to {numbers.max()}", expected=f"-1 (not an item) to {shape[1] - 1}"
        )
    if shape[1] == 1 and (numbers == 0).any():
        raise InputError("items", got="one, which is the query itself", expected="two or more")
    return numbers.astype(np.intp)


def _products(queries: FloatArray, items: FloatArray) -> tuple[Rows, FloatArray]:
    """Distances by a matrix product, around the mean so that little cancels, and a bound of their squares' error."""
    center = items.mean(axis=0)
    around = items - center
    squares = np.einsum("ij,ij->i", around, around)
    query_around = around if queries is items else queries - center
    query_squares = squares if queries is items else np.einsum("ij,ij->i", query_around, query_around)

    def estimate(rows: IndexArray) -> FloatArray:
        block = query_around[rows] @ around.T
        block *= -2
        block += query_squares[rows, None]
        block += squares
        np.maximum(block, 0, out=block)
        return np.asarray(np.sqrt(block, out=block))

    tiny, dimensions = float(np.finfo(np.float64).eps), items.shape[1]
    reach = np.sqrt(query_squares) + np.sqrt(squares.max())
    shift = 4 * tiny * np.sqrt(dimensions) * max(np.abs(items).max(), np.abs(queries).max())
    # The smallest addend is for squares that underflow.
    return estimate, 1e-300 + 32 * (dimensions + 8) * tiny * reach**2 + 8 * shift * (reach + shift)


def _measured(queries: FloatArray, items: FloatArray, rows: IndexArray, columns: IndexArray) -> FloatArray:
    """Distances of pairs ``[p]``, by plain differences."""
    out = np.empty(rows.size)
    size = max(1, _CELLS // queries.shape[1])
    for start in range(0, rows.size, size):
        part = slice(start, start + size)
        apart = queries[rows[part]] - items[columns[part]]
        apart *= apart
        out[part] = np.sqrt(apart.sum(axis=1))
    return out
