"""Known nodules in a table: ``pid,nodule_id,image_path,coordX,coordY,coordZ`` and whatever else is in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

from spicula.core.errors import GeometryError, InputError
from spicula.core.finding import Case, Finding, Point
from spicula.core.geometry import Geometry
from spicula.core.semantics import ABSENT_WORDS
from spicula.core.volume import Volume
from spicula.datasets.catalog import Check, Description
from spicula.datasets.places import Tally, place_checks, tally_checks
from spicula.datasets.verification import require_folder
from spicula.dicom.gaps import Gaps
from spicula.dicom.reader import Tilt
from spicula.formats import read_volume
from spicula.formats.table import Row, read_table

Coords: TypeAlias = Literal["lps", "ras", "voxel"]

DESCRIPTION = Description(
    name="nodule-csv",
    title="Known nodules in a CSV table",
    contents="Any images with a table of nodules, a row each: patient, image, place and whatever is known.",
    licence="that of your data",
    size="nothing to download",
    url="docs/reference/nodule-csv.md",
    citation="that of your data",
    layout=(
        "nodules.csv   pid,nodule_id,image_path,coordX,coordY,coordZ (LPS mm) and further columns; or one other .csv",
        "...           the images, where image_path says (relative to the table)",
    ),
)

COLUMNS = ("pid", "nodule_id", "image_path", "coordX", "coordY", "coordZ")
"""Columns that the table must have; their order and their case do not matter."""

LABEL = "malignant"
"""Column of ``truth["label"]``: 1 malignant, 0 benign."""

ATTRIBUTE, TRUTH = "attribute_", "truth_"
"""How the columns of attributes begin, and those of truths whose name means something else here."""

OWN = ("diameter_mm", "score", "split")
"""Columns with a place of their own in a finding or a case."""


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
        decimal_comma: Numbers may be written with a comma.
    """

    path: Path
    rows: tuple[NoduleRow, ...]
    extra_columns: tuple[str, ...] = ()
    decimal_comma: bool = False


def read_nodules(path: str | Path, *, coords: Coords = "lps") -> NoduleTable:
    """Read a table of known nodules; commas, semicolons or tabs, with or without a byte order mark, gzipped or not.

    Args:
        path: The CSV file.
        coords: What ``coordX,coordY,coordZ`` are: ``"lps"`` or ``"ras"`` in mm, or a ``"voxel"`` index (x, y, z).

    Returns:
        The table; a row that cannot be used says why in its ``error``.

    Raises:
        InputError: The file cannot be read, lacks a column, names one twice, or holds no row.
    """
    if coords not in ("lps", "ras", "voxel"):
        raise InputError("coords", got=coords, expected="lps, ras or voxel")
    table = read_table(path, required=COLUMNS, ragged=True)
    rows = tuple(_row(row, coords=coords, width=len(table.columns)) for row in table)
    extra = tuple(name for name in table.columns if name not in COLUMNS)
    return NoduleTable(table.path, rows, extra, any(row.decimal_comma for row in table))


def _row(row: Row, *, coords: Coords, width: int) -> NoduleRow:
    problems = [] if row.ragged is None else [f"{row.ragged} cells in place of {width}"]
    problems += [f"{name} is empty" for name in ("pid", "nodule_id", "image_path") if not row[name]]
    position = []
    for name in COLUMNS[3:]:
        number = _number(row[name], decimal_comma=row.decimal_comma)
        if not math.isfinite(number):
            problems.append(f"{name} is {row[name]!r}, not a number" if row[name] else f"{name} is empty")
        position.append(number)
    usable = all(math.isfinite(number) for number in position)
    return NoduleRow(
        pid=row["pid"],
        nodule_id=row["nodule_id"],
        image_path=_resolved(row.path, row["image_path"]),
        coords=coords,
        position=(position[0], position[1], position[2]) if usable else None,
        line=row.line,
        extra=MappingProxyType({name: value for name, value in row.cells.items() if name not in COLUMNS}),
        error=f"line {row.line}: " + "; ".join(problems) if problems else "",
    )


