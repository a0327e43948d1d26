"""Findings as a table of nodules, as :mod:`spicula.datasets.nodule_csv` reads it."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from spicula.core.errors import InputError
from spicula.core.files import written_aside
from spicula.core.finding import Case
from spicula.datasets.nodule_csv import ATTRIBUTE, COLUMNS, LABEL, OWN, TRUTH
from spicula.datasets.places import has_place


def write_nodules(
    cases: Iterable[Case], path: str | Path, *, image_of: Callable[[Case], str | Path] | None = None
) -> int:
    """Write the findings of cases as a table, which appears whole or not at all.

    Findings whose place is not known are left out, and cases without any cannot be in such a table.

    Args:
        cases: One after the other.
        path: The CSV file.
        image_of: Path of a case's image, as it shall be written; the source of its volume, which is read for it, if
            None.

    Returns:
        Number of rows. Columns: :data:`COLUMNS` (LPS), ``malignant`` where there is a label, ``diameter_mm``,
        ``score`` and ``split`` where there are any, then truths and attributes by name.

    Raises:
        InputError: A volume cannot be read, or does not say where it came from.
    """
    rows = [row for case in cases for row in _rows_of(case, image_of or _source_of)]
    present = {name for row in rows for name in row}
    first = [*COLUMNS, *(name for name in (LABEL, *OWN) if name in present)]
    columns = [*first, *sorted(present - set(first), key=lambda name: (name.startswith(ATTRIBUTE), name))]
    with written_aside(Path(path)) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def _source_of(case: Case) -> str:
    source = case.load_volume().acquisition.source
    if not source:
        raise InputError(f"{case.case_id}: the volume does not say which file it is")
    return str(Path(source).resolve())


def _rows_of(case: Case, image_of: Callable[[Case], str | Path]) -> Iterator[dict[str, str]]:
    findings = [finding for finding in case.findings if has_place(finding)]
    image = str(image_of(case)) if findings else ""
    for finding in findings:
        numbers: dict[str, float | None] = dict(zip(COLUMNS[3:], finding.center_xyz_mm, strict=True))
        numbers |= {"diameter_mm": finding.diameter_mm, "score": finding.score}
        numbers |= {_column_of(name): value for name, value in finding.truth.items()}
        numbers |= {f"{ATTRIBUTE}{name}": value for name, value in finding.attributes.items()}
        words = {"pid": case.patient_id, "nodule_id": finding.id, "image_path": image}
        words |= {"split": case.split} if case.split else {}
        yield words | {n: repr(float(v)) for n, v in numbers.items() if v is not None and math.isfinite(v)}


def _column_of(truth: str) -> str:
    """The column of a truth; one that a reader would take for something else is marked."""
    if truth == "label":
        return LABEL
    taken = {name.lower() for name in (*COLUMNS, *OWN, LABEL)}
    marked = truth.lower() in taken or truth.startswith((ATTRIBUTE, TRUTH))
    return f"{TRUTH}{truth}" if marked else truth
