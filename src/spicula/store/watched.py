"""What came into a store or changed in it since a while, and where the jobs for it stand.

It is asked in two queries, however many studies there are: whoever watches a store asks all the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, func, literal, or_, select, union_all

from spicula.store.jobs import OPEN
from spicula.store.tables import INSTANCES, JOBS, SERIES, STUDIES

_OF_STUDY = tuple(STUDIES.c[name] for name in ("study_uid", "body_part", "received_at", "newest_at"))
_OF_SERIES = tuple(SERIES.c[name] for name in ("series_uid", "modality", "description", "slice_thickness_mm"))
_OF_JOB = tuple(JOBS.c[name] for name in ("id", "state", "created_at", "ended_at", "message"))


@dataclass(frozen=True, slots=True)
class Step:
    """A job that is asked for of each study.

    Args:
        kind: Of the jobs.
        suffix: What follows the study's UID in their keys.
    """

    kind: str
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Changed:
    """What to look at: more came, or a job ended. Times are UTC, ISO 8601.

    Args:
        after: Studies of which something came, or of which a job ended, since.
        failed_from: And those of which a job failed between this ...
        failed_to: ... and this.
    """

    after: str
    failed_from: str
    failed_to: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest job of a step.

    Args:
        id: Of the job.
        state: Of the job.
        ended_at: When it was done, failed or cancelled; None while it is open.
        message: What it is doing, or why it failed.
    """

    id: str
    state: str
    ended_at: str | None
    message: str

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in OPEN


@dataclass(frozen=True, slots=True)
class WatchedStudy:
    """A study with what a rule may ask of it.

    Args:
        study: ``study_uid``, ``body_part``, ``received_at`` and ``newest_at``, when the newest instance came.
        series: ``series_uid``, ``modality``, ``description``, ``slice_thickness_mm`` and ``instances`` of each.
        jobs: The newest job of each step that has one.
    """

    study: Mapping[str, Any]
    series: Sequence[Mapping[str, Any]]
    jobs: Mapping[Step, Standing]


def watched_studies(
    engine: Engine, steps: Sequence[Step], *, since: str, changed: Changed | None = None
) -> list[WatchedStudy]:
    """Studies that have series, the newest received first.

    Args:
        engine: Of the store.
        steps: Jobs that are asked for of them.
        since: Received since, UTC in ISO 8601.
        changed: Only those; None for all.
    """
    wanted = STUDIES.c.received_at >= since
    if changed is not None:
        came = select(STUDIES.c.study_uid).where(STUDIES.c.newest_at >= changed.after)
        wanted &= STUDIES.c.study_uid.in_(came.union(*(_studies_of(step, changed) for step in steps)))
    counted = select(func.count()).where(INSTANCES.c.series_uid == SERIES.c.series_uid).scalar_subquery()
    rows = (
        select(*_OF_STUDY, *_OF_SERIES, counted.label("instances"))
        .join(SERIES, SERIES.c.study_uid == STUDIES.c.study_uid)
        .where(wanted)
        .order_by(STUDIES.c.received_at.desc(), STUDIES.c.study_uid, SERIES.c.number, SERIES.c.series_uid)
    )
    found: dict[str, Mapping[str, Any]] = {}
    series: dict[str, list[Mapping[str, Any]]] = {}
    with engine.connect() as connection:
        jobs = _newest_jobs(connection.execute(_jobs_of(steps, wanted)), steps)
        for row in connection.execute(rows).mappings():
            uid = str(row["study_uid"])
            found[uid] = {column.name: row[column.name] for column in _OF_STUDY}
            facts = {column.name: row[column.name] for column in _OF_SERIES}
            series.setdefault(uid, []).append({**facts, "instances": row["instances"]})
    return [WatchedStudy(study, series[uid], jobs.get(uid, {})) for uid, study in found.items()]


def _studies_of(step: Step, changed: Changed) -> Select[Any]:
    """Studies of which a job of a step ended."""
    ended = JOBS.c.ended_at
    again = (JOBS.c.state == "failed") & ended.between(changed.failed_from, changed.failed_to)
    query = select(func.substr(JOBS.c.key, 1, func.length(JOBS.c.key) - len(step.suffix)))
    query = query.where(JOBS.c.kind == step.kind, or_(ended >= changed.after, again))
    return query.where(JOBS.c.key.endswith(step.suffix, autoescape=True)) if step.suffix else query


def _jobs_of(steps: Sequence[Step], wanted: ColumnElement[bool]) -> Any:
    """Every job of some steps for the studies that are wanted, the oldest first."""
    parts = [
        select(literal(number).label("step"), STUDIES.c.study_uid, *_OF_JOB)
        .join(JOBS, (JOBS.c.kind == step.kind) & (JOBS.c.key == STUDIES.c.study_uid + step.suffix))
        .where(wanted)
        for number, step in enumerate(steps)
    ]
    every = union_all(*parts).subquery()
    return select(every).order_by(every.c.created_at, every.c.id)


def _newest_jobs(rows: Any, steps: Sequence[Step]) -> dict[str, dict[Step, Standing]]:
    found: dict[str, dict[Step, Standing]] = {}
    for row in rows:
        standing = Standing(row.id, row.state, row.ended_at, row.message)
        found.setdefault(str(row.study_uid), {})[steps[row.step]] = standing
    return found
