"""Uploads: written as they come in, under names of our own, whole or not at all."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from spicula.pipelines.upload import UPLOADS_FOLDER
from spicula.pipelines.worker import IMPORT, work
from spicula.web.app import make_app
from spicula.web.limits import Limits

from .test_access import BASE


@pytest.fixture
def client(workplace) -> TestClient:
    limits = Limits(upload_bytes=600_000, files=20)
    return TestClient(make_app(workplace, limits=limits), base_url=BASE)


def files_of(folder: Path) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"../../{path.name}", path.read_bytes())) for path in sorted(folder.iterdir())]


def zipped(names: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return stream.getvalue()


def left(place) -> list[Path]:
    folder = place.folder / UPLOADS_FOLDER
    return sorted(folder.iterdir()) if folder.is_dir() else []


def imported(place, client: TestClient, job: dict) -> dict:
    work(
        place,
        once=True,
        handlers={IMPORT: __import__("spicula.pipelines.worker", fromlist=["HANDLERS"]).HANDLERS[IMPORT]},
    )
    return client.get(f"/api/jobs/{job['id']}").json()


def test_a_folder_becomes_a_study(workplace, client, series) -> None:
    answer = client.post("/api/uploads", files=files_of(series))
    assert answer.status_code == 202
    job = answer.json()
    assert (job["kind"], job["state"], job["created_by"]) == ("import", "queued", "desk")
    done = imported(workplace, client, job)
    assert (done["state"], done["result"]["added"], done["result"]["failed"]) == ("done", 12, 0)
    assert [one["study_uid"] for one in client.get("/api/studies").json()["studies"]] == done["result"]["studies"]
    assert left(workplace) == []


def test_a_zip_becomes_a_study(workplace, client, series) -> None:
    data = zipped({f"a/{path.name}": path.read_bytes() for path in series.iterdir()})
    job = client.post("/api/uploads", files={"files": ("ct.zip", data)}).json()
    assert imported(workplace, client, job)["result"]["added"] == 12
    assert left(workplace) == []


@pytest.mark.parametrize("name", ["../../../etc/evil.dcm", "/etc/evil.dcm", "a/../../evil.dcm"])
def test_a_zip_whose_names_lead_out_is_refused(workplace, client, series, name, tmp_path) -> None:
    data = zipped({name: next(series.iterdir()).read_bytes()})
    job = client.post("/api/uploads", files={"files": ("ct.zip", data)}).json()
    told = imported(workplace, client, job)
    assert told["state"] == "failed"
    assert "leads out" in told["message"] or "name" in told["message"]
    assert client.get("/api/studies").json()["total"] == 0
    assert not list(tmp_path.rglob("evil.dcm"))
    assert left(workplace) == []


def test_a_bomb_is_refused(workplace, client) -> None:
    data = zipped({f"{number}.dcm": b"\0" * 40_000_000 for number in range(3)})
    assert len(data) < 600_000
    told = imported(workplace, client, client.post("/api/uploads", files={"files": ("ct.zip", data)}).json())
    assert "unpacks" in told["message"] or "times" in told["message"], told["message"]


@pytest.mark.parametrize(
    ("files", "status", "error"),
    [
        ([("files", ("a.dcm", b"x" * 700_000))], 413, "more bytes"),
        ([("files", (f"{n}", b"x")) for n in range(21)], 413, "more files"),
        ([("files", ("a.zip", zipped({"a": b"x"}))), ("files", ("b", b"x"))], 400, "a zip among other files"),
        ([("other", ("a", b"x"))], 400, "no file"),
    ],
)
def test_what_goes_beyond_a_bound_leaves_nothing(workplace, client, files, status, error) -> None:
    answer = client.post("/api/uploads", files=files)
    assert answer.status_code == status
    assert error in answer.json()["error"]
    assert left(workplace) == []
    assert client.get("/api/jobs").json() == []


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "application/json"}, b"{}"),
        ({"Content-Type": "multipart/form-data"}, b""),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--y\r\n\r\n"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b'--x\r\nContent-Disposition: form-data; name="files"; '
         b'filename="a"\r\n\r\nhalf'),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b""),
    ],
)  # fmt: skip
def test_a_broken_body_leaves_nothing(workplace, client, headers, body) -> None:
    answer = client.post("/api/uploads", headers=headers, content=body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert left(workplace) == []


def test_names_of_files_are_ours(workplace, client, series) -> None:
    client.post("/api/uploads", files=files_of(series)[:2])
    (folder,) = left(workplace)
    assert sorted(path.name for path in folder.iterdir()) == ["000000", "000001"]
