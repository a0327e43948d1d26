"""Predictions of a classifier: labels inverted, one class, labels in place of probabilities, a mean that cannot be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, bdtrc

from spicula.metrics.classification import auroc
from spicula.metrics.doctor.complaint import Complaint, counted, some_of

FloatArray: TypeAlias = NDArray[np.float64]

FEW_PATIENTS = 10
"""Fewer cannot give an interval over patients."""

_SURE = 1e-3
_FAR = 3.5  # standard errors below one half that chance does not explain


def probability_complaints(probability: ArrayLike) -> tuple[Complaint, ...]:
    """Whether numbers can be probabilities.

    Args:
        probability: ``[n]`` finite.

    Returns:
        Percent, logits, predicted labels, one constant, few different values.
    """
    p = np.asarray(probability, dtype=np.float64)
    if p.size == 0:
        return ()
    low, high, distinct = float(p.min()), float(p.max()), np.unique(p).size
    evidence = {"low": low, "high": high, "distinct": distinct}
    if low < 0 or high > 1:
        percent = low >= 0 and high <= 100
        outside = int(((p < 0) | (p > 1)).sum())
        what, mend = ("percent", "divide by 100") if percent else ("logits", "take 1 / (1 + exp(-value))")
        return (Complaint(
            f"probabilities.{what}", "error",
            f"{outside:,} of {p.size:,} probabilities lie outside 0..1 ({low:g} to {high:g}): {what}",
            f"{mend} before writing the column", evidence,
        ),)  # fmt: skip
    if distinct == 1 and p.size > 1:
        return (Complaint(
            "probabilities.constant", "error", f"all {p.size:,} probabilities are {low:g}: nothing can be ranked",
            "write the model's own output for each row", evidence,
        ),)  # fmt: skip
    if p.size > 2 and set(np.unique(p)) <= {0.0, 1.0}:
        return (Complaint(
            "probabilities.labels", "error",
            f"all {p.size:,} probabilities are 0 or 1: predicted labels, whose AUROC is that of one threshold",
            "write the probability before the threshold (scikit-learn: predict_proba(...)[:, 1])", evidence,
        ),)  # fmt: skip
    if p.size >= 50 and distinct < 10:
        return (Complaint(
            "probabilities.tied", "warning", f"{p.size:,} rows share {distinct} different probabilities",
            "write the probabilities with all their digits", evidence,
        ),)  # fmt: skip
    return ()


def label_complaints(
    label: ArrayLike, probability: ArrayLike, *, patients: Sequence[str] | None = None
) -> tuple[Complaint, ...]:
    """What is wrong with labels, and with probabilities beside them.

    Args:
        label: ``[n]`` finite numbers.
        probability: ``[n]`` finite.
        patients: ``[n]`` patient of each row, where it is known.

    Returns:
        Labels that are not 0 or 1, one class, inverted labels, few patients, a prevalence that cannot be met.
    """
    y, p = np.asarray(label, dtype=np.float64), np.asarray(probability, dtype=np.float64)
    found = list(_few_patients(patients)) if patients is not None else []
    classes = np.unique(y)
    if not set(classes.tolist()) <= {0.0, 1.0}:
        shown = ", ".join(f"{value:g}" for value in classes[:8])
        found.append(Complaint(
            "labels.not-binary", "error", f"the labels are {shown}, not 0 and 1",
            "write 1 for malignant and 0 for benign (ratings 1-5: decide on a threshold and say which)",
            {"classes": [f"{value:g}" for value in classes[:8]]},
        ))  # fmt: skip
        return tuple(found)
    if classes.size < 2:
        found.append(Complaint(
            "labels.one-class", "error", f"all {y.size:,} labels are {classes[0]:g}: no AUROC can be had",
            "give rows of both classes", {"rows": y.size, "class": float(classes[0])},
        ))  # fmt: skip
        return tuple(found)
    return (*found, *_inverted(y, p), *_prevalence(y, p))


def _few_patients(patients: Sequence[str]) -> tuple[Complaint, ...]:
    n = len(set(patients))
    if n >= FEW_PATIENTS:
        return ()
    return (Complaint(
        "patients.few", "error", f"the rows are of {counted(n, 'patient')}: too few for an interval over patients",
        f"give the predictions of {FEW_PATIENTS} patients or more", {"patients": n},
    ),)  # fmt: skip


def _inverted(y: FloatArray, p: FloatArray) -> tuple[Complaint, ...]:
    area = auroc(y, p)
    n1, n0 = int(y.sum()), int((1 - y).sum())
    error = float(np.sqrt((n1 + n0 + 1) / (12 * n1 * n0)))
    if area >= 0.5 - _FAR * error:
        return ()
    return (Complaint(
        "labels.inverted", "error",
        f"the AUROC is {area:.3f}, {(0.5 - area) / error:.1f} standard errors below one half: labels or probabilities "
        "are turned round",
        "write the probability of class 1 (not of class 0), or 1 for the class that is looked for",
        {"auroc": round(area, 4), "auroc_turned": round(1 - area, 4)},
    ),)  # fmt: skip


def _prevalence(y: FloatArray, p: FloatArray) -> tuple[Complaint, ...]:
    """All probabilities above (or below) what the prevalence can be."""
    if p.min() < 0 or p.max() > 1:
        return ()
    positives, n = int(y.sum()), y.size
    low, high, prevalence = float(p.min()), float(p.max()), float(y.mean())
    if low > prevalence and bdtr(positives, n, low) < _SURE:
        said = f"every probability is above {low:.2f}"
    elif high < prevalence and bdtrc(positives - 1, n, high) < _SURE:
        said = f"every probability is below {high:.2f}"
    else:
        return ()
    return (Complaint(
        "probabilities.prevalence", "warning",
        f"{said} (mean {p.mean():.2f}) while {positives:,} of {n:,} rows ({prevalence:.1%}) are of class 1: they "
        "cannot be calibrated as they are; the AUROC stands",
        "calibrate on rows with the prevalence of this set (class weights or a balanced sample shift all of them)",
        {"low": low, "high": high, "mean": float(p.mean()), "prevalence": prevalence},
    ),)  # fmt: skip


def key_complaints(keys: Sequence[str], *, what: str) -> tuple[Complaint, ...]:
    """Nodules that are predicted, or labeled, more than once.

    Args:
        keys: ``[n]`` patient and nodule of each row.
        what: The table.
    """
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if not twice:
        return ()
    return (Complaint(
        "nodules.duplicated", "error",
        f"{len(twice):,} of {len(set(keys)):,} nodules of the {what} are there more than once ({some_of(twice)})",
        "write each nodule once, or name the repeats (folds, models) in a column of their own and score them apart",
        {"duplicated": len(twice), "examples": twice[:5]},
    ),)  # fmt: skip
