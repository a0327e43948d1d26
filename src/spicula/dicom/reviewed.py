"""Measurement report and segmentation of findings that readers have seen: what they said of each, and UIDs to go by.

Templates 1410 and 1411 have no row for a review. Each accepted finding names its reader as the person observer of its
own measurement group (TID 1003, in the place of the program that the document names) and has a coded evaluation; the
document as a whole stays PRELIMINARY and UNVERIFIED: nobody signed it. UIDs come from what the objects are made of, so
that an archive never meets other bytes under a UID that it knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pydicom

from spicula.core.analysis import Analysis
from spicula.core.files import written_aside
from spicula.dicom.seg import write_seg
from spicula.dicom.source import derived_uid, plain_names, tracking_uid
from spicula.dicom.sr import SCHEME, write_sr

REVIEW_CODE = ("REVIEW", "Review by a reader")
"""Private code (value, meaning) of the evaluation."""

STATE_CODES = {"accepted": ("ACCEPTED", "Accepted"), "proposed": ("PROPOSED", "Proposed, not accepted")}
"""Private codes of its values, by state."""


@dataclass(frozen=True, slots=True)
class Review:
    """What readers said of a finding.

    Args:
        tracking_uid: Its tracking UID in all reports and segmentations, whatever was changed.
        state: ``"accepted"`` or ``"proposed"``.
        reader: Who accepted it; empty for a proposal.
        measured_by: Who measured the diameter, where a person did.
        by_person: Whether a person added it: its outline began with a click.
        note: What they wrote.
    """

    tracking_uid: str
    state: str
    reader: str = ""
    measured_by: str = ""
    by_person: bool = False
    note: str = ""


def write_reviewed_sr(
    path: Path, analysis: Analysis, reviews: Mapping[str, Review], *, made_of: Sequence[object], created: datetime
) -> None:
    """Write the measurement report (see :func:`spicula.dicom.sr.write_sr`) with what readers said.

    Args:
        path: The file to write; it appears whole or not at all.
        analysis: What is reported.
        reviews: By finding id.
        made_of: All that the content comes from; the same facts give the same UIDs.
        created: Time of the content, without zone.

    Raises:
        InputError: The volume does not come from DICOM, or a source file cannot be read any more.
        GeometryError: An outline does not lie on the volume's grid.
    """
    by_tracking = {tracking_uid(analysis, one): reviews[one.id] for one in analysis.findings if one.id in reviews}
    accepted = any(review.state == "accepted" for review in reviews.values())
    with written_aside(path) as aside:
        write_sr(aside, analysis, created=created)
        dataset = pydicom.dcmread(aside)
        for container in dataset.ContentSequence:
            for group in container.get("ContentSequence", ()):
                tracked = _tracked(group)
                if tracked is not None and tracked.UID in by_tracking:
                    review = by_tracking[tracked.UID]
                    tracked.UID = review.tracking_uid
                    _tell(group, review, state=accepted)
        _identify(dataset, "sr", made_of, created)
        dataset.save_as(aside, enforce_file_format=True)


def write_reviewed_seg(
    path: Path, analysis: Analysis, reviews: Mapping[str, Review], *, made_of: Sequence[object], created: datetime
) -> bool:
    """Write the segmentation (see :func:`spicula.dicom.seg.write_seg`) that belongs to the report.

    Args:
        path: The file to write; it appears whole or not at all.
        analysis: Whose outlines.
        reviews: By finding id.
        made_of: As for the report.
        created: As for the report.

    Returns:
        True if the file was written; False where there is no outline to write.

    Raises:
        InputError: The volume does not come from DICOM, or a source file cannot be read any more.
        GeometryError: An outline or the volume does not lie on the grid of the source images.
    """
    by_tracking = {tracking_uid(analysis, one): reviews[one.id] for one in analysis.findings if one.id in reviews}
    aside = path.with_name(f".{path.name}-reviewed")
    try:
        if not write_seg(aside, analysis):
            return False
        dataset = pydicom.dcmread(aside)
        for segment in dataset.SegmentSequence:
            review = by_tracking.get(segment.TrackingUID)
            if review is not None:
                segment.TrackingUID = review.tracking_uid
                segment.SegmentAlgorithmType = "SEMIAUTOMATIC" if review.by_person else "AUTOMATIC"
        organization = derived_uid("dimensions", *made_of)
        for sequence in (dataset.DimensionOrganizationSequence, dataset.DimensionIndexSequence):
            for item in sequence:
                item.DimensionOrganizationUID = organization
        _identify(dataset, "seg", made_of, created)
        with written_aside(path) as whole:
            dataset.save_as(whole, enforce_file_format=True)
    finally:
        aside.unlink(missing_ok=True)
    return True


def _identify(dataset: pydicom.Dataset, kind: str, made_of: Sequence[object], created: datetime) -> None:
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = derived_uid(kind, *made_of)
    dataset.SeriesInstanceUID = derived_uid(f"{kind} series", *made_of)
    for of_what in ("Content", "InstanceCreation", "Series"):
        setattr(dataset, f"{of_what}Date", created.strftime("%Y%m%d"))
        setattr(dataset, f"{of_what}Time", created.strftime("%H%M%S"))
    for equipment in dataset.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in equipment:
            equipment.ContributionDateTime = created.strftime("%Y%m%d%H%M%S")


def _tracked(group: pydicom.Dataset) -> Any:
    """The item with the tracking UID of a measurement group; None where there is none."""
    items = group.get("ContentSequence", ())
    return next((i for i in items if i.ValueType == "UIDREF" and _name(i) == "112040"), None)


def _name(item: pydicom.Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def _tell(group: pydicom.Dataset, review: Review, *, state: bool) -> None:
    """Put what readers said into a measurement group: the observer after its tracking UID, the rest at its end."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    items = list(group.ContentSequence)
    if review.state == "accepted":
        with plain_names():
            person = hd.sr.PersonObserverIdentifyingAttributes(name=_person(review.reader))
            observer = hd.sr.ObserverContext(codes.DCM.Person, observer_identifying_attributes=person)
        at = 1 + next(n for n, item in enumerate(items) if item.ValueType == "UIDREF" and _name(item) == "112040")
        items[at:at] = list(observer)
    if state:
        evaluation = hd.sr.CodeContentItem(
            name=_code(REVIEW_CODE),
            value=_code(STATE_CODES[review.state]),
            relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
        )
        items.append(evaluation)
    said = [f"Diameter as measured by {review.measured_by}." if review.measured_by else "", review.note]
    for text in filter(None, said):
        contains = hd.sr.RelationshipTypeValues.CONTAINS
        items.append(hd.sr.TextContentItem(name=codes.DCM.Comment, value=text, relationship_type=contains))
    group.ContentSequence = items


def _code(code: tuple[str, str]) -> Any:
    import highdicom as hd

    return hd.sr.CodedConcept(value=code[0], scheme_designator=SCHEME, meaning=code[1])


def _person(name: str) -> str:
    """A user's name as a person's name of one component, of 64 bytes at most."""
    plain = "".join(" " if c in "\\^=" else c for c in name).strip()
    return plain.encode()[:64].decode(errors="ignore").strip() or "Unknown"
