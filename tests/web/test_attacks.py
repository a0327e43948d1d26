"""Attacks on a real application or server: each is refused, and nothing is changed by it."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import socket
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
import requests
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydicom.encaps import encapsulate
from sqlalchemy import select, text

from spicula.core.errors import InputError
from spicula.formats import read_volume
from spicula.pipelines.ingest import ingest
from spicula.pipelines.worker import HANDLERS, IMPORT, work
from spicula.pipelines.workplace import Workplace, open_workplace
from spicula.store.tables import METADATA
from spicula.web import shown_jobs
from spicula.web.access import COOKIE, Access
from spicula.web.app import make_app

from ..dicom.conftest import Layout, ct_slice, stored_block, write_ct
from .analyzed import Analyzed, analyzed, analyzed_once  # noqa: F401
from .test_access import BASE, PASSWORD, logged_in
from .test_oidc import free_port, serving

OPEN = {("get", "/healthz"), ("post", "/api/login")}
"""All that is answered without a session, beside the page itself and the description of the API."""

RLE, JPEG_LS, JPEG_2000, HTJ2K = (f"1.2.840.10008.1.2.{end}" for end in ("5", "4.80", "4.90", "4.201"))
DEFLATED = b"1.2.840.10008.1.2.1.99"


def routes_of(app: FastAPI, filled: str = "1.2.3") -> list[tuple[str, str]]:
    """Every method and address of the API, so that a new one cannot be forgotten."""
    return [
        (method, re.sub(r"\{[^}]+\}", filled, path))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]


def everything(place: Workplace) -> dict[str, list[Any]]:
    """All that the database holds."""
    with place.engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table))] for table in METADATA.tables.values()
        }


def clear(answer: Any, place: Workplace | None = None) -> None:
    """An error is one sentence of JSON that tells nothing of the server."""
    assert answer.headers["content-type"] == "application/json", answer.text
    assert list(answer.json()) == ["error"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    for told in ("Traceback", ".py", "sqlite", "SELECT", *([] if place is None else [str(place.folder)])):
        assert told not in answer.text


@pytest.fixture
def app(workplace: Workplace) -> FastAPI:
    workplace.users.add("ada", role="admin", password=PASSWORD)
    workplace.users.add("bob", role="reader", password=PASSWORD)
    return make_app(workplace, access=Access(users=True))


def client_of(app: FastAPI, **options: Any) -> TestClient:
    return TestClient(app, base_url=BASE, raise_server_exceptions=False, **options)


@pytest.fixture
def desk(workplace: Workplace) -> TestClient:
    return client_of(make_app(workplace))


# --- who may ask


def test_every_address_wants_a_session(workplace, app) -> None:
    client = client_of(app)
    before = everything(workplace)
    asked = [one for one in routes_of(app) if one not in OPEN]
    assert len(asked) > 35
    for method, path in asked:
        for headers in (
            {},
            {"Authorization": "Bearer "},
            {"Authorization": "Basic YWRhOng="},
            {"Cookie": f"{COOKIE}="},
        ):
            answer = client.request(method, path, json={}, headers=headers)
            assert answer.status_code == 401, (method, path, answer.text)
            clear(answer)
    assert everything(workplace) == before


def test_every_change_repeats_the_sessions_secret(workplace, app) -> None:
    ada, bob = client_of(app), client_of(app)
    own, others = logged_in(ada)["X-CSRF-Token"], logged_in(bob, "bob")["X-CSRF-Token"]
    before = everything(workplace)
    changes = [(method, path) for method, path in routes_of(app) if method != "get" and path != "/api/login"]
    assert len(changes) > 12
    for method, path in changes:
        for secret in (None, "", "wrong", others, own.upper(), own + "x", "é"):
            headers = {} if secret is None else {"X-CSRF-Token": secret.encode()}
            answer = ada.request(method, path, json={}, headers=headers)
            assert answer.status_code == 401, (method, path, secret, answer.text)
        answer = ada.request(method, path, params={"x-csrf-token": own}, data={"csrf": own}, json=None)
        assert answer.status_code == 401, (method, path)
    assert everything(workplace) == before


def test_who_is_kept_out_sees_nothing_more(workplace, app) -> None:
    bob = client_of(app)
    headers = logged_in(bob, "bob")
    token = bob.post("/api/tokens", json={}, headers=headers).json()["token"]
    workplace.users.disable("bob")
    before = everything(workplace)
    for method, path in routes_of(app):
        if (method, path) not in OPEN:
            assert bob.request(method, path, json={}, headers=headers).status_code == 401, (method, path)
            program = client_of(app).request(method, path, json={}, headers={"Authorization": f"Bearer {token}"})
            assert program.status_code == 401, (method, path)
    assert everything(workplace) == before
    assert bob.post("/api/login", json={"name": "bob", "password": PASSWORD}).status_code == 401


def test_nobody_uses_or_ends_what_is_anothers(workplace, app) -> None:
    ada, bob = client_of(app), client_of(app)
    hers, his = logged_in(ada), logged_in(bob, "bob")
    token = ada.post("/api/tokens", json={}, headers=hers).json()["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    (kept,) = [row for row in everything(workplace)["secrets"] if "token" in row]
    for guess in (hashlib.sha256(token.encode()).hexdigest(), str(kept[0]), token[:-1], token.upper()):
        assert client_of(app).get("/api/me", headers={"Authorization": f"Bearer {guess}"}).status_code == 401
    mixed = client_of(app, cookies={COOKIE: ada.cookies[COOKIE]})
    assert mixed.post("/api/tokens", json={}, headers=his).status_code == 401  # her cookie with his secret
    assert bob.post("/api/logout", headers={**his, **bearer}).status_code == 204
    assert bob.post("/api/logout", headers=his).status_code in (204, 401)
    assert client_of(app).get("/api/me", headers=bearer).json()["name"] == "ada"
    assert ada.get("/api/me").json()["name"] == "ada"


def test_a_session_that_was_planted_is_not_taken_over(workplace, app) -> None:
    """Mallory gives the victim a cookie of hers, or any, and waits for them to log in with it."""
    mallory = client_of(app)
    logged_in(mallory, "bob")
    for planted in (mallory.cookies[COOKIE], "spicula_planted"):
        victim = client_of(app)
        victim.cookies.set(COOKIE, planted, domain="127.0.0.1")
        answer = victim.post("/api/login", json={"name": "ada", "password": PASSWORD})
        new = answer.headers["set-cookie"].split("=", 1)[1].split(";")[0]
        assert new != planted
        for name in (client_of(app, cookies={COOKIE: planted}).get("/api/me").json()).values():
            assert name != "ada"


def test_who_listens_is_cut_off_as_the_session_ends(workplace, app, monkeypatch) -> None:
    monkeypatch.setattr(shown_jobs, "ALLOWED_S", 0.0)
    workplace.queue.ask("try", "open", {}, by="ada")
    port = free_port()
    with serving(app, port), requests.Session() as session:
        url = f"http://127.0.0.1:{port}/api"
        session.post(f"{url}/login", json={"name": "bob", "password": PASSWORD}, timeout=20).raise_for_status()
        with session.get(f"{url}/jobs/events", stream=True, timeout=20) as answer:
            lines = answer.iter_lines()
            assert next(lines) == b"event: job"
            workplace.users.disable("bob")
            assert len(list(lines)) < 20  # it ends


# --- addresses and methods

TRAVERSALS = [
    "..%2f..%2fspicula.db", "%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%252f..%252fetc%252fpasswd", "..%5c..%5cx",
    "%00", "1.2.3%00.dcm", "%ff%fe", "%c0%ae%c0%ae%c0%af", "%0d%0aX-Evil:%201", "'%20OR%201=1--", "%25", "*", "1.2,1.3",
    "%E2%80%AE1.2", "1." * 5000, "{{7*7}}", "%3Cscript%3E",
]  # fmt: skip


@pytest.mark.parametrize("odd", TRAVERSALS, ids=range(len(TRAVERSALS)))
def test_no_address_leads_out(workplace, desk, series, odd) -> None:
    ingest(series, workplace.studies, origin="upload")
    before = everything(workplace)
    for method, path in routes_of(desk.app, odd):
        if odd not in path or path.endswith("/send") or "archives" in path:
            continue
        answer = desk.request(method, path, json={"seen": 1, "state": "rejected"} if method == "patch" else {})
        assert answer.status_code < 500, (method, path, answer.text)
        assert "x-evil" not in answer.headers
        assert "root:" not in answer.text
        if answer.status_code == 200:
            assert odd == "*" or answer.json() == [], (method, path)  # a search that finds nothing
        else:
            assert answer.status_code in (400, 404, 405, 409, 422), (method, path, answer.text)
            assert str(workplace.folder) not in answer.text
    assert {**everything(workplace), "audit": []} == {**before, "audit": []}


def test_null_bytes_on_postgres(new_database, tmp_path) -> None:
    with open_workplace(tmp_path / "store", url=new_database()) as place:
        client = client_of(make_app(place))
        for path in ("/api/studies/%00", "/dicom-web/studies/1%00/metadata", "/dicom-web/studies?PatientName=%00"):
            answer = client.get(path)
            assert answer.status_code in (400, 404), (path, answer.text)
            clear(answer, place)
        for path, body in (("/api/studies/query", {"text": "\0"}), ("/api/search", {"finding_id": "\0"})):
            answer = client.post(path, json=body)
            assert answer.status_code in (400, 404, 422), (path, answer.text)
            clear(answer, place)
        assert client.get("/api/studies").status_code == 200


def test_other_methods_are_not_allowed(workplace, desk) -> None:
    before = everything(workplace)
    paths = {path for _, path in routes_of(desk.app)}
    for path in sorted(paths):
        for method in ("PUT", "TRACE", "CONNECT", "PROPFIND", "OPTIONS"):
            answer = desk.request(method, path)
            assert answer.status_code == 405, (method, path, answer.text)
            clear(answer)
    assert desk.post("/healthz").status_code == 405
    assert everything(workplace) == before


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000, b'{"k":' + b"9" * 10_000 + b"}", b"{", b"\xff\xfe", b'{"text":"\\ud800"}', b"null", b'"x"',
        b'{"text":' * 50_000, b'{"limit":1e999}', b'{"limit":NaN}', b'{"__proto__":{"x":1}}',
    ],
    ids=range(11),
)  # fmt: skip
def test_json_that_is_none_is_refused(desk, content) -> None:
    for path in ("/api/studies/query", "/api/search", "/api/login", "/api/archives/x/query", "/api/pull"):
        answer = desk.post(path, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 413, 422), (path, answer.text)
        clear(answer)


# --- errors


def test_a_failure_of_ours_tells_nothing(workplace, desk, caplog) -> None:
    with workplace.engine.begin() as connection:
        connection.execute(text("DROP TABLE studies"))
    with caplog.at_level(logging.ERROR, logger="spicula"):
        answer = desk.post("/api/studies/query", json={"text": "Doe"})
    assert answer.status_code == 500
    clear(answer, workplace)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "POST /api/studies/query failed: OperationalError" in caplog.text
    assert "Doe" not in caplog.text


def test_no_answer_tells_where_files_lie(workplace, desk, series) -> None:
    ingest(series, workplace.studies, origin="upload")
    (row,) = workplace.studies.list().rows
    (one,) = workplace.studies.series(row["study_uid"])
    study, instances = row["study_uid"], workplace.studies.instances(one["series_uid"])
    for instance, damage in zip(instances, (b"no DICOM" * 100, b""), strict=False):
        workplace.studies.path(instance).write_bytes(damage)
        path = f"/dicom-web/studies/{study}/series/{one['series_uid']}/instances/{instance['sop_instance_uid']}"
        answer = desk.get(f"{path}/frames/1")
        assert answer.status_code == 400
        clear(answer, workplace)
    answer = desk.post("/api/search", json={"series_uid": one["series_uid"], "point_xyz_mm": [0, 0, 0]})
    assert answer.status_code in (400, 404)
    clear(answer, workplace)
    for name, data in (("a.zip", zipped({"../../evil.dcm": b"x"})), ("b.zip", b"PK\x03\x04" + b"x" * 100)):
        job = imported(workplace, desk, [(name, data)])
        assert job["message"]
        assert str(workplace.folder) not in json.dumps(job)


def zipped(names: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return stream.getvalue()


def imported(place: Workplace, client: TestClient, files: list[tuple[str, bytes]]) -> dict[str, Any]:
    """The job of an upload, as it stands once a worker was at it."""
    answer = client.post("/api/uploads", files=[("files", file) for file in files])
    assert answer.status_code == 202, answer.text
    work(place, once=True, handlers={IMPORT: HANDLERS[IMPORT]})
    told: dict[str, Any] = client.get(f"/api/jobs/{answer.json()['id']}").json()
    return told


# --- DICOM that means harm


def harmless(number: int = 1, **changes: Any) -> pydicom.Dataset:
    pixels = stored_block((1, 16, 16))[0]
    dataset = ct_slice(pixels, Layout(), place=0, number=number, series_uid=f"1.2.3.{number}")
    dataset.StudyInstanceUID = f"1.9.{number}"
    for name, value in changes.items():
        setattr(dataset, name, value)
    return dataset


def written(dataset: pydicom.Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def with_value(data: bytes, tag: int, value: bytes) -> bytes:
    """The same with another value, whatever it is, of an element with a short length."""
    at = data.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    value += b" " * (len(value) % 2)
    return data[: at + 6] + struct.pack("<H", len(value)) + value + data[at + 8 + length :]


def stow(client: Any, *parts: bytes, base: str = "") -> Any:
    body = b"".join(b"--cut\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts) + b"--cut--"
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=cut'}
    return client.post(f"{base}/dicom-web/studies", **{"data" if base else "content": body}, headers=headers)


def at_name(data: bytes, more: bytes) -> bytes:
    """The same with something before the patient's name."""
    at = data.index(b"\x10\x00\x10\x00PN")
    return data[:at] + more + data[at:]


