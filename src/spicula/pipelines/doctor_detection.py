"""Detections examined step by step: each thing that is wrong is mended in thought, so that the next is seen too."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from spicula.core.geometry import Geometry
from spicula.metrics.doctor import coverage, ids, places, rows, scores, truth
from spicula.metrics.doctor.complaint import Complaint, Evidence
from spicula.metrics.froc import LUNA16_MAX_MARKS, sensitivity_at
from spicula.metrics.hits import NO_POINTS, FreeResponse, Points, match
from spicula.pipelines.doctor_tables import read_excluded, read_folds, read_grids, read_places, read_series

Fact = str | int | float

POLICY = (
    f"LUNA16: hit within half the diameter, at most {LUNA16_MAX_MARKS} detections a scan, marks on excluded findings "
    "set aside, mean of seven sensitivities"
)
"""What the scores in the facts are made by."""


@dataclass(frozen=True, slots=True, eq=False)
class _Chart:
    """What is examined, as mended so far."""

    marks: Points
    nodules: Points
    excluded: Points
    scans: tuple[str, ...]
    complaints: tuple[Complaint, ...] = ()
    mended: tuple[str, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)
    as_given: FreeResponse | None = None

    def told(self, complaints: Sequence[Complaint]) -> _Chart:
        return replace(self, complaints=(*self.complaints, *complaints))

    def matched(self, *, sign: float = 1.0) -> FreeResponse:
        marks = Points(self.marks.scan, self.marks.center_xyz_mm, sign * self.marks.value)
        return match(marks, self.nodules, self.scans, excluded=self.excluded, max_marks=LUNA16_MAX_MARKS)

    @property
    def can_match(self) -> bool:
        """Whether detections and findings lie in scans of the list."""
        return bool(np.isin(self.marks.scan, self.scans).any() and np.isin(self.nodules.scan, self.scans).any())

    @property
    def cpm(self) -> float:
        """LUNA16's score; 0 where nothing can be matched."""
        return _cpm(self.matched() if self.can_match else None)


def examine_detections(
    detections: Path, annotations: Path, series: Path, *, excluded: Path | None = None, folds: Path | None = None,
    scans: Path | None = None,
) -> tuple[tuple[Complaint, ...], dict[str, Fact]]:  # fmt: skip
    """Examine detections beside what they will be scored against.

    Args:
        detections: ``seriesuid,coordX,coordY,coordZ,probability``.
        annotations: ``seriesuid,coordX,coordY,coordZ,diameter_mm``.
        series: ``seriesuid`` of every scan, with or without that header.
        excluded: As annotations.
        folds: ``seriesuid,fold``.
        scans: Folder of the images.

    Returns:
        The complaints and the facts: divisor, score as given and as mended, hashes of the lists.

    Raises:
        InputError: A file cannot be read or lacks a column.
    """
    found = read_places(detections, "probability", what="detections")
    sought = read_places(annotations, "diameter_mm", what="annotations")
    others = read_excluded(excluded, nodules=sought.points.scan.size)
    listed, of_list = read_series(series)
    told, facts = examine_points(
        found.points, sought.points, listed, excluded=others.points if others.given else None,
        folds=read_folds(folds) if folds is not None else (), root=scans,
    )  # fmt: skip
    if others.complaints and not others.points.scan.size:  # nothing more can be said of them
        told = tuple(complaint for complaint in told if not complaint.code.startswith("excluded."))
    return (*found.complaints, *sought.complaints, *of_list, *others.complaints, *told), facts


