"""Free-response detection: LUNA16's official protocol, and the same for any marks and findings.

Marks and findings are matched once (:mod:`spicula.metrics.hits`, by distance or by box), which leaves one row for each
true and each false positive; the curve, its value at given rates of false positives a scan, and bootstrap intervals
over scans or patients are made from the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from spicula.core.errors import InputError
from spicula.metrics.bootstrap import FEWEST_PATIENTS, Interval, draws, group_codes
from spicula.metrics.classification import FloatArray, tie_ends
from spicula.metrics.hits import NO_BOXES as NO_BOXES
from spicula.metrics.hits import NO_POINTS as NO_POINTS
from spicula.metrics.hits import Boxes as Boxes
from spicula.metrics.hits import FreeResponse as FreeResponse
from spicula.metrics.hits import FreeResponseCounts as FreeResponseCounts
from spicula.metrics.hits import Points as Points
from spicula.metrics.hits import match as match
from spicula.metrics.hits import match_boxes as match_boxes

LUNA16_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a scan at which LUNA16 reads the sensitivity; the mean of the seven is its score (CPM)."""

LUNA16_MAX_MARKS = 100
"""Marks a scan that LUNA16 looks at."""

_CELLS = 4_000_000  # points of the curve times resamples held at once


@dataclass(frozen=True, slots=True)
class FreeResponseScore:
    """Sensitivity at given rates of false positives a scan.

    Args:
        rates: False positives a scan.
        sensitivity: At each rate, with its interval.
        mean: Mean over the rates, with its interval (LUNA16's CPM at its seven rates).
        counts: What became of all marks and findings.
    """

    rates: tuple[float, ...]
    sensitivity: tuple[Interval, ...]
    mean: Interval
    counts: FreeResponseCounts


@dataclass(frozen=True, slots=True, eq=False)
class FreeResponseBand:
    """The curve on a grid of rates, with a pointwise interval.

    Args:
        rates: float64 ``[n]`` false positives a scan, rising.
        sensitivity: float64 ``[n]``.
        low: float64 ``[n]`` lower end at each rate by itself (not of the whole curve at once).
        high: float64 ``[n]`` upper end.
        level: Coverage that is aimed at.
        resamples: How many were drawn.
    """

    rates: FloatArray
    sensitivity: FloatArray
    low: FloatArray
    high: FloatArray
    level: float
    resamples: int


def sensitivity_at(response: FreeResponse, rates: ArrayLike = LUNA16_RATES) -> FloatArray:
    """Sensitivity where the curve, linear between its points, has given rates of false positives a scan.

    Beyond its end the curve stays at its last value.

    Args:
        response: Matched marks.
        rates: False positives a scan, not negative.

    Returns:
        float64, one for each rate.

    Raises:
        InputError: A rate is negative or not finite.
    """
    false, true = free_response_curve(response)
    return np.asarray(np.interp(_checked_rates(rates), false, true))


def free_response_curve(response: FreeResponse) -> tuple[FloatArray, FloatArray]:
    """The whole curve, from (0, 0): false positives a scan and sensitivity at each distinct score, highest first."""
    false, true = curve_counts(response)
    return false / response.findings.size, true / response.findings.sum()


def curve_counts(response: FreeResponse) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """False positives and findings hit from the highest score down to each distinct one, beginning with none."""
    order, ends = tie_ends(response.score)
    hit = response.hit[order]
    true = np.append(0, np.cumsum(hit)[ends])
    false = np.append(0, np.cumsum(~hit)[ends])
    return false, true


def free_response_score(
    response: FreeResponse,
    *,
    rates: Sequence[float] = LUNA16_RATES,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    groups: ArrayLike | None = None,
    fewest: int = FEWEST_PATIENTS,
) -> FreeResponseScore:
    """Sensitivity at given rates and its mean, with bootstrap percentile intervals over scans (or patients).

    Args:
        response: Matched marks.
        rates: False positives a scan; LUNA16's seven by default.
        resamples: How many to draw.
        level: Coverage that is aimed at.
        seed: Of the draws.
        groups: ``[scans]`` patient of each scan, drawn whole; None draws scans.
        fewest: Refuse fewer patients (or scans) than this.

    Returns:
        The score.

    Raises:
        InputError: A bad rate, groups of the wrong length, too few of them, or no resamples.

    References:
        Setio et al. 2017, doi:10.1016/j.media.2017.06.015; Efron, Tibshirani 1994.
    """
    at = _checked_rates(rates)
    drawn = _drawn(response, at, resamples=resamples, level=level, seed=seed, groups=groups, fewest=fewest)
    undefined = resamples - len(drawn)
    value = sensitivity_at(response, at)

    def interval(point: float, values: FloatArray) -> Interval:
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return Interval(point, float(low), float(high), level, resamples, undefined)

    return FreeResponseScore(
        tuple(float(r) for r in at),
        tuple(interval(float(v), drawn[:, i]) for i, v in enumerate(value)),
        interval(float(value.mean()), drawn.mean(axis=1)),
        response.counts,
    )