def nested(depth: int, *, lengths: bool) -> bytes:
    sequence = struct.pack("<HH", 0x0008, 0x1140) + b"SQ\0\0"
    if not lengths:
        begin, end = (
            sequence + b"\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff",
            b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0",
        )
        return begin * depth + end * depth
    inner = b""
    for _ in range(depth):
        item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(inner)) + inner
        inner = sequence + struct.pack("<I", len(item)) + item
    return inner


def squeezed(frame: bytes, syntax: str, **changes: Any) -> pydicom.Dataset:
    dataset = harmless(**changes)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    return dataset


def without(name: str) -> pydicom.Dataset:
    dataset = harmless()
    delattr(dataset, name)
    return dataset


BAD_TABLE = written(squeezed(b"\0\1\2\3" * 20, JPEG_2000)).replace(
    b"\xfe\xff\x00\xe0" + struct.pack("<I", 4), b"\xfe\xff\x00\xe0" + struct.pack("<I", 4) + b"\xff\xff\xff\x7f", 1
)
UNKNOWN = struct.pack("<HH", 9, 0x1001) + b"UN\0\0"
LATIN = written(harmless(SpecificCharacterSet="ISO_IR 192"))
ODD: dict[str, bytes] = {
    "2**31 - 1 frames": written(harmless(NumberOfFrames=2**31 - 1)),
    "2**31 - 1 compressed frames": written(squeezed(b"\0" * 80, RLE, NumberOfFrames=2**31 - 1)),
    "frames that are no number": with_value(written(harmless(NumberOfFrames=1)), 0x00280008, b"abc"),
    "two numbers of frames": with_value(written(harmless(NumberOfFrames=1)), 0x00280008, b"1\\2"),
    "frames below 0": with_value(written(harmless(NumberOfFrames=1)), 0x00280008, b"-5"),
    "endless frames": with_value(written(harmless(NumberOfFrames=1)), 0x00280008, b"1e400"),
    "65535 x 65535 with 512 bytes": written(harmless(Rows=65535, Columns=65535)),
    "no rows": written(without("Rows")),
    "rows without a value": written(harmless(Rows=None)),
    "two samples a pixel": written(harmless(SamplesPerPixel=[1, 1])),
    "no sample a pixel": written(harmless(SamplesPerPixel=0)),
    "an offset table that lies": BAD_TABLE,
    "nested 60 deep": at_name(written(harmless()), nested(60, lengths=True)),
    "nested 200 deep": at_name(written(harmless()), nested(200, lengths=True)),
    "nested 3000 deep": at_name(written(harmless()), nested(3000, lengths=True)),
    "nested 3000 deep without lengths": at_name(written(harmless()), nested(3000, lengths=False)),
    "an element of 4 GB": at_name(written(harmless()), UNKNOWN + b"\xf0\xff\xff\xff" + b"x" * 9),
    "an element without end": at_name(written(harmless()), UNKNOWN + b"\xff\xff\xff\xff" + b"x" * 9),
    "pixels of 4 GB": written(harmless()).replace(b"OW\0\0" + struct.pack("<I", 512), b"OW\0\0\xf0\xff\xff\xff"),
    "a thickness without end": with_value(written(harmless()), 0x00180050, b"1e9999"),
    "a thickness that is none": with_value(written(harmless()), 0x00180050, b"nan"),
    "a number beyond all": with_value(written(harmless()), 0x00200013, b"9" * 30),
    "a character set that is none": LATIN.replace(b"ISO_IR 192", b"EVIL \0\xff\xfe\r\n"),
    "a study that leads out": with_value(written(harmless()), 0x0020000D, b"../../etc/passwd"),
    "two studies": with_value(written(harmless()), 0x0020000D, b"1.2\\3.4"),
    "a study of 4000 letters": with_value(written(harmless()), 0x0020000D, b"1." * 2000),
    "a date that is none": with_value(written(harmless()), 0x00080020, b"2020\xff\xff\0\0"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_an_odd_instance_breaks_nothing(workplace, desk, data) -> None:
    answer = stow(desk, data)
    assert answer.status_code in (200, 409), answer.text
    for row in workplace.studies.list().rows:
        study = row["study_uid"]
        (series,) = workplace.studies.series(study)
        path = f"/dicom-web/studies/{study}/series/{series['series_uid']}"
        (instance,) = workplace.studies.instances(series["series_uid"])
        header = desk.get(f"{path}/metadata")
        assert header.status_code == 200
        assert header.json()[0]["0020000D"]["Value"] == [study]
        for numbers in ("1", "2", "999999", "1,1", "1,01"):
            frames = desk.get(f"{path}/instances/{instance['sop_instance_uid']}/frames/{numbers}")
            assert frames.status_code in (200, 400), frames.text
            if frames.status_code == 400:
                clear(frames, workplace)
        assert desk.get(f"/api/studies/{study}").status_code == 200
        assert desk.get("/dicom-web/instances").status_code in (200, 404)
    assert [path.name for path in workplace.folder.iterdir() if path.name.startswith(".spicula")] == []
    good = written(harmless(7))
    assert stow(desk, good).status_code == 200
    assert workplace.studies.get("1.9.7")["patient_id"] == "P1"


def test_a_frame_is_asked_for_once(workplace, desk) -> None:
    assert stow(desk, written(harmless())).status_code == 200
    path = "/dicom-web/studies/1.9.1/series/1.2.3.1/instances/1.2.3.1.1/frames"
    assert desk.get(f"{path}/1").status_code == 200
    for numbers in ("1,1", "1,01", "1,001,1"):
        answer = desk.get(f"{path}/{numbers}")
        assert (answer.status_code, "once" in answer.text) == (400, True)


def test_a_truncated_instance_is_refused_wherever_it_is_cut(workplace, desk) -> None:
    whole = written(harmless())
    cuts = sorted({*range(0, len(whole) - 1, 7), *range(len(whole) - 530, len(whole) - 1, 3), len(whole) - 1})
    answer = stow(desk, *(whole[:cut] for cut in cuts))
    assert answer.status_code == 409
    assert len(answer.json()["00081198"]["Value"]) == len(cuts)
    assert workplace.studies.list().total == 0
    job = imported(workplace, desk, [(f"{cut}", whole[:cut]) for cut in cuts if cut > 140] + [("whole", whole)])
    assert job["result"]["added"] == 1, job
    assert job["result"]["failed"] + job["result"]["left_out"] == len([cut for cut in cuts if cut > 140])
    assert workplace.studies.list().rows[0]["instances"] == 1


@pytest.mark.parametrize(
    "head",
    [b"<html><script>alert(1)</script>", b"MZ\x90\0\3", b"\x7fELF\2\1\1", b"%PDF-1.7", b"GIF89a", b"#!/bin/sh\n"],
)
def test_what_looks_like_something_else_is_given_as_dicom(workplace, desk, head) -> None:
    data = written(harmless())
    data = head.ljust(128, b"\0") + data[128:]
    assert stow(desk, data).status_code == 200
    base = "/dicom-web/studies/1.9.1"
    for path in (base, f"{base}/series/1.2.3.1", f"{base}/series/1.2.3.1/instances/1.2.3.1.1"):
        answer = desk.get(path)
        assert answer.headers["content-type"].startswith('multipart/related; type="application/dicom"')
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert head in answer.content
    assert all(path.suffix == ".dcm" for path in (workplace.folder / "instances").rglob("*") if path.is_file())
    assert not any(path.stat().st_mode & 0o111 for path in (workplace.folder / "instances").rglob("*.dcm"))


def test_what_is_both_zip_and_dicom_leads_nowhere(workplace, desk, tmp_path) -> None:
    data, evil = written(harmless()), zipped({"../../../evil.dcm": written(harmless(2))})
    begins = b"PK\x03\x04".ljust(128, b"\0") + data[128:]
    for both in (data + evil, begins + evil, begins, evil + data):
        assert stow(desk, both).status_code in (200, 409)
        imported(workplace, desk, [("both.zip", both)])
    assert {row["study_uid"] for row in workplace.studies.list().rows} <= {"1.9.1"}
    assert list(tmp_path.rglob("*evil*")) == []


SCRIPTS = [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "javascript:alert(1)", "{{7*7}}", "${7*7}",
    "a\r\nX-Evil: 1\r\n\r\n<b>", "\u202egpj.exe\u2066", "\x1b[2J\x07\x9b", "=cmd|' /C calc'!A0",
    "</title><svg onload=alert(1)>",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("script", SCRIPTS, ids=range(len(SCRIPTS)))
def test_text_of_a_header_stays_text(workplace, desk, script) -> None:
    raw = script.encode()[:64]
    data = written(
        harmless(SpecificCharacterSet="ISO_IR 192", StudyDescription="x", AccessionNumber="x", BodyPartExamined="x")
    )
    for tag in (0x00100010, 0x00100020, 0x00081030, 0x0008103E, 0x00080070):
        data = with_value(data, tag, raw)
    for tag in (0x00080050, 0x00180015):
        data = with_value(data, tag, raw[:16])
    assert stow(desk, data).status_code == 200
    paths = (
        "/api/studies",
        "/api/studies/1.9.1",
        "/dicom-web/studies",
        "/dicom-web/studies/1.9.1/metadata",
        "/dicom-web/series",
    )
    for path in paths:
        answer = desk.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] in ("application/json", "application/dicom+json")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "x-evil" not in answer.headers
        assert "49" not in [str(one) for one in re.findall(r'"(49)"', answer.text)]
    row = desk.get("/api/studies").json()["studies"][0]
    for shown in (row["patient_name"], row["patient_id"], row["description"], row["accession_number"]):
        assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in shown)


def test_a_note_is_escaped_in_every_export(analyzed: Analyzed) -> None:  # noqa: F811
    with open_workplace(analyzed.folder) as place:
        client = client_of(make_app(place))
        one = client.get(f"/api/studies/{analyzed.study}/findings").json()[0]
        note = "".join(script for script in SCRIPTS if script.isprintable())
        answer = client.patch(f"/api/findings/{one['id']}", json={"seen": 1, "state": "accepted", "note": note})
        assert answer.status_code == 200, answer.text
        for name in ("report.html", "report.json", "findings.csv"):
            answer = client.get(f"/api/studies/{analyzed.study}/exports/{name}")
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-content-type-options"] == "nosniff"
            kind = "inline" if name == "report.html" else "attachment"
            assert answer.headers["content-disposition"] == f'{kind}; filename="{name}"'
            if name == "report.html":
                for tag in ("<script>alert", "<img src=x", "<svg onload"):
                    assert tag not in answer.text
                assert "script-src 'self'" in answer.headers["content-security-policy"]
            if name == "findings.csv":
                assert not re.search(r"(?m)(^|,)\"?[=+@]", answer.text)


# --- a real server in a process of its own: memory, sockets

PROGRAM = """
import sys
from pathlib import Path
from spicula.pipelines.workplace import open_workplace
from spicula.web.app import make_app
from spicula.web.limits import Limits
from spicula.web.server import Address, serve
with open_workplace(Path(sys.argv[1])) as place:
    limits = Limits(upload_bytes=64_000_000, instance_bytes=32_000_000)
    serve(make_app(place, limits=limits), Address(port=int(sys.argv[2])))
"""


@dataclass(frozen=True)
class Running:
    """A server's process."""

    pid: int
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def peak_mb(self, doing: Callable[[], Any]) -> tuple[Any, float]:
        """What comes of something, and by how much the process grew at its peak meanwhile."""
        before = self._status("VmRSS")
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        result = doing()
        return result, (self._status("VmHWM") - before) / 1024

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1])

    def spoken(self, raw: bytes) -> bytes:
        """What comes back for bytes on a connection, until it is closed or silent."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(raw)
            connection.settimeout(0.7)
            got = b""
            try:
                while piece := connection.recv(2**16):
                    got += piece
            except TimeoutError:
                pass
            return got


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    port = free_port()
    command = [sys.executable, "-c", PROGRAM, str(tmp_path_factory.mktemp("attacked") / "store"), str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.1)
        yield Running(process.pid, port)
        assert process.poll() is None  # it lived through all of it
        process.kill()
        process.wait(20)


def endless(first: bytes, megabytes: int = 150) -> Iterator[bytes]:
    yield first
    for _ in range(megabytes):
        yield b"a" * 2**20


@pytest.mark.parametrize(
    ("path", "kind", "first"),
    [
        ("/api/login", "application/json", b'{"name":"'), ("/api/search", "application/json", b'{"where":"'),
        ("/api/login", "text/plain", b""), ("/api/studies/query", "application/x-www-form-urlencoded", b"text="),
        ("/api/uploads", "multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: "),
        ("/api/uploads", "multipart/form-data; boundary=x", b""),
        ("/dicom-web/studies", "multipart/related; boundary=x", b""),
        ("/dicom-web/studies", "multipart/related; boundary=x", b"--x\r\nA: "),
    ],
)  # fmt: skip
def test_a_body_without_end_takes_no_memory(running, path, kind, first) -> None:
    def send() -> int | str:
        try:
            body = endless(first)
            return requests.post(running.url + path, data=body, headers={"Content-Type": kind}, timeout=60).status_code
        except requests.ConnectionError:
            return "closed"

    status, megabytes = running.peak_mb(send)
    assert status in (400, 413, 422, "closed")
    assert megabytes < 100
    said = {"Content-Type": kind, "Content-Length": str(10**12)}
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in said.items()
    )
    if "uploads" not in path and "dicom-web" not in path:
        assert b" 413 " in running.spoken(head.encode() + b"\r\n").split(b"\r\n")[0]


def deflated(megabytes: int, *, hidden: bool = False, length: int | None = None) -> bytes:
    """A small file that inflates to a large one; its transfer syntax may stand far behind, its header's length lie."""
    dataset = harmless()
    if hidden:
        dataset.file_meta.FileMetaInformationVersion = b"\0" * 4000
    raw = written(dataset)
    end = 144 + int.from_bytes(raw[140:144], "little")
    meta = with_value(raw[:end], 0x00020010, DEFLATED)
    meta = meta[:140] + struct.pack("<I", len(meta) - 144 if length is None else length) + meta[144:]
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    out = [
        squeeze.compress(
            raw[end : raw.index(b"\xe0\x7f\x10\x00OW")] + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", megabytes << 20)
        )
    ]
    out += [squeeze.compress(bytes(2**20)) for _ in range(megabytes)]
    return meta + b"".join(out) + squeeze.flush()


