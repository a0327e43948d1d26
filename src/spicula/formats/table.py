"""Tables of text: CSV and TSV files, gzipped or not, every cell with the file and the line it came from."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from spicula.core.errors import InputError

_DELIMITERS = ",;\t"
_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SAVE = "save the table as CSV in UTF-8"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Args:
        path: The file.
        line: Its line, the header being 1 (in a spreadsheet, the row).
        cells: By column name, as written, without the spaces around.
        decimal_comma: Numbers may be written with a comma.
        ragged: How many cells the row has, where that is not the number of columns; None where it is.
    """

    path: Path
    line: int
    cells: Mapping[str, str]
    decimal_comma: bool = False
    ragged: int | None = None

    def __getitem__(self, column: str) -> str:
        """The cell of a column.

        Raises:
            KeyError: The table has no such column.
        """
        return self.cells[column]

    @property
    def where(self) -> str:
        """File and line, to begin a message with."""
        return f"{self.path}, line {self.line}"

    def text(self, column: str) -> str:
        """The cell of a column that must not be empty.

        Raises:
            InputError: It is empty; names file, line and column.
        """
        value = self.cells[column]
        if not value:
            raise InputError(f"{self.where}: {column} is empty")
        return value

    def number(self, column: str) -> float:
        """A finite number.

        Raises:
            InputError: The cell is not one; names file, line and column.
        """
        value = self.number_or_none(column)
        if value is None:
            raise InputError(f"{self.where}: {column}", got="nothing", expected="a number")
        return value

    def number_or_none(self, column: str) -> float | None:
        """A finite number, or None where the cell is empty.

        Raises:
            InputError: The cell holds something else; names file, line and column.
        """
        written = self.cells[column]
        if not written:
            return None
        try:
            value = float(written.replace(",", ".") if self.decimal_comma else written)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{self.where}: {column}", got=repr(written), expected="a finite number")
        return value

    def whole(self, column: str) -> int:
        """A whole number, also where it is written like ``3.0``.

        Raises:
            InputError: The cell is not one; names file, line and column.
        """
        value = self.number(column)
        if value != int(value):
            raise InputError(f"{self.where}: {column}", got=repr(self.cells[column]), expected="a whole number")
        return int(value)


@dataclass(frozen=True, slots=True)
class Table:
    """All rows of a table.

    Args:
        path: The file.
        columns: Names, in their order.
        rows: In the order of the file; empty lines are left out.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        """Row after row."""
        return iter(self.rows)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)


def read_table(
    path: str | Path,
    *,
    required: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
    empty: bool = False,
    ragged: bool = False,
) -> Table:
    """Read a table with commas, semicolons or tabs, UTF-8 with or without a byte order mark, gzipped or not.

    Args:
        path: The file.
        required: Columns that must be there; case and order do not matter, the names given here are used.
        aliases: Other names for columns, lower case: ``{"score": "probability"}``.
        columns: Names for a file that may have no header: where the first line does not hold all of them, it is data.
        empty: Accept a file without rows.
        ragged: Accept rows with too few or too many cells (``Row.ragged`` says so); else they are an error.

    Returns:
        The table.

    Raises:
        InputError: The file cannot be read, is not UTF-8 or not a table, lacks a column, names one twice, has a row of
            another length, or has no row.
    """
    path = Path(path)
    text = _text(path)
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: not a table: {error}", expected="comma, semicolon or tab separated",
            hint="is a quote opened and not closed?",
        ) from error  # fmt: skip
    return _table(
        path, lines, required=required, aliases=aliases, columns=columns, empty=empty, ragged=ragged,
        decimal_comma=delimiter != ",",
    )  # fmt: skip


def _table(
    path: Path,
    lines: Sequence[tuple[int, Sequence[str]]],
    *,
    required: Sequence[str],
    aliases: Mapping[str, str] | None,
    columns: Sequence[str] | None = None,
    empty: bool,
    ragged: bool,
    decimal_comma: bool = False,
) -> Table:
    """Rows of cells as a table, its first row being the header."""
    if not lines and not (empty and columns is not None):
        wanted = ",".join(columns or required)
        raise InputError(f"{path} is empty", expected=f"columns {wanted}" if wanted else "a table")
    names = _named(lines[0][1], required=columns or required, aliases=aliases or {}) if lines else []
    if columns is not None and not set(columns) <= set(names):
        names, body = list(columns), lines
    else:
        _check_columns(path, names, required)
        body = lines[1:]
    if not body and not empty:
        raise InputError(f"{path} holds no row", expected="one or more below the header")
    rows = []
    for line, cells in body:
        fits = len(cells) == len(names)
        if not fits and not ragged:
            raise InputError(f"{path}, line {line}", got=f"{len(cells)} cells", expected=f"{len(names)}")
        values = dict(zip(names, [*cells, *[""] * len(names)], strict=False))
        rows.append(Row(path, line, MappingProxyType(values), decimal_comma, None if fits else len(cells)))
    return Table(path, tuple(names), tuple(rows))


def _named(header: Sequence[str], *, required: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    """Names of the columns, the required ones in their canonical spelling."""
    canonical = {name.lower(): name for name in required}
    named = [canonical.get(name.lower(), name) for name in header]
    there = set(named)
    return [name if (other := aliases.get(name.lower(), name)) in there else other for name in named]


def _check_columns(path: Path, names: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in names]
    if missing:
        raise InputError(
            f"{path}: column {', '.join(missing)} missing", got=", ".join(names), expected=",".join(required),
            hint="the first line must name the columns",
        )  # fmt: skip
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise InputError(f"{path}: columns named twice", got=", ".join(map(repr, twice)), expected="each name once")


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        if content.startswith(_UTF16) or b"\0" in content[:2]:
            raise InputError(f"{path} is UTF-16 text", expected="UTF-8", hint=_SAVE)
        return content.decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is a damaged gzip file: {error}", hint="fetch it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text", hint=_SAVE) from error
