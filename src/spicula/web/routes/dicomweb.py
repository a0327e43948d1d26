"""``/dicom-web``: QIDO-RS, WADO-RS and STOW-RS over the store."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from spicula.core.errors import InputError
from spicula.core.files import ASIDE
from spicula.pipelines import dicomweb
from spicula.pipelines.workplace import Workplace
from spicula.store.users import User
from spicula.web.limits import Limits
from spicula.web.services import Address, Asking, Bounds, Place, Served, address_of

router = APIRouter(prefix="/dicom-web", tags=["DICOMweb"])

Described = dict[int | str, dict[str, Any]]
JSON = "application/dicom+json"
DICOM = "application/dicom"
FOUND: Described = {200: {"content": {JSON: {"schema": {"type": "array", "items": {"type": "object"}}}}}}
PARTS: Described = {200: {"content": {"multipart/related": {"schema": {"type": "string", "format": "binary"}}}}}
KEPT: Described = {
    status: {"description": what, "content": {JSON: {"schema": {"type": "object"}}, "application/json": {}}}
    for status, what in {200: "all are kept", 202: "some are kept", 409: "none is kept"}.items()
}
BODY = {"requestBody": {"required": True, "content": {"multipart/related": {
    "schema": {"type": "string", "format": "binary"},
}}}}  # fmt: skip


def _matches(request: Request, place: Workplace, level: str, **fixed: str) -> Response:
    query = dict(request.query_params)
    return JSONResponse(dicomweb.search(place.studies, level, query, **fixed), media_type=JSON)


@router.get("/studies", response_class=Response, responses=FOUND)
def find_studies(request: Request, place: Place) -> Response:
    """QIDO-RS: studies."""
    return _matches(request, place, "studies")


@router.get("/series", response_class=Response, responses=FOUND)
def find_all_series(request: Request, place: Place) -> Response:
    """QIDO-RS: series of all studies."""
    return _matches(request, place, "series")


@router.get("/studies/{study}/series", response_class=Response, responses=FOUND)
def find_series(study: str, request: Request, place: Place) -> Response:
    """QIDO-RS: series of a study."""
    return _matches(request, place, "series", StudyInstanceUID=study)


@router.get("/studies/{study}/instances", response_class=Response, responses=FOUND)
def find_instances_of_study(study: str, request: Request, place: Place) -> Response:
    """QIDO-RS: instances of a study."""
    return _matches(request, place, "instances", StudyInstanceUID=study)


@router.get("/studies/{study}/series/{series}/instances", response_class=Response, responses=FOUND)
def find_instances(study: str, series: str, request: Request, place: Place) -> Response:
    """QIDO-RS: instances of a series."""
    return _matches(request, place, "instances", StudyInstanceUID=study, SeriesInstanceUID=series)


@router.get("/studies/{study}/metadata", response_class=Response, responses=FOUND)
def metadata_of_study(study: str, request: Request, place: Place) -> Response:
    """WADO-RS: the headers of a study."""
    return _metadata(request, place, study)


@router.get("/studies/{study}/series/{series}/metadata", response_class=Response, responses=FOUND)
def metadata_of_series(study: str, series: str, request: Request, place: Place) -> Response:
    """WADO-RS: the headers of a series."""
    return _metadata(request, place, study, series)


@router.get("/studies/{study}/series/{series}/instances/{instance}/metadata", response_class=Response, responses=FOUND)
def metadata_of_instance(study: str, series: str, instance: str, request: Request, place: Place) -> Response:
    """WADO-RS: the header of an instance."""
    return _metadata(request, place, study, series, instance)


def _metadata(request: Request, place: Workplace, *uids: str) -> Response:
    rows = dicomweb.instances_of(place.studies, *uids)
    base = str(request.base_url).rstrip("/") + router.prefix

    def bulk_uri(row: Any) -> str:
        path = (row["study_uid"], row["series_uid"], row["sop_instance_uid"])
        return "{}/studies/{}/series/{}/instances/{}/frames/1".format(base, *path)

    def written() -> Iterator[str]:
        for number, header in enumerate(dicomweb.metadata(place.studies, rows, bulk_uri=bulk_uri)):
            yield ("[" if number == 0 else ",") + header
        yield "]"

    return StreamingResponse(written(), media_type=JSON)


@router.get("/studies/{study}", response_class=Response, responses=PARTS)
def fetch_study(study: str, place: Place, user: Asking, address: Address) -> Response:
    """WADO-RS: the files of a study."""
    place.audit.note(user.name, "study.fetch", object=study, address=address)
    return _files(place, study)


@router.get("/studies/{study}/series/{series}", response_class=Response, responses=PARTS)
def fetch_series(study: str, series: str, place: Place, user: Asking, address: Address) -> Response:
    """WADO-RS: the files of a series."""
    place.audit.note(user.name, "series.fetch", object=series, address=address)
    return _files(place, study, series)


@router.get("/studies/{study}/series/{series}/instances/{instance}", response_class=Response, responses=PARTS)
def fetch_instance(study: str, series: str, instance: str, place: Place) -> Response:
    """WADO-RS: the file of an instance."""
    return _files(place, study, series, instance)


def _files(place: Workplace, *uids: str) -> Response:
    rows = dicomweb.instances_of(place.studies, *uids)
    boundary = secrets.token_hex(16)

    def written() -> Iterator[bytes]:
        for row in rows:
            syntax = row["transfer_syntax_uid"]
            head = f"--{boundary}\r\nContent-Type: {DICOM}; transfer-syntax={syntax}\r\nContent-Length: {row['bytes']}"
            yield head.encode() + b"\r\n\r\n"
            with place.studies.path(row).open("rb") as stream:
                while chunk := stream.read(2**18):
                    yield chunk
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    return StreamingResponse(written(), media_type=f'multipart/related; type="{DICOM}"; boundary={boundary}')


@router.get(
    "/studies/{study}/series/{series}/instances/{instance}/frames/{numbers}", response_class=Response, responses=PARTS
)
def fetch_frames(study: str, series: str, instance: str, numbers: str, services: Served) -> Response:
    """WADO-RS: frames as they are stored, numbered from 1."""
    wanted = numbers.split(",")
    if len(wanted) > 1000 or not all(one.isdigit() and len(one) < 7 for one in wanted):
        raise InputError("frames", got=repr(numbers[:40]), expected="numbers from 1, with commas between")
    if len({int(one) for one in wanted}) < len(wanted):
        raise InputError("frames", got="one twice", expected="each once")
    parts, media, syntax = services.frames.read(study, series, instance, [int(one) for one in wanted])
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: {media}; transfer-syntax={syntax}\r\n\r\n".encode()
    body = b"".join(head + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()
    return Response(body, media_type=f'multipart/related; type="{media}"; boundary={boundary}')


@router.post("/studies", response_class=Response, responses=KEPT, openapi_extra=BODY)
async def store(request: Request, place: Place, bounds: Bounds, user: Asking) -> Response:
    """STOW-RS: keep instances."""
    return await _store(request, place, bounds, user, None)


@router.post("/studies/{study}", response_class=Response, responses=KEPT, openapi_extra=BODY)
async def store_in_study(study: str, request: Request, place: Place, bounds: Bounds, user: Asking) -> Response:
    """STOW-RS: keep instances of one study."""
    return await _store(request, place, bounds, user, study)


async def _store(request: Request, place: Workplace, bounds: Limits, user: User, study: str | None) -> Response:
    base = str(request.base_url).rstrip("/") + router.prefix
    with tempfile.NamedTemporaryFile(prefix=ASIDE, dir=place.folder) as spool:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > bounds.upload_bytes:
                raise InputError("request", got="more bytes", expected=f"at most {bounds.upload_bytes}")
            spool.write(chunk)
        spool.flush()
        response, failed = await run_in_threadpool(
            dicomweb.store, place.studies, Path(spool.name), request.headers.get("content-type", ""),
            most_bytes=bounds.instance_bytes, retrieve_url=lambda uid: f"{base}/studies/{uid}", study_uid=study,
            deidentify=place.secret,
        )  # fmt: skip
    kept = len(response.get("00081199", {}).get("Value", ()))
    detail, address = {"kept": kept, "failed": failed}, await address_of(request)
    await run_in_threadpool(
        lambda: place.audit.note(user.name, "study.store", object=study or "", detail=detail, address=address)
    )
    return JSONResponse(response, status_code=200 if not failed else 202 if kept else 409, media_type=JSON)