def examine_points(
    marks: Points, nodules: Points, scans: Sequence[str], *, excluded: Points | None = None,
    folds: Sequence[tuple[str, str]] = (), root: Path | None = None,
) -> tuple[tuple[Complaint, ...], dict[str, Fact]]:  # fmt: skip
    """Examine detections as :func:`examine_detections` does, of tables that were read.

    Args:
        marks: Detections, ids as they are written.
        nodules: What is to be found.
        scans: Every scan, as listed.
        excluded: Excluded findings; None where no list is given.
        folds: Scan and fold, a row each.
        root: Folder of the images.

    Returns:
        The complaints and the facts.
    """
    chart = _Chart(marks, nodules, excluded if excluded is not None else NO_POINTS, tuple(dict.fromkeys(scans)))
    chart = replace(chart, as_given=chart.matched() if chart.can_match else None)
    chart = replace(chart, facts=_facts(chart, scans, folds))
    if not (marks.scan.size and nodules.scan.size and scans):
        return (), dict(chart.facts)
    luna16, given = coverage.is_luna16(chart.scans, nodules), excluded is not None
    chart = _with_diameters(_with_ids(chart))
    chart = chart.told(
        truth.excluded_complaints(chart.excluded, chart.nodules, chart.scans, given=given, luna16=luna16)
    )
    chart = _with_scans(chart, scans, folds)
    if chart.can_match:
        chart = _with_places(chart, root)
        chart = _with_rows(chart, luna16=luna16, excluded=given)
    return chart.complaints, _closing_facts(chart)


def _facts(chart: _Chart, listed: Sequence[str], fold_rows: Sequence[tuple[str, str]]) -> dict[str, Fact]:
    facts: dict[str, Fact] = {
        "detections": int(chart.marks.scan.size), "findings": int(chart.nodules.scan.size),
        "excluded_findings": int(chart.excluded.scan.size), "divisor": len(listed), "policy": POLICY,
        "series_hash": _hash(listed), "cpm_as_given": round(_cpm(chart.as_given), 5),
    }  # fmt: skip
    return {**facts, "folds_hash": _hash([f"{name},{fold}" for name, fold in fold_rows])} if fold_rows else facts


def _cpm(response: FreeResponse | None) -> float:
    return float(sensitivity_at(response).mean()) if response is not None else 0.0


def _closing_facts(chart: _Chart) -> dict[str, Fact]:
    if not chart.mended:
        return dict(chart.facts)
    after = {"cpm_as_mended": round(chart.cpm, 5), "divisor_as_mended": len(chart.scans)}
    return {**chart.facts, "mended_in_thought": "; ".join(chart.mended), **after}


