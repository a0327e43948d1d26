"""Every bad input gives one clear message, a non-zero exit and nothing half-written, through the command itself."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

from spicula.cli import main
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.dicom.writer import write_series

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; gives its exit status and what it wrote to the error stream."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["spicula", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return int(exit_.value.code or 0), capsys.readouterr().err

    return call


def noise_ct(shape: tuple[int, int, int] = (24, 32, 32)) -> Volume:
    """HU that are plausible for a body, but without lungs."""
    array = np.full(shape, -1000, np.int16)
    array[:, 4:-4, 4:-4] = np.random.default_rng(0).integers(-20, 80, (shape[0], shape[1] - 8, shape[2] - 8))
    return Volume(array, Geometry.from_axes(shape, (2.5, 8.0, 8.0), origin_xyz_mm=(-128, -128, 0)))


def series(folder: Path, volume: Volume | None = None, **changes: object) -> Path:
    """A DICOM series with attributes changed in every file."""
    paths = write_series(folder, volume or noise_ct(), patient_id="P1", description="chest")
    for path in paths:
        dataset = pydicom.dcmread(path)
        for name, value in changes.items():
            setattr(dataset, name, value)
        dataset.save_as(path)
    return folder


def slices(folder: Path) -> list[Path]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(paths, key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))


def two_patients(tmp: Path) -> Path:
    folder = series(tmp / "mixed")
    for path in slices(folder)[6:]:
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "P2"
        dataset.save_as(path)
    return folder


def few_slices(tmp: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(noise_ct((3, 64, 64)).array_zyx), tmp / "few.nii.gz")
    return tmp / "few.nii.gz"


def empty_folder(tmp: Path) -> Path:
    (tmp / "empty").mkdir()
    return tmp / "empty"


def not_an_image(tmp: Path) -> Path:
    (tmp / "notes.txt").write_text("not an image at all")
    return tmp / "notes.txt"


def garbage_nifti(tmp: Path) -> Path:
    (tmp / "garbage.nii.gz").write_bytes(b"\x1f\x8b garbage")
    return tmp / "garbage.nii.gz"


def absent(tmp: Path) -> Path:
    return tmp / "no-such-folder"


def single_slice(tmp: Path) -> Path:
    folder = series(tmp / "one")
    for path in slices(folder)[1:]:
        path.unlink()
    return folder


def localizer(tmp: Path) -> Path:
    return series(tmp / "loc", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])


def magnetic_resonance(tmp: Path) -> Path:
    return series(tmp / "mr", Modality="MR", SOPClassUID=pydicom.uid.MRImageStorage)


def no_lungs(tmp: Path) -> Path:
    return series(tmp / "head")


def missing_slice(tmp: Path) -> Path:
    folder = series(tmp / "gap")
    slices(folder)[5].unlink()
    return folder


def duplicate_slice(tmp: Path) -> Path:
    folder = series(tmp / "twice")
    dataset = pydicom.dcmread(slices(folder)[3])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(folder / "again.dcm")
    return folder


def gantry_tilt(tmp: Path) -> Path:
    folder = series(tmp / "tilt")
    for path in slices(folder):
        dataset = pydicom.dcmread(path)
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, float(y) + 0.27 * float(z), z]
        dataset.save_as(path)
    return folder


def truncated_dicom(tmp: Path) -> Path:
    folder = series(tmp / "cut")
    path = slices(folder)[4]
    path.write_bytes(path.read_bytes()[:-700])
    return folder


def picture_as_nifti(tmp: Path) -> Path:
    array = np.random.default_rng(0).integers(0, 255, (20, 40, 40)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array), tmp / "picture.nii.gz")
    return tmp / "picture.nii.gz"


def holes_of_nan(tmp: Path) -> Path:
    array = noise_ct().array_zyx.astype(np.float32)
    array[3, 4, 5] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(array), tmp / "nan.nrrd")
    return tmp / "nan.nrrd"


def zip_that_climbs(tmp: Path) -> Path:
    with zipfile.ZipFile(tmp / "climbs.zip", "w") as archive:
        archive.writestr("../../evil.dcm", b"x")
    return tmp / "climbs.zip"


def zip_bomb(tmp: Path) -> Path:
    with zipfile.ZipFile(tmp / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"{number}.dcm", bytes(64_000_000))
    return tmp / "bomb.zip"


def link_out_of_the_folder(tmp: Path) -> Path:
    folder = series(tmp / "links")
    secret = tmp / "secret.dcm"
    secret.write_bytes(slices(folder)[0].read_bytes())
    (folder / "link.dcm").symlink_to(secret)
    return folder


CASES = [
    (absent, "no-such-folder"),
    (empty_folder, "empty"),
    (not_an_image, "notes.txt"),
    (garbage_nifti, "garbage.nii.gz"),
    (single_slice, "slice"),
    (localizer, "(?i)localizer"),
    (magnetic_resonance, "MR"),
    (no_lungs, "(?i)no lungs"),
    (missing_slice, "(?i)missing|gap"),
    (duplicate_slice, "(?i)duplicate"),
    (gantry_tilt, "(?i)tilt"),
    (truncated_dicom, "(?i)truncated|pixel"),
    (picture_as_nifti, "(?i)hounsfield|HU"),
    (holes_of_nan, "(?i)nan"),
    (zip_that_climbs, "evil"),
    (zip_bomb, "(?i)bomb|expand"),
    (link_out_of_the_folder, "link"),
    (two_patients, "2 patients"),
    (few_slices, "too little of a chest"),
]


@pytest.mark.parametrize(("make", "message"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_analyze_refuses(run: Run, tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    bad = make(tmp_path)
    status, error = run("analyze", bad, "--out", tmp_path / "out")
    assert status == 1
    assert error.startswith("error: ")
    assert error.count("\n") == 1, f"one line, not {error}"
    assert re.search(message, error), error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from spicula.core.analysis import Analysis
    from spicula.pipelines import batch

    def full(path: Path, analysis: Analysis) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(batch, "write_html", full)
    monkeypatch.setattr(batch, "analyze", lambda volume, **_: Analysis(volume, ()))
    status, error = run("analyze", series(tmp_path / "scan"), "--out", tmp_path / "out")
    assert status == 1
    assert "No space left" in error
    assert not (tmp_path / "out").exists()


def test_one_bad_scan_is_a_row_and_never_stops_the_others(run: Run, tmp_path: Path) -> None:
    import csv

    bad = [make(tmp_path) for make in (empty_folder, no_lungs, missing_slice)]
    status, _ = run("analyze", *bad, "--out", tmp_path / "out")
    assert status == 1
    with (tmp_path / "out" / "summary.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["status"] for row in rows] == ["failed"] * 3
    assert all(row["reason"] for row in rows)
