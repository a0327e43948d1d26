"""How well scores tell two classes apart: areas under curves, and counts at a threshold.

Every function takes ``y`` (0 or 1, 1 the class that is looked for) and ``score`` (higher means more of class 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.errors import InputError

FloatArray = NDArray[np.float64]
Ties = Literal["fewest", "most"]


def checked(y: ArrayLike, score: ArrayLike, *, both_classes: bool = True) -> tuple[NDArray[np.bool_], FloatArray]:
    """Turn labels and scores into arrays, or say what is wrong with them.

    Args:
        y: ``[n]`` labels, 0 or 1.
        score: ``[n]`` finite numbers.
        both_classes: Refuse labels of one class only.

    Returns:
        bool ``[n]`` labels and float64 ``[n]`` scores.

    Raises:
        InputError: Lengths differ, nothing is given, a score is not finite, a label is neither 0 nor 1, or (where
            asked) there is one class only.
    """
    labels = np.asarray(y, dtype=np.float64)
    scores = np.asarray(score, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape or labels.size == 0:
        raise InputError(
            "labels and scores", got=f"shapes {labels.shape} and {scores.shape}", expected="two [n], n > 0"
        )
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise InputError(f"score of row {row}", got=scores[row], expected="a finite number")
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if wrong.size:
        raise InputError(f"label of row {wrong[0]}", got=labels[wrong[0]], expected="0 or 1")
    positive = labels == 1
    if both_classes and positive.all() | (~positive).all():
        raise InputError("labels", got=f"{labels.size} rows of class {int(labels[0])} only", expected="both classes")
    return positive, scores


def tie_ends(score: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rank scores and find where runs of equal ones end: the points of every curve.

    Args:
        score: float64 ``[n]``; n may be 0.

    Returns:
        ``[n]`` order of falling scores, equal ones as they were; and, in that order, the last place of each run.
    """
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    return order, np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), ranked.size - 1)[: ranked.size]


def auroc(y: ArrayLike, score: ArrayLike) -> float:
    """Area under the receiver operating characteristic: the chance that a positive scores above a negative.

    Ties count one half.

    Args:
        y: ``[n]`` labels, 0 or 1.
        score: ``[n]`` scores.

    Returns:
        0 to 1.

    Raises:
        InputError: See :func:`checked`.

    References:
        Hanley, McNeil 1982, doi:10.1148/radiology.143.1.7063747.

    Example:
        >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        0.75
    """
    positive, scores = checked(y, score)
    return float(weighted_auroc(np.ones((1, scores.size)), positive, scores)[0])


def auprc(y: ArrayLike, score: ArrayLike) -> float:
    """Area under the precision-recall curve, step-wise (average precision, nothing interpolated).

    The sum over thresholds of (recall gained) times (precision there); rows of equal score enter together.

    Args:
        y: ``[n]`` labels, 0 or 1.
        score: ``[n]`` scores.

    Returns:
        0 to 1; a score without information gives the prevalence.

    Raises:
        InputError: See :func:`checked`.

    References:
        Davis, Goadrich 2006, doi:10.1145/1143844.1143874 (why the curve is not interpolated linearly).

    Example:
        >>> round(auprc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
        0.8333
    """
    positive, scores = checked(y, score)
    return float(weighted_auprc(np.ones((1, scores.size)), positive, scores)[0])


def weighted_auroc(weights: NDArray[np.generic], y: ArrayLike, score: ArrayLike) -> FloatArray:
    """AUROC under many sets of row weights at once (how often a bootstrap drew each row).

    Args:
        weights: ``[b, n]``, not negative.
        y: ``[n]`` labels, 0 or 1.
        score: ``[n]`` scores.

    Returns:
        float64 ``[b]``; NaN where a set of weights leaves one class only.
    """
    positive, scores = checked(y, score)
    order, ends = tie_ends(scores)
    ranked = positive[order]
    # Rows first: a resample is a column, so that every step runs along whole columns at once.
    rows = np.asarray(weights, dtype=np.float64).T[order]
    true, false = _running(rows[ranked]), rows[~ranked]
    upto = np.cumsum(ranked)[ends]
    tie = np.searchsorted(ends, np.flatnonzero(~ranked))
    above, level = np.append(0, upto)[tie], upto[tie]
    beaten = true[level] if np.array_equal(above, level) else (true[above] + true[level]) / 2
    area = np.einsum("nb,nb->b", false, beaten)
    pairs = true[-1] * false.sum(axis=0)
    return np.asarray(np.divide(area, pairs, out=np.full(area.shape, np.nan), where=pairs > 0))


