"""The tables of NLST as the Cancer Data Access System and the Imaging Data Commons deliver them.

A table is known by its columns, for its name changes with each delivery (``sct_abnormalities_d040722.csv``,
``nlst_780_ctab_idc_20210527.csv``). Tables are streamed: the participants' has 53,000 rows of 300 columns. A missing
value is an empty cell or a SAS code such as ``.M`` or ``.N``.

References:
    Data dictionaries of the deliveries (2011.02.03/04.07.22): Participant, Spiral CT Abnormalities, Lung Cancer.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Literal, TypeAlias

from spicula.core.errors import InputError
from spicula.formats.table import Row

TableKind: TypeAlias = Literal["participants", "abnormalities", "cancers", "nodules"]

NODULE = 51
"""Abnormality code of a non-calcified nodule or mass of at least 4 mm."""

LOCATIONS: Mapping[int, str] = MappingProxyType({
    1: "right upper lobe", 2: "right middle lobe", 3: "right lower lobe", 4: "left upper lobe", 5: "lingula",
    6: "left lower lobe", 8: "other",
})  # fmt: skip
"""``sct_epi_loc``: where the middle of the abnormality lies."""

MARGINS: Mapping[int, str] = MappingProxyType({1: "spiculated", 2: "smooth", 3: "poorly defined"})
"""``sct_margins``; 9 is "unable to determine"."""

ATTENUATIONS: Mapping[int, str] = MappingProxyType({
    1: "soft tissue", 2: "ground glass", 3: "mixed", 4: "fluid", 6: "fat", 7: "other",
})  # fmt: skip
"""``sct_pre_att``, the predominant attenuation; 9 is "unable to determine"."""

UNDETERMINED = 9

_CODES = {"sct_epi_loc": LOCATIONS, "sct_margins": MARGINS, "sct_pre_att": ATTENUATIONS}
_NO_SLICE = 999
_MISSING = re.compile(r"\.?[A-Za-z_]?|nan|NaN|NA")

COLUMNS: Mapping[TableKind, tuple[str, ...]] = MappingProxyType({
    "abnormalities": (
        "pid", "study_yr", "sct_ab_num", "sct_ab_desc", "sct_epi_loc", "sct_long_dia", "sct_perp_dia", "sct_margins",
        "sct_pre_att", "sct_slice_num",
    ),
    "participants": ("pid", "candx_days", "fup_days", "scr_days0", "scr_days1", "scr_days2"),
    "cancers": ("pid", "candx_days", "lc_order"),
    "nodules": ("pid", "nodule_id", "image_path", "coordX", "coordY", "coordZ"),
})  # fmt: skip
"""Columns by which a table is known, and all that is read of it."""


@dataclass(frozen=True, slots=True)
class Abnormality:
    """A nodule or mass of at least 4 mm that a screening CT's reader noted; None where it was not determined.

    Args:
        pid: Participant.
        year: 0, 1 or 2: the round of screening.
        number: Within the screen, from 1.
        location: Code of :data:`LOCATIONS`.
        long_mm: Longest diameter.
        perpendicular_mm: Longest perpendicular diameter.
        margins: Code of :data:`MARGINS`.
        attenuation: Code of :data:`ATTENUATIONS`.
        slice_number: Of the slice that shows it largest, in a series that the table does not name.
    """

    pid: str
    year: int
    number: int
    location: int | None
    long_mm: float | None
    perpendicular_mm: float | None
    margins: int | None
    attenuation: int | None
    slice_number: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a participant after one screen; days are counted from it.

    Args:
        pid: Participant.
        year: Round of the screen.
        days_to_cancer: To the first diagnosis of lung cancer; negative if it was before; None if there was none.
        days_followed: To the last day known; None where it is not.
    """

    pid: str
    year: int
    days_to_cancer: int | None
    days_followed: int | None

    def cancer_within(self, days: int = 365) -> bool | None:
        """Whether lung cancer was diagnosed from this screen on within so many days.

        Args:
            days: How many.

        Returns:
            None where it cannot be told: a diagnosis before the screen, or a shorter follow-up without one.

        Example:
            >>> Outcome("100012", 0, 400, 2000).cancer_within(365)
            False
        """
        if self.days_to_cancer is not None:
            return None if self.days_to_cancer < 0 else self.days_to_cancer <= days
        return False if self.days_followed is not None and self.days_followed >= days else None


