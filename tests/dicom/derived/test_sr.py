"""The measurement report, read again by highdicom and pydicom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from highdicom.spatial import ImageToReferenceTransformer
from pydicom.dataelem import DataElement
from pydicom.sr.codedict import codes

from spicula.core.analysis import Analysis
from spicula.core.errors import GeometryError, InputError, SpiculaWarning
from spicula.core.finding import Finding
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask
from spicula.dicom.seg import write_seg
from spicula.dicom.source import tracking_uid
from spicula.dicom.sr import TRAIT_CODES, write_sr

Make = Callable[..., Analysis]
ORIENTATIONS = ["axial", "head first down", "prone", "coronal", "oblique", "tilted"]


def report_of(path: Path) -> hd.sr.MeasurementReport:
    return hd.sr.srread(path).content


def groups_of(path: Path) -> list[pydicom.Dataset]:
    root = pydicom.dcmread(path)
    measurements = next(i for i in root.ContentSequence if code(i) == ("126010", "DCM"))
    return list(measurements.ContentSequence)


def code(item: pydicom.Dataset) -> tuple[str, str]:
    name = item.ConceptNameCodeSequence[0]
    return name.CodeValue, name.CodingSchemeDesignator


def items_of(group: pydicom.Dataset, kind: str) -> list[pydicom.Dataset]:
    return [item for item in group.ContentSequence if item.ValueType == kind]


def world_of(region: pydicom.Dataset) -> np.ndarray:
    """World places of a SCOORD by an independent library, from the header of the instance that it names."""
    reference = region.ContentSequence[0].ReferencedSOPSequence[0]
    source = SOURCES[reference.ReferencedSOPInstanceUID]
    frame = reference.get("ReferencedFrameNumber")
    transform = ImageToReferenceTransformer.for_image(source, frame_number=frame)
    return transform(np.array(region.GraphicData, dtype=np.float64).reshape(-1, 2))


SOURCES: dict[str, pydicom.Dataset] = {}


@pytest.fixture(autouse=True)
def _sources(tmp_path: Path) -> None:
    SOURCES.clear()


def written(analysis: Analysis, tmp_path: Path) -> Path:
    path = tmp_path / "sr.dcm"
    write_sr(path, analysis, created=datetime(2024, 5, 6, 7, 8, 9))
    for instance in analysis.volume.acquisition.instances:
        if instance is not None and instance.sop_instance_uid not in SOURCES:
            SOURCES[instance.sop_instance_uid] = pydicom.dcmread(instance.path)
    return path


@pytest.mark.parametrize("enhanced", [False, True], ids=["single frames", "multi-frame"])
@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_outlines_lie_where_the_mask_is(make_analysis: Make, tmp_path: Path, direction: str, enhanced: bool) -> None:
    analysis = make_analysis(direction, enhanced=enhanced, reverse=direction == "prone")
    path = written(analysis, tmp_path)
    for finding, group in zip(analysis.findings[:2], groups_of(path), strict=False):
        assert finding.mask is not None
        regions = items_of(group, "SCOORD")
        slices = finding.mask.array_zyx.any(axis=(1, 2)).sum()
        assert len(regions) == slices
        lines = [world_of(region) for region in regions]
        index = [finding.mask.geometry.world_to_index(line) for line in lines]
        for line in index:
            z = line[:, 0].mean()
            np.testing.assert_allclose(line[:, 0], round(z), atol=1e-3)  # on a slice's plane
            plane = finding.mask.array_zyx[round(z)]
            places = np.argwhere(plane)
            np.testing.assert_allclose(line[:, 1:].min(axis=0), places.min(axis=0) - 0.5, atol=1e-3)
            np.testing.assert_allclose(line[:, 1:].max(axis=0), places.max(axis=0) + 0.5, atol=1e-3)
            np.testing.assert_allclose(line[0], line[-1], atol=1e-6)  # closed
        key = analysis.volume.geometry.world_to_index(lines[0])[0, 0]
        measured = analysis.volume.geometry.world_to_index(finding.size.long_axis_ends_xyz_mm[0])[0]
        assert key == pytest.approx(measured, abs=1e-3)  # the key slice comes first


@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_places_in_space_are_lps_millimeters(make_analysis: Make, tmp_path: Path, direction: str) -> None:
    analysis = make_analysis(direction)
    path = written(analysis, tmp_path)
    for finding, group in zip(analysis.findings, groups_of(path), strict=True):
        shapes = {code(item)[0]: item for item in items_of(group, "SCOORD3D")}
        assert all(item.ReferencedFrameOfReferenceUID == "1.2.3.4.5" for item in shapes.values())
        assert shapes["111010"].GraphicType == "POINT"
        np.testing.assert_allclose(shapes["111010"].GraphicData, finding.center_xyz_mm, atol=1e-4)
        if finding.size is None:
            assert list(shapes) == ["111010"]
            continue
        outline = np.array(shapes["111041"].GraphicData).reshape(-1, 3)
        np.testing.assert_allclose(outline, world_of(items_of(group, "SCOORD")[0]), atol=1e-3)
        axis = np.array(shapes["103339001"].GraphicData).reshape(2, 3)
        assert np.linalg.norm(axis[1] - axis[0]) == pytest.approx(finding.size.long_axis_mm, abs=1e-3)


def test_measurements_carry_codes_units_and_intervals(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis()
    first, second, third = groups_of(written(analysis, tmp_path))
    values = {
        code(item): (
            float(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for item in items_of(first, "NUM")
    }
    size = analysis.findings[0].size
    assert size is not None
    assert values[("103339001", "SCT")] == (8.4, "mm")
    assert values[("103340004", "SCT")] == (6.4, "mm")
    assert values[("81827009", "SCT")] == (7.4, "mm")
    assert values[("118565006", "SCT")] == (round(size.volume_mm3, 2), "mm3")
    assert values[("112031", "DCM")] == (-12.35, "[hnsf'U]")
    assert values[("D-SOLID", "99SPICULA")] == (5.5, "mm")
    assert values[("V-SOLID", "99SPICULA")] == (80.25, "mm3")
    assert values[("111012", "DCM")] == (87.5, "%")
    assert values[("P-MALIGNANT", "99SPICULA")] == (81.25, "%")
    assert {(value, "99SPICULA") for value, _ in TRAIT_CODES.values()} <= set(values)
    risk = next(item for item in items_of(first, "NUM") if code(item)[0] == "P-MALIGNANT")
    bounds = {code(item)[0]: item.MeasuredValueSequence[0] for item in risk.ContentSequence if item.ValueType == "NUM"}
    assert float(bounds["371886008"].NumericValue) == 13.75
    assert float(bounds["371885007"].NumericValue) == 21.25
    assert {v.MeasurementUnitsCodeSequence[0].CodeValue for v in bounds.values()} == {"%"}
    assert "nodule-risk@0123456789abcdef" in [i.TextValue for i in risk.ContentSequence if i.ValueType == "TEXT"]
    without = next(item for item in items_of(second, "NUM") if code(item)[0] == "P-MALIGNANT")
    assert all(item.ValueType != "NUM" for item in without.ContentSequence)  # no interval, none is made up
    trait = next(item for item in items_of(first, "NUM") if code(item)[0] == "P-SPICULATED")
    assert [item.ValueType for item in trait.ContentSequence] == ["NUM", "NUM"]  # the same model as the risk's
    assert [code(item)[0] for item in items_of(third, "NUM")] == ["111012"]


def test_highdicom_finds_the_groups(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis()
    report = report_of(written(analysis, tmp_path))
    volumetric = report.get_volumetric_roi_measurement_groups(finding_type=codes.SCT.Nodule)
    planar = report.get_planar_roi_measurement_groups(finding_site=codes.SCT.Lung)
    assert [group.tracking_uid for group in [*volumetric, *planar]] == [
        tracking_uid(analysis, finding) for finding in analysis.findings
    ]
    assert volumetric[0].reference_type == codes.DCM.ImageRegion
    assert volumetric[0].get_measurements(name=codes.SCT.LongAxis)[0].value == 8.4
    evaluations = {item.name.value: item.value.value for item in volumetric[0].get_qualitative_evaluations()}
    assert evaluations["RID50134"] == "LUNGRADS-4A"
    assert planar[0].roi.graphic_type == hd.sr.GraphicTypeValues.POINT


def test_a_place_without_outline_is_a_circle_of_its_diameter(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis("oblique")
    place = replace(analysis.findings[2], diameter_mm=8.0)
    group = groups_of(written(replace(analysis, findings=(place,)), tmp_path))[0]
    (circle,) = items_of(group, "SCOORD")
    assert circle.GraphicType == "CIRCLE"
    center, edge = world_of(circle)
    np.testing.assert_allclose(center, place.center_xyz_mm, atol=1e-3)
    assert np.linalg.norm(edge - center) == pytest.approx(4.0, abs=1e-3)


def test_evidence_and_facts_of_the_source(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis()
    ds = pydicom.dcmread(written(analysis, tmp_path))
    assert str(ds.PatientName) == "Müller^Jörg"
    assert (ds.PatientID, ds.StudyInstanceUID, ds.StudyDate, ds.AccessionNumber) == ("P-1", "1.2.3.1", "20200102", "A1")
    assert ds.PatientSex == ""  # absent in the source, of type 2
    assert (ds.Modality, ds.ContentDate, ds.ContentTime) == ("SR", "20240506", "070809")
    assert (ds.CompletionFlag, ds.PreliminaryFlag, ds.VerificationFlag) == ("PARTIAL", "PRELIMINARY", "UNVERIFIED")
    assert ds.SeriesInstanceUID != "1.2.3.2"
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == ("1.2.3.1", "1.2.3.2")
    listed = {item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence}
    assert listed == {i.sop_instance_uid for i in analysis.volume.acquisition.instances if i is not None}
    text = ds.to_json()
    assert "Not a medical device" in text
    assert "A warning." in text
    assert "Not known: prior scan." in text


def test_no_findings_is_a_report_too(
    make_analysis: Make, tmp_path: Path, validated: Callable[[Path], list[str]]
) -> None:
    analysis = replace(make_analysis(), findings=(), predictions=(), assessments={})
    path = written(analysis, tmp_path)
    (group,) = groups_of(path)
    assert any(item.ConceptCodeSequence[0].CodeValue == "111241" for item in items_of(group, "CODE"))
    assert not items_of(group, "SCOORD")
    assert validated(path) == []


@pytest.mark.parametrize("enhanced", [False, True], ids=["single frames", "multi-frame"])
def test_an_external_validator_finds_no_error(
    make_analysis: Make, tmp_path: Path, validated: Callable[[Path], list[str]], enhanced: bool
) -> None:
    assert validated(written(make_analysis("oblique", enhanced=enhanced), tmp_path)) == []


def test_interpolated_slices_are_not_referred_to(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis()
    instances = list(analysis.volume.acquisition.instances)
    key = instances[4]
    instances[4] = None
    volume = analysis.volume
    acquisition = replace(volume.acquisition, instances=tuple(instances))
    analysis = replace(analysis, volume=replace(volume, acquisition=acquisition))
    path = written(analysis, tmp_path)
    assert key is not None
    assert key.sop_instance_uid not in pydicom.dcmread(path).to_json()
    assert len(items_of(groups_of(path)[0], "SCOORD")) == analysis.findings[0].mask.array_zyx.any(axis=(1, 2)).sum() - 1


def test_frames_of_reference_that_differ_between_slices(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis()
    for number, instance in enumerate(analysis.volume.acquisition.instances):
        ds = pydicom.dcmread(instance.path)
        ds.FrameOfReferenceUID = f"1.2.3.4.{number}"
        ds.save_as(instance.path)
    group = groups_of(written(analysis, tmp_path))[0]
    assert {item.ReferencedFrameOfReferenceUID for item in items_of(group, "SCOORD3D")} == {"1.2.3.4.5"}


def test_numbers_that_are_none_are_left_out(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis()
    finding = analysis.findings[0]
    size = replace(finding.size, mean_hu=float("nan"), solid_diameter_mm=None)
    first = groups_of(written(replace(analysis, findings=(replace(finding, size=size),)), tmp_path))[0]
    names = {code(item)[0] for item in items_of(first, "NUM")}
    assert "112031" not in names
    assert "D-SOLID" not in names


def test_refusals(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis()
    bare = replace(analysis.volume, acquisition=replace(analysis.volume.acquisition, instances=()))
    path = tmp_path / "sr.dcm"
    with pytest.raises(InputError, match="no DICOM instances"):
        write_sr(path, replace(analysis, volume=bare))
    mask = analysis.findings[0].mask
    assert mask is not None
    affine = mask.geometry.affine_lps.copy()
    affine[:3, 3] += analysis.volume.geometry.affine_lps[:3, 2] * 0.4
    off = Mask(mask.array_zyx, Geometry(mask.geometry.shape_zyx, affine))
    findings = (replace(analysis.findings[0], mask=off),)
    with pytest.raises(GeometryError, match=r"finding 1: got a grid up to 0.40 voxels off"):
        write_sr(path, replace(analysis, findings=findings))
    assert not path.exists()
    assert list(tmp_path.glob(".*")) == []


def test_the_same_analysis_gives_the_same_tracking_uids(make_analysis: Make) -> None:
    analysis = make_analysis()
    uids = [tracking_uid(analysis, finding) for finding in analysis.findings]
    assert len(set(uids)) == 3
    assert uids == [tracking_uid(analysis, finding) for finding in analysis.findings]
    moved = Finding("1", (1.0, 2.0, 3.0))
    assert tracking_uid(analysis, moved) not in uids


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientBirthDate", "1950-01-01"), ("StudyTime", "10:15"), ("PatientSex", "male"), ("StudyDate", "none")],
)
@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")
def test_headers_that_break_the_rules_do_not_break_the_report(
    make_analysis: Make, tmp_path: Path, keyword: str, value: str
) -> None:
    analysis = make_analysis()
    tag = pydicom.datadict.tag_for_keyword(keyword)
    vr = pydicom.datadict.dictionary_VR(keyword)
    for instance in analysis.volume.acquisition.instances:
        ds = pydicom.dcmread(instance.path)
        ds[tag] = DataElement(tag, vr, value, validation_mode=pydicom.config.IGNORE)
        ds.PatientName = "<Removed>"
        ds.save_as(instance.path)
    path = tmp_path / "sr.dcm"
    with pytest.warns(SpiculaWarning, match=f"{keyword} is not valid DICOM") as caught:
        write_sr(path, analysis)
    assert len(caught) == 1
    with pytest.warns(SpiculaWarning, match=f"{keyword} is not valid DICOM"):
        write_seg(tmp_path / "seg.dcm", analysis)
    written_back = pydicom.dcmread(path)
    assert not written_back[tag].value
    assert str(written_back.PatientName) == "<Removed>"
