"""Intervals by resampling patients: of one statistic, and of the difference between two models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray, auprc, auroc, weighted_auprc, weighted_auroc

Statistic = Callable[..., float]
Weighted = Callable[..., FloatArray]

WEIGHTED: dict[Statistic, Weighted] = {auroc: weighted_auroc, auprc: weighted_auprc}
"""Statistics that can be computed for many resamples at once, from how often each row was drawn."""

_CELLS = 2_000_000  # rows times resamples held at once


@dataclass(frozen=True, slots=True)
class Interval:
    """A statistic with its bootstrap percentile interval.

    Args:
        value: On the data as they are.
        low: Lower end.
        high: Upper end.
        level: Coverage that is aimed at, for example 0.95.
        resamples: How many were drawn.
        undefined: How many of them had no value (one class only) and were left out.
    """

    value: float
    low: float
    high: float
    level: float
    resamples: int
    undefined: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """Model A less model B on the same rows, resampled together.

    Args:
        a: Statistic of model A.
        b: Statistic of model B.
        difference: ``a - b`` with its interval.
        p_value: Two-sided, from the share of resamples on either side of zero.
    """

    a: float
    b: float
    difference: Interval
    p_value: float


def bootstrap_interval(
    statistic: Statistic,
    arrays: Sequence[ArrayLike],
    groups: ArrayLike | None = None,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a statistic, drawing whole patients with replacement.

    Args:
        statistic: Takes the arrays, in order, and returns a number. :func:`~spicula.metrics.classification.auroc` and
            :func:`~spicula.metrics.classification.auprc` run on all resamples at once. A statistic that raises
            InputError on a resample (one class only) is undefined there.
        arrays: What it takes, each with one row (first axis) a nodule.
        groups: ``[n]`` patient of each row; None makes each row its own.
        resamples: How many to draw.
        level: Coverage that is aimed at.
        seed: Of the draws; the same seed and groups give the same draws for any statistic.

    Returns:
        The value and its interval.

    Raises:
        InputError: Arrays of different length, fewer than two groups, or no resample with a value.

    References:
        Efron 1979, doi:10.1214/aos/1176344552; Field, Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x (clusters).

    Example:
        >>> y, score = [0, 1, 0, 1, 1, 0], [0.1, 0.9, 0.3, 0.2, 0.8, 0.4]
        >>> interval = bootstrap_interval(auroc, (y, score), groups=["a", "a", "b", "b", "c", "c"], resamples=200)
        >>> interval.low <= interval.value <= interval.high
        True
    """
    columns = [np.asarray(a) for a in arrays]
    codes = _codes(groups, columns)
    values = np.concatenate(list(_resampled(statistic, columns, codes, resamples=resamples, seed=seed)))
    return _interval(float(statistic(*columns)), values, level=level)


def bootstrap_difference(
    statistic: Statistic,
    y: ArrayLike,
    score_a: ArrayLike,
    score_b: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Paired difference of two models: both are scored on the same resampled patients.

    Args:
        statistic: Takes labels and scores; as in :func:`bootstrap_interval`.
        y: ``[n]`` labels.
        score_a: ``[n]`` scores of model A.
        score_b: ``[n]`` scores of model B.
        groups: ``[n]`` patient of each row; None makes each row its own.
        resamples: How many to draw.
        level: Coverage that is aimed at.
        seed: Of the draws.

    Returns:
        Both values, their difference with its interval, and a two-sided p-value.

    Raises:
        InputError: As :func:`bootstrap_interval`.
    """
    labels, first, second = np.asarray(y), np.asarray(score_a), np.asarray(score_b)
    codes = _codes(groups, [labels, first, second])
    parts = zip(
        _resampled(statistic, [labels, first], codes, resamples=resamples, seed=seed),
        _resampled(statistic, [labels, second], codes, resamples=resamples, seed=seed),
        strict=True,
    )
    values = np.concatenate([a - b for a, b in parts])
    a, b = float(statistic(labels, first)), float(statistic(labels, second))
    kept = values[np.isfinite(values)]
    tail = min(int((kept <= 0).sum()), int((kept >= 0).sum()))
    return Difference(a, b, _interval(a - b, values, level=level), min(1.0, 2 * (tail + 1) / (kept.size + 1)))


def draws(n_groups: int, *, resamples: int, seed: int, chunk: int) -> Iterator[NDArray[np.int32]]:
    """How often each group is drawn: ``[chunk, n_groups]`` counts, chunk after chunk.

    The counts do not depend on ``chunk``.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        picked = rng.integers(0, n_groups, size=(rows, n_groups), dtype=np.int64)
        picked += (np.arange(rows) * n_groups)[:, None]
        yield np.bincount(picked.ravel(), minlength=rows * n_groups).reshape(rows, n_groups).astype(np.int32)


def _codes(groups: ArrayLike | None, columns: Sequence[NDArray[np.generic]]) -> NDArray[np.intp]:
    sizes = {len(c) for c in columns}
    if len(sizes) != 1:
        raise InputError("arrays", got=f"lengths {[len(c) for c in columns]}", expected="one length")
    n = sizes.pop()
    if groups is None:
        codes = np.arange(n)
    else:
        codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
        if codes.size != n:
            raise InputError("groups", got=f"{codes.size} rows", expected=f"{n}")
    if n == 0 or codes.max() < 1:
        raise InputError("groups", got="fewer than two", expected="two patients or more")
    return codes


def _resampled(
    statistic: Statistic,
    columns: Sequence[NDArray[np.generic]],
    codes: NDArray[np.intp],
    *,
    resamples: int,
    seed: int,
) -> Iterator[FloatArray]:
    """The statistic on each resample, chunk after chunk; NaN where it is undefined."""
    n_groups = int(codes.max()) + 1
    weighted = WEIGHTED.get(statistic)
    chunk = max(1, _CELLS // codes.size)
    for counts in draws(n_groups, resamples=resamples, seed=seed, chunk=chunk):
        if weighted is not None:
            yield weighted(counts[:, codes], *columns)
        else:
            yield np.array([_once(statistic, columns, np.repeat(np.arange(codes.size), c[codes])) for c in counts])


def _once(statistic: Statistic, columns: Sequence[NDArray[np.generic]], rows: NDArray[np.intp]) -> float:
    try:
        return float(statistic(*(column[rows] for column in columns)))
    except InputError:
        return float("nan")


def _interval(value: float, values: FloatArray, *, level: float) -> Interval:
    kept = values[np.isfinite(values)]
    if kept.size == 0:
        raise InputError("bootstrap", got="no resample with a value", expected="both classes in most resamples")
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, values.size, int(values.size - kept.size))
