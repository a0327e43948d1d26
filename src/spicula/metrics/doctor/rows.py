"""Detections that are there more than once: rows written twice, boxes that were not merged, too many in a scan."""

from __future__ import annotations

from collections import Counter

import numpy as np
from scipy.spatial import cKDTree

from spicula.metrics.doctor.complaint import Complaint, Severity, counted
from spicula.metrics.hits import FreeResponse, Points

NEAR_MM = 1.0
"""Two detections this near are one that was not merged."""

_MANY_NEAR = 0.05
_MANY_HITS = 3.0


def row_complaints(marks: Points, *, max_marks: int) -> tuple[Complaint, ...]:
    """What is wrong with the rows by themselves.

    Args:
        marks: Detections.
        max_marks: How many a scan the protocol looks at.

    Returns:
        Rows written twice, near duplicates, scans with too many.
    """
    if marks.scan.size == 0:
        return ()
    names, code = np.unique(marks.scan, return_inverse=True)
    table = np.column_stack([code, marks.center_xyz_mm, marks.value])
    once = np.unique(table, axis=0)
    twice = len(table) - len(once)
    found = []
    if twice:
        severity: Severity = "error" if twice >= 0.01 * len(table) else "warning"
        found.append(Complaint(
            "rows.duplicated", severity,
            f"{twice:,} of {len(table):,} detections are written more than once, to the last digit; each counts as one "
            "more false positive", "write each detection once (pandas: drop_duplicates())",
            {"duplicated": twice, "rows": len(table)},
        ))  # fmt: skip
    found += _near(once[:, 0], once[:, 1:4])
    per_scan = Counter(code.tolist())
    over = {int(place): count for place, count in per_scan.items() if count > max_marks}
    if over:
        most = max(over, key=lambda place: over[place])
        found.append(Complaint(
            "rows.more-than-limit", "note",
            f"more than {max_marks} detections in {counted(len(over), 'scan')} (at most {over[most]:,}, in "
            f"{str(names[most])!r}); LUNA16 looks at the surest only", "", {"scans": len(over), "most": over[most]},
        ))  # fmt: skip
    return tuple(found)


def _near(code: np.ndarray, centers: np.ndarray) -> list[Complaint]:
    """Detections that lie on each other."""
    apart = float(np.ptp(centers)) + 10 * NEAR_MM
    tree = cKDTree(np.column_stack([centers, code * apart]))
    pairs = tree.query_pairs(NEAR_MM, output_type="ndarray")
    near = np.unique(pairs).size
    if near < _MANY_NEAR * len(centers) or near < 4:
        return []
    return [Complaint(
        "rows.not-merged", "warning",
        f"{near:,} of {len(centers):,} detections lie within {NEAR_MM:g} mm of another one in the same scan",
        "merge overlapping boxes (non-maximum suppression) before writing",
        {"near": near, "rows": len(centers), "within_mm": NEAR_MM},
    )]  # fmt: skip


def hit_complaints(response: FreeResponse) -> tuple[Complaint, ...]:
    """Whether one finding has many detections."""
    counts = response.counts
    if counts.true_positives < 4:
        return ()
    hits = 1 + counts.double / counts.true_positives
    if hits < _MANY_HITS:
        return ()
    return (Complaint(
        "rows.many-hits", "warning",
        f"each finding that is hit is hit {hits:.1f} times on average; all but the best are set aside, which hides "
        "that boxes were not merged", "merge overlapping boxes (non-maximum suppression) before writing",
        {"hits_a_finding": round(hits, 3)},
    ),)  # fmt: skip
