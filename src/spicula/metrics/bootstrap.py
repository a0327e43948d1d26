"""Intervals by resampling patients: of one statistic, and of the difference between two models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray, auprc, auroc, weighted_auprc, weighted_auroc

Statistic = Callable[..., float]
Weighted = Callable[..., FloatArray]

WEIGHTED: dict[Statistic, Weighted] = {auroc: weighted_auroc, auprc: weighted_auprc}
"""Statistics that can be computed for many resamples at once, from how often each row was drawn."""

FEWEST_PATIENTS = 10
"""Patients below which an interval is refused by default: resamples of so few do not stand for new patients."""

_CELLS = 200_000  # rows times resamples held at once: they fit a processor's cache
_AT_ONCE = 64  # resamples at once at least, since each lot sorts the scores anew
_MOST_CELLS = 8_000_000  # unless they would take too much memory


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
    fewest: int = FEWEST_PATIENTS,
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
        fewest: Refuse fewer patients than this.

    Returns:
        The value and its interval.

    Raises:
        InputError: Arrays of different length, too few patients, no resamples, a level outside 0 to 1, or no resample
            with a value.

    References:
        Efron 1979, doi:10.1214/aos/1176344552; Field, Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x (clusters).

    Example:
        >>> y, score = [0, 1] * 10, np.arange(20) % 7
        >>> interval = bootstrap_interval(auroc, (y, score), groups=np.arange(20) // 2, resamples=200)
        >>> interval.low <= interval.value <= interval.high
        True
    """
    columns = [np.asarray(a) for a in arrays]
    _check_draws(resamples, level)
    codes = group_codes(groups, columns, fewest=fewest)
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
    fewest: int = FEWEST_PATIENTS,
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
        fewest: Refuse fewer patients than this.

    Returns:
        Both values, their difference with its interval, and a two-sided p-value.

    Raises:
        InputError: As :func:`bootstrap_interval`.
    """
    labels, first, second = np.asarray(y), np.asarray(score_a), np.asarray(score_b)
    _check_draws(resamples, level)
    codes = group_codes(groups, [labels, first, second], fewest=fewest)
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


def bootstrap_intervals(
    statistic: Callable[..., FloatArray],
    arrays: Sequence[ArrayLike],
    groups: ArrayLike | None = None,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    fewest: int = FEWEST_PATIENTS,
) -> tuple[Interval, ...]:
    """Percentile intervals of many numbers made together: a decision curve's points, several rates of one threshold.

    Args:
        statistic: Takes the arrays, in order, and returns ``[k]`` numbers, k always the same. Single ones may be NaN;
            all are where it raises InputError (one class only).
        arrays: As in :func:`bootstrap_interval`.
        groups: ``[n]`` patient of each row; None makes each row its own.
        resamples: How many to draw.
        level: Coverage that is aimed at, for each number alone.
        seed: Of the draws.
        fewest: Refuse fewer patients than this.

    Returns:
        k intervals; one whose number is not finite on the data as they are, or in no resample, has NaN ends.

    Raises:
        InputError: As :func:`bootstrap_interval`.
    """
    columns = [np.asarray(a) for a in arrays]
    _check_draws(resamples, level)
    codes = group_codes(groups, columns, fewest=fewest)
    value = np.asarray(statistic(*columns), dtype=np.float64)
    rows, drawn = np.arange(codes.size), np.full((resamples, value.size), np.nan)
    counts = (c for chunk in draws(int(codes.max()) + 1, resamples=resamples, seed=seed, chunk=64) for c in chunk)
    for number, count in enumerate(counts):
        picked = np.repeat(rows, count[codes])
        with suppress(InputError):
            drawn[number] = statistic(*(column[picked] for column in columns))
    if not np.isfinite(drawn).any():
        raise InputError("bootstrap", got="no resample with a value", expected="both classes in most resamples")
    nan = float("nan")
    return tuple(
        _interval(float(v), d, level=level)
        if np.isfinite(v) and np.isfinite(d).any()
        else Interval(float(v), nan, nan, level, resamples, int((~np.isfinite(d)).sum()))
        for v, d in zip(value, drawn.T, strict=True)
    )


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


def group_codes(
    groups: ArrayLike | None, columns: Sequence[NDArray[np.generic]], *, fewest: int = FEWEST_PATIENTS
) -> NDArray[np.intp]:
    """Number the patients that a bootstrap draws.

    Args:
        groups: ``[n]`` patient of each row; None makes each row its own.
        columns: Arrays that must have one row each.
        fewest: Refuse fewer patients than this (and always fewer than two).

    Returns:
        ``[n]`` number of each row's patient, from 0.

    Raises:
        InputError: Lengths differ, or there are too few patients.
    """
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
    patients = int(codes.max()) + 1 if n else 0
    if patients < max(2, fewest):
        raise InputError(
            "patients",
            got=patients,
            expected=f"{max(2, fewest)} or more to draw from",
            hint="an interval over so few says nothing; give the value alone",
        )
    return codes


def _check_draws(resamples: int, level: float) -> None:
    if resamples < 1:
        raise InputError("resamples", got=resamples, expected="1 or more")
    if not 0 < level < 1:
        raise InputError("level", got=level, expected="between 0 and 1")


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
    chunk = max(1, _CELLS // codes.size, min(_AT_ONCE, _MOST_CELLS // codes.size))
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
