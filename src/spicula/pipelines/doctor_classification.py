"""Predictions of a classifier and splits of data, examined before they are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from spicula.core.errors import InputError
from spicula.formats.table import Table, read_table
from spicula.metrics.classification import auroc
from spicula.metrics.doctor import ids, labels, split
from spicula.metrics.doctor.complaint import Complaint, some_of
from spicula.pipelines.doctor_tables import number_or_none, unreadable_numbers, whole_rows
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
    given = read_table(path, ragged=True)
    score = _needed(given, SCORES, "probability")
    keys_of = _key_columns(given)
    table, cut = whole_rows(given, what="predictions")
    told = [*cut, *_unnamed(keys_of, given, what="predictions")]
    numbers = [number_or_none(row, score) for row in table]
    bad = [row for row, value in zip(table, numbers, strict=True) if value is None]
    if bad:
        told.append(unreadable_numbers(bad, score, what="predictions", of=len(table)))
    probability = [value for value in numbers if value is not None]
    facts: dict[str, Fact] = {"rows": len(given), "rows_with_probability": len(probability)}
    if not probability:
        return tuple(told), facts
    told += _repeated(table, keys_of, what="predictions")
    told += labels.probability_complaints(probability)
    told += _folds(table)
    if truth is None and _column(table, LABELS) is None:
        told.append(Complaint(
            "labels.none", "note", "no labels were given: the probabilities were examined by themselves",
            "give --truth with patient, nodule and label",
        ))  # fmt: skip
        return tuple(told), facts
    wanted, more = _labels(table, keys_of, truth)
    told += more
    patients = [patient for patient, _ in _keys(table, keys_of)]
    rows = [(patient, value, label) for patient, value, label in zip(patients, numbers, wanted, strict=True)
            if value is not None and label is not None]  # fmt: skip
    more, seen = _examine_labels(rows)
    return (*told, *more), {**facts, **seen}


def _examine_labels(rows: Sequence[tuple[str, float, float]]) -> tuple[list[Complaint], dict[str, Fact]]:
    """Patient (``""`` where no column tells it), probability and label of each row."""
    facts: dict[str, Fact] = {"rows_with_label": len(rows)}
    if not rows:
        return [], facts
    y, p = np.array([label for _, _, label in rows]), np.array([value for _, value, _ in rows])
    patients = [patient for patient, _, _ in rows] if any(patient for patient, _, _ in rows) else None
    facts["prevalence"] = round(float(y.mean()), 4)
    facts |= {"patients": len(set(patients))} if patients is not None else {}
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
        table, cut = whole_rows(read_table(both, ragged=True), what="split")
        side = _needed(table, SIDE, "side of the split")
        rows, sides = list(table), [row[side] for row in table]
        columns = [_units(table)] * len(rows)
    else:
        if train is None or test is None:
            raise InputError("a split", got="one side", expected="--train and --test, or --split")
        listed = [_listed(path, what=name) for path, name in ((train, "train"), (test, "test"))]
        tables = [(table, name) for (table, _), name in zip(listed, ("train", "test"), strict=True)]
        cut = tuple(complaint for _, told in listed for complaint in told)
        rows = [row for table, _ in tables for row in table]
        sides = [name for table, name in tables for _ in table]
        columns = [units for table, _ in tables for units in [_units(table)] * len(table)]
    if cut and len(set(sides)) < 2:
        return cut, {"rows": len(rows)}
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
    told = (*cut, *split.split_complaints(sides, units, nodules=nodules))
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
            hint="the first line must name the columns",
        )
    return column


_Columns = tuple[str | None, str | None]
"""Names of the columns of patient and nodule."""


def _key_columns(table: Table) -> _Columns:
    found = _column(table, PATIENT), _column(table, NODULE)
    if found == (None, None):
        _needed(table, PATIENT[:4] + NODULE[:2], "patient or nodule")
    return found


def _keys(table: Table, columns: _Columns) -> list[tuple[str, str]]:
    """Patient and nodule of each row, ``""`` for what no column tells."""
    patient, nodule = columns
    return [(row[patient] if patient else "", row[nodule] if nodule else "") for row in table]


def _unnamed(columns: _Columns, table: Table, *, what: str) -> list[Complaint]:
    """What no column tells."""
    patient, nodule = columns
    told = []
    if patient is None:
        told.append(Complaint(
            "patients.no-column", "error",
            f"no column of the {what} tells the patient ({table.path.name} has {', '.join(table.columns)}; known are "
            f"{', '.join(PATIENT)}): no interval over patients can be had, evaluate classification refuses the table, "
            "and whether a nodule is there twice cannot be told", "add the patient's id as a column pid, or call it so",
            {"columns": list(table.columns), "known": list(PATIENT)},
        ))  # fmt: skip
    if nodule is None:
        told.append(Complaint(
            "nodules.no-column", "error",
            f"no column of the {what} tells the nodule ({table.path.name} has {', '.join(table.columns)}; known are "
            f"{', '.join(NODULE)}): evaluate classification refuses the table, and whether a nodule is there twice "
            "cannot be told", "number the nodules of each patient in a column nodule_id (1 where there is one)",
            {"columns": list(table.columns), "known": list(NODULE)},
        ))  # fmt: skip
    return told


def _repeated(table: Table, columns: _Columns, *, what: str) -> tuple[Complaint, ...]:
    """Nodules that are there twice, where columns tell whose and which they are."""
    if None in columns:
        return ()
    return labels.key_complaints([_said(key) for key in _keys(table, columns)], what=what)


def _said(key: tuple[str, str]) -> str:
    return " / ".join(part for part in key if part)


def _labels(table: Table, columns: _Columns, truth: Path | None) -> tuple[list[float | None], list[Complaint]]:
    """Label of each row of the predictions, None where it is not known, and complaints about them."""
    if truth is None:
        numbers, told = _label_numbers(table, what="predictions")
        return numbers, told
    given = read_table(truth, ragged=True)
    _needed(given, LABELS, "label")
    of_truth = _key_columns(given)
    source, cut = whole_rows(given, what="truth")
    told = [*cut, *_unnamed(of_truth, given, what="truth")]
    if not source.rows:
        return [None] * len(table), told
    numbers, more = _label_numbers(source, what="truth")
    told += [*more, *_repeated(source, of_truth, what="truth")]
    # Where one table does not tell the patient (or the nodule), the other's is not looked at either.
    of_both = [None not in pair for pair in zip(columns, of_truth, strict=True)]
    ours, theirs = (
        _keys(each, (names[0] if of_both[0] else None, names[1] if of_both[1] else None))
        for each, names in ((table, columns), (source, of_truth))
    )
    if not all(of_both) and len(set(theirs)) < len(theirs):
        return [None] * len(table), told
    known = {key: value for key, value in zip(theirs, numbers, strict=True) if value is not None}
    renamed, more = _matched(ours, theirs)
    return [known.get(renamed[key]) for key in ours], [*told, *more]


def _label_numbers(table: Table, *, what: str) -> tuple[list[float | None], list[Complaint]]:
    column = _needed(table, LABELS, "label")
    numbers = [number_or_none(row, column) for row in table]
    bad = [row for row, value in zip(table, numbers, strict=True) if value is None]
    return numbers, [unreadable_numbers(bad, column, what=what, of=len(table))] if bad else []


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
            "ids.unknown", "error",
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


def _listed(path: Path, *, what: str) -> tuple[Table, tuple[Complaint, ...]]:
    """A table of one side, or a list of files or ids without a header; complaints about rows of another length."""
    table = read_table(path, ragged=True)
    if _units(table):
        return whole_rows(table, what=f"{what} side")
    return read_table(path, columns=("file",), ragged=True), ()
