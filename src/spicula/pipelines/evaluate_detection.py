"""Judge the detector with nodules set into scans, and make its score a probability."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.bundle import Bundle
from spicula.core.files import written_aside
from spicula.core.finding import Case, Finding, Point
from spicula.core.geometry import FloatArray
from spicula.core.volume import Mask, Volume
from spicula.datasets.insertion import Insertion
from spicula.detectors.blob import detect
from spicula.measure.lungs import segment_lungs
from spicula.metrics.froc import FreeResponse, Points, free_response_curve, match
from spicula.pipelines.detection_crops import Host, SearchGrid, center_of, plan_nodule

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
    insertion: Insertion | None = None


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
    known = tuple(Truth(k.id, host.name, k.center_xyz_mm, k.diameter_mm or -1.0, 5.0) for k in host.known)
    trials = []
    for copy in copies(host, cases, root, seed=seed):
        lungs = segment_lungs(copy.volume)
        found = detect(copy.volume, bundle=bundle, lungs=lungs, limit=MOST_FINDINGS, least_score=0.0)
        pairs = tuple((f.center_xyz_mm, float(f.score or 0.0)) for f in found)
        trials.append(Trial(host.name, copy.name, tuple(truth for truth, _ in copy.placed), known, pairs))
    return trials


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """A copy of a scan with nodules set in: each nodule, and its outline there."""

    name: str
    volume: Volume
    placed: tuple[tuple[Truth, Mask], ...]


def copies(host: Host, cases: Sequence[Case], root: Path, *, seed: int, per_copy: int = PER_COPY) -> Iterator[Copy]:
    """Set nodules of the folder ``lidc_nodules``, each once if there is room, into as many copies as they need."""
    search, rng = SearchGrid.of(host), np.random.default_rng(seed)
    waiting, number = list(cases), 0
    while waiting:
        volume = replace(host.volume, array_zyx=host.volume.array_zyx.copy())
        placed: list[tuple[Truth, Mask]] = []
        avoid, later = list(host.known), []
        for case in waiting:
            found = _set_in(volume, search, case, root, rng, avoid, host.name) if len(placed) < per_copy else None
            if found is None:
                later.append(case)
                continue
            placed.append(found)
            avoid.append(Finding(case.case_id, found[0].center_xyz_mm, diameter_mm=found[0].diameter_mm))
        if not placed:
            return  # no room for what is left, even in an empty copy
        yield Copy(f"{host.name}-{number}", volume, tuple(placed))
        waiting, number = later, number + 1


def _set_in(
    volume: Volume,
    search: SearchGrid,
    case: Case,
    root: Path,
    rng: np.random.Generator,
    avoid: Sequence[Finding],
    host_name: str,
) -> tuple[Truth, Mask] | None:
    """Set a nodule into the volume's own array; None without room."""
    planned = plan_nodule(search, case, root, rng, avoid=avoid)
    outline = None if planned is None else planned.put_into(volume)
    if planned is None or outline is None:
        return None
    texture = case.findings[0].truth["texture"]
    rows = tuple((float(a), float(b), float(c)) for a, b, c in planned.turn)
    insertion = Insertion(case.case_id, case.patient_id, host_name, planned.place, rows)
    truth = Truth(case.case_id, case.patient_id, center_of(outline), planned.diameter_mm, texture, insertion)
    return truth, outline


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
    """Sensitivity at each of :data:`RATES`, with 95 % intervals over patients and copies; by scan, size and texture."""
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
        "all": _rates(outcomes(trials)),
        "by scan": {scan: _rates(outcomes([t for t in trials if t.scan == scan])) for scan in scans},
        "by nodule": {
            name: _rates(outcomes(trials, keep=keep))
            for name, keep in groups.items()
            if any(keep(n) for t in trials for n in t.inserted)
        },
    }


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What became of each nodule and of each finding that is none.

    Args:
        best: Score of the best finding on each nodule, -inf if missed.
        patient: Of each nodule, with the scan that it was set into.
        false: Score of each false finding.
        copy: Index of the copy of each false finding.
        scans: Name of the scan of each copy.
    """

    best: FloatArray
    patient: NDArray[np.str_]
    false: FloatArray
    copy: NDArray[np.intp]
    scans: NDArray[np.str_]


def outcomes(trials: Sequence[Trial], *, keep: Any = None) -> Outcomes:
    """The rows of :func:`matched`, with the patient of each nodule, found or missed."""
    best, patient, false, copy = [], [], [], []
    for number, trial in enumerate(trials):
        places = np.array([center for center, _ in trial.found]).reshape(-1, 3)
        scores = np.array([score for _, score in trial.found])
        taken = np.zeros(len(places), dtype=bool)
        for truth in (*trial.inserted, *trial.known):
            radius = (truth.diameter_mm if truth.diameter_mm > 0 else 10.0) / 2
            near = np.linalg.norm(places - np.asarray(truth.center_xyz_mm), axis=1) < radius
            taken |= near
            if truth in trial.inserted and (keep is None or keep(truth)):
                best.append(float(scores[near].max(initial=-np.inf)))
                patient.append(f"{trial.scan} {truth.patient_id}")
        false += scores[~taken].tolist()
        copy += [number] * int((~taken).sum())
    scans = np.array([t.scan for t in trials])
    return Outcomes(np.array(best), np.array(patient), np.array(false), np.array(copy, dtype=np.intp), scans)


def _rates(found: Outcomes, *, resamples: int = 1000) -> dict[str, Any]:
    """Sensitivities with intervals: patients and copies are drawn again, each within its scan."""
    names, owner = np.unique(found.patient, return_inverse=True)
    home = np.array([name.split(" ")[0] for name in names])
    rng = np.random.default_rng(0)
    drawn = np.empty((resamples, len(RATES)))
    for row in range(resamples):
        patients, copies = _redrawn(home, rng), _redrawn(found.scans, rng)
        drawn[row] = _sensitivity(found, patients[owner], copies)
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    value = _sensitivity(found, np.ones(len(owner)), np.ones(len(found.scans)))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    result: dict[str, Any] = {"nodules": len(owner), "patients": len(names), "copies": len(found.scans)}
    for n, rate in enumerate(RATES):
        ends = [round(float(low[n]), 4), round(float(high[n]), 4)]
        result[f"sensitivity at {rate:g} false a scan"] = {"value": round(float(value[n]), 4), "interval_95": ends}
    return result


def _redrawn(groups: NDArray[np.str_], rng: np.random.Generator) -> FloatArray:
    """How often each member is drawn when each group is drawn with replacement."""
    times = np.zeros(len(groups))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        np.add.at(times, rng.choice(members, size=len(members)), 1)
    return times


def _sensitivity(found: Outcomes, nodules: FloatArray, copies: FloatArray) -> FloatArray:
    """At each rate, where nodules and copies count as often as said."""
    score = np.concatenate([found.false, found.best])
    false = np.concatenate([copies[found.copy], np.zeros(len(found.best))])
    true = np.concatenate([np.zeros(len(found.false)), nodules * np.isfinite(found.best)])
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(score[order][1:] != score[order][:-1]), len(score) - 1)
    x, y = (np.append(0, np.cumsum(each[order])[ends]) for each in (false, true))
    total = nodules.sum()
    return np.asarray(np.interp(RATES, x / copies.sum(), y / total if total else y * np.nan))


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


def calibrated(score: FloatArray, calibration: Mapping[str, float]) -> FloatArray:
    """Chances from the scores of an uncalibrated network."""
    score = np.clip(score, 1e-12, 1 - 1e-12)
    logit = np.log(score / (1 - score))
    return np.asarray(1 / (1 + np.exp(-(calibration["slope"] * logit + calibration["intercept"]))))


def calibration_check(trials: Sequence[Trial]) -> dict[str, Any]:
    """Calibrate on all scans but one and compare, on that one, true findings expected and found.

    Args:
        trials: Of at least two scans.

    Returns:
        For each scan the findings that should be true, those that are (weighted to two nodules a scan) and the
        expected calibration error over ten bins of equal width.
    """
    result: dict[str, Any] = {}
    for scan in dict.fromkeys(t.scan for t in trials):
        calibration = calibrate([t for t in trials if t.scan != scan])
        response = matched([t for t in trials if t.scan == scan])
        chance, hit = calibrated(response.score, calibration), response.hit
        copies, nodules = response.findings.size, max(int(response.findings.sum()), 1)
        weight = np.where(hit, TYPICAL_NODULES * copies / nodules, 1.0)
        place = np.minimum((chance * 10).astype(int), 9)
        gaps = [abs(float((weight * (chance - hit))[place == n].sum())) for n in range(10)]
        result[scan] = {
            "true findings a scan, expected": round(float((weight * chance).sum()) / copies, 3),
            "true findings a scan, found": round(float(weight[hit].sum()) / copies, 3),
            "expected calibration error": round(sum(gaps) / float(weight.sum()), 4),
        }
    return result


def operating_point(
    trials: Sequence[Trial], calibration: Mapping[str, float], *, false_a_scan: float
) -> dict[str, float]:
    """The least score that keeps a number of false findings a scan.

    Args:
        trials: Found by uncalibrated networks.
        calibration: As :func:`calibrate` says.
        false_a_scan: How many, on average over the copies.

    Returns:
        ``least_score`` (calibrated), and the ``sensitivity`` and ``false_a_scan`` that it gives on these trials.
    """
    found = outcomes(trials)
    ranked = np.sort(calibrated(found.false, calibration))[::-1]
    allowed = int(false_a_scan * len(trials))
    least = float(np.round(ranked[allowed] + 5e-5, 4)) if allowed < len(ranked) else 0.0
    true = np.isfinite(found.best) & (calibrated(np.maximum(found.best, 0), calibration) >= least)
    rate = float((ranked >= least).sum()) / len(trials)
    return {"least_score": least, "sensitivity": round(float(true.mean()), 4), "false_a_scan": round(rate, 3)}


def _insertion(row: Mapping[str, Any]) -> Insertion | None:
    stored = row.get("insertion")
    if stored is None:
        return None
    turn = tuple(tuple(line) for line in stored["orientation"])
    return Insertion(**{**stored, "at_xyz_mm": tuple(stored["at_xyz_mm"]), "orientation": turn})


def write_trials(path: Path, trials: Sequence[Trial]) -> None:
    """Write trials as JSON."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps([asdict(t) for t in trials], indent=1) + "\n", encoding="utf-8")


def read_trials(path: Path) -> list[Trial]:
    """Read what :func:`write_trials` wrote."""

    def truths(rows: Sequence[Mapping[str, Any]]) -> tuple[Truth, ...]:
        return tuple(
            Truth(**{**row, "center_xyz_mm": tuple(row["center_xyz_mm"]), "insertion": _insertion(row)}) for row in rows
        )

    return [
        Trial(
            row["scan"], row["copy"], truths(row["inserted"]), truths(row["known"]),
            tuple((tuple(center), score) for center, score in row["found"]),
        )
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]  # fmt: skip
