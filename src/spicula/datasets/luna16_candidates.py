"""The candidates of LUNA16's second track: three quarters of a million places, read row after row."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spicula.core.errors import InputError
from spicula.core.finding import Point

COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "class")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place of the track on the reduction of false positives.

    Args:
        series_uid: The scan.
        center_xyz_mm: LPS mm.
        is_nodule: Whether a nodule of ``annotations.csv`` is there.
    """

    series_uid: str
    center_xyz_mm: Point
    is_nodule: bool


def read_candidates(path: Path) -> Iterator[Candidate]:
    """Give the places of a file, gzipped or not, in its order; the file is not held in memory.

    Args:
        path: ``candidates_V2.csv`` or ``candidates.csv``.

    Yields:
        One place after the other.

    Raises:
        InputError: The file cannot be read, has other columns, or a row cannot be used (named by its line).
    """
    try:
        with path.open("rb") as file, gzip.open(file) if path.suffix == ".gz" else file as content:
            reader = csv.reader(io.TextIOWrapper(content, encoding="utf-8-sig", newline=""))
            header = [name.strip() for name in next(reader, [])]
            if header != list(COLUMNS):
                raise InputError(f"{path}: columns", got=",".join(header), expected=",".join(COLUMNS))
            for cells in reader:
                if cells:
                    yield _candidate(path, reader.line_num, cells)
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", hint="fetch it again") from error


def _candidate(path: Path, line: int, cells: list[str]) -> Candidate:
    try:
        uid, x, y, z, label = cells
        if label.strip() not in ("0", "1"):
            raise ValueError(f"class {label!r}")
        return Candidate(uid, (float(x), float(y), float(z)), label.strip() == "1")
    except ValueError as error:
        raise InputError(f"{path}, line {line}: {error}", expected="series UID, three numbers, 0 or 1") from error
