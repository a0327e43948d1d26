"""What a printed number says of the counts behind it: pure arithmetic on rounded values.

A number printed with d places stands for anything within half a unit of its last place, whichever way a tie was
rounded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

_SLACK = 1e-9


def half_unit(decimals: int) -> float:
    """Half a unit of the last place printed."""
    return 0.5 * 10.0**-decimals + _SLACK


def counts_of(value: float, n: int, *, decimals: int = 3) -> range:
    """Whole numbers of n that a printed fraction can stand for.

    Args:
        value: As printed.
        n: Number of cases.
        decimals: Places printed.

    Returns:
        The counts, none where no whole number rounds to it.

    Example:
        >>> list(counts_of(0.034, 145)), list(counts_of(0.092, 143)), list(counts_of(0.092, 142))
        ([5], [], [13])
    """
    reach = half_unit(decimals)
    low, high = math.ceil((value - reach) * n), math.floor((value + reach) * n)
    return range(max(0, low), min(n, high) + 1)


def totals_that_fit(values: Sequence[float], totals: Iterable[int], *, decimals: int = 3) -> list[int]:
    """Totals of which every printed fraction is a whole number.

    Args:
        values: As printed.
        totals: To be tried.
        decimals: Places printed.

    Returns:
        Those that fit.

    Example:
        >>> totals_that_fit([0.035, 0.092, 0.141, 0.331], range(128, 158))
        [142]
    """
    return [n for n in totals if all(counts_of(value, n, decimals=decimals) for value in values)]


def calls_behind(
    precision: float,
    false_positives: Iterable[int],
    n_positive: int,
    *,
    recall: float,
    within: float,
    decimals: int = 3,
) -> list[tuple[int, int]]:
    """True and false positives that give a printed precision.

    Args:
        precision: As printed.
        false_positives: Counts to be tried.
        n_positive: Number of positives.
        recall: Heading of the column.
        within: How many positives the recall may be off it.
        decimals: Places printed.

    Returns:
        Pairs (true, false), the nearest recall first.

    Example:
        >>> calls_behind(0.618, [21], 43, recall=0.8, within=1.0)
        [(34, 21)]
        >>> calls_behind(0.812, [5], 43, recall=0.6, within=1.0)
        []
    """
    aim, reach = recall * n_positive, half_unit(decimals)
    low, high = max(1, math.ceil(aim - within - _SLACK)), min(n_positive, math.floor(aim + within + _SLACK))
    found = [
        (true, false)
        for false in false_positives
        for true in range(low, high + 1)
        if abs(true / (true + false) - precision) <= reach
    ]
    return sorted(found, key=lambda pair: (abs(pair[0] - aim), pair))


def area_can_be(value: float, positives: int, negatives: int, *, decimals: int = 3) -> bool:
    """Whether an AUROC is a whole number of half pairs (a tie counts one half).

    Example:
        >>> area_can_be(0.387, 4, 67), area_can_be(0.387, 4, 247)
        (False, True)
    """
    return bool(counts_of(value, 2 * positives * negatives, decimals=decimals))


def f1_range(precision: float, recall: float, *, decimals: int) -> tuple[float, float]:
    """Least and greatest F1 of a printed precision and recall.

    Example:
        >>> low, high = f1_range(0.9964, 0.9348, decimals=4)
        >>> round(low, 4), round(high, 4)
        (0.9646, 0.9647)
    """
    reach = half_unit(decimals)

    def f1(p: float, r: float) -> float:
        return 2 * p * r / (p + r)

    return f1(precision - reach, recall - reach), f1(min(1, precision + reach), min(1, recall + reach))


def positive_share(accuracy: float, precision: float, recall: float) -> float:
    """Share of positives that an accuracy, a precision and a recall imply together.

    Example:
        >>> round(positive_share(0.9837, 0.9964, 0.9348), 3)
        0.238
    """
    return (1 - accuracy) / ((1 - recall) + recall * (1 - precision) / precision)


def signed_rank_p_values(n: int) -> list[float]:
    """All two-sided p-values that an exact Wilcoxon signed-rank test of n differences without ties can give.

    References:
        Wilcoxon 1945, doi:10.2307/3001968.

    Example:
        >>> signed_rank_p_values(5)[:3]
        [0.0625, 0.125, 0.1875]
    """
    sums = [sum(rank for rank, sign in enumerate(signs, 1) if sign) for signs in itertools.product((0, 1), repeat=n)]
    most = n * (n + 1) // 2
    return sorted({min(1.0, 2 * sum(s <= w for s in sums) / 2**n) for w in range(most // 2 + 1)})


def nemenyi_p_values(models: int, folds: int) -> list[float]:
    """The p-value of Nemenyi's test for each possible difference of two rank sums, 0 first.

    Args:
        models: Number of models that are ranked.
        folds: Number of folds, each ranking all.

    Returns:
        One for each difference, 0 to ``folds * (models - 1)``.

    References:
        Demšar, Journal of Machine Learning Research 7, 2006.

    Example:
        >>> [round(p, 3) for p in nemenyi_p_values(3, 5)][5:]
        [0.254, 0.139, 0.069, 0.031, 0.012, 0.004]
    """
    from scipy.stats import studentized_range

    scale = math.sqrt(models * (models + 1) / (6 * folds))
    steps = range(folds * (models - 1) + 1)
    return [float(studentized_range.sf(math.sqrt(2) * step / folds / scale, models, math.inf)) for step in steps]


def rank_sums_exist(differences: Sequence[int], folds: int) -> bool:
    """Whether three models ranked in each fold can have these differences of rank sums between pairs.

    Args:
        differences: Of the three pairs, not negative.
        folds: Number of folds.

    Example:
        >>> rank_sums_exist([3, 9, 6], 5), rank_sums_exist([3, 9, 7], 5)
        (True, False)
    """
    small, middle, large = sorted(differences)
    for first in (small, middle):
        lowest, rest = divmod(6 * folds - first - large, 3)
        if small + middle == large and rest == 0 and folds <= lowest and lowest + large <= 3 * folds:
            return True
    return False
