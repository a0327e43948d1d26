"""Judge the detector with nodules set into scans, and make its score a probability."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spicula.core.bundle import Bundle
from spicula.core.files import written_aside
from spicula.core.finding import Case, Finding, Point
from spicula.core.volume import Volume
from spicula.detectors.blob import detect
from spicula.measure.lungs import segment_lungs
from spicula.metrics.froc import FreeResponse, Points, free_response_curve, free_response_score, match
from spicula.pipelines.detection_crops import Host, SearchGrid, center_of, plan_nodule
from spicula.transforms.resample import around

RATES = (1.0, 4.0, 8.0)
"""False findings a scan at which the sensitivity is told."""

PER_COPY = 12
"""Most nodules set into one copy of a scan."""

MOST_FINDINGS = 100
"""Findings of a copy that are looked at."""

TYPICAL_NODULES = 2.0
"""A score is calibrated for a scan with this many nodules, not for copies with many set in."""


@dataclass(frozen=True, slots=True)
class Truth:
    """A nodule that was set into a scan, or one that is known in it."""

    case_id: str
    patient_id: str
    center_xyz_mm: Point
    diameter_mm: float
    texture: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One copy of a scan: what was set in, what is known besides, what was found.

    Args:
        scan: Name of the scan.
        copy: Unique.
        inserted: Nodules that were set in.
        known: The scan's own nodules: neither true nor false.
        found: Center and score of each finding.
    """

    scan: str
    copy: str
    inserted: tuple[Truth, ...]
    known: tuple[Truth, ...]
    found: tuple[tuple[Point, float], ...]


def try_scan(host: Host, cases: Sequence[Case], root: Path, *, bundle: Bundle, seed: int) -> list[Trial]:
    """Set nodules into copies of a scan and find them.

    Args:
        host: The scan.
        cases: Nodules, none of a patient that the bundle was trained on; each is set in once if there is room.
        root: Folder ``lidc_nodules``.
        bundle: The filter under test.
        seed: Decides places and orientations.

    Returns:
        One trial for each copy.
    """
    search = SearchGrid.of(host)
    rng = np.random.default_rng(seed)
    waiting = list(cases)
    trials: list[Trial] = []
    while waiting:
        array = host.volume.array_zyx.copy()
        volume = replace(host.volume, array_zyx=array)
        inserted: list[Truth] = []
        avoid = list(host.known)
        later: list[Case] = []
        for case in waiting:
            truth = _set_in(volume, search, case, root, rng, avoid) if len(inserted) < PER_COPY else None
            if truth is None:
                later.append(case)
            else:
                inserted.append(truth)
                avoid.append(Finding(truth.case_id, truth.center_xyz_mm, diameter_mm=truth.diameter_mm))
        if not inserted:
            break  # no room for what is left, even in an empty copy
        found = detect(volume, bundle=bundle, lungs=segment_lungs(volume), limit=MOST_FINDINGS, least_score=0.0)
        known = tuple(Truth(k.id, host.name, k.center_xyz_mm, k.diameter_mm or -1.0, 5.0) for k in host.known)
        pairs = tuple((f.center_xyz_mm, float(f.score or 0.0)) for f in found)
        trials.append(Trial(host.name, f"{host.name}-{len(trials)}", tuple(inserted), known, pairs))
        waiting = later
    return trials


def _set_in(
    volume: Volume, search: SearchGrid, case: Case, root: Path, rng: np.random.Generator, avoid: Sequence[Finding]
) -> Truth | None:
    """Set a nodule into the volume's own array; None without room."""
    planned = plan_nodule(search, case, root, rng, avoid=avoid)
    if planned is None:
        return None
    part = around(volume, planned.place, 50.0)
    changed, outline = planned.set_into(part)
    if not outline.array_zyx.any():
        return None
    part.array_zyx[...] = changed.array_zyx
    texture = case.findings[0].truth["texture"]
    return Truth(case.case_id, case.patient_id, center_of(outline), planned.diameter_mm, texture)


def matched(trials: Sequence[Trial], *, keep: Any = None) -> FreeResponse:
    """Match findings to the nodules that were set in, as LUNA16 does.

    Args:
        trials: Copies of scans.
        keep: Which :class:`Truth` count; those that do not are set aside with the known ones. All if None.

    Returns:
        The rows of the curve.
    """
    counted = [(t.copy, n) for t in trials for n in t.inserted if keep is None or keep(n)]
    aside = [(t.copy, n) for t in trials for n in (*t.known, *t.inserted) if keep is not None and not keep(n)]
    aside += [(t.copy, n) for t in trials for n in t.known if keep is None or keep(n)]
    marks = [(t.copy, center, score) for t in trials for center, score in t.found]
    return match(
        Points(np.array([m[0] for m in marks]), np.array([m[1] for m in marks]), np.array([m[2] for m in marks])),
        _points(counted),
        [t.copy for t in trials],
        excluded=_points(aside),
    )


