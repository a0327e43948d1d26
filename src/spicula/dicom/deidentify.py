"""De-identified copies of images, by the basic profile of DICOM PS3.15, with dates that keep their intervals.

What the profile does to which attribute is the table of the package ``dicom-anonymizer``, which follows the standard;
it is applied here to every item of every sequence. New UIDs, the pseudonym and the days by which a patient's dates
move come from a secret of the store alone: what belongs together stays together, whenever and in whatever order it
comes, and the same file gives the same bytes again. Without the secret none of it can be traced back.

What is not an image of a scanner is refused: reports and documents hold free text, screen captures hold it in their
pixels.

References:
    DICOM PS3.15, Annex E: Basic Application Level Confidentiality Profile with the Retain Longitudinal Temporal
    Information With Modified Dates Option. Departures, all to the safe side: times of day are told from a study time
    of noon; free text that the table does not name is replaced too; attributes that are no DICOM are removed.
"""

from __future__ import annotations

import base64
import functools
import hmac
import os
import re
import secrets
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.core.files import written_aside
from spicula.dicom.archive import open_dataset
from spicula.dicom.inbox import facts_of
from spicula.dicom.writer import IMPLEMENTATION

KEY_FILE = "deidentification.key"
"""The secret of a store, in its folder: who has it and a patient's id can tell the pseudonym."""

METHOD = "DICOM PS3.15 basic profile, modified dates"

CODES = {
    "113100": "Basic Application Confidentiality Profile",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
}
"""What is done, in DICOM's words (context group 7050)."""

_TABLE = "dicomfields_2026c"
_ACTIONS = {
    "X": "X_TAGS", "Z": "Z_TAGS", "D": "D_TAGS", "U": "U_TAGS", "Z/D": "Z_D_TAGS", "X/Z": "X_Z_TAGS",
    "X/D": "X_D_TAGS", "X/Z/D": "X_Z_D_TAGS", "X/Z/U*": "X_Z_U_STAR_TAGS",
}  # fmt: skip
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_IMAGES = frozenset(
    _STORAGE + end
    for end in ("2", "2.1", "2.2", "4", "4.1", "4.4", "20", "128", "128.1", "130", "66.4")  # CT, MR, NM, PET, SEG
)
_UNPLACED = _STORAGE + "20"
"""Nuclear medicine: its images may be projections, without a place in the patient."""
_CAPTURED = re.compile(r"\b(SCREEN|SAVE|CAPTURE|PROT|PROTOCOL|DOSE|REPORT|SUMMARY|PATIENT)", re.IGNORECASE)
"""In the image type: what scanners call pages of text that they store as images."""

_FREE_TEXT = ("PN", "LT", "ST", "UT", "UC", "UR", "AE")
_TEXT = (*_FREE_TEXT, "AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM", "UI")
_CODED = ("LongCodeValue", "URNCodeValue")
_UNMOVED = ("PatientBirthDate", "PatientBirthTime", "GPSTimeStamp", "GPSDateStamp")
_DICOMS_OWN = "1.2.840.10008."
_DAY_S = 86_400


