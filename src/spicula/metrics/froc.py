"""Free-response detection: LUNA16's official protocol, and the same for any marks and findings.

Marks and findings are matched once (:func:`match`), which leaves one row for each true and each false positive; the
curve, its value at given rates of false positives a scan, and scan-level bootstrap intervals are made from the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.errors import InputError
from spicula.metrics.bootstrap import Interval, draws
from spicula.metrics.classification import FloatArray

LUNA16_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a scan at which LUNA16 reads the sensitivity; the mean of the seven is its score (CPM)."""

LUNA16_MAX_MARKS = 100
"""Marks a scan that LUNA16 looks at."""

_DEFAULT_DIAMETER_MM = 10.0  # of a finding whose diameter is negative, that is unknown (the official script's)


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Places in scans: marks with scores, or findings with diameters.

    Args:
        scan: ``[n]`` series UID or another id, text.
        center_xyz_mm: float64 ``[n, 3]``, LPS.
        value: float64 ``[n]``: a mark's score (higher is surer), or a finding's diameter in mm (negative: unknown).

    Raises:
        InputError: Shapes differ, or a number is not finite.
    """

    scan: NDArray[np.str_]
    center_xyz_mm: FloatArray
    value: FloatArray

    def __post_init__(self) -> None:
        scan = np.asarray(self.scan, dtype=np.str_)
        center = np.asarray(self.center_xyz_mm, dtype=np.float64).reshape(-1, 3)
        value = np.asarray(self.value, dtype=np.float64)
        if not scan.shape == value.shape == center.shape[:1]:
            raise InputError(
                "points", got=f"{scan.shape}, {center.shape} and {value.shape}", expected="[n], [n, 3] and [n]"
            )
        bad = np.flatnonzero(~(np.isfinite(center).all(axis=1) & np.isfinite(value)))
        if bad.size:
            raise InputError(f"row {bad[0]} of {scan[bad[0]]}", got="a number that is not finite", expected="a number")
        object.__setattr__(self, "scan", scan)
        object.__setattr__(self, "center_xyz_mm", center)
        object.__setattr__(self, "value", value)


NO_POINTS = Points(np.array([], dtype=np.str_), np.zeros((0, 3)), np.zeros(0))
"""For scans without excluded findings."""


@dataclass(frozen=True, slots=True)
class FreeResponseCounts:
    """What became of all marks and findings.

    Args:
        true_positives: Findings that were hit.
        false_negatives: Findings that were not.
        false_positives: Marks that hit nothing.
        irrelevant: Marks on excluded findings.
        double: Further marks on a finding that was hit.
        marks: Marks looked at (after the limit a scan).
        ignored: Marks in scans that are not of the set.
        scans: Scans of the set: the divisor.
    """

    true_positives: int
    false_negatives: int
    false_positives: int
    irrelevant: int
    double: int
    marks: int
    ignored: int
    scans: int


@dataclass(frozen=True, slots=True, eq=False)
class FreeResponse:
    """Matched marks: what the curve is made of.

    Args:
        score: float64 ``[r]`` of each finding hit (its best mark) and each false positive.
        hit: bool ``[r]``: a finding hit.
        scan: ``[r]`` index of the scan.
        findings: ``[scans]`` number of findings in each scan.
        counts: What became of all.
    """

    score: FloatArray
    hit: NDArray[np.bool_]
    scan: NDArray[np.intp]
    findings: NDArray[np.intp]
    counts: FreeResponseCounts


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


def match(
    marks: Points,
    findings: Points,
    scans: Sequence[str],
    *,
    excluded: Points = NO_POINTS,
    max_marks: int | None = None,
    within_mm: float | None = None,
) -> FreeResponse:
    """Match marks to findings as LUNA16's official script does.

    Scan by scan: of more than ``max_marks`` marks, those scored strictly above the next one are kept. A mark hits a
    finding where its distance is strictly less than the radius. A finding hit gives one row, of its best mark; its
    other hits are set aside. Marks left within an excluded finding are set aside; the rest are false positives.

    Args:
        marks: What the detector says.
        findings: What is to be found.
        scans: All scans of the set, those without marks and without findings too: their number is the divisor.
        excluded: Places where a mark counts neither way.
        max_marks: Limit a scan; None for no limit.
        within_mm: Distance that counts as a hit; None takes half of each finding's own diameter.

    Returns:
        The rows and the counts.

    Raises:
        InputError: No scans, a scan twice, no findings in them, or marks none of which lies in a scan of the set.
    """
    names = [str(name) for name in scans]
    if not names or len(set(names)) != len(names):
        raise InputError("scans", got=f"{len(names)}, {len(set(names))} different", expected="one or more, each once")
    mark_rows, found_rows, other_rows = _by_scan(marks), _by_scan(findings), _by_scan(excluded)
    if marks.scan.size and not mark_rows.keys() & set(names):
        raise InputError(
            "marks",
            got=f"scan {marks.scan[0]!r} and others, none of the set (which has {names[0]!r})",
            expected="the set's own ids",
            hint="are leading zeros or a prefix missing?",
        )
    none = np.zeros(0, dtype=np.intp)
    scores, hits, places, n_findings, sums = [], [], [], [], np.zeros(4, dtype=np.int64)
    for place, name in enumerate(names):
        kept = _most_sure(mark_rows.get(name, none), marks.value, max_marks)
        wanted, other = found_rows.get(name, none), other_rows.get(name, none)
        near = _near(marks, kept, findings, wanted, within_mm)
        of_excluded = _near(marks, kept, excluded, other, within_mm).any(axis=1)
        on_finding = near.any(axis=1)
        found = near.any(axis=0)
        best = np.where(near, marks.value[kept][:, None], -np.inf).max(axis=0, initial=-np.inf)[found]
        false = marks.value[kept][~on_finding & ~of_excluded]
        scores += [best, false]
        hits += [np.ones(best.size, dtype=np.bool_), np.zeros(false.size, dtype=np.bool_)]
        places.append(np.full(best.size + false.size, place, dtype=np.intp))
        n_findings.append(wanted.size)
        double = int(near.sum()) - int(found.sum())
        sums += (best.size, int((of_excluded & ~on_finding).sum()), double, kept.size)
    hit, per_scan = np.concatenate(hits), np.array(n_findings, dtype=np.intp)
    if per_scan.sum() == 0:
        raise InputError("findings", got="none in the scans of the set", expected="one or more")
    of_set = int(np.isin(marks.scan, names).sum())
    counts = FreeResponseCounts(
        true_positives=int(sums[0]),
        false_negatives=int(per_scan.sum() - sums[0]),
        false_positives=int((~hit).sum()),
        irrelevant=int(sums[1]),
        double=int(sums[2]),
        marks=int(sums[3]),
        ignored=int(marks.scan.size - of_set),
        scans=len(names),
    )
    return FreeResponse(np.concatenate(scores), hit, np.concatenate(places), per_scan, counts)


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
    ones = np.ones((1, response.findings.size), dtype=np.int32)
    return np.asarray(_sensitivities(response, _checked_rates(rates), ones)[0])


def free_response_curve(response: FreeResponse) -> tuple[FloatArray, FloatArray]:
    """The whole curve, from (0, 0): false positives a scan and sensitivity at each distinct score, highest first."""
    order, ends = _ranked(response)
    hit = response.hit[order]
    true = np.append(0, np.cumsum(hit)[ends])
    false = np.append(0, np.cumsum(~hit)[ends])
    return false / response.findings.size, true / response.findings.sum()


def free_response_score(
    response: FreeResponse,
    *,
    rates: Sequence[float] = LUNA16_RATES,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> FreeResponseScore:
    """Sensitivity at given rates and its mean, with bootstrap percentile intervals over scans (or patients).

    Args:
        response: Matched marks.
        rates: False positives a scan; LUNA16's seven by default.
        resamples: How many to draw.
        level: Coverage that is aimed at.
        seed: Of the draws.
        groups: ``[scans]`` patient of each scan, drawn whole; None draws scans.

    Returns:
        The score.

    Raises:
        InputError: A bad rate, groups of the wrong length, or fewer than two groups.

    References:
        Setio et al. 2017, doi:10.1016/j.media.2017.06.015; Efron, Tibshirani 1994.
    """
    at = _checked_rates(rates)
    n_scans = response.findings.size
    codes = np.arange(n_scans) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    if codes.size != n_scans or codes.max() < 1:
        raise InputError("groups", got=f"{codes.size} rows", expected=f"{n_scans} scans of two patients or more")
    chunks = draws(int(codes.max()) + 1, resamples=resamples, seed=seed, chunk=50)
    drawn = np.concatenate([_sensitivities(response, at, counts[:, codes]) for counts in chunks])
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    undefined = resamples - len(drawn)
    if not len(drawn):
        raise InputError("bootstrap", got="no resample with a finding", expected="findings in more scans")
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
        InputError: As :func:`match`.

    References:
        Setio et al. 2017, doi:10.1016/j.media.2017.06.015.
    """
    response = match(marks, nodules, scans, excluded=excluded, max_marks=LUNA16_MAX_MARKS)
    return free_response_score(response, resamples=resamples, seed=seed)