def _number(text: str, *, decimal_comma: bool) -> float:
    """The number, NaN where there is none."""
    try:
        return float(text.replace(",", ".") if decimal_comma else text)
    except ValueError:
        return math.nan


def _resolved(table: Path, written: str) -> Path:
    """The image beside the table, else in the working folder; where it is in neither, beside the table."""
    image = Path(written).expanduser() if written.startswith("~") else Path(written)
    beside = table.parent / image
    return image if not beside.exists() and image.exists() else beside


def load_cases(
    root: str | Path, *, coords: Coords = "lps", gaps: Gaps = "error", tilt: Tilt = "error"
) -> Iterator[Case]:
    """Give the images of a table one after the other, with their nodules.

    Args:
        root: The table, or a folder with ``nodules.csv`` or one other table.
        coords: As for :func:`read_nodules`; for ``"voxel"`` each image is read once while iterating.
        gaps: As for :func:`spicula.formats.read_volume`.
        tilt: The same.

    Returns:
        Cases in the order of the table; ``case_id`` is the image's path. ``diameter_mm``, ``score`` and ``split`` are
        taken from columns of these names, ``truth["label"]`` from ``malignant``, attributes from ``attribute_NAME``;
        every other column whose cells are numbers or empty is a truth of its name (``truth_`` before it is dropped).

    Raises:
        InputError: There is no table, it cannot be read, or a row of it cannot be used; a nodule is there twice, or an
            image is of two patients.
    """
    table = read_nodules(_table_of(Path(root)), coords=coords)
    for row in table.rows:
        if row.error:
            raise InputError(f"{table.path}, {row.error}")
    for row in table.rows:
        _check_own(table, row)
    numbers = _numeric_columns(table)
    read = partial(read_volume, gaps=gaps, tilt=tilt)
    return (_case(table, rows, numbers, read) for rows in _by_image(table).values())


def _check_own(table: NoduleTable, row: NoduleRow) -> None:
    """Refuse words where a number is meant; a column of another name may hold what it likes."""
    for name in (LABEL, "diameter_mm", "score"):
        cell = row.extra.get(name, "")
        if cell.lower() in ABSENT_WORDS:
            continue
        number = _number(cell, decimal_comma=table.decimal_comma)
        fits = {LABEL: 0 <= number <= 1, "diameter_mm": number > 0}.get(name, True)
        if not math.isfinite(number) or not fits:
            expected = {LABEL: "0 to 1", "diameter_mm": "a number above 0"}.get(name, "a number") + " or nothing"
            raise InputError(f"{table.path}, line {row.line}: {name}", got=repr(cell), expected=expected)


def _table_of(root: Path) -> Path:
    if not root.is_dir():
        return root
    tables = sorted([*root.glob("*.csv"), *root.glob("*.csv.gz")])
    named = [path for path in tables if path.name in ("nodules.csv", "nodules.csv.gz")]
    found = named or tables
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{root}: the table of nodules", got=names, expected="nodules.csv, or one .csv file")
    return found[0]


def _by_image(table: NoduleTable, *, refused: list[tuple[int, str]] | None = None) -> dict[Path, list[NoduleRow]]:
    """Rows of each image; one that clashes with another is an error, or left out with its line and why."""
    images: dict[Path, list[NoduleRow]] = {}
    for row in table.rows:
        rows, problem = images.setdefault(row.image_path, []), None
        if rows and rows[0].pid != row.pid:
            problem = InputError(
                f"{table.path}, line {row.line}: {row.image_path}", got=f"patients {rows[0].pid} and {row.pid}",
                expected="one patient an image",
            )  # fmt: skip
        elif any(other.nodule_id == row.nodule_id for other in rows):
            problem = InputError(f"{table.path}, line {row.line}: nodule {row.nodule_id} of {row.pid} is there twice")
        if problem is None:
            rows.append(row)
        elif refused is None:
            raise problem
        else:
            refused.append((row.line, str(problem)))
    return images


def _numeric_columns(table: NoduleTable) -> tuple[str, ...]:
    """Further columns that hold a number in at least one row and nothing else."""
    found = []
    for name in table.extra_columns:
        cells = [row.extra[name] for row in table.rows if row.extra[name].lower() not in ABSENT_WORDS]
        if cells and all(math.isfinite(_number(cell, decimal_comma=table.decimal_comma)) for cell in cells):
            found.append(name)
    return tuple(found)


