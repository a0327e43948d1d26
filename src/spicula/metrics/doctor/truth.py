"""The truth that is scored against: diameters that are radii, findings twice, an excluded list that is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spicula.metrics.doctor.complaint import Complaint, Severity
from spicula.metrics.doctor.coverage import LUNA16_EXCLUDED
from spicula.metrics.hits import FreeResponse, Points, match

_LEAST_MM = 3.0  # LUNA16's smallest nodule is 3.25 mm
_GROWN = 0.08  # of the findings: so many more are hit within the whole diameter than within its half
_LARGE_MM = 120.0


def missing_diameter_complaints(nodules: Points, excluded: Points) -> tuple[Complaint, ...]:
    """Findings without a diameter.

    Args:
        nodules: What is to be found.
        excluded: Excluded findings, of which those with a negative diameter are usual.

    Returns:
        A complaint for each table that has such: 0 is none, a negative one is scored as 10 mm.
    """
    found = []
    none, unknown = int((nodules.value == 0).sum()), int((nodules.value < 0).sum())
    if none or unknown:
        parts = [f"{none:,} have a diameter of 0, which nothing can hit"] * bool(none)
        parts += [f"{unknown:,} a negative one, which is scored as 10 mm"] * bool(unknown)
        mend = "write diameter_mm of each finding" + (", or -1 where it is not known" if none else "")
        found.append(Complaint(
            "diameters.missing", "error" if none else "warning",
            f"of {nodules.scan.size:,} annotated findings {' and '.join(parts)}", mend,
            {"zero": none, "negative": unknown},
        ))  # fmt: skip
    zero = int((excluded.value == 0).sum())
    if zero:
        found.append(Complaint(
            "diameters.missing", "error",
            f"{zero:,} of {excluded.scan.size:,} excluded findings have a diameter of 0, which nothing can hit",
            "write diameter_mm of each finding, or -1 where it is not known", {"excluded_zero": zero},
        ))  # fmt: skip
    return tuple(found)


def diameter_complaints(nodules: Points, marks: Points, *, luna16: bool) -> tuple[Complaint, ...]:
    """Whether the diameters that are there are diameters in millimetres.

    Args:
        nodules: What is to be found.
        marks: Detections, ids as those of the findings.
        luna16: The set is LUNA16.

    Returns:
        Radii, diameters too large; findings written twice.
    """
    found = list(_twice(nodules))
    there = nodules.value[nodules.value > 0]
    if there.size == 0:
        return tuple(found)
    if float(np.median(there)) > _LARGE_MM:
        found.append(Complaint(
            "diameters.large", "error", f"the median diameter is {np.median(there):.0f}: not millimetres of a nodule",
            "write diameter_mm in millimetres", {"median": float(np.median(there))},
        ))  # fmt: skip
    return (*found, *_radii(nodules, marks, luna16=luna16))


def _radii(nodules: Points, marks: Points, *, luna16: bool) -> tuple[Complaint, ...]:
    """Diameters so small that many detections lie between them and their double."""
    there = nodules.value[nodules.value > 0]
    if there.size < 10 or there.min() >= _LEAST_MM or float(np.median(there)) >= 5.0:
        return ()
    names = list(dict.fromkeys(map(str, nodules.scan)))
    once, twice = (_hits(marks, nodules, names, scale) for scale in (1.0, 2.0))
    grown = (twice - once) / nodules.scan.size
    if not luna16 and grown < _GROWN:
        return ()
    severity: Severity = "error" if luna16 else "warning"
    return (Complaint(
        "diameters.radii", severity,
        f"the diameters go from {there.min():.2f} mm (median {np.median(there):.2f}), LUNA16's from 3.25 (median 6.4); "
        f"were they radii, {twice:,} findings would be hit in place of {once:,}", "write diameter_mm = 2 * radius",
        {"least_mm": float(there.min()), "median_mm": float(np.median(there)), "hits": once, "hits_doubled": twice},
    ),)  # fmt: skip


def _hits(marks: Points, nodules: Points, names: Sequence[str], scale: float) -> int:
    if not np.isin(marks.scan, names).any():
        return 0
    wider = Points(nodules.scan, nodules.center_xyz_mm, np.maximum(nodules.value, 0.0) * scale)
    return match(marks, wider, names).counts.true_positives


def _twice(nodules: Points) -> list[Complaint]:
    if nodules.scan.size == 0:
        return []
    code = np.unique(nodules.scan, return_inverse=True)[1]
    twice = nodules.scan.size - len(np.unique(np.column_stack([code, nodules.center_xyz_mm]), axis=0))
    if not twice:
        return []
    return [Complaint(
        "annotations.duplicated", "error",
        f"{twice:,} of {nodules.scan.size:,} annotated findings are written twice: one of each pair counts double",
        "write each finding once", {"duplicated": twice},
    )]  # fmt: skip


def excluded_complaints(
    excluded: Points, nodules: Points, scans: Sequence[str], *, given: bool, luna16: bool
) -> tuple[Complaint, ...]:
    """Whether the excluded findings are those of the set.

    Args:
        excluded: Excluded findings, ids as in the list; none where none were given.
        nodules: What is to be found.
        scans: All scans.
        given: A list was given.
        luna16: The set is LUNA16.

    Returns:
        A list that is missing, holds next to nothing, or is the annotations once more.
    """
    listed = set(scans)
    covered = len(listed & set(map(str, excluded.scan)))
    evidence = {"rows": excluded.scan.size, "scans": covered, "of_scans": len(listed)}
    official = f"LUNA16's annotations_excluded.csv ({LUNA16_EXCLUDED:,} findings, in every scan)"
    if excluded.scan.size and nodules.scan.size and _same_places(excluded, nodules):
        return (Complaint(
            "excluded.is-annotations", "error",
            f"{excluded.scan.size:,} excluded findings are the annotated findings themselves",
            f"give {official} as --excluded", evidence,
        ),)  # fmt: skip
    if luna16 and not given:
        return (Complaint(
            "excluded.missing", "error",
            "no excluded findings were given: marks on them count as false positives (the published example falls from "
            ".842 to .742)", f"give --excluded with {official}", evidence,
        ),)  # fmt: skip
    if luna16 and covered < 0.5 * len(listed):
        return (Complaint(
            "excluded.too-few", "error",
            f"the excluded list has {excluded.scan.size:,} findings in {covered:,} of {len(listed):,} scans: it is not "
            "the list of excluded findings (a blacklist of scans is something else)",
            f"give --excluded with {official}",
            evidence,
        ),)  # fmt: skip
    if given and not covered:
        return (Complaint(
            "excluded.too-few", "warning", "no excluded finding lies in a scan of the series list",
            "give the excluded list of this set, or none", evidence,
        ),)  # fmt: skip
    return ()


def _same_places(excluded: Points, nodules: Points) -> bool:
    def rows(points: Points) -> set[tuple[str, ...]]:
        return {(str(n), *map(str, c)) for n, c in zip(points.scan, points.center_xyz_mm.round(3), strict=True)}

    if excluded.scan.size > 2 * nodules.scan.size:
        return False
    theirs = rows(excluded)
    return len(theirs & rows(nodules)) > 0.5 * len(theirs)


def confident_false_complaints(response: FreeResponse, *, excluded: bool) -> tuple[Complaint, ...]:
    """Many false positives that are as sure as the better half of the hits.

    Args:
        response: Matched detections.
        excluded: Excluded findings were given.

    Returns:
        A complaint that names the excluded list as a likely cause; whether it is cannot be known without the list.
    """
    hits = response.score[response.hit]
    if hits.size < 20:
        return ()
    middle = float(np.median(hits))
    above = int((response.score[~response.hit] > middle).sum())
    share = above / hits.size
    if excluded or share < 0.08:
        return ()
    return (Complaint(
        "excluded.confident-false", "note",
        f"{above:,} false positives score above the median hit ({middle:g}), {share:.2f} for each finding hit, and no "
        "excluded findings were given: some of them may be findings that the readers left out",
        "give --excluded with findings that shall count neither way (LUNA16: annotations_excluded.csv)",
        {"above_median_hit": above, "share": round(share, 4)},
    ),)  # fmt: skip
