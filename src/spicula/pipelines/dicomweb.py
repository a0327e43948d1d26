"""What a DICOMweb server answers from a store: QIDO's matches, WADO's metadata and files, STOW's response.

References:
    DICOM PS3.18, sections 10.4 to 10.6, and annex I (the response to a store).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from spicula.core.errors import InputError, SpiculaError
from spicula.core.files import ASIDE
from spicula.dicom.facts import instance_facts
from spicula.dicom.multipart import BrokenTransfer, parts_to_files
from spicula.dicom.served import metadata_json
from spicula.pipelines.ingest import keep
from spicula.store.matching import instances_matching, series_matching, studies_matching
from spicula.store.studies import Studies

MOST_MATCHES = 500
"""Of one answer; whoever wants more asks for the next page."""

MOST_PARTS = 5000
CANNOT_UNDERSTAND, OUT_OF_RESOURCES, NOT_MATCHING = 0xC000, 0xA700, 0xA900
"""Reasons of a failure, PS3.18 table I.2-2."""

_STUDY = {
    "StudyInstanceUID": ("0020000D", "UI", "study_uid"), "PatientID": ("00100020", "LO", "patient_id"),
    "PatientName": ("00100010", "PN", "patient_name"), "StudyDate": ("00080020", "DA", "study_date"),
    "StudyDescription": ("00081030", "LO", "description"),
    "AccessionNumber": ("00080050", "SH", "accession_number"),
    "ModalitiesInStudy": ("00080061", "CS", "modalities"),
    "NumberOfStudyRelatedSeries": ("00201206", "IS", "series"),
    "NumberOfStudyRelatedInstances": ("00201208", "IS", "instances"),
}  # fmt: skip
_SERIES = {
    "SeriesInstanceUID": ("0020000E", "UI", "series_uid"), "StudyInstanceUID": ("0020000D", "UI", "study_uid"),
    "Modality": ("00080060", "CS", "modality"), "SeriesDescription": ("0008103E", "LO", "description"),
    "SeriesNumber": ("00200011", "IS", "number"), "NumberOfSeriesRelatedInstances": ("00201209", "IS", "instances"),
}  # fmt: skip
_INSTANCE = {
    "SOPInstanceUID": ("00080018", "UI", "sop_instance_uid"), "SOPClassUID": ("00080016", "UI", "sop_class_uid"),
    "StudyInstanceUID": ("0020000D", "UI", "study_uid"), "SeriesInstanceUID": ("0020000E", "UI", "series_uid"),
    "InstanceNumber": ("00200013", "IS", "number"), "Rows": ("00280010", "US", "rows"),
    "Columns": ("00280011", "US", "columns"), "NumberOfFrames": ("00280008", "IS", "frames"),
}  # fmt: skip
_LEVELS = {
    "studies": (studies_matching, _STUDY),
    "series": (series_matching, _SERIES),
    "instances": (instances_matching, _INSTANCE),
}
_TAGS = {tag: name for fields in (_STUDY, _SERIES, _INSTANCE) for name, (tag, _, _) in fields.items()}
HEADERS_KEPT = 4096
"""So many headers are kept: a study that is opened again is there at once."""

LARGE = 2**24
"""Headers of instances with several frames or as many bytes are not kept."""

_PAGING = ("limit", "offset", "includefield", "fuzzymatching")


def search(studies: Studies, level: str, query: Mapping[str, str], **fixed: str) -> list[dict[str, Any]]:
    """Answer a QIDO query.

    Args:
        studies: Of the store.
        level: ``"studies"``, ``"series"`` or ``"instances"``.
        query: Of the address: attributes by keyword or tag, ``limit`` and ``offset``; ``includefield`` and
            ``fuzzymatching`` are passed over.
        fixed: Attributes that the path names.

    Returns:
        Matches as DICOM JSON, :data:`MOST_MATCHES` at most.

    Raises:
        InputError: An attribute that is not kept, or a page that is no number.
    """
    matching, fields = _LEVELS[level]
    limit = min(_whole(query, "limit", MOST_MATCHES), MOST_MATCHES)
    filters = {_TAGS.get(name.upper(), name): value for name, value in query.items() if name not in _PAGING}
    rows = matching(studies.engine, {**filters, **fixed}, limit=limit, offset=_whole(query, "offset", 0))
    return [{tag: _element(vr, row[column]) for tag, vr, column in fields.values()} for row in rows]


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isdigit() or len(text) > 9:
        raise InputError(name, got=repr(text[:40]), expected="a whole number, 0 or more")
    return int(text)


def _element(vr: str, value: Any) -> dict[str, Any]:
    if value in (None, "", []):
        return {"vr": vr}
    values = value if isinstance(value, list) else [value]
    return {"vr": vr, "Value": [{"Alphabetic": one} for one in values] if vr == "PN" else values}


def instances_of(
    studies: Studies, study_uid: str, series_uid: str | None = None, sop_instance_uid: str | None = None
) -> list[Mapping[str, Any]]:  # fmt: skip
    """Rows of the instances that a path names, all of them.

    Raises:
        InputError: There is none.
    """
    named = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": sop_instance_uid}
    filters = {name: value for name, value in named.items() if value is not None}
    if any("," in value or "\\" in value or value in ("", "*") for value in filters.values()):
        raise InputError("UID", got="several, or none", expected="one")
    rows = list(instances_matching(studies.engine, filters, limit=10**9))
    if not rows:
        raise InputError("instances", got="none of these UIDs")
    return rows


def metadata(
    studies: Studies, rows: Iterable[Mapping[str, Any]], *, bulk_uri: Callable[[Mapping[str, Any]], str]
) -> Iterator[str]:
    """The headers of instances as DICOM JSON, each as text, one after the other.

    Args:
        studies: Of the store.
        rows: From :func:`instances_of`.
        bulk_uri: Where an instance's pixels are found.
    """
    for row in rows:
        read = _header if row["frames"] == 1 and row["bytes"] < LARGE else _header.__wrapped__
        yield read(studies.path(row), str(row["sha256"]), bulk_uri(row))


@lru_cache(maxsize=HEADERS_KEPT)
def _header(path: Path, _sha256: str, bulk_uri: str) -> str:
    """A header as it was read last."""
    return json.dumps(metadata_json(path, bulk_uri=bulk_uri), allow_nan=False)


def store(
    studies: Studies, body: Path, content_type: str, *, most_bytes: int, retrieve_url: Callable[[str], str],
    study_uid: str | None = None, deidentify: bytes | None = None,
) -> tuple[dict[str, Any], int]:  # fmt: skip
    """Keep the instances of a STOW request.

    Args:
        studies: Of the store.
        body: The whole request, as it came.
        content_type: Its header.
        most_bytes: Of one instance.
        retrieve_url: Address of a study by its UID.
        study_uid: The study that the path names; instances of others fail then.
        deidentify: As for :func:`spicula.pipelines.ingest.ingest`.

    Returns:
        The response as DICOM JSON, and how many instances failed.

    Raises:
        InputError: The request is not multipart, ends too early, or goes beyond a bound; what was kept before stays,
            and may be sent again.
    """
    kept, failed = list[dict[str, Any]](), list[dict[str, Any]]()
    of_studies: dict[str, None] = {}
    with tempfile.TemporaryDirectory(prefix=ASIDE, dir=studies.folder) as folder, body.open("rb") as stream:
        chunks = iter(lambda: stream.read(2**18), b"")

        @contextmanager
        def aside() -> Iterator[Path]:
            path = Path(folder) / "part.dcm"
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)

        try:
            for part in parts_to_files(
                chunks, content_type, aside=aside, max_part_bytes=most_bytes, max_parts=MOST_PARTS
            ):  # fmt: skip
                reference, uid = _stored(part, studies, study_uid, deidentify)
                if uid is None:
                    failed.append(reference)
                else:
                    of_studies.setdefault(uid)
                    kept.append({**reference, "00081190": {"vr": "UR", "Value": [retrieve_url(uid)]}})
        except BrokenTransfer as error:
            raise InputError("request", got=str(error), expected="a whole multipart message") from None
    response: dict[str, Any] = {}
    if of_studies:
        response["00081190"] = {"vr": "UR", "Value": [retrieve_url(next(iter(of_studies)))]}
    if kept:
        response["00081199"] = {"vr": "SQ", "Value": kept}
    if failed:
        response["00081198"] = {"vr": "SQ", "Value": failed}
    return response, len(failed)


def _stored(
    part: Path, studies: Studies, study_uid: str | None, deidentify: bytes | None
) -> tuple[dict[str, Any], str | None]:
    """What the response says of one part, and its study; None where it was not kept."""
    reference: dict[str, Any] = {}
    try:
        facts = instance_facts(part)
        reference = {
            "00081150": {"vr": "UI", "Value": [facts.instance["sop_class_uid"]]},
            "00081155": {"vr": "UI", "Value": [facts.instance["sop_instance_uid"]]},
        }
        if study_uid is not None and str(facts.study["study_uid"]) != study_uid:
            return {**reference, **_reason(NOT_MATCHING)}, None
        uid, _ = keep(part, studies, origin="stow", deidentify=deidentify)
    except SpiculaError as error:
        full = "quota" in (getattr(error, "hint", "") or "")
        return {**reference, **_reason(OUT_OF_RESOURCES if full else CANNOT_UNDERSTAND)}, None
    return reference, uid


def _reason(code: int) -> dict[str, Any]:
    return {"00081197": {"vr": "US", "Value": [code]}}
