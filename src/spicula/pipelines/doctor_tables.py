"""Tables read by a doctor: what cannot be used is told in a complaint, not in an exception, and the rest is kept."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
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
"""No millimetre, score or diameter is that large; NaN and infinity are not either."""

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
    """Read places and a value of each row; rows without numbers become a complaint.

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
    table = read_table(path, columns=names, aliases=ALIASES, empty=True, ragged=True)
    if _has_another_header(table, value):
        table = read_table(path, required=names, aliases=ALIASES, empty=True, ragged=True)
    if not table.rows:
        complaint = Complaint(f"{what}.empty", "error", f"{path} holds no {what}", f"give the {what}")
        return ReadPoints(complaints=(complaint,))
    return _places(table, names, what=what)


def _has_another_header(table: Table, value: str) -> bool:
    """Whether the first line was taken for data because it names other columns."""
    return bool(table.rows) and table.rows[0].line == 1 and _number(table.rows[0], value) is None


def _places(table: Table, names: Sequence[str], *, what: str) -> ReadPoints:
    numbers = [[_number(row, name) for name in names[1:]] for row in table]
    bad = [(row, cells) for row, cells in zip(table, numbers, strict=True) if None in cells or not row["seriesuid"]]
    kept = [n for n, row in enumerate(table) if None not in numbers[n] and row["seriesuid"]]
    values = np.array([numbers[n] for n in kept], dtype=np.float64).reshape(-1, 4)
    scan = np.array([table.rows[n]["seriesuid"] for n in kept], dtype=np.str_)
    complaints = (_unreadable([row for row, _ in bad], names, what=what, of=len(table)),) if bad else ()
    return ReadPoints(Points(scan, values[:, :3], values[:, 3]), complaints)


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
    table = read_table(path, columns=names, aliases=ALIASES, empty=True, ragged=True)
    if not table.rows:
        complaint = Complaint(
            "excluded.empty", "error" if nodules else "warning", f"{path} holds no excluded finding",
            "give the file of excluded findings (LUNA16: annotations_excluded.csv, 35,192 rows)",
        )  # fmt: skip
        return ReadPoints(complaints=(complaint,))
    if _has_another_header(table, "diameter_mm"):
        first = [cell for cell in table.rows[0].cells.values() if cell]
        complaint = Complaint(
            "excluded.not-findings", "error",
            f"{path} begins with {some_of(first)} and has {counted(len(table), 'line')}: a list of ids (a blacklist of "
            "scans?), not findings with places",
            "give findings with seriesuid,coordX,coordY,coordZ,diameter_mm (LUNA16: annotations_excluded.csv, 35,192 "
            "rows), or no --excluded at all", {"first": first, "lines": len(table)},
        )  # fmt: skip
        return ReadPoints(complaints=(complaint,))
    return _places(table, names, what="excluded")


def read_series(path: Path) -> tuple[str, ...]:
    """Read the list of scans as it is written, a scan twice where it is there twice.

    Raises:
        InputError: The file cannot be read or lists no scan.
    """
    table = read_table(path, columns=("seriesuid",), aliases=ALIASES, ragged=True)
    return tuple(row["seriesuid"] for row in table if row["seriesuid"])


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
    return value if abs(value) < _TOO_LARGE else None


def _unreadable(rows: Sequence[Row], columns: Sequence[str], *, what: str, of: int) -> Complaint:
    lines = ", ".join(str(row.line) for row in rows[:5]) + (" and more" if len(rows) > 5 else "")
    first = rows[0]
    cells = ", ".join(f"{name} {first[name]!r}" for name in columns if not first[name] or
                      (name != "seriesuid" and _number(first, name) is None))  # fmt: skip
    return Complaint(
        "rows.not-numbers", "error",
        f"{len(rows):,} of {of:,} rows of the {what} ({first.path.name}, lines {lines}) cannot be used: {cells}",
        "write finite numbers, or leave such rows out and say so",
        {"rows": len(rows), "lines": [str(row.line) for row in rows[:20]], "file": str(first.path)},
    )  # fmt: skip
