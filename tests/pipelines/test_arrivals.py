"""What follows an arrival is the same by whatever way a study came."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import highdicom as hd
import pytest
from typer.testing import CliRunner

from spicula.cli import storing
from spicula.pipelines.arrivals import after_arrival
from spicula.pipelines.ingest import ingest
from spicula.pipelines.worker import ANALYZE, HANDLERS, IMPORT, ask_import, work
from spicula.pipelines.workplace import Workplace, open_workplace
from spicula.store.clock import later
from spicula.store.jobs import Job, Queue

from .exchange_tiny import write_ct
from .test_read_reports import group, headers_of, keep_report, source, world  # noqa: F401


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with open_workplace(tmp_path / "store") as place:
        yield place


@pytest.fixture
def study(place: Workplace, tmp_path: Path) -> str:
    (uid,) = ingest(write_ct(tmp_path / "ct")[0].parent, place.studies, origin="upload").studies
    return uid


def asked(place: Workplace) -> list[str]:
    return [job.id for job in reversed(place.queue.list()) if job.kind == ANALYZE]


def ended(queue: Queue, how: str) -> None:
    job = queue.take("w", kinds=[ANALYZE])
    assert job is not None
    if how == "done":
        queue.end(job, "w")
    else:
        queue.fail(job, "w", "broken", again=False)


def test_an_analysis_is_asked_for_where_one_is_lacking(place: Workplace, study: str) -> None:
    first = after_arrival(place, study, by="ada", anew=False)
    assert after_arrival(place, study, by="bob", anew=True) == first  # it is open
    ended(place.queue, "done")
    assert after_arrival(place, study, by="ada", anew=False) == first
    second = after_arrival(place, study, by="ada", anew=True)
    ended(place.queue, "failed")
    third = after_arrival(place, study, by="ada", anew=False)
    assert asked(place) == [first, second, third]


def test_what_was_asked_for_before_the_job_was_begun_again_is_not_asked_for_twice(place: Workplace, study: str) -> None:
    begun = later(0)
    first = after_arrival(place, study, by="ada", anew=True, since=begun)
    for how in ("done", "failed"):
        ended(place.queue, how)
        assert after_arrival(place, study, by="ada", anew=True, since=begun) == asked(place)[-1]
        after_arrival(place, study, by="ada", anew=True, since=later(0))
    assert (asked(place)[0], len(asked(place))) == (first, 3)


def test_nothing_is_asked_for_without_ct_or_where_it_is_not_wanted(place: Workplace, study: str) -> None:
    assert after_arrival(place, study, by="ada", anew=True, analyze=False) is None
    assert after_arrival(place, "1.2.3", by="ada", anew=True, analyze=True) is None  # it has no series
    assert asked(place) == []


def test_reports_that_came_with_a_ct_are_taken_in_by_every_way(
    tmp_path: Path,
    source: Path,  # noqa: F811
) -> None:
    point = hd.sr.ImageRegion3D("POINT", world((6, 11, 30))[None], "1.2.9")
    with open_workplace(tmp_path / "first") as first:
        ingest(source, first.studies, origin="upload")
        report = keep_report(first, tmp_path / "sr", [group(point, "1", "1.2.77.1")], headers_of(source))
    whole = tmp_path / "whole"
    whole.mkdir()
    for path in (*source.iterdir(), report):
        (whole / path.name).write_bytes(path.read_bytes())
    done = CliRunner().invoke(storing.app, ["import", str(whole)], env={"SPICULA_STORE": str(tmp_path / "by-command")})
    assert (done.exit_code, "1 to be analyzed" in done.stdout) == (0, True), done.stdout
    with open_workplace(tmp_path / "by-upload") as place:
        ask_import(place, whole, by="ada")
        work(place, once=True, handlers={IMPORT: HANDLERS[IMPORT]})
    for name in ("by-command", "by-upload"):
        with open_workplace(tmp_path / name) as place:
            (row,) = place.studies.list().rows
            (finding,) = place.findings.of_study(row["study_uid"])
            assert finding.content["reported_uid"] == "1.2.77.1"
            assert len(asked(place)) == 1


def test_an_import_that_died_after_it_asked_asks_once_and_one_that_died_before_asks_still(
    place: Workplace, study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try brought everything in: the second finds nothing new."""
    after_arrival(place, study, by="ada", anew=True)
    ended(place.queue, "done")  # an analysis of before
    handler = HANDLERS[IMPORT]
    extra = write_ct(tmp_path / "more", "more")[0].parent
    job = ask_import(place, extra, by="ada")
    begun: Job | None = place.queue.take("w1", kinds=[IMPORT])
    assert begun is not None
    assert begun.id == job.id
    ingest(extra, place.studies, origin="upload")  # and then its worker died
    monkeypatch.setattr("spicula.store.jobs.ALIVE_S", -1.0)
    place.queue.tell(begun, "w1")
    monkeypatch.undo()
    again = place.queue.take("w2", kinds=[IMPORT])
    assert again is not None
    assert again.tries == 2
    told = handler(place, again, lambda *_: None)
    assert (told["added"], len(told["analyses"])) == (0, 1)
    assert handler(place, again, lambda *_: None)["analyses"] == told["analyses"]
    assert len(asked(place)) == 2