def secret_of(folder: Path) -> bytes:
    """The secret of a store: 256 random bits, made once.

    Args:
        folder: Of the store.

    Raises:
        InputError: The file is there and holds something else.
    """
    path = folder / KEY_FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=f".{KEY_FILE}-", dir=folder)  # only its owner may read it
        try:
            with os.fdopen(handle, "w") as stream:
                stream.write(secrets.token_hex(32) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            with suppress(FileExistsError):  # another was first: theirs it is
                os.link(aside, path)
        finally:
            os.unlink(aside)
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise InputError(str(path), got="something else", expected="64 hexadecimal digits", hint="restore a backup")
    return bytes.fromhex(text)


def deidentified(source: Path, out: Path, *, secret: bytes) -> None:
    """Write a de-identified copy of an image.

    Pixels, geometry and the scale of values stay as they are, to the byte. The same source and secret give the same
    bytes. No message of an error holds a value of the header.

    Args:
        source: A whole DICOM file: CT, MR, PET or NM images, or a segmentation.
        out: Where the copy goes.
        secret: Of the store, see :func:`secret_of`.

    Raises:
        InputError: It is not DICOM, is cut short, is no image of a scanner, or its pixels may show text.
        MissingExtraError: ``dicom-anonymizer`` is not installed.
    """
    _profile()
    facts_of(source)
    with warnings.catch_warnings():  # of odd values, which would name them
        warnings.simplefilter("ignore")
        try:
            dataset = open_dataset(str(source), pixels=True)
            _refuse(dataset)
            cleaner = _Cleaner(secret, dataset)
            cleaner.clean(dataset)
            dataset.PatientName = dataset.PatientID = cleaner.pseudonym()
            _say_so(dataset)
            with written_aside(out) as aside:
                dataset.save_as(aside, enforce_file_format=True)
        except (_Refused, OSError):
            raise
        except Exception as error:  # whatever a broken header makes pydicom stumble over; its words may quote it
            got = f"a header that cannot be read whole ({type(error).__name__})"
            raise InputError("an instance to de-identify", got=got) from None


def deidentified_uid(uid: str, *, secret: bytes) -> str:
    """The UID that :func:`deidentified` writes in the place of another; those of DICOM itself stay.

    Example:
        >>> deidentified_uid("1.2.3", secret=bytes(32)) == deidentified_uid("1.2.3", secret=bytes(32)) != "1.2.3"
        True
    """
    if uid.startswith(_DICOMS_OWN) or not uid:
        return uid
    return f"2.25.{int.from_bytes(_of(secret, 'uid', uid)[:16])}"


def kept_uid(uid: str, *, secret: bytes | None) -> str:
    """What a UID of elsewhere is in a store: itself without a secret, another where the store de-identifies by one."""
    return uid if secret is None else deidentified_uid(uid, secret=secret)


def takes(sop_class_uid: str) -> bool:
    """Whether :func:`deidentified` takes instances of a class; such an instance may be refused all the same."""
    return sop_class_uid in _IMAGES


def _of(secret: bytes, what: str, value: str) -> bytes:
    return hmac.digest(secret, f"{what}\0{value}".encode(), "sha256")


class _Refused(InputError):
    """An instance that cannot be made safe."""

    def __init__(self, got: str, expected: str | None = None) -> None:
        hint = "look at it, and leave it out or import it as it is"
        super().__init__("an instance to de-identify", got=got, expected=expected, hint=hint)


def _refuse(dataset: Dataset) -> None:
    kind = UID(str(dataset.SOPClassUID), validation_mode=0)
    if kind not in _IMAGES:
        name = kind.name if kind.name != kind else "an object of an unknown kind"
        raise _Refused(name, "an image of a scanner (CT, MR, PET, NM) or a segmentation")
    if str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        raise _Refused("text burned into its pixels (BurnedInAnnotation)")
    image_type = dataset.get("ImageType")
    words = " ".join([image_type] if isinstance(image_type, str) else image_type or ())
    if "ConversionType" in dataset or _CAPTURED.search(words.replace("_", " ")):
        raise _Refused("a screen capture or a page of text", "an image of a scanner")
    if not str(dataset.get("PhotometricInterpretation", "")).startswith("MONOCHROME"):
        raise _Refused("an image in color or of no told kind, maybe a screen capture", "MONOCHROME1 or MONOCHROME2")
    placed = "ImagePositionPatient" in dataset or "PerFrameFunctionalGroupsSequence" in dataset
    if not placed and kind != _UNPLACED:
        raise _Refused("an image without a place in the patient, maybe a screen capture", "an image of a scanner")
    for group in range(0x6000, 0x6100, 2):
        if (group, 0x0010) in dataset and (group, 0x3000) not in dataset and dataset.get((group, 0x0102)):
            raise _Refused("an overlay within its pixels", "overlays of their own, which are removed")


@functools.cache
def _profile() -> Mapping[int, str]:
    """What the profile does to an attribute, by tag; groups that repeat are not among them."""
    module = require(f"dicomanonymizer.dicom_anonymization_databases.{_TABLE}", extra="serve")
    return {
        (tag[0] << 16) | tag[1]: action
        for action, name in _ACTIONS.items()
        for tag in getattr(module, name)
        if len(tag) == 2
    }


class _Cleaner:
    """Takes out of a data set what tells who it is of."""

    def __init__(self, secret: bytes, dataset: Dataset) -> None:
        self._secret = secret
        patient = str(dataset.get("PatientID") or "").strip()
        self._patient = patient or f"study {dataset.StudyInstanceUID}"
        self._days = timedelta(days=365 + int.from_bytes(_of(secret, "days", self._patient)[:8]) % 3287)
        start_s = _seconds(str(dataset.get("StudyTime") or ""))
        self._later_s = None if start_s is None else _DAY_S // 2 - start_s

    def clean(self, dataset: Dataset) -> None:
        """Clean a data set and all that is nested in it."""
        times = {
            element.keyword: _seconds(str(element.value or ""))
            for element in (dataset[tag] for tag in dataset.keys() if _vr(dataset, tag) == "TM")  # noqa: SIM118
        }
        for tag in list(dataset.keys()):
            vr = _vr(dataset, tag)
            if vr is None:
                del dataset[tag]
            else:
                self._element(dataset, tag, vr, times)

    def _element(self, dataset: Dataset, tag: BaseTag, vr: str, times: Mapping[str, int | None]) -> None:
        action, keyword = _profile().get(tag), keyword_for_tag(tag)
        if vr in ("DA", "TM", "DT") and keyword not in _UNMOVED:
            self._move(dataset[tag], vr, times)
        elif keyword == "PatientID":
            dataset[tag].value = self.pseudonym(str(dataset[tag].value or "").strip())
        elif keyword == "SegmentLabel":
            dataset[tag].value = f"Segment {dataset.get('SegmentNumber', '')}".strip()
        elif action == "X" or (vr == "SQ" and action in ("D", "X/D")):  # no image needs one of these sequences
            del dataset[tag]
        elif vr == "UI":
            dataset[tag].value = _each(dataset[tag].value, self._uid)
        elif vr == "SQ" and action in ("Z", "X/Z", "X/Z/D"):
            dataset[tag].value = []
        elif vr == "SQ":
            for item in dataset[tag].value:
                self.clean(item)
        elif action in ("Z", "X/Z"):
            dataset[tag].value = None
        elif action is not None or (vr in _FREE_TEXT and keyword not in _CODED):
            _replace(dataset, tag)

    def pseudonym(self, patient: str = "") -> str:
        """Of a patient by id; of the one whose data set it is if none is given."""
        return "ANON-" + base64.b32encode(_of(self._secret, "patient", patient or self._patient)).decode()[:12]

    def _uid(self, uid: str) -> str:
        return deidentified_uid(uid, secret=self._secret)

    def _move(self, element: Any, vr: str, times: Mapping[str, int | None]) -> None:
        if vr == "DA":
            seconds = times.get(element.keyword.replace("Date", "Time"))
            element.value = _each(element.value, lambda text: self._date(text, seconds))
        else:
            element.value = _each(element.value, self._time if vr == "TM" else self._moment)

    def _date(self, text: str, seconds: int | None = None) -> str:
        """Another day; the next one where the time of day that belongs to it moves beyond midnight."""
        found = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})", text.strip())
        if found is None:
            return ""
        over = 0 if seconds is None or self._later_s is None else (seconds + self._later_s) // _DAY_S
        try:
            return (date(*map(int, found.groups())) - self._days + timedelta(days=over)).strftime("%Y%m%d").zfill(8)
        except (ValueError, OverflowError):
            return ""

    def _time(self, text: str) -> str:
        seconds = _seconds(text)
        if seconds is None or self._later_s is None:
            return ""
        moved = (seconds + self._later_s) % _DAY_S
        fraction = re.search(r"\.\d{1,6}", text)
        whole = f"{moved // 3600:02d}{moved // 60 % 60:02d}{moved % 60:02d}"
        return whole + (fraction[0] if fraction else "")

    def _moment(self, text: str) -> str:
        """Date and time in one; the zone is left out."""
        found = re.fullmatch(r"(\d{8})(\d{2}(?:\d{2}){0,2}(?:\.\d{1,6})?)?([+-]\d{4})?", text.strip())
        if found is None:
            return ""
        day = self._date(found[1], _seconds(found[2] or ""))
        return day + (self._time(found[2]) if found[2] and day else "")


