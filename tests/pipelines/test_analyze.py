"""Golden tests on the real scans: what is asked of the first whole Spicula."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from spicula.core.analysis import Analysis
from spicula.core.prediction import TRAITS
from spicula.datasets.sample import SampleScan
from spicula.formats import nrrd, read_volume
from spicula.report.record import report_schema

Analyze = Callable[[Path], tuple[Analysis, Path]]


def label_center(scan: SampleScan) -> np.ndarray:
    label = nrrd.read(scan.label_nrrd)
    return label.geometry.index_to_world(np.argwhere(label.array_zyx > 0).mean(axis=0))


def distance(place: object, other: object) -> float:
    return float(np.linalg.norm(np.subtract(place, other)))  # type: ignore[arg-type]


@pytest.mark.shared
def test_the_nodule_of_lidc_0001_is_the_first_finding_and_rightly_measured(analyzed: Analyze, lidc_0001: Path) -> None:
    analysis, out = analyzed(lidc_0001)
    first = analysis.findings[0]
    assert distance(first.center_xyz_mm, (56.2, 86.3, -115.9)) < 5
    assert first.diameter_mm == pytest.approx(29.6, rel=0.20)
    assert first.size is not None
    assert first.size.volume_mm3 == pytest.approx(7500, rel=0.25)
    assert analysis.predictions_of(first.id)["malignancy"].probability > 0.5
    assert {path.name for path in out.iterdir()} == {"report.json", "report.html", "sr.dcm", "seg.dcm"}


@pytest.mark.sample
@pytest.mark.parametrize("number", [0, 1], ids=["lung1", "lung2"])
def test_the_labeled_nodule_of_the_sample_is_among_the_first_five(
    analyzed: Analyze, sample_ct: list[SampleScan], number: int
) -> None:
    analysis, _ = analyzed(sample_ct[number].dicom)
    target = label_center(sample_ct[number])
    assert min(distance(finding.center_xyz_mm, target) for finding in analysis.findings[:5]) < 10


@pytest.mark.sample
def test_every_format_gives_the_same_findings(analyzed: Analyze, sample_ct: list[SampleScan], tmp_path: Path) -> None:
    reference, _ = analyzed(sample_ct[0].dicom)
    image = sitk.ReadImage(str(sample_ct[0].nrrd))
    sitk.WriteImage(image, str(tmp_path / "lung1.nii.gz"))
    other, out = analyzed(tmp_path / "lung1.nii.gz")
    assert {path.name for path in out.iterdir()} == {"report.json", "report.html"}
    for one, two in zip(reference.findings, other.findings, strict=True):
        assert distance(one.center_xyz_mm, two.center_xyz_mm) < 0.1
        assert one.size is not None
        assert two.size is not None
        assert two.size.volume_mm3 == pytest.approx(one.size.volume_mm3, rel=0.02)
    for one_p, two_p in zip(reference.predictions, other.predictions, strict=True):
        assert (one_p.finding_id, one_p.target) == (two_p.finding_id, two_p.target)
        assert two_p.probability == pytest.approx(one_p.probability, abs=0.02)
    for format_ in (".mha", ".nrrd"):
        sitk.WriteImage(image, str(tmp_path / f"again{format_}"))
        again = read_volume(tmp_path / f"again{format_}")
        np.testing.assert_array_equal(again.array_zyx, reference.volume.array_zyx)
        np.testing.assert_allclose(again.geometry.affine_lps, reference.volume.geometry.affine_lps, atol=1e-6)


@pytest.mark.sample
def test_the_outputs_agree_with_each_other_and_with_the_source(analyzed: Analyze, sample_ct: list[SampleScan]) -> None:
    analysis, out = analyzed(sample_ct[0].dicom)
    record = json.loads((out / "report.json").read_text())
    jsonschema.Draft202012Validator(report_schema()).validate(record)
    assert [finding["id"] for finding in record["findings"]] == [finding.id for finding in analysis.findings]
    first = record["findings"][0]
    assert set(first["attributes"]) == set(TRAITS)
    low, high = first["malignancy"]["interval"]
    assert low <= first["malignancy"]["probability"] <= high
    assert record["bundles"] == list(analysis.fingerprints)
    assert record["outputs"] == {"html": "report.html", "sr": "sr.dcm", "seg": "seg.dcm"}
    sources = {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in sample_ct[0].dicom.iterdir()}
    for name in ("sr.dcm", "seg.dcm"):
        dataset = pydicom.dcmread(out / name, stop_before_pixels=True)
        assert referenced(dataset) <= sources | {dataset.SOPInstanceUID}
        assert referenced(dataset) & sources
    html = (out / "report.html").read_text()
    assert "not a medical device" in html
    assert html.count("<h2") >= len(analysis.findings)


def referenced(dataset: pydicom.Dataset) -> set[str]:
    return {str(item.value) for item in dataset.iterall() if item.keyword == "ReferencedSOPInstanceUID"}