def _case(
    table: NoduleTable, rows: Sequence[NoduleRow], numbers: Sequence[str], read: Callable[[Path], Volume] = read_volume
) -> Case:
    image = rows[0].image_path
    load = partial(read, image)
    grid = load().geometry if rows[0].coords == "voxel" else _NO_GRID
    findings = tuple(_finding(row, grid, numbers, decimal_comma=table.decimal_comma) for row in rows)
    try:
        case_id = image.relative_to(table.path.parent).as_posix()
    except ValueError:
        case_id = image.as_posix()
    splits = {row.extra.get("split", "") for row in rows}
    if len(splits) > 1:
        raise InputError(f"{table.path}, line {rows[-1].line}: {image} is in two splits", got=", ".join(sorted(splits)))
    return Case(rows[0].pid, load, findings, case_id, splits.pop())


_NO_GRID = Geometry.from_axes((1, 1, 1), (1, 1, 1))


def _finding(row: NoduleRow, grid: Geometry, numbers: Sequence[str], *, decimal_comma: bool) -> Finding:
    given = {name: _number(row.extra[name], decimal_comma=decimal_comma) for name in numbers}
    given = {name: value for name, value in given.items() if math.isfinite(value)}
    own = {name: given.pop(name, None) for name in ("diameter_mm", "score")}
    given.pop("split", None)
    attributes = {name.removeprefix(ATTRIBUTE): v for name, v in given.items() if name.startswith(ATTRIBUTE)}
    truth = {_truth_name(name): value for name, value in given.items() if not name.startswith(ATTRIBUTE)}
    finding = Finding(
        row.nodule_id, row.center_xyz_mm(grid),
        attributes=MappingProxyType(attributes), truth=MappingProxyType(truth),
    )  # fmt: skip
    return replace(finding, diameter_mm=own["diameter_mm"], score=own["score"])


def _truth_name(column: str) -> str:
    return "label" if column == LABEL else column.removeprefix(TRUTH)


def verify(root: str | Path, *, coords: Coords = "lps", deep: bool = False) -> Iterator[Check]:
    """Check every row, every image's header, and that nodules lie inside.

    Args:
        root: As for :func:`load_cases`.
        coords: As for :func:`read_nodules`.
        deep: Read the pixels too, and look for tissue at each place.

    Returns:
        One Check after the other.

    Raises:
        InputError: There is no such file or folder.
    """
    root = Path(root)
    return _checks(root if root.is_file() else require_folder(root), coords=coords, deep=deep)


def _checks(root: Path, *, coords: Coords, deep: bool) -> Iterator[Check]:
    try:
        table = read_nodules(_table_of(root), coords=coords)
    except InputError as error:
        yield Check("broken", "table", str(error), root)
        return
    bad = set()
    for row in table.rows:
        try:
            _check_own(table, row)
            problem = row.error
        except InputError as error:
            problem = str(error)
        if problem:
            bad.add(row.line)
            yield Check("broken", "row", problem, table.path, row.line)
    good = replace(table, rows=tuple(row for row in table.rows if row.line not in bad))
    refused: list[tuple[int, str]] = []
    images = _by_image(good, refused=refused)
    for line, problem in refused:
        yield Check("broken", "row", problem, table.path, line)
    usable = sum(map(len, images.values()))
    yield Check("ok" if usable == len(table.rows) else "warning", "rows", f"{usable:,} can be used")
    tally, numbers = Tally(), _numeric_columns(good)
    for image, rows in images.items():
        if not image.exists():
            yield Check("missing", "image", f"{len(rows)} nodules are in it", image, rows[0].line)
            continue
        try:
            case = _case(good, rows, numbers)
        except InputError as error:
            yield Check("broken", "image", str(error), image, rows[0].line)
            continue
        yield from place_checks(case, image, deep=deep, tally=tally)
    yield from tally_checks(tally, convention=coords.upper() if coords != "voxel" else "voxel indices")
