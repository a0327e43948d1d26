"""What is acknowledged is in the store, whatever is killed, full or sent twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid
from sqlalchemy.exc import OperationalError

from spicula.core.errors import InputError, OfflineError
from spicula.dicom.deidentify import deidentified_uid
from spicula.dicom.inbox import facts_of
from spicula.dicom.pacs import Pacs
from spicula.dicom.web import DicomWeb
from spicula.pipelines import exchange
from spicula.pipelines import listen as listening_module
from spicula.pipelines.exchange import ask_pull
from spicula.pipelines.ingest import ingest
from spicula.pipelines.listen import ARRIVED, MOVING, Moved, listen, move_in, set_aside_files
from spicula.pipelines.worker import work
from spicula.pipelines.workplace import Workplace, open_workplace

from ..orthanc_server import Orthanc, free_port
from .exchange_tiny import SECRET, SLICES, tiny_handlers, write_archives, write_ct


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with open_workplace(tmp_path / "store") as place:
        yield place


@contextmanager
def listening(place: Workplace, port: int = 0, **options: Any) -> Iterator[tuple[Pacs, list[Moved]]]:
    """A listener in a thread, and the way to it."""
    stop, ready = threading.Event(), threading.Event()
    ports: list[int] = []
    moved: list[Moved] = []

    def started(port: int) -> None:
        ports.append(port)
        ready.set()

    given = {"port": port, "idle_s": 0.02, "reserve_bytes": 0, "timeout_s": 5.0, **options}
    thread = threading.Thread(
        target=listen, args=(place,), kwargs={"stop": stop, "started": started, "came": moved.append, **given}
    )  # fmt: skip
    thread.start()
    try:
        assert ready.wait(20)
        yield Pacs("127.0.0.1", ports[0], "SPICULA", calling_ae_title="SENDER", answer_timeout_s=10.0), moved
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def until(reached: Callable[[], bool]) -> None:
    stop = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < stop
        time.sleep(0.02)


def held(place: Workplace) -> set[str]:
    return {
        str(row["sop_instance_uid"])
        for study in place.studies.list(limit=1000).rows
        for series in place.studies.series(str(study["study_uid"]))
        for row in place.studies.instances(str(series["series_uid"]))
    }


def left(place: Workplace) -> list[Path]:
    return [path for name in (ARRIVED, MOVING) for path in (place.folder / name).rglob("*.dcm")]


def test_what_is_sent_comes_into_the_store_once(place: Workplace, tmp_path: Path) -> None:
    files = write_ct(tmp_path / "ct")
    with listening(place) as (way, moved):
        way.echo()
        sent = way.store(files)
        until(lambda: held(place) == set(sent))
        way.store(files)
        until(lambda: sum(one.known for one in moved) == SLICES)
    assert sum(one.added for one in moved) == SLICES
    assert {uid for one in moved for uid in one.studies} == {facts_of(files[0]).study_uid}
    assert left(place) == []
    assert set_aside_files(place) == ()
    assert place.studies.list().rows[0]["origin"] == "dimse"
    assert list(place.studies.damaged()) == []


def test_only_who_may_and_calls_us_by_our_name_sends(place: Workplace, tmp_path: Path) -> None:
    files = write_ct(tmp_path / "ct")
    with listening(place, aet="HERE", allowed_aets=["SCANNER"]) as (way, _):
        for title, calling in (("HERE", "SENDER"), ("SPICULA", "SCANNER")):
            with pytest.raises(InputError, match="refuses us"):
                Pacs(way.host, way.port, title, calling_ae_title=calling).store(files)
        assert len(Pacs(way.host, way.port, "HERE", calling_ae_title="SCANNER").store(files)) == SLICES
    assert len(held(place)) == SLICES


def test_one_listener_a_store_and_a_port(place: Workplace, tmp_path: Path) -> None:
    with listening(place) as (way, _):
        with pytest.raises(InputError, match="another process receives"):
            listen(place, port=0)
        with open_workplace(tmp_path / "other") as other, pytest.raises(InputError, match="port"):
            listen(other, port=way.port)


def test_the_same_data_set_that_came_another_way_is_known_and_another_is_set_aside(
    place: Workplace, tmp_path: Path
) -> None:
    files = write_ct(tmp_path / "ct")
    ingest(files[0].parent, place.studies, origin="upload")
    changed = pydicom.dcmread(files[0])
    changed.PatientComments = "changed"
    changed.save_as(tmp_path / "changed.dcm")
    with listening(place) as (way, moved):
        way.store(files)  # what they say of themselves is ours now
        until(lambda: sum(one.known for one in moved) == SLICES)
        way.store([tmp_path / "changed.dcm"])
        until(lambda: len(set_aside_files(place)) == 1)
        way.store([tmp_path / "changed.dcm"])
        until(lambda: len(set_aside_files(place)) == 2)
    reason = set_aside_files(place)[0].with_suffix(".txt").read_text()
    assert "other bytes under a UID that is there" in reason
    assert SECRET not in reason
    assert pydicom.dcmread(set_aside_files(place)[0]).PatientComments == "changed"
    assert left(place) == []


def test_a_full_store_takes_nothing_in_and_loses_nothing(place: Workplace, tmp_path: Path) -> None:
    files = write_ct(tmp_path / "ct")
    place.studies.quota_bytes = files[0].stat().st_size + 2000
    port = free_port()
    with listening(place, port) as (way, _):
        acknowledged: list[str] = []
        with pytest.raises((InputError, OfflineError)):
            for file in files:
                acknowledged += way.store([file])
                time.sleep(0.2)  # the listener looks
        assert len(acknowledged) >= 2
        until(lambda: len(held(place)) == 1 and len(left(place)) == len(acknowledged) - 1)
        place.studies.quota_bytes = None
        until(lambda: held(place) == set(acknowledged))

        def sent() -> bool:
            try:
                return len(way.store(files)) == SLICES
            except (InputError, OfflineError):
                return False

        until(sent)
    assert len(held(place)) == SLICES


def test_a_database_that_is_away_for_a_while_loses_nothing(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, tries = listening_module.ingest, []

    def away(*args: Any, **options: Any) -> Any:
        tries.append(1)
        raise OperationalError("select", {}, Exception("away"))

    with listening(place) as (way, _):
        monkeypatch.setattr(listening_module, "ingest", away)
        way.store(write_ct(tmp_path / "ct"))
        until(lambda: len(tries) >= 3)
        monkeypatch.setattr(listening_module, "ingest", kept)
        until(lambda: len(held(place)) == SLICES)


SERVER = """
import sys
from pathlib import Path
from spicula.pipelines.listen import listen
from spicula.pipelines.workplace import open_workplace
with open_workplace(Path(sys.argv[1])) as place:
    listen(place, port=int(sys.argv[2]), idle_s=0.02, reserve_bytes=0)
