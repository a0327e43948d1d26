"""Whether one model is better than another on the same cases: DeLong's test of AUROCs, McNemar's test of calls.

For cases that share patients, take :func:`spicula.metrics.bootstrap.bootstrap_difference`, which draws whole patients;
the tests here take every row for independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, chi2, norm, rankdata

from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray, checked


@dataclass(frozen=True, slots=True)
class DeLong:
    """Two AUROCs on the same cases, and their difference.

    Args:
        auroc_a: Of model A.
        auroc_b: Of model B.
        difference: ``a - b``.
        standard_error: Of the difference.
        low: Lower end of the difference's interval.
        high: Upper end.
        level: Coverage of the interval.
        p_value: Two-sided; 1 where both rank all pairs alike.
    """

    auroc_a: float
    auroc_b: float
    difference: float
    standard_error: float
    low: float
    high: float
    level: float
    p_value: float


def delong(y: ArrayLike, score_a: ArrayLike, score_b: ArrayLike, *, level: float = 0.95) -> DeLong:
    """Compare two correlated AUROCs.

    Args:
        y: ``[n]`` labels, 0 or 1.
        score_a: ``[n]`` scores of model A.
        score_b: ``[n]`` scores of model B.
        level: Coverage of the interval of the difference.

    Returns:
        Both areas, the difference with its normal interval, and the p-value.

    Raises:
        InputError: See :func:`spicula.metrics.classification.checked`, or a class has fewer than two rows.

    References:
        DeLong, DeLong, Clarke-Pearson 1988, doi:10.2307/2531595; Sun, Xu 2014, doi:10.1109/LSP.2014.2337313 (by ranks).

    Example:
        >>> result = delong([0, 0, 0, 1, 1, 1], [1, 2, 3, 4, 5, 6], [1, 4, 3, 2, 5, 6])
        >>> round(result.difference, 4), result.p_value > 0.05
        (0.2222, True)
    """
    areas, covariance = auroc_covariance(y, [score_a, score_b])
    difference = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    error = float(np.sqrt(max(variance, 0.0)))
    reach = float(norm.ppf((1 + level) / 2)) * error
    certain = 1.0 if abs(difference) < 1e-12 else 0.0
    p_value = float(2 * norm.sf(abs(difference) / error)) if error > 1e-12 else certain
    return DeLong(
        float(areas[0]), float(areas[1]), difference, error, difference - reach, difference + reach, level, p_value
    )


def auroc_covariance(y: ArrayLike, scores: list[ArrayLike]) -> tuple[FloatArray, FloatArray]:
    """AUROCs of several models on the same cases, and their covariance.

    Args:
        y: ``[n]`` labels, 0 or 1.
        scores: One ``[n]`` for each of m models.

    Returns:
        float64 ``[m]`` areas and ``[m, m]`` covariance.

    Raises:
        InputError: As :func:`delong`.
    """
    parts = [_placements(*checked(y, score)) for score in scores]
    of_positives = np.stack([p for p, _ in parts])
    of_negatives = np.stack([n for _, n in parts])
    if min(of_positives.shape[1], of_negatives.shape[1]) < 2:
        raise InputError("labels", got="a class with one row", expected="two rows or more of each class")
    covariance = np.cov(of_positives) / of_positives.shape[1] + np.cov(of_negatives) / of_negatives.shape[1]
    return of_positives.mean(axis=1), np.asarray(covariance).reshape(len(scores), len(scores))


def _placements(positive: NDArray[np.bool_], score: FloatArray) -> tuple[FloatArray, FloatArray]:
    """For each positive the share of negatives below it, for each negative the share of positives above it."""
    together = rankdata(score)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    below = (together[positive] - rankdata(score[positive])) / n_negative
    above = 1 - (together[~positive] - rankdata(score[~positive])) / n_positive
    return below, above


@dataclass(frozen=True, slots=True)
class McNemar:
    """Calls of two models on the same cases; only those that one has right and the other wrong tell them apart.

    Args:
        both_right: Cases that both call rightly.
        only_a_right: Cases that A alone calls rightly.
        only_b_right: Cases that B alone calls rightly.
        both_wrong: Cases that neither does.
        difference: Accuracy of A less that of B.
        statistic: Chi-square with one degree of freedom and Edwards's correction for continuity; 0 where the models
            never disagree.
        p_value: Exact (binomial), two-sided.
        p_chi_square: From ``statistic``; trust it from about 25 disagreements on.
        p_mid: Exact with half the weight on what was seen (less careful than the exact one, closer to its level).
    """

    both_right: int
    only_a_right: int
    only_b_right: int
    both_wrong: int
    difference: float
    statistic: float
    p_value: float
    p_chi_square: float
    p_mid: float


def mcnemar(y: ArrayLike, called_a: ArrayLike, called_b: ArrayLike) -> McNemar:
    """Compare the calls of two models on the same cases.

    To compare sensitivities, give the positives alone; for specificities, the negatives.

    Args:
        y: ``[n]`` true classes, of any kind.
        called_a: ``[n]`` calls of model A, of the same kind (after its threshold).
        called_b: ``[n]`` calls of model B.

    Returns:
        The four counts and the p-values.

    Raises:
        InputError: Lengths differ or there is no case, a call is missing (NaN), or calls are scores (fractions).

    References:
        McNemar 1947, doi:10.1007/BF02295996; Edwards 1948, doi:10.1007/BF02289261; Fagerland, Lydersen, Laake 2013,
        doi:10.1186/1471-2288-13-91 (mid-p).

    Example:
        >>> found = mcnemar([1] * 10, [1] * 9 + [0], [1, 1, 1] + [0] * 6 + [1])
        >>> found.only_a_right, found.only_b_right, found.p_value
        (6, 1, 0.125)
    """
    truth, first, second = np.asarray(y), np.asarray(called_a), np.asarray(called_b)
    if truth.ndim != 1 or not truth.shape == first.shape == second.shape or truth.size == 0:
        raise InputError(
            "labels and calls", got=f"shapes {truth.shape}, {first.shape}, {second.shape}", expected="three [n], n > 0"
        )
    for name, calls in (("label", truth), ("call of model A", first), ("call of model B", second)):
        missing = np.flatnonzero(calls != calls)
        if missing.size:
            raise InputError(f"{name} of row {missing[0]}", got="nothing", expected="a class")
    for name, calls in (("model A", first), ("model B", second)):
        broken = np.flatnonzero(calls % 1 != 0) if np.issubdtype(calls.dtype, np.floating) else np.array([])
        if broken.size:
            raise InputError(
                f"call of {name} of row {broken[0]}",
                got=calls[broken[0]],
                expected="a class, as in the labels",
                hint="are these scores? compare them with a threshold first",
            )
    right_a, right_b = first == truth, second == truth
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    apart, fewer = only_a + only_b, min(only_a, only_b)
    statistic = max(0, abs(only_a - only_b) - 1) ** 2 / apart if apart else 0.0
    exact = min(1.0, 2 * float(binom.cdf(fewer, apart, 0.5)))
    mid = 2 * (float(binom.cdf(fewer, apart, 0.5)) - 0.5 * float(binom.pmf(fewer, apart, 0.5)))
    return McNemar(
        int((right_a & right_b).sum()),
        only_a,
        only_b,
        int((~right_a & ~right_b).sum()),
        (only_a - only_b) / truth.size,
        float(statistic),
        exact,
        float(chi2.sf(statistic, 1)),
        min(1.0, mid),
    )