def weighted_auprc(weights: NDArray[np.generic], y: ArrayLike, score: ArrayLike) -> FloatArray:
    """Step-wise AUPRC under many sets of row weights at once; as :func:`weighted_auroc`."""
    positive, scores = checked(y, score)
    order, ends = tie_ends(scores)
    ranked = positive[order]
    rows = np.asarray(weights, dtype=np.float64).T[order]
    true, called = _running(rows[ranked]), _running(rows)
    tie = np.searchsorted(ends, np.flatnonzero(ranked))
    hits, calls = true[np.cumsum(ranked)[ends][tie]], called[ends[tie] + 1]
    precision = np.divide(hits, calls, out=np.zeros(hits.shape), where=calls > 0)
    area = np.einsum("nb,nb->b", rows[ranked], precision)
    total = true[-1]
    defined = (total > 0) & (called[-1] > total)
    return np.asarray(np.divide(area, total, out=np.full(area.shape, np.nan), where=defined))


def _running(rows: FloatArray) -> FloatArray:
    """Sum of the first k rows, for k from 0 to all: ``[n, b]`` -> ``[n + 1, b]``."""
    sums = np.zeros((rows.shape[0] + 1, rows.shape[1]))
    np.cumsum(rows, axis=0, out=sums[1:])
    return sums


@dataclass(frozen=True, slots=True)
class Curve:
    """Counts at every threshold, the highest first.

    Args:
        threshold: float64 ``[k]``, falling; a row is called positive where its score is at least this.
        true_positives: Positives called, at each threshold.
        false_positives: Negatives called, at each threshold.
        positives: Number of positives in all.
        negatives: Number of negatives in all.
    """

    threshold: FloatArray
    true_positives: NDArray[np.intp]
    false_positives: NDArray[np.intp]
    positives: int
    negatives: int

    @property
    def recall(self) -> FloatArray:
        """Sensitivity at each threshold."""
        return np.asarray(self.true_positives / self.positives)

    @property
    def false_positive_rate(self) -> FloatArray:
        """One less the specificity, at each threshold."""
        return np.asarray(self.false_positives / self.negatives)

    @property
    def precision(self) -> FloatArray:
        """Share of the called that are positive, at each threshold."""
        return np.asarray(self.true_positives / (self.true_positives + self.false_positives))


def curve(y: ArrayLike, score: ArrayLike) -> Curve:
    """Count true and false positives at each distinct score (for ROC and precision-recall curves).

    Args:
        y: ``[n]`` labels, 0 or 1.
        score: ``[n]`` scores.

    Returns:
        One point for each distinct score; the point (0, 0) is not among them.

    Raises:
        InputError: See :func:`checked`.
    """
    positive, scores = checked(y, score)
    order, ends = tie_ends(scores)
    true = np.cumsum(positive[order], dtype=np.intp)[ends]
    return Curve(scores[order][ends], true, ends + 1 - true, int(positive.sum()), int((~positive).sum()))


