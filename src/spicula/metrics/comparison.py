"""Whether one model is better than another on the same cases: DeLong's test of two AUROCs.

For cases that share patients, take :func:`spicula.metrics.bootstrap.bootstrap_difference`, which draws whole patients;
DeLong's test takes every row for independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

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
