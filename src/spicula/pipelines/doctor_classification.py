"""Predictions of a classifier and splits of data, examined before they are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from spicula.core.errors import InputError
from spicula.formats.table import Row, Table, read_table
from spicula.metrics.classification import auroc
from spicula.metrics.doctor import ids, labels, split
from spicula.metrics.doctor.complaint import Complaint, some_of
from spicula.pipelines.doctor_tables import number_or_none, unreadable_numbers
from spicula.pipelines.predictions_table import LABELS, NODULE, PATIENT, SCORES

Fact = str | int | float

STUDY = ("study_uid", "studyinstanceuid", "study_instance_uid", "studyuid", "study")
SERIES = ("seriesuid", "series_uid", "seriesinstanceuid", "series_instance_uid", "series")
FILE = ("image_path", "path", "filename", "file_name", "file", "image", "crop")
SIDE = ("split", "fold", "subset", "partition", "set", "side")
"""Columns looked for, in this order; case does not matter."""


def examine_predictions(path: Path, truth: Path | None = None) -> tuple[tuple[Complaint, ...], dict[str, Fact]]:
    """Examine predictions of a classifier.

    Args:
        path: A row a nodule: patient, nodule, probability, and the label where ``truth`` is not given.
        truth: Patient, nodule and label.

    Returns:
        The complaints and the facts.

    Raises:
        InputError: A file cannot be read, or lacks a column for patient or nodule, probability or label.
    """
    table = read_table(path, ragged=True)
    score = _needed(table, SCORES, "probability")
    told: list[Complaint] = []
    numbers = [number_or_none(row, score) for row in table]
    bad = [row for row, value in zip(table, numbers, strict=True) if value is None]
    if bad:
        told.append(unreadable_numbers(bad, score, what="predictions", of=len(table)))
    kept = [(row, value) for row, value in zip(table, numbers, strict=True) if value is not None]
    facts: dict[str, Fact] = {"rows": len(table), "rows_with_probability": len(kept)}
    if not kept:
        return tuple(told), facts
    keys = _keys(table)
    told += labels.key_complaints([_said(key) for key in keys], what="predictions")
    probability = np.array([value for _, value in kept])
    told += labels.probability_complaints(probability)
    told += _folds(table)
    if truth is None and _column(table, LABELS) is None:
        told.append(Complaint(
            "labels.none", "note", "no labels were given: the probabilities were examined by themselves",
            "give --truth with patient, nodule and label",
        ))  # fmt: skip
        return tuple(told), facts
    wanted, more = _labels(table, keys, truth)
    told += more
    of_rows = zip(_keys_of(table, kept, keys), probability.tolist(), strict=True)
    more, seen = _examine_labels([(key[0], value, wanted[key]) for key, value in of_rows if key in wanted])
    return (*told, *more), {**facts, **seen}


def _examine_labels(rows: Sequence[tuple[str, float, float]]) -> tuple[list[Complaint], dict[str, Fact]]:
    """Patient, probability and label of each row."""
    facts: dict[str, Fact] = {"rows_with_label": len(rows)}
    if not rows:
        return [], facts
    y, p = np.array([label for _, _, label in rows]), np.array([value for _, value, _ in rows])
    patients = [patient for patient, _, _ in rows] if any(patient for patient, _, _ in rows) else None
    facts |= {"prevalence": round(float(y.mean()), 4), "patients": len(set(patients or []))}
    if set(np.unique(y)) == {0.0, 1.0}:
        facts["auroc"] = round(auroc(y, p), 4)
    return list(labels.label_complaints(y, p, patients=patients)), facts


def examine_split(
    *, both: Path | None = None, train: Path | None = None, test: Path | None = None
) -> tuple[tuple[Complaint, ...], dict[str, Fact]]:
    """Look for patients on more than one side of a split.

    Args:
        both: A table with a column ``split`` or ``fold``.
        train: A table of one side; or a list of ids or files, a line each.
        test: Of the other.

    Returns:
        The complaints and the facts.

    Raises:
        InputError: A file cannot be read, one of two is missing, or no column tells the side or what a row is.
    """
    if both is not None:
        table = read_table(both, ragged=True)
        side = _needed(table, SIDE, "side of the split")
        rows, sides = list(table), [row[side] for row in table]
        columns = [_units(table)] * len(rows)
    else:
        if train is None or test is None:
            raise InputError("a split", got="one side", expected="--train and --test, or --split")
        tables = [(_listed(path), name) for path, name in ((train, "train"), (test, "test"))]
        rows = [row for table, _ in tables for row in table]
        sides = [name for table, name in tables for _ in table]
        columns = [units for table, _ in tables for units in [_units(table)] * len(table)]
    if not any(columns):
        raise InputError(
            f"{both or train}: no column tells patient, study, series or file", got=", ".join(rows[0].cells),
            expected=f"one of {', '.join(PATIENT[:4] + SERIES[:1])}",
        )  # fmt: skip
    units = {kind: [row[named[kind]] if kind in named else "" for row, named in zip(rows, columns, strict=True)]
             for kind in ("patient", "study", "series", "file-name", "nodule")}  # fmt: skip
    units["file-name"] = [split.patient_of_name(file or nodule) or ""
                          for file, nodule in zip(units["file-name"], units["nodule"], strict=True)]  # fmt: skip
    nodules = units.pop("nodule")
    told = split.split_complaints(sides, units, nodules=nodules)
    counts: dict[str, Fact] = {f"rows_{name}": sides.count(name) for name in sorted(set(sides))}
    return told, {"rows": len(rows), **counts}


def _column(table: Table, names: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in table.columns}
    return next((lower[name] for name in names if name in lower), None)


def _needed(table: Table, names: Sequence[str], what: str) -> str:
    column = _column(table, names)
    if column is None:
        raise InputError(
            f"{table.path}: no column with the {what}",
            got=", ".join(table.columns),
            expected=f"one of {', '.join(names)}",
        )
    return column


def _keys(table: Table) -> list[tuple[str, str]]:
    """Patient and nodule of each row."""
    patient, nodule = _column(table, PATIENT), _column(table, NODULE)
    if patient is None and nodule is None:
        _needed(table, PATIENT[:4] + NODULE[:2], "patient or nodule")
    return [(row[patient] if patient else "", row[nodule] if nodule else "") for row in table]


def _keys_of(table: Table, kept: Sequence[tuple[Row, float]], keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    of_row = {id(row): key for row, key in zip(table, keys, strict=True)}
    return [of_row[id(row)] for row, _ in kept]


def _said(key: tuple[str, str]) -> str:
    return " / ".join(part for part in key if part)


def _labels(
    table: Table, keys: Sequence[tuple[str, str]], truth: Path | None
) -> tuple[dict[tuple[str, str], float], list[Complaint]]:
    """Label of each nodule by its id in the predictions, and complaints about them."""
    source = read_table(truth, ragged=True) if truth is not None else table
    column = _needed(source, LABELS, "label")
    numbers = [number_or_none(row, column) for row in source]
    bad = [row for row, value in zip(source, numbers, strict=True) if value is None]
    what = "truth" if truth is not None else "predictions"
    told = [unreadable_numbers(bad, column, what=what, of=len(source))] if bad else []
    theirs = _keys(source)
    known = {key: value for key, value in zip(theirs, numbers, strict=True) if value is not None}
    if truth is None:
        return known, told
    told += labels.key_complaints([_said(key) for key in theirs], what="truth")
    renamed, more = _matched(keys, theirs)
    told += more
    return {key: known[renamed[key]] for key in keys if renamed.get(key) in known}, told


def _matched(
    ours: Sequence[tuple[str, str]], theirs: Sequence[tuple[str, str]]
) -> tuple[dict[tuple[str, str], tuple[str, str]], list[Complaint]]:
    """Nodules of the predictions found in the truth, patient by patient and nodule by nodule."""
    patients = ids.match_ids(
        [p for p, _ in ours], [p for p, _ in theirs], what="predictions", of="truth", rows="patients"
    )
    told = [c for c in patients.complaints if c.code != "ids.unknown"]
    renamed = {(p, n): (patients.found.get(p, p), n) for p, n in ours}
    known = set(theirs)
    if not set(renamed.values()) <= known:
        found = ids.match_ids(
            [n for _, n in ours], [n for _, n in theirs], what="predictions", of="truth", rows="nodules"
        )
        other = {key: (p, found.found.get(key[1], key[1])) for key, (p, _) in renamed.items()}
        if sum(value in known for value in other.values()) > sum(value in known for value in renamed.values()):
            renamed = other
            told += [c for c in found.complaints if c.code != "ids.unknown"]
    lost = [_said(key) for key, value in renamed.items() if value not in known]
    missing = sorted(_said(key) for key in known - set(renamed.values()))
    return renamed, [*told, *_unmatched(lost, missing, len(renamed), len(known))]


def _unmatched(lost: Sequence[str], missing: Sequence[str], n_ours: int, n_theirs: int) -> list[Complaint]:
    told = []
    if lost:
        told.append(Complaint(
            "ids.unknown", "error" if len(lost) > 0.01 * n_ours else "warning",
            f"{len(lost):,} of {n_ours:,} predicted nodules are not in the truth ({some_of(lost)})",
            "give the truth that belongs to the predictions", {"unknown": len(lost), "examples": list(lost[:5])},
        ))  # fmt: skip
    if missing:
        told.append(Complaint(
            "predictions.missing", "warning",
            f"{len(missing):,} of {n_theirs:,} nodules of the truth have no prediction ({some_of(missing)}): a score "
            "of the rest is of an easier or a harder set", "predict them too, or say which were left out and why",
            {"missing": len(missing), "examples": list(missing[:5])},
        ))  # fmt: skip
    return told


def _folds(table: Table) -> tuple[Complaint, ...]:
    """Patients in two folds of out-of-fold predictions."""
    side, patient, nodule = _column(table, SIDE), _column(table, PATIENT), _column(table, NODULE)
    if side is None or len({row[side] for row in table}) < 2:
        return ()
    study, series = _column(table, STUDY), _column(table, SERIES)
    named: Mapping[str, str | None] = {"patient": patient, "study": study, "series": series}
    units = {kind: [row[column] for row in table] for kind, column in named.items() if column is not None}
    nodules = [row[nodule] for row in table] if nodule is not None else None
    told = split.split_complaints([row[side] for row in table], units, nodules=nodules)
    return tuple(c for c in told if c.severity == "error")


def _units(table: Table) -> dict[str, str]:
    """Columns that tell what a row is."""
    named = {"patient": PATIENT, "study": STUDY, "series": SERIES, "file-name": FILE, "nodule": NODULE}
    found = {kind: _column(table, names) for kind, names in named.items()}
    return {kind: column for kind, column in found.items() if column is not None}


def _listed(path: Path) -> Table:
    """A table of one side, or a list of files or ids without a header."""
    table = read_table(path, ragged=True)
    if _units(table):
        return table
    return read_table(path, columns=("file",), ragged=True)
