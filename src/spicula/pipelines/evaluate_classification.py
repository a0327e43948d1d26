"""Predicted risks against what turned out: the job behind ``spicula evaluate classification``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula import __version__
from spicula.core.errors import InputError
from spicula.metrics.bootstrap import (
    FEWEST_PATIENTS,
    Difference,
    Interval,
    bootstrap_difference,
    bootstrap_interval,
)
from spicula.metrics.calibration import brier, calibration_line, expected_calibration_error
from spicula.metrics.classification import AtRecall, Counts, FloatArray, at_recalls, auprc, auroc, counts_at
from spicula.metrics.comparison import DeLong, delong
from spicula.metrics.folds import FoldInterval, t_interval
from spicula.metrics.patients import patient_maximum
from spicula.pipelines.froc_tables import FileFacts
from spicula.pipelines.predictions_table import Predictions

SCHEMA = "spicula-classification/1"
"""Version of the record; a key that changes its meaning or goes away raises it."""

RATES = ("accuracy", "f1", "precision", "sensitivity", "specificity")
"""What is told of the calls at a threshold."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether the probabilities mean what they say.

    Args:
        brier: Mean squared error.
        ece_equal_mass: Expected calibration error, ten bins of equally many rows.
        ece_equal_width: The same, ten bins of equal width.
        slope: Of the calibration line; 1 is right.
        intercept: Of the calibration line; 0 is right.
        in_the_large: Intercept with the slope held at 1.
    """

    brier: float
    ece_equal_mass: float
    ece_equal_width: float
    slope: float
    intercept: float
    in_the_large: float


@dataclass(frozen=True, slots=True)
class Discrimination:
    """One set of scores against one set of labels.

    Args:
        rows: How many.
        positives: Of them, of class 1.
        patients: How many patients they are of.
        auroc: With its interval over patients.
        auprc: Step-wise, the same.
        at_threshold: Counts and rates at the threshold.
        at_recalls: False positive rate and precision at the recalls nearest to 0.6, 0.7, 0.8 and 0.9.
        calibration: None where the scores are not all between 0 and 1.
    """

    rows: int
    positives: int
    patients: int
    auroc: Interval
    auprc: Interval
    at_threshold: Counts
    at_recalls: tuple[AtRecall, ...]
    calibration: Calibration | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Another set of predictions on the same nodules.

    Args:
        path: Its file.
        auroc: This model less the other, patients drawn in pairs.
        auprc: The same.
        delong: DeLong's test, on the nodules as if they were independent.
        files: Facts of its files, as :attr:`Predictions.files`.
    """

    path: Path
    auroc: Difference
    auprc: Difference
    delong: DeLong
    files: Mapping[str, FileFacts]


@dataclass(frozen=True, slots=True)
class Classification:
    """Everything that is said of a file of predictions.

    Args:
        nodule: Nodule by nodule.
        patient: Patient by patient, each with the highest score of the nodules; None where every patient has one.
        folds: AUROC of each fold that has both classes; empty without a column ``fold``.
        over_folds: Their mean with its t-interval; None below two folds.
        comparison: None unless another file was given.
        split_hash: Which nodules in which folds.
        seed: Of the draws.
        warnings: What a reader must know before believing a number.
    """

    nodule: Discrimination
    patient: Discrimination | None
    folds: Mapping[str, float]
    over_folds: FoldInterval | None
    comparison: Comparison | None
    split_hash: str
    seed: int
    warnings: tuple[str, ...]


def evaluate_predictions(
    predictions: Predictions, *, other: Predictions | None = None, threshold: float = 0.5, resamples: int = 10_000,
    seed: int = 0,
) -> Classification:  # fmt: skip
    """Score predictions, nodule by nodule and patient by patient, with intervals over patients.

    Args:
        predictions: What was predicted, and what it was.
        other: Another model's predictions of the same nodules.
        threshold: A score of at least this calls a nodule malignant.
        resamples: Of the bootstrap.
        seed: Of the draws.

    Returns:
        The scores.

    Raises:
        InputError: One class only, fewer than ten patients, a threshold that is no number, or the other file has other
            nodules or other labels.
    """
    y, score, patients = predictions.label, predictions.score, predictions.patient
    if not np.isfinite(threshold):
        raise InputError("threshold", got=threshold, expected="a finite number")
    _check_enough(predictions)
    nodule = _discrimination(y, score, patients, threshold=threshold, resamples=resamples, seed=seed)
    by_patient = patient_maximum(patients, y, score)
    patient = None
    if by_patient.label.size < y.size and 0 < by_patient.label.sum() < by_patient.label.size:
        patient = _discrimination(
            by_patient.label, by_patient.score, None, threshold=threshold, resamples=resamples, seed=seed
        )
    comparison = _compared(predictions, other, resamples=resamples, seed=seed) if other else None
    folds = _folds(predictions)
    over_folds = t_interval(list(folds.values())) if len(folds) > 1 else None
    return Classification(
        nodule, patient, folds, over_folds, comparison, predictions.split_hash, seed, _warnings(predictions, nodule)
    )


