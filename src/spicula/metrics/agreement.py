"""How well readers agree: kappa for categories, intraclass correlation for numbers.

An interval comes from drawing patients: ``bootstrap_interval(lambda r: fleiss_kappa(r).value, [ratings], patients)``
with :func:`spicula.metrics.bootstrap.bootstrap_interval`; give ``classes`` there, so that a resample without one of
them is weighted as the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f as f_distribution

from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray

Weights = Literal["none", "linear", "quadratic"]
Form = Literal["1,1", "2,1", "3,1", "1,k", "2,k", "3,k"]

_FLOOR = 1e-14  # of a mean square, relative to that between subjects: perfect agreement stays finite


@dataclass(frozen=True, slots=True)
class Kappa:
    """Agreement beyond chance: 1 is perfect, 0 what chance gives, below 0 less than that.

    Args:
        value: (observed - expected) / (1 - expected).
        observed: Agreement that was seen (weighted, where asked).
        expected: Agreement by chance.
        subjects: Subjects that two readers or more rated, which ``observed`` rests on.
        left_out: Subjects that fewer rated.
    """

    value: float
    observed: float
    expected: float
    subjects: int
    left_out: int


def cohen_kappa(
    a: ArrayLike, b: ArrayLike, *, weights: Weights = "none", classes: Sequence[Hashable] | None = None
) -> Kappa:
    """Agreement of two readers on categories.

    Subjects that either reader did not rate (NaN, None or empty) are left out and counted.

    Args:
        a: ``[n]`` ratings of one reader.
        b: ``[n]`` ratings of the other.
        weights: ``"none"`` counts only equal ratings; ``"linear"`` and ``"quadratic"`` give partial credit by the
            distance of the categories' places (for ordinal scales).
        classes: All categories in their order, used or not; those that occur, sorted, if omitted.

    Returns:
        Kappa with what it is made of.

    Raises:
        InputError: Lengths differ, no subject has both ratings, a rating is not among ``classes``, or both readers
            used one and the same category only (kappa is 0 / 0).

    References:
        Cohen 1960, doi:10.1177/001316446002000104; Cohen 1968, doi:10.1037/h0026256 (weighted).

    Example:
        >>> found = cohen_kappa([1, 2, 3, 4, 5, 3], [1, 2, 4, 4, 5, 2], weights="quadratic", classes=range(1, 6))
        >>> round(found.value, 4)
        0.9091
    """
    first, second = _as_ratings(a), _as_ratings(b)
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError("ratings", got=f"shapes {first.shape} and {second.shape}", expected="two [n]")
    codes, k = _coded(np.stack([first, second], axis=1), classes)
    kept = codes[(codes >= 0).all(axis=1)]
    if len(kept) == 0:
        raise InputError("ratings", got="no subject that both readers rated", expected="1 or more")
    shares = np.bincount(kept[:, 0] * k + kept[:, 1], minlength=k * k).reshape(k, k) / len(kept)
    distance = np.abs(np.subtract.outer(np.arange(k), np.arange(k))) / max(k - 1, 1)
    if weights == "none":
        credit = np.eye(k)
    elif weights in ("linear", "quadratic"):
        credit = 1 - (distance if weights == "linear" else distance**2)
    else:
        raise InputError("weights", got=weights, expected="none, linear or quadratic")
    observed = float((shares * credit).sum())
    expected = float((np.outer(shares.sum(axis=1), shares.sum(axis=0)) * credit).sum())
    return _kappa(observed, expected, len(kept), len(codes) - len(kept))


def fleiss_kappa(ratings: ArrayLike, *, classes: Sequence[Hashable] | None = None) -> Kappa:
    """Agreement of many readers on categories; the readers of one subject need not be those of another.

    Args:
        ratings: ``[subjects, readers]`` categories; NaN, None or empty where a reader did not rate. Which column a
            rating stands in does not matter.
        classes: All categories; those that occur if omitted.

    Returns:
        As :func:`fleiss_kappa_of_counts`.

    Raises:
        InputError: As :func:`fleiss_kappa_of_counts`, or a rating is not among ``classes``.
    """
    table = _as_ratings(ratings)
    if table.ndim != 2:
        raise InputError("ratings", got=f"shape {table.shape}", expected="[subjects, readers]")
    codes, k = _coded(table, classes)
    if not (codes >= 0).any():
        raise InputError("ratings", got="none", expected="subjects that two readers rated")
    counts = np.stack([np.count_nonzero(codes == j, axis=1) for j in range(k)], axis=1)
    return fleiss_kappa_of_counts(counts)


def fleiss_kappa_of_counts(counts: ArrayLike) -> Kappa:
    """Fleiss's kappa from how many readers put each subject in each category.

    With unequal numbers of readers, the observed agreement is the mean over the subjects with two readings or more of
    the share of agreeing pairs, and a category's chance is the mean over all rated subjects of its share; with equal
    numbers this is Fleiss's own.

    Args:
        counts: ``[subjects, categories]`` whole numbers, not negative.

    Returns:
        Kappa with what it is made of.

    Raises:
        InputError: Counts are not whole or negative, no subject has two readings, or all readings are of one category.

    References:
        Fleiss 1971, doi:10.1037/h0031619; Gwet 2014, Handbook of Inter-Rater Reliability, 4th ed. (missing ratings).

    Example:
        >>> round(fleiss_kappa_of_counts([[4, 0], [3, 1], [0, 4]]).value, 4)
        0.6571
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or table.size == 0:
        raise InputError("counts", got=f"shape {table.shape}", expected="[subjects, categories]")
    if not np.isfinite(table).all() or (table < 0).any() or (table != np.round(table)).any():
        raise InputError("counts", got="a number that is negative or not whole", expected="numbers of readers")
    readers = table.sum(axis=1)
    paired = readers >= 2
    if not paired.any():
        raise InputError("ratings", got="no subject that two readers rated", expected="1 or more")
    n = readers[paired]
    observed = float((((table[paired] ** 2).sum(axis=1) - n) / (n * (n - 1))).mean())
    chance = (table[readers > 0] / readers[readers > 0, None]).mean(axis=0)
    return _kappa(observed, float((chance**2).sum()), int(paired.sum()), int((~paired).sum()))


