"""Scores of a classifier for places that are given, one prediction for each lesion (how LUNA25 is scored)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.errors import InputError
from spicula.metrics.bootstrap import FEWEST_PATIENTS, Interval, bootstrap_interval
from spicula.metrics.classification import FloatArray, auprc, auroc
from spicula.metrics.hits import Points

TOLERANCE_MM = 1.0
"""How far a predicted point may lie from its nodule: the points are given, so that rounding alone moves them."""


@dataclass(frozen=True, slots=True, eq=False)
class GivenPointsScore:
    """How well the given lesions are told apart.

    Args:
        auroc: Over lesions, with its interval over patients.
        auprc: Over lesions, step-wise, with its interval.
        probability: float64 ``[lesions]`` of each, in the order of the lesions.
        distance_mm: float64 ``[lesions]`` of the point that gave it.
    """

    auroc: Interval
    auprc: Interval
    probability: FloatArray
    distance_mm: FloatArray


def pair_points(predictions: Points, lesions: Points, *, tolerance_mm: float = TOLERANCE_MM) -> NDArray[np.intp]:
    """Find the prediction of each lesion: in the same scan, the nearest, within a tolerance, used once.

    Args:
        predictions: Points with probabilities.
        lesions: Points that were given.
        tolerance_mm: Largest distance, itself included.

    Returns:
        ``[lesions]`` row of each lesion's prediction.

    Raises:
        InputError: A lesion without a prediction, two that claim the same one, or a prediction that belongs to no
            lesion; each named with its scan and place.

    Example:
        >>> given = Points(["a", "a", "b"], [[0, 0, 0], [9, 0, 0], [1, 2, 3]], [0, 0, 0])
        >>> told = Points(["b", "a", "a"], [[1, 2, 3], [9, 0, 0], [0, 0, 0.4]], [0.7, 0.2, 0.9])
        >>> pair_points(told, given).tolist()
        [2, 1, 0]
    """
    if not tolerance_mm >= 0:
        raise InputError("tolerance", got=tolerance_mm, expected="millimeters, 0 or more")
    rows = np.full(lesions.scan.size, -1, dtype=np.intp)
    owner: dict[int, int] = {}
    for lesion in range(lesions.scan.size):
        same = np.flatnonzero(predictions.scan == lesions.scan[lesion])
        apart = np.linalg.norm(predictions.center_xyz_mm[same] - lesions.center_xyz_mm[lesion], axis=1)
        if not same.size or apart.min() > tolerance_mm:
            nearest = f"the nearest {apart.min():.1f} mm away" if same.size else "none in this scan"
            raise InputError(
                f"lesion {_named(lesions, lesion)}: no prediction",
                got=nearest,
                expected=f"one within {tolerance_mm} mm",
                hint="every lesion needs a prediction; are coordinates LPS millimeters?",
            )
        best = int(same[np.argmin(apart)])
        if best in owner:
            raise InputError(
                f"lesion {_named(lesions, lesion)}",
                got=f"the same nearest prediction as {_named(lesions, owner[best])}",
                expected="one of its own",
                hint="give one prediction for each lesion, or a smaller tolerance",
            )
        owner[best], rows[lesion] = lesion, best
    surplus = np.setdiff1d(np.arange(predictions.scan.size), rows)
    if surplus.size:
        raise InputError(
            f"prediction {_named(predictions, int(surplus[0]))}", got=f"{surplus.size} that belong to no lesion",
            expected="one for each lesion", hint="was a lesion predicted twice?",
        )  # fmt: skip
    return rows


def given_points_score(
    predictions: Points,
    lesions: Points,
    malignant: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    fewest: int = FEWEST_PATIENTS,
) -> GivenPointsScore:
    """Lesion-level areas under the curves on given points.

    Args:
        predictions: Points with probabilities of malignancy.
        lesions: Points that were given; their values are not used.
        malignant: ``[lesions]`` 0 or 1.
        groups: ``[lesions]`` patient of each lesion, drawn whole; None draws scans.
        tolerance_mm: Largest distance between a prediction and its lesion.
        resamples: Of the bootstrap.
        level: Coverage that is aimed at.
        seed: Of the draws.
        fewest: Refuse fewer patients than this.

    Returns:
        The score.

    Raises:
        InputError: As :func:`pair_points`, one class only, or too few patients.
    """
    rows = pair_points(predictions, lesions, tolerance_mm=tolerance_mm)
    probability = predictions.value[rows]
    apart = np.linalg.norm(predictions.center_xyz_mm[rows] - lesions.center_xyz_mm, axis=1)
    columns = (np.asarray(malignant), probability)
    owner = lesions.scan if groups is None else np.asarray(groups)
    first, second = (
        bootstrap_interval(statistic, columns, owner, resamples=resamples, level=level, seed=seed, fewest=fewest)
        for statistic in (auroc, auprc)
    )
    return GivenPointsScore(first, second, probability, apart)


def _named(points: Points, row: int) -> str:
    place = ", ".join(f"{value:.1f}" for value in points.center_xyz_mm[row])
    return f"{points.scan[row]} ({place})"