def _hash(lines: Sequence[str]) -> str:
    """Of a list, whatever its order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def _with_ids(chart: _Chart) -> _Chart:
    """Ids of all tables as in the list of scans."""
    tables = {"detections": chart.marks, "annotations": chart.nodules, "excluded findings": chart.excluded}
    renamed, told = {}, []
    for what, points in tables.items():
        found = ids.match_ids(map(str, points.scan), chart.scans, what=what, of="series list", rows="scans")
        # Findings of other folds are told with the coverage; what lies in no scan of the list counts for nothing.
        unknown = [c for c in found.complaints if c.code == "ids.unknown"]
        silent = what == "excluded findings" or (what == "annotations" and bool(found.found))
        told += [c for c in found.complaints if not (silent and c in unknown)]
        renamed[what] = _renamed(points, found.found)
    names = {c.code for c in told if c.code not in ("ids.unknown", "ids.numbers")}
    mended = (*chart.mended, *(("ids",) if names else ()))
    return replace(
        chart.told(told), marks=renamed["detections"], nodules=renamed["annotations"],
        excluded=renamed["excluded findings"], mended=mended,
    )  # fmt: skip


def _with_diameters(chart: _Chart) -> _Chart:
    """Diameters of 0, which nothing can hit, read as unknown."""
    chart = chart.told(truth.missing_diameter_complaints(chart.nodules, chart.excluded))
    nodules, excluded = (
        Points(points.scan, points.center_xyz_mm, np.where(points.value == 0, -1.0, points.value))
        for points in (chart.nodules, chart.excluded)
    )
    if not ((chart.nodules.value == 0).any() or (chart.excluded.value == 0).any()):
        return chart
    return replace(chart, nodules=nodules, excluded=excluded, mended=(*chart.mended, "diameters of 0 as unknown"))


def _renamed(points: Points, found: Mapping[str, str]) -> Points:
    names, place = np.unique(points.scan, return_inverse=True)
    if not names.size:
        return points
    new = np.array([found.get(str(name), str(name)) for name in names], dtype=np.str_)
    return Points(new[place], points.center_xyz_mm, points.value)


def _with_scans(chart: _Chart, listed: Sequence[str], fold_rows: Sequence[tuple[str, str]]) -> _Chart:
    """The scans that were looked at."""
    folds = ids.match_ids([name for name, _ in fold_rows], chart.scans, what="folds", of="series list", rows="scans")
    rows_of_folds = [(folds.found.get(name, name), fold) for name, fold in fold_rows]
    told = [
        *(c for c in folds.complaints if c.code != "ids.unknown" or c.severity == "error"),
        *coverage.list_complaints(listed, chart.nodules, chart.marks),
        *coverage.coverage_complaints(chart.marks, chart.nodules, chart.scans, folds=dict(rows_of_folds)),
        *(coverage.fold_complaints(chart.marks, chart.scans, rows_of_folds) if fold_rows else ()),
    ]
    chart = chart.told(told)
    narrow = {
        "series.one-fold": "one fold",
        "series.fold-missing": "fold left out",
        "divisor.only-with-findings": "divisor",
    }
    why = [narrow[c.code] for c in told if c.code in narrow]
    if not why:
        return chart
    marked = set(map(str, chart.marks.scan))
    named = {fold for c in told if c.code == "series.one-fold" for fold in _texts(c.evidence.get("folds", ()))}
    whole = {name for name, fold in rows_of_folds if fold in named}
    scans = tuple(name for name in chart.scans if name in marked or name in whole)
    return replace(chart, scans=scans, mended=(*chart.mended, *why))


def _with_places(chart: _Chart, root: Path | None) -> _Chart:
    """Places read as they hit most."""
    grids: dict[str, Geometry] = {}
    if root is not None:
        wanted = set(map(str, chart.nodules.scan)) & set(map(str, chart.marks.scan)) & set(chart.scans)
        grids, told = read_grids(root, wanted)
        chart = chart.told(told)
    found = places.place_check(chart.marks, chart.nodules, excluded=chart.excluded, geometries=grids)
    chart = chart.told(found.complaints)
    if found.reading is None:
        return chart
    marks = places.reread(chart.marks, found.reading, geometries=grids)
    scans = chart.scans
    if found.reading.frame != "world":
        scans = tuple(name for name in scans if name in grids)
    return replace(chart, marks=marks, scans=scans, mended=(*chart.mended, "places"))


def _with_rows(chart: _Chart, *, luna16: bool, excluded: bool) -> _Chart:
    """Rows, diameters and scores."""
    told = list(rows.row_complaints(chart.marks, max_marks=LUNA16_MAX_MARKS))
    if any(c.code == "rows.duplicated" for c in told):
        chart = replace(chart, marks=_once(chart.marks), mended=(*chart.mended, "duplicated rows"))
    told += truth.diameter_complaints(chart.nodules, chart.marks, luna16=luna16)
    if any(c.code == "diameters.radii" for c in told):
        nodules = Points(chart.nodules.scan, chart.nodules.center_xyz_mm, 2 * chart.nodules.value)
        chart = replace(chart, nodules=nodules, mended=(*chart.mended, "radii"))
    told += scores.value_complaints(chart.marks.value)
    response = chart.as_given if chart.as_given is not None and not chart.mended else chart.matched()
    told += [
        *scores.order_complaints(response, turned=lambda: chart.matched(sign=-1.0)),
        *scores.curve_complaints(response),
        *rows.hit_complaints(response),
    ]
    if not luna16:
        told += truth.confident_false_complaints(response, excluded=excluded)
    chart = chart.told(told)
    if any(c.code == "scores.inverted" for c in told):
        turned = Points(chart.marks.scan, chart.marks.center_xyz_mm, -chart.marks.value)
        chart = replace(chart, marks=turned, mended=(*chart.mended, "scores turned"))
    return chart


def _texts(value: Evidence) -> Sequence[str]:
    return () if isinstance(value, str | int | float) else value


def _once(marks: Points) -> Points:
    code = np.unique(marks.scan, return_inverse=True)[1]
    first = np.unique(np.column_stack([code, marks.center_xyz_mm, marks.value]), axis=0, return_index=True)[1]
    keep = np.sort(first)
    return Points(marks.scan[keep], marks.center_xyz_mm[keep], marks.value[keep])
