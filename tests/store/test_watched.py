"""What came or changed since a while, in two queries that look at nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert

from spicula.store.database import open_database
from spicula.store.tables import INSTANCES, JOBS, SERIES, STUDIES
from spicula.store.watched import Changed, Step, watched_studies

ANALYSIS, SENDING = Step("analyze"), Step("send", " a_b% sr seg")
STEPS = (ANALYSIS, SENDING)
NOTHING = Changed("9", "9", "9")


def at(minute: int) -> str:
    return f"2026-01-01T00:{minute:02d}:00.000000Z"


@pytest.fixture
def filled(engine: Engine) -> Engine:
    return fill(engine)


def fill(engine: Engine) -> Engine:
    """Five studies, received at minutes 0 to 4, of two series with two and no images; the last one has no series."""
    studies = [
        {"study_uid": f"1.{n}", "patient_id": "P", "origin": "x", "body_part": "CHEST", "received_at": at(n),
         "newest_at": at(n + 10)}
        for n in range(5)
    ]  # fmt: skip
    series = [
        {"series_uid": f"1.{n}.{k}", "study_uid": f"1.{n}", "modality": "CT", "number": k}
        for n in range(4)
        for k in range(2)
    ]
    about = {"sop_class_uid": "1.2", "transfer_syntax_uid": "1.2.1", "bytes": 1, "sha256": ""}
    instances = [
        {**about, "sop_instance_uid": f"1.{n}.1.{k}", "series_uid": f"1.{n}.1", "file": f"{n}.{k}"}
        for n in range(4)
        for k in range(2)
    ]
    with engine.begin() as connection:
        for table, rows in ((STUDIES, studies), (SERIES, series), (INSTANCES, instances)):
            connection.execute(insert(table), rows)
    return engine


def add_job(engine: Engine, name: str, key: str, kind: str, state: str, *, created: int, ended: int | None) -> None:
    row = {"id": name, "kind": kind, "key": key, "state": state, "task": {}, "created_by": "x", "message": name}
    times = {"created_at": at(created), "not_before": at(created), "ended_at": None if ended is None else at(ended)}
    with engine.begin() as connection:
        connection.execute(insert(JOBS).values({**row, **times}))


def uids(engine: Engine, changed: Changed | None = None, since: str = "") -> list[str]:
    return [str(one.study["study_uid"]) for one in watched_studies(engine, STEPS, since=since, changed=changed)]


def test_all_that_came_since_the_newest_first(filled: Engine) -> None:
    assert uids(filled) == ["1.3", "1.2", "1.1", "1.0"]
    assert uids(filled, since=at(2)) == ["1.3", "1.2"]
    (one,) = watched_studies(filled, STEPS, since=at(3))
    assert dict(one.study) == {
        "study_uid": "1.3", "body_part": "CHEST", "received_at": at(3), "newest_at": at(13)
    }  # fmt: skip
    assert [(row["series_uid"], row["modality"], row["instances"]) for row in one.series] == [
        ("1.3.0", "CT", 0), ("1.3.1", "CT", 2)
    ]  # fmt: skip
    assert one.jobs == {}


def test_the_newest_job_of_each_step_tells_where_it_stands(filled: Engine) -> None:
    add_job(filled, "a", "1.1", "analyze", "failed", created=20, ended=21)
    add_job(filled, "b", "1.1", "analyze", "running", created=22, ended=None)
    add_job(filled, "c", "1.1 a_b% sr seg", "send", "done", created=23, ended=24)
    add_job(filled, "d", "1.1 other sr seg", "send", "failed", created=25, ended=26)
    add_job(filled, "e", "1.2", "import", "done", created=25, ended=26)
    found = {str(one.study["study_uid"]): one.jobs for one in watched_studies(filled, STEPS, since="")}
    assert {step: job.id for step, job in found["1.1"].items()} == {ANALYSIS: "b", SENDING: "c"}
    assert (found["1.1"][ANALYSIS].is_open, found["1.1"][SENDING].is_open) == (True, False)
    assert (found["1.1"][SENDING].ended_at, found["1.1"][SENDING].message) == (at(24), "c")
    assert found["1.2"] == {}


def test_only_what_changed(filled: Engine) -> None:
    assert uids(filled, NOTHING) == []
    assert uids(filled, Changed(at(12), "9", "9")) == ["1.3", "1.2"]
    assert uids(filled, Changed(at(12), "9", "9"), since=at(3)) == ["1.3"]
    add_job(filled, "a", "1.0", "analyze", "done", created=20, ended=30)
    assert uids(filled, Changed(at(30), "9", "9")) == ["1.0"]
    assert uids(filled, Changed(at(31), "9", "9")) == []
    add_job(filled, "b", "1.1 a_b% sr seg", "send", "failed", created=20, ended=25)
    add_job(filled, "c", "1.2 axb1 sr seg", "send", "failed", created=20, ended=25)  # to another archive
    add_job(filled, "d", "1.3 a_b% sr seg", "send", "done", created=20, ended=25)
    assert uids(filled, Changed("9", at(24), at(26))) == ["1.1"]
    assert uids(filled, Changed("9", at(26), at(27))) == []


def test_nothing_is_looked_at_but_what_changed(tmp_path: Path) -> None:
    """No table is gone through: a store may hold a million images. PostgreSQL would, one as small as this."""
    filled = fill(open_database(tmp_path / "store"))
    seen: list[tuple[str, Any]] = []
    event.listen(filled, "before_cursor_execute", lambda *told: seen.append((told[2], told[3])))
    assert uids(filled, Changed(at(13), at(1), at(2))) == ["1.3"]
    asked = [one for one in seen if one[0].startswith("SELECT")]
    assert len(asked) == 2
    with filled.connect() as connection:
        for statement, parameters in asked:
            plan = [str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            assert [step for step in plan if step.startswith("SCAN")] == [], plan
    filled.dispose()