def find_tables(root: Path) -> dict[TableKind, Path]:
    """The tables in a folder and the folders in it, by their columns.

    Raises:
        InputError: Two tables are of one kind.
    """
    found: dict[TableKind, Path] = {}
    for path in sorted([*root.glob("*.csv*"), *root.glob("*/*.csv*")]):
        kind = _kind(path)
        if kind is None:
            continue
        if kind in found:
            raise InputError(f"{root}: two tables of {kind}", got=f"{found[kind].name} and {path.name}", expected="one")
        found[kind] = path
    return found


def _kind(path: Path) -> TableKind | None:
    if not path.is_file() or not path.name.lower().endswith((".csv", ".csv.gz")):
        return None
    try:
        with _opened(path) as stream:
            first = next(csv.reader(stream), [])
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error):
        return None
    names = {name.strip().lower() for name in first}
    kinds = [kind for kind, columns in COLUMNS.items() if {column.lower() for column in columns} <= names]
    return kinds[0] if kinds else None


def stream(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Give the rows of a large table one after the other, with these columns alone.

    Args:
        path: CSV, gzipped or not.
        columns: Which; case does not matter.

    Yields:
        Rows; a SAS code for a missing value becomes an empty cell.

    Raises:
        InputError: The file cannot be read, lacks a column, or a row has another number of cells.
    """
    try:
        with _opened(path) as text:
            reader = csv.reader(text)
            header = [name.strip().lower() for name in next(reader, [])]
            absent = [name for name in columns if name.lower() not in header]
            if absent:
                raise InputError(f"{path}: column {', '.join(absent)} missing", got=", ".join(header[:20]))
            where = {name: header.index(name.lower()) for name in columns}
            for cells in reader:
                if len(cells) != len(header):
                    if not any(cells):
                        continue
                    raise InputError(
                        f"{path}, line {reader.line_num}", got=f"{len(cells)} cells", expected=str(len(header))
                    )
                values = {name: _cell(cells[index]) for name, index in where.items()}
                yield Row(path, reader.line_num, MappingProxyType(values))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {error}", hint="fetch it again") from error


def _opened(path: Path) -> IO[str]:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _cell(written: str) -> str:
    text = written.strip()
    return "" if _MISSING.fullmatch(text) else text


def read_abnormality(row: Row) -> Abnormality | None:
    """A row of the abnormalities; None where it is none of code 51.

    Raises:
        InputError: A value is not of the data dictionary; names file and line.
    """
    if row.whole("sct_ab_desc") != NODULE:
        return None
    year = row.whole("study_yr")
    if year not in (0, 1, 2):
        raise InputError(f"{row.where}: study_yr", got=year, expected="0, 1 or 2")
    long_mm, perpendicular_mm = (_length(row, name) for name in ("sct_long_dia", "sct_perp_dia"))
    location, margins, attenuation = (_code(row, name) for name in _CODES)
    slice_number = row.whole("sct_slice_num") if row["sct_slice_num"] else _NO_SLICE
    return Abnormality(
        row.text("pid"), year, row.whole("sct_ab_num"), location, long_mm, perpendicular_mm, margins, attenuation,
        None if slice_number == _NO_SLICE else slice_number,
    )  # fmt: skip


def _length(row: Row, name: str) -> float | None:
    value = row.number_or_none(name)
    if value is not None and not 0 < value < 400:
        raise InputError(f"{row.where}: {name}", got=value, expected="a length in mm")
    return value


def _code(row: Row, name: str) -> int | None:
    if not row[name]:
        return None
    code = row.whole(name)
    if code == UNDETERMINED and name != "sct_epi_loc":
        return None
    if code not in _CODES[name]:
        raise InputError(f"{row.where}: {name}", got=code, expected=f"one of {', '.join(map(str, _CODES[name]))} or 9")
    return code


def read_outcomes(row: Row) -> list[Outcome]:
    """What a row of the participants says of each screen that took place.

    Raises:
        InputError: A value is no whole number; names file and line.
    """
    cancer, followed = _days(row, "candx_days"), _days(row, "fup_days")
    found = []
    for year in (0, 1, 2):
        screened = _days(row, f"scr_days{year}")
        if screened is not None:
            days = [None if end is None else end - screened for end in (cancer, followed)]
            found.append(Outcome(row.text("pid"), year, days[0], days[1]))
    return found


def _days(row: Row, name: str) -> int | None:
    return row.whole(name) if row[name] else None
