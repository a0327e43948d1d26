"""Headers of every answer, bounds of how often, counts and logs without patients."""

from __future__ import annotations

import logging

import pytest
from fastapi.testclient import TestClient

from spicula.pipelines.ingest import ingest
from spicula.web.app import make_app
from spicula.web.limits import Limits

from .test_access import BASE


@pytest.fixture
def client(workplace) -> TestClient:
    return TestClient(make_app(workplace), base_url=BASE)


@pytest.mark.parametrize("path", ["/", "/healthz", "/api/studies", "/nowhere", "/openapi.json", "/metrics"])
def test_every_answer_keeps_the_page_to_itself(client, path) -> None:
    headers = client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "'unsafe-eval'" not in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_who_asks_too_often_waits(workplace) -> None:
    client = TestClient(make_app(workplace, limits=Limits(requests=3, costly=1)), base_url=BASE)
    assert [client.get("/api/me").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert client.get("/api/me").headers["Retry-After"] == "10"


def test_costly_requests_have_a_bound_of_their_own(workplace) -> None:
    client = TestClient(make_app(workplace, limits=Limits(costly=1)), base_url=BASE)
    statuses = [client.post("/api/search", json={}).status_code for _ in range(2)]
    assert statuses == [400, 429]
    assert client.get("/api/me").status_code == 200


def test_counts_and_logs_hold_no_patient(workplace, series, caplog) -> None:
    (study,) = ingest(series, workplace.studies, origin="upload").studies
    client = TestClient(make_app(workplace), base_url=BASE)
    with caplog.at_level(logging.DEBUG, logger="spicula"):
        client.get(f"/api/studies/{study}")
        client.post("/api/studies/query", json={"text": "Doe"})
        client.get("/dicom-web/studies", params={"PatientName": "Doe*"})
    text = client.get("/metrics").text
    assert 'route="/api/studies/{study_uid}",status="200"} 1.0' in text
    assert "spicula_studies 1.0" in text
    for told in (text, caplog.text):
        assert "Doe" not in told
        assert "P1" not in told
        assert study not in told
    assert "GET /api/studies/{study_uid} 200" in caplog.text
