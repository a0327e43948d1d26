"""The tables beside LIDC-IDRI: whose series it is, and what became of 157 of the patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spicula.core.errors import InputError
from spicula.formats.spreadsheet import read_sheet
from spicula.formats.table import Row, read_table

METADATA = ("LIDC-IDRI_MetaData.csv", "metadata.csv")
"""TCIA's table of the series, and the one that comes with a download by the NBIA Data Retriever."""

_SERIES, _PATIENT, _MODALITY = "Series UID", "Patient Id", "Modality"
_ALIASES = {
    "series instance uid": _SERIES, "seriesinstanceuid": _SERIES, "seriesuid": _SERIES,
    "subject id": _PATIENT, "patientid": _PATIENT, "patient_id": _PATIENT, "modality": _MODALITY,
}  # fmt: skip

DIAGNOSES = ("unknown", "benign or non-malignant", "malignant, primary lung cancer", "malignant, metastatic")
"""What the numbers 0 to 3 of a diagnosis mean."""
METHODS = ("unknown", "two years of stable images", "biopsy", "surgical resection", "progression or response")
"""What the numbers 0 to 4 of the way to a diagnosis mean."""

_ID, _AT_PATIENT, _METHOD = "TCIA Patient ID", "Diagnosis at the Patient Level", "Diagnosis Method"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is known of one patient.

    Args:
        patient: Number of :data:`DIAGNOSES`.
        method: Number of :data:`METHODS`.
        nodules: Diagnoses of up to five nodules; which of the outlined ones they are, the table does not say.
        primary_site: Of a metastasis, in free text; often something else.
    """

    patient: int
    method: int
    nodules: tuple[int, ...] = ()
    primary_site: str = ""


def find_metadata(root: Path) -> Path | None:
    """The table of the series in a folder."""
    return next((root / name for name in METADATA if (root / name).is_file()), None)


def find_diagnoses(root: Path) -> Path | None:
    """The table of diagnoses in a folder: a spreadsheet whose name has ``diagnosis`` in it."""
    named = sorted(path for path in root.iterdir() if path.suffix.lower() in (".xls", ".xlsx"))
    return next((path for path in named if "diagnosis" in path.name.lower()), None)


def load_series_patients(path: Path, *, modality: str = "") -> dict[str, str]:
    """Patient of each series.

    Args:
        path: See :data:`METADATA`.
        modality: Of these series alone (``"CT"``); all if empty.

    Returns:
        Patient ids by series UID.

    Raises:
        InputError: The table cannot be read, or a row lacks its series or patient.
    """
    required = (_SERIES, _PATIENT, *([_MODALITY] if modality else []))
    rows = read_table(path, required=required, aliases=_ALIASES)
    return {row.text(_SERIES): row.text(_PATIENT) for row in rows if not modality or row[_MODALITY] == modality}


def load_diagnoses(path: Path) -> dict[str, Diagnosis]:
    """Diagnoses by patient id.

    Args:
        path: ``tcia-diagnosis-data-2012-04-20.xls``.

    Raises:
        InputError: It cannot be read, lacks a column, or holds a number that means nothing.
        MissingExtraError: The extra ``evaluate``, which reads spreadsheets, is not installed.
    """
    table = read_sheet(path, required=(_ID,))
    names: Mapping[str, str] = {}
    for wanted in (_AT_PATIENT, _METHOD):
        found = next((column for column in table.columns if column.startswith(wanted)), None)
        if found is None:
            raise InputError(f"{path}: column {wanted!r} missing", got=", ".join(table.columns[:3]))
        names = {**names, wanted: found}
    nodules = [column for column in table.columns if column.startswith("Nodule") and "Method" not in column]
    site = next((column for column in table.columns if column.startswith("Primary tumor site")), None)
    return {
        row.text(_ID): Diagnosis(
            _number(row, names[_AT_PATIENT], len(DIAGNOSES)), _number(row, names[_METHOD], len(METHODS)),
            tuple(_number(row, column, len(DIAGNOSES)) for column in nodules if row[column]), row[site] if site else "",
        )
        for row in table
    }  # fmt: skip


def _number(row: Row, column: str, count: int) -> int:
    value = row.whole(column)
    if not 0 <= value < count:
        raise InputError(f"{row.where}: {column.split(' 0')[0]}", got=value, expected=f"0 to {count - 1}")
    return value
