"""Known nodules in a table: ``pid,nodule_id,image_path,coordX,coordY,coordZ`` and whatever else is in it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

from spicula.core.errors import GeometryError, InputError
from spicula.core.finding import Point
from spicula.core.geometry import Geometry

Coords: TypeAlias = Literal["lps", "ras", "voxel"]

COLUMNS = ("pid", "nodule_id", "image_path", "coordX", "coordY", "coordZ")
"""Columns that the table must have; their order and their case do not matter."""


@dataclass(frozen=True, slots=True)
class NoduleRow:
    """One nodule of the table.

    Args:
        pid: Patient, as written (leading zeros stay).
        nodule_id: Nodule, as written.
        image_path: The image: as written if absolute, else found beside the table or in the working folder.
        coords: What the three numbers are: LPS mm, RAS mm, or a voxel index (x, y, z).
        position: The three numbers; None where they are missing or not numbers.
        line: Line of the table, the header being 1.
        extra: All other columns, in their order.
        error: Why the row cannot be used; empty if it can.
    """

    pid: str
    nodule_id: str
    image_path: Path
    coords: Coords
    position: Point | None
    line: int
    extra: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    error: str = ""

    def center_xyz_mm(self, geometry: Geometry) -> Point:
        """The place in LPS mm, on the grid of the row's image where the table has voxel indices.

        Args:
            geometry: Grid of the image.

        Returns:
            LPS millimetres.

        Raises:
            InputError: The row has no usable numbers.
            GeometryError: A voxel index lies outside the image.
        """
        if self.position is None:
            raise InputError(f"line {self.line}: coordX, coordY, coordZ", expected="three numbers")
        x, y, z = self.position
        if self.coords == "lps":
            return x, y, z
        if self.coords == "ras":
            return -x, -y, z
        sizes = geometry.shape_zyx[::-1]
        if not all(-0.5 <= value <= n - 0.5 for value, n in zip(self.position, sizes, strict=True)):
            raise GeometryError(
                f"line {self.line}: voxel index", got=self.position, expected=f"x, y, z within {sizes}",
                hint="if the numbers are millimetres, use --coords lps or ras",
            )  # fmt: skip
        world = geometry.index_to_world((z, y, x))
        return float(world[0]), float(world[1]), float(world[2])


@dataclass(frozen=True, slots=True)
class NoduleTable:
    """All rows of a table.

    Args:
        path: The file.
        rows: In the order of the file.
        extra_columns: Names of the columns beyond :data:`COLUMNS`, in their order.
    """

    path: Path
    rows: tuple[NoduleRow, ...]
    extra_columns: tuple[str, ...] = ()


def read_nodules(path: str | Path, *, coords: Coords = "lps") -> NoduleTable:
    """Read a table of known nodules; commas, semicolons or tabs, with or without a byte order mark.

    Args:
        path: The CSV file.
        coords: What ``coordX,coordY,coordZ`` are: ``"lps"`` or ``"ras"`` in mm, or a ``"voxel"`` index (x, y, z).

    Returns:
        The table; a row that cannot be used says why in its ``error``.

    Raises:
        InputError: The file cannot be read, lacks a column, names one twice, or holds no row.
    """
    path = Path(path)
    if coords not in ("lps", "ras", "voxel"):
        raise InputError("coords", got=coords, expected="lps, ras or voxel")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text", hint="save the table as CSV in UTF-8") from error
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file: {error}") from error
    if not lines:
        raise InputError(f"{path} is empty", expected=f"columns {','.join(COLUMNS)}")
    names = _columns(path, lines[0][1])
    if len(lines) == 1:
        raise InputError(f"{path} holds no nodule", expected="one row for each nodule below the header")
    rows = tuple(
        _row(path, names, cells, line=line, coords=coords, decimal_comma=delimiter != ",") for line, cells in lines[1:]
    )
    return NoduleTable(path, rows, tuple(name for name in names if name not in COLUMNS))


def _columns(path: Path, header: list[str]) -> list[str]:
    """Names of the columns, the required ones in their canonical spelling."""
    canonical = {name.lower(): name for name in COLUMNS}
    names = [canonical.get(name.strip().lower(), name.strip()) for name in header]
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise InputError(
            f"{path}: column {', '.join(missing)} missing", got=", ".join(names), expected=",".join(COLUMNS),
            hint="the first line must name the columns",
        )  # fmt: skip
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: columns named twice", got=", ".join(map(repr, twice)), expected="each name once")
    return names


def _row(
    path: Path, names: list[str], cells: list[str], *, line: int, coords: Coords, decimal_comma: bool
) -> NoduleRow:
    problems = []
    if len(cells) != len(names):
        problems.append(f"{len(cells)} cells in place of {len(names)}")
    values = dict(zip(names, [*cells, *[""] * len(names)], strict=False))
    pid, nodule_id = values["pid"].strip(), values["nodule_id"].strip()
    problems += [f"{name} is empty" for name in ("pid", "nodule_id", "image_path") if not values[name].strip()]
    position = []
    for name in COLUMNS[3:]:
        text = values[name].strip()
        try:
            number = float(text.replace(",", ".") if decimal_comma else text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            problems.append(f"{name} is {text!r}, not a number" if text else f"{name} is empty")
        position.append(number)
    usable = all(math.isfinite(number) for number in position)
    return NoduleRow(
        pid=pid,
        nodule_id=nodule_id,
        image_path=_resolved(path, values["image_path"].strip()),
        coords=coords,
        position=(position[0], position[1], position[2]) if usable else None,
        line=line,
        extra=MappingProxyType({name: values[name] for name in names if name not in COLUMNS}),
        error=f"line {line}: " + "; ".join(problems) if problems else "",
    )


def _resolved(table: Path, written: str) -> Path:
    """The image beside the table, else in the working folder; where it is in neither, beside the table."""
    image = Path(written).expanduser() if written.startswith("~") else Path(written)
    beside = table.parent / image
    return image if not beside.exists() and image.exists() else beside