def _kappa(observed: float, expected: float, subjects: int, left_out: int) -> Kappa:
    if 1 - expected < 1e-12:
        raise InputError(
            "ratings", got="one category only", expected="two categories or more", hint="kappa is 0 / 0 here"
        )
    return Kappa((observed - expected) / (1 - expected), observed, expected, subjects, left_out)


def _as_ratings(ratings: ArrayLike) -> NDArray[np.generic]:
    """Numeric arrays as they are (a bootstrap codes them many times), anything else as objects."""
    if isinstance(ratings, np.ndarray) and ratings.dtype.kind in "biuf":
        return ratings
    return np.asarray(ratings, dtype=object)


def _coded(ratings: NDArray[np.generic], classes: Sequence[Hashable] | None) -> tuple[NDArray[np.intp], int]:
    """Place of each rating's category, -1 where there is none; and how many categories there are."""
    values, inverse = np.unique(ratings, return_inverse=True) if ratings.dtype.kind != "O" else _unique(ratings)
    missing = np.array([v is None or v != v or v == "" for v in values.tolist()], dtype=np.bool_)
    names = sorted(values[~missing].tolist()) if classes is None else list(classes)
    place = {name: number for number, name in enumerate(names)}
    codes = np.array([-1 if gone else place.get(v, -2) for v, gone in zip(values.tolist(), missing, strict=True)])
    found = codes.astype(np.intp)[inverse].reshape(ratings.shape)
    for subject, reader in np.argwhere(found == -2)[:1]:
        raise InputError(
            f"rating {reader} of subject {subject}", got=ratings[subject, reader], expected=f"one of {names}"
        )
    return found, len(names)


def _unique(ratings: NDArray[np.generic]) -> tuple[NDArray[np.object_], NDArray[np.intp]]:
    """As numpy's, for objects that cannot be sorted among themselves (text beside None)."""
    place: dict[Hashable, int] = {}
    inverse = np.array([place.setdefault(value, len(place)) for value in ratings.ravel().tolist()], dtype=np.intp)
    values = np.empty(len(place), dtype=object)
    values[:] = list(place)
    return values, inverse


@dataclass(frozen=True, slots=True)
class IntraclassCorrelation:
    """Share of the variance that is between subjects.

    Args:
        form: As Shrout and Fleiss number them.
        value: The correlation; below 0 where readers differ more than subjects.
        low: Lower end of the interval.
        high: Upper end.
        level: Coverage of the interval, for normal variation.
        f: Ratio of mean squares that tests whether the correlation is 0.
        p_value: Of that test, one-sided.
        subjects: How many were used.
        readers: How many each, on average where the numbers differ.
    """

    form: Form
    value: float
    low: float
    high: float
    level: float
    f: float
    p_value: float
    subjects: int
    readers: float


