"""Findings of studies and every change to them, with who and when.

A finding that a person accepted, rejected or corrected keeps what the program had said in its first version. Whoever
changes a finding names the version that was seen: a change that another one has overtaken is refused, not merged.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, Engine, insert, select, update

from spicula.core.errors import InputError
from spicula.store.clock import now
from spicula.store.database import alone
from spicula.store.tables import ANALYSES, FINDING_CHANGES, FINDINGS

State: TypeAlias = Literal["proposed", "accepted", "rejected"]
What: TypeAlias = Literal["proposed", "added", "accepted", "rejected", "corrected", "reopened"]

STATES: tuple[State, ...] = ("proposed", "accepted", "rejected")

PROGRAM = "spicula"
"""Who a finding of the program is by."""


class Overtaken(InputError):
    """Another change came first."""


@dataclass(frozen=True, slots=True)
class StoredFinding:
    """A finding as it stands.

    Args:
        id: Names it.
        study_uid: Its study.
        series_uid: Its series.
        analysis_id: What found it; None for one that a person added.
        state: What people say of it.
        version: Counts its changes from 1.
        content: As ``report.json`` holds a finding, plain JSON values.
        changed_at: UTC, ISO 8601.
        changed_by: User.
    """

    id: str
    study_uid: str
    series_uid: str
    analysis_id: str | None
    state: State
    version: int
    content: Mapping[str, Any]
    changed_at: str
    changed_by: str


@dataclass(frozen=True, slots=True)
class Change:
    """One version of a finding.

    Args:
        version: From 1.
        at: UTC, ISO 8601.
        by: User.
        what: What was done.
        state: After it.
        content: After it.
    """

    version: int
    at: str
    by: str
    what: What
    state: State
    content: Mapping[str, Any]


_COLUMNS = tuple(FINDINGS.c[name] for name in StoredFinding.__dataclass_fields__)


class Findings:
    """The findings of a store.

    Args:
        engine: Of its database.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def keep_analysis(
        self, analysis_id: str, *, study_uid: str, series_uid: str, record: Mapping[str, Any], folder: str
    ) -> tuple[StoredFinding, ...]:
        """Keep what an analysis said, its findings as proposals; one that is there already changes nothing.

        Args:
            analysis_id: Names it; that of the job, so that a job begun twice keeps once.
            study_uid: Its study.
            series_uid: The series that was analyzed.
            record: ``report.json``.
            folder: Of its files, within the store.

        Returns:
            Its findings.
        """
        with alone(self.engine) as connection:
            there = connection.execute(select(ANALYSES.c.id).where(ANALYSES.c.id == analysis_id)).one_or_none()
            if there is None:
                row = {"id": analysis_id, "study_uid": study_uid, "series_uid": series_uid, "created_at": now()}
                connection.execute(insert(ANALYSES).values(**row, record=dict(record), folder=folder))
                for content in record["findings"]:
                    _begin(connection, study_uid, series_uid, analysis_id, content, by=PROGRAM, what="proposed")
        return self.of_study(study_uid, analysis_id=analysis_id)

    def add(self, *, study_uid: str, series_uid: str, content: Mapping[str, Any], by: str) -> StoredFinding:
        """Keep a finding that a person added; it is accepted."""
        with alone(self.engine) as connection:
            name = _begin(connection, study_uid, series_uid, None, content, by=by, what="added")
        return self.get(name)

    def propose(self, study_uid: str, proposals: Sequence[tuple[str, str, Mapping[str, Any]]], *, known_by: str) -> int:
        """Keep what other programs found, as proposals; one that is there already is not kept again.

        Args:
            study_uid: Of all of them.
            proposals: Series, program and content of each.
            known_by: Name of the content's fact that tells one from another.

        Returns:
            How many are new.
        """
        added = 0
        with alone(self.engine) as connection:
            query = select(FINDINGS.c.content).where(FINDINGS.c.study_uid == study_uid)
            known = {content.get(known_by) for content in connection.execute(query).scalars()}
            for series_uid, by, content in proposals:
                if content[known_by] not in known:
                    _begin(connection, study_uid, series_uid, None, content, by=by, what="proposed")
                    known.add(content[known_by])
                    added += 1
        return added

    def change(
        self, finding_id: str, *, seen: int, by: str, state: State | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> StoredFinding:  # fmt: skip
        """Accept, reject, reopen or correct a finding.

        Args:
            finding_id: Which.
            seen: The version that whoever changes it has seen.
            by: User.
            state: The new one; as it was if None, accepted if only the content is corrected.
            content: The new one; as it was if None.

        Raises:
            Overtaken: There is a later version.
            InputError: There is no such finding or state, or nothing is changed.
        """
        if state is None and content is None:
            raise InputError("change of a finding", got="nothing", expected="a state or a content")
        if state is not None and state not in STATES:
            raise InputError("state of a finding", got=repr(state), expected=f"one of {', '.join(STATES)}")
        after = state or "accepted"
        what: What = "corrected" if content is not None else "reopened" if after == "proposed" else after
        with alone(self.engine) as connection:
            row = connection.execute(select(*_COLUMNS).where(FINDINGS.c.id == finding_id)).one_or_none()
            found = _known(row, finding_id)
            if found.version != seen:
                raise Overtaken(
                    f"finding {finding_id}", got=f"a change of version {seen}", expected=f"{found.version}",
                    hint=f"{found.changed_by} changed it meanwhile; look at it again",
                )  # fmt: skip
            new = dict(found.content if content is None else content)
            at = now()
            values = {"state": after, "version": seen + 1, "content": new, "changed_at": at, "changed_by": by}
            connection.execute(update(FINDINGS).where(FINDINGS.c.id == finding_id).values(**values))
            change = {"finding_id": finding_id, "version": seen + 1, "at": at, "by": by, "what": what, "state": after}
            connection.execute(insert(FINDING_CHANGES).values(**change, content=new))
        return self.get(finding_id)

    def get(self, finding_id: str) -> StoredFinding:
        """One finding.

        Raises:
            InputError: There is none.
        """
        with self.engine.connect() as connection:
            row = connection.execute(select(*_COLUMNS).where(FINDINGS.c.id == finding_id)).one_or_none()
        return _known(row, finding_id)

    def of_study(self, study_uid: str, *, analysis_id: str | None = None) -> tuple[StoredFinding, ...]:
        """Findings of a study in the order they came; of one analysis alone if it is named."""
        query = select(*_COLUMNS).join(FINDING_CHANGES, FINDING_CHANGES.c.finding_id == FINDINGS.c.id)
        query = query.where(FINDINGS.c.study_uid == study_uid, FINDING_CHANGES.c.version == 1)
        if analysis_id is not None:
            query = query.where(FINDINGS.c.analysis_id == analysis_id)
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(FINDING_CHANGES.c.at, FINDINGS.c.id))
            return tuple(StoredFinding(*row) for row in rows)

    def versions(self, study_uid: str) -> tuple[list[str], list[tuple[str, int]]]:
        """Ids of a study's analyses, the newest first, and id and version of each finding in the order they came."""
        analyses = select(ANALYSES.c.id).where(ANALYSES.c.study_uid == study_uid).order_by(ANALYSES.c.created_at.desc())
        findings = (
            select(FINDINGS.c.id, FINDINGS.c.version)
            .join(FINDING_CHANGES, FINDING_CHANGES.c.finding_id == FINDINGS.c.id)
            .where(FINDINGS.c.study_uid == study_uid, FINDING_CHANGES.c.version == 1)
            .order_by(FINDING_CHANGES.c.at, FINDINGS.c.id)
        )
        with self.engine.connect() as connection:
            ids = [str(name) for name in connection.execute(analyses).scalars()]
            return ids, [(str(name), int(version)) for name, version in connection.execute(findings)]

    def of_studies(self, study_uids: Sequence[str]) -> dict[str, tuple[StoredFinding, ...]]:
        """Findings of several studies by study; those without any have no entry."""
        query = select(*_COLUMNS).where(FINDINGS.c.study_uid.in_(list(study_uids))).order_by(FINDINGS.c.id)
        found: dict[str, tuple[StoredFinding, ...]] = {}
        with self.engine.connect() as connection:
            for row in connection.execute(query):
                found[row.study_uid] = (*found.get(row.study_uid, ()), StoredFinding(*row))
        return found

    def history(self, finding_id: str) -> tuple[Change, ...]:
        """Every version of a finding, the first first.

        Raises:
            InputError: There is none.
        """
        columns = [FINDING_CHANGES.c[name] for name in Change.__dataclass_fields__]
        query = select(*columns).where(FINDING_CHANGES.c.finding_id == finding_id).order_by(FINDING_CHANGES.c.version)
        with self.engine.connect() as connection:
            rows: Sequence[Any] = connection.execute(query).all()
        if not rows:
            raise InputError(f"finding {finding_id[:40]}", got="none of this id")
        return tuple(Change(*row) for row in rows)

    def latest_analyses(self, study_uids: Sequence[str]) -> dict[str, str]:
        """The newest analysis of each of some studies that has one, by study."""
        query = select(ANALYSES.c.study_uid, ANALYSES.c.id).where(ANALYSES.c.study_uid.in_(list(study_uids)))
        with self.engine.connect() as connection:
            return {str(uid): str(name) for uid, name in connection.execute(query.order_by(ANALYSES.c.created_at))}

    def analyses(self, study_uid: str) -> tuple[Mapping[str, Any], ...]:
        """Analyses of a study, the newest first, with their records."""
        query = select(ANALYSES).where(ANALYSES.c.study_uid == study_uid).order_by(ANALYSES.c.created_at.desc())
        with self.engine.connect() as connection:
            return tuple(dict(row) for row in connection.execute(query).mappings())


def _known(row: Any, finding_id: str) -> StoredFinding:
    if row is None:
        raise InputError(f"finding {finding_id[:40]}", got="none of this id")
    return StoredFinding(*row)


def _begin(
    connection: Connection, study_uid: str, series_uid: str, analysis_id: str | None, content: Mapping[str, Any], *,
    by: str, what: What,
) -> str:  # fmt: skip
    name, at = uuid.uuid4().hex, now()
    state: State = "accepted" if what == "added" else "proposed"
    row = {"id": name, "study_uid": study_uid, "series_uid": series_uid, "analysis_id": analysis_id, "state": state}
    connection.execute(
        insert(FINDINGS).values(**row, version=1, content=dict(content), changed_at=at, changed_by=by)
    )  # fmt: skip
    change = {"finding_id": name, "version": 1, "at": at, "by": by, "what": what, "state": state}
    connection.execute(insert(FINDING_CHANGES).values(**change, content=dict(content)))
    return name
