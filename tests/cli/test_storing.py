"""``spicula store`` through the commands themselves."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from spicula.cli import storing
from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.dicom.deidentify import KEY_FILE
from spicula.dicom.writer import write_series
from spicula.pipelines.workplace import Workplace, open_workplace

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path) -> Run:
    """Run ``spicula store``; gives its exit status and both of its streams."""

    def call(*arguments: object, store: str = "store") -> tuple[int, str, str]:
        environment = {"SPICULA_STORE": str(tmp_path / store), "COLUMNS": "120"}
        done = CliRunner().invoke(storing.app, [*map(str, arguments)], env=environment)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    return call


@pytest.fixture
def series(tmp_path) -> Path:
    """A patient's CT of six slices."""
    return scan(tmp_path / "DOE_JANE", "20240229")


def scan(folder: Path, date: str) -> Path:
    noise = np.random.default_rng(int(date)).integers(-1000, 400, (6, 16, 16)).astype(np.int16)
    volume = Volume(noise, Geometry.from_axes(noise.shape, (2.0, 0.7, 0.7)))
    write_series(
        folder, volume, patient_id="DOE-4711", patient_name="Doe^Jane", study_date=date, description=f"Doe {date[:6]}"
    )
    return folder


def only_study(place: Workplace) -> str:
    (row,) = place.studies.list().rows
    return str(row["study_uid"])


def test_a_store_from_its_first_import_to_its_restored_copy(run, series, tmp_path) -> None:
    status, out, _ = run("import", series)
    assert status == 0
    assert "6 instances added, 0 were there, of 1 studies" in out
    assert "Next: spicula serve" in out
    assert "0 instances added, 6 were there" in run("import", series)[1]
    status, out, _ = run("info")
    assert status == 0
    facts = dict(line.split(None, 1) for line in out.splitlines())
    assert (facts["studies"], facts["instances"], facts["database"]) == ("1", "6", "SQLite")
    assert facts["jobs"] == "1 queued"
    assert int(facts["bytes_used"].split()[0]) == sum(path.stat().st_size for path in series.iterdir())
    assert run("check")[:2] == (0, f"{tmp_path / 'store'}: sound\n")
    status, out, _ = run("backup", tmp_path / "b.zip")
    assert status == 0
    assert "1 studies" in out
    assert "Next: spicula store restore" in out
    status, out, _ = run("restore", tmp_path / "b.zip", store="new")
    assert status == 0
    assert "1 studies, 6 files" in out
    with open_workplace(tmp_path / "new") as place, open_workplace(tmp_path / "store") as first:
        assert place.studies.list().rows == first.studies.list().rows
        study_uid = only_study(place)
        assert [row["action"] for row in place.audit.list()] == ["store.restore", "study.import", "study.import"]
    assert run("remove", study_uid, store="new")[1] == "6 instances removed\n"
    assert run("check", store="new")[0] == 0
    assert run("sweep", store="new")[1] == "0 files and 0 folders removed\n"


def test_what_is_wrong_is_told(run, series, tmp_path) -> None:
    run("import", series)
    with open_workplace(tmp_path / "store") as place:
        (one,) = place.studies.series(only_study(place))
        lost = place.studies.instances(one["series_uid"])[2]
        place.studies.path(lost).unlink()
    status, out, _ = run("check")
    assert status == 1
    assert f"instance {lost['sop_instance_uid']}: its file is missing" in out
    with pytest.raises(InputError, match="spicula store check"):
        run("backup", tmp_path / "b.zip")


@pytest.mark.parametrize("command", [("info",), ("check",), ("sweep",), ("backup", "b.zip"), ("remove", "1.2")])
def test_no_store_is_made_by_asking_for_one(run, tmp_path, command) -> None:
    with pytest.raises(InputError, match="spicula store import"):
        run(*command)
    assert not (tmp_path / "store").exists()


def test_a_backup_without_files_or_with_the_key(run, series, tmp_path) -> None:
    run("import", series, "--deidentify")
    assert run("backup", tmp_path / "rows.zip", "--rows-alone")[0] == 0
    assert run("backup", tmp_path / "key.zip", "--key")[0] == 0
    assert "has no files" in run("restore", tmp_path / "rows.zip", store="rows")[1]
    assert run("restore", tmp_path / "key.zip", store="key")[0] == 0
    assert (tmp_path / "key" / KEY_FILE).read_text() == (tmp_path / "store" / KEY_FILE).read_text()
    assert not (tmp_path / "rows" / KEY_FILE).exists()


def test_a_deidentified_import_names_nobody_anywhere(run, series, tmp_path) -> None:
    screen = pydicom.dcmread(sorted(series.iterdir())[0])
    screen.SOPClassUID = screen.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    screen.SOPInstanceUID = screen.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    screen.save_as(series / "DOE_JANE_screen.dcm")
    status, out, err = run("import", series, "--deidentify")
    assert status == 1  # the screen capture
    assert "6 instances added" in out
    assert "Secondary Capture" in err
    assert "DOE" not in out + err
    again = run("import", series, "--deidentify")[1]
    assert "0 instances added, 6 were there" in again
    with open_workplace(tmp_path / "store") as place:
        row = place.studies.get(only_study(place))
        assert row["deidentified"]
        assert row["patient_id"].startswith("ANON-")
        assert (row["patient_name"], row["description"]) == (row["patient_id"], "")
        assert not place.studies.list(text="doe").total
    for path in (tmp_path / "store").rglob("*"):
        content = path.read_bytes().lower() if path.is_file() else b""
        assert b"doe" not in content.replace(b"does", b""), path
        assert b"20240229" not in content


def test_later_scans_of_a_patient_join_the_earlier_ones(run, series, tmp_path) -> None:
    run("import", series, "--deidentify")
    with zipfile.ZipFile(tmp_path / "later.zip", "w") as archive:
        for path in scan(tmp_path / "later", "20240601").iterdir():
            archive.write(path, path.name)
    run("import", tmp_path / "later.zip", "--deidentify")
    with open_workplace(tmp_path / "store") as place:
        rows = place.studies.list().rows
        days = sorted(datetime.strptime(row["study_date"], "%Y%m%d") for row in rows)
        assert len({row["patient_id"] for row in rows}) == 1
        assert (days[1] - days[0]).days == 93
