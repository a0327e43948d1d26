"""Whether acting on a risk does more good than treating all or none: net benefit and its curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from spicula.core.errors import InputError
from spicula.metrics.calibration import checked_probabilities
from spicula.metrics.classification import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class DecisionCurve:
    """Net benefit over threshold probabilities, in true positives a patient.

    A threshold of 0.05 belongs to someone who would take 19 needless work-ups for one cancer found.

    Args:
        threshold: float64 ``[k]``, between 0 and 1; a patient is worked up where the risk is at least this.
        model: float64 ``[k]`` net benefit of acting on the model.
        treat_all: float64 ``[k]`` net benefit of working up everyone.
        prevalence: Of the population that the curve speaks of; the net benefit of a perfect model.
    """

    threshold: FloatArray
    model: FloatArray
    treat_all: FloatArray
    prevalence: float

    @property
    def treat_none(self) -> FloatArray:
        """Net benefit of working up nobody: 0 everywhere."""
        return np.zeros(self.threshold.size)

    @property
    def gain(self) -> FloatArray:
        """Net benefit beyond the better of treating all and treating none; a model is of use where it is above 0."""
        return np.asarray(self.model - np.maximum(self.treat_all, 0.0))

    @property
    def standardized(self) -> FloatArray:
        """Net benefit as a share of a perfect model's; NaN where the prevalence is 0."""
        return self.model / self.prevalence if self.prevalence > 0 else np.full(self.model.size, np.nan)

    @property
    def interventions_avoided(self) -> FloatArray:
        """Net reduction of work-ups a patient against treating all, at no cancer more missed (times 100: in 100)."""
        return np.asarray((self.model - self.treat_all) * (1 - self.threshold) / self.threshold)


def decision_curve(
    y: ArrayLike, p: ArrayLike, *, thresholds: ArrayLike | None = None, prevalence: float | None = None
) -> DecisionCurve:
    """Net benefit of acting on a risk, at many thresholds.

    The risk has to be calibrated: net benefit is lost by risks that say too much or too little. For a band, take
    ``bootstrap_intervals(lambda y, p: decision_curve(y, p, thresholds=t).model, (y, p), patients)`` of
    :mod:`spicula.metrics.bootstrap`.

    Args:
        y: ``[n]`` labels, 0 or 1.
        p: ``[n]`` probabilities.
        thresholds: ``[k]``, between 0 and 1; 0.01 to 0.99 by 0.01 if omitted.
        prevalence: Of the population, where the sample's is not (a case-control or enriched set): the sample's true
            and false positive rates are carried over to it.

    Returns:
        The curve of the model, and those of treating all and none.

    Raises:
        InputError: Bad labels or probabilities, a threshold not between 0 and 1, a prevalence outside 0 to 1, or one
            where the labels are of one class.

    References:
        Vickers, Elkin 2006, doi:10.1177/0272989X06295361; Vickers, Van Calster, Steyerberg 2019,
        doi:10.1186/s41512-019-0064-7; Kerr et al. 2016, doi:10.1200/JCO.2015.65.5654 (standardized).

    Example:
        >>> curve = decision_curve([0, 0, 0, 1], [0.1, 0.2, 0.6, 0.7], thresholds=[0.2, 0.5])
        >>> curve.model.round(4).tolist(), curve.treat_all.round(4).tolist()
        ([0.125, 0.0], [0.0625, -0.5])
        >>> curve.interventions_avoided.round(4).tolist()
        [0.25, 0.5]
    """
    if prevalence is not None and not 0 <= prevalence <= 1:
        raise InputError("prevalence", got=prevalence, expected="0 to 1")
    positive, probability = checked_probabilities(y, p, both_classes=prevalence is not None)
    at = np.arange(1, 100) / 100 if thresholds is None else np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    if at.ndim != 1 or not ((at > 0) & (at < 1)).all():
        raise InputError("thresholds", got=at.tolist(), expected="[k], each between 0 and 1, both apart")
    true, false = (
        1 - np.searchsorted(np.sort(part), at, side="left") / max(part.size, 1)
        for part in (probability[positive], probability[~positive])
    )
    share = float(positive.mean()) if prevalence is None else float(prevalence)
    odds = at / (1 - at)
    return DecisionCurve(at, share * true - (1 - share) * false * odds, share - (1 - share) * odds, share)


def net_benefit(y: ArrayLike, p: ArrayLike, *, threshold: float, prevalence: float | None = None) -> float:
    """Net benefit at one threshold: true positives less false ones at the threshold's odds, a patient.

    Args:
        y: ``[n]`` labels, 0 or 1.
        p: ``[n]`` probabilities.
        threshold: Between 0 and 1.
        prevalence: As in :func:`decision_curve`.

    Returns:
        At most the prevalence; below 0 where acting on the model does harm.

    Raises:
        InputError: As :func:`decision_curve`.

    Example:
        >>> net_benefit([0, 0, 0, 1], [0.1, 0.2, 0.6, 0.7], threshold=0.5)
        0.0
    """
    return float(decision_curve(y, p, thresholds=[threshold], prevalence=prevalence).model[0])
