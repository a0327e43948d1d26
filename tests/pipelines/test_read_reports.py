"""Reports of other programs become proposals of the store, once each."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import highdicom as hd
import jsonschema
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from spicula.core.analysis import Analysis
from spicula.core.errors import InputError, SpiculaWarning
from spicula.core.finding import Finding
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.dicom.sr import write_sr
from spicula.dicom.writer import write_series
from spicula.pipelines.ingest import ingest
from spicula.pipelines.read_reports import NAMELESS, take_in_reports
from spicula.pipelines.stored_analysis import stored_volume
from spicula.pipelines.study_outputs import write_study_outputs
from spicula.pipelines.workplace import Workplace, open_workplace
from spicula.report.record import report_schema

OBLIQUE = np.array([[0.98, 0.0, 0.199], [0.0, 1.0, 0.0], [-0.199, 0.0, 0.98]])
GRID = Geometry.from_axes(
    (10, 32, 40), (2.0, 0.9, 0.7), origin_xyz_mm=(5.0, -40.0, 100.0),
    direction_xyz=OBLIQUE / np.linalg.norm(OBLIQUE, axis=0), frame_of_reference_uid="1.2.9",
)  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct")
    noise = np.random.default_rng(0).integers(-1000, 400, GRID.shape_zyx).astype(np.int16)
    write_series(folder, Volume(noise, GRID), patient_id="P1", patient_name="Doe^J", description="noise")
    return folder


@pytest.fixture
def place(tmp_path: Path, source: Path) -> Iterator[Workplace]:
    with open_workplace(tmp_path / "store") as place:
        ingest(source, place.studies, origin="upload")
        yield place


def study_of(place: Workplace) -> str:
    return str(place.studies.list().rows[0]["study_uid"])


def headers_of(source: Path) -> list[pydicom.Dataset]:
    headers = [pydicom.dcmread(path) for path in sorted(source.glob("slice-*.dcm"))]
    for header in headers:
        for name in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyTime", "StudyDate"):
            setattr(header, name, "")
    return headers


def group(region: Any, name: str, uid: str, **more: Any) -> Any:
    tracking = hd.sr.TrackingIdentifier(uid=uid, identifier=name)
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking, referenced_region=region, **more
    )


def on_image(header: pydicom.Dataset, kind: str, pixels: list[tuple[float, float]]) -> Any:
    source = hd.sr.SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID)
    return hd.sr.ImageRegion(kind, np.array(pixels) + 0.5, source)


def keep_report(place: Workplace, folder: Path, groups: list[Any], headers: list[pydicom.Dataset], **more: Any) -> Path:
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(), procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=groups, title=codes.DCM.ImagingMeasurementReport,
    )  # fmt: skip
    facts: dict[str, Any] = {"manufacturer": "Acme", "manufacturer_model_name": "NoduleFinder 3", **more}
    document = hd.sr.Comprehensive3DSR(
        evidence=headers, content=report, series_instance_uid=hd.UID(), series_number=7, sop_instance_uid=hd.UID(),
        instance_number=1, software_versions="1", device_serial_number="1", **facts,
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / f"{document.SOPInstanceUID}.dcm"
    document.save_as(path)
    ingest(path, place.studies, origin="listener")
    return path


def world(index_zyx: tuple[float, float, float]) -> np.ndarray:
    return GRID.index_to_world(index_zyx)


def test_findings_of_another_program_become_proposals_once(place: Workplace, source: Path, tmp_path: Path) -> None:
    headers, study = headers_of(source), study_of(place)
    assert take_in_reports(place, study) == 0
    measured = [hd.sr.Measurement(codes.SCT.Diameter, 0.65, hd.sr.CodedConcept("cm", "UCUM", "cm"))]
    circle = on_image(headers[4], "CIRCLE", [(12.0, 20.0), (12.0, 24.0)])
    point = hd.sr.ImageRegion3D("POINT", world((6.2, 11.0, 30.0))[None], "1.2.9")
    groups = [
        group(circle, "on an image", "1.2.77.1", finding_type=codes.SCT.Nodule),
        group(point, "in space", "1.2.77.2", measurements=measured),
    ]
    keep_report(place, tmp_path / "sr", groups, headers)
    assert take_in_reports(place, study) == 2
    first, second = place.findings.of_study(study)
    for one in (first, second):
        assert (one.state, one.version, one.changed_by, one.analysis_id) == ("proposed", 1, "NoduleFinder 3", None)
        assert one.series_uid == headers[0].SeriesInstanceUID
        (change,) = place.findings.history(one.id)
        assert (change.what, change.by) == ("proposed", "NoduleFinder 3")
        told = {name: value for name, value in one.content.items() if name not in ("reported_uid", "note")}
        schema = report_schema()
        jsonschema.Draft202012Validator({"$defs": schema["$defs"], "$ref": "#/$defs/finding"}).validate(told)
    np.testing.assert_allclose(first.content["center_xyz_mm"], world((4, 20, 12)), atol=0.01)
    assert first.content["diameter_mm"] == pytest.approx(8 * np.sqrt(0.63), abs=0.01)
    assert (first.content["slice_index"], first.content["sop_instance_uid"]) == (4, headers[4].SOPInstanceUID)
    assert (first.content["note"], first.content["reported_uid"]) == ("Nodule, on an image", "1.2.77.1")
    np.testing.assert_allclose(second.content["center_xyz_mm"], world((6.2, 11, 30)), atol=0.01)
    assert second.content["diameter_mm"] == 6.5
    assert (second.content["slice_index"], second.content["sop_instance_uid"]) == (6, headers[6].SOPInstanceUID)
    place.findings.change(first.id, seen=1, by="ada", state="rejected")
    assert take_in_reports(place, study) == 0
    keep_report(place, tmp_path / "sr", [*groups[:1], group(circle, "new", "1.2.77.3")], headers)
    assert take_in_reports(place, study) == 1  # a later report tells of a known one again
    assert len(place.findings.of_study(study)) == 3
    assert [path for path in place.folder.iterdir() if path.name.startswith(".spicula")] == []


def test_two_at_once_take_each_finding_in_once(place: Workplace, source: Path, tmp_path: Path) -> None:
    headers, study = headers_of(source), study_of(place)
    point = hd.sr.ImageRegion3D("POINT", world((6, 11, 30))[None], "1.2.9")
    keep_report(place, tmp_path / "sr", [group(point, f"{n}", f"1.2.77.{n}") for n in range(1, 6)], headers)
    with warnings.catch_warnings(), ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("ignore")
        added = list(pool.map(lambda _: take_in_reports(place, study), range(4)))
    assert sum(added) == 5
    assert len({one.content["reported_uid"] for one in place.findings.of_study(study)}) == 5


def test_our_own_reports_are_not_taken_in(place: Workplace, source: Path, tmp_path: Path) -> None:
    study = study_of(place)
    (series,) = place.studies.series(study)
    volume = stored_volume(place, study, series["series_uid"])
    x, y, z = map(float, world((5, 16, 20)))
    write_sr(tmp_path / "sr.dcm", Analysis(volume, (Finding("1", (x, y, z), 6.0),)))
    ingest(tmp_path / "sr.dcm", place.studies, origin="dimse")
    assert take_in_reports(place, study) == 0
    place.findings.add(study_uid=study, series_uid=series["series_uid"], content={"center_xyz_mm": [x, y, z]}, by="ada")
    files = write_study_outputs(place, study, tmp_path / "out", volume=volume)
    ingest(files["sr.dcm"], place.studies, origin="dimse")
    assert take_in_reports(place, study) == 0


def test_what_has_no_place_here_is_left_out_and_said(place: Workplace, source: Path, tmp_path: Path) -> None:
    headers, study = headers_of(source), study_of(place)
    outside = hd.sr.ImageRegion3D("POINT", world((60, 11, 30))[None], "1.2.9")
    inside = hd.sr.ImageRegion3D("POINT", world((2, 11, 30))[None], "1.2.9")
    strange = headers_of(source)
    for number, header in enumerate(strange):
        header.SOPInstanceUID, header.SeriesInstanceUID = f"1.9.{number + 1}", "1.9.99"
    nameless: dict[str, Any] = {"manufacturer": None, "manufacturer_model_name": None}
    keep_report(place, tmp_path / "a", [group(outside, "a", "1.2.77.1"), group(inside, "b", "1.2.77.2")], headers)
    elsewhere = on_image(strange[2], "POINT", [(3.0, 4.0)])
    keep_report(place, tmp_path / "a", [group(elsewhere, "c", "1.2.77.3")], strange)
    far_frame = hd.sr.ImageRegion3D("POINT", world((2, 11, 30))[None], "1.9.9")
    keep_report(place, tmp_path / "a", [group(far_frame, "d", "1.2.77.4")], strange)
    broken = keep_report(place, tmp_path / "a", [group(inside, "e", "1.2.77.5")], headers, **nameless)
    with pytest.warns(SpiculaWarning) as caught:
        assert take_in_reports(place, study) == 2
    said = "\n".join(str(one.message) for one in caught)
    assert "finding 1.2.77.1 of a report by NoduleFinder 3 was left out: its center lies outside the volume" in said
    assert "finding 1.2.77.3 of a report by NoduleFinder 3 was left out: image 1.9.3: got nothing" in said
    assert "finding 1.2.77.4 of a report by NoduleFinder 3 was left out: its series: got 1.9.99" in said
    assert len(caught) == 3
    by = {one.content["reported_uid"]: one.changed_by for one in place.findings.of_study(study)}
    assert by == {"1.2.77.2": "NoduleFinder 3", "1.2.77.5": NAMELESS}
    uid = pydicom.dcmread(broken).SOPInstanceUID
    stored = place.studies.path(place.studies.instance(uid))
    stored.write_bytes(stored.read_bytes()[: stored.stat().st_size // 2])
    with pytest.warns(SpiculaWarning, match="was left out"):
        assert take_in_reports(place, study) == 0


def test_a_study_that_is_none_or_has_no_ct(tmp_path: Path, place: Workplace, source: Path) -> None:
    with pytest.raises(InputError, match="none of this UID"):
        take_in_reports(place, "1.2.99")
    point = hd.sr.ImageRegion3D("POINT", world((2, 11, 30))[None], "1.2.9")
    path = keep_report(place, tmp_path / "sr", [group(point, "a", "1.2.77.1")], headers_of(source))
    with open_workplace(tmp_path / "other") as other:
        ingest(path, other.studies, origin="upload")
        with pytest.raises(InputError, match="no CT series"):
            take_in_reports(other, study_of(place))
    shutil.rmtree(tmp_path / "other")