@pytest.mark.parametrize("options", [{}, {"hidden": True}, {"length": 4}, {"length": 2**31}], ids=range(4))
def test_what_inflates_without_end_is_refused(running, options) -> None:
    data = deflated(500, **options)
    assert len(data) < 1_000_000
    answer, megabytes = running.peak_mb(lambda: stow(requests, data, base=running.url))
    assert answer.status_code == 409
    assert megabytes < 250
    small, _ = running.peak_mb(lambda: stow(requests, deflated(1), base=running.url))
    assert small.status_code == 200


def jpeg_ls(size: int) -> bytes:
    frame = b"\xff\xd8\xff\xf7" + struct.pack(">HBHHB", 11, 16, size, size, 1) + b"\1\x11\0"
    return frame + b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\1\0\0\0\0" + bytes(64) + b"\xff\xd9"


def jpeg_2000(size: int) -> bytes:
    sizes = struct.pack(">HHIIIIIIIIH", 41, 0, size, size, 0, 0, size, size, 0, 0, 1) + bytes([15, 1, 1])
    coding = b"\xff\x52" + struct.pack(">HBBHB", 12, 0, 0, 1, 0) + bytes([0, 4, 4, 0, 1]) + b"\xff\x5c\0\4\x40\x80"
    return b"\xff\x4f\xff\x51" + sizes + coding + b"\xff\x90\0\n\0\0\0\0\0\0\0\1\xff\x93" + bytes(32) + b"\xff\xd9"


