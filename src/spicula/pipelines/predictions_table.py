"""Tables of predictions with their truth, one row a nodule."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicula.core.bundle import sha256_of
from spicula.core.errors import InputError
from spicula.formats.table import Row, Table, read_table
from spicula.metrics.classification import FloatArray
from spicula.pipelines.froc_tables import FileFacts

SCORES = ("probability", "calibrated_ensemble", "ensemble", "score", "malignancy")
"""Columns looked for, in this order, where none is named."""

LABELS = ("label", "malignant", "malignancy_label", "truth")
"""Columns looked for, in this order, where none is named."""

PATIENT = ("pid", "patient_id", "patientid", "patient", "subject_id", "subject", "case")
NODULE = ("nodule_id", "nodule", "lesion_id", "lesion", "annotation_id")
"""Names of the columns that say whose nodule and which, the usual first; case does not matter."""

_ALIASES = {name: names[0] for names in (PATIENT, NODULE) for name in reversed(names[1:])}


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Predictions with their truth, one row a nodule.

    Args:
        path: The file.
        patient: ``[n]`` patient ids.
        nodule: ``[n]`` nodule ids within the patient.
        label: bool ``[n]``.
        score: float64 ``[n]``.
        columns: Names of the columns that score and label were read from.
        fold: ``[n]`` fold that left each row out; None where the file has no column ``fold``.
        failed: Rows left out because they have no score (only where that was allowed).
        unpredicted: Nodules of the file of labels that have no row here.
        files: Facts of what was read: ``"predictions"``, and ``"truth"`` where the labels are from a file of their own.
    """

    path: Path
    patient: NDArray[np.str_]
    nodule: NDArray[np.str_]
    label: NDArray[np.bool_]
    score: FloatArray
    columns: tuple[str, str]
    fold: NDArray[np.str_] | None = None
    failed: int = 0
    unpredicted: int = 0
    files: Mapping[str, FileFacts] = field(default_factory=dict)

    @property
    def split_hash(self) -> str:
        """Hash of which nodules these are and of the fold of each: equal hashes are the same test."""
        folds = self.fold if self.fold is not None else np.full(self.label.shape, "")
        rows = sorted(f"{p}\t{n}\t{f}" for p, n, f in zip(self.patient, self.nodule, folds, strict=True))
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def read_predictions(
    path: Path, *, score: str | None = None, label: str | None = None, truth: Path | None = None,
    allow_failed: bool = False,
) -> Predictions:  # fmt: skip
    """Read predictions: whose nodule and which (:data:`PATIENT`, :data:`NODULE`), a score and a label.

    Args:
        path: CSV file, such as ``spicula score`` writes.
        score: Column of the score; the first of :data:`SCORES` that is there if None. Case does not matter.
        label: Column of the label (0 or 1); the first of :data:`LABELS` that is there if None. Case does not matter.
        truth: Another CSV file with ``pid``, ``nodule_id`` and the label, if the labels are not in the first.
        allow_failed: Leave out rows without a score (they are counted); else they are an error.

    Returns:
        The rows, in the order of the file.

    Raises:
        InputError: A column is missing, a nodule is there twice or has no truth, a label is neither 0 nor 1, or a score
            is missing or not a number; names file and line.
    """
    table = read_table(path, required=("pid", "nodule_id"), aliases=_ALIASES)
    score_column = _column(table, score, SCORES, "score")
    labels_of = read_table(truth, required=("pid", "nodule_id"), aliases=_ALIASES) if truth else table
    label_column = _column(labels_of, label, LABELS, "label")
    labels = {key: _label(row, label_column) for key, row in _by_nodule(labels_of).items()}
    rows = _by_nodule(table)
    kept = {key: row for key, row in rows.items() if row[score_column] or not allow_failed}
    for key, row in kept.items():
        if key not in labels:
            raise InputError(
                f"{row.where}: pid {key[0]!r}, nodule {key[1]!r}",
                got=f"no such nodule in {truth}", expected="its label",
                hint="are leading zeros or a prefix missing?",
            )  # fmt: skip
    scores = [_score(row, score_column, allow_failed=allow_failed) for row in kept.values()]
    fold = next((name for name in table.columns if name.lower() == "fold"), None)
    folds = [row[fold] for row in kept.values()] if fold else None
    if not kept:
        raise InputError(f"{path}: no row with a score", expected="one or more")
    return Predictions(
        path, np.array([pid for pid, _ in kept]), np.array([nodule for _, nodule in kept]),
        np.array([labels[key] for key in kept]), np.array(scores), (score_column, label_column),
        np.array(folds) if folds else None, len(rows) - len(kept), len(labels.keys() - rows.keys()),
        {"predictions": _facts(table)} | ({"truth": _facts(labels_of)} if truth else {}),
    )  # fmt: skip


def _facts(table: Table) -> FileFacts:
    return FileFacts(table.path.name, sha256_of(table.path), len(table))


def _column(table: Table, named: str | None, known: Sequence[str], what: str) -> str:
    columns = {name.lower(): name for name in table.columns} | {name: name for name in table.columns}
    wanted = [key for name in ((named,) if named else known) for key in (name, name.lower())]
    found = next((columns[key] for key in wanted if key in columns), None)
    if found is None:
        hint = f"name it with --{what}" + (", or give the labels with --truth" if what == "label" else "")
        raise InputError(
            f"{table.path}: column with the {what} missing", got=", ".join(table.columns),
            expected=named or f"one of {', '.join(known)}", hint=hint,
        )  # fmt: skip
    return found


def _by_nodule(table: Table) -> dict[tuple[str, str], Row]:
    rows: dict[tuple[str, str], Row] = {}
    for row in table:
        key = row.text("pid"), row.text("nodule_id")
        if key in rows:
            raise InputError(
                f"{row.where}: pid {key[0]!r}, nodule {key[1]!r}", got=f"the nodule of line {rows[key].line} again",
                expected="each nodule once",
            )  # fmt: skip
        rows[key] = row
    return rows


def _label(row: Row, column: str) -> bool:
    value = row.number(column)
    if value not in (0, 1):
        raise InputError(f"{row.where}: {column}", got=row[column], expected="0 or 1")
    return value == 1


def _score(row: Row, column: str, *, allow_failed: bool) -> float:
    if not row[column] and not allow_failed:
        raise InputError(f"{row.where}: {column} is empty", hint="--allow-failed leaves such rows out and counts them")
    return row.number(column)
