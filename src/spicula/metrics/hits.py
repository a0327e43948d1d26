"""What counts as a hit: marks matched to findings by distance, or boxes by their overlap.

Either way of matching gives the same rows (:class:`FreeResponse`), one for each finding that was hit and each false
positive, so that every curve and score of :mod:`spicula.metrics.froc` and
:mod:`spicula.metrics.average_precision` can be had with every criterion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray

_DEFAULT_DIAMETER_MM = 10.0  # of a finding whose diameter is negative, that is unknown (the official script's)


_FARTHEST_MM = 1e6  # no scanner's frame reaches a kilometre; squares of larger numbers overflow


def _checked(
    what: str, scan: ArrayLike, place: ArrayLike, value: ArrayLike
) -> tuple[NDArray[np.str_], FloatArray, FloatArray]:
    """Scan, place and value as arrays of one length with finite numbers."""
    names = np.asarray(scan, dtype=np.str_)
    places = np.asarray(place, dtype=np.float64).reshape(-1, 3)
    values = np.asarray(value, dtype=np.float64)
    if not names.shape == values.shape == places.shape[:1]:
        raise InputError(what, got=f"{names.shape}, {places.shape} and {values.shape}", expected="[n], [n, 3] and [n]")
    bad = np.flatnonzero(~(np.isfinite(places).all(axis=1) & np.isfinite(values)))
    if bad.size:
        raise InputError(f"row {bad[0]} of {names[bad[0]]}", got="a number that is not finite", expected="a number")
    far = np.flatnonzero((np.abs(places) > _FARTHEST_MM).any(axis=1))
    if far.size:
        got = f"a place at {places[far[0]].tolist()} mm"
        raise InputError(f"row {far[0]} of {names[far[0]]}", got=got, expected="world millimetres")
    return names, places, values


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Places in scans: marks with scores, or findings with diameters.

    Args:
        scan: ``[n]`` series UID or another id, text.
        center_xyz_mm: float64 ``[n, 3]``, LPS.
        value: float64 ``[n]``: a mark's score (higher is surer), or a finding's diameter in mm (negative: unknown).

    Raises:
        InputError: Shapes differ, a number is not finite, or a place is a kilometre away.
    """

    scan: NDArray[np.str_]
    center_xyz_mm: FloatArray
    value: FloatArray

    def __post_init__(self) -> None:
        scan, center, value = _checked("points", self.scan, self.center_xyz_mm, self.value)
        object.__setattr__(self, "scan", scan)
        object.__setattr__(self, "center_xyz_mm", center)
        object.__setattr__(self, "value", value)


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Boxes in scans, their sides along x, y and z.

    Args:
        scan: ``[n]`` series UID or another id, text.
        low_xyz_mm: float64 ``[n, 3]``, the corner of smallest x, y and z, LPS.
        high_xyz_mm: float64 ``[n, 3]``, the opposite corner.
        value: float64 ``[n]``: a mark's score; not used for findings.

    Raises:
        InputError: Shapes differ, a number is not finite, or a box has no volume.
    """

    scan: NDArray[np.str_]
    low_xyz_mm: FloatArray
    high_xyz_mm: FloatArray
    value: FloatArray

    def __post_init__(self) -> None:
        scan, low, value = _checked("boxes", self.scan, self.low_xyz_mm, self.value)
        _, high, _ = _checked("boxes", self.scan, self.high_xyz_mm, self.value)
        flat = np.flatnonzero(~(high > low).all(axis=1))
        if flat.size:
            raise InputError(
                f"box {flat[0]} of {scan[flat[0]]}",
                got=f"{low[flat[0]].tolist()} to {high[flat[0]].tolist()}",
                expected="a low corner and a high corner, apart along x, y and z",
            )
        for name, array in (("scan", scan), ("low_xyz_mm", low), ("high_xyz_mm", high), ("value", value)):
            object.__setattr__(self, name, array)


NO_POINTS = Points(np.array([], dtype=np.str_), np.zeros((0, 3)), np.zeros(0))
"""For scans without excluded findings."""

NO_BOXES = Boxes(np.array([], dtype=np.str_), np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
"""For scans without excluded boxes."""


@dataclass(frozen=True, slots=True)
class FreeResponseCounts:
    """What became of all marks and findings.

    Args:
        true_positives: Findings that were hit.
        false_negatives: Findings that were not.
        false_positives: Marks that hit nothing.
        irrelevant: Marks on excluded findings.
        double: Further marks on a finding that was hit, where these are set aside.
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


