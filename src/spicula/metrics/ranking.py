"""What a search finds: the first k items of each query, in one of three scopes, with labels and gains.

A query may find all items, items of its own patient only, or items of other patients only. The last is what a search
for similar patients will meet; the first two reward knowing the patient again. :mod:`spicula.metrics.retrieval` scores
what is found here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.embedding import Scope
from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray
from spicula.metrics.neighbors import BoolArray, Distances, IndexArray, nearest, without_own

Gain = Callable[[IndexArray], FloatArray]

SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True, slots=True, eq=False)
class Retrieved:
    """The first k that each of q queries found, and what there was to find. Empty places come last.

    Args:
        scope: What a query could find.
        with_query: Whether a query could find itself.
        classes: ``[c]``, the labels that occur, sorted.
        query_class: intp ``[q]``, positions in ``classes``.
        found_class: intp ``[q, k]``, positions in ``classes``; -1 at empty places.
        index: intp ``[q, k]``, item numbers; -1 at empty places.
        distance: float64 ``[q, k]``, in the unit of the distances; infinite at empty places.
        candidates: intp ``[q]``, items that each query could have found.
        relevant: intp ``[q]``, those among them of the query's label.
        gain: float64 ``[q, k]``, worth of what was found; 0 at empty places.
        ideal_gain: float64 ``[q, k]``, the k greatest worths among the candidates, falling.
    """

    scope: Scope
    with_query: bool
    classes: NDArray[np.generic]
    query_class: IndexArray
    found_class: IndexArray
    index: IndexArray
    distance: FloatArray
    candidates: IndexArray
    relevant: IndexArray
    gain: FloatArray
    ideal_gain: FloatArray

    @property
    def k(self) -> int:
        """Places for each query."""
        return int(self.index.shape[1])

    @property
    def hit(self) -> BoolArray:
        """bool ``[q, k]``: whether the item at each place has the query's label."""
        return np.asarray(self.found_class == self.query_class[:, None])


def retrieve(
    distances: Distances,
    labels: ArrayLike,
    *,
    k: int = 10,
    scope: Scope = "all",
    index_labels: ArrayLike | None = None,
    patients: ArrayLike | None = None,
    index_patients: ArrayLike | None = None,
    with_query: bool = False,
    gain: ArrayLike | Gain | None = None,
) -> Retrieved:
    """Rank the items of each query; equally near ones by their number.

    Args:
        distances: From :func:`~spicula.metrics.neighbors.distances_between` (embeddings) or
            :func:`~spicula.metrics.neighbors.given_distances` (a matrix).
        labels: ``[q]`` text or numbers; what has the same label is relevant. Leave unlabeled items out beforehand.
        k: Places for each query. More than there are candidates is allowed: the places left over are empty, and
            count as misses where a measure divides by k.
        scope: Which items a query may find.
        index_labels: ``[n]``; None for one set against itself.
        patients: ``[q]`` ids; needed for scopes within or across patients.
        index_patients: ``[n]`` ids; None for one set against itself.
        with_query: Let a query find itself (it does so first), as published code has done. Never for honest numbers.
        gain: Worth of each item to each query, for the discounted gain: ``[q, n]``, or a function from query numbers
            ``[r]`` to ``[r, n]``; finite, not negative. None: 1 for the same label, else 0.

    Returns:
        What was found and what there was to find.

    Raises:
        InputError: Lengths that do not agree, a label that is no number, patients missing for a scope, a query whose
            own item has another label or patient, or a gain that is negative or not finite.

    Example:
        >>> from spicula.metrics.neighbors import distances_between
        >>> found = retrieve(distances_between([[0.0], [1.0], [3.0], [3.5]]), ["a", "a", "b", "b"], k=1)
        >>> found.hit.ravel().tolist()
        [True, True, True, True]
    """
    if scope not in SCOPES:
        raise InputError("scope", got=scope, expected=f"one of {', '.join(SCOPES)}")
    classes, query_class, item_class = _codes(distances, labels, index_labels, what="labels")
    patient: tuple[IndexArray, IndexArray] | None = None
    if scope != "all":
        if patients is None:
            raise InputError(f"scope {scope}", got="no patients", expected="the patient of each query and item")
        patient = _codes(distances, patients, index_patients, what="patients")[1:]

    def allowed(rows: IndexArray) -> BoolArray:
        if patient is None:
            return np.ones((rows.size, distances.shape[1]), dtype=np.bool_)
        same = patient[1][None, :] == patient[0][rows, None]
        return np.asarray(same if scope == "same-patient" else ~same)

    mask = None if scope == "all" else allowed
    with_query = with_query and scope != "cross-patient" and bool((distances.own >= 0).any())
    near = nearest(distances, k, with_query=with_query, allowed=mask)
    found_class = np.where(near.index >= 0, item_class[near.index], -1)
    relevant = _relevant(distances, query_class, item_class, patient=patient, scope=scope, with_query=with_query)
    if gain is None:
        worth = (found_class == query_class[:, None]).astype(np.float64)
        ideal = (np.arange(k) < relevant[:, None]).astype(np.float64)
    else:
        worth, ideal = _gains(distances, gain, near.index, allowed=allowed, with_query=with_query)
    return Retrieved(
        scope, with_query, classes, query_class, found_class,
        near.index, near.distance, near.candidates, relevant, worth, ideal,
    )  # fmt: skip