def summary_lines(result: Classification) -> list[str]:
    """What a person reads in the terminal."""
    lines = [f"warning: {warning}" for warning in result.warnings]
    for name, part in (("nodules", result.nodule), ("patients", result.patient)):
        if part is None:
            continue
        counts = part.at_threshold
        lines.append(f"{part.rows:,} {name}, {part.positives:,} malignant")
        lines += [f"  {area} {between(value)}" for area, value in (("AUROC", part.auroc), ("AUPRC", part.auprc))]
        lines += [_at_recall(row) for row in part.at_recalls]
        at = ", ".join(f"{rate} {or_dash(getattr(counts, rate))}" for rate in RATES)
        lines.append(f"  at {counts.threshold:g}: {at}")
        if part.calibration:
            fit = part.calibration
            lines.append(f"  Brier {fit.brier:.3f}, ECE {fit.ece_equal_mass:.3f}, calibration slope {fit.slope:.2f}")
    if result.over_folds:
        mean = result.over_folds
        lines.append(f"mean of {mean.folds} folds: AUROC {mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]")
    if result.comparison:
        auroc_less, p = result.comparison.auroc, result.comparison.auroc.p_value
        lines.append(
            f"AUROC less that of {result.comparison.path}: {between(auroc_less.difference)}, p {p:.3g} "
            f"(DeLong, nodules as if independent: p {result.comparison.delong.p_value:.3g})"
        )
    drawn = result.nodule.auroc
    lines.append(f"intervals: {100 * drawn.level:g} %, {drawn.resamples:,} resamples of patients, seed {result.seed}")
    return lines


def between(found: Interval) -> str:
    """A value with its interval, as it is quoted: ``0.901 [0.843, 0.950]``."""
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def or_dash(value: float | None) -> str:
    """A number as it is quoted, a dash where there is none: a precision where nothing was called."""
    return "–" if value is None or np.isnan(value) else f"{value:.3f}"


def to_json(result: Classification, predictions: Predictions) -> dict[str, Any]:
    """The result as plain JSON values, files by name and hash; None for a rate without cases to rest on."""
    drawn = result.nodule.auroc
    files = dict(predictions.files)
    if result.comparison and "predictions" in result.comparison.files:
        files["other"] = result.comparison.files["predictions"]
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "program": "spicula",
        "version": __version__,
        "inputs": {name: asdict(facts) for name, facts in files.items()},
        "columns": {"score": predictions.columns[0], "label": predictions.columns[1]},
        "nodule": _discrimination_json(result.nodule),
        "patient": _discrimination_json(result.patient) if result.patient else None,
        "folds": dict(result.folds),
        "over_folds": asdict(result.over_folds) if result.over_folds else None,
        "comparison": None,
        "split_hash": result.split_hash,
        "level": drawn.level,
        "resamples": drawn.resamples,
        "seed": result.seed,
        "failed_rows": predictions.failed,
        "unpredicted": predictions.unpredicted,
        "warnings": list(result.warnings),
    }
    if result.comparison:
        record["comparison"] = {
            "predictions": result.comparison.path.name,
            "auroc": _difference_json(result.comparison.auroc),
            "auprc": _difference_json(result.comparison.auprc),
            "delong_p": result.comparison.delong.p_value,
        }
    return record


def _check_enough(predictions: Predictions) -> None:
    """Name the file that has one class only or too few patients."""
    rows, positives = predictions.label.size, int(predictions.label.sum())
    if positives in (0, rows):
        raise InputError(
            f"{predictions.path}: labels of column {predictions.columns[1]}",
            got=f"{rows} rows of class {int(positives > 0)} only", expected="both classes",
        )  # fmt: skip
    patients = np.unique(predictions.patient).size
    if patients < FEWEST_PATIENTS:
        raise InputError(
            f"{predictions.path}: patients (pid)", got=patients, expected=f"{FEWEST_PATIENTS} or more to draw from",
            hint="an interval over so few says nothing",
        )  # fmt: skip


def _at_recall(row: AtRecall) -> str:
    counts = row.counts
    return (
        f"  at recall {row.target:g} ({or_dash(counts.sensitivity)}): false positive rate "
        f"{or_dash(counts.false_positive_rate)}, precision {or_dash(counts.precision)}"
    )