def _points(rows: Sequence[tuple[str, Truth]]) -> Points:
    return Points(
        np.array([copy for copy, _ in rows], dtype=np.str_),
        np.array([n.center_xyz_mm for _, n in rows], dtype=np.float64).reshape(-1, 3),
        np.array([n.diameter_mm for _, n in rows], dtype=np.float64),
    )


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """Sensitivity at each rate of :data:`RATES`, with 95 % intervals over the copies; by scan, size and texture."""
    groups: dict[str, Any] = {
        "under 6 mm": lambda n: n.diameter_mm < 6,
        "6 to 10 mm": lambda n: 6 <= n.diameter_mm < 10,
        "10 mm and more": lambda n: n.diameter_mm >= 10,
        "solid (texture 5)": lambda n: n.texture >= 5,
        "part-solid (texture 2 to 4)": lambda n: 1 < n.texture < 5,
        "ground glass (texture 1)": lambda n: n.texture <= 1,
    }
    scans = dict.fromkeys(t.scan for t in trials)
    return {
        "all": _rates(matched(trials)),
        "by scan": {scan: _rates(matched([t for t in trials if t.scan == scan])) for scan in scans},
        "by nodule": {
            name: _rates(matched(trials, keep=keep))
            for name, keep in groups.items()
            if any(keep(n) for t in trials for n in t.inserted)
        },
    }


def _rates(response: FreeResponse) -> dict[str, Any]:
    score = free_response_score(response, rates=RATES)
    result: dict[str, Any] = {"nodules": int(response.findings.sum()), "copies": int(response.findings.size)}
    for rate, interval in zip(RATES, score.sensitivity, strict=True):
        ends = [round(interval.low, 4), round(interval.high, 4)]
        result[f"sensitivity at {rate:g} false a scan"] = {"value": round(interval.value, 4), "interval_95": ends}
    return result


def curve(trials: Sequence[Trial], *, most_false: float = 20.0) -> list[tuple[float, float]]:
    """The free-response curve: false findings a scan, sensitivity."""
    false, true = free_response_curve(matched(trials))
    return [(round(float(f), 4), round(float(t), 4)) for f, t in zip(false, true, strict=True) if f <= most_false]


def calibrate(trials: Sequence[Trial]) -> dict[str, float]:
    """Fit slope and intercept that make a score the chance to be a nodule in a scan with two of them.

    Args:
        trials: Found by networks with slope 1 and intercept 0 that knew neither scan nor patients.

    Returns:
        ``slope`` and ``intercept`` on the logit.

    References:
        Platt, Probabilistic outputs for support vector machines, 1999; hits are weighted down to two a copy.
    """
    response = matched(trials)
    score = np.clip(response.score, 1e-7, 1 - 1e-7)
    design = np.stack([np.log(score / (1 - score)), np.ones_like(score)], axis=1)
    hit = response.hit.astype(np.float64)
    weight = np.where(response.hit, TYPICAL_NODULES * response.findings.size / max(response.findings.sum(), 1), 1.0)
    theta = np.array([1.0, 0.0])
    for _ in range(100):
        chance = 1 / (1 + np.exp(-np.clip(design @ theta, -40, 40)))
        bend = (design * (weight * chance * (1 - chance))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(bend, design.T @ (weight * (hit - chance)) - 1e-6 * theta)
        theta = theta + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-9:
            break
    return {"slope": float(theta[0]), "intercept": float(theta[1])}


def write_trials(path: Path, trials: Sequence[Trial]) -> None:
    """Write trials as JSON."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps([asdict(t) for t in trials], indent=1) + "\n", encoding="utf-8")


def read_trials(path: Path) -> list[Trial]:
    """Read what :func:`write_trials` wrote."""

    def truths(rows: Sequence[Mapping[str, Any]]) -> tuple[Truth, ...]:
        return tuple(Truth(**{**row, "center_xyz_mm": tuple(row["center_xyz_mm"])}) for row in rows)

    return [
        Trial(
            row["scan"], row["copy"], truths(row["inserted"]), truths(row["known"]),
            tuple((tuple(center), score) for center, score in row["found"]),
        )
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]  # fmt: skip
