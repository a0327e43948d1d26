"""What the data sets' ``verify`` have in common: counts against the published ones, tables row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from spicula.core.errors import InputError
from spicula.datasets.catalog import Check
from spicula.formats.table import Row, Table, read_table

T = TypeVar("T")


def require_folder(root: str | Path) -> Path:
    """The folder as a path.

    Raises:
        InputError: There is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder", hint="name the folder that holds the data set")
    return root


def count_check(what: str, found: int, published: int, *, path: Path | None = None, hint: str = "") -> Check:
    """Compare a count with the published one.

    Args:
        what: What was counted, in the plural: ``"scans"``.
        found: How many there are.
        published: How many there should be.
        path: The file they were counted in.
        hint: What may be the cause where they differ.

    Returns:
        ``ok`` or ``warning``.

    Example:
        >>> count_check("scans", 888, 888).message
        '888, as published'
        >>> count_check("scans", 89, 888, hint="subset1 is missing").message
        '89, published are 888: subset1 is missing'
    """
    if found == published:
        return Check("ok", what, f"{found:,}, as published", path)
    return Check("warning", what, f"{found:,}, published are {published:,}" + (f": {hint}" if hint else ""), path)


def table_or_check(
    path: Path | None,
    *,
    name: str,
    required: Sequence[str],
    optional: bool = False,
    aliases: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
) -> tuple[Table | None, list[Check]]:
    """Read a table, or say what is wrong with it.

    Args:
        path: The file; None where none was found.
        name: What it is called, for the message.
        required: As for :func:`spicula.formats.table.read_table`.
        optional: A missing one is no fault.
        aliases: As for :func:`spicula.formats.table.read_table`.
        columns: As for :func:`spicula.formats.table.read_table`.

    Returns:
        The table with ragged rows left out, and what was wrong: a Check for the file or for each ragged row.
    """
    if path is None or not path.is_file():
        return None, [] if optional else [Check("missing", name, f"there is no {name}", path)]
    try:
        table = read_table(path, required=required, aliases=aliases, columns=columns, empty=True, ragged=True)
    except InputError as error:
        return None, [Check("broken", name, str(error), path)]
    checks = [
        Check("broken", name, f"{row.ragged} cells, expected {len(table.columns)}", path, row.line)
        for row in table
        if row.ragged is not None
    ]
    return Table(path, table.columns, tuple(row for row in table if row.ragged is None)), checks


def parsed_rows(table: Table | None, parse: Callable[[Row], T], *, what: str, found: list[T]) -> Iterator[Check]:
    """Parse row after row; one that cannot be parsed is one Check.

    Args:
        table: None yields nothing.
        parse: Raises InputError for a bad row.
        what: Of the Checks.
        found: What was parsed is added to it.

    Yields:
        A ``broken`` Check for each bad row.
    """
    for row in table or ():
        try:
            found.append(parse(row))
        except InputError as error:
            yield Check("broken", what, str(error), row.path, row.line)