def closeness_gain(grades: ArrayLike, index_grades: ArrayLike | None = None, *, span: float) -> Gain:
    """Worth of an item by how near its grade is to the query's: ``span - |difference|``, never below 0.

    Args:
        grades: ``[q]`` finite numbers, for example malignancy 1 to 5.
        index_grades: ``[n]``; None for one set against itself.
        span: The difference at which nothing is gained, for example 4.

    Returns:
        A gain for :func:`retrieve`.

    Raises:
        InputError: A grade that is not finite, or a span that is not positive.
    """
    query = np.asarray(grades, dtype=np.float64)
    item = query if index_grades is None else np.asarray(index_grades, dtype=np.float64)
    if query.ndim != 1 or item.ndim != 1 or not (np.isfinite(query).all() and np.isfinite(item).all()):
        raise InputError("grades", got=f"shapes {query.shape} and {item.shape}", expected="[q] and [n] finite numbers")
    if not (np.isfinite(span) and span > 0):
        raise InputError("span", got=span, expected="a positive number")
    return lambda rows: np.asarray(np.maximum(0.0, span - np.abs(query[rows, None] - item[None, :])))


def _codes(
    distances: Distances, of_queries: ArrayLike, of_items: ArrayLike | None, *, what: str
) -> tuple[NDArray[np.generic], IndexArray, IndexArray]:
    """Distinct values, sorted, and the positions among them of queries and items."""
    if of_items is None and not distances.one_set:
        raise InputError(f"{what} of the items", got="none", expected="given, as the items are not the queries")
    columns = [np.asarray(of_queries), np.asarray(of_queries if of_items is None else of_items)]
    for column, n, whose in zip(columns, distances.shape, ("queries", "items"), strict=True):
        if column.shape != (n,):
            raise InputError(f"{what} of the {whose}", got=f"shape {column.shape}", expected=f"[{n}]")
        if column.dtype.kind not in "biufUS":
            raise InputError(f"{what} of the {whose}", got=f"type {column.dtype}", expected="text or numbers")
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            row = int(np.flatnonzero(~np.isfinite(column))[0])
            raise InputError(f"{what} of the {whose}, row {row}", got=column[row], expected="a finite number")
    if (columns[0].dtype.kind in "US") != (columns[1].dtype.kind in "US"):
        raise InputError(what, got=f"{columns[0].dtype} and {columns[1].dtype}", expected="one kind of value")
    values, codes = np.unique(np.concatenate(columns), return_inverse=True)
    query, item = codes[: columns[0].size], codes[columns[0].size :]
    own = np.flatnonzero(distances.own >= 0)
    odd = own[query[own] != item[distances.own[own]]]
    if odd.size:
        raise InputError(
            f"{what} of query {odd[0]}", got=values[query[odd[0]]],
            expected=f"{values[item[distances.own[odd[0]]]]}, as its own item has",
        )  # fmt: skip
    return values, query.astype(np.intp), item.astype(np.intp)


def _relevant(
    distances: Distances,
    query_class: IndexArray,
    item_class: IndexArray,
    *,
    patient: tuple[IndexArray, IndexArray] | None,
    scope: Scope,
    with_query: bool,
) -> IndexArray:
    """Candidates of the query's label, counted without looking at pairs."""
    size = int(max(query_class.max(), item_class.max())) + 1
    everywhere = np.bincount(item_class, minlength=size)[query_class]
    own = 0 if with_query else (distances.own >= 0).astype(np.intp)
    if patient is None:
        return np.asarray(everywhere - own)
    pairs = patient[1] * size + item_class
    queries = patient[0] * size + query_class
    here = np.bincount(pairs, minlength=int(queries.max()) + 1)[queries]
    return np.asarray(here - own if scope == "same-patient" else everywhere - here)


def _gains(
    distances: Distances,
    gain: ArrayLike | Gain,
    index: IndexArray,
    *,
    allowed: Callable[[IndexArray], BoolArray],
    with_query: bool,
) -> tuple[FloatArray, FloatArray]:
    """Gains found ``[q, k]`` and the best that could have been ``[q, k]``."""
    given = None if callable(gain) else np.asanyarray(gain)
    worth, ideal = np.zeros(index.shape), np.zeros(index.shape)
    width = min(index.shape[1], distances.shape[1])
    if given is not None and given.shape != distances.shape:
        raise InputError("gain", got=f"shape {given.shape}", expected=f"{list(distances.shape)}")
    for rows in distances.chunks():
        block = np.array(gain(rows) if callable(gain) else np.asanyarray(gain)[rows], dtype=np.float64)
        if block.shape != (rows.size, distances.shape[1]) or not (np.isfinite(block) & (block >= 0)).all():
            raise InputError(
                f"gain of queries {rows[0]} to {rows[-1]}", got=f"shape {block.shape}, or a wrong number",
                expected=f"{[rows.size, distances.shape[1]]} finite numbers, none negative",
            )  # fmt: skip
        worth[rows] = np.where(index[rows] >= 0, np.take_along_axis(block, np.maximum(index[rows], 0), axis=1), 0.0)
        block[~allowed(rows)] = 0.0
        if not with_query:
            without_own(block, distances.own[rows], fill=0.0)
        ideal[rows, :width] = -np.sort(np.partition(-block, width - 1, axis=1)[:, :width], axis=1)
    return worth, ideal
