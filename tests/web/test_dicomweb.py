"""Our DICOMweb server, asked by our own client and by one that knows nothing of us."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from spicula.core.errors import InputError
from spicula.dicom.web import DicomWeb
from spicula.pipelines.ingest import ingest


@pytest.fixture
def filled(server, workplace, series) -> str:
    ingest(series, workplace.studies, origin="upload")
    return f"{server}/dicom-web"


@pytest.fixture
def other(filled) -> DICOMwebClient:
    """An independent client."""
    return DICOMwebClient(filled)


def uids(series: Path) -> tuple[str, str]:
    dataset = pydicom.dcmread(next(series.iterdir()))
    return str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID)


def test_our_own_client_finds_fetches_and_stores(filled, series, tmp_path) -> None:
    study, one = uids(series)
    with DicomWeb(filled) as web:
        assert [found.study_uid for found in web.find_studies(PatientName="doe^*")] == [study]
        assert [found.series_uid for found in web.find_series(study)] == [one]
        assert len(web.find_instances(study, one)) == 12
        paths = web.fetch_series(study, one, tmp_path / "got")
        assert {path.read_bytes() for path in paths} == {path.read_bytes() for path in series.iterdir()}
        assert len(web.store(sorted(series.iterdir()))) == 12


def test_an_independent_client_searches(other, series) -> None:
    study, one = uids(series)
    (found,) = other.search_for_studies(search_filters={"PatientID": "P1", "StudyDate": "20200101-20200103"})
    dataset = pydicom.Dataset.from_json(found)
    assert (dataset.StudyInstanceUID, dataset.PatientName, dataset.ModalitiesInStudy) == (study, "Doe^Jane", "CT")
    assert dataset.NumberOfStudyRelatedInstances == 12
    assert other.search_for_studies(search_filters={"PatientID": "nobody"}) == []
    (found,) = other.search_for_series(study)
    assert pydicom.Dataset.from_json(found).SeriesInstanceUID == one
    assert len(other.search_for_instances(study, one, limit=5, offset=10)) == 2
    assert len(other.search_for_studies(search_filters={"0020000D": study})) == 1


def test_an_independent_client_fetches(other, series) -> None:
    study, one = uids(series)
    stored = {str(d.SOPInstanceUID): d for d in map(pydicom.dcmread, series.iterdir())}
    for dataset in other.retrieve_series(study, one):
        np.testing.assert_array_equal(dataset.pixel_array, stored[dataset.SOPInstanceUID].pixel_array)
    assert len(other.retrieve_study_metadata(study)) == len(other.retrieve_series_metadata(study, one)) == 12
    uid, dataset = next(iter(stored.items()))
    header = pydicom.Dataset.from_json(
        {tag: one for tag, one in other.retrieve_instance_metadata(study, one, uid).items() if tag != "7FE00010"}
    )
    assert header.ImagePositionPatient == dataset.ImagePositionPatient
    media = (("application/octet-stream", "1.2.840.10008.1.2.1"),)
    (frame,) = other.retrieve_instance_frames(study, one, uid, [1], media_types=media)
    assert frame == dataset.PixelData


def test_an_independent_client_stores(server, series, workplace) -> None:
    client = DICOMwebClient(f"{server}/dicom-web")
    datasets = [pydicom.dcmread(path) for path in sorted(series.iterdir())[:3]]
    response = client.store_instances(datasets)
    assert len(response.ReferencedSOPSequence) == 3
    assert "FailedSOPSequence" not in response
    assert workplace.studies.list().rows[0]["instances"] == 3


def multipart(*parts: bytes) -> tuple[bytes, dict[str, str]]:
    body = b"".join(b"--cut\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts) + b"--cut--"
    return body, {"Content-Type": 'multipart/related; type="application/dicom"; boundary=cut'}


def test_what_cannot_be_kept_is_told_and_the_rest_kept(server, series, workplace) -> None:
    good, bad = (path.read_bytes() for path in sorted(series.iterdir())[:2])
    body, headers = multipart(good, bad[:-1000], b"no DICOM at all" * 20)
    answer = httpx.post(f"{server}/dicom-web/studies", content=body, headers=headers)
    assert answer.status_code == 202
    found = answer.json()
    assert len(found["00081199"]["Value"]) == 1
    assert [one["00081197"]["Value"] for one in found["00081198"]["Value"]] == [[0xC000], [0xC000]]
    body, headers = multipart(good)
    answer = httpx.post(f"{server}/dicom-web/studies/1.2.3", content=body, headers=headers)
    assert answer.status_code == 409
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA900]
    assert workplace.studies.list().rows[0]["instances"] == 1


@pytest.mark.parametrize(
    ("content", "headers", "status", "said"),
    [
        (b"x" * 5_000_000, {"Content-Type": "multipart/related; boundary=cut"}, 413, "at most 4000000"),
        (b"hello", {"Content-Type": "text/plain"}, 400, "multipart/related"),
        (b"--cut\r\n\r\nhalf", {"Content-Type": "multipart/related; boundary=cut"}, 400, "whole multipart"),
        (
            b"--cut\r\n\r\n" + b"x" * 2_000_000 + b"\r\n--cut--",
            {"Content-Type": "multipart/related; boundary=cut"},
            413,
            "at most 1000000",
        ),
    ],
)
def test_a_request_that_is_none_is_refused(server, workplace, content, headers, status, said) -> None:
    answer = httpx.post(f"{server}/dicom-web/studies", content=content, headers=headers)
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert workplace.studies.list().total == 0
    assert [path.name for path in workplace.folder.iterdir() if path.name.startswith(".spicula")] == []


@pytest.mark.parametrize(
    "path",
    [
        "studies/1.2.3/metadata", "studies/1.2.3", "studies/../../etc/passwd", "studies/%2e%2e%2fetc",
        "studies/1.2.3/series/4/instances/5/frames/1", "studies/1.2.3,4.5/metadata",
    ],
)  # fmt: skip
def test_what_is_not_there_is_not_found(filled, path) -> None:
    assert httpx.get(f"{filled}/{path}").status_code in (400, 404)


def test_bad_queries_get_one_clear_answer(filled, series) -> None:
    study, one = uids(series)
    answer = httpx.get(f"{filled}/studies", params={"PatientWeight": "70"})
    assert answer.status_code == 400
    assert "one of StudyInstanceUID" in answer.json()["error"]
    assert httpx.get(f"{filled}/studies", params={"limit": "-1"}).status_code == 400
    instance = httpx.get(f"{filled}/studies/{study}/series/{one}/instances").json()[0]["00080018"]["Value"][0]
    for numbers in ("0", "2", "x", "1," * 2000):
        address = f"{filled}/studies/{study}/series/{one}/instances/{instance}/frames/{numbers}"
        assert httpx.get(address).status_code in (400, 404)


def test_every_answer_keeps_the_page_to_itself(server) -> None:
    answer = httpx.get(f"{server}/healthz")
    assert answer.json()["status"] == "ok"
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_our_client_tells_of_a_server_that_refuses(server, series) -> None:
    with DicomWeb(f"{server}/dicom-web") as web, pytest.raises(InputError):
        web.find_studies(PatientWeight="70")
