"""What an archive (PACS) tells of its studies, series and instances, whether by DICOMweb or by DIMSE."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from pydicom.datadict import tag_for_keyword

from spicula.core.errors import InputError

Lookup = Callable[[str], tuple[str, ...]]
"""Gives the values of an element, as texts, by its DICOM keyword; empty where an answer lacks it."""

STUDY_KEYS = (
    *("StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "AccessionNumber", "StudyDescription"),
    *("ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
)
SERIES_KEYS = (
    *("StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesDescription", "SeriesNumber"),
    "NumberOfSeriesRelatedInstances",
)
INSTANCE_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "InstanceNumber")

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True, slots=True)
class RemoteStudy:
    """A study of an archive; what tells who the patient is stays out of its ``repr``, and so out of logs.

    Counts are None where the archive does not tell them.
    """

    study_uid: str
    patient_id: str = field(default="", repr=False)
    patient_name: str = field(default="", repr=False)
    accession_number: str = field(default="", repr=False)
    study_date: str = ""
    description: str = ""
    modalities: tuple[str, ...] = ()
    series_count: int | None = None
    instance_count: int | None = None


@dataclass(frozen=True, slots=True)
class RemoteSeries:
    """A series of an archive."""

    study_uid: str
    series_uid: str
    modality: str = ""
    description: str = ""
    number: int | None = None
    instance_count: int | None = None


@dataclass(frozen=True, slots=True)
class RemoteInstance:
    """An instance of an archive."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str = ""
    number: int | None = None


def study_of(lookup: Lookup) -> RemoteStudy:
    """Read a study from an answer."""
    return RemoteStudy(
        _one(lookup, "StudyInstanceUID"),
        patient_id=_one(lookup, "PatientID"),
        patient_name=_one(lookup, "PatientName"),
        accession_number=_one(lookup, "AccessionNumber"),
        study_date=_one(lookup, "StudyDate"),
        description=_one(lookup, "StudyDescription"),
        modalities=tuple(value for value in lookup("ModalitiesInStudy") if value),
        series_count=_number(lookup, "NumberOfStudyRelatedSeries"),
        instance_count=_number(lookup, "NumberOfStudyRelatedInstances"),
    )


def series_of(lookup: Lookup, study_uid: str = "") -> RemoteSeries:
    """Read a series from an answer; ``study_uid`` is what was asked for, where the answer does not repeat it."""
    return RemoteSeries(
        _one(lookup, "StudyInstanceUID") or study_uid,
        _one(lookup, "SeriesInstanceUID"),
        modality=_one(lookup, "Modality"),
        description=_one(lookup, "SeriesDescription"),
        number=_number(lookup, "SeriesNumber"),
        instance_count=_number(lookup, "NumberOfSeriesRelatedInstances"),
    )


def instance_of(lookup: Lookup, study_uid: str = "", *, series_uid: str = "") -> RemoteInstance:
    """Read an instance from an answer; the UIDs given are what was asked for."""
    return RemoteInstance(
        _one(lookup, "StudyInstanceUID") or study_uid,
        _one(lookup, "SeriesInstanceUID") or series_uid,
        _one(lookup, "SOPInstanceUID"),
        sop_class_uid=_one(lookup, "SOPClassUID"),
        number=_number(lookup, "InstanceNumber"),
    )


def _one(lookup: Lookup, keyword: str) -> str:
    values = lookup(keyword)
    return values[0].strip() if values else ""


def _number(lookup: Lookup, keyword: str) -> int | None:
    try:
        return int(float(_one(lookup, keyword)))
    except (ValueError, OverflowError):
        return None


def checked_filters(filters: Mapping[str, str]) -> dict[str, str]:
    """Check what to search by.

    Args:
        filters: Values by DICOM keyword, for example ``PatientID="P1"``, ``StudyDate="20240101-"``.

    Returns:
        The same.

    Raises:
        InputError: A keyword is not in the DICOM dictionary, or a value is no text. Values are not shown.
    """
    for keyword, value in filters.items():
        if tag_for_keyword(keyword) is None:
            raise InputError("filter", got=keyword, expected="a DICOM keyword such as PatientID or StudyDate")
        if not isinstance(value, str) or any(ord(letter) < 32 for letter in value):
            raise InputError(f"filter {keyword}", got="a value that is no text", expected="text without line ends")
    return dict(filters)


def is_uid(uid: str) -> bool:
    """Tell whether a text has the form of a UID: digits between dots, 64 characters at most."""
    return len(uid) <= 64 and _UID.fullmatch(uid) is not None


def checked_uid(uid: str, name: str) -> str:
    """Give a UID back, or refuse what does not have the form of one.

    Raises:
        InputError: It may not go into an address or a query.
    """
    if not isinstance(uid, str) or not is_uid(uid):
        raise InputError(name, got=repr(uid)[:80], expected="a UID: digits between dots, 64 characters at most")
    return uid


def safe_name(uid: str) -> str:
    """The name of a file or folder for a UID from outside; what does not have the form of one is hashed.

    Example:
        >>> safe_name("1.2.840.1"), safe_name("../../etc/passwd")
        ('1.2.840.1', 'uid-3754d6cb3a38e1185e5b382d')
    """
    if is_uid(uid):
        return uid
    return "uid-" + sha256(uid.encode("utf-8", "backslashreplace")).hexdigest()[:24]


_STATUS = {
    0x0105: "no such attribute",
    0x0106: "an attribute has an invalid value",
    0x0107: "attribute list error",
    0x0110: "the archive failed in processing it",
    0x0111: "the archive holds it already",
    0x0112: "no such object",
    0x0117: "invalid object instance",
    0x0118: "no such class",
    0x0119: "class and instance do not fit each other",
    0x0120: "a required attribute is missing",
    0x0121: "a required value is missing",
    0x0122: "the archive does not take this SOP class",
    0x0124: "not authorized",
    0x0210: "duplicate invocation",
    0x0211: "unrecognized operation",
    0x0213: "the archive lacks resources",
    0xA701: "out of resources: unable to count the matches",
    0xA702: "out of resources: unable to perform the transfers",
    0xA801: "the archive does not know the destination AE title",
    0xC122: "the archive does not take this transfer syntax",
    0xFE00: "canceled",
}
_STATUS_RANGES = (
    (0xA700, 0xA7FF, "out of resources (disk full?)"),
    (0xA900, 0xA9FF, "the object does not fit its SOP class or the query its model"),
    (0xB000, 0xBFFF, "done, with warnings"),
    (0xC000, 0xCFFF, "the archive cannot understand or process it"),
)


def status_in_words(status: int) -> str:
    """What a DIMSE status or a DICOMweb failure reason means.

    Example:
        >>> status_in_words(0xA700)
        'out of resources (disk full?) (0xA700)'

    References:
        DICOM PS3.4 B.2.3 and C.4, PS3.7 annex C, PS3.18 I.2.
    """
    words = _STATUS.get(status) or next((text for low, high, text in _STATUS_RANGES if low <= status <= high), "")
    return f"{words or 'no reason known'} (0x{status:04X})"
