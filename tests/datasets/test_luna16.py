"""LUNA16 in its published layout: folds, folders, compressed and raw scans, places, patients, what is broken."""

from __future__ import annotations

import gzip
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import center_of_mass

from spicula.core.errors import InputError, SpiculaWarning
from spicula.datasets import lidc_nodules, luna16
from spicula.datasets.catalog import Check
from spicula.formats import nifti, nrrd

HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
FLIPPED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
UIDS = [f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{n}" for n in range(100, 104)]


def scan(path: Path, *, direction: tuple[float, ...] | None = None, compressed: bool = False, ball=None) -> sitk.Image:
    """Write a small chest-like scan at a far-off origin; a bright ball at an LPS place, if wanted."""
    values = np.full((20, 24, 28), -850, np.int16)
    values[:, 18:] = 40
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.75, 0.75, 2.0))
    image.SetOrigin((-190.25, -163.5, -300.125))
    if direction:
        image.SetDirection(direction)
    if ball is not None:
        index = np.stack(np.meshgrid(*(range(n) for n in values.shape), indexing="ij"), axis=-1)
        world = np.array(
            [image.TransformContinuousIndexToPhysicalPoint(i[::-1].tolist()) for i in index.reshape(-1, 3)]
        )
        values[(np.linalg.norm(world - ball, axis=1) <= 4).reshape(values.shape)] = 900
        made = sitk.GetImageFromArray(values)
        made.CopyInformation(image)
        image = made
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, path, useCompression=compressed)
    return image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four scans in three folds: raw, compressed, flipped; one has no nodule, one two."""
    scan(tmp_path / "subset0" / f"{UIDS[0]}.mhd")
    scan(tmp_path / "subset0" / f"{UIDS[1]}.mhd", compressed=True)
    scan(tmp_path / "subset3" / f"{UIDS[2]}.mhd", direction=FLIPPED)
    scan(tmp_path / "subset9" / "subset9" / f"{UIDS[3]}.mhd")
    (tmp_path / "seriesuids.csv").write_text("\n".join(UIDS) + "\n")
    rows = [(0, -185, -158, -280, 5.5), (0, -180, -155, -290, 4.25), (1, -181, -157, -285, 6), (2, -195, -170, -285, 7)]
    (tmp_path / "annotations.csv").write_text(
        HEADER + "".join(f"{UIDS[n]},{x},{y},{z},{d}\n" for n, x, y, z, d in rows)
    )
    folder = tmp_path / "evaluationScript" / "annotations"
    folder.mkdir(parents=True)
    (folder / "annotations_excluded.csv").write_text(HEADER + f"{UIDS[0]},-184,-157,-281,-1\n{UIDS[3]},1,2,3,4.5\n")
    return tmp_path


def states(checks: list[Check], what: str) -> list[tuple[str, str]]:
    return [(check.state, check.message) for check in checks if check.what == what]


def test_scans_come_in_the_order_of_the_folds_with_and_without_nodules(root):
    cases = list(luna16.load_cases(root))
    assert [(case.case_id, case.split) for case in cases] == list(
        zip(UIDS, ["subset0", "subset0", "subset3", "subset9"], strict=True)
    )
    assert [len(case.findings) for case in cases] == [2, 1, 1, 0]
    first = cases[0].findings
    assert [(f.id, f.center_xyz_mm, f.diameter_mm) for f in first] == [
        ("1", (-185.0, -158.0, -280.0), 5.5), ("2", (-180.0, -155.0, -290.0), 4.25)
    ]  # fmt: skip
    assert luna16.DESCRIPTION.scans == 888


def test_every_scan_is_read_where_itk_puts_it(root):
    for case in luna16.load_cases(root):
        volume = case.load_volume()
        image = sitk.ReadImage(next(root.rglob(f"{case.case_id}.mhd")))
        np.testing.assert_array_equal(volume.array_zyx, sitk.GetArrayFromImage(image))
        for z, y, x in [(0, 0, 0), (3, 5, 7), (19, 23, 27)]:
            there = image.TransformIndexToPhysicalPoint((x, y, z))
            np.testing.assert_allclose(volume.geometry.index_to_world((z, y, x)), there)
        assert volume.series_uid == case.case_id
        for finding in case.findings:
            volume.geometry.require_inside(finding.center_xyz_mm, what="nodule")
    assert next(root.rglob("*.zraw"))


@pytest.mark.parametrize("direction", [None, FLIPPED])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_ball_at_an_annotation_is_found_there(tmp_path, direction, compressed):
    at = (-181.5, -156.25, -282.0) if direction is None else (-199.0, -170.5, -282.0)
    scan(tmp_path / "subset5" / "1.2.3.mhd", direction=direction, compressed=compressed, ball=np.array(at))
    (tmp_path / "annotations.csv").write_text(HEADER + f"1.2.3,{at[0]},{at[1]},{at[2]},8\n")
    (case,) = luna16.load_cases(tmp_path)
    volume = case.load_volume()
    middle = volume.geometry.index_to_world(center_of_mass(volume.array_zyx == 900))
    np.testing.assert_allclose(middle, case.findings[0].center_xyz_mm, atol=0.5)
    assert [state for state, _ in states(list(luna16.verify(tmp_path, deep=True)), "tissue")] == ["ok"]


def test_annotations_in_ras_are_told(tmp_path):
    scan(tmp_path / "subset5" / "1.2.3.mhd", ball=np.array((-181.5, -156.25, -282.0)))
    (tmp_path / "annotations.csv").write_text(HEADER + "1.2.3,181.5,156.25,-282,8\n")
    checks = list(luna16.verify(tmp_path))
    assert states(checks, "places") == [
        ("broken", "0 of 1 places lie inside their image as LPS, 1 with x and y negated")
    ]


def test_a_real_ct_with_its_nodule(tmp_path, sample_ct):
    ct = sitk.ReadImage(sample_ct[0].nrrd)
    label = nrrd.read(sample_ct[0].label_nrrd)
    at = label.geometry.index_to_world(center_of_mass(label.array_zyx > 0))
    (tmp_path / "subset0").mkdir()
    sitk.WriteImage(ct, tmp_path / "subset0" / "1.2.mhd", useCompression=True)
    (tmp_path / "annotations.csv").write_text(HEADER + f"1.2,{at[0]},{at[1]},{at[2]},14\n")
    (case,) = luna16.load_cases(tmp_path)
    volume = case.load_volume()
    z, y, x = np.rint(volume.geometry.world_to_index(case.findings[0].center_xyz_mm)).astype(int)
    assert label.array_zyx[z, y, x] > 0
    assert volume.array_zyx[z, y, x] > -200
    assert not [c for c in luna16.verify(tmp_path, deep=True) if c.what == "image"]


def test_the_patient_is_the_series_unless_the_metadata_of_lidc_is_there(root):
    assert [case.patient_id for case in luna16.load_cases(root)] == UIDS
    rows = "".join(f"LIDC-IDRI-{n // 2:04d},{uid}\n" for n, uid in enumerate(UIDS))
    (root / "metadata.csv").write_text("Subject ID,Series UID\n" + rows)
    patients = [case.patient_id for case in luna16.load_cases(root)]
    assert patients == ["LIDC-IDRI-0000", "LIDC-IDRI-0000", "LIDC-IDRI-0001", "LIDC-IDRI-0001"]
    assert next(luna16.load_cases(root)).load_volume().acquisition.patient_id == "LIDC-IDRI-0000"
    (root / "metadata.csv").write_text(f"Subject ID,Series UID\nLIDC-IDRI-0000,{UIDS[0]}\n")
    with pytest.raises(InputError, match=f"no series {UIDS[1]}"):
        luna16.load_cases(root)


def test_excluded_findings_are_apart(root):
    found = luna16.excluded_findings(root)
    assert {uid: [f.diameter_mm for f in findings] for uid, findings in found.items()} == {
        UIDS[0]: [None], UIDS[3]: [4.5]
    }  # fmt: skip


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_candidates_row_after_row(root, ending):
    text = "seriesuid,coordX,coordY,coordZ,class\n1.2,-1.5,2,3,0\n1.2,4,5,6,1\n"
    path = root / f"candidates_V2{ending}"
    path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    found = list(luna16.candidates(root))
    assert [(c.center_xyz_mm, c.is_nodule) for c in found] == [((-1.5, 2.0, 3.0), False), ((4.0, 5.0, 6.0), True)]
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="candidates_V2"):
        list(luna16.candidates(root))
    with pytest.raises(InputError, match=r"no candidates\.csv"):
        luna16.candidates(root, version=1)
    (root / "candidates.csv").write_text(text + "1.2,a,5,6,1\n")
    with pytest.raises(InputError, match="line 4"):
        list(luna16.candidates(root, version=1))


def test_some_folds_only(root):
    assert [case.case_id for case in luna16.load_cases(root, subsets=[3, 9])] == UIDS[2:]
    with pytest.raises(InputError, match="no scan in subset7"):
        luna16.load_cases(root, subsets=[7])


def test_a_listed_scan_that_is_not_there_is_a_case_that_cannot_be_loaded(root):
    next(root.rglob(f"{UIDS[2]}.mhd")).unlink()
    cases = {case.case_id: case for case in luna16.load_cases(root)}
    assert len(cases) == 4
    assert len(cases[UIDS[2]].findings) == 1
    with pytest.raises(InputError, match=f"{UIDS[2]} is in no subset folder"):
        cases[UIDS[2]].load_volume()
    (check,) = [c for c in luna16.verify(root) if c.what == "scans" and c.state == "missing"]
    assert UIDS[2] in check.message


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1.9,1,2,3,4", r"line 6: series 1\.9"),
        (f"{UIDS[0]},1,nan,3,4", "line 6: coordY"),
        (f"{UIDS[0]},1,2,3,-1", "line 6: diameter_mm"),
        (f"{UIDS[0]},1,2,3", "line 6"),
        (",1,2,3,4", "line 6: seriesuid is empty"),
    ],
)
def test_a_bad_row_is_named_and_is_one_check(root, row, words):
    path = root / "annotations.csv"
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(InputError, match=words):
        luna16.load_cases(root)
    broken = [c for c in luna16.verify(root) if c.state == "broken"]
    assert len(broken) == 1
    assert broken[0].path == path


def test_what_verify_says_of_sound_files(root):
    checks = list(luna16.verify(root, deep=True))
    assert not [c for c in checks if c.state in ("broken", "missing")]
    assert states(checks, "nodules") == [("warning", "4, published are 1,186")]
    assert states(checks, "sound scans") == [("warning", "4, published are 888")]
    assert "LIDC-IDRI-0332" in states(checks, "patients")[0][1]


def test_broken_scans_are_rows_of_the_report(root):
    raw = next((root / "subset3").glob("*.raw"))
    raw.write_bytes(raw.read_bytes()[:-100])
    zraw = next((root / "subset0").glob("*.zraw"))
    damaged = bytearray(zraw.read_bytes())
    damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)
    zraw.write_bytes(damaged)
    header = next((root / "subset9").rglob("*.mhd"))
    header.write_text("nothing\n")
    broken = [c for c in luna16.verify(root) if c.state == "broken"]
    assert {c.path.stem for c in broken if c.path} == {UIDS[2], UIDS[3]}
    assert any("cut short" in c.message for c in broken)
    deep = [c for c in luna16.verify(root, deep=True) if c.state == "broken"]
    assert {c.path.stem for c in deep if c.path} == {UIDS[1], UIDS[2], UIDS[3]}
    by_id = {case.case_id: case for case in luna16.load_cases(root)}
    with pytest.raises(InputError, match="cut short"):
        by_id[UIDS[2]].load_volume()


def test_a_nodule_outside_its_scan_is_told_with_the_flip_that_would_help(root):
    path = root / "annotations.csv"
    path.write_text(path.read_text() + f"{UIDS[3]},185,158,-280,5\n")
    (check,) = [c for c in luna16.verify(root) if c.state == "broken"]
    assert "looks like RAS" in check.message


def test_a_scan_in_two_folds_and_one_that_is_not_listed(root):
    scan(root / "subset1" / f"{UIDS[0]}.mhd")
    with pytest.raises(InputError, match="each scan in one fold"):
        luna16.load_cases(root)
    assert any("also in" in c.message for c in luna16.verify(root))
    for path in (root / "subset1").iterdir():
        path.unlink()
    scan(root / "subset1" / "1.2.mhd")
    with pytest.warns(SpiculaWarning, match=r"does not list 1 of the scans in the folds.*1\.2\.mhd"):
        cases = list(luna16.load_cases(root))
    assert [case.case_id for case in cases] == UIDS
    checks = list(luna16.verify(root))
    (stray,) = [check for check in checks if check.path == root / "subset1" / "1.2.mhd"]
    assert stray.state == "warning"
    assert not [check for check in checks if check.state in ("broken", "missing")]
    assert states(checks, "scans with a sound header") == [("warning", "4, published are 888")]


def test_the_tables_alone_are_no_fault(root):
    for path in root.rglob("*.mhd"):
        path.unlink()
    assert len(list(luna16.load_cases(root))) == 4
    checks = list(luna16.verify(root))
    assert states(checks, "scans") == [
        ("warning", "only the tables are here: none of the 4 scans is in a subset folder")
    ]
    assert not [check for check in checks if check.state in ("broken", "missing")]


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        luna16.verify(tmp_path / "absent")
    with pytest.raises(InputError, match="neither seriesuids"):
        luna16.load_cases(tmp_path)
    scan(tmp_path / "subset0" / "1.2.mhd")
    with pytest.raises(InputError, match=r"no annotations\.csv"):
        luna16.load_cases(tmp_path)
    missing = [c.what for c in luna16.verify(tmp_path) if c.state == "missing"]
    assert missing == ["seriesuids.csv", "annotations.csv", "annotations_excluded.csv"]


def test_memory_stays_flat_over_many_scans(tmp_path):
    values = np.zeros((40, 64, 64), np.int16) - 800
    values[:, 32:] = 20
    sitk.WriteImage(sitk.GetImageFromArray(values), tmp_path / "a.mhd")
    folder = tmp_path / "subset0"
    folder.mkdir()
    for n in range(40):
        (folder / f"1.{n}.mhd").write_text((tmp_path / "a.mhd").read_text())
    (folder / "a.raw").write_bytes((tmp_path / "a.raw").read_bytes())
    (tmp_path / "annotations.csv").write_text(HEADER + "1.0,1,2,3,4\n")
    peaks = []
    tracemalloc.start()
    for case in luna16.load_cases(tmp_path):
        tracemalloc.reset_peak()
        case.load_volume()
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert len(peaks) == 40
    assert max(peaks[20:]) < 1.1 * max(peaks[:20]) + 1e5


@pytest.mark.shared
def test_the_published_tables(shared):
    root = shared / "luna16"
    cases = list(luna16.load_cases(root))
    assert (len(cases), sum(len(c.findings) for c in cases), sum(bool(c.findings) for c in cases)) == (888, 1186, 601)
    assert sum(map(len, luna16.excluded_findings(root).values())) == 35192
    what = ("scans listed", "nodules", "excluded findings", "scans with nodules")
    assert [c.state for c in luna16.verify(root) if c.what in what] == ["ok"] * 4


@pytest.mark.shared
def test_the_published_scans_are_of_887_patients(shared, tmp_path):
    for name in ("annotations.csv", "seriesuids.csv", "annotations_excluded.csv.gz"):
        (tmp_path / name).symlink_to(shared / "luna16" / name)
    (tmp_path / "LIDC-IDRI_MetaData.csv").symlink_to(shared / "lidc_xml" / "LIDC-IDRI_MetaData.csv")
    patients = [case.patient_id for case in luna16.load_cases(tmp_path)]
    assert len(set(patients)) == 887
    assert patients.count("LIDC-IDRI-0332") == 2
    assert ("ok", "887, as published") in states(list(luna16.verify(tmp_path)), "patients")


@pytest.mark.shared
@pytest.mark.slow
def test_the_published_annotation_of_a_real_scan_lies_in_the_nodule_that_readers_outlined(shared, tmp_path):
    with tarfile.open(shared / "scans" / "LIDC-IDRI-0001.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    reader = sitk.ImageSeriesReader()
    (uid,) = reader.GetGDCMSeriesIDs(str(tmp_path / "LIDC-IDRI-0001"))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "LIDC-IDRI-0001"), uid))
    root = tmp_path / "luna16"
    (root / "subset0").mkdir(parents=True)
    sitk.WriteImage(reader.Execute(), root / "subset0" / f"{uid}.mhd")
    for name in ("annotations.csv", "seriesuids.csv", "annotations_excluded.csv.gz"):
        (root / name).symlink_to(shared / "luna16" / name)
    (case,) = luna16.load_cases(root, subsets=[0])
    volume = case.load_volume()
    (finding,) = case.findings
    outline = lidc_nodules.load_mask(shared / "lidc_nodules", "LIDC-IDRI-0001_1")
    assert outline.array_zyx[tuple(np.rint(outline.geometry.world_to_index(finding.center_xyz_mm)).astype(int))]
    inside = outline.geometry.index_to_world(np.argwhere(outline.array_zyx))
    np.testing.assert_allclose(finding.center_xyz_mm, inside.mean(axis=0), atol=2)
    small = nifti.read(shared / "lidc_nodules" / "image" / "LIDC-IDRI-0001_1.nii.gz")
    index = volume.geometry.world_to_index(inside)
    np.testing.assert_allclose(index, np.rint(index), atol=0.02)
    values = volume.array_zyx[tuple(np.rint(index).astype(int).T)]
    np.testing.assert_array_equal(values, small.array_zyx[outline.array_zyx])
    checks = [c for c in luna16.verify(root, deep=True) if c.what in ("image", "places", "tissue")]
    assert [c.state for c in checks] == ["ok", "ok"]
