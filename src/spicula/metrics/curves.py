"""ROC and precision-recall curves read at given places, so that curves of resamples can be laid over each other.

With :func:`spicula.metrics.bootstrap.bootstrap_intervals` they give the bands of a figure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray, curve

PLACES = np.linspace(0, 1, 101)
"""False positive rates or recalls at which a figure reads a curve."""


def sensitivity_at_rates(y: ArrayLike, score: ArrayLike, *, at: ArrayLike = PLACES) -> FloatArray:
    """ROC curve at given false positive rates, linear between its points.

    Args:
        y: ``[n]`` labels, 0 or 1.
        score: ``[n]`` scores.
        at: ``[k]`` false positive rates, 0 to 1.

    Returns:
        float64 ``[k]`` sensitivities; where the curve rises upright, its upper end.

    Raises:
        InputError: See :func:`spicula.metrics.classification.checked`; or a rate outside 0 to 1.

    References:
        Fawcett 2006, doi:10.1016/j.patrec.2005.10.010 (vertical averaging).

    Example:
        >>> sensitivity_at_rates([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], at=[0, 0.5, 1]).tolist()
        [0.5, 1.0, 1.0]
    """
    places, points = _checked_places(at), curve(y, score)
    return np.asarray(np.interp(places, np.append(0, points.false_positive_rate), np.append(0, points.recall)))


def precision_at_recalls(y: ArrayLike, score: ArrayLike, *, at: ArrayLike = PLACES) -> FloatArray:
    """Precision at the highest threshold that reaches each recall: step-wise, as :func:`~.classification.auprc` sums.

    Args:
        y: ``[n]`` labels, 0 or 1.
        score: ``[n]`` scores.
        at: ``[k]`` recalls, 0 to 1.

    Returns:
        float64 ``[k]`` precisions.

    Raises:
        InputError: See :func:`spicula.metrics.classification.checked`; or a recall outside 0 to 1.

    Example:
        >>> precision_at_recalls([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], at=[0.5, 1]).round(3).tolist()
        [1.0, 0.667]
    """
    places, points = _checked_places(at), curve(y, score)
    first = np.searchsorted(points.true_positives, places * points.positives * (1 - 1e-12), side="left")
    return np.asarray(points.precision[np.minimum(first, points.threshold.size - 1)])


def _checked_places(at: ArrayLike) -> FloatArray:
    places = np.atleast_1d(np.asarray(at, dtype=np.float64))
    if places.ndim != 1 or not np.isfinite(places).all() or places.min() < 0 or places.max() > 1:
        raise InputError("places on a curve", got=at, expected="numbers from 0 to 1")
    return places
