"""LUNA16's score as it is often reported by mistake, so that a table can show the official number beside the other.

Each function takes what :func:`spicula.metrics.froc.luna16` takes and differs from it in one thing. None of them is a
protocol to report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spicula.metrics.classification import FloatArray
from spicula.metrics.froc import LUNA16_MAX_MARKS, LUNA16_RATES, curve_counts, sensitivity_at
from spicula.metrics.hits import NO_POINTS, FreeResponse, FreeResponseCounts, Points, match


@dataclass(frozen=True, slots=True)
class FrocVariant:
    """A score made in one of the ways.

    Args:
        name: What is different; ``"official"`` for nothing.
        official: Made as LUNA16 asks.
        rates: LUNA16's seven false positives a scan.
        sensitivity: At each.
        mean: What is then called the CPM.
        counts: What became of all marks and findings.
    """

    name: str
    official: bool
    rates: tuple[float, ...]
    sensitivity: tuple[float, ...]
    mean: float
    counts: FreeResponseCounts


def official(
    marks: Points,
    nodules: Points,
    excluded: Points,
    scans: Sequence[str],
    *,
    max_marks: int | None = LUNA16_MAX_MARKS,
) -> FrocVariant:
    """The official score: excluded findings set aside, 100 marks a scan, all scans, seven rates, interpolated.

    Args:
        marks: Detections with scores, LPS mm.
        nodules: Annotations with diameters.
        excluded: Excluded findings.
        scans: All scans.
        max_marks: Limit a scan, in all variants but :func:`no_limit_of_marks`.

    Returns:
        The score.

    Raises:
        InputError: As :func:`spicula.metrics.hits.match`.

    References:
        Setio et al. 2017, doi:10.1016/j.media.2017.06.015.
    """
    return _scored("official", marks, nodules, excluded, scans, max_marks=max_marks, is_official=True)


def excluded_as_false(
    marks: Points,
    nodules: Points,
    excluded: Points,
    scans: Sequence[str],
    *,
    max_marks: int | None = LUNA16_MAX_MARKS,
) -> FrocVariant:
    """Marks on excluded findings counted as false positives.

    Happens where ``annotations_excluded.csv`` is missing, empty or replaced by another list. Too low: nodules under
    3 mm, those marked by one or two readers and other findings then count against the detector.
    """
    del excluded
    return _scored("excluded findings counted as false", marks, nodules, NO_POINTS, scans, max_marks=max_marks)


def mean_over_grid(
    marks: Points,
    nodules: Points,
    excluded: Points,
    scans: Sequence[str],
    *,
    max_marks: int | None = LUNA16_MAX_MARKS,
) -> FrocVariant:
    """Mean over the whole curve from 0.125 to 8 on an even grid, not over the seven rates.

    The official script draws its plot on 10,001 even points; their mean is taken for the score. Too high: half of the
    grid lies above four false positives a scan, where the curve is highest.
    """
    response = match(marks, nodules, scans, excluded=excluded, max_marks=max_marks)
    grid = np.linspace(LUNA16_RATES[0], LUNA16_RATES[-1], 10_001)
    mean = float(sensitivity_at(response, grid).mean())
    return _variant("mean over the whole curve", sensitivity_at(response), response.counts, mean=mean)


def nodule_scans_only(
    marks: Points,
    nodules: Points,
    excluded: Points,
    scans: Sequence[str],
    *,
    max_marks: int | None = LUNA16_MAX_MARKS,
) -> FrocVariant:
    """Only scans that hold a nodule: searched, and the divisor.

    Happens where the list of scans is taken from the annotations (601 of LUNA16's 888). Another question than the
    official one: scans without a nodule have their own false positives and lower the rate of the others.
    """
    some = _with_nodules(nodules, scans)
    kept = _within(marks, some)
    return _scored("scans with nodules only", kept, nodules, excluded, some, max_marks=max_marks)


def nodule_scans_over_all(
    marks: Points,
    nodules: Points,
    excluded: Points,
    scans: Sequence[str],
    *,
    max_marks: int | None = LUNA16_MAX_MARKS,
) -> FrocVariant:
    """Only scans that hold a nodule searched, but all scans the divisor.

    Happens where a detector ran on the scans of the annotations only and is scored with the whole list of series.
    Too high: the false positives of the scans not searched are missing, their number is still divided by.
    """
    kept = _within(marks, _with_nodules(nodules, scans))
    name = "marks of scans with nodules, divided by all"
    return _scored(name, kept, nodules, excluded, scans, max_marks=max_marks)


def next_point(
    marks: Points,
    nodules: Points,
    excluded: Points,
    scans: Sequence[str],
    *,
    max_marks: int | None = LUNA16_MAX_MARKS,
) -> FrocVariant:
    """The sensitivity of the curve's next corner at or beyond each rate, nothing interpolated.

    A copy of the official script in a published detector (NoduleNet's) does so. Too high, above all in small sets: a
    corner lies right of its rate. That copy stops with an error where the curve ends before a rate; here the last
    value is taken, as the official way does.
    """
    response = match(marks, nodules, scans, excluded=excluded, max_marks=max_marks)
    false, true = _corners(response)
    first = np.searchsorted(false, LUNA16_RATES)
    at = np.searchsorted(false, false[np.minimum(first, false.size - 1)], side="right") - 1
    return _variant("next point of the curve", true[at], response.counts)


def no_limit_of_marks(
    marks: Points,
    nodules: Points,
    excluded: Points,
    scans: Sequence[str],
    *,
    max_marks: int | None = None,
) -> FrocVariant:
    """All marks, not the 100 surest of each scan.

    Other counts; the score differs only where marks beyond the hundredth reach the part of the curve that is read.
    """
    del max_marks
    return _scored("no limit of marks", marks, nodules, excluded, scans, max_marks=None)


MISTAKES: tuple[Callable[..., FrocVariant], ...] = (
    excluded_as_false,
    mean_over_grid,
    nodule_scans_only,
    nodule_scans_over_all,
    next_point,
    no_limit_of_marks,
)
"""All the ways that are not the official one."""


def froc_variants(
    marks: Points,
    nodules: Points,
    excluded: Points,
    scans: Sequence[str],
    *,
    max_marks: int | None = LUNA16_MAX_MARKS,
) -> tuple[FrocVariant, ...]:
    """The official score and all that it is mistaken for.

    Args:
        marks: Detections with scores, LPS mm.
        nodules: Annotations with diameters.
        excluded: Excluded findings.
        scans: All scans.
        max_marks: Limit a scan.

    Returns:
        The official one first, then one for each of :data:`MISTAKES`.

    Raises:
        InputError: As :func:`official`.
    """
    return tuple(way(marks, nodules, excluded, scans, max_marks=max_marks) for way in (official, *MISTAKES))


def _scored(
    name: str,
    marks: Points,
    nodules: Points,
    excluded: Points,
    scans: Sequence[str],
    *,
    max_marks: int | None,
    is_official: bool = False,
) -> FrocVariant:
    response = match(marks, nodules, scans, excluded=excluded, max_marks=max_marks)
    return _variant(name, sensitivity_at(response), response.counts, is_official=is_official)


def _variant(
    name: str,
    sensitivity: FloatArray,
    counts: FreeResponseCounts,
    *,
    mean: float | None = None,
    is_official: bool = False,
) -> FrocVariant:
    values = tuple(float(value) for value in sensitivity)
    return FrocVariant(
        name, is_official, LUNA16_RATES, values, float(sensitivity.mean()) if mean is None else mean, counts
    )


def _with_nodules(nodules: Points, scans: Sequence[str]) -> list[str]:
    """The scans that hold a nodule, in their order."""
    holding = set(nodules.scan.tolist())
    return [str(name) for name in scans if str(name) in holding]


def _within(marks: Points, scans: Sequence[str]) -> Points:
    """The marks of some scans."""
    kept = np.isin(marks.scan, scans)
    return Points(marks.scan[kept], marks.center_xyz_mm[kept], marks.value[kept])


def _corners(response: FreeResponse) -> tuple[FloatArray, FloatArray]:
    """The points of the curve at which its direction changes, with its first, its last and the origin."""
    counts = np.stack(curve_counts(response))  # whole numbers: no change of direction comes from rounding
    turns = (np.diff(counts[:, 1:], 2, axis=1) != 0).any(axis=0)
    false, true = counts[:, np.concatenate([[True, True], turns, [True]])[: counts.shape[1]]]
    return false / response.findings.size, true / response.findings.sum()
