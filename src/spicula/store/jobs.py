"""A durable queue of jobs in the store: each taken by one worker at a time, taken up again if that worker dies.

A worker that takes a job promises to tell again within :data:`ALIVE_S` that it is alive. One that does not is dead: its
job is open to others. What fails three times, whether by an error or because its worker died, is set aside with the
reason. The same job asked twice while the first is open is the first.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from spicula.core.errors import InputError
from spicula.store.clock import later, now
from spicula.store.database import alone
from spicula.store.tables import JOBS

State: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled"]
OPEN = ("queued", "running")

ALIVE_S = 60.0
"""A worker that is silent for longer is dead."""

TRIES = 3
"""What has been begun so often and not ended is set aside."""

WAIT_S = (5.0, 60.0)
"""Before the second and the third try."""

LONGEST_REASON = 2000


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Args:
        id: Names it.
        kind: What is to be done, for example ``"analyze"``.
        key: What it is done to: of a kind and key, one job is open at a time.
        task: Everything that doing it needs, plain JSON values.
        state: Where it stands.
        tries: How often it has been begun.
        created_at: UTC, ISO 8601.
        created_by: User.
        started_at: Of the last try.
        ended_at: When it was done, failed or cancelled.
        progress: 0 to 1.
        message: What it is doing, or why it failed.
        result: What it gave, plain JSON values.
    """

    id: str
    kind: str
    key: str
    task: Mapping[str, Any]
    state: State
    tries: int
    created_at: str
    created_by: str
    started_at: str | None
    ended_at: str | None
    progress: float
    message: str
    result: Mapping[str, Any] | None

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in OPEN


class Cancelled(Exception):
    """Raised in a worker whose job was cancelled, or taken from it because it seemed dead."""


_COLUMNS = tuple(JOBS.c[name] for name in Job.__dataclass_fields__)


