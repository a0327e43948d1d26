"""``/api/studies``: the list, one study, its analysis, what can be had of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from spicula.pipelines.study_sheet import export, export_there, study_sheet
from spicula.pipelines.upkeep import remove_study as remove_study_and_files
from spicula.pipelines.worker import ask_analysis
from spicula.pipelines.worklist import worklist
from spicula.store.users import User
from spicula.web.access import admin_of
from spicula.web.schemas import Job, Study, StudyPage, StudyQuery
from spicula.web.services import Address, Asking, Place
from spicula.web.shown_jobs import shown
from spicula.web.turns import Exporting

router = APIRouter(prefix="/api/studies", tags=["studies"])

MEDIA: Mapping[str, str] = {
    "html": "text/html; charset=utf-8", "json": "application/json", "csv": "text/csv; charset=utf-8",
    "dcm": "application/dicom",
}  # fmt: skip


@router.get("")
def list_studies(
    place: Place, _: Asking, limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> StudyPage:  # fmt: skip
    """Studies, the newest received first."""
    rows, total = worklist(place, limit=limit, offset=offset)
    return StudyPage.model_validate({"total": total, "studies": rows})


@router.post("/query")
def find_studies(given: StudyQuery, place: Place, _: Asking) -> StudyPage:
    """Studies by text and date; in a body, as names of patients have no place in addresses."""
    rows, total = worklist(
        place, text=given.text, date_from=given.date_from, date_to=given.date_to, limit=given.limit,
        offset=given.offset,
    )  # fmt: skip
    return StudyPage.model_validate({"total": total, "studies": rows})


@router.get("/{study_uid}")
def get_study(study_uid: str, place: Place, user: Asking, address: Address) -> Study:
    """One study with its series, its warnings and the patient's other studies."""
    sheet = study_sheet(place, study_uid)
    place.audit.note(user.name, "study.open", object=study_uid, address=address)
    return Study.model_validate(sheet)


@router.delete("/{study_uid}", status_code=204)
def remove_study(
    study_uid: str, place: Place, user: Annotated[User, Depends(admin_of)], address: Address
) -> None:  # fmt: skip
    """Take a study out with all that is said of it."""
    count = remove_study_and_files(place, study_uid)
    place.audit.note(user.name, "study.remove", object=study_uid, detail={"instances": count}, address=address)


@router.post("/{study_uid}/analysis", status_code=202)
def analyze(study_uid: str, place: Place, user: Asking, address: Address) -> Job:
    """Ask for an analysis; the one that is open, if there is one."""
    job = ask_analysis(place, study_uid, by=user.name)
    place.audit.note(user.name, "study.analyze", object=study_uid, address=address)
    return shown(job)


@router.get("/{study_uid}/exports/{name}", response_class=Response)
async def export_study(
    study_uid: str, name: str, place: Place, user: Asking, address: Address, exports: Exporting
) -> Response:  # fmt: skip
    """The report, SR, SEG or table of a study, as its readers left it; 503 while too many others are made."""
    file = await run_in_threadpool(export_there, place, study_uid, name)
    if file is None:
        async with exports.one():
            file = await run_in_threadpool(export, place, study_uid, name)
    await run_in_threadpool(
        lambda: place.audit.note(user.name, "study.export", object=study_uid, detail={"what": name}, address=address)
    )
    headers: dict[str, Any] = {"Cache-Control": "no-store"}
    media = MEDIA[name.rpartition(".")[2]]
    shown_here = name == "report.html"
    return FileResponse(
        file, media_type=media, headers=headers, filename=name,
        content_disposition_type="inline" if shown_here else "attachment",
    )  # fmt: skip
