"""Score detections by LUNA16's protocol from its tables: the job behind ``spicula evaluate froc``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spicula import __version__
from spicula.core.errors import InputError
from spicula.metrics.bootstrap import FEWEST_PATIENTS
from spicula.metrics.classification import FloatArray
from spicula.metrics.froc import (
    LUNA16_MAX_MARKS,
    LUNA16_RATES,
    FreeResponseBand,
    free_response_band,
    free_response_curve,
    free_response_score,
    sensitivity_at,
)
from spicula.metrics.froc_variants import FrocVariant, froc_variants
from spicula.metrics.hits import FreeResponse, FreeResponseCounts, Points, match
from spicula.pipelines.froc_tables import Coords, FileFacts, FrocTables, read_froc_tables

SCHEMA = "spicula-froc/1"
"""Version of the record; a key that changes its meaning or goes away raises it."""

PROTOCOL = "LUNA16"
"""Name of the official protocol; what departs from it is told behind."""

RESAMPLES = 1000
"""Of the bootstrap, where none are asked for and there are scans enough."""


@dataclass(frozen=True, slots=True, eq=False)
class FrocEvaluation:
    """A free-response score with all that is needed to believe it.

    Args:
        rates: False positives a scan.
        sensitivity: At each rate.
        cpm: Mean of the sensitivities.
        sensitivity_interval: Low and high end at each rate; None without a bootstrap.
        interval: Of ``cpm``; None without a bootstrap.
        counts: What became of all marks and findings; ``ignored`` are marks in scans that are not of the set.
        protocol: ``"LUNA16"``, and what departs from it.
        resamples: Drawn; 0 for none.
        seed: Of the draws.
        level: Coverage that the intervals aim at.
        drawn: ``"scans"`` or ``"patients"``.
        unknown: Rows of each table that were left out for their scan is not in the list.
        files: Facts of each file.
        notes: What a reader must know.
        variants: The official score and the mistaken ones, if asked for.
        response: Matched marks.
        patients: Patient of each scan, if given.
    """

    rates: tuple[float, ...]
    sensitivity: tuple[float, ...]
    cpm: float
    sensitivity_interval: tuple[tuple[float, float], ...] | None
    interval: tuple[float, float] | None
    counts: FreeResponseCounts
    protocol: str
    resamples: int
    seed: int
    level: float
    drawn: str
    unknown: Mapping[str, int]
    files: Mapping[str, FileFacts]
    notes: tuple[str, ...]
    variants: tuple[FrocVariant, ...]
    response: FreeResponse
    patients: tuple[str, ...] | None


def evaluate_froc(
    detections: Path,
    annotations: Path,
    series: Path,
    *,
    excluded: Path | None = None,
    groups: Path | None = None,
    coords: Coords = "lps",
    pad_ids: int = 0,
    ignore_unknown: bool = False,
    max_marks: int | None = LUNA16_MAX_MARKS,
    resamples: int | None = None,
    seed: int = 0,
    level: float = 0.95,
    variants: bool = False,
) -> FrocEvaluation:
    """Score detections by LUNA16's official protocol.

    Args:
        detections: Table of detections (see :func:`~spicula.pipelines.froc_tables.read_froc_tables` for all tables).
        annotations: Table of the findings to be found.
        series: List of all scans: their number is the divisor.
        excluded: Table of findings that count neither way; the official score needs it.
        groups: Table of each scan's patient: patients are drawn instead of scans.
        coords: Of the detections.
        pad_ids: Fill ids with leading zeros up to this length.
        ignore_unknown: Count rows of unknown scans instead of refusing them.
        max_marks: Limit a scan; None or 0 for no limit.
        resamples: Of the bootstrap, 0 for none; None draws 1,000 where there are ten scans (patients) or more, and
            says so where there are fewer.
        seed: Of the draws.
        level: Coverage that the intervals aim at.
        variants: Also the ways in which the score is reported by mistake, beside the official one (100 marks a scan).

    Returns:
        The evaluation.

    Raises:
        InputError: A table that cannot be used, no finding in the listed scans, or fewer than ten scans (patients)
            where ``resamples`` asks for an interval.

    References:
        Setio et al. 2017, doi:10.1016/j.media.2017.06.015.
    """
    if max_marks is not None and max_marks < 0:
        raise InputError("max marks", got=max_marks, expected="1 or more, or 0 for no limit")
    if variants and excluded is None:
        raise InputError("variants", got="no table of excluded findings", expected="one: the official score needs it")
    limit = max_marks or None
    tables = read_froc_tables(
        detections, annotations, series, excluded=excluded, groups=groups, pad_ids=pad_ids,
        ignore_unknown=ignore_unknown, coords=coords,
    )  # fmt: skip
    response = match(tables.marks, tables.nodules, tables.scans, excluded=tables.excluded, max_marks=limit)
    values = sensitivity_at(response, LUNA16_RATES)
    plain = FrocEvaluation(
        rates=LUNA16_RATES,
        sensitivity=tuple(float(value) for value in values),
        cpm=float(values.mean()),
        sensitivity_interval=None,
        interval=None,
        counts=response.counts,
        protocol=_protocol(excluded is not None, limit),
        resamples=0,
        seed=seed,
        level=level,
        drawn="scans" if tables.patients is None else "patients",
        unknown=tables.unknown,
        files=tables.files,
        notes=_notes(tables, response, excluded is not None),
        variants=froc_variants(tables.marks, tables.nodules, tables.excluded, tables.scans) if variants else (),
        response=response,
        patients=tables.patients,
    )
    return _with_intervals(plain, resamples)


def free_response_arrays(evaluation: FrocEvaluation) -> tuple[FloatArray, FloatArray]:
    """The whole curve for a plot: false positives a scan and sensitivity, from (0, 0)."""
    return free_response_curve(evaluation.response)


def band_arrays(evaluation: FrocEvaluation) -> FreeResponseBand | None:
    """The pointwise bootstrap band for a plot, of the same draws as the intervals; None without a bootstrap."""
    if not evaluation.resamples:
        return None
    return free_response_band(
        evaluation.response, resamples=evaluation.resamples, level=evaluation.level, seed=evaluation.seed,
        groups=evaluation.patients,
    )  # fmt: skip


def to_record(evaluation: FrocEvaluation) -> dict[str, Any]:
    """The record that ``--json`` writes: plain JSON values, None where there is no interval."""
    pairs = evaluation.sensitivity_interval
    return {
        "schema": SCHEMA,
        "program": "spicula",
        "version": __version__,
        "protocol": evaluation.protocol,
        "cpm": evaluation.cpm,
        "interval": None if evaluation.interval is None else list(evaluation.interval),
        "rates": list(evaluation.rates),
        "sensitivity": list(evaluation.sensitivity),
        "sensitivity_interval": None if pairs is None else [list(pair) for pair in pairs],
        "counts": asdict(evaluation.counts),
        "divisor": evaluation.counts.scans,
        "level": evaluation.level,
        "resamples": evaluation.resamples,
        "seed": evaluation.seed,
        "drawn": evaluation.drawn,
        "unknown": dict(evaluation.unknown),
        "inputs": {name: asdict(facts) for name, facts in evaluation.files.items()},
        "notes": list(evaluation.notes),
        "variants": [
            {"name": v.name, "official": v.official, "cpm": v.mean, "sensitivity": list(v.sensitivity)}
            for v in evaluation.variants
        ],
    }


def summary_lines(evaluation: FrocEvaluation) -> list[str]:
    """What a person reads in the terminal: the score, each rate, the counts, the variants and the notes."""
    counts, pairs = evaluation.counts, evaluation.sensitivity_interval
    lines = [f"CPM {evaluation.cpm:.4f}{_ends(evaluation.interval)}  {evaluation.protocol}"]
    for number, (rate, value) in enumerate(zip(evaluation.rates, evaluation.sensitivity, strict=True)):
        lines.append(f"  sensitivity {value:.4f}{_ends(pairs[number] if pairs else None)} at {rate:g} false a scan")
    findings = counts.true_positives + counts.false_negatives
    lines.append(
        f"  {counts.true_positives} of {findings} findings hit; of {counts.marks} marks "
        f"{counts.false_positives} false, {counts.irrelevant} on excluded findings, {counts.double} repeated; "
        f"{counts.scans} scans"
    )
    if evaluation.resamples:
        lines.append(
            f"  intervals: {100 * evaluation.level:g} %, {evaluation.resamples} resamples of {evaluation.drawn}, "
            f"seed {evaluation.seed}"
        )
    if evaluation.variants:
        lines.append("Reported by mistake for the official score:")
        names = ["LUNA16's own" if variant.official else variant.name for variant in evaluation.variants]
        width = max(map(len, names))
        for name, variant in zip(names, evaluation.variants, strict=True):
            values = " ".join(f"{value:.4f}" for value in variant.sensitivity)
            label = "official" if variant.official else "MISTAKE "
            lines.append(f"  {label} {name:<{width}} {values}  mean {variant.mean:.4f}")
    return lines + [f"Note: {note}" for note in evaluation.notes]


def _with_intervals(plain: FrocEvaluation, resamples: int | None) -> FrocEvaluation:
    """Bootstrap, or say why not."""
    units = plain.counts.scans if plain.patients is None else len(set(plain.patients))
    if resamples == 0:
        return plain
    if units < FEWEST_PATIENTS:
        few = f"{units} {plain.drawn}, fewer than {FEWEST_PATIENTS}"
        if resamples is not None:
            raise InputError(
                "bootstrap", got=few, expected=f"{FEWEST_PATIENTS} or more", hint="--resamples 0 gives the score alone"
            )
        return replace(plain, notes=(*plain.notes, f"no interval: {few}"))
    score = free_response_score(
        plain.response,
        rates=plain.rates,
        resamples=RESAMPLES if resamples is None else resamples,
        level=plain.level,
        seed=plain.seed,
        groups=plain.patients,
    )
    return replace(
        plain,
        sensitivity_interval=tuple((each.low, each.high) for each in score.sensitivity),
        interval=(score.mean.low, score.mean.high),
        resamples=score.mean.resamples,
    )


def _protocol(has_excluded: bool, limit: int | None) -> str:
    departures = [] if has_excluded else ["no list of excluded findings"]
    if limit != LUNA16_MAX_MARKS:
        departures.append("no limit of marks" if limit is None else f"at most {limit} marks a scan")
    return PROTOCOL + (f", but {' and '.join(departures)}" if departures else "")


def _notes(tables: FrocTables, response: FreeResponse, has_excluded: bool) -> tuple[str, ...]:
    notes = []
    if not has_excluded:
        notes.append("no excluded findings: marks on them count as false, the official score needs them")
    elif not tables.excluded.value.size:
        notes.append(f"{tables.files['excluded'].name} holds no finding of the listed scans: is it the right list?")
    elif _places(tables.nodules) <= _places(tables.excluded):
        notes.append(f"{tables.files['excluded'].name} holds all findings of {tables.files['annotations'].name}")
    unsized = int((tables.nodules.value < 0).sum())
    if unsized:
        notes.append(f"{unsized} of {tables.nodules.value.size} findings have no diameter: 10 mm is taken")
    if np.unique(tables.marks.value).size == 1 < tables.marks.value.size:
        notes.append("all detections have one score: nothing is ranked, the curve is a straight line")
    for name, number in tables.unknown.items():
        if number:
            notes.append(f"{number} rows of {tables.files[name].name} are of scans that are not listed: left out")
    false, true = free_response_curve(response)
    if false[-1] < LUNA16_RATES[-1]:
        notes.append(
            f"the curve ends at {false[-1]:.3g} false positives a scan: beyond, its last value {true[-1]:.4f} is taken"
        )
    silent = len(set(tables.scans) - set(tables.marks.scan.tolist()))
    if silent:
        notes.append(f"{silent} of {len(tables.scans)} scans have no detection")
    return tuple(notes)


def _places(points: Points) -> set[tuple[str, bytes]]:
    """Scan and place of each, comparable to the last bit."""
    return {(str(scan), place.tobytes()) for scan, place in zip(points.scan, points.center_xyz_mm, strict=True)}


def _ends(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.4f} to {interval[1]:.4f})"