def match(
    marks: Points,
    findings: Points,
    scans: Sequence[str],
    *,
    excluded: Points = NO_POINTS,
    max_marks: int | None = None,
    within_mm: float | None = None,
) -> FreeResponse:
    """Match marks to findings by distance, as LUNA16's official script does.

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
    names = _names(scans, marks.scan)
    mark_rows, found_rows, other_rows = _by_scan(marks.scan), _by_scan(findings.scan), _by_scan(excluded.scan)
    parts = []
    for name in names:
        kept = _most_sure(mark_rows.get(name, _NO_ROWS), marks.value, max_marks)
        wanted = found_rows.get(name, _NO_ROWS)
        near = _near(marks, kept, findings, wanted, within_mm)
        of_excluded = _near(marks, kept, excluded, other_rows.get(name, _NO_ROWS), within_mm).any(axis=1)
        on_finding, found, score = near.any(axis=1), near.any(axis=0), marks.value[kept]
        parts.append(
            _Part(
                best=np.where(near, score[:, None], -np.inf).max(axis=0, initial=-np.inf)[found],
                false=score[~on_finding & ~of_excluded],
                findings=wanted.size,
                irrelevant=int((of_excluded & ~on_finding).sum()),
                double=int(near.sum()) - int(found.sum()),
                marks=kept.size,
            )
        )
    return _joined(parts, of_set=sum(mark_rows[n].size for n in names if n in mark_rows), given=marks.scan.size)


def match_boxes(
    marks: Boxes,
    findings: Boxes,
    scans: Sequence[str],
    *,
    iou: float = 0.1,
    excluded: Boxes = NO_BOXES,
    max_marks: int | None = 100,
    repeats_are_false: bool = True,
) -> FreeResponse:
    """Match boxes by intersection over union, best mark first, each finding once, as COCO does.

    Scan by scan the surest ``max_marks`` marks are taken from the surest down (the first given of equals). A mark hits
    the finding that it overlaps most among those not hit yet, if the overlap is ``iou`` or more. A mark that hits
    nothing but overlaps an excluded box so much is set aside; the rest are false positives, among them further marks
    on a finding already hit unless ``repeats_are_false`` is off.

    Args:
        marks: What the detector says.
        findings: What is to be found.
        scans: All scans of the set, those without marks and without findings too: their number is the divisor.
        iou: Least intersection over union, above 0 and at most 1 (nnDetection and MONAI report 0.1 for lung nodules).
        excluded: Boxes where a mark counts neither way.
        max_marks: Limit a scan; None for no limit.
        repeats_are_false: A second mark on a finding is a false positive (COCO), or set aside (LUNA16).

    Returns:
        The rows and the counts.

    Raises:
        InputError: As :func:`match`, or a threshold that cannot be.

    References:
        Lin et al. 2014, doi:10.1007/978-3-319-10602-1_48; Baumgartner et al. 2021,
        doi:10.1007/978-3-030-87240-3_51 (nnDetection). Equal scores keep the order in which they are given.
    """
    if not 0 < iou <= 1:
        raise InputError("iou", got=iou, expected="above 0 and at most 1")
    names = _names(scans, marks.scan)
    mark_rows, found_rows, other_rows = _by_scan(marks.scan), _by_scan(findings.scan), _by_scan(excluded.scan)
    parts = []
    for name in names:
        rows = mark_rows.get(name, _NO_ROWS)
        kept = rows[np.argsort(-marks.value[rows], kind="stable")][:max_marks]
        wanted, other = found_rows.get(name, _NO_ROWS), other_rows.get(name, _NO_ROWS)
        overlap = _overlaps(marks, kept, findings, wanted)
        hits = best_first(overlap, least=iou) >= 0
        aside = ~hits & (_overlaps(marks, kept, excluded, other) >= iou).any(axis=1)
        repeat = ~hits & ~aside & (overlap >= iou).any(axis=1)
        false = ~hits & ~aside & (repeats_are_false | ~repeat)
        score = marks.value[kept]
        double = 0 if repeats_are_false else int(repeat.sum())
        parts.append(_Part(score[hits], score[false], wanted.size, int(aside.sum()), double, kept.size))
    return _joined(parts, of_set=sum(mark_rows[n].size for n in names if n in mark_rows), given=marks.scan.size)


def best_first(overlap: FloatArray, *, least: float) -> NDArray[np.intp]:
    """Give each row, in order, the column that it overlaps most among those not given away yet.

    Args:
        overlap: ``[rows, columns]``, higher is better.
        least: What a row needs at least to get a column.

    Returns:
        ``[rows]`` column of each row, -1 for none.
    """
    taken = np.full(len(overlap), -1, dtype=np.intp)
    free = np.ones(overlap.shape[1], dtype=np.bool_)
    for row in np.flatnonzero((overlap >= least).any(axis=1)):
        best = int(np.argmax(np.where(free, overlap[row], -np.inf)))
        if free[best] and overlap[row, best] >= least:
            taken[row], free[best] = best, False
    return taken


def box_iou(low_a: ArrayLike, high_a: ArrayLike, low_b: ArrayLike, high_b: ArrayLike) -> FloatArray:
    """Intersection over union of each box of A with each of B.

    Args:
        low_a: ``[n, d]`` low corners of A, mm, in two, three or more dimensions.
        high_a: ``[n, d]`` high corners of A.
        low_b: ``[m, d]`` low corners of B.
        high_b: ``[m, d]`` high corners of B.

    Returns:
        float64 ``[n, m]``, 0 to 1; a side is high - low (no voxel is added).

    Example:
        >>> box_iou([[0, 0, 0]], [[2, 2, 2]], [[1, 0, 0]], [[3, 2, 2]]).round(4).tolist()
        [[0.3333]]
    """
    a, b = np.asarray(low_a, dtype=np.float64)[:, None], np.asarray(low_b, dtype=np.float64)[None]
    to_a, to_b = np.asarray(high_a, dtype=np.float64)[:, None], np.asarray(high_b, dtype=np.float64)[None]
    both = np.prod(np.clip(np.minimum(to_a, to_b) - np.maximum(a, b), 0, None), axis=2)
    return np.asarray(both / (np.prod(to_a - a, axis=2) + np.prod(to_b - b, axis=2) - both))


def cubes(points: Points, diameter_mm: ArrayLike | None = None) -> Boxes:
    """Boxes about points, each side as long as the diameter (how LUNA16's nodules become boxes for a detector).

    Args:
        points: Their values stay the values of the boxes.
        diameter_mm: ``[n]``; None takes the values of the points, as of findings (negative: 10 mm).

    Returns:
        The boxes.

    Raises:
        InputError: A diameter is 0, or there is not one for each point.
    """
    given = points.value if diameter_mm is None else np.asarray(diameter_mm, dtype=np.float64)
    if given.shape != points.value.shape:
        raise InputError("diameters", got=f"shape {given.shape}", expected=f"{points.value.size} in a row")
    half = np.where(given < 0, _DEFAULT_DIAMETER_MM, given)[:, None] / 2
    return Boxes(points.scan, points.center_xyz_mm - half, points.center_xyz_mm + half, points.value)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One scan's rows: scores of findings hit and of false positives, and what became of the rest."""

    best: FloatArray
    false: FloatArray
    findings: int
    irrelevant: int
    double: int
    marks: int


_NO_ROWS = np.zeros(0, dtype=np.intp)


def _joined(parts: Sequence[_Part], *, of_set: int, given: int) -> FreeResponse:
    """All scans' rows, each scan's hits before its false positives."""
    per_scan = np.array([part.findings for part in parts], dtype=np.intp)
    if per_scan.sum() == 0:
        raise InputError("findings", got="none in the scans of the set", expected="one or more")
    true = sum(part.best.size for part in parts)
    false = sum(part.false.size for part in parts)
    counts = FreeResponseCounts(
        true_positives=true,
        false_negatives=int(per_scan.sum()) - true,
        false_positives=false,
        irrelevant=sum(part.irrelevant for part in parts),
        double=sum(part.double for part in parts),
        marks=sum(part.marks for part in parts),
        ignored=given - of_set,
        scans=len(parts),
    )
    sizes = [size for part in parts for size in (part.best.size, part.false.size)]
    return FreeResponse(
        np.concatenate([scores for part in parts for scores in (part.best, part.false)]),
        np.repeat(np.arange(len(sizes)) % 2 == 0, sizes),
        np.repeat(np.arange(len(sizes)) // 2, sizes),
        per_scan,
        counts,
    )


def _names(scans: Sequence[str], of_marks: NDArray[np.str_]) -> list[str]:
    """The scans as text, each once, with marks in at least one of them (if there are any marks)."""
    names = [str(name) for name in scans]
    if not names or len(set(names)) != len(names):
        raise InputError("scans", got=f"{len(names)}, {len(set(names))} different", expected="one or more, each once")
    if of_marks.size and not set(of_marks.tolist()) & set(names):
        raise InputError(
            "marks",
            got=f"scan {str(of_marks[0])!r} and others, none of the set (which has {names[0]!r})",
            expected="the set's own ids",
            hint="are leading zeros or a prefix missing?",
        )
    return names


def _by_scan(scan: NDArray[np.str_]) -> dict[str, NDArray[np.intp]]:
    """Rows of each scan, in their order."""
    if scan.size == 0:
        return {}
    number: dict[str, int] = {}
    codes = np.array([number.setdefault(name, len(number)) for name in scan.tolist()])
    parts = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return dict(zip(number, parts, strict=True))


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


def _overlaps(a: Boxes, rows_a: NDArray[np.intp], b: Boxes, rows_b: NDArray[np.intp]) -> FloatArray:
    return box_iou(a.low_xyz_mm[rows_a], a.high_xyz_mm[rows_a], b.low_xyz_mm[rows_b], b.high_xyz_mm[rows_b])
