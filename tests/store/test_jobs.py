"""The queue: each job done once, whoever dies."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert, update

from spicula.core.errors import InputError
from spicula.store import jobs
from spicula.store.jobs import TRIES, Cancelled, Queue
from spicula.store.tables import JOBS


@pytest.fixture
def queue(engine) -> Queue:
    return Queue(engine)


def silent(queue: Queue, job_id: str) -> None:
    """As if the worker had been killed a while ago."""
    past = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    with queue.engine.begin() as connection:
        connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(alive_until=past))


def due(queue: Queue) -> None:
    """As if what waits for another try had waited."""
    with queue.engine.begin() as connection:
        connection.execute(update(JOBS).values(not_before=JOBS.c.created_at))


def test_a_job_is_taken_told_of_and_done(queue) -> None:
    asked = queue.ask("analyze", "1.2.3", {"series": "4"}, by="ada")
    assert (asked.state, asked.tries, asked.created_by) == ("queued", 0, "ada")
    job = queue.take("w1")
    assert job is not None
    assert (job.id, job.state, job.tries, job.task) == (asked.id, "running", 1, {"series": "4"})
    assert queue.take("w2") is None
    queue.tell(job, "w1", progress=0.4, message="outlining")
    assert (queue.get(job.id).progress, queue.get(job.id).message) == (0.4, "outlining")
    queue.end(job, "w1", {"findings": 2})
    assert (queue.get(job.id).state, queue.get(job.id).result) == ("done", {"findings": 2})
    assert queue.counts() == {"done": 1}


def test_the_oldest_is_taken_first_and_kinds_can_be_chosen(queue) -> None:
    asked = [queue.ask(kind, str(n), {}, by="ada") for n, kind in enumerate(["import", "analyze", "import"])]
    assert queue.take("w", kinds=["analyze"]).id == asked[1].id
    assert [queue.take("w").id, queue.take("w").id] == [asked[0].id, asked[2].id]


def test_the_same_job_asked_while_it_is_open_is_one(queue) -> None:
    first = queue.ask("analyze", "1.2.3", {}, by="ada")
    assert queue.ask("analyze", "1.2.3", {}, by="bob").id == first.id
    job = queue.take("w")
    assert queue.ask("analyze", "1.2.3", {}, by="bob").id == first.id
    queue.end(job, "w")
    assert queue.ask("analyze", "1.2.3", {}, by="bob", once=True).id == first.id
    assert queue.ask("analyze", "1.2.3", {}, by="bob").id != first.id


def test_many_that_ask_the_same_at_once_get_the_same(queue) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(queue.ask("analyze", "1.2.3", {}, by="ada").id)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_many_workers_take_each_job_once(queue) -> None:
    asked = {queue.ask("analyze", str(n), {}, by="ada").id for n in range(24)}
    taken: Counter[str] = Counter()

    def work(name: str) -> None:
        while (job := queue.take(name)) is not None:
            taken[job.id] += 1
            queue.end(job, name)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == Counter(asked)
    assert queue.counts() == {"done": 24}


def test_a_dead_workers_job_is_taken_up_and_the_dead_can_change_nothing(queue) -> None:
    queue.ask("analyze", "1.2.3", {}, by="ada")
    first = queue.take("w1")
    silent(queue, first.id)
    second = queue.take("w2")
    assert (second.id, second.tries) == (first.id, 2)
    for change in (
        lambda: queue.tell(first, "w1"),
        lambda: queue.end(first, "w1"),
        lambda: queue.fail(first, "w1", "x"),
    ):
        with pytest.raises(Cancelled):
            change()
    queue.end(second, "w2")
    assert queue.get(first.id).state == "done"


def test_what_kills_its_workers_is_set_aside(queue) -> None:
    asked = queue.ask("analyze", "1.2.3", {}, by="ada")
    for _ in range(TRIES):
        silent(queue, queue.take("w").id)
    assert queue.take("w") is None
    assert queue.get(asked.id).state == "failed"
    assert "died 3 times" in queue.get(asked.id).message


def test_what_fails_is_tried_again_after_a_while_and_set_aside_with_its_reason(queue) -> None:
    asked = queue.ask("analyze", "1.2.3", {}, by="ada")
    for number in range(TRIES):
        job = queue.take("w")
        assert job.tries == number + 1
        queue.fail(job, "w", "no lungs")
        assert queue.take("w") is None
        due(queue)
    assert (queue.get(asked.id).state, queue.get(asked.id).message) == ("failed", "no lungs")
    again = queue.again(asked.id, by="bob")
    assert (again.state, again.tries) == ("queued", 0)
    with pytest.raises(InputError, match="queued"):
        queue.again(again.id, by="bob")


def test_what_no_try_can_help_is_set_aside_at_once(queue) -> None:
    asked = queue.ask("analyze", "1.2.3", {}, by="ada")
    queue.fail(queue.take("w"), "w", "not a chest", again=False)
    assert queue.get(asked.id).state == "failed"


def test_a_cancelled_job_stops_its_worker(queue) -> None:
    asked = queue.ask("analyze", "1.2.3", {}, by="ada")
    job = queue.take("w")
    assert queue.cancel(asked.id).state == "cancelled"
    with pytest.raises(Cancelled):
        queue.tell(job, "w", progress=0.5)
    assert queue.take("w") is None
    assert queue.ask("analyze", "1.2.3", {}, by="ada").id != asked.id


def test_no_more_of_a_kind_run_than_may(queue) -> None:
    for n in range(4):
        queue.ask("analyze", str(n), {}, by="ada")
    queue.ask("import", "a", {}, by="ada")
    most = {"analyze": 2}
    kinds = [job.kind for job in (queue.take(f"w{n}", at_most=most) for n in range(3)) if job]
    assert sorted(kinds) == ["analyze", "analyze", "import"]
    assert queue.take("w9", at_most=most) is None


def test_an_unknown_job_is_an_error_and_long_reasons_are_cut(queue) -> None:
    with pytest.raises(InputError, match="none of this id"):
        queue.get("nothing")
    queue.ask("analyze", "1.2.3", {}, by="ada")
    queue.fail(queue.take("w"), "w", "x" * 10_000, again=False)
    assert len(queue.list(states=["failed"])[0].message) == jobs.LONGEST_REASON


def plans(queue: Queue, ask: Callable[[], object]) -> list[str]:
    """How the database finds what it is asked for, a text a query on jobs."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().startswith(("SELECT", "UPDATE")) and "jobs" in statement:
            seen.append((statement, parameters))

    event.listen(queue.engine, "before_cursor_execute", note)
    ask()
    event.remove(queue.engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if queue.engine.dialect.name == "sqlite" else "EXPLAIN "
    with queue.engine.connect() as connection:
        return [
            "\n".join(str(row) for row in connection.exec_driver_sql(explain + statement, parameters))
            for statement, parameters in seen
        ]


def test_what_is_asked_all_the_time_is_found_by_an_index(queue) -> None:
    """In a store in which much was done: no query looks through all jobs, none sorts all that wait."""
    row = {"kind": "analyze", "task": {}, "created_by": "ada", "progress": 0.0, "message": "", "tries": 1}
    at = "2026-01-01T00:{:02d}:{:02d}.000000Z"
    rows = []
    for number in range(3000):
        time = at.format(number // 60, number % 60)
        state = "queued" if number >= 2000 else "done"
        rows.append({**row, "id": f"{number}", "key": f"{number}", "state": state, "created_at": time,
                     "not_before": time, "ended_at": None if state == "queued" else time})  # fmt: skip
    with queue.engine.begin() as connection:
        connection.execute(insert(JOBS), rows)
    with queue.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    asked = {
        "take": lambda: queue.take("w", kinds=["analyze", "send"], at_most={"analyze": 5}),
        "latest": lambda: queue.latest("analyze", ["7", "8"]),
        "ask": lambda: queue.ask("analyze", "7", {}, by="ada", once=True),
        "list": lambda: queue.list(limit=100),
        "queued": lambda: queue.list(states=["queued"], limit=100),
    }
    indexes = {
        "take": "ix_jobs_state_created_at", "latest": "ix_jobs_kind_key_created_at", "ask": "jobs_",
        "list": "ix_jobs_created_at", "queued": "ix_jobs_state_created_at",
    }  # fmt: skip
    for name, ask in asked.items():
        told = [plan for plan in plans(queue, ask) if "GROUP BY" not in plan and "Aggregate" not in plan]
        assert any(indexes[name] in plan for plan in told), (name, told)
        for plan in told:
            assert not any(word in plan for word in ("SCAN jobs'", "Seq Scan")), (name, plan)
            assert name == "latest" or not any(word in plan for word in ("ORDER BY", "Sort")), (name, plan)
    assert queue.take("w").id == "2001"
