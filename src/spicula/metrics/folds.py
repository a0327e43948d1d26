"""Statistics over folds or data sets: one number for each fold and model, few of them.

The folds of a cross-validation share their training rows, and so their numbers are not independent: intervals and
p-values of these tests are the custom of the field, and are too sure of themselves. Where all models were scored on one
test set, :func:`spicula.metrics.bootstrap.bootstrap_difference` over its patients says more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2, norm, rankdata, studentized_range
from scipy.stats import t as student

from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray

_EXACT_UP_TO = 50  # pairs


@dataclass(frozen=True, slots=True)
class FoldInterval:
    """Mean over folds with its t-interval.

    Args:
        mean: Over the folds.
        standard_deviation: Of the folds (divisor n - 1).
        standard_error: Of the mean: the deviation over the root of the number of folds.
        low: Lower end; it may lie outside the range of the metric.
        high: Upper end.
        level: Coverage that is aimed at.
        folds: How many.
    """

    mean: float
    standard_deviation: float
    standard_error: float
    low: float
    high: float
    level: float
    folds: int


def t_interval(values: ArrayLike, *, level: float = 0.95) -> FoldInterval:
    """Mean and interval over folds, from the t-distribution with n - 1 degrees of freedom.

    Args:
        values: ``[n]`` the metric in each fold, two or more.
        level: Coverage that is aimed at.

    Returns:
        Mean, deviation, error and interval.

    Raises:
        InputError: Fewer than two folds, a value that is not finite, or a level outside 0 to 1.

    References:
        Zhuang et al. 2025, arXiv:2504.21344, section 3.5. Too narrow for folds that share training rows: Nadeau,
        Bengio 2003, doi:10.1023/A:1024068626366.

    Example:
        >>> found = t_interval([0.88, 0.90, 0.91, 0.87, 0.89])
        >>> round(found.mean, 3), round(found.low, 4), round(found.high, 4)
        (0.89, 0.8704, 0.9096)
    """
    folds = _column(values, "folds")
    if folds.size < 2:
        raise InputError("folds", got=folds.size, expected="2 or more")
    if not 0 < level < 1:
        raise InputError("level", got=level, expected="between 0 and 1")
    mean, deviation = float(folds.mean()), float(folds.std(ddof=1))
    error = deviation / folds.size**0.5
    reach = float(student.ppf((1 + level) / 2, folds.size - 1)) * error
    return FoldInterval(mean, deviation, error, mean - reach, mean + reach, level, folds.size)


@dataclass(frozen=True, slots=True)
class SignedRank:
    """Wilcoxon's signed-rank test of two models over the same folds.

    Args:
        statistic: The smaller of the two rank sums (what most programs print for a two-sided test).
        rank_sum_a: Of the folds where A is higher.
        rank_sum_b: Of the folds where B is higher.
        pairs: Folds with a difference; those without are left out, as Wilcoxon did.
        ties: Folds without a difference.
        p_value: Two-sided; 1 where no fold differs.
        exact: Whether the p-value is from all sign patterns (up to 50 pairs) or from the normal distribution.
        smallest_p: The p-value that one model ahead in every fold would give: with five folds 0.0625, so that five
            folds cannot be significant at 0.05.
    """

    statistic: float
    rank_sum_a: float
    rank_sum_b: float
    pairs: int
    ties: int
    p_value: float
    exact: bool
    smallest_p: float


def signed_rank(a: ArrayLike, b: ArrayLike) -> SignedRank:
    """Compare two models over folds by Wilcoxon's signed-rank test, two-sided.

    The p-value is exact up to 50 pairs, also where differences are of equal size (all 2^n sign patterns are counted
    for the ranks as they are); beyond, normal with the correction for equal sizes. Differences are compared to twelve
    digits of the largest value, so that 0.9 - 0.8 is as large as 0.8 - 0.7.

    Args:
        a: ``[n]`` metric of model A in each fold.
        b: ``[n]`` of model B, in the same order.

    Returns:
        Rank sums and p-value.

    Raises:
        InputError: Lengths differ, there is no fold, or a value is not finite.

    References:
        Wilcoxon 1945, doi:10.2307/3001968; Demsar 2006, JMLR 7:1-30 (for classifiers).

    Example:
        >>> found = signed_rank([0.90, 0.88, 0.91, 0.87, 0.90], [0.85, 0.84, 0.88, 0.86, 0.88])
        >>> found.statistic, found.p_value, found.smallest_p
        (0.0, 0.0625, 0.0625)
    """
    first, second = _column(a, "model A"), _column(b, "model B")
    if first.size != second.size or first.size == 0:
        raise InputError("folds of two models", got=f"{first.size} and {second.size}", expected="as many, 1 or more")
    step = max(float(np.abs([first, second]).max()), np.finfo(np.float64).tiny) * 1e-12
    difference = np.round((first - second) / step)
    kept = difference[difference != 0]
    ties = int(first.size - kept.size)
    if kept.size == 0:
        return SignedRank(0.0, 0.0, 0.0, 0, ties, 1.0, True, 1.0)
    ranks = rankdata(np.abs(kept))
    up, down = float(ranks[kept > 0].sum()), float(ranks[kept < 0].sum())
    low, exact = min(up, down), kept.size <= _EXACT_UP_TO
    p_value = _exact_p(ranks, low) if exact else _normal_p(ranks, low)
    smallest = _exact_p(ranks, 0.0) if exact else _normal_p(ranks, 0.0)
    return SignedRank(low, up, down, int(kept.size), ties, p_value, exact, smallest)


def _exact_p(ranks: FloatArray, low: float) -> float:
    """Share of sign patterns whose smaller rank sum is at most ``low``; ranks may be halves."""
    doubled = np.round(2 * ranks).astype(np.intp)
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1.0
    for rank in doubled:
        ways[rank:] = (ways[rank:] + ways[:-rank]) / 2
        ways[:rank] /= 2
    return min(1.0, 2 * float(ways[: round(2 * low) + 1].sum()))


def _normal_p(ranks: FloatArray, low: float) -> float:
    """Two-sided p of the smaller rank sum; the spread of the ranks as they are holds the correction for ties."""
    return float(min(1.0, 2 * norm.cdf((low - ranks.sum() / 2) / np.sqrt((ranks**2).sum() / 4))))


@dataclass(frozen=True, slots=True, eq=False)
class Friedman:
    """Friedman's test of several models over the same folds, with Nemenyi's test of each pair.

    Args:
        statistic: Chi-square, corrected for ties within folds.
        p_value: From the chi-square distribution; with few folds an approximation.
        degrees_of_freedom: Models less one.
        mean_rank: float64 ``[m]``, 1 for the highest number in a fold.
        pairwise_p: float64 ``[m, m]``, Nemenyi's p-values, 1 on the diagonal; worth reading only where ``p_value`` is
            small.
        folds: How many.
    """

    statistic: float
    p_value: float
    degrees_of_freedom: int
    mean_rank: FloatArray
    pairwise_p: FloatArray
    folds: int

    def critical_difference(self, *, level: float = 0.05) -> float:
        """Distance of mean ranks from which on a pair differs at this level (for a diagram of ranks)."""
        models = self.mean_rank.size
        return float(studentized_range.isf(level, models, np.inf)) * _rank_error(models, self.folds)


def friedman(scores: ArrayLike) -> Friedman:
    """Compare three or more models over folds: Friedman's chi-square and Nemenyi's pairwise p-values.

    Args:
        scores: ``[folds, models]`` the metric, higher is better for ``mean_rank`` (the p-values do not depend on it).

    Returns:
        The test over all and of each pair.

    Raises:
        InputError: Fewer than two folds or three models, or a value that is not finite.

    References:
        Friedman 1937, doi:10.1080/01621459.1937.10503522; Nemenyi 1963 (thesis, Princeton); Demsar 2006, JMLR 7:1-30.

    Example:
        >>> found = friedman([[0.90, 0.85, 0.80], [0.91, 0.86, 0.82], [0.88, 0.87, 0.81]])
        >>> found.mean_rank.tolist(), round(found.p_value, 4), round(float(found.pairwise_p[0, 2]), 3)
        ([1.0, 2.0, 3.0], 0.0498, 0.038)
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 3:
        raise InputError(
            "scores",
            got=f"shape {table.shape}",
            expected="[folds, models], 2 or more by 3 or more",
            hint="for two models take signed_rank",
        )
    _column(table.ravel(), "scores")
    folds, models = table.shape
    ranks = rankdata(-table, axis=1)
    mean = ranks.mean(axis=0)
    # The spread of the ranks within folds is (models^2 - 1) models folds / 12 less what ties take away.
    spread = float(((ranks - (models + 1) / 2) ** 2).sum())
    between = float(((mean - (models + 1) / 2) ** 2).sum()) * folds**2
    statistic = (models - 1) * between / spread if spread > 0 else 0.0
    apart = np.abs(mean[:, None] - mean[None]) / _rank_error(models, folds)
    # Each distinct distance once: the distribution is integrated anew for each.
    distances, inverse = np.unique(apart.round(12), return_inverse=True)
    p_pairs = np.clip(studentized_range.sf(distances, models, np.inf), 0, 1)[inverse.reshape(-1)].reshape(apart.shape)
    np.fill_diagonal(p_pairs, 1.0)
    p_value = float(chi2.sf(statistic, models - 1))
    return Friedman(float(statistic), p_value, models - 1, mean, np.asarray(p_pairs), folds)


def _rank_error(models: int, folds: int) -> float:
    """Unit in which the studentized range measures a distance of mean ranks."""
    return float(np.sqrt(models * (models + 1) / (12 * folds)))


def _column(values: ArrayLike, what: str) -> NDArray[np.float64]:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise InputError(what, got=f"shape {column.shape}", expected="[n], one number a fold")
    bad = np.flatnonzero(~np.isfinite(column))
    if bad.size:
        raise InputError(f"{what}, value {bad[0]}", got=column[bad[0]], expected="a finite number")
    return column
