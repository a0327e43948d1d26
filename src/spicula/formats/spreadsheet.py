"""Spreadsheets (.xlsx, .xls) as tables of text."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.formats.table import Table, _table


def read_sheet(
    path: str | Path,
    *,
    required: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
    sheet: int | str = 0,
    empty: bool = False,
) -> Table:
    """Read one sheet; its first row that is not empty names the columns (line breaks in a name become spaces).

    Args:
        path: An .xlsx or .xls file.
        required: Columns that must be there; as in :func:`spicula.formats.table.read_table`.
        aliases: Other names for columns, lower case.
        sheet: Position or name.
        empty: Accept a sheet without rows.

    Returns:
        The table; a number is written as Python writes it, a whole one without a point.

    Raises:
        InputError: The file cannot be read as a spreadsheet, or as :func:`spicula.formats.table.read_table`.
        MissingExtraError: The extra ``evaluate`` is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    read = _xls if path.suffix.lower() == ".xls" else _xlsx
    grid = [
        (number, [" ".join(_written(value).split()) for value in cells])
        for number, cells in enumerate(read(path, sheet), start=1)
    ]
    lines = [(number, cells) for number, cells in grid if any(cells)]
    width = max((index + 1 for _, cells in lines[:1] for index, cell in enumerate(cells) if cell), default=0)
    lines = [(number, (cells + [""] * width)[:width]) for number, cells in lines]
    return _table(path, lines, required=required, aliases=aliases, empty=empty, ragged=False)


def _xlsx(path: Path, sheet: int | str) -> list[tuple[object, ...]]:
    openpyxl = require("openpyxl", extra="evaluate")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*extension is not supported", category=UserWarning)
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            name = _sheet(path, book.sheetnames, sheet)
            rows = [tuple(row) for row in book[name].iter_rows(values_only=True)]
            book.close()
    except (BadZipFile, KeyError, OSError, openpyxl.utils.exceptions.InvalidFileException) as error:
        raise InputError(f"{path} is not an .xlsx file: {error}") from error
    return rows


def _xls(path: Path, sheet: int | str) -> list[tuple[object, ...]]:
    xlrd = require("xlrd", extra="evaluate")
    try:
        book = xlrd.open_workbook(path)
    except (xlrd.XLRDError, OSError) as error:
        raise InputError(f"{path} is not an .xls file: {error}") from error
    page = book.sheet_by_name(_sheet(path, book.sheet_names(), sheet))
    return [tuple(page.row_values(number)) for number in range(page.nrows)]


def _sheet(path: Path, names: Sequence[str], sheet: int | str) -> str:
    if isinstance(sheet, int) and 0 <= sheet < len(names):
        return names[sheet]
    if sheet in names:
        return str(sheet)
    raise InputError(f"{path}: sheet", got=sheet, expected=f"one of {', '.join(names)}")


def _written(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
