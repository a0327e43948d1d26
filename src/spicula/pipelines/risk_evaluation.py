"""How good out-of-fold predictions of malignancy and traits are, with intervals over patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.metrics.bootstrap import Difference, Interval, bootstrap_difference, bootstrap_interval
from spicula.metrics.calibration import brier, calibration_line, expected_calibration_error
from spicula.metrics.classification import auroc

Array = NDArray[np.float64]


def evaluate(
    labels: Mapping[str, ArrayLike],
    probabilities: Mapping[str, ArrayLike],
    *,
    scores: Mapping[str, ArrayLike],
    fold_of: NDArray[np.intp],
    patients: NDArray[np.str_],
    diameter_mm: ArrayLike,
    rating: ArrayLike,
    resamples: int = 2000,
) -> dict[str, Any]:
    """Judge out-of-fold predictions.

    Args:
        labels: By target, 0 or 1 for each nodule.
        probabilities: By target, of each nodule by a model that did not learn from its patient.
        scores: By target, what ranks the nodules: the same before its calibration, which rises, and so leaves the
            order within a fold, but is another one for each fold.
        fold_of: Fold of each nodule.
        patients: Patient of each nodule, the unit of the bootstrap.
        diameter_mm: The baseline that malignancy is compared with.
        rating: Rounded malignancy rating, 1 to 5; 3 is undecided.
        resamples: Of each bootstrap.

    Returns:
        For each target AUROC of the scores (pooled with a 95 % interval, mean of the folds) and of the calibrated
        probabilities (pooled), and calibration error and Brier score of these; for malignancy also the
        diameter, the paired difference, and the decided subset.
    """
    result: dict[str, Any] = {"nodules": len(fold_of), "patients": len(set(patients.tolist())), "targets": {}}
    for target, truth in labels.items():
        y, p = np.asarray(truth, dtype=np.float64), np.asarray(probabilities[target], dtype=np.float64)
        score = np.asarray(scores[target], dtype=np.float64)
        line = calibration_line(y, p)
        result["targets"][target] = {
            "positives": int(y.sum()),
            "auroc": rounded(bootstrap_interval(auroc, [y, score], patients, resamples=resamples)),
            "auroc_mean_of_folds": round(fold_mean(y, score, fold_of), 4),
            "auroc_of_calibrated": round(auroc(y, p), 4),
            "ece_10_equal_mass": round(expected_calibration_error(y, p), 4),
            "brier": round(brier(y, p).score, 4),
            "calibration_slope": round(line.slope, 3),
            "calibration_in_the_large": round(line.in_the_large, 3),
        }
    y = np.asarray(labels["malignancy"], dtype=np.float64)
    score = np.asarray(scores["malignancy"], dtype=np.float64)
    diameter = np.asarray(diameter_mm, dtype=np.float64)
    result["diameter_alone"] = {
        "auroc": round(auroc(y, diameter), 4),
        "auroc_mean_of_folds": round(fold_mean(y, diameter, fold_of), 4),
    }
    result["gain_over_diameter"] = difference(
        bootstrap_difference(auroc, y, score, diameter, patients, resamples=resamples)
    )
    decided = np.asarray(rating) != 3
    result["decided_rating_4_5_or_1_2"] = {"nodules": int(decided.sum())}
    for name, truth in (("rating", np.asarray(rating) > 3), ("label", y > 0)):
        known = truth[decided].astype(np.float64)
        result["decided_rating_4_5_or_1_2"][f"against_the_{name}"] = {
            "auroc": rounded(
                bootstrap_interval(auroc, [known, score[decided]], patients[decided], resamples=resamples)
            ),
            "diameter_alone": round(auroc(known, diameter[decided]), 4),
        }
    return result


def fold_mean(y: Array, score: Array, fold_of: NDArray[np.intp]) -> float:
    """Mean over folds of the AUROC in each; folds of one class are left out."""
    parts = [(y[fold_of == k], score[fold_of == k]) for k in np.unique(fold_of)]
    return float(np.mean([auroc(a, b) for a, b in parts if 0 < a.sum() < len(a)]))


def rounded(interval: Interval) -> dict[str, float]:
    """Value and ends of an interval, four places."""
    return {"value": round(interval.value, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}


def difference(found: Difference) -> dict[str, Any]:
    """A paired difference with its interval and p-value, four places."""
    return {**rounded(found.difference), "p_value": round(asdict(found)["p_value"], 4)}