"""


@pytest.mark.slow
def test_a_killed_listener_loses_nothing_that_it_acknowledged(place: Workplace, tmp_path: Path) -> None:
    chance = random.Random(0)
    files = [file for number in range(10) for file in write_ct(tmp_path / f"{number}", f"{number}")]
    port, acknowledged = free_port(), list[str]()
    way = Pacs("127.0.0.1", port, "SPICULA", timeout_s=5.0, answer_timeout_s=5.0)
    begin = lambda: subprocess.Popen([sys.executable, "-c", SERVER, str(place.folder), str(port)])  # noqa: E731
    server = begin()
    stopping = threading.Event()

    def send() -> None:
        for file in files:
            while not stopping.is_set():
                try:
                    acknowledged.extend(way.store([file]))
                    break
                except (InputError, OfflineError):
                    time.sleep(0.05)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for kill in range(3):
            until(lambda: len(acknowledged) > 8 * (kill + 1))  # noqa: B023
            time.sleep(chance.uniform(0.0, 0.2))
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            before = set(acknowledged)
            move_in(place)  # what the next start does first
            assert before <= held(place)
            server = begin()
        sender.join(60)
    finally:
        stopping.set()
        sender.join(20)
        server.terminate()
        server.wait()
    move_in(place)
    assert held(place) == set(acknowledged) == {facts_of(file).sop_instance_uid for file in files}
    assert list(place.studies.damaged()) == []
    assert left(place) == []
    assert set_aside_files(place) == ()


def test_an_archive_moves_a_study_to_the_listener(orthanc: Orthanc, place: Workplace, tmp_path: Path) -> None:
    orthanc.clear()
    files = write_ct(tmp_path / "ct")
    DicomWeb(orthanc.web).store(files)
    write_archives(place.folder, orthanc)
    study_uid = facts_of(files[0]).study_uid
    with listening(place, orthanc.move_port, allowed_aets=[orthanc.ae_title]):
        job = ask_pull(place, "listener", study_uid, by="ada", analyze=False)
        work(place, once=True, handlers=tiny_handlers())
        done = place.queue.get(job.id)
        assert (done.state, (done.result or {})["added"]) == ("done", SLICES), done.message


def test_an_archive_moves_a_study_to_the_listener_of_a_store_that_de_identifies(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    orthanc.clear()
    files = write_ct(tmp_path / "ct")
    DicomWeb(orthanc.web).store(files)
    study_uid = facts_of(files[0]).study_uid
    write_archives(tmp_path / "hidden", orthanc)
    with open_workplace(tmp_path / "hidden", deidentify=True) as place:
        kept = deidentified_uid(study_uid, secret=place.secret or b"")
        with listening(place, orthanc.move_port, allowed_aets=[orthanc.ae_title]) as (_, moved):
            for counts in ((SLICES, 0), (0, SLICES)):
                job = ask_pull(place, "listener", study_uid, by="ada", analyze=False)
                work(place, once=True, handlers=tiny_handlers())
                done = place.queue.get(job.id)
                told = done.result or {}
                assert done.state == "done", done.message
                assert (told["added"], told["known"], told["studies"]) == (*counts, [kept])
        assert (sum(one.added for one in moved), sum(one.known for one in moved)) == (SLICES, 0)  # nothing came twice
        assert len(held(place)) == SLICES
        assert held(place).isdisjoint(facts_of(file).sop_instance_uid for file in files)
        for path in place.folder.rglob("*"):
            assert not path.is_file() or SECRET.encode() not in path.read_bytes()


def test_what_the_listener_sets_aside_is_told_at_once(orthanc: Orthanc, tmp_path: Path) -> None:
    """A page of text among the images of a scanner: such a store takes none of it, and the pull says why."""
    orthanc.clear()
    files = write_ct(tmp_path / "ct")
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.BurnedInAnnotation = "YES"
        dataset.save_as(file)
    DicomWeb(orthanc.web).store(files)
    write_archives(tmp_path / "hidden", orthanc)
    with (
        open_workplace(tmp_path / "hidden", deidentify=True) as place,
        listening(place, orthanc.move_port, allowed_aets=[orthanc.ae_title]),
    ):
        for _ in range(2):
            job = ask_pull(place, "listener", facts_of(files[0]).study_uid, by="ada")
            work(place, once=True, handlers=tiny_handlers())
            message = place.queue.get(job.id).message
            assert f"{SLICES} of {SLICES} instances not kept" in message
            assert "text burned into its pixels" in message
            place.queue.cancel(job.id)


def test_a_study_that_an_archive_sends_elsewhere_is_missed(
    orthanc: Orthanc, place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "ARRIVAL_S", 0.3)
    orthanc.clear()
    files = write_ct(tmp_path / "ct")
    DicomWeb(orthanc.web).store(files)
    write_archives(place.folder, orthanc)
    with open_workplace(tmp_path / "other") as other, listening(other, orthanc.move_port):
        job = ask_pull(place, "listener", facts_of(files[0]).study_uid, by="ada")
        work(place, once=True, handlers=tiny_handlers())
    message = place.queue.get(job.id).message
    assert "got 4 of 4 instances missing. Hint: is 'spicula listen --aet SPICULA' running" in message


def test_what_is_no_file_of_ours_stays(place: Workplace) -> None:
    assert move_in(place) == Moved()
    (place.folder / ARRIVED / generate_uid()).mkdir(parents=True)
    assert move_in(place) == Moved()