class Queue:
    """The jobs of a store.

    Args:
        engine: Of the store's database.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def ask(self, kind: str, key: str, task: Mapping[str, Any], *, by: str, once: bool = False) -> Job:
        """Put a job into the queue, or find the one that is open already.

        Args:
            kind: What is to be done.
            key: What it is done to.
            task: Everything that doing it needs.
            by: User.
            once: Also find one that was done: what was done is not done again.

        Returns:
            The job that will do it, does it, or (``once``) did it.
        """
        row = {
            "id": uuid.uuid4().hex, "kind": kind, "key": key, "task": dict(task), "state": "queued", "tries": 0,
            "created_at": now(), "created_by": by, "not_before": now(), "progress": 0.0, "message": "",
        }  # fmt: skip
        for _ in range(3):  # between looking and putting, another may have put one in, or the open one may have ended
            found = self._of_key(kind, key, done=once)
            if found is not None:
                return found
            try:
                with self.engine.begin() as connection:
                    connection.execute(insert(JOBS).values(row))
                return self.get(str(row["id"]))
            except IntegrityError:
                continue
        raise InputError(f"job {kind} of {key}", got="put in and ended again and again", hint="ask again")

    def _of_key(self, kind: str, key: str, *, done: bool) -> Job | None:
        states = (*OPEN, "done") if done else OPEN
        query = select(*_COLUMNS).where(JOBS.c.kind == kind, JOBS.c.key == key, JOBS.c.state.in_(states))
        with self.engine.connect() as connection:
            row = connection.execute(query.order_by(JOBS.c.created_at.desc()).limit(1)).one_or_none()
        return None if row is None else Job(*row)

    def get(self, job_id: str) -> Job:
        """A job by its id.

        Raises:
            InputError: There is none.
        """
        with self.engine.connect() as connection:
            row = connection.execute(select(*_COLUMNS).where(JOBS.c.id == job_id)).one_or_none()
        if row is None:
            raise InputError(f"job {job_id[:40]}", got="none of this id", hint="list the jobs")
        return Job(*row)

    def list(self, *, states: Sequence[State] = (), limit: int = 100) -> tuple[Job, ...]:
        """The newest jobs, of some states or all."""
        query = select(*_COLUMNS).order_by(JOBS.c.created_at.desc()).limit(limit)
        if states:
            query = query.where(JOBS.c.state.in_(states))
        with self.engine.connect() as connection:
            return tuple(Job(*row) for row in connection.execute(query))

    def latest(self, kind: str, keys: Sequence[str]) -> dict[str, Job]:
        """The newest job of a kind for each of some keys that has one, by its key."""
        query = select(*_COLUMNS).where(JOBS.c.kind == kind, JOBS.c.key.in_(list(keys)))
        with self.engine.connect() as connection:
            return {row.key: Job(*row) for row in connection.execute(query.order_by(JOBS.c.created_at, JOBS.c.id))}

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state that occurs."""
        with self.engine.connect() as connection:
            rows = connection.execute(select(JOBS.c.state, func.count()).group_by(JOBS.c.state))
            return {str(state): int(count) for state, count in rows}

    def take(self, worker: str, *, kinds: Sequence[str] = (), at_most: Mapping[str, int] | None = None) -> Job | None:
        """Take the oldest job that may be begun: one that waits, or whose worker died.

        Args:
            worker: Names the worker.
            kinds: Only these; all if empty.
            at_most: How many jobs of a kind may run at a time.

        Returns:
            The job, now running; None where nothing waits.
        """
        moment = now()
        waits = (JOBS.c.state == "queued", JOBS.c.not_before <= moment)
        dead = (JOBS.c.state == "running", JOBS.c.alive_until < moment)
        oldest = select(JOBS.c.id, JOBS.c.tries, JOBS.c.created_at).order_by(JOBS.c.created_at, JOBS.c.id).limit(1)
        if kinds:
            oldest = oldest.where(JOBS.c.kind.in_(list(kinds)))
        with alone(self.engine) as connection:
            _set_aside(connection, moment)
            if full := _full(connection, at_most or {}, moment):
                oldest = oldest.where(JOBS.c.kind.not_in(full))
            rows = [connection.execute(oldest.where(*one)).one_or_none() for one in (waits, dead)]
            found = min(filter(None, rows), key=lambda row: (row.created_at, row.id), default=None)
            if found is None:
                return None
            change = update(JOBS).where(JOBS.c.id == found.id).values(
                state="running", tries=found.tries + 1, worker=worker, started_at=now(), alive_until=later(ALIVE_S),
                progress=0.0, message="",
            )  # fmt: skip
            connection.execute(change)
        return self.get(found.id)

    def tell(self, job: Job, worker: str, *, progress: float | None = None, message: str | None = None) -> None:
        """Say that a worker is alive, and how far it is.

        Raises:
            Cancelled: The job is not this worker's any more: it must stop and leave nothing.
        """
        values: dict[str, Any] = {"alive_until": later(ALIVE_S)}
        if progress is not None:
            values["progress"] = min(max(progress, 0.0), 1.0)
        if message is not None:
            values["message"] = message[:LONGEST_REASON]
        self._own(job, worker, values)

    def end(self, job: Job, worker: str, result: Mapping[str, Any] | None = None) -> None:
        """Say that a job is done.

        Raises:
            Cancelled: It is not this worker's any more.
        """
        done = {"state": "done", "ended_at": now(), "progress": 1.0, "message": "", "result": dict(result or {})}
        self._own(job, worker, done)

    def fail(self, job: Job, worker: str, reason: str, *, again: bool = True) -> None:
        """Say that a try failed: it is tried again after a while, or set aside after :data:`TRIES`.

        Args:
            job: The job.
            worker: Whose it is.
            reason: Why, for people.
            again: Whether another try may help; else it is set aside at once.

        Raises:
            Cancelled: It is not this worker's any more.
        """
        values: dict[str, Any] = {"message": reason[:LONGEST_REASON]}
        if again and job.tries < TRIES:
            wait = WAIT_S[min(job.tries, len(WAIT_S)) - 1]
            values |= {"state": "queued", "worker": None, "alive_until": None, "not_before": later(wait)}
        else:
            values |= {"state": "failed", "ended_at": now()}
        self._own(job, worker, values)

    def give_back(self, job: Job, worker: str) -> None:
        """Put a job back that was begun and is not done, as if it had not been begun: its worker is about to stop.

        Raises:
            Cancelled: It is not this worker's any more.
        """
        values = {"state": "queued", "worker": None, "alive_until": None, "not_before": now(), "tries": job.tries - 1}
        self._own(job, worker, {**values, "progress": 0.0, "message": ""})

    def _own(self, job: Job, worker: str, values: Mapping[str, Any]) -> None:
        mine = (JOBS.c.id == job.id, JOBS.c.worker == worker, JOBS.c.tries == job.tries, JOBS.c.state == "running")
        with self.engine.begin() as connection:
            if connection.execute(update(JOBS).where(*mine).values(**values)).rowcount != 1:
                raise Cancelled(job.id)

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that waits or runs; one that has ended stays as it is.

        Raises:
            InputError: There is none of this id.
        """
        change = update(JOBS).where(JOBS.c.id == job_id, JOBS.c.state.in_(OPEN))
        with self.engine.begin() as connection:
            connection.execute(change.values(state="cancelled", ended_at=now(), message="cancelled"))
        return self.get(job_id)

    def again(self, job_id: str, *, by: str) -> Job:
        """Ask for a job anew that failed or was cancelled.

        Raises:
            InputError: There is none of this id, or it is open or done.
        """
        job = self.get(job_id)
        if job.state not in ("failed", "cancelled"):
            raise InputError(f"job {job_id}", got=job.state, expected="failed or cancelled")
        return self.ask(job.kind, job.key, job.task, by=by)


def _full(connection: Connection, at_most: Mapping[str, int], moment: str) -> tuple[str, ...]:
    """Kinds of which as many run as may."""
    query = select(JOBS.c.kind, func.count()).where(JOBS.c.state == "running", JOBS.c.alive_until >= moment)
    running = {str(kind): int(count) for kind, count in connection.execute(query.group_by(JOBS.c.kind))}
    return tuple(kind for kind, most in at_most.items() if running.get(kind, 0) >= most)


def _set_aside(connection: Connection, moment: str) -> None:
    """What its workers died of three times is poisonous."""
    connection.execute(
        update(JOBS)
        .where(JOBS.c.state == "running", JOBS.c.alive_until < moment, JOBS.c.tries >= TRIES)
        .values(state="failed", ended_at=moment, message=f"its worker died {TRIES} times; set aside")
    )
