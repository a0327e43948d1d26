"""What a data set holds under a folder and whether its files are whole: ``spicula dataset describe``, ``verify``."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spicula.core.files import written_aside
from spicula.core.finding import Finding
from spicula.datasets.catalog import Check, dataset

_SINGLE_READER = re.compile(r"_reader\d+$")

REPORT_COLUMNS = ("state", "what", "message", "file", "line")
"""Columns of a verify report."""

_FEW = 12  # values of a truth up to which each is counted, else its quantiles are given


@dataclass(frozen=True, slots=True)
class Contents:
    """What was counted, without reading a pixel.

    Args:
        cases: Scans (or small volumes).
        patients: Different patient ids.
        findings: In all cases.
        cases_without_findings: Scans without any.
        splits: Cases of each split that the data set assigns; ``""`` for none.
        findings_with_diameter: Findings whose diameter is known.
        diameter_mm: Least, quartiles and largest diameter; empty where none is known.
        truth: For each fact that readers or pathology state: how many findings have it, and its values.
    """

    cases: int
    patients: int
    findings: int
    cases_without_findings: int
    splits: Mapping[str, int]
    findings_with_diameter: int
    diameter_mm: tuple[float, ...]
    truth: Mapping[str, str]

    def lines(self) -> list[str]:
        """As text, a line each."""
        found = [
            f"{_several(self.cases, 'scan')} of {_several(self.patients, 'patient')}, "
            f"{_several(self.findings, 'finding')}",
            f"{_several(self.cases_without_findings, 'scan')} without findings",
        ]
        if set(self.splits) != {""}:
            found.append("splits: " + ", ".join(f"{name or 'none'} {n:,}" for name, n in sorted(self.splits.items())))
        if self.diameter_mm:
            low, first, middle, third, high = self.diameter_mm
            found.append(
                f"diameter: {self.findings_with_diameter:,} known: median {middle:.1f} mm, "
                f"quartiles {first:.1f} to {third:.1f}, range {low:.1f} to {high:.1f}"
            )
        return found + [f"{name}: {text}" for name, text in self.truth.items()]


def describe(name: str, root: Path, *, progress: Callable[[int], None] | None = None) -> Contents:
    """Count what a data set holds under a folder; one case in memory at a time.

    Args:
        name: Of the data set.
        root: Its folder; for nodule-csv the table does too.
        progress: Called with the number of cases seen.

    Returns:
        The counts.

    Raises:
        InputError: No such data set or folder, or a file that the cases need is missing or broken.
    """
    patients: set[str] = set()
    splits: Counter[str] = Counter()
    values: dict[str, Counter[float]] = {}
    diameters: list[float] = []
    findings = empty = cases = 0
    for cases, case in enumerate(dataset(name).load_cases(root), start=1):
        patients.add(case.patient_id)
        splits[case.split] += 1
        findings += len(case.findings)
        empty += not case.findings
        diameters += [finding.diameter_mm for finding in case.findings if finding.diameter_mm is not None]
        for finding in case.findings:
            _count(finding, values)
        if progress:
            progress(cases)
    quantiles = np.quantile(diameters, [0, 0.25, 0.5, 0.75, 1]).tolist() if diameters else []
    return Contents(
        cases, len(patients), findings, empty, dict(splits), len(diameters), tuple(quantiles),
        {truth: _in_words(counts) for truth, counts in sorted(values.items())},
    )  # fmt: skip


def verify(name: str, root: Path, *, deep: bool = False) -> Iterator[Check]:
    """Look at every file of a data set under a folder.

    Args:
        name: Of the data set.
        root: Its folder; for nodule-csv the table does too.
        deep: Read the pixels of every image, not only its header.

    Yields:
        One check after the other.

    Raises:
        InputError: No such data set or folder.
    """
    yield from dataset(name).verify(root, deep=deep)


def write_report(path: Path, checks: Iterator[Check], *, seen: Callable[[Check], None]) -> None:
    """Write every check to a CSV file as it comes; the file appears whole or not at all.

    Args:
        path: The file.
        checks: From :func:`verify`.
        seen: Called with each.
    """
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(REPORT_COLUMNS)
        for check in checks:
            writer.writerow([check.state, check.what, check.message, check.path or "", check.line or ""])
            seen(check)


def _several(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _count(finding: Finding, values: dict[str, Counter[float]]) -> None:
    for name, value in finding.truth.items():
        if not np.isnan(value) and not _SINGLE_READER.search(name):
            values.setdefault(name, Counter())[round(value, 3)] += 1


def _in_words(counts: Counter[float]) -> str:
    total = sum(counts.values())
    if len(counts) <= _FEW:
        return f"{total:,} known: " + ", ".join(f"{value:g} ({n:,})" for value, n in sorted(counts.items()))
    low, middle, high = np.quantile(list(counts.elements()), [0, 0.5, 1])
    return f"{total:,} known: median {middle:g}, {low:g} to {high:g}"