@dataclass(frozen=True, slots=True)
class Counts:
    """What calling at one threshold gives. A rate without cases to rest on is NaN.

    Args:
        threshold: A row is called positive where its score is at least this.
        true_positives: Positives called.
        false_positives: Negatives called.
        true_negatives: Negatives not called.
        false_negatives: Positives not called.
    """

    threshold: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def sensitivity(self) -> float:
        """Share of the positives that are called (recall)."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float:
        """Share of the negatives that are not called."""
        return _ratio(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def false_positive_rate(self) -> float:
        """Share of the negatives that are called."""
        return _ratio(self.false_positives, self.true_negatives + self.false_positives)

    @property
    def precision(self) -> float:
        """Share of the called that are positive."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def negative_predictive_value(self) -> float:
        """Share of those not called that are negative."""
        return _ratio(self.true_negatives, self.true_negatives + self.false_negatives)

    @property
    def accuracy(self) -> float:
        """Share of all rows that are called rightly."""
        right = self.true_positives + self.true_negatives
        return _ratio(right, right + self.false_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and sensitivity."""
        return _ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def counts_at(y: ArrayLike, score: ArrayLike, *, threshold: float = 0.5) -> Counts:
    """Count right and wrong calls at one threshold.

    Args:
        y: ``[n]`` labels, 0 or 1.
        score: ``[n]`` scores.
        threshold: A row is called positive where its score is at least this.

    Returns:
        The four counts and the rates made of them.

    Raises:
        InputError: See :func:`checked`; one class alone is allowed.

    Example:
        >>> counts = counts_at([0, 0, 1, 1], [0.1, 0.6, 0.35, 0.8])
        >>> counts.sensitivity, counts.specificity, counts.accuracy
        (0.5, 0.5, 0.5)
    """
    positive, scores = checked(y, score, both_classes=False)
    called = scores >= threshold
    return Counts(
        float(threshold),
        int((called & positive).sum()),
        int((called & ~positive).sum()),
        int((~called & ~positive).sum()),
        int((~called & positive).sum()),
    )


def counts_at_recall(y: ArrayLike, score: ArrayLike, *, recall: float, ties: Ties = "fewest") -> Counts:
    """Count calls at the threshold whose recall is nearest to a target.

    Of two recalls equally near the lower one is taken. Several thresholds often share a recall, since lowering the
    threshold past a negative only adds a false call; ``ties`` says which of them.

    Args:
        y: ``[n]`` labels, 0 or 1.
        score: ``[n]`` scores.
        recall: The target, 0 to 1.
        ties: ``"fewest"`` false calls (the highest threshold) or ``"most"`` (the lowest).

    Returns:
        As :func:`counts_at`.

    Raises:
        InputError: See :func:`checked`, or the target is outside 0 to 1.
    """
    if not 0 <= recall <= 1:
        raise InputError("recall", got=recall, expected="0 to 1")
    points = curve(y, score)
    distance = np.abs(points.recall - recall).round(12)  # 0.6 - 0.5 and 0.5 - 0.4 are the same distance
    first = int(np.argmin(distance))
    same = np.flatnonzero(points.true_positives == points.true_positives[first])
    return counts_at(y, score, threshold=float(points.threshold[same[0 if ties == "fewest" else -1]]))


@dataclass(frozen=True, slots=True)
class AtRecall:
    """What a target recall costs.

    Args:
        target: The recall that was asked for.
        counts: At the threshold of the nearest recall with the fewest false calls: FPR and precision belong together.
        loose_precision: Precision at the same recall with the most false calls. Papers that read the FPR off a ROC
            curve and the precision off a precision-recall curve (whose points run the other way) print this one
            beside the FPR of ``counts``, two thresholds in one row.
    """

    target: float
    counts: Counts
    loose_precision: float


def at_recalls(
    y: ArrayLike, score: ArrayLike, *, recalls: Sequence[float] = (0.6, 0.7, 0.8, 0.9)
) -> tuple[AtRecall, ...]:
    """False positive rate and precision at the recalls nearest to some targets, as tables of risk models give them.

    Args:
        y: ``[n]`` labels, 0 or 1.
        score: ``[n]`` scores.
        recalls: The targets.

    Returns:
        One row for each target.

    Raises:
        InputError: As :func:`counts_at_recall`.

    References:
        Zhuang et al. 2025, arXiv:2504.21344, table 3.

    Example:
        >>> row, = at_recalls([1, 1, 0, 0], [0.9, 0.6, 0.7, 0.1], recalls=(0.5,))
        >>> row.counts.false_positive_rate, row.counts.precision, row.loose_precision
        (0.0, 1.0, 0.5)
    """
    return tuple(
        AtRecall(
            float(recall),
            counts_at_recall(y, score, recall=recall),
            counts_at_recall(y, score, recall=recall, ties="most").precision,
        )
        for recall in recalls
    )
