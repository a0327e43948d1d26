"""The tables behind a free-response score: detections, findings, excluded findings and the list of scans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from spicula.core.bundle import sha256_of
from spicula.core.errors import InputError
from spicula.formats.table import Row, Table, read_table
from spicula.metrics.hits import NO_POINTS, Points

Coords = Literal["lps", "ras"]

PLACE = ("seriesuid", "coordX", "coordY", "coordZ")
"""Columns that say where, as LUNA16 names them."""

ALIASES: Mapping[str, str] = {
    "series_uid": "seriesuid", "seriesinstanceuid": "seriesuid", "series_instance_uid": "seriesuid",
    "series": "seriesuid", "uid": "seriesuid", "scan": "seriesuid", "scan_id": "seriesuid", "image": "seriesuid",
    "x": "coordX", "coord_x": "coordX", "x_mm": "coordX", "center_x_mm": "coordX", "world_x": "coordX",
    "y": "coordY", "coord_y": "coordY", "y_mm": "coordY", "center_y_mm": "coordY", "world_y": "coordY",
    "z": "coordZ", "coord_z": "coordZ", "z_mm": "coordZ", "center_z_mm": "coordZ", "world_z": "coordZ",
    "score": "probability", "prob": "probability", "confidence": "probability", "p": "probability",
    "diameter": "diameter_mm", "diam_mm": "diameter_mm", "size_mm": "diameter_mm",
    "patient": "patient_id", "patientid": "patient_id", "subject": "patient_id", "subject_id": "patient_id",
}  # fmt: skip
"""Other names of the columns, lower case."""


_LEAVE_OUT = "a scan of another fold or set? --ignore-unknown leaves such rows out and counts them"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Which file a number was made from.

    Args:
        name: Of the file, without its folder.
        sha256: Of its bytes, as they lie on the disk.
        rows: Below the header.
    """

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class FrocTables:
    """What is scored, read and checked.

    Args:
        marks: Detections, LPS mm; with ``ignore_unknown`` also those of scans that are not in the list.
        nodules: Findings with diameters, of scans in the list.
        excluded: Excluded findings, of scans in the list.
        scans: The list of scans.
        patients: Patient of each scan; None if no table was given.
        unknown: Rows of scans that are not in the list, left out, by file (``"detections"``, ``"annotations"``,
            ``"excluded"``).
        files: Facts of each file that was read, by the same names and ``"series"`` and ``"groups"``.
    """

    marks: Points
    nodules: Points
    excluded: Points
    scans: tuple[str, ...]
    patients: tuple[str, ...] | None
    unknown: Mapping[str, int]
    files: Mapping[str, FileFacts]


def read_froc_tables(
    detections: Path,
    annotations: Path,
    series: Path,
    *,
    excluded: Path | None = None,
    groups: Path | None = None,
    pad_ids: int = 0,
    ignore_unknown: bool = False,
    coords: Coords = "lps",
) -> FrocTables:
    """Read and check the tables of a free-response score.

    Tables are CSV or TSV, gzipped or not; the names of columns may differ in case or be one of :data:`ALIASES`.

    Args:
        detections: ``seriesuid, coordX, coordY, coordZ, probability``; places in mm.
        annotations: ``seriesuid, coordX, coordY, coordZ, diameter_mm``; places in LPS mm, diameter -1 if unknown.
        series: ``seriesuid`` of each scan, with or without that header.
        excluded: As ``annotations``; may hold no row.
        groups: ``seriesuid, patient_id`` of at least the scans in ``series``.
        pad_ids: Fill ids of all tables with leading zeros up to this length.
        ignore_unknown: Leave out rows of scans that are not in ``series`` and count them; else they are an error.
        coords: ``"ras"`` if the detections have x to the right and y to the front; annotations are LPS.

    Returns:
        The tables.

    Raises:
        InputError: A file that cannot be used, a column missing, a number that is none, an id that is unknown, a scan
            listed twice or without a patient; names the file and the line.
    """
    if coords not in get_args(Coords):
        raise InputError("coords", got=coords, expected=" or ".join(get_args(Coords)))
    scans, listed = _read_scans(series, pad_ids)
    marks, told = _read_points(detections, "probability", pad_ids)
    if coords == "ras":
        marks = Points(marks.scan, marks.center_xyz_mm * (-1.0, -1.0, 1.0), marks.value)
    nodules, marked = _read_points(annotations, "diameter_mm", pad_ids)
    others, set_aside = (
        (NO_POINTS, None) if excluded is None else _read_points(excluded, "diameter_mm", pad_ids, empty=True)
    )
    patients, grouped = (None, None) if groups is None else _read_patients(groups, scans, listed, pad_ids)
    tables = {"detections": told, "annotations": marked, "excluded": set_aside, "series": listed, "groups": grouped}
    unknown: dict[str, int] = {}
    known = frozenset(scans)
    for name, points in (("detections", marks), ("annotations", nodules), ("excluded", others)):
        table = tables[name]
        if table is not None:
            some = name != "excluded"  # must be of listed scans in any case
            unknown[name] = _unknown(points, table, known, listed, allowed=ignore_unknown, some=some)
    return FrocTables(
        marks=marks,
        nodules=_of(nodules, scans),
        excluded=_of(others, scans),
        scans=scans,
        patients=patients,
        unknown=unknown,
        files={name: _facts(table) for name, table in tables.items() if table is not None},
    )


