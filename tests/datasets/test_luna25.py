"""LUNA25 in its published layout, and the challenge's JSON in and out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import center_of_mass

from spicula.core.errors import InputError
from spicula.core.prediction import Prediction
from spicula.datasets import luna25
from spicula.formats import nrrd

HEADER = ",".join(luna25.COLUMNS)
UIDS = ("1.2.840.113654.2.55.1", "1.2.840.113654.2.55.2")
ROWS = (
    f"100471,{UIDS[0]},20000102,-80.5,81.0,1399.0,3,100471_3_20000102,100471_3,0,75,Female",
    f"100471,{UIDS[0]},20000102,-81.5,82.0,1397.0,4,100471_4_20000102,100471_4,1,75,Female",
    f"100471,{UIDS[1]},20010102,-80.0,80.5,1398.0,3,100471_3_20010102,100471_3,0,76,Female",
)


def scan(path: Path, *, ball: tuple[float, float, float] | None = None, compressed: bool = True) -> None:
    values = np.full((12, 20, 22), -850, np.int16)
    values[:, 14:] = 30
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.7, 0.7, 1.5))
    image.SetOrigin((-88.0, 74.0, 1390.0))
    if ball is not None:
        x, y, z = image.TransformPhysicalPointToIndex(ball)
        values[z, y, x] = 900
        made = sitk.GetImageFromArray(values)
        made.CopyInformation(image)
        image = made
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, path, useCompression=compressed)


def table(root: Path, *rows: str) -> Path:
    path = root / luna25.TABLE
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    table(tmp_path, *ROWS)
    for uid in UIDS:
        scan(tmp_path / "luna25_images" / f"{uid}.mha", compressed=uid == UIDS[0])
    return tmp_path


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """What the challenge hands out."""
    folder = tmp_path / "input"
    scan(folder / "images" / "chest-ct" / "1.2.3.mha")
    points = [{"name": f"7_{n}_20000102", "point": [-80.0 - n, 80.5, 1398.0]} for n in (2, 1)]
    (folder / luna25.LOCATIONS).write_text(
        json.dumps({"name": "Points of interest", "type": "Multiple points", "points": points})
    )
    (folder / luna25.CLINICAL).write_text(
        json.dumps({"gender": "FEMALE", "age": 71, "smoking_status": "Unknown", "metastasis_category": None})
    )
    return folder


def test_scans_with_their_nodules(root):
    first, second = luna25.load_cases(root)
    assert (first.patient_id, first.case_id, first.split) == ("100471", UIDS[0], "")
    assert [f.id for f in first.findings] == ["100471_3_20000102", "100471_4_20000102"]
    assert [f.truth["label"] for f in first.findings] == [0, 1]
    assert dict(second.findings[0].attributes) == {"age_years": 76, "female": 1}
    for case in (first, second):
        volume = case.load_volume()
        assert (volume.series_uid, volume.acquisition.patient_id) == (case.case_id, "100471")
        for finding in case.findings:
            volume.geometry.require_inside(finding.center_xyz_mm, what="nodule")
    assert first.load_volume().acquisition.study_date == "20000102"


def test_a_bright_voxel_at_a_nodule_is_found_there(root):
    annotation = luna25.read_annotations(root)[0]
    scan(root / "luna25_images" / f"{UIDS[0]}.mha", ball=annotation.center_xyz_mm)
    volume = next(luna25.load_cases(root)).load_volume()
    index = tuple(np.rint(volume.geometry.world_to_index(annotation.center_xyz_mm)).astype(int))
    assert volume.array_zyx[index] == 900


def test_a_real_ct_with_its_nodule(tmp_path, sample_ct):
    ct = sitk.ReadImage(sample_ct[0].nrrd)
    label = nrrd.read(sample_ct[0].label_nrrd)
    x, y, z = label.geometry.index_to_world(center_of_mass(label.array_zyx > 0))
    (tmp_path / "luna25_images").mkdir()
    sitk.WriteImage(ct, tmp_path / "luna25_images" / "1.5.mha", useCompression=True)
    table(tmp_path, f"9,1.5,20000102,{x},{y},{z},1,9_1_20000102,9_1,1,60,Male")
    (case,) = luna25.load_cases(tmp_path)
    volume = case.load_volume()
    index = tuple(np.rint(volume.geometry.world_to_index(case.findings[0].center_xyz_mm)).astype(int))
    assert label.array_zyx[index] > 0
    assert volume.array_zyx[index] > -200


def test_what_verify_says(root):
    checks = list(luna25.verify(root, deep=True))
    assert not [c for c in checks if c.state in ("broken", "missing")]
    counts = {c.what: c.message for c in checks}
    assert counts["nodules on scans"] == "3, published are 6,163"
    assert counts["malignant nodules"] == "1, published are 348"
    assert counts["nodules"] == "2, published are 3,762"
    assert counts["patients"] == "1, published are 2,120"
    assert counts["sound scans"] == "2, published are 4,069"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ROWS[0].replace(",0,75", ",2,75").replace("3_2000", "9_2000"), "label"),
        (ROWS[0].replace("-80.5", "nan"), "CoordX"),
        (ROWS[0].replace(",20000102,", ",2000,"), "StudyDate"),
        (ROWS[0].replace("100471,", ",", 1), "PatientID"),
        (ROWS[0], "AnnotationID"),
        ("100472" + ROWS[0][6:].replace("100471_3", "100472_3"), "PatientID"),
    ],
)
def test_a_bad_row_is_named_and_is_in_the_report(root, row, words):
    path = table(root, *ROWS, row)
    with pytest.raises(InputError, match=words) as caught:
        luna25.load_cases(root)
    assert "line 5" in str(caught.value)
    broken = [(c.path, c.line) for c in luna25.verify(root) if c.state == "broken"]
    assert broken == [(path, 5)]


def test_labels_and_ids_that_contradict_each_other_are_warned_of(root):
    path = table(root, *ROWS[:2], ROWS[2].replace(",0,76", ",1,76"), ROWS[2].replace("_20010102", "_20020102"))
    odd = [(c.what, c.line) for c in luna25.verify(root) if c.state == "warning" and c.path == path and c.line]
    assert odd == [("label", 4), ("AnnotationID", 5)]


def test_missing_and_broken_scans(root):
    images = root / "luna25_images"
    (images / f"{UIDS[0]}.mha").write_bytes(b"nothing")
    (images / f"{UIDS[1]}.mha").rename(images / "1.9.mha")
    found = {(c.state, c.what) for c in luna25.verify(root) if "published" not in c.message}
    assert found == {("broken", "image"), ("missing", "scans"), ("warning", "image")}
    first, second = luna25.load_cases(root)
    for case in (first, second):
        with pytest.raises(InputError, match=case.case_id):
            case.load_volume()


def test_a_nodule_outside_its_scan(root):
    table(root, *ROWS, ROWS[0].replace("-80.5,81.0", "80.5,-81.0").replace("_3", "_5").replace(",3,", ",5,"))
    (check,) = [c for c in luna25.verify(root) if c.state == "broken"]
    assert "looks like RAS" in check.message


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        luna25.verify(tmp_path / "absent")
    with pytest.raises(InputError, match=luna25.TABLE):
        luna25.load_cases(tmp_path)
    assert [c.state for c in luna25.verify(tmp_path)] == ["missing", "warning"]


def test_a_job_of_the_challenge_and_its_answer(job, tmp_path):
    case = luna25.load_job(job)
    assert [f.id for f in case.findings] == ["7_2_20000102", "7_1_20000102"]
    assert dict(case.findings[0].attributes) == {"age_years": 71, "female": 1}
    assert case.load_volume().series_uid == "1.2.3"
    out = tmp_path / "output"
    out.mkdir()
    predictions = [
        Prediction(f.id, "malignancy", p, None, "x") for f, p in zip(case.findings, (0.75, 0.125), strict=True)
    ]
    other = Prediction(case.findings[0].id, "spiculation_present", 0.5, None, "x")
    luna25.write_likelihoods(out, case.findings, [*predictions[::-1], other])
    answer = json.loads((out / "lung-nodule-malginancy-likelihoods.json").read_text())
    assert answer["type"] == "Multiple points"
    assert answer["points"] == [
        {"name": "7_2_20000102", "point": [-82.0, 80.5, 1398.0], "probability": 0.75},
        {"name": "7_1_20000102", "point": [-81.0, 80.5, 1398.0], "probability": 0.125},
    ]
    back = luna25.read_likelihoods(out)
    assert [(f.id, f.center_xyz_mm, f.score) for f in back] == [
        (f.id, f.center_xyz_mm, p.probability) for f, p in zip(case.findings, predictions, strict=True)
    ]


def test_an_answer_that_does_not_fit_the_job_is_refused(job, tmp_path):
    findings = luna25.load_job(job).findings
    good = [Prediction(f.id, "malignancy", 0.5, None, "x") for f in findings]
    for predictions, words in (
        (good[:1], "7_1_20000102: got no prediction"),
        ([*good, good[0]], "two predictions"),
        ([*good, Prediction("9", "malignancy", 0.5, None, "x")], "finding 9"),
        ([good[0], Prediction(findings[1].id, "malignancy", float("nan"), None, "x")], "a number from 0 to 1"),
    ):
        with pytest.raises(InputError, match=words):
            luna25.write_likelihoods(tmp_path / "a.json", findings, predictions)
    assert not (tmp_path / "a.json").exists()


def test_the_clinical_information(job):
    clinical = luna25.read_clinical(job / luna25.CLINICAL)
    assert (clinical.age, clinical.gender) == (71.0, "F")
    assert dict(clinical.extra) == {"smoking_status": "Unknown", "metastasis_category": None}
    (job / luna25.CLINICAL).write_text('{"age": null}')
    assert luna25.read_clinical(job / luna25.CLINICAL).age is None
    assert dict(luna25.load_job(job).findings[0].attributes) == {}
    (job / luna25.CLINICAL).write_text('{"age": "old"}')
    with pytest.raises(InputError, match="age: got 'old'"):
        luna25.load_job(job)


def test_a_job_without_its_scan(job):
    next((job / "images" / "chest-ct").iterdir()).unlink()
    with pytest.raises(InputError, match=r"one \.mha file"):
        luna25.load_job(job)
