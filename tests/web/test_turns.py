"""However many ask for exports, everything else is answered; who waits in vain is told when to ask again."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient

from spicula.pipelines import study_outputs
from spicula.pipelines.current_outputs import RESULTS_FOLDER
from spicula.pipelines.workplace import Workplace
from spicula.store.studies import NewInstance
from spicula.web.app import make_app
from spicula.web.turns import AGAIN_S, Turns

from .test_access import BASE

STUDIES = 60
"""More than a server has threads."""


class Slow:
    """In the place of what writes a study's files: it waits until it is told to go on."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go_on = threading.Event()

    def __call__(self, place: Workplace, study_uid: str, folder: Path, **_: Any) -> None:
        self.begun.append(study_uid)
        assert self.go_on.wait(60)
        (folder / "report.html").write_text(study_uid)
        (folder / "report.json").write_text("{}")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    slow = Slow()
    monkeypatch.setattr(study_outputs, "write_study_outputs", slow)
    yield slow
    slow.go_on.set()


def until(reached: Callable[[], bool]) -> None:
    stop = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < stop
        time.sleep(0.01)


def add_analyzed(place: Workplace, number: int) -> str:
    uid = f"1.2.{number + 1}"
    file = place.folder / "one.dcm"
    file.write_bytes(hashlib.sha256(uid.encode()).digest())
    study = {"study_uid": uid, "patient_id": f"P{number}", "origin": "upload"}
    instance = {"sop_instance_uid": f"{uid}.1.1", "sop_class_uid": "1.2", "transfer_syntax_uid": "1.2.1"}
    place.studies.add(file, NewInstance(study, {"series_uid": f"{uid}.1", "modality": "CT"}, instance))
    place.findings.keep_analysis(
        f"a{number}", study_uid=uid, series_uid=f"{uid}.1", record={"findings": [{"id": "1"}]}, folder=f"analyses/{uid}"
    )
    return uid


@pytest.fixture
def running(workplace: Workplace) -> Iterator[tuple[str, Any]]:
    """A real server and its application."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = make_app(workplace)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}", app
    server.should_exit = True
    thread.join()


def test_slow_exports_keep_nobody_else_waiting(running, workplace: Workplace, slow: Slow) -> None:
    address, app = running
    app.state.exports = Turns(2, wait_s=2.0)
    studies = [add_analyzed(workplace, number) for number in range(STUDIES)]
    with httpx.Client(base_url=address, timeout=60, limits=httpx.Limits(max_connections=STUDIES + 8)) as client:

        def export(uid: str) -> httpx.Response:
            return client.get(f"/api/studies/{uid}/exports/report.html")

        with ThreadPoolExecutor(STUDIES) as pool:
            asked = [pool.submit(export, uid) for uid in studies]
            try:
                until(lambda: len(slow.begun) == 2)
                answers = [client.get("/api/studies", timeout=20) for _ in range(10)]
                until(lambda: sum(one.done() for one in asked) == STUDIES - 2)
                refused = [one.result() for one in asked if one.done()]
            finally:
                slow.go_on.set()
            statuses = [one.result().status_code for one in asked]
        assert [one.status_code for one in answers] == [200] * 10
        assert {one.status_code for one in refused} == {503}
        assert (statuses.count(200), statuses.count(503), len(slow.begun)) == (2, STUDIES - 2, 2)
        assert refused[0].headers["Retry-After"] == str(AGAIN_S)
        assert (
            refused[0].json()["error"].startswith("server: got more exports than it makes at a time. Hint: ask again")
        )
        assert export(studies[-1]).status_code == 200  # asked again


def test_what_is_made_already_waits_for_nobody(workplace: Workplace, slow: Slow) -> None:
    slow.go_on.set()
    app = make_app(workplace)
    client, study = TestClient(app, base_url=BASE), add_analyzed(workplace, 0)
    assert client.get(f"/api/studies/{study}/exports/report.html").text == study
    app.state.exports = Turns(0, wait_s=0.0)
    assert client.get(f"/api/studies/{study}/exports/report.html").text == study
    assert client.get(f"/api/studies/{study}/exports/seg.dcm").status_code == 404
    other = add_analyzed(workplace, 1)
    assert client.get(f"/api/studies/{other}/exports/report.html").status_code == 503
    assert client.get("/api/studies/1.2.99/exports/report.html").status_code == 404
    assert slow.begun == [study]
    assert len(list((workplace.folder / RESULTS_FOLDER).iterdir())) == 1


def test_a_turn_is_given_back_whatever_happens(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError("disk")

    monkeypatch.setattr(study_outputs, "write_study_outputs", fails)
    app = make_app(workplace)
    app.state.exports = Turns(1, wait_s=0.0)
    client, study = TestClient(app, base_url=BASE), add_analyzed(workplace, 0)
    statuses = [client.get(f"/api/studies/{study}/exports/report.html").status_code for _ in range(3)]
    assert statuses == [500] * 3
