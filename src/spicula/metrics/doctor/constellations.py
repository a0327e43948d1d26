"""Detections that lie as the findings do, but elsewhere: each scan shifted, or flipped about a point of its own.

Where the grids of the scans are not known, a flip about the volume's middle or a missing origin moves each scan's
detections by a vector of its own. The pattern of places stays: in the right reading many pairs of a detection and a
finding of one scan agree in one vector, in a wrong one only as many as chance brings together. No image is needed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from spicula.metrics.hits import Points

FloatArray: TypeAlias = NDArray[np.float64]
Order: TypeAlias = tuple[int, int, int]

CELL_MM = 6.0
"""Vectors within a cube of this side agree."""

MOST_PAIRS = 150_000
"""Pairs of a detection and a finding, of the scans with most findings first, that are looked at."""

_MOST_OF_A_SCAN = 60  # surest detections, and findings, of one scan
_FAR = 8.0  # standard deviations of the other readings
_MORE = 1.12  # times the next best reading
_STILL_MM = 3.0  # a shorter vector is none


@dataclass(frozen=True, slots=True)
class Shifted:
    """A reading under which the detections lie as the findings do, each scan moved by a vector of its own.

    Args:
        order: Which of the written numbers is x, which y, which z.
        signs: 1, or -1 where the axis runs backwards.
        agreeing: Pairs that agree in the vector of their scan.
        next_best: Of the next best reading.
        by_chance: Mean of all other readings.
        scans: Scans looked at.
        length_mm: Median length of the vectors.
        moved: World places of the detections looked at, moved by their scan's vector; with their scores.
    """

    order: Order
    signs: Order
    agreeing: int
    next_best: int
    by_chance: float
    scans: int
    length_mm: float
    moved: Points


def find_shift(marks: Points, findings: Points) -> Shifted | None:
    """Look for a reading under which detections and findings agree up to a vector for each scan.

    Args:
        marks: Detections, ids as those of the findings.
        findings: What is to be found and, better, the excluded findings too.

    Returns:
        The reading; None where none stands out, or where it is the one given and nothing is moved.
    """
    pairs = _pairs(marks, findings)
    if not pairs:
        return None
    readings = [(order, signs) for order in itertools.permutations(range(3))
                for signs in itertools.product((1, -1), repeat=3)]  # fmt: skip
    counts = np.array([
        sum(_agreement(_vectors(written[:, order] * np.array(signs), places))[0] for written, places, _ in pairs)
        for order, signs in readings
    ])  # fmt: skip
    best = int(counts.argmax())
    others = np.delete(counts, best)
    if counts[best] < others.mean() + _FAR * max(float(others.std()), 1.0) or counts[best] < _MORE * others.max():
        return None
    order, signs = readings[best]
    shifts = [_agreement(_vectors(w[:, order] * np.array(signs), p))[1] for w, p, _ in pairs]
    length = float(np.median([np.linalg.norm(shift) for shift in shifts]))
    if length < _STILL_MM:
        return None
    rows = np.concatenate([index for _, _, index in pairs])
    moved = np.concatenate([w[:, order] * np.array(signs) + s for (w, _, _), s in zip(pairs, shifts, strict=True)])
    return Shifted(
        (order[0], order[1], order[2]), (signs[0], signs[1], signs[2]), int(counts[best]), int(others.max()),
        float(others.mean()), len(pairs), length, Points(marks.scan[rows], moved, marks.value[rows]),
    )  # fmt: skip


def _pairs(marks: Points, findings: Points) -> list[tuple[FloatArray, FloatArray, NDArray[np.intp]]]:
    """Written numbers, findings and rows of each scan with two findings or more, most findings first."""
    names, counts = np.unique(findings.scan[np.isin(findings.scan, marks.scan)], return_counts=True)
    kept: list[tuple[FloatArray, FloatArray, NDArray[np.intp]]] = []
    total = 0
    for name in names[np.argsort(-counts, kind="stable")]:
        found = np.flatnonzero(findings.scan == name)[:_MOST_OF_A_SCAN]
        if found.size < 2:
            break
        rows = np.flatnonzero(marks.scan == name)
        rows = rows[np.argsort(-marks.value[rows], kind="stable")[:_MOST_OF_A_SCAN]]
        total += rows.size * found.size
        if kept and total > MOST_PAIRS:
            break
        kept.append((marks.center_xyz_mm[rows], findings.center_xyz_mm[found], rows))
    return kept


def _vectors(places: FloatArray, findings: FloatArray) -> FloatArray:
    return (findings[None] - places[:, None]).reshape(-1, 3)


def _agreement(vectors: FloatArray) -> tuple[int, FloatArray]:
    """How many vectors lie in one cell at most, and their median; two grids, so that no group is cut by both."""
    most, middle = 0, np.zeros(3)
    for offset in (0.0, 0.5):
        cell = np.floor(vectors / CELL_MM + offset).astype(np.int64)
        key = (cell[:, 0] * 4_194_301 + cell[:, 1]) * 4_194_301 + cell[:, 2]
        _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
        if counts.max() > most:
            most = int(counts.max())
            middle = np.median(vectors[inverse == counts.argmax()], axis=0)
    return most, middle
