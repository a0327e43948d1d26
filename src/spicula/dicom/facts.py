"""What a store keeps of an instance's header: identity, a few words to find it by, and how large its frames are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom

from spicula.core.errors import InputError
from spicula.dicom.archive import parse, unreadable
from spicula.dicom.inbox import facts_of
from spicula.dicom.remote import checked_uid

_TAGS = [
    0x00080016, 0x00080018, 0x00080020, 0x00080050, 0x00080060, 0x00081030, 0x0008103E, 0x00100010, 0x00100020,
    0x00180015, 0x00180050, 0x0020000D, 0x0020000E, 0x00200011, 0x00200013, 0x00280008, 0x00280010, 0x00280011,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """What is known of an instance.

    Args:
        study: ``study_uid``, ``patient_id``, ``patient_name``, ``study_date``, ``description``,
            ``accession_number``, ``body_part``.
        series: ``series_uid``, ``modality``, ``description``, ``number``, ``slice_thickness_mm``.
        instance: ``sop_instance_uid``, ``sop_class_uid``, ``transfer_syntax_uid``, ``number``, ``rows``, ``columns``,
            ``frames``.
    """

    study: Mapping[str, Any]
    series: Mapping[str, Any]
    instance: Mapping[str, Any]


def instance_facts(path: Path) -> InstanceFacts:
    """Read the header of a whole DICOM file.

    Text is shown to people later: control characters and half characters are taken out here, and what is longer than
    the standard allows is cut.

    Args:
        path: A file; not a member of a zip.

    Raises:
        InputError: It is not DICOM, is cut short, lacks study, series, instance or class, or has a UID that is none.
    """
    arrived = facts_of(path)
    for name in ("study_uid", "series_uid", "sop_instance_uid", "sop_class_uid"):
        checked_uid(getattr(arrived, name), name.replace("_", " "))
    try:
        with warnings.catch_warnings():  # of odd text and numbers, which are kept as they are or left out
            warnings.simplefilter("ignore")
            return _facts(parse(str(path), pixels=False, tags=_TAGS))
    except InputError:
        raise
    except Exception as error:  # pydicom raises whatever a broken file makes it stumble over
        raise unreadable(path.name, error) from error


def _facts(dataset: pydicom.Dataset) -> InstanceFacts:
    study = {
        "study_uid": str(dataset.StudyInstanceUID), "patient_id": _text(dataset, "PatientID", 64),
        "patient_name": _text(dataset, "PatientName", 324), "study_date": _date(dataset),
        "description": _text(dataset, "StudyDescription", 64),
        "accession_number": _text(dataset, "AccessionNumber", 16),
        "body_part": _text(dataset, "BodyPartExamined", 16),
    }  # fmt: skip
    series = {
        "series_uid": str(dataset.SeriesInstanceUID), "modality": _text(dataset, "Modality", 16),
        "description": _text(dataset, "SeriesDescription", 64), "number": _whole(dataset, "SeriesNumber"),
        "slice_thickness_mm": _number(dataset, "SliceThickness"),
    }  # fmt: skip
    instance = {
        "sop_instance_uid": str(dataset.SOPInstanceUID), "sop_class_uid": str(dataset.SOPClassUID),
        "transfer_syntax_uid": str(dataset.file_meta.TransferSyntaxUID), "number": _whole(dataset, "InstanceNumber"),
        "rows": _whole(dataset, "Rows"), "columns": _whole(dataset, "Columns"),
        "frames": max(1, _whole(dataset, "NumberOfFrames") or 1),
    }  # fmt: skip
    return InstanceFacts(study, series, instance)


def _text(dataset: pydicom.Dataset, keyword: str, longest: int) -> str:
    value = dataset.get(keyword)
    text = str(value if value is not None else "").encode("utf-8", "replace").decode("utf-8")
    return "".join(" " if ord(c) < 32 or 127 <= ord(c) < 160 else c for c in text).strip()[:longest]


def _date(dataset: pydicom.Dataset) -> str:
    text = _text(dataset, "StudyDate", 10).replace(".", "")
    return text if len(text) == 8 and text.isdigit() else ""


def _number(dataset: pydicom.Dataset, keyword: str) -> float | None:
    try:
        value = float(str(dataset.get(keyword)))
    except ValueError:
        return None
    return value if abs(value) < 1e9 else None


def _whole(dataset: pydicom.Dataset, keyword: str) -> int | None:
    value = _number(dataset, keyword)
    return None if value is None or value != int(value) or abs(value) >= 2**31 else int(value)