def _read_scans(path: Path, pad_ids: int) -> tuple[tuple[str, ...], Table]:
    table = read_table(path, columns=("seriesuid",), aliases=ALIASES)
    first: dict[str, Row] = {}
    for row in table:
        name = _id(row, pad_ids)
        if name in first:
            raise InputError(
                f"{row.where}: scan {name}", got=f"the same as line {first[name].line}", expected="each scan once"
            )
        first[name] = row
    head = next(iter(first))
    if len(first) > 1 and not any(map(str.isdigit, head)) and all(any(map(str.isdigit, n)) for n in [*first][1:]):
        raise InputError(f"{path}, line 1", got=repr(head), expected="an id, or the header seriesuid")
    return tuple(first), table


def _read_points(path: Path, value: str, pad_ids: int, *, empty: bool = False) -> tuple[Points, Table]:
    table = read_table(path, required=(*PLACE, value), aliases=ALIASES, empty=empty)
    columns = (*PLACE[1:], value)
    numbers = np.array([[row.number(name) for name in columns] for row in table], dtype=np.float64).reshape(-1, 4)
    names = np.array([_id(row, pad_ids) for row in table], dtype=np.str_)
    if value == "diameter_mm" and (flat := np.flatnonzero(numbers[:, 3] == 0)).size:
        raise InputError(f"{table.rows[flat[0]].where}: diameter_mm", got=0, expected="above 0, or -1 if unknown")
    return Points(names, numbers[:, :3], numbers[:, 3]), table


def _read_patients(path: Path, scans: Sequence[str], listed: Table, pad_ids: int) -> tuple[tuple[str, ...], Table]:
    table = read_table(path, required=("seriesuid", "patient_id"), aliases=ALIASES)
    owner: dict[str, str] = {}
    for row in table:
        name, patient = _id(row, pad_ids), row.text("patient_id")
        if owner.setdefault(name, patient) != patient:
            raise InputError(f"{row.where}: scan {name}", got=f"patients {owner[name]} and {patient}", expected="one")
    for name, row in zip(scans, listed, strict=True):
        if name not in owner:
            raise InputError(
                f"{row.where}: scan {name}", got=f"no patient in {path}", expected="a patient for every scan",
                hint=_hint(name, frozenset(owner)),
            )  # fmt: skip
    return tuple(owner[name] for name in scans), table


def _id(row: Row, pad_ids: int) -> str:
    return row.text("seriesuid").zfill(pad_ids)


def _of(points: Points, scans: Sequence[str]) -> Points:
    kept = np.isin(points.scan, scans)
    return Points(points.scan[kept], points.center_xyz_mm[kept], points.value[kept])


def _unknown(points: Points, table: Table, known: frozenset[str], listed: Table, *, allowed: bool, some: bool) -> int:
    """Number of rows of scans that are not in the list; an error unless that is allowed and, where asked, not all."""
    rows = [number for number, name in enumerate(points.scan.tolist()) if name not in known]
    if rows and (not allowed or (some and len(rows) == len(table))):
        strange = str(points.scan[rows[0]])
        raise InputError(
            f"{table.rows[rows[0]].where}: scan {strange}",
            got=f"an id that is not in {listed.path} ({len(rows)} of {len(table)} rows have such ids)",
            expected=f"an id of the list, for example {min(known)}",
            hint=_hint(strange, known) or (None if allowed else _LEAVE_OUT),
        )
    return len(rows)


def _hint(strange: str, known: frozenset[str]) -> str | None:
    """What may be wrong with an id; None if nothing can be seen."""
    widths = Counter(map(len, known))
    width = widths.most_common(1)[0][0]
    if strange.zfill(width) in known:
        return f"leading zeros are missing: --pad-ids {width}"
    bare = strange.lstrip("0")
    if bare != strange and bare in known:
        return f"the other table lacks leading zeros: --pad-ids {len(strange)}"
    alike = next((name for name in sorted(known) if len(name) > 3 and (name in strange or strange in name)), None)
    if alike is not None and len(strange) > 3:
        return f"{strange!r} and {alike!r} differ in a prefix or an ending: write the ids in one way"
    return None


def _facts(table: Table) -> FileFacts:
    return FileFacts(table.path.name, sha256_of(table.path), len(table))