def icc(ratings: ArrayLike, *, form: Form = "2,1", level: float = 0.95) -> IntraclassCorrelation:
    """Agreement of readers on a number (a diameter, a volume), with its interval.

    Forms (in brackets McGraw and Wong's names): ``"1,1"`` [ICC(1)] each subject has readers of its own;
    ``"2,1"`` [ICC(A,1)] the same readers, drawn from many, absolute agreement; ``"3,1"`` [ICC(C,1)] these readers,
    offsets between them forgiven. ``"1,k"``, ``"2,k"`` and ``"3,k"`` rate the mean of the k readers.

    Args:
        ratings: ``[subjects, readers]``; NaN where a reader did not rate. Only ``"1,1"`` takes such tables (readers
            that are not the same from subject to subject, as LIDC's four, are of this form anyway): by analysis of
            variance with unequal groups, its interval approximate; a subject nobody rated is left out.
        form: Which of the six.
        level: Coverage of the interval.

    Returns:
        The correlation and its interval.

    Raises:
        InputError: Fewer than two subjects or readers, a missing rating in another form than ``"1,1"``, an infinite
            rating, no variance at all, or an unknown form.

    References:
        Shrout, Fleiss 1979, doi:10.1037/0033-2909.86.2.420; McGraw, Wong 1996, doi:10.1037/1082-989X.1.1.30;
        Donner 1986, doi:10.2307/1403259 (unequal groups).

    Example:
        >>> judges = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
        >>> [round(icc(judges, form=form).value, 2) for form in ("1,1", "2,1", "3,1", "1,k", "2,k", "3,k")]
        [0.17, 0.29, 0.71, 0.44, 0.62, 0.91]
    """
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2:
        raise InputError("ratings", got=f"shape {table.shape}", expected="[subjects, readers]")
    if np.isinf(table).any():
        raise InputError("ratings", got="an infinite one", expected="numbers, NaN where a reader did not rate")
    if form not in ("1,1", "2,1", "3,1", "1,k", "2,k", "3,k"):
        raise InputError("form", got=form, expected='"1,1", "2,1", "3,1", "1,k", "2,k" or "3,k"')
    if not 0 < level < 1:
        raise InputError("level", got=level, expected="between 0 and 1")
    table = table[np.isfinite(table).any(axis=1)]
    holes = int(np.isnan(table).sum())
    if holes and form != "1,1":
        raise InputError(
            "ratings",
            got=f"{holes} missing",
            expected=f"a full table for form {form}",
            hint='leave out subjects with missing ratings, or take form "1,1"',
        )
    if table.shape[0] < 2 or np.isfinite(table).sum(axis=1).max(initial=0) < 2:
        raise InputError("ratings", got=f"shape {table.shape}", expected="two subjects and two readers or more")
    return _one_way(table, form, level) if form[0] == "1" else _two_way(table, form, level)


def _one_way(table: FloatArray, form: Form, level: float) -> IntraclassCorrelation:
    readers = np.isfinite(table).sum(axis=1)
    n, total = len(table), int(readers.sum())
    means = np.nansum(table, axis=1) / readers
    between = float((readers * (means - np.nansum(table) / total) ** 2).sum()) / (n - 1)
    within = _floored(float(np.nansum((table - means[:, None]) ** 2)) / (total - n), between)
    k = (total - float((readers**2).sum()) / total) / (n - 1)
    ratio, free = between / within, (n - 1, total - n)
    return _by_ratio(form, ratio, free, k=k, level=level, subjects=n)


def _two_way(table: FloatArray, form: Form, level: float) -> IntraclassCorrelation:
    n, k = table.shape
    rows, columns, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    between = k * float(((rows - mean) ** 2).sum()) / (n - 1)
    reader = n * float(((columns - mean) ** 2).sum()) / (k - 1)
    rest = float(((table - rows[:, None] - columns + mean) ** 2).sum()) / ((n - 1) * (k - 1))
    error = _floored(rest, between + reader)
    ratio, free = between / error, (n - 1, (n - 1) * (k - 1))
    if form[0] == "3":
        return _by_ratio(form, ratio, free, k=k, level=level, subjects=n)
    single = (between - error) / (between + (k - 1) * error + k * (reader - error) / n)
    # Satterthwaite's degrees of freedom (Shrout and Fleiss 1979, p. 424).
    of_readers, of_rest = k * single * reader / error, n * (1 + (k - 1) * single) - k * single
    numerator = (k - 1) * (n - 1) * (of_readers + of_rest) ** 2
    v = numerator / ((n - 1) * of_readers**2 + of_rest**2)
    upper, lower = (f_distribution.ppf((1 + level) / 2, *d) for d in ((n - 1, v), (v, n - 1)))
    noise = k * reader + (k * n - k - n) * error
    ends = (
        n * (between - upper * error) / (upper * noise + n * between),
        n * (lower * between - error) / (noise + n * lower * between),
    )
    values = [single, float(ends[0]), float(ends[1])]
    if form == "2,k":
        values = [k * value / (1 + (k - 1) * value) for value in values]
    p_value = float(f_distribution.sf(ratio, *free))
    return IntraclassCorrelation(form, values[0], values[1], values[2], level, ratio, p_value, n, float(k))


def _by_ratio(
    form: Form, ratio: float, free: tuple[int, int], *, k: float, level: float, subjects: int
) -> IntraclassCorrelation:
    """The forms that are a function of one ratio of mean squares, as their intervals are."""
    ends = (
        ratio / f_distribution.ppf((1 + level) / 2, *free),
        ratio * f_distribution.ppf((1 + level) / 2, *free[::-1]),
    )
    values = [1 - 1 / r if form.endswith("k") else (r - 1) / (r + k - 1) for r in (ratio, *map(float, ends))]
    p_value = float(f_distribution.sf(ratio, *free))
    return IntraclassCorrelation(form, values[0], values[1], values[2], level, ratio, p_value, subjects, k)


def _floored(mean_square: float, largest: float) -> float:
    if largest <= 0 and mean_square <= 0:
        raise InputError("ratings", got="no variance", expected="subjects that differ")
    return max(mean_square, largest * _FLOOR)