def _by_scan(points: Points) -> dict[str, NDArray[np.intp]]:
    """Rows of each scan, in their order."""
    if points.scan.size == 0:
        return {}
    names, inverse = np.unique(points.scan, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(inverse))[:-1])
    return {str(name): rows for name, rows in zip(names, parts, strict=True)}


def _most_sure(rows: NDArray[np.intp], score: FloatArray, limit: int | None) -> NDArray[np.intp]:
    if limit is None or rows.size <= limit:
        return rows
    return np.asarray(rows[score[rows] > np.sort(score[rows])[::-1][limit]])


def _near(
    marks: Points, mark_rows: NDArray[np.intp], findings: Points, rows: NDArray[np.intp], within_mm: float | None
) -> NDArray[np.bool_]:
    """Which marks hit which findings: bool ``[marks, findings]``."""
    apart = marks.center_xyz_mm[mark_rows][:, None] - findings.center_xyz_mm[rows][None]
    diameter = np.where(findings.value[rows] < 0, _DEFAULT_DIAMETER_MM, findings.value[rows])
    radius = diameter / 2 if within_mm is None else np.full(rows.size, within_mm)
    return np.asarray((apart**2).sum(axis=2) < radius**2)


def _ranked(response: FreeResponse) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    order = np.argsort(-response.score, kind="stable")
    ranked = response.score[order]
    last = ranked.size - 1 if ranked.size else 0
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), last)
    return order, ends if ranked.size else np.zeros(0, dtype=np.intp)


def _sensitivities(response: FreeResponse, rates: FloatArray, draws_of_scans: NDArray[np.int32]) -> FloatArray:
    """``[b, rates]`` for ``[b, scans]`` counts of how often each scan was drawn; NaN without a finding."""
    order, ends = _ranked(response)
    scan, hit = response.scan[order], response.hit[order]
    out = np.full((len(draws_of_scans), rates.size), np.nan)
    for row, drawn in enumerate(draws_of_scans):
        total = int(drawn @ response.findings)
        if total:
            weight = drawn[scan]
            true = np.append(0, np.cumsum(np.where(hit, weight, 0))[ends])
            false = np.append(0, np.cumsum(np.where(hit, 0, weight))[ends])
            out[row] = np.interp(rates, false / drawn.sum(), true / total)
    return out


def _checked_rates(rates: ArrayLike) -> FloatArray:
    at = np.atleast_1d(np.asarray(rates, dtype=np.float64))
    if at.ndim != 1 or at.size == 0 or not np.isfinite(at).all() or at.min() < 0:
        raise InputError("rates", got=rates, expected="false positives a scan, 0 or more")
    return at
