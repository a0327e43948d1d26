"""``/api/archives``: what the PACS around here have; studies brought in, results sent back."""

from __future__ import annotations

from fastapi import APIRouter

from spicula.dicom.deidentify import kept_uid
from spicula.store.matching import studies_matching
from spicula.web.schemas import ArchiveQuery, Job, Pull, RemoteStudy, Send
from spicula.web.services import Address, Asking, Place
from spicula.web.shown_jobs import shown

router = APIRouter(prefix="/api", tags=["archives"])


@router.post("/archives/{name}/query")
def find(name: str, given: ArchiveQuery, place: Place, user: Asking, address: Address) -> list[RemoteStudy]:
    """Studies of an archive; in a body, as names of patients have no place in addresses."""
    from spicula.pipelines.archives import archive_named
    from spicula.pipelines.exchange import find_studies

    filters = {
        "PatientID": given.patient_id, "PatientName": given.patient_name, "StudyDate": given.study_date,
        "AccessionNumber": given.accession_number,
    }  # fmt: skip
    found = find_studies(
        archive_named(place.folder, name), {key: value for key, value in filters.items() if value}, given.limit
    )
    place.audit.note(user.name, "archive.query", object=name, address=address)
    secret = place.secret
    here_as = {one.study_uid: kept_uid(one.study_uid, secret=secret) for one in found}
    uids = {"StudyInstanceUID": ",".join(here_as.values())}
    here = studies_matching(place.studies.engine, uids, limit=len(found)) if found else ()
    known = {row["study_uid"] for row in here}
    return [
        RemoteStudy(
            study_uid=one.study_uid, patient_id=one.patient_id, patient_name=one.patient_name,
            study_date=one.study_date, description=one.description, accession_number=one.accession_number,
            modalities=list(one.modalities), instances=one.instance_count, here=here_as[one.study_uid] in known,
        )
        for one in found
    ]  # fmt: skip


@router.post("/pull", status_code=202)
def pull(given: Pull, place: Place, user: Asking, address: Address) -> Job:
    """Bring a study in from an archive; it is analyzed once it is here."""
    from spicula.pipelines.archives import archive_named
    from spicula.pipelines.exchange import ask_pull

    job = ask_pull(place, archive_named(place.folder, given.source).name, given.study_uid, by=user.name)
    place.audit.note(user.name, "study.pull", object=given.study_uid, detail={"from": given.source}, address=address)
    return shown(job)


@router.post("/studies/{study_uid}/send", status_code=202)
def send(study_uid: str, given: Send, place: Place, user: Asking, address: Address) -> Job:
    """Send a study's SR and SEG to an archive."""
    from spicula.pipelines.archives import archive_named
    from spicula.pipelines.exchange import ask_send

    archive = archive_named(place.folder, given.destination).name
    job = ask_send(place, study_uid, archive, given.what, by=user.name)
    place.audit.note(user.name, "study.send", object=study_uid, detail={"to": archive}, address=address)
    return shown(job)
