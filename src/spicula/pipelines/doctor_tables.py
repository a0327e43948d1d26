"""Tables read by a doctor: what cannot be used is told in a complaint, not in an exception, and the rest is kept."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spicula.core.errors import InputError, SpiculaError
from spicula.core.geometry import Geometry
from spicula.formats import metaimage, nifti
from spicula.formats.scans import READERS, find_scans
from spicula.formats.table import Row, Table, read_table
from spicula.metrics.doctor.complaint import Complaint, counted, some_of
from spicula.metrics.hits import NO_POINTS, Points
from spicula.pipelines.froc_tables import ALIASES, PLACE

FOLD_ALIASES: Mapping[str, str] = {**ALIASES, "subset": "fold", "split": "fold", "partition": "fold"}
"""Other names of the columns of a table of folds."""

MOST_READ = 8
"""Scans that are read whole where their grid cannot be had from a header."""

_TOO_LARGE = 1e9
"""No score or diameter is that large; NaN and infinity are not either."""

_FARTHEST_MM = 1e6
"""No place lies a kilometre away."""

_POINT = re.compile(r"[-+]?\d*\.\d+")

_LOOK = {".mhd": metaimage.look, ".mha": metaimage.look, ".nii": nifti.look, ".nii.gz": nifti.look}


@dataclass(frozen=True, slots=True, eq=False)
class ReadPoints:
    """Places of a table, with what could not be read.

    Args:
        points: The rows that could be read.
        complaints: About those that could not.
        given: There was a file with such rows.
    """

    points: Points = NO_POINTS
    complaints: tuple[Complaint, ...] = ()
    given: bool = True


def read_places(path: Path, value: str, *, what: str) -> ReadPoints:
    """Read places and a value of each row; rows without numbers and a missing header become complaints.

    Args:
        path: CSV or TSV file; columns as LUNA16 names them or :data:`spicula.pipelines.froc_tables.ALIASES`.
        value: Name of the value's column.
        what: The table, for the messages.

    Returns:
        The places.

    Raises:
        InputError: The file cannot be read or lacks a column; names it.
    """
    names = (*PLACE, value)
    table, told, refused = _named_or_not(path, names, what=what)
    if not table.rows:
        complaint = Complaint(f"{what}.empty", "error", f"{path} holds no {what}", f"give the {what}")
        return ReadPoints(complaints=(complaint,))
    if refused is not None:
        raise refused
    return _places(table, names, what=what, told=told)


def _named_or_not(
    path: Path, names: Sequence[str], *, what: str
) -> tuple[Table, tuple[Complaint, ...], InputError | None]:
    """A table with a header; or read by the places of its columns, with a complaint; or why it is neither."""
    try:
        return read_table(path, required=names, aliases=ALIASES, empty=True, ragged=True), (), None
    except InputError as error:
        table = read_table(path, columns=names, aliases=ALIASES, empty=True, ragged=True)
        if not table.rows or sum(_number(table.rows[0], name) is not None for name in names[1:]) < len(names) - 2:
            return table, (), error
    written = ",".join(names)
    return table, (Complaint(
        "table.no-header", "error",
        f"{path} ({what}) has no header: its first line begins with {some_of(table.rows[0][n] for n in names[:2])}; "
        f"it was examined as {written}, evaluate froc refuses it",
        f"write the line {written} above the rows", {"file": str(path), "columns": list(names)},
    ),), None  # fmt: skip


def whole_rows(table: Table, *, what: str) -> tuple[Table, tuple[Complaint, ...]]:
    """Leave out rows with more or fewer cells than columns, whose cells may stand under another column's name.

    Args:
        table: Read with ``ragged``.
        what: The table, for the message.

    Returns:
        The other rows, none where most do not fit, and a complaint that names the lines.
    """
    bad = [row for row in table if row.ragged is not None]
    if not bad:
        return table, ()
    most = len(bad) > len(table) / 2
    rows = () if most else tuple(row for row in table if row.ragged is None)
    rest = "the rest is not examined" if most else "they are left out of the rest"
    return replace(table, rows=rows), (_other_cells(bad, table, what=what, rest=rest),)


def _other_cells(bad: Sequence[Row], table: Table, *, what: str, rest: str) -> Complaint:
    n, first = len(table.columns), bad[0]
    decimal = _cut_at_commas(bad, n)
    why = ": numbers with a decimal comma are cut at it" if decimal else ""
    mend = (
        "save the table with semicolons between its cells, or write the numbers with points"
        if decimal else f"give each row {counted(n, 'cell')}; a cell that holds the separator needs quotes"
    )  # fmt: skip
    return Complaint(
        "rows.cells", "error",
        f"{len(bad):,} of {len(table):,} rows of the {what} ({first.path.name}, {_lines(bad)}) do not have "
        f"{counted(n, 'cell')} as there are columns, but {first.ragged} (line {first.line}){why}; {rest}",
        mend, {"rows": len(bad), "lines": [str(row.line) for row in bad[:20]], "file": str(first.path), "columns": n,
               "cells": first.ragged or 0, "decimal_commas": int(decimal)},
    )  # fmt: skip


def _cut_at_commas(rows: Sequence[Row], columns: int) -> bool:
    """Whether too many cells come from decimal commas: no cell holds a number with a point."""
    some = rows[:100]
    long = sum((row.ragged or 0) > columns for row in some) > len(some) / 2
    return long and not any(
        row.decimal_comma or any(_POINT.fullmatch(cell) for cell in row.cells.values()) for row in some
    )


def _lines(rows: Sequence[Row]) -> str:
    named = ", ".join(str(row.line) for row in rows[:5]) + (" and more" if len(rows) > 5 else "")
    return f"line{'s' * (len(rows) > 1)} {named}"


def _places(table: Table, names: Sequence[str], *, what: str, told: Sequence[Complaint] = ()) -> ReadPoints:
    table, cut = whole_rows(table, what=what)
    numbers = [[_number(row, name) for name in names[1:]] for row in table]
    bad = [(row, cells) for row, cells in zip(table, numbers, strict=True) if None in cells or not row["seriesuid"]]
    kept = [n for n, row in enumerate(table) if None not in numbers[n] and row["seriesuid"]]
    values = np.array([numbers[n] for n in kept], dtype=np.float64).reshape(-1, 4)
    scan = np.array([table.rows[n]["seriesuid"] for n in kept], dtype=np.str_)
    complaints = (_unreadable([row for row, _ in bad], names, what=what, of=len(table)),) if bad else ()
    return ReadPoints(Points(scan, values[:, :3], values[:, 3]), (*told, *cut, *complaints))


def read_excluded(path: Path | None, *, nodules: int) -> ReadPoints:
    """Read excluded findings; a file that is something else becomes a complaint.

    Args:
        path: The file; None where none was given.
        nodules: How many findings are annotated, for the message.

    Returns:
        The places; ``given`` is False where no file was given.

    Raises:
        InputError: The file cannot be read.
    """
    if path is None:
        return ReadPoints(given=False)
    names = (*PLACE, "diameter_mm")
    table, told, refused = _named_or_not(path, names, what="excluded findings")
    if not table.rows:
        complaint = Complaint(
            "excluded.empty", "error" if nodules else "warning", f"{path} holds no excluded finding",
            "give the file of excluded findings (LUNA16: annotations_excluded.csv, 35,192 rows)",
        )  # fmt: skip
        return ReadPoints(complaints=(complaint,))
    if refused is not None:
        first = [cell for cell in table.rows[0].cells.values() if cell]
        complaint = Complaint(
            "excluded.not-findings", "error",
            f"{path} begins with {some_of(first)} and has {counted(len(table), 'line')}: a list of ids (a blacklist of "
            "scans?), not findings with places",
            "give findings with seriesuid,coordX,coordY,coordZ,diameter_mm (LUNA16: annotations_excluded.csv, 35,192 "
            "rows), or no --excluded at all", {"first": first, "lines": len(table)},
        )  # fmt: skip
        return ReadPoints(complaints=(complaint,))
    return _places(table, names, what="excluded findings", told=told)


def read_series(path: Path) -> tuple[tuple[str, ...], tuple[Complaint, ...]]:
    """Read the list of scans as it is written, a scan twice where it is there twice.

    Returns:
        The ids, and a complaint about rows of another length.

    Raises:
        InputError: The file cannot be read or lists no scan.
    """
    table = read_table(path, columns=("seriesuid",), aliases=ALIASES, ragged=True)
    whole, told = whole_rows(table, what="series list")
    if len(table.columns) == 1:  # the id stands first, whatever is behind
        whole = table
    return tuple(row["seriesuid"] for row in whole if row["seriesuid"]), told


def read_folds(path: Path) -> tuple[tuple[str, str], ...]:
    """Read scan and fold of each row.

    Raises:
        InputError: The file cannot be read or lacks the columns ``seriesuid`` and ``fold``.
    """
    table = read_table(path, required=("seriesuid", "fold"), aliases=FOLD_ALIASES)
    return tuple((row.text("seriesuid"), row.text("fold")) for row in table)


def read_grids(root: Path, scans: Collection[str]) -> tuple[dict[str, Geometry], tuple[Complaint, ...]]:
    """Find scans under a folder by their names and look at their grids.

    MetaImage and NIfTI files are looked at without their pixels; of other files and DICOM folders, the first
    :data:`MOST_READ` are read.

    Args:
        root: Folder of any depth; a file's name without its ending, or a folder's name, is the scan's id.
        scans: Ids that are wanted.

    Returns:
        The grid of each scan that was found, and complaints about those that cannot be read.

    Raises:
        InputError: There is no such folder.
    """
    if not root.is_dir():
        raise InputError(f"{root} is no folder", hint="--scans takes the folder with the images")
    wanted, grids, broken, read = set(scans), {}, [], 0
    for path, ending in _images(root, wanted):
        name = path.name.removesuffix(ending) if ending else path.name
        look = _LOOK.get(ending.lower())
        if name in grids or (look is None and read >= MOST_READ):
            continue
        read += look is None
        try:
            grids[name] = look(path) if look is not None else find_scans(path)[0].load().geometry
        except SpiculaError as error:
            broken.append(str(error))
    complaints = []
    if broken:
        complaints.append(Complaint(
            "scans.unreadable", "warning", f"{counted(len(broken), 'scan')} under {root} cannot be read: {broken[0]}",
            "mend or fetch them again", {"scans": len(broken), "examples": broken[:5]},
        ))  # fmt: skip
    if not grids:
        complaints.append(Complaint(
            "scans.not-found", "warning", f"under {root} no image is named after one of {len(wanted):,} scans",
            "give the folder whose files are named SERIESUID.mhd, .nii.gz or the like", {"wanted": len(wanted)},
        ))  # fmt: skip
    return grids, tuple(complaints)


def _images(root: Path, wanted: set[str]) -> list[tuple[Path, str]]:
    """Files and folders named after a wanted scan, with the ending."""
    found = []
    for folder, folders, files in os.walk(root):
        folders.sort()
        found += [(Path(folder) / name, "") for name in folders if name in wanted]
        for name in sorted(files):
            ending = next((name[-len(e) :] for e in sorted(READERS, key=len)[::-1] if name.lower().endswith(e)), "")
            if ending and name.removesuffix(ending) in wanted:
                found.append((Path(folder) / name, ending))
    return found


def unreadable_numbers(rows: Sequence[Row], column: str, *, what: str, of: int) -> Complaint:
    """A complaint about rows of which one column is no number."""
    return _unreadable(rows, (column,), what=what, of=of)


def number_or_none(row: Row, column: str) -> float | None:
    """A finite number, None where the cell holds anything else (or one that nothing here can be)."""
    return _number(row, column)


def _number(row: Row, column: str) -> float | None:
    written = row[column]
    try:
        value = float(written.replace(",", ".") if row.decimal_comma else written)
    except ValueError:
        return None
    return value if abs(value) <= (_FARTHEST_MM if column in PLACE else _TOO_LARGE) else None


def _unreadable(rows: Sequence[Row], columns: Sequence[str], *, what: str, of: int) -> Complaint:
    first = rows[0]
    cells = ", ".join(f"{name} {first[name]!r}" for name in columns if not first[name] or
                      (name != "seriesuid" and _number(first, name) is None))  # fmt: skip
    return Complaint(
        "rows.not-numbers", "error",
        f"{len(rows):,} of {of:,} rows of the {what} ({first.path.name}, {_lines(rows)}) cannot be used: {cells}",
        "write finite numbers (places in millimetres), or leave such rows out and say so",
        {"rows": len(rows), "lines": [str(row.line) for row in rows[:20]], "file": str(first.path)},
    )  # fmt: skip
