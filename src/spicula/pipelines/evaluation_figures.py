"""Figures of evaluations: curves of one or several sets of scores, with bootstrap bands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.metrics.bootstrap import bootstrap_intervals
from spicula.metrics.calibration import reliability
from spicula.metrics.classification import FloatArray
from spicula.metrics.curves import PLACES, precision_at_recalls, sensitivity_at_rates
from spicula.metrics.decision import decision_curve
from spicula.pipelines.evaluate_froc import FrocEvaluation, band_arrays, free_response_arrays
from spicula.report import figures
from spicula.report.evaluation import PageFigure

BAND_RESAMPLES = 2000
"""Resamples behind a band: each point of it needs fewer than an interval that is quoted."""

_BAND = "Band: pointwise 95 % over patients."


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Scores with their truth: one curve of a figure.

    Args:
        name: For the legend.
        label: bool ``[n]``.
        score: float64 ``[n]``.
        patient: ``[n]`` patient of each row, drawn whole.
    """

    name: str
    label: NDArray[np.bool_]
    score: FloatArray
    patient: NDArray[np.generic]

    @property
    def is_probability(self) -> bool:
        """Whether all scores lie between 0 and 1."""
        return bool(self.score.min() >= 0 and self.score.max() <= 1)


def score_figures(sets: Sequence[Scored], *, of: str = "nodules", seed: int = 0) -> tuple[PageFigure, ...]:
    """ROC, precision-recall and, for probabilities, reliability and decision curve (of the first set).

    Args:
        sets: One or several; the prevalence drawn is that of the first.
        of: What the rows of the first are.
        seed: Of the draws.

    Returns:
        The figures.

    Raises:
        InputError: One class only, or fewer than ten patients.
        MissingExtraError: The extra ``evaluate`` is not installed.
    """
    roc = [_banded(one, sensitivity_at_rates, seed=seed) for one in sets]
    recalls = [_banded(one, precision_at_recalls, seed=seed) for one in sets]
    prevalence = float(sets[0].label.mean())
    dashed = f"{_BAND} The dashed line is the prevalence among {of}."
    made = [
        PageFigure("ROC", figures.roc(roc), _BAND),
        PageFigure("Precision and recall", figures.precision_recall(recalls, prevalence=prevalence), dashed),
    ]
    probable = [one for one in sets if one.is_probability]
    if probable:
        caption = "Ten bins of equal mass; bars: 95 % Wilson intervals, as if rows were independent."
        made.append(PageFigure("Reliability", figures.reliability([_reliability(one) for one in probable]), caption))
        made.append(_decision(probable[0], seed=seed))
    return tuple(made)


def froc_figure(found: FrocEvaluation) -> Any:
    """The free-response curve with its bootstrap band, as a matplotlib figure.

    Raises:
        MissingExtraError: The extra ``evaluate`` is not installed.
    """
    band = band_arrays(found)
    if band is None:
        rate, sensitivity = free_response_arrays(found)
        line = figures.Line("detections", rate, sensitivity)
    else:
        line = figures.Line("detections", band.rates, band.sensitivity, band.low, band.high)
    return figures.free_response([line], rates=found.rates, sensitivity=found.sensitivity)


def _decision(one: Scored, *, seed: int) -> PageFigure:
    curve = decision_curve(one.label, one.score)

    def benefit(y: NDArray[np.bool_], p: FloatArray) -> FloatArray:
        return decision_curve(y, p, thresholds=curve.threshold).model

    line = _banded(one, benefit, at=curve.threshold, seed=seed)
    everyone = figures.Line("working up all", curve.threshold, curve.treat_all)
    figure = figures.decision([line], treat_all=everyone, prevalence=curve.prevalence)
    caption = f"For {one.name}: true positives a case, less false ones at the threshold's odds. {_BAND}"
    return PageFigure("Decision curve", figure, caption)


def _banded(one: Scored, curve: Callable[..., FloatArray], *, at: FloatArray = PLACES, seed: int) -> figures.Line:
    band = bootstrap_intervals(curve, (one.label, one.score), one.patient, resamples=BAND_RESAMPLES, seed=seed)
    value, low, high = (np.array([getattr(each, part) for each in band]) for part in ("value", "low", "high"))
    return figures.Line(one.name, at, value, low, high)


def _reliability(one: Scored) -> figures.Line:
    found = reliability(one.label, one.score)
    low, high = found.band()
    return figures.Line(one.name, found.predicted, found.observed, low, high, found.count)
