"""From nodules to patients: the risk of one is that of the worst nodule; folds deal patients, never nodules."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray, checked


@dataclass(frozen=True, slots=True, eq=False)
class PatientScores:
    """One row a patient, in the order in which the patients first appear.

    Args:
        patient: ``[p]`` ids, as they were given.
        label: bool ``[p]``: any nodule of the patient is of class 1.
        score: float64 ``[p]``: the highest of the patient's nodules.
        row: ``[p]`` the nodule row that the score is of (the first of equal ones).
        nodules: ``[p]`` how many rows the patient has.
    """

    patient: NDArray[np.generic]
    label: NDArray[np.bool_]
    score: FloatArray
    row: NDArray[np.intp]
    nodules: NDArray[np.intp]


def patient_maximum(patients: ArrayLike, y: ArrayLike, score: ArrayLike) -> PatientScores:
    """Rate each patient by the highest score among the nodules.

    The label is that of the patient, not of the nodule that scored highest: a patient whose cancer sits in another
    nodule counts as found.

    Args:
        patients: ``[n]`` patient of each nodule; ids are compared as they are, so ``"007"`` is not ``7``.
        y: ``[n]`` labels of the nodules, 0 or 1.
        score: ``[n]`` scores.

    Returns:
        Labels and scores of the patients, ready for the metrics and for a bootstrap without groups.

    Raises:
        InputError: See :func:`spicula.metrics.classification.checked` (one class alone is allowed), or ids that are
            not one a row, or are missing.

    References:
        Zhuang et al. 2025, arXiv:2504.21344, section 3.3.2.

    Example:
        >>> found = patient_maximum(["b", "a", "b"], [0, 0, 1], [0.7, 0.2, 0.4])
        >>> found.patient.tolist(), found.label.tolist(), found.score.tolist()
        (['b', 'a'], [True, False], [0.7, 0.2])
    """
    positive, scores = checked(y, score, both_classes=False)
    ids = np.asarray(patients)
    if ids.shape != scores.shape:
        raise InputError("patients", got=f"shape {ids.shape}", expected=f"{scores.shape}, one id a row")
    missing = np.flatnonzero([not str(one).strip() or str(one) in ("None", "nan") for one in ids])
    if missing.size:
        raise InputError(f"patient of row {missing[0]}", got=repr(ids[missing[0]].item()), expected="an id")
    _, first, inverse, nodules = np.unique(ids, return_index=True, return_inverse=True, return_counts=True)
    code = np.argsort(np.argsort(first))[inverse.reshape(-1)]
    place = np.argsort(first)
    # Within a patient the highest score first, of equal ones the earliest row.
    order = np.lexsort((np.arange(scores.size), -scores, code))
    top = order[np.append(0, np.cumsum(nodules[place]))[:-1]]
    label = np.bincount(code, weights=positive) > 0
    return PatientScores(ids[np.sort(first)], label, scores[top], top, nodules[place])


def deal_folds(
    patients: Sequence[str] | NDArray[np.str_], positive: ArrayLike, *, folds: int = 5, seed: int = 0
) -> NDArray[np.intp]:
    """Fold of each nodule: patients whole, positive nodules spread evenly, the same on every machine.

    Patients are ordered by their counts of positive and of all nodules, ties by a seeded hash of the id, and dealt out
    in turn (forth and back).

    Args:
        patients: ``[n]`` patient of each nodule.
        positive: ``[n]`` labels, 0 or 1.
        folds: How many.
        seed: Changes the order of ties.

    Returns:
        ``[n]`` numbers, 0 to ``folds - 1``.

    Raises:
        InputError: Fewer patients than folds.

    Example:
        >>> deal_folds(["a", "b", "a", "c"], [1, 0, 0, 1], folds=3).tolist()
        [0, 2, 0, 1]
    """
    names = [str(patient) for patient in patients]
    counts: dict[str, list[float]] = {}
    for name, label in zip(names, np.asarray(positive, dtype=np.float64).tolist(), strict=True):
        count = counts.setdefault(name, [0.0, 0.0])
        count[0] += label
        count[1] += 1
    if len(counts) < folds:
        raise InputError("patients", got=len(counts), expected=f"{folds} or more, one for each fold")

    def order(name: str) -> tuple[float, float, str]:
        return -counts[name][0], -counts[name][1], hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()

    dealt = [*range(folds), *reversed(range(folds))]
    fold_of = {name: dealt[rank % len(dealt)] for rank, name in enumerate(sorted(counts, key=order))}
    return np.array([fold_of[name] for name in names], dtype=np.intp)
