"""``/api/jobs``: what is done in the background, with its progress as it happens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from spicula.web.access import session_of
from spicula.web.schemas import Job, JobState
from spicula.web.services import Address, Asking, Place
from spicula.web.shown_jobs import JobFeed, shown

router = APIRouter(prefix="/api/jobs", tags=["jobs"])


@router.get("")
def list_jobs(
    place: Place, _: Asking, state: Annotated[list[JobState] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> list[Job]:  # fmt: skip
    """The newest jobs, of some states or all."""
    return [shown(job) for job in place.queue.list(states=state or (), limit=limit)]


@router.get("/events", response_class=StreamingResponse)
async def events(request: Request, _: Asking) -> StreamingResponse:
    """Server-sent events ``job``: the open jobs, then each that changes, as long as one listens."""
    feed: JobFeed = request.app.state.feed
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    stopping = request.app.state.stopping
    told = feed.changes(stopping.is_set, lambda: session_of(request) is not None)
    return StreamingResponse(told, media_type="text/event-stream", headers=headers)


@router.get("/{job_id}")
def get_job(job_id: str, place: Place, _: Asking) -> Job:
    """One job."""
    return shown(place.queue.get(job_id))


@router.post("/{job_id}/cancel")
def cancel(job_id: str, place: Place, user: Asking, address: Address) -> Job:
    """Cancel a job that waits or runs."""
    job = place.queue.cancel(job_id)
    place.audit.note(user.name, "job.cancel", object=job_id, address=address)
    return shown(job)


@router.post("/{job_id}/again", status_code=202)
def again(job_id: str, place: Place, user: Asking, address: Address) -> Job:
    """Ask anew for a job that failed or was cancelled."""
    job = place.queue.again(job_id, by=user.name)
    place.audit.note(user.name, "job.again", object=job_id, address=address)
    return shown(job)
