"""Jobs over the page's addresses, and their events as they happen."""

from __future__ import annotations

import json
import threading

import pytest
import requests
from fastapi.testclient import TestClient

from spicula.web.app import make_app

from .test_access import BASE


@pytest.fixture
def client(workplace) -> TestClient:
    return TestClient(make_app(workplace), base_url=BASE)


def test_jobs_are_listed_cancelled_and_asked_for_again(workplace, client) -> None:
    job = workplace.queue.ask("import", "a", {"source": "/secret/place"}, by="ada")
    assert [one["id"] for one in client.get("/api/jobs", params={"state": "queued"}).json()] == [job.id]
    assert "/secret/place" not in client.get("/api/jobs").text
    assert client.post(f"/api/jobs/{job.id}/again").status_code == 400
    assert client.post(f"/api/jobs/{job.id}/cancel").json()["state"] == "cancelled"
    answer = client.post(f"/api/jobs/{job.id}/again")
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    assert client.get("/api/jobs", params={"state": "odd"}).status_code == 422


def test_events_tell_open_jobs_first_and_then_every_change(workplace, server) -> None:
    done = workplace.queue.ask("try", "done", {}, by="ada")
    workplace.queue.end(workplace.queue.take("w"), "w")
    job = workplace.queue.ask("try", "open", {"study_uid": "1.2"}, by="ada")
    told: list[dict] = []

    def listen() -> None:
        with requests.get(f"{server}/api/jobs/events", stream=True, timeout=30) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith(b"data: "):
                    told.append(json.loads(line[6:]))
                    first.set()
                    if told[-1]["state"] == "done":
                        return

    first = threading.Event()
    listening = threading.Thread(target=listen)
    listening.start()
    assert first.wait(20)
    taken = workplace.queue.take("w")
    workplace.queue.tell(taken, "w", progress=0.5, message="half")
    workplace.queue.end(taken, "w", {"x": 1})
    listening.join(20)
    assert not listening.is_alive()
    assert {one["id"] for one in told} == {job.id}
    assert (told[0]["state"], told[0]["study_uid"]) == ("queued", "1.2")
    assert (told[-1]["progress"], told[-1]["result"]) == (1.0, {"x": 1})
    assert done.id not in {one["id"] for one in told}
