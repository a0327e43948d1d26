"""What a data set holds and whether its files are whole, counted and looked at without reading a pixel."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.datasets.catalog import Check, dataset_names
from spicula.datasets.phantom import thorax
from spicula.formats import write_nifti
from spicula.pipelines.describe_dataset import REPORT_COLUMNS, describe, verify, write_report

HEAD = "pid,nodule_id,image_path,coordX,coordY,coordZ,malignant,diameter_mm,split,texture"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images of two patients; the third is not there, and a place of the second lies outside."""
    grid = Geometry.from_axes((20, 30, 40), (2.0, 2.0, 2.0), origin_xyz_mm=(-39.0, -29.0, -19.0))
    volume: Volume = thorax(grid)
    for name in ("a", "b"):
        write_nifti(tmp_path / f"{name}.nii.gz", volume)
    rows = [
        "p,1,a.nii.gz,0,0,0,1,10,train,5", "p,2,a.nii.gz,5,5,5,0,4,train,", "p,1,b.nii.gz,900,0,0,0,6,train,3",
        "q,1,c.nii.gz,0,0,0,,8,test,4",
    ]  # fmt: skip
    (tmp_path / "nodules.csv").write_text("\n".join([HEAD, *rows]) + "\n")
    return tmp_path


def test_cases_patients_findings_and_their_facts_are_counted(root: Path) -> None:
    seen: list[int] = []
    found = describe("nodule-csv", root, progress=seen.append)
    assert (found.cases, found.patients, found.findings, found.cases_without_findings) == (3, 2, 4, 0)
    assert found.splits == {"train": 2, "test": 1}
    assert found.diameter_mm == (4, 5.5, 7, 8.5, 10)
    assert found.truth == {"label": "3 known: 0 (2), 1 (1)", "texture": "3 known: 3 (1), 4 (1), 5 (1)"}
    assert seen == [1, 2, 3]
    assert found.lines()[0] == "3 scans of 2 patients, 4 findings"
    assert "splits: test 1, train 2" in found.lines()
    assert "diameter: 4 known: median 7.0 mm, quartiles 5.5 to 8.5, range 4.0 to 10.0" in found.lines()


def test_a_fact_of_many_values_is_told_by_its_range(tmp_path: Path) -> None:
    rows = [f"p{n},1,{n}.nii.gz,0,0,0,,,,{n}" for n in range(21)]
    (tmp_path / "nodules.csv").write_text("\n".join([HEAD, *rows]) + "\n")
    found = describe("nodule-csv", tmp_path)
    assert found.truth == {"texture": "21 known: median 10, 0 to 20"}
    assert found.diameter_mm == ()


def test_a_table_is_named_in_place_of_its_folder(root: Path) -> None:
    assert describe("nodule-csv", root / "nodules.csv") == describe("nodule-csv", root)
    assert list(verify("nodule-csv", root / "nodules.csv")) == list(verify("nodule-csv", root))


def test_every_check_is_a_row_of_the_report(root: Path, tmp_path: Path) -> None:
    seen: list[Check] = []
    write_report(tmp_path / "report.csv", verify("nodule-csv", root), seen=seen.append)
    with (tmp_path / "report.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == REPORT_COLUMNS
    assert [row["state"] for row in rows] == [check.state for check in seen]
    broken = next(row for row in rows if row["state"] == "broken")
    assert broken["file"] == str(root / "b.nii.gz")
    missing = next(row for row in rows if row["state"] == "missing")
    assert (missing["file"], missing["line"]) == (str(root / "c.nii.gz"), "5")


def test_a_report_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_report(tmp_path / "r.csv", verify("luna16", tmp_path / "absent"), seen=lambda _: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", dataset_names())
def test_every_data_set_is_verified_with_and_without_pixels(name: str, deep: bool, tmp_path: Path) -> None:
    checks = list(verify(name, tmp_path, deep=deep))
    assert {check.state for check in checks} & {"missing", "broken"}


@pytest.mark.parametrize("name", dataset_names())
def test_no_folder_and_no_such_data_set_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        describe(name, tmp_path / "absent")
    with pytest.raises(InputError, match="expected one of"):
        describe(f"{name}x", tmp_path)
