"""DICOM into the store: folders, zips, broken and hostile files."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.dicom.writer import write_series
from spicula.pipelines.ingest import ingest
from spicula.store.database import open_database
from spicula.store.studies import Studies


@pytest.fixture
def studies(tmp_path):
    engine = open_database(tmp_path / "store")
    yield Studies(engine, tmp_path / "store")
    engine.dispose()


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    """Twelve slices of noise as the package writes it."""
    folder = tmp_path_factory.mktemp("series")
    noise = np.random.default_rng(0).integers(-1000, 400, (12, 32, 40)).astype(np.int16)
    write_series(
        folder, Volume(noise, Geometry.from_axes(noise.shape, (2.0, 0.7, 0.7))), patient_id="P1", description="noise"
    )
    return folder


def zipped(series: Path, target: Path, *, names=None) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for number, path in enumerate(sorted(series.iterdir())):
            member = zipfile.ZipInfo(path.name if names is None else names(number))
            archive.writestr(member, path.read_bytes())
    return target


def test_a_folder_and_its_zip_are_the_same_study_once(studies, series, tmp_path) -> None:
    told: list[tuple[int, int]] = []
    first = ingest(series, studies, origin="upload", progress=lambda *done: told.append(done))
    count = len(list(series.iterdir()))
    assert (first.added, first.known, first.failed, len(first.studies)) == (count, 0, 0, 1)
    assert told[-1] == (count, count)
    again = ingest(zipped(series, tmp_path / "a.zip"), studies, origin="upload")
    assert (again.added, again.known, again.studies) == (0, count, first.studies)
    (row,) = studies.series(first.studies[0])
    assert (row["modality"], row["instances"]) == ("CT", count)
    one = studies.instances(row["series_uid"])[0]
    assert studies.path(one).read_bytes() in {path.read_bytes() for path in series.iterdir()}
    assert not [path for path in studies.folder.iterdir() if path.name.startswith(".spicula")]


def test_broken_files_are_told_and_all_others_kept(studies, series, tmp_path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(series, mixed)
    paths = sorted(mixed.iterdir())
    paths[0].write_bytes(paths[0].read_bytes()[:-2000])
    (mixed / "notes.txt").write_text("no DICOM")
    (mixed / "DICOMDIR").write_bytes(paths[1].read_bytes())
    found = ingest(mixed, studies, origin="upload")
    assert (found.added, found.failed, found.left_out) == (len(paths) - 1, 1, 2)
    assert paths[0].name in found.refused[0]
    assert "cut short" in found.refused[0]


@pytest.mark.parametrize("name", ["../evil.dcm", "/etc/evil.dcm", "a/../../evil.dcm", "..\\evil.dcm", "C:/evil.dcm"])
def test_a_zip_that_leads_out_is_refused_whole(studies, series, tmp_path, name) -> None:
    with pytest.raises(InputError, match="leads out of the zip"):
        ingest(zipped(series, tmp_path / "a.zip", names=lambda n: name if n == 0 else f"{n}"), studies, origin="upload")
    assert studies.list().total == 0
    assert not list(tmp_path.rglob("evil.dcm"))


def test_a_bomb_is_refused_before_it_is_unpacked(studies, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", b"\0" * (80 << 20))
    with pytest.raises(InputError, match="bomb"):
        ingest(tmp_path / "bomb.zip", studies, origin="upload")


def test_too_much_and_nothing_are_refused(studies, series, tmp_path) -> None:
    with pytest.raises(InputError, match="send it in parts"):
        ingest(series, studies, origin="upload", most_bytes=1000)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("nothing")
    with pytest.raises(InputError, match="none a DICOM instance"):
        ingest(tmp_path / "text", studies, origin="upload")


def test_hostile_headers_are_kept_as_harmless_text(studies, series, tmp_path) -> None:
    dataset = pydicom.dcmread(sorted(series.iterdir())[0])
    dataset.StudyDescription = "<script>alert(1)</script>"
    dataset.PatientID = "P\n1\x1b[2J"
    dataset.SeriesInstanceUID = "1.2.3"
    (tmp_path / "in").mkdir()
    dataset.save_as(tmp_path / "in" / "a.dcm")
    row = studies.get(ingest(tmp_path / "in", studies, origin="upload").studies[0])
    assert row["patient_id"] == "P 1 [2J"
    assert row["description"] == "<script>alert(1)</script>"  # text: whoever shows it escapes it
    with pydicom.config.disable_value_validation():
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2/../../../tmp/x"
        dataset.save_as(tmp_path / "in" / "a.dcm")
    with pytest.raises(InputError, match="digits between dots"):
        ingest(tmp_path / "in", studies, origin="upload")