def run_lengths(count: int) -> bytes:
    segment = b"\x81\x00" * count
    return struct.pack("<16I", 2, 64, 64 + len(segment), *([0] * 13)) + 2 * segment


READ = """
import re, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
from pathlib import Path
from spicula.core.errors import InputError
from spicula.formats import read_volume
try:
    read_volume(Path(sys.argv[1]))
except InputError as error:
    print("refused", error)
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.parametrize(
    ("syntax", "frame"),
    [(JPEG_LS, jpeg_ls(30_000)), (JPEG_2000, jpeg_2000(30_000)), (HTJ2K, jpeg_2000(30_000)), (RLE, run_lengths(2**21))],
    ids=["JPEG-LS", "JPEG 2000", "HTJ2K", "RLE"],
)
def test_a_frame_that_claims_to_be_a_giant_is_refused(tmp_path, syntax, frame) -> None:
    """In a process of its own, as the worker that reads it is."""

    def change(dataset: pydicom.Dataset, _: int) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].VR = "OB"

    write_ct(tmp_path / "ct", stored_block((6, 16, 16)), change=change)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "ct")], capture_output=True, text=True, timeout=100
    )
    *said, megabytes = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert "refused" in said[0]
    assert int(megabytes) < 400


def test_frames_as_large_as_they_say_are_read(tmp_path) -> None:
    """What the guard against giants lets through: sound RLE, run lengths and literals alike."""
    from pydicom.uid import RLELossless

    stored = stored_block((6, 16, 16))
    stored[:, 8:] = 7
    write_ct(tmp_path / "ct", stored, change=lambda dataset, _: dataset.compress(RLELossless))
    np.testing.assert_array_equal(
        np.sort(read_volume(tmp_path / "ct").array_zyx[:, 0, 0]), np.sort(stored[:, 0, 0] - 1024)
    )
    with pytest.raises(InputError):
        read_volume(tmp_path / "none")


HOST = b"Host: 127.0.0.1\r\n"
SECOND = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
LONG = b"Content-Length: 999\r\n\r\n"
POST = b"POST /api/login HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        POST + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}" + SECOND,
        POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\n" + SECOND,
        POST + b"Content-Length: 4\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SECOND,
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SECOND,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SECOND,
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + SECOND,
        POST + b"Content-Length: +2\r\n\r\n{}" + SECOND, POST + b"Content-Length: 0x2\r\n\r\n{}" + SECOND,
        POST + b"Content-Length: -1\r\n\r\n{}" + SECOND, POST + b"Content-Length: 2, 2, 9\r\n\r\n{}" + SECOND,
        POST + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n" + SECOND,
        POST + b"Transfer-Encoding: chunked\r\n\r\n0000000000000000000000000000002\r\n{}\r\n0\r\n\r\n" + SECOND,
        b"GET /api/me HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n" + SECOND,
        b"GET /api/me HTTP/1.1\r\n\r\n" + SECOND, b"GET /api/me HTTP/1.1\r\n" + HOST + b" folded: x\r\n\r\n" + SECOND,
        b"GET /api/me HTTP/1.1\r\n" + HOST + b"X\0: a\r\n\r\n" + SECOND,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\0" * 1000, b"GET  /  HTTP/1.1\r\n\r\n",
    ],
    ids=range(22),
)  # fmt: skip
def test_no_request_hides_in_another(running, raw) -> None:
    got = running.spoken(raw)
    assert b" 200 " not in got
    assert got.count(b"HTTP/1.1 ") <= 2
    assert b"Traceback" not in got


def test_who_is_slow_keeps_nobody_waiting(running) -> None:
    begun = [
        b"GET /healthz HTTP/1.1\r\nHos", POST + b"Content-Length: 100\r\n\r\n{",
        b"POST /api/uploads HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\n" + HOST + LONG + b"--x",
        b"POST /dicom-web/studies HTTP/1.1\r\nContent-Type: multipart/related; boundary=x\r\n" + HOST + LONG + b"--x",
        b"GET /api/jobs/events HTTP/1.1\r\n" + HOST + b"\r\n",
    ]  # fmt: skip
    with held_open(running.port, begun * 50):
        for path in ("/healthz", "/api/studies", "/api/me", "/dicom-web/studies"):
            assert httpx.get(running.url + path, timeout=20).status_code == 200
    assert httpx.get(f"{running.url}/healthz", timeout=20).status_code == 200


@contextmanager
def held_open(port: int, beginnings: list[bytes]) -> Iterator[None]:
    connections = []
    try:
        for raw in beginnings:
            connections.append(socket.create_connection(("127.0.0.1", port)))
            connections[-1].sendall(raw)
        yield
    finally:
        for one in connections:
            one.close()
