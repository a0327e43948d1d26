"""Evaluations as pages for people: tables, and figures with bootstrap bands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula import __version__
from spicula.core.bundle import sha256_of
from spicula.metrics.bootstrap import bootstrap_intervals
from spicula.metrics.calibration import reliability
from spicula.metrics.classification import FloatArray
from spicula.metrics.curves import PLACES, precision_at_recalls, sensitivity_at_rates
from spicula.metrics.decision import decision_curve
from spicula.metrics.patients import patient_maximum
from spicula.pipelines.evaluate_classification import (
    RATES,
    Classification,
    Comparison,
    Discrimination,
    between,
    or_dash,
)
from spicula.pipelines.evaluate_froc import FrocEvaluation, band_arrays, free_response_arrays
from spicula.pipelines.predictions_table import Predictions
from spicula.report import figures
from spicula.report.evaluation import EvaluationPage, PageFigure, PageTable

BAND_RESAMPLES = 2000
"""Resamples behind a band: each point of it needs fewer than an interval that is quoted."""


def classification_page(
    result: Classification, predictions: Predictions, *, other: Predictions | None = None
) -> EvaluationPage:
    """The page of ``spicula evaluate classification``.

    Args:
        result: From :func:`spicula.pipelines.evaluate_classification.evaluate_predictions`.
        predictions: What it was made from.
        other: The other model, if one was compared.

    Returns:
        ROC, precision-recall and reliability figures with bands, and all numbers.

    Raises:
        MissingExtraError: The extra ``evaluate`` is not installed.
    """
    parts = [("nodules", result.nodule), *([("patients", result.patient)] if result.patient else [])]
    tables = [_numbers(parts), *(_at_recalls(name, part) for name, part in parts)]
    if result.folds:
        tables.append(_folds(result))
    if result.comparison:
        tables.append(_comparison(result.comparison))
    area = result.nodule.auroc
    return EvaluationPage(
        title=f"Risk of {result.nodule.rows:,} nodules",
        lead=f"AUROC {between(area)} over {result.nodule.patients:,} patients; "
        f"{result.nodule.positives:,} nodules are malignant.",
        tables=tuple(tables),
        figures=_figures(result, predictions, other),
        warnings=result.warnings,
        facts=(
            ("Spicula", __version__),
            ("Predictions", f"{predictions.path} (SHA-256 {sha256_of(predictions.path)})"),
            ("Columns", f"score {predictions.columns[0]}, label {predictions.columns[1]}"),
            ("Splits' hash", result.split_hash),
            ("Seed", str(result.seed)),
            ("Resamples", f"{area.resamples:,} of whole patients (bands {BAND_RESAMPLES:,}), {area.level:.0%}"),
        ),
    )


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


def froc_page(found: FrocEvaluation) -> EvaluationPage:
    """The page of ``spicula evaluate froc``.

    Args:
        found: The evaluation.

    Returns:
        The curve with its band, the seven sensitivities, what became of all marks, and the files.

    Raises:
        MissingExtraError: The extra ``evaluate`` is not installed.
    """
    pairs = found.sensitivity_interval or (None,) * len(found.rates)
    rates = tuple(
        (f"{rate:g}", f"{value:.4f}", _ends(pair))
        for rate, value, pair in zip(found.rates, found.sensitivity, pairs, strict=True)
    )
    counts = tuple((name.replace("_", " "), f"{value:,}") for name, value in asdict(found.counts).items())
    tables = [
        PageTable("Sensitivity", ("false positives a scan", "sensitivity", f"{found.level:.0%} interval"), rates),
        PageTable("What became of the marks", ("", "count"), counts, "The scans are the divisor of the rates."),
    ]
    if found.variants:
        columns = ("", *(f"{rate:g}" for rate in found.rates), "mean")
        rows = tuple(
            (
                v.name if v.official else f"mistake: {v.name}",
                *(f"{value:.4f}" for value in v.sensitivity), f"{v.mean:.4f}",
            )
            for v in found.variants
        )  # fmt: skip
        tables.append(PageTable("The official score and those reported by mistake for it", columns, rows))
    drawn = f"{found.resamples:,} of {found.drawn}, seed {found.seed}" if found.resamples else "none"
    return EvaluationPage(
        title="Free-response score",
        lead=f"CPM {found.cpm:.4f} {_ends(found.interval)} over {found.counts.scans:,} scans, {found.protocol}.",
        tables=tuple(tables),
        figures=(PageFigure("FROC", froc_figure(found), "Band: pointwise over resamples." if found.resamples else ""),),
        warnings=found.notes,
        facts=(
            ("Spicula", __version__),
            *((name, f"{f.name}, {f.rows:,} rows (SHA-256 {f.sha256})") for name, f in found.files.items()),
            ("Bootstrap", drawn),
        ),
    )


def _ends(pair: tuple[float, float] | None) -> str:
    return f"[{pair[0]:.4f}, {pair[1]:.4f}]" if pair else ""


def _numbers(parts: list[tuple[str, Discrimination]]) -> PageTable:
    rows = [
        ("rows (malignant)", *(f"{part.rows:,} ({part.positives:,})" for _, part in parts)),
        ("AUROC", *(between(part.auroc) for _, part in parts)),
        ("AUPRC, step-wise", *(between(part.auprc) for _, part in parts)),
    ]
    for name in RATES:
        at = f" at {parts[0][1].at_threshold.threshold:g}"
        title = {"f1": "F1", "sensitivity": "recall (sensitivity)"}.get(name, name)
        rows.append((title + at, *(or_dash(getattr(part.at_threshold, name)) for _, part in parts)))
    for name, title in (
        ("brier", "Brier score"), ("ece_equal_mass", "ECE, bins of equal mass"),
        ("ece_equal_width", "ECE, bins of equal width"), ("slope", "calibration slope"),
        ("intercept", "calibration intercept"), ("in_the_large", "calibration in the large"),
    ):  # fmt: skip
        values = [getattr(part.calibration, name) if part.calibration else None for _, part in parts]
        rows.append((title, *map(or_dash, values)))
    note = "A patient has the highest score of the nodules. Intervals draw whole patients."
    return PageTable("Numbers", ("", *(name for name, _ in parts)), tuple(rows), note)


def _at_recalls(name: str, part: Discrimination) -> PageTable:
    rows = tuple(
        (
            f"{row.target:g}", f"{row.counts.sensitivity:.3f}", f"{row.counts.false_positive_rate:.3f}",
            f"{row.counts.precision:.3f}", f"{row.loose_precision:.3f}", f"{row.counts.threshold:.3g}",
        )
        for row in part.at_recalls
    )  # fmt: skip
    note = (
        "At the threshold of the nearest recall with the fewest false calls. 'Precision, loosest' is at the same "
        "recall with the most false calls; papers that read it off a precision-recall curve print that one."
    )
    columns = ("recall asked", "recall", "false positive rate", "precision", "precision, loosest", "threshold")
    return PageTable(f"At given recalls, {name}", columns, rows, note)


def _folds(result: Classification) -> PageTable:
    note = ""
    if result.over_folds:
        mean = f"{result.over_folds.mean:.3f} [{result.over_folds.low:.3f}, {result.over_folds.high:.3f}]"
        note = f"Mean {mean} by the t-distribution, which is too narrow for folds that share training rows."
    return PageTable("Folds", ("fold", "AUROC"), tuple((n, f"{v:.3f}") for n, v in result.folds.items()), note)


def _comparison(found: Comparison) -> PageTable:
    rows = tuple(
        (title, f"{one.a:.3f}", f"{one.b:.3f}", between(one.difference), f"{one.p_value:.3g}")
        for title, one in (("AUROC", found.auroc), ("AUPRC", found.auprc))
    )
    test = f"DeLong's test, which takes nodules for independent: p = {found.delong.p_value:.3g}."
    note = f"Whole patients were drawn, the same for both. {test}"
    return PageTable(f"Against {found.path.name}", ("", "this", "other", "difference", "p"), rows, note)


def _figures(result: Classification, predictions: Predictions, other: Predictions | None) -> tuple[PageFigure, ...]:
    sets: list[Set] = [("nodules", predictions.label, predictions.score, predictions.patient)]
    if result.patient:
        by = patient_maximum(predictions.patient, predictions.label, predictions.score)
        sets.append(("patients", by.label, by.score, by.patient))
    if other:
        sets.append((f"nodules, {other.path.stem}", other.label, other.score, other.patient))
    band = "Band: pointwise 95 % over patients."
    made = [
        PageFigure("ROC", figures.roc([_banded(s, sensitivity_at_rates, seed=result.seed) for s in sets]), band),
        PageFigure(
            "Precision and recall",
            figures.precision_recall(
                [_banded(s, precision_at_recalls, seed=result.seed) for s in sets],
                prevalence=result.nodule.positives / result.nodule.rows,
            ),
            f"{band} The dashed line is the prevalence among nodules.",
        ),
    ]
    if result.nodule.calibration:
        lines = [_reliability(name, y, p) for name, y, p, _ in sets if p.min() >= 0 and p.max() <= 1]
        caption = "Ten bins of equal mass; bars: 95 % Wilson intervals, as if rows were independent."
        made.append(PageFigure("Reliability", figures.reliability(lines), caption))
        made.append(_decision(result, predictions))
    return tuple(made)


def _decision(result: Classification, predictions: Predictions) -> PageFigure:
    y, p = predictions.label, predictions.score
    curve = decision_curve(y, p)

    def benefit(y: NDArray[np.bool_], p: FloatArray) -> FloatArray:
        return decision_curve(y, p, thresholds=curve.threshold).model

    line = _banded(("acting on the risk", y, p, predictions.patient), benefit, at=curve.threshold, seed=result.seed)
    everyone = figures.Line("working up all", curve.threshold, curve.treat_all)
    figure = figures.decision([line], treat_all=everyone, prevalence=curve.prevalence)
    caption = "True positives a nodule, less false ones at the threshold's odds. Band: pointwise 95 % over patients."
    return PageFigure("Decision curve", figure, caption)


Set = tuple[str, NDArray[np.bool_], FloatArray, NDArray[np.generic]]


def _banded(one: Set, curve: Callable[..., FloatArray], *, at: FloatArray = PLACES, seed: int) -> figures.Line:
    name, y, score, patients = one
    band = bootstrap_intervals(curve, (y, score), patients, resamples=BAND_RESAMPLES, seed=seed)
    value, low, high = (np.array([getattr(one, part) for one in band]) for part in ("value", "low", "high"))
    return figures.Line(name, at, value, low, high)


def _reliability(name: str, y: NDArray[np.bool_], p: FloatArray) -> figures.Line:
    found = reliability(y, p)
    low, high = found.band()
    return figures.Line(name, found.predicted, found.observed, low, high, found.count)
