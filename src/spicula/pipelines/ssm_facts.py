"""Facts of patients that a user has (age, sex, smoking ...), as columns for late fusion with features."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError

KEY = "patient_id"
MOST_KINDS = 20
"""A column of words with more different ones is no fact."""


def read_facts(path: Path, patients: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Read a table of facts.

    Numbers stay; words become one column for each word. What is missing becomes the column's mean, and a column says
    where it was missing. A patient who is not in the table has everything missing.

    Args:
        path: CSV with a column ``patient_id`` and others.
        patients: Whose facts are wanted, in this order; they may repeat.

    Returns:
        Names of the columns, and values ``[patients, columns]``.

    Raises:
        InputError: The table lacks its key, names a patient twice, knows none of the patients, or has a column of
            nothing or of too many different words.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read", got=str(error), expected="a CSV file") from error
    columns = [name for name in (rows[0] if rows else {}) if name and name != KEY]
    if not rows or KEY not in rows[0] or not columns:
        raise InputError(f"{path}", got=f"columns {', '.join(rows[0]) if rows else 'none'}",
                         expected=f"{KEY} and one fact or more")  # fmt: skip
    by_patient = {row[KEY]: row for row in rows}
    if len(by_patient) < len(rows):
        names = [row[KEY] for row in rows]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}", got=f"patient {twice} twice", expected="one row a patient")
    if not set(by_patient) & set(patients):
        raise InputError(f"{path}", got="none of the patients", expected=f"names such as {patients[0]}")
    told: list[tuple[str, NDArray[np.float64]]] = []
    for name in columns:
        words = [(by_patient.get(patient, {}).get(name) or "").strip() for patient in patients]
        told += _columns(f"{path}, column {name}", name, words)
    return tuple(name for name, _ in told), np.stack([values for _, values in told], axis=1)


def _columns(what: str, name: str, words: Sequence[str]) -> list[tuple[str, NDArray[np.float64]]]:
    known = sorted({word for word in words if word})
    if not known:
        raise InputError(
            what, got="nothing for any of the patients", expected="a number or a word", hint="leave it out"
        )
    missing = np.array([not word for word in words])
    lacking = [(f"{name} missing", missing.astype(np.float64))] if missing.any() else []
    try:
        numbers = np.array([float(word) if word else np.nan for word in words])
    except ValueError:
        if len(known) > MOST_KINDS:
            raise InputError(what, got=f"{len(known)} different words", expected=f"at most {MOST_KINDS}, or numbers",
                             hint="leave it out") from None  # fmt: skip
        return [(f"{name}={word}", np.array([w == word for w in words], dtype=np.float64)) for word in known] + lacking
    if not np.isfinite(numbers[~missing]).all():
        raise InputError(what, got="a number that is not finite", expected="finite numbers")
    numbers[missing] = numbers[~missing].mean()
    return [(name, numbers), *lacking]
