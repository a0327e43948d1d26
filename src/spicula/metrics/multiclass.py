"""Metrics for more than two classes: one-versus-rest AUROC, and what calls by class come to."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray, auroc

Classes = Sequence[Hashable]


@dataclass(frozen=True, slots=True, eq=False)
class OneVersusRest:
    """How well each class's score tells it from all others.

    Args:
        classes: ``[k]`` their names, in the order of the scores' columns.
        auroc: float64 ``[k]``; NaN for a class that no row has.
        rows: ``[k]`` rows of each class.
    """

    classes: tuple[Hashable, ...]
    auroc: FloatArray
    rows: NDArray[np.intp]

    @property
    def absent(self) -> tuple[Hashable, ...]:
        """Classes that no row has: they are in no mean, and a report has to say so."""
        return tuple(name for name, rows in zip(self.classes, self.rows, strict=True) if rows == 0)

    @property
    def weighted(self) -> float:
        """Mean over the classes that are there, each by its number of rows (its prevalence)."""
        return float(np.average(self.auroc[self.rows > 0], weights=self.rows[self.rows > 0]))

    @property
    def macro(self) -> float:
        """Mean over the classes that are there, each alike."""
        return float(self.auroc[self.rows > 0].mean())


def one_versus_rest(y: ArrayLike, scores: ArrayLike, *, classes: Classes | None = None) -> OneVersusRest:
    """AUROC of each class against the rest, from one score a class.

    Only the order of the rows within a column matters: similarities serve as well as probabilities.

    Args:
        y: ``[n]`` class of each row.
        scores: ``[n, k]``, column j the score of ``classes[j]``.
        classes: The classes in the order of the columns; 0 to k - 1 if omitted.

    Returns:
        The areas, with their prevalence-weighted and plain means.

    Raises:
        InputError: Shapes differ, a class is unknown or named twice, a score is not finite, or all rows are of one
            class.

    References:
        Provost, Domingos 2000, CeDER working paper IS-00-04 (weighted by prevalence).

    Example:
        >>> found = one_versus_rest(["a", "b", "b"], [[0.9, 0.1, 0], [0.2, 0.8, 0], [0.5, 0.5, 0]], classes="abc")
        >>> found.weighted, found.macro, found.absent
        (1.0, 1.0, ('c',))
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise InputError("scores", got=f"shape {table.shape}", expected="[n, k], a column for each of k > 1 classes")
    names = _named(classes, table.shape[1])
    code = _coded(y, names, what="label")
    if code.shape != table.shape[:1]:
        raise InputError("labels and scores", got=f"{code.size} and {table.shape[0]} rows", expected="as many")
    bad = np.argwhere(~np.isfinite(table))
    if bad.size:
        row, column = bad[0].tolist()
        raise InputError(
            f"score of row {row} for class {names[column]}", got=table[row, column], expected="a finite number"
        )
    rows = np.bincount(code, minlength=len(names))
    if np.count_nonzero(rows) < 2:
        raise InputError("labels", got=f"{code.size} rows of class {names[code[0]]} only", expected="two classes")
    areas = [auroc(code == j, table[:, j]) if rows[j] else float("nan") for j in range(len(names))]
    return OneVersusRest(names, np.array(areas), rows)


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """How often each class was called what. A rate without rows to rest on is NaN.

    Args:
        classes: ``[k]`` their names.
        counts: ``[k, k]``; row the true class, column the call.
    """

    classes: tuple[Hashable, ...]
    counts: NDArray[np.intp]

    @property
    def absent(self) -> tuple[Hashable, ...]:
        """Classes that no row has; those that were never called either are in no mean."""
        return tuple(name for name, rows in zip(self.classes, self.counts.sum(axis=1), strict=True) if rows == 0)

    @property
    def accuracy(self) -> float:
        """Share of the rows that are called rightly."""
        return float(np.trace(self.counts) / self.counts.sum())

    @property
    def recall(self) -> FloatArray:
        """``[k]`` share of each class that is called so."""
        return _shares(np.diag(self.counts), self.counts.sum(axis=1))

    @property
    def precision(self) -> FloatArray:
        """``[k]`` share of each call that is right."""
        return _shares(np.diag(self.counts), self.counts.sum(axis=0))

    @property
    def f1(self) -> FloatArray:
        """``[k]`` harmonic mean of precision and recall; 0 for a class that is called but absent."""
        return _shares(2 * np.diag(self.counts), self.counts.sum(axis=0) + self.counts.sum(axis=1))

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that are there or were called, each alike."""
        return float(np.nanmean(self.f1))

    @property
    def weighted_f1(self) -> float:
        """Mean F1, each class by its number of rows."""
        rows = self.counts.sum(axis=1)
        return float(np.average(self.f1[rows > 0], weights=rows[rows > 0]))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that are there."""
        return float(np.nanmean(self.recall))


def confusion(y: ArrayLike, called: ArrayLike, *, classes: Classes | None = None) -> Confusion:
    """Count true classes against calls.

    Args:
        y: ``[n]`` class of each row.
        called: ``[n]`` class that it was called.
        classes: All classes, in the order wanted; those that occur, sorted, if omitted.

    Returns:
        The counts and the rates made of them.

    Raises:
        InputError: Lengths differ, there is no row, or a class is not among ``classes`` or named twice there.

    Example:
        >>> found = confusion(["solid", "solid", "part"], ["solid", "part", "part"])
        >>> found.classes, found.counts.tolist(), round(found.macro_f1, 4)
        (('part', 'solid'), [[1, 0], [1, 1]], 0.6667)
    """
    first, second = np.asarray(y), np.asarray(called)
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise InputError("labels and calls", got=f"shapes {first.shape} and {second.shape}", expected="two [n], n > 0")
    if classes is None:
        classes = sorted(set(first.tolist()) | set(second.tolist()))
    names = _named(classes, len(classes))
    code = _coded(first, names, what="label") * len(names) + _coded(second, names, what="call")
    return Confusion(names, np.bincount(code, minlength=len(names) ** 2).reshape(len(names), len(names)))


def _named(classes: Classes | None, k: int) -> tuple[Hashable, ...]:
    names = tuple(range(k)) if classes is None else tuple(classes)
    if len(names) != k or len(set(names)) != k:
        raise InputError("classes", got=names, expected=f"{k} different ones, one a column")
    return names


def _coded(y: ArrayLike, names: tuple[Hashable, ...], *, what: str) -> NDArray[np.intp]:
    """Place of each row's class among the names."""
    place = {name: number for number, name in enumerate(names)}
    values = np.asarray(y)
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"{what}s", got=f"shape {values.shape}", expected="[n], n > 0")
    codes = np.array([place.get(value, -1) for value in values.tolist()], dtype=np.intp)
    unknown = np.flatnonzero(codes < 0)
    if unknown.size:
        raise InputError(f"{what} of row {unknown[0]}", got=values[unknown[0]], expected=f"one of {list(names)}")
    return codes


def _shares(part: NDArray[np.intp], whole: NDArray[np.intp]) -> FloatArray:
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))
