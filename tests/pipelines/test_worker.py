"""Workers do each job once, whatever is killed, and keep what a real CT gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from spicula.pipelines.worker import ANALYZE, ask_analysis, ask_import, reason_of, work
from spicula.pipelines.workplace import Workplace, open_workplace
from spicula.store.jobs import TRIES, Cancelled
from spicula.store.tables import STUDIES


@pytest.fixture
def place(tmp_path):
    with open_workplace(tmp_path / "store") as place:
        yield place


def test_an_error_is_kept_with_its_reason_and_the_worker_goes_on(place: Workplace) -> None:
    seen: list[str] = []

    def handler(_place, job, tell):
        seen.append(job.key)
        tell(0.5, "half")
        if job.key == "bad":
            raise ValueError("broken")
        return {"key": job.key}

    bad = place.queue.ask("try", "bad", {}, by="ada")
    good = place.queue.ask("try", "good", {}, by="ada")
    assert work(place, once=True, handlers={"try": handler}) == 2
    assert (place.queue.get(good.id).state, place.queue.get(good.id).result) == ("done", {"key": "good"})
    assert (place.queue.get(bad.id).state, place.queue.get(bad.id).message) == ("queued", "ValueError: broken")
    assert seen == ["bad", "good"]


def test_a_cancelled_job_stops_at_its_next_word(place: Workplace) -> None:
    stopped: list[str] = []

    def handler(place, job, tell):
        place.queue.cancel(job.id)
        try:
            tell(0.5, "half")
        except Cancelled:
            stopped.append(job.id)
            raise
        return {}

    job = place.queue.ask("try", "a", {}, by="ada")
    work(place, once=True, handlers={"try": handler})
    assert stopped == [job.id]
    assert place.queue.get(job.id).state == "cancelled"


def test_a_worker_stops_when_it_is_told(place: Workplace) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=lambda: work(place, stop=stop, idle_s=0.01))
    thread.start()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_an_analysis_that_was_kept_is_not_made_again(place: Workplace) -> None:
    study = {"study_uid": "1.2", "patient_id": "P1", "patient_name": "", "study_date": "", "description": ""}
    row = {**study, "accession_number": "", "body_part": "", "received_at": "x", "origin": "x", "deidentified": False}
    with place.engine.begin() as connection:
        connection.execute(insert(STUDIES).values(row))
    job = ask_analysis(place, "1.2", by="ada")
    place.findings.keep_analysis(
        job.id, study_uid="1.2", series_uid="1.2.3", record={"findings": [{"id": "1"}]}, folder=f"analyses/{job.id}-1"
    )  # and then its worker died
    assert work(place, once=True) == 1
    told = place.queue.get(job.id)
    assert (told.state, told.result) == (
        "done", {"findings": 1, "series_uid": "1.2.3", "report": f"analyses/{job.id}-1/report.json"}
    )  # fmt: skip


def test_a_reason_holds_nothing_of_a_refused_row(place: Workplace) -> None:
    row = {"study_uid": "1.2", "patient_id": "P1", "patient_name": "Doe^Jane", "origin": "x", "received_at": None}
    with pytest.raises(IntegrityError) as caught, place.engine.begin() as connection:
        connection.execute(insert(STUDIES).values(row))
    assert reason_of(caught.value) == "the database refused it (IntegrityError)"


def test_a_store_that_de_identifies_stays_so(tmp_path) -> None:
    with open_workplace(tmp_path / "other") as place:
        assert place.secret is None
    with open_workplace(tmp_path / "other", deidentify=True) as place:
        secret = place.secret
    with open_workplace(tmp_path / "other") as place:
        assert place.deidentify
        assert place.secret == secret is not None


SLOW = """
import sys, time
from pathlib import Path
from spicula.store import jobs
jobs.ALIVE_S = 0.6
import spicula.pipelines.worker as worker
worker.ALIVE_S = 0.6
from spicula.pipelines.workplace import open_workplace
def handler(place, job, tell):
    with (Path(sys.argv[1]) / "begun").open("a") as stream:
        stream.write(job.key + "\\n")
    for step in range(8):
        time.sleep(0.05)
        tell(step / 8, "working")
    return {"key": job.key}
with open_workplace(Path(sys.argv[1])) as place:
    worker.work(place, handlers={"try": handler}, idle_s=0.05)
"""


def test_killed_workers_lose_nothing_and_nothing_is_done_twice(place: Workplace) -> None:
    asked = [place.queue.ask("try", f"{n}", {}, by="ada").id for n in range(6)]
    begin = lambda: subprocess.Popen([sys.executable, "-c", SLOW, str(place.folder)])  # noqa: E731
    workers = [begin(), begin()]
    try:
        begun = place.folder / "begun"
        while not begun.is_file():
            time.sleep(0.05)
        for number in range(2):  # in the middle of a job
            os.kill(workers[number].pid, signal.SIGKILL)
            workers[number].wait()
            workers.append(begin())
            time.sleep(0.3)
        until = time.monotonic() + 60
        while place.queue.counts().get("done", 0) < len(asked) and time.monotonic() < until:
            time.sleep(0.1)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    found = [place.queue.get(name) for name in asked]
    assert [job.state for job in found] == ["done"] * len(asked)
    assert max(job.tries for job in found) <= TRIES


@pytest.mark.shared
@pytest.mark.slow
def test_a_real_ct_is_imported_analyzed_and_kept(place: Workplace, lidc_0001: Path) -> None:
    job = ask_import(place, lidc_0001, by="ada")
    assert work(place, once=True) == 2
    told = place.queue.get(job.id).result
    assert (told["added"], told["failed"], len(told["analyses"])) == (133, 0, 1)
    (study,) = told["studies"]
    findings = place.findings.of_study(study)
    assert findings[0].content["center_xyz_mm"] == pytest.approx([56.2, 86.3, -115.9], abs=2.0)
    (analysis,) = place.findings.analyses(study)
    folder = place.folder / analysis["folder"]
    assert {"report.html", "report.json", "sr.dcm", "seg.dcm"} <= {path.name for path in folder.iterdir()}
    again = ask_analysis(place, study, by="bob", once=True)
    assert again.id == told["analyses"][0]
    assert place.queue.list(states=["queued"]) == ()
    assert [path for path in place.folder.iterdir() if path.name.startswith(".spicula")] == []


def test_a_study_without_ct_fails_with_a_reason(place: Workplace, tmp_path: Path) -> None:
    from spicula.store.studies import NewInstance

    (tmp_path / "a.dcm").write_bytes(b"x")
    place.studies.add(
        tmp_path / "a.dcm",
        NewInstance(
            {"study_uid": "1.2", "patient_id": "P", "origin": "upload"}, {"series_uid": "1.2.3", "modality": "SR"},
            {"sop_instance_uid": "1.2.3.4", "sop_class_uid": "1.2", "transfer_syntax_uid": "1.2.1"},
        ),
    )  # fmt: skip
    job = ask_analysis(place, "1.2", by="ada")
    work(place, once=True)
    assert "no CT series" in place.queue.get(job.id).message
    assert place.queue.get(job.id).kind == ANALYZE