def free_response_band(
    response: FreeResponse,
    *,
    rates: ArrayLike | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    groups: ArrayLike | None = None,
    fewest: int = FEWEST_PATIENTS,
) -> FreeResponseBand:
    """The curve with its pointwise bootstrap interval, for a plot.

    Args:
        response: Matched marks.
        rates: Where to read the curve; None takes 97 rates from 0.125 to 8, evenly apart on a logarithmic axis.
        resamples: How many to draw; with the same seed they are the draws of :func:`free_response_score`.
        level: Coverage that is aimed at.
        seed: Of the draws.
        groups: ``[scans]`` patient of each scan, drawn whole; None draws scans.
        fewest: Refuse fewer patients (or scans) than this.

    Returns:
        The band.

    Raises:
        InputError: As :func:`free_response_score`.
    """
    at = _checked_rates(np.geomspace(LUNA16_RATES[0], LUNA16_RATES[-1], 97) if rates is None else rates)
    drawn = _drawn(response, at, resamples=resamples, level=level, seed=seed, groups=groups, fewest=fewest)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return FreeResponseBand(at, sensitivity_at(response, at), low, high, level, resamples)


def luna16(
    marks: Points, nodules: Points, excluded: Points, scans: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> FreeResponseScore:
    """LUNA16's official score: at most 100 marks a scan, excluded findings, seven rates, bootstrap over scans.

    Args:
        marks: Detections with scores, LPS mm.
        nodules: The 1,186 annotations with diameters.
        excluded: The excluded findings, as published (diameter -1 means 10 mm).
        scans: All 888 series UIDs.
        resamples: Of the bootstrap.
        seed: Of the draws.

    Returns:
        The seven sensitivities and their mean (CPM), with 95 % intervals and counts.

    Raises:
        InputError: As :func:`match`, or fewer than ten scans.

    References:
        Setio et al. 2017, doi:10.1016/j.media.2017.06.015.
    """
    response = match(marks, nodules, scans, excluded=excluded, max_marks=LUNA16_MAX_MARKS)
    return free_response_score(response, resamples=resamples, seed=seed)


def _drawn(
    response: FreeResponse,
    rates: FloatArray,
    *,
    resamples: int,
    level: float,
    seed: int,
    groups: ArrayLike | None,
    fewest: int,
) -> FloatArray:
    """Sensitivities on resamples of scans or patients: ``[b, rates]``, those without a finding left out."""
    if resamples < 1 or not 0 < level < 1:
        raise InputError("bootstrap", got=f"{resamples} resamples, level {level}", expected="1 or more, 0 to 1")
    codes = group_codes(groups, [response.findings], fewest=fewest)
    steps = _Steps.of(response)
    chunk = max(1, min(resamples, _CELLS // max(steps.false.shape)))
    chunks = draws(int(codes.max()) + 1, resamples=resamples, seed=seed, chunk=chunk)
    drawn = np.concatenate([_sensitivities(steps, rates, counts[:, codes]) for counts in chunks])
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    if not len(drawn):
        raise InputError("bootstrap", got="no resample with a finding", expected="findings in more scans")
    return np.asarray(drawn)


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """What each scan adds to the curve between those of its points that matter.

    Where a run of scores holds no hit the curve goes on level, whatever is drawn, so that only its end is kept; the
    interpolated values are the very same.

    Args:
        false: Sparse ``[points, scans]`` number of false positives.
        true: Sparse ``[points, scans]`` number of findings hit.
        findings: ``[scans]``.
    """

    false: sparse.csr_array
    true: sparse.csr_array
    findings: NDArray[np.intp]

    @classmethod
    def of(cls, response: FreeResponse) -> _Steps:
        """Of matched marks."""
        order, ends = tie_ends(response.score)
        scan, hit = response.scan[order], response.hit[order]
        has_hit = np.diff(np.append(0, np.cumsum(hit)[ends])) > 0
        kept = ends[has_hit | np.append(has_hit[1:], True)[: ends.size]]
        point = np.searchsorted(kept, np.arange(order.size))
        shape = (kept.size, response.findings.size)

        def counted(rows: NDArray[np.bool_]) -> sparse.csr_array:
            return sparse.csr_array((np.ones(int(rows.sum())), (point[rows], scan[rows])), shape=shape)

        return cls(counted(~hit), counted(hit), response.findings)


def _sensitivities(steps: _Steps, rates: FloatArray, draws_of_scans: NDArray[np.int32]) -> FloatArray:
    """``[b, rates]`` for ``[b, scans]`` counts of how often each scan was drawn; NaN without a finding."""
    weights = np.ascontiguousarray(draws_of_scans.T, dtype=np.float64)
    total, scans = steps.findings @ weights, weights.sum(axis=0)
    false, true = (
        np.pad(np.cumsum((part @ weights).T, axis=1), ((0, 0), (1, 0))) for part in (steps.false, steps.true)
    )
    out = np.full((weights.shape[1], rates.size), np.nan)
    for row in np.flatnonzero(total > 0):
        out[row] = np.interp(rates, false[row] / scans[row], true[row] / total[row])
    return out


def _checked_rates(rates: ArrayLike) -> FloatArray:
    at = np.atleast_1d(np.asarray(rates, dtype=np.float64))
    if at.ndim != 1 or at.size == 0 or not np.isfinite(at).all() or at.min() < 0:
        raise InputError("rates", got=rates, expected="false positives a scan, 0 or more")
    return at
