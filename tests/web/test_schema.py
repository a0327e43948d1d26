"""The API keeps what its description promises, whatever it is asked: made-up requests to the real application."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from spicula.pipelines.workplace import open_workplace
from spicula.web.app import make_app
from spicula.web.limits import Limits

from .analyzed import Analyzed, analyzed_once  # noqa: F401
from .test_access import BASE

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ENDLESS = "GET /api/jobs/events"
COSTLY = ("POST /api/studies/{study_uid}/findings", "PATCH /api/findings/{finding_id}")
"""These run networks: with what is really there, a few examples do."""

LAST = "DELETE /api/studies/{study_uid}"


@schemathesis.serializer("multipart/related")
def _related(_: Any, value: Any) -> bytes:
    """A body of STOW: whatever it is, as the only part."""
    part = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
    return b"--cut\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n--cut--"


@pytest.fixture(scope="module")
def analyzed(analyzed_once: Analyzed, tmp_path_factory: pytest.TempPathFactory) -> Analyzed:  # noqa: F811
    folder = tmp_path_factory.mktemp("asked") / "store"
    shutil.copytree(analyzed_once.folder, folder)
    return Analyzed(folder, analyzed_once.before, analyzed_once.study, analyzed_once.series)


@pytest.fixture(scope="module")
def app(analyzed: Analyzed) -> Iterator[FastAPI]:
    with open_workplace(analyzed.folder) as place:
        yield make_app(place, limits=Limits(costly=100_000))


@pytest.fixture(scope="module")
def operations(app: FastAPI) -> list[APIOperation[Any, Any, Any, Any]]:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"Host": "127.0.0.1"})
    found = [one.ok() for one in schema.get_all_operations()]
    return sorted((one for one in found if one.label != ENDLESS), key=lambda one: one.label == LAST)


@pytest.fixture(scope="module")
def known(app: FastAPI, analyzed: Analyzed) -> dict[str, str]:
    """What is really there, by the names that paths give it."""
    client = TestClient(app, base_url=BASE)
    finding = client.get(f"/api/studies/{analyzed.study}/findings").json()[0]["id"]
    job = client.get("/api/jobs").json()[0]["id"]
    instances = client.get(f"/dicom-web/studies/{analyzed.study}/series/{analyzed.series}/instances").json()
    return {
        "study_uid": analyzed.study, "finding_id": finding, "job_id": job, "name": "report.html", "numbers": "1",
        "study": analyzed.study, "series": analyzed.series, "instance": instances[0]["00080018"]["Value"][0],
    }  # fmt: skip


def asked(operation: APIOperation[Any, Any, Any, Any], examples: int, **options: Any) -> str:
    """Ask one operation; what it did against its description, empty for nothing."""

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(**options))
    def ask(case: Case) -> None:
        case.call_and_validate(base_url=BASE, checks=CHECKS)

    try:
        ask()
    except Unsatisfiable:
        return ""  # it takes nothing that could be wrong
    except Exception as error:  # one failure each, all of them told at the end
        notes = " ".join(getattr(error, "__notes__", ()))
        return f"{operation.label}: {error} {notes}"[:2000]
    return ""


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_made_up_requests_get_what_is_declared(operations, mode) -> None:
    failed = [asked(one, 10, generation_mode=mode) for one in operations]
    assert "\n\n".join(one for one in failed if one) == ""


def test_requests_for_what_is_there_get_what_is_declared(app, operations, known) -> None:
    client = TestClient(app, base_url=BASE)
    failed = []
    for one in operations:
        names = {parameter.name: known[parameter.name] for parameter in one.path_parameters if parameter.name in known}
        if names:
            failed.append(asked(one, 3 if one.label in COSTLY else 8, path_parameters=names))
    assert "\n\n".join(one for one in failed if one) == ""
    assert client.get(f"/api/studies/{known['study_uid']}").status_code == 404  # the last one removed it


def test_every_answer_is_described(app: FastAPI) -> None:
    """An address of ours says what it gives; those of DICOMweb give what DICOM says."""
    for path, methods in app.openapi()["paths"].items():
        for method, described in methods.items():
            assert described.get("summary"), (method, path)
            good = [status for status in described["responses"] if status.startswith("2")]
            assert good, (method, path)
            if path.startswith("/api") and good[0] != "204" and not path.endswith(("/exports/{name}", "/events")):
                assert described["responses"][good[0]].get("content"), (method, path)


def test_the_description_is_kept_with_the_page(app: FastAPI) -> None:
    """What the viewer's types are made from is what runs; ``python viewer/openapi.py`` makes it anew."""
    import json

    kept = Path(__file__).parents[2] / "viewer" / "openapi.json"
    if not kept.is_file():
        pytest.skip("no viewer/openapi.json in this checkout")
    assert sorted(json.loads(kept.read_text())["paths"]) == sorted(app.openapi()["paths"])