def _discrimination(
    y: NDArray[np.bool_], score: FloatArray, patients: NDArray[np.str_] | None, *, threshold: float, resamples: int,
    seed: int,
) -> Discrimination:  # fmt: skip
    calibration = None
    if score.min() >= 0 and score.max() <= 1:
        line = calibration_line(y, score)
        calibration = Calibration(
            brier(y, score).score, expected_calibration_error(y, score),
            expected_calibration_error(y, score, mass="by_width"), line.slope, line.intercept, line.in_the_large,
        )  # fmt: skip
    areas = [bootstrap_interval(area, (y, score), patients, resamples=resamples, seed=seed) for area in (auroc, auprc)]
    return Discrimination(
        y.size, int(y.sum()), y.size if patients is None else np.unique(patients).size, areas[0], areas[1],
        counts_at(y, score, threshold=threshold), at_recalls(y, score), calibration,
    )  # fmt: skip


def _compared(predictions: Predictions, other: Predictions, *, resamples: int, seed: int) -> Comparison:
    place = {key: n for n, key in enumerate(zip(other.patient, other.nodule, strict=True))}
    keys = list(zip(predictions.patient, predictions.nodule, strict=True))
    absent = [key for key in keys if key not in place]
    if absent or len(place) != len(keys):
        pid, nodule = absent[0] if absent else next(key for key in place if key not in set(keys))
        raise InputError(
            f"{other.path}", got=f"other nodules than {predictions.path} (pid {str(pid)!r}, nodule {str(nodule)!r})",
            expected="the same nodules",
        )  # fmt: skip
    order = [place[key] for key in keys]
    second, differs = other.score[order], np.flatnonzero(other.label[order] != predictions.label)
    if differs.size:
        pid, nodule = keys[differs[0]]
        raise InputError(
            f"{other.path}: pid {str(pid)!r}, nodule {str(nodule)!r}",
            got=f"another label than in {predictions.path} ({differs.size} of {len(keys)} nodules have one)",
            expected="the same labels", hint="--truth gives both files the labels of one",
        )  # fmt: skip
    y, first, groups = predictions.label, predictions.score, predictions.patient
    areas = [
        bootstrap_difference(area, y, first, second, groups, resamples=resamples, seed=seed) for area in (auroc, auprc)
    ]
    return Comparison(other.path, areas[0], areas[1], delong(y, first, second), other.files)


def _folds(predictions: Predictions) -> dict[str, float]:
    found: dict[str, float] = {}
    for fold in [] if predictions.fold is None else sorted(set(predictions.fold.tolist())):
        rows = predictions.fold == fold
        if 0 < predictions.label[rows].sum() < rows.sum():
            found[fold] = auroc(predictions.label[rows], predictions.score[rows])
    return found


def _warnings(predictions: Predictions, nodule: Discrimination) -> tuple[str, ...]:
    found = []
    if predictions.failed:
        found.append(f"{predictions.failed} rows without a score were left out: the numbers are of the others only.")
    if predictions.unpredicted:
        found.append(
            f"{predictions.unpredicted} nodules with a label have no prediction: the numbers are of the others only."
        )
    if nodule.calibration is None:
        found.append("The scores are not all between 0 and 1: they are no probabilities, and calibration is not given.")
    if nodule.auroc.value < 0.5:
        found.append("AUROC below one half: are the scores or the labels the wrong way round?")
    if np.unique(predictions.score).size <= 2:
        found.append("The scores have two values at most: calls instead of probabilities give a curve of one point.")
    if predictions.fold is not None:
        silent = sorted(set(predictions.fold.tolist()) - set(_folds(predictions)))
        if silent:
            some = ", ".join(map(repr, silent[:3]))
            found.append(f"{len(silent)} folds have one class only ({some}): they are not in the mean of folds.")
        apart = {pid: set(predictions.fold[predictions.patient == pid].tolist()) for pid in set(predictions.patient)}
        torn = sorted(str(pid) for pid, folds in apart.items() if len(folds) > 1)
        if torn:
            some = ", ".join(torn[:3])
            found.append(f"{len(torn)} patients are in more than one fold ({some}): train and test share patients.")
    return tuple(found)


def _discrimination_json(found: Discrimination) -> dict[str, Any]:
    counts = found.at_threshold
    return {
        "rows": found.rows,
        "positives": found.positives,
        "patients": found.patients,
        "auroc": _interval_json(found.auroc),
        "auprc": _interval_json(found.auprc),
        "threshold": counts.threshold,
        **{name: _or_none(getattr(counts, name)) for name in RATES},
        "at_recall": [
            {
                "target": row.target,
                "recall": row.counts.sensitivity,
                "threshold": row.counts.threshold,
                "false_positive_rate": row.counts.false_positive_rate,
                "precision": row.counts.precision,
                "loose_precision": row.loose_precision,
            }
            for row in found.at_recalls
        ],
        "calibration": None if found.calibration is None else asdict(found.calibration),
    }


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _interval_json(found: Interval) -> dict[str, Any]:
    return {
        "value": found.value, "low": found.low, "high": found.high, "level": found.level, "resamples": found.resamples,
    }  # fmt: skip


def _difference_json(found: Difference) -> dict[str, Any]:
    return {"a": found.a, "b": found.b, **_interval_json(found.difference), "p_value": found.p_value}
