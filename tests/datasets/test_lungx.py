"""LUNGx: the real spreadsheets; DICOM folders laid out as the archive gives them, from a phantom."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import openpyxl
import pydicom
import pytest

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.datasets import lungx
from spicula.datasets.phantom import Ball, thorax
from spicula.dicom.writer import write_series

HEADERS = {
    "CalibrationSet_NoduleData.xlsx": [
        "Scan Number", "Nodule Center x,y Position*", "Nodule Center Image", "Diagnosis",
    ],
    "TestSet_NoduleData_PublicRelease_wTruth.xlsx": [
        "Scan Number", "Nodule Number", "Nodule Center x,y Position*", "Nodule Center Image", "Final Diagnosis",
    ],
}  # fmt: skip
CALIBRATION, TEST = HEADERS
NOTES = [[], ["*specified in pixels, where position (1,1) corresponds to ..."], [], ["All images are in DICOM ..."]]
ROWS = {
    CALIBRATION: [["CT-Training-lc001", "10, 10", 3, "malignant"]],
    TEST: [["LUNGx-CT001", 1, "135, 303", 142, "Benign nodule"]],
}


def sheets(root: Path, **changed: list[list[object]]) -> Path:
    for name, header in HEADERS.items():
        book = openpyxl.Workbook()
        for row in [header, *changed.get(name.split("_")[0], ROWS[name]), *NOTES]:
            book.active.append(row)
        book.save(root / name)
    return root


BALL = Ball((70.0, -20.0, 31.0), 14.0)


def scan(folder: Path, *, head_first: bool) -> tuple[int, int, int]:
    """Write a phantom's series; the pixel (from 1) and image number of the ball's middle."""
    shape, spacing = (80, 64, 80), (2.5, 4.0, 4.0)
    grid = Geometry.from_axes(shape, spacing, origin_xyz_mm=(-158.0, -126.0, -99.0))
    volume = thorax(grid, balls=[BALL])
    files = write_series(folder, volume, patient_id="x", description="chest")
    z, y, x = np.rint(grid.world_to_index(BALL.center_xyz_mm)).astype(int)
    numbers = range(len(files), 0, -1) if head_first else range(1, len(files) + 1)
    for path, number in zip(files, numbers, strict=True):
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = number
        dataset.save_as(path)
    return int(x) + 1, int(y) + 1, int(numbers[z])


@pytest.mark.shared
def test_the_real_spreadsheets_have_the_published_counts(shared):
    cases = list(lungx.load_cases(shared / "lungx"))
    for split, scans, nodules, malignant in (("calibration", 10, 10, 5), ("test", 60, 73, 36)):
        of_split = [case for case in cases if case.split == split]
        found = [finding for case in of_split for finding in case.findings]
        labels = [finding.truth["label"] for finding in found]
        assert (len(of_split), len(found), sum(labels)) == (scans, nodules, malignant)
    assert sum(max(f.truth["label"] for f in case.findings) for case in cases) == 35  # patients, as the paper counts
    assert sum(f.truth["suspected"] for case in cases for f in case.findings) == 2
    assert all(np.isnan(f.center_xyz_mm).all() and f.diameter_mm is None for case in cases for f in case.findings)
    first = cases[0].findings[0].attributes
    assert dict(first) == {"column_px": 119.0, "row_px": 324.0, "image_number": 135.0}
    with pytest.raises(InputError, match=r"no DICOM files.*get-lungx"):
        cases[0].load_volume()
    checks = list(lungx.verify(shared / "lungx"))
    assert [check.state for check in checks] == ["ok"] * 6 + ["warning"]
    assert checks[-1].message.startswith("only the spreadsheets are here")


@pytest.mark.parametrize("head_first", [True, False])
def test_a_place_comes_from_the_header_of_the_slice_of_that_number(tmp_path, head_first):
    folder = tmp_path / "manifest-1" / "SPIE-AAPM Lung CT Challenge" / "CT-Training-LC001"
    x, y, image = scan(folder / "study" / "series", head_first=head_first)
    sheets(tmp_path, CalibrationSet=[["CT-Training-lc001", f"{x}, {y}", image, "malignant"]])
    first, second = lungx.load_cases(tmp_path)
    volume = first.load_volume()
    np.testing.assert_allclose(first.findings[0].center_xyz_mm, BALL.center_xyz_mm, atol=2.01)
    index = volume.geometry.world_to_index(first.findings[0].center_xyz_mm)
    np.testing.assert_allclose(index, np.rint(index), atol=1e-6)
    assert index[1:].tolist() == pytest.approx([y - 1, x - 1])
    assert np.isnan(second.findings[0].center_xyz_mm).all()
    checks = {(check.state, check.what): check for check in lungx.verify(tmp_path, deep=True)}
    assert ("ok", "places") in checks
    assert ("ok", "tissue") in checks
    assert ("missing", "scans") in checks  # one of two is there
    assert not [check for state, check in checks if state == "broken"]


def test_an_image_that_is_not_there_and_a_pixel_outside_are_named(tmp_path):
    scan(tmp_path / "CT-Training-lc001", head_first=False)
    for row, words in (
        (["CT-Training-lc001", "5, 5", 81, "malignant"], "instance numbers 1 to 80"),
        (["CT-Training-lc001", "5, 300", 8, "malignant"], "images of 80 x 64"),
    ):
        sheets(tmp_path, CalibrationSet=[row])
        with pytest.raises(InputError, match=words):
            list(lungx.load_cases(tmp_path))
        assert any(check.state == "broken" and words in check.message for check in lungx.verify(tmp_path))
    shutil.rmtree(tmp_path / "CT-Training-lc001")
    assert len(list(lungx.load_cases(tmp_path))) == 2


@pytest.mark.parametrize(("cell", "pixel"), [("120, 325", (119, 324)), (120325, (119, 324)), ("75,288", (74, 287))])
def test_a_pixel_may_have_become_one_number(tmp_path, cell, pixel):
    sheets(tmp_path, CalibrationSet=[["CT-Training-be001", cell, 3, "benign"]])
    attributes = next(lungx.load_cases(tmp_path)).findings[0].attributes
    assert (attributes["column_px"], attributes["row_px"]) == pixel


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (["CT-Training-lc001", "0, 5", 3, "malignant"], "x, y from 1 to 512"),
        (["CT-Training-lc001", "5", 3, "malignant"], "x, y from 1 to 512"),
        (["CT-Training-lc001", "5, 5", 3, "unclear"], "one of malignant, primary lung cancer"),
        (["CT-Training-lc001", "5, 5", None, "malignant"], "Nodule Center Image"),
        (["patient 1", "5, 5", 3, "malignant"], "CT-Training-lc001, LUNGx-CT001 or the like"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, row, words):
    sheets(tmp_path, CalibrationSet=[row])
    with pytest.raises(InputError, match=words) as caught:
        list(lungx.load_cases(tmp_path))
    assert "line 2" in str(caught.value)
    broken = [check for check in lungx.verify(tmp_path) if check.state == "broken"]
    assert [(check.line, words in check.message) for check in broken] == [(2, True)]


def test_nodules_of_one_scan_stay_together_and_are_there_once(tmp_path):
    row = ["LUNGx-CT002", 1, "5, 5", 3, "Primary lung cancer "]
    sheets(tmp_path, TestSet=[row, ["LUNGx-CT002", 2, "9, 9", 7, "Suspicious malignant nodule"]])
    case = list(lungx.load_cases(tmp_path))[1]
    assert [dict(f.truth) for f in case.findings] == [{"label": 1, "suspected": 0}, {"label": 1, "suspected": 1}]
    sheets(tmp_path, TestSet=[row, row])
    with pytest.raises(InputError, match="nodule 1 of LUNGx-CT002 is there twice"):
        lungx.load_cases(tmp_path)


def test_absent_files_are_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        lungx.load_cases(tmp_path / "absent")
    with pytest.raises(InputError, match="CalibrationSet_NoduleData"):
        lungx.load_cases(tmp_path)
    assert {check.state for check in lungx.verify(tmp_path)} == {"missing"}


@pytest.mark.shared
def test_a_real_scan_in_the_archive_s_layout(shared, tmp_path):
    """LIDC-IDRI-0001 in a LUNGx folder: its 23 mm nodule at (56.21, 86.34, -115.87), given as pixel and image."""
    folder = tmp_path / "LUNGx-CT001" / "01-01-2000-CT" / "1.000-chest"
    folder.mkdir(parents=True)
    with tarfile.open(shared / "scans" / "LIDC-IDRI-0001.tar.xz") as archive:
        for member in archive:
            if member.name.endswith(".dcm"):
                (folder / Path(member.name).name).write_bytes(archive.extractfile(member).read())
    slices = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.iterdir())]
    near = min(slices, key=lambda item: abs(float(item.ImagePositionPatient[2]) + 115.87))
    by_height = sorted(slices, key=lambda item: float(item.ImagePositionPatient[2]))
    assert near.InstanceNumber != by_height.index(near) + 1  # numbered from the head
    mm = float(near.PixelSpacing[0])
    x, y = (round((value - float(near.ImagePositionPatient[i])) / mm) + 1 for i, value in ((0, 56.21), (1, 86.34)))
    sheets(tmp_path, TestSet=[["LUNGx-CT001", 1, f"{x}, {y}", int(near.InstanceNumber), "Primary lung cancer"]])
    case = list(lungx.load_cases(tmp_path))[1]
    np.testing.assert_allclose(case.findings[0].center_xyz_mm, (56.21, 86.34, -115.87), atol=1.26)
    states = {(check.state, check.what) for check in lungx.verify(tmp_path, deep=True)}
    assert {("ok", "places"), ("ok", "tissue")} <= states
