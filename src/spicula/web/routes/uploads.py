"""``/api/uploads``: DICOM files or a zip from a reader's machine, written to the disk as they come in."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from spicula.pipelines.upload import Upload
from spicula.pipelines.worker import ask_import
from spicula.web.schemas import Job
from spicula.web.services import Address, Asking, Bounds, Place
from spicula.web.shown_jobs import shown

router = APIRouter(prefix="/api/uploads", tags=["studies"])

BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": {
    "type": "object", "required": ["files"],
    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
}}}}}  # fmt: skip


@router.post("", status_code=202, openapi_extra=BODY)
async def upload(request: Request, place: Place, bounds: Bounds, user: Asking, address: Address) -> Job:
    """Take in a zip, or one or many DICOM files, as ``multipart/form-data``; a job brings them into the store."""
    coming = Upload(place.folder, request.headers.get("content-type", ""), bounds.upload_bytes, bounds.files)
    try:
        async for chunk in request.stream():
            await run_in_threadpool(coming.take, chunk)
        source = await run_in_threadpool(coming.end)
        job = await run_in_threadpool(ask_import, place, source, by=user.name, remove=coming.folder)
    except BaseException:
        coming.drop()
        raise
    detail = {"files": coming.files, "bytes": coming.bytes}
    await run_in_threadpool(
        lambda: place.audit.note(user.name, "upload", object=job.id, detail=detail, address=address)
    )
    return shown(job)
