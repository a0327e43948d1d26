"""Jobs as the page sees them, and a feed of their changes that all pages share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool

from spicula.pipelines.workplace import Workplace
from spicula.store import jobs
from spicula.web.paths import without_folders
from spicula.web.schemas import Job

LOOK_S = 0.5
"""So often the feed looks for changes while a page listens."""

HEARTBEAT_S = 15.0

ALLOWED_S = 10.0
"""So long at most a page goes on listening once its session is over."""

RECENT = 100
"""So many of the newest jobs are watched."""


def shown(job: jobs.Job) -> Job:
    """A job for the page; paths of the server stay out."""
    task = job.task
    study_uid = task.get("study_uid")
    return Job(
        id=job.id, kind=job.kind, state=job.state, tries=job.tries, created_at=job.created_at,
        created_by=job.created_by, started_at=job.started_at, ended_at=job.ended_at, progress=job.progress,
        message=without_folders(job.message), study_uid=study_uid if isinstance(study_uid, str) else None,
        result=None if job.result is None else _without_folders(job.result),
    )  # fmt: skip


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    return without_folders(value) if isinstance(value, str) else value


@dataclass(slots=True)
class JobFeed:
    """The newest jobs, looked up at most twice a second however many pages listen.

    Args:
        place: The store.
    """

    place: Workplace
    _seen: dict[str, jobs.Job] = field(default_factory=dict)
    _looked: float = -1e9
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def now(self) -> dict[str, jobs.Job]:
        """The newest jobs by id, the oldest first."""
        async with self._lock:
            if time.monotonic() - self._looked >= LOOK_S:
                found = await run_in_threadpool(self._look)
                self._seen, self._looked = {job.id: job for job in reversed(found)}, time.monotonic()
            return self._seen

    def _look(self) -> tuple[jobs.Job, ...]:
        listed = self.place.queue.list
        waiting = (*listed(states=("queued",), limit=RECENT), *listed(states=("running",), limit=RECENT))
        newest = listed(limit=RECENT)
        known = {job.id for job in newest}
        return (*newest, *(job for job in waiting if job.id not in known))

    async def changes(self, gone: Callable[[], bool], allowed: Callable[[], bool]) -> AsyncIterator[str]:
        """Server-sent events: first the open jobs, then each that changes, and a comment now and then.

        Args:
            gone: Whether the server is about to stop.
            allowed: Whether who listens still may; asked now and then.
        """
        told: dict[str, jobs.Job] = {}
        last = asked = time.monotonic()
        first = True
        while not gone():
            if time.monotonic() - asked > ALLOWED_S:
                asked = time.monotonic()
                if not await run_in_threadpool(allowed):
                    return
            current = await self.now()
            for job_id in [one.id for one in told.values() if one.is_open and one.id not in current]:
                current = {**current, job_id: await run_in_threadpool(self.place.queue.get, job_id)}
            for job in current.values():
                if told.get(job.id) != job and (job.is_open or not first):
                    last = time.monotonic()
                    yield f"event: job\ndata: {shown(job).model_dump_json()}\n\n"
            told, first = dict(current), False
            if time.monotonic() - last > HEARTBEAT_S:
                last = time.monotonic()
                yield ": still here\n\n"
            await asyncio.sleep(LOOK_S)
