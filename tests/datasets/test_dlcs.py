"""DLCS: the table's published columns over phantoms written as NIfTI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from spicula.core.errors import InputError
from spicula.datasets import dlcs
from spicula.datasets.phantom import Ball, thorax, thorax_grid
from spicula.formats import read_volume, write_nifti

HEADER = "patient-id,nodule_id,ct_nifti_file,coordX,coordY,coordZ,w,h,d,Malignant_lbl,benchmark_split"
ROW = "DLCS_0001,DLCS_0001_01,DLCS_0001.nii.gz,70.0,20.0,30.0,12.0,11.0,10.5,1,train"
BALL = Ball((70.0, 20.0, 30.0), 12.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "subset_01").mkdir()
    write_nifti(tmp_path / "subset_01" / "DLCS_0001.nii.gz", thorax(thorax_grid((5, 4, 4)), balls=[BALL]))
    table(tmp_path, ROW, "DLCS_0002,DLCS_0002_01,DLCS_0002.nii.gz,1,2,3,4,5,6,,test")
    return tmp_path


def table(root: Path, *rows: str) -> None:
    (root / dlcs.TABLE).write_text("\n".join([HEADER, *rows]) + "\n")


def test_cases_with_boxes_labels_and_splits(root):
    first, second = dlcs.load_cases(root)
    assert (first.patient_id, first.case_id, first.split) == ("DLCS_0001", "DLCS_0001", "train")
    (finding,) = first.findings
    assert (finding.id, finding.center_xyz_mm, finding.diameter_mm) == ("DLCS_0001_01", BALL.center_xyz_mm, 11.5)
    assert dict(finding.truth) == {"label": 1.0}
    assert dict(finding.attributes) == {"box_x_mm": 12.0, "box_y_mm": 11.0, "box_z_mm": 10.5}
    assert dict(second.findings[0].truth) == {}
    with pytest.raises(InputError, match=r"DLCS_0002.nii.gz is not there.*get-dlcs"):
        second.load_volume()


def test_a_place_is_itk_s_physical_point_of_the_nifti_file(root):
    image = sitk.ReadImage(str(root / "subset_01" / "DLCS_0001.nii.gz"))
    case = next(dlcs.load_cases(root))
    index = case.load_volume().geometry.world_to_index(case.findings[0].center_xyz_mm)[::-1]
    np.testing.assert_allclose(index, image.TransformPhysicalPointToContinuousIndex(BALL.center_xyz_mm), atol=1e-3)
    assert image[[round(n) for n in index]] > -100


def test_verify_counts_and_finds_tissue(root):
    checks = {(check.state, check.what): check.message for check in dlcs.verify(root, deep=True)}
    assert ("ok", "tissue") in checks
    assert ("ok", "places") in checks
    assert "2, published are 2,487" in checks["warning", "nodules"]
    assert "1 of 2 are not there, the first DLCS_0002.nii.gz" in checks["missing", "scans"]


def test_verify_says_when_the_points_are_ras(root):
    table(root, ROW.replace("70.0,20.0", "-70.0,-20.0").replace("DLCS_0001_01", "n"))
    shallow = {check.what: check.state for check in dlcs.verify(root)}
    assert shallow["places"] == "ok"
    volume = read_volume(root / "subset_01" / "DLCS_0001.nii.gz")
    part = volume.geometry.crop((0, 0, 41), volume.geometry.shape_zyx)
    from spicula.core.volume import Volume

    write_nifti(root / "subset_01" / "DLCS_0001.nii.gz", Volume(volume.array_zyx[:, :, 41:], part))
    checks = [check for check in dlcs.verify(root, deep=True) if check.state == "broken"]
    assert {check.what for check in checks} == {"place", "places", "tissue"}
    assert any("1 with x and y negated" in check.message for check in checks)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ROW.replace("12.0,", "0,"), "three lengths in mm"),
        (ROW.replace(",1,train", ",2,train"), "Malignant_lbl: got '2'"),
        (ROW.replace("70.0", ""), "coordX: got nothing"),
        (ROW + "\n" + ROW, "DLCS_0001_01 is there twice"),
        (ROW + "\n" + ROW.replace("DLCS_0001_01", "b").replace("train", "test"), "two patients or splits"),
    ],
)
def test_a_bad_row_is_named(root, row, words):
    table(root, *row.split("\n"))
    with pytest.raises(InputError, match=words):
        dlcs.load_cases(root)
    assert any(check.state == "broken" and words in check.message for check in dlcs.verify(root))


def test_rows_that_clash_are_named_and_the_images_are_looked_at_all_the_same(root):
    clash = ROW.replace("DLCS_0001_01", "b").replace("train", "test")
    table(root, ROW, ROW, clash, "DLCS_0002,DLCS_0002_01,DLCS_0002.nii.gz,1,2,3,4,5,6,,test")
    checks = list(dlcs.verify(root))
    assert [check.line for check in checks if check.state == "broken" and check.what == dlcs.TABLE] == [3, 4]
    found = {(check.state, check.what): check.message for check in checks}
    assert found["ok", "places"].startswith("1 of 1 places")
    assert ("missing", "scans") in found
    assert ("broken", "split") in found


def test_a_damaged_scan_is_one_check(root):
    path = root / "subset_01" / "DLCS_0001.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    assert [check.path for check in dlcs.verify(root, deep=True) if check.state == "broken"] == [path]


def test_no_table(tmp_path):
    with pytest.raises(InputError, match="no DLCSD24_Annotations"):
        dlcs.load_cases(tmp_path)
    assert [check.state for check in dlcs.verify(tmp_path)] == ["missing"]