def _vr(dataset: Dataset, tag: BaseTag) -> str | None:
    """What kind of value an attribute has; None where it is not to stay whatever it is."""
    if tag.is_private or tag.group < 8 or tag.group >> 8 in (0x50, 0x60) or tag.element == 0:
        return None
    if not dictionary_has_tag(tag):
        return None
    known, told = str(dictionary_VR(tag)), getattr(dataset.get_item(tag), "VR", None)
    if told in (None, "UN", known):
        return known
    if told in known.split(" or "):
        return str(told)
    if (told in _TEXT) != (known in _TEXT) or "SQ" in (known, told):  # it would be cleaned as what it is not
        return None
    return str(told) if told in _FREE_TEXT else known


def _each(value: Any, change: Any) -> Any:
    if value is None or isinstance(value, str):
        return change(str(value)) if value else value
    if hasattr(value, "__iter__"):
        return [change(str(one)) for one in value]
    return change(str(value))


def _seconds(time: str) -> int | None:
    """Of the day; None for what is no time."""
    found = re.fullmatch(r"(\d{2}):?(?:(\d{2}):?(?:(\d{2})(?:\.\d{1,6})?)?)?", time.strip())
    if found is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return None if hours > 23 or minutes > 59 else hours * 3600 + minutes * 60 + min(seconds, 59)


def _replace(dataset: Dataset, tag: BaseTag) -> None:
    """Put something that means nothing in the place of a value; what cannot be replaced is removed."""
    anonymizer = require("dicomanonymizer.simpledicomanonymizer", extra="serve")
    element = dataset[tag]
    if element.is_empty:
        return
    try:
        anonymizer.replace_element(element)
    except NotImplementedError:
        del dataset[tag]


def _say_so(dataset: Dataset) -> None:
    """Write into the header what was done, and a file meta header and preamble that hold nothing else."""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = METHOD
    dataset.DeidentificationMethodCodeSequence = list(_codes())
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    meta.ImplementationClassUID, meta.ImplementationVersionName = PYDICOM_IMPLEMENTATION_UID, IMPLEMENTATION
    dataset.file_meta, dataset.preamble = meta, bytes(128)


def _codes() -> Iterator[Dataset]:
    for value, meaning in CODES.items():
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
        yield code
