"""Structured reports read back: our own, those that highdicom makes, plain measurements, CAD, and broken ones."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes

from spicula.core.analysis import Analysis
from spicula.core.errors import InputError
from spicula.core.finding import Finding, Size
from spicula.core.volume import Mask, Volume
from spicula.dicom.header import Slice
from spicula.dicom.reader import read_series
from spicula.dicom.series import find_series
from spicula.dicom.sr import write_sr
from spicula.dicom.sr_reading import ImagePlace, ReportedFinding, in_space, is_own_sr, read_sr
from spicula.dicom.sr_tree import DEEPEST

CHEST_CAD = "1.2.840.10008.5.1.4.1.1.88.65"


def unit_axes() -> tuple[float, ...]:
    row = np.array([0.9, 0.3, 0.2])
    row /= np.linalg.norm(row)
    column = np.cross(np.array([0.1, -0.2, 1.0]), row)
    return (*row, *(column / np.linalg.norm(column)))


@pytest.fixture
def series(ct: Any, tmp_path: Path) -> Path:
    """Six oblique slices of 9 x 11 pixels."""
    ct.write(tmp_path / "ct", layout=ct.Layout(orientation=unit_axes()))
    return tmp_path / "ct"


def volume_of(series: Path) -> Volume:
    return read_series(find_series(series)[0])


def slices_of(series: Path) -> tuple[Slice, ...]:
    return find_series(series)[0].slices


def evidence_of(series: Path) -> list[Dataset]:
    """Headers in the order of the volume's slices, fit for highdicom."""
    headers = []
    for instance in find_series(series)[0].instances:
        header = pydicom.dcmread(instance.path)
        for name in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyTime"):
            setattr(header, name, "")
        headers.append(header)
    return headers


def analysis_of(series: Path) -> Analysis:
    """An outlined finding and one that is only a place."""
    volume = volume_of(series)
    grid = volume.geometry
    inside = np.zeros((3, 4, 4), dtype=bool)
    inside[:, 1:3, 1:4] = True
    mask = Mask(inside, grid.crop((1, 2, 3), (4, 6, 7)))
    center = tuple(map(float, grid.index_to_world((2, 3.5, 5))))
    ends = tuple(tuple(map(float, grid.index_to_world((2, 3.5, x)))) for x in (4, 6))
    size = Size(8.4, 6.4, ends, ends, mask.volume_mm3, -12.0)  # type: ignore[arg-type]
    place = tuple(map(float, grid.index_to_world((4.3, 7.2, 1.9))))
    findings = (
        Finding("1", center, size.mean_diameter_mm, 0.9, mask=mask, size=size),  # type: ignore[arg-type]
        Finding("2", place, 5.5, 0.3),  # type: ignore[arg-type]
        Finding("3", place),  # type: ignore[arg-type]
    )
    return Analysis(volume, findings)


def test_our_own_report_comes_back(series: Path, tmp_path: Path) -> None:
    analysis = analysis_of(series)
    path = tmp_path / "sr.dcm"
    write_sr(path, analysis)
    found = read_sr(path)
    assert len(found) == 3
    assert is_own_sr(path)
    assert len({one.uid for one in found}) == 3
    for finding, one in zip(analysis.findings, found, strict=True):
        np.testing.assert_allclose(one.center_xyz_mm, finding.center_xyz_mm, atol=0.01)  # type: ignore[arg-type]
        assert one.frame_of_reference_uid == "1.2.9"
        assert one.series_uid == analysis.volume.series_uid
        assert one.made_by == "Spicula"
        assert one.label == f"Nodule, Lung, Nodule {finding.id}"
        assert one.diameter_mm == (
            None if finding.diameter_mm is None else pytest.approx(finding.diameter_mm, abs=0.01)
        )
        assert one.image_place is not None
        on_image, width = in_space(one.image_place, slices_of(series))
        away = np.linalg.norm(np.array(on_image) - finding.center_xyz_mm)
        assert away <= (0.01 if finding.mask is not None else 0.61)  # the nearest slice's
        if finding.id == "2":
            assert width == pytest.approx(5.5, rel=0.1)  # pixels are not square here
    assert found[0].volume_mm3 == pytest.approx(analysis.findings[0].size.volume_mm3, abs=0.01)  # type: ignore[union-attr]
    write_sr(path, replace(analysis, findings=()))
    assert read_sr(path) == ()


def region(header: Dataset, kind: str, pixels: Sequence[Sequence[float]]) -> hd.sr.ImageRegion:
    """A drawing by (column, row) of pixel centers."""
    source = hd.sr.SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID)
    return hd.sr.ImageRegion(kind, np.array(pixels, dtype=float) + 0.5, source)


def written(report: hd.sr.MeasurementReport, headers: list[Dataset], path: Path) -> Path:
    document = hd.sr.Comprehensive3DSR(
        evidence=headers, content=report, series_instance_uid=hd.UID(), series_number=7, sop_instance_uid=hd.UID(),
        instance_number=1, manufacturer="Acme", manufacturer_model_name="NoduleFinder", software_versions="1",
        device_serial_number="1",
    )  # fmt: skip
    document.save_as(path)
    return path


def report_of(groups: list[Any], *, device: str | None = None, person: str | None = None) -> hd.sr.MeasurementReport:
    contexts: dict[str, Any] = {}
    if device is not None:
        contexts["observer_device_context"] = hd.sr.ObserverContext(
            codes.DCM.Device, hd.sr.DeviceObserverIdentifyingAttributes(uid=hd.UID(), name=device)
        )
    if person is not None:
        contexts["observer_person_context"] = hd.sr.ObserverContext(
            codes.DCM.Person, hd.sr.PersonObserverIdentifyingAttributes(name=person)
        )
    return hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(**contexts), procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=groups, title=codes.DCM.ImagingMeasurementReport,
    )  # fmt: skip


UNITS = {"mm": ("mm", 1.0), "cm": ("cm", 0.1), "m": ("m", 0.001)}

SQUARE = [(2, 2), (6, 2), (6, 6), (2, 6), (2, 2)]
LONG_LINE = [(1, 1), (8, 1), (8, 2), (1, 2), (1, 1), (1, 1)]


@pytest.mark.filterwarnings("ignore:.*unlikely to represent the intended person name.*")
@pytest.mark.parametrize("unit", list(UNITS))
@pytest.mark.parametrize(
    ("kind", "pixels", "middle", "width"),
    [
        ("POINT", [(4, 5)], (4, 5), None),
        ("CIRCLE", [(4, 5), (4, 8)], (4, 5), 6.0),
        ("ELLIPSE", [(1, 4), (9, 4), (5, 2), (5, 6)], (5, 4), 6.0),
        ("POLYLINE", SQUARE, (4, 4), 2 * 4 / math.sqrt(math.pi)),
        ("POLYLINE", LONG_LINE, (4.5, 1.5), 2 * math.sqrt(7 / math.pi)),
        ("POLYLINE", [(2, 2), (5, 6)], (3.5, 4), 5.0),
    ],
)
def test_drawings_on_images_as_highdicom_writes_them(
    series: Path,
    tmp_path: Path,
    unit: str,
    kind: str,
    pixels: list[Any],
    middle: tuple[float, float],
    width: float | None,
) -> None:
    headers = evidence_of(series)
    ucum, factor = UNITS[unit]
    uid = hd.UID()
    measure = {
        "measurements": [
            hd.sr.Measurement(codes.SCT.LongAxis, 9.0 * factor, hd.sr.CodedConcept(ucum, "UCUM", ucum)),
            hd.sr.Measurement(codes.SCT.ShortAxis, 5.0 * factor, hd.sr.CodedConcept(ucum, "UCUM", ucum)),
            hd.sr.Measurement(codes.SCT.Volume, 0.25, hd.sr.CodedConcept("mL", "UCUM", "mL")),
        ]
    }
    for told in ({}, measure):
        group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(uid=uid, identifier="Target 1"),
            referenced_region=region(headers[2], kind, pixels), finding_type=codes.SCT.Nodule, **told,
        )  # fmt: skip
        path = written(report_of([group], person="Doe^Jane"), headers, tmp_path / "sr.dcm")
        assert not is_own_sr(path)
        (found,) = read_sr(path)
        assert found.uid == uid
        assert (found.label, found.made_by, found.observer) == ("Nodule, Target 1", "NoduleFinder", "Doe^Jane")
        assert found.center_xyz_mm is None
        assert found.series_uid == headers[0].SeriesInstanceUID
        place = found.image_place
        assert place is not None
        assert place.sop_instance_uid == headers[2].SOPInstanceUID
        assert (place.column, place.row) == pytest.approx(middle, abs=1e-4)
        assert place.diameter_pixels == (None if width is None else pytest.approx(width, abs=1e-4))
        assert found.diameter_mm == (pytest.approx(7.0) if told else None)
        assert found.volume_mm3 == (pytest.approx(250.0) if told else None)
        transform = hd.spatial.ImageToReferenceTransformer.for_image(headers[2])
        expected = transform(np.array([middle], dtype=float) + 0.5)[0]
        np.testing.assert_allclose(in_space(place, slices_of(series))[0], expected, atol=0.01)


def test_drawings_in_space_as_highdicom_writes_them(series: Path, tmp_path: Path) -> None:
    headers = evidence_of(series)
    center = np.array([-97.0, -88.0, 55.0])
    ellipsoid = np.array([center + s * r * np.eye(3)[axis] for axis, r in enumerate((6, 5, 4)) for s in (-1, 1)])
    square = center + np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0), (-1, -1, 0)])
    source = hd.sr.SourceSeriesForSegmentation(headers[0].SeriesInstanceUID)
    surface = hd.sr.VolumeSurface("ELLIPSOID", ellipsoid, frame_of_reference_uid="1.2.9", source_series=source)
    groups = [
        hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(), identifier="a"),
            referenced_volume_surface=surface, algorithm_id=hd.sr.AlgorithmIdentification("Finder", "2"),
        ),
        hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(), identifier="b"),
            referenced_region=hd.sr.ImageRegion3D("POLYGON", square, "1.2.9"),
            measurements=[
                hd.sr.Measurement(codes.SCT.Diameter, 30.0, codes.UCUM.Millimeter),
                hd.sr.Measurement(codes.SCT.Diameter, 2.5, hd.sr.CodedConcept("cm", "UCUM", "cm"),
                                  derivation=codes.SCT.Mean),
            ],
        ),
        hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(), identifier="c"),
            referenced_region=hd.sr.ImageRegion3D("POINT", center[None], "1.2.9"),
            measurements=[hd.sr.Measurement(codes.SCT.Diameter, 3.0, codes.UCUM.NoUnits)],
        ),
        hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(), identifier="nowhere"),
            source_images=[hd.sr.SourceImageForMeasurementGroup(headers[0].SOPClassUID, headers[0].SOPInstanceUID)],
        ),
    ]  # fmt: skip
    found = read_sr(written(report_of(groups, device="Box"), headers, tmp_path / "sr.dcm"))
    assert [one.label for one in found] == ["a", "b", "c"]
    for one in found:
        np.testing.assert_allclose(one.center_xyz_mm, center, atol=1e-4)  # type: ignore[arg-type]
        assert (one.frame_of_reference_uid, one.image_place) == ("1.2.9", None)
        assert one.series_uid == headers[0].SeriesInstanceUID
    assert [one.made_by for one in found] == ["Finder", "Box", "Box"]
    assert found[0].diameter_mm == pytest.approx(10.0)
    assert found[1].diameter_mm == 25.0  # the mean one
    assert found[2].diameter_mm is None  # without a unit it is no length


def code(value: str, meaning: str = "x", scheme: str = "DCM") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def item(kind: str, name: Dataset | None, *children: Dataset, relation: str = "CONTAINS", **values: Any) -> Dataset:
    made = Dataset()
    made.RelationshipType = relation
    if kind:
        made.ValueType = kind
    if name is not None:
        made.ConceptNameCodeSequence = [name]
    for keyword, value in values.items():
        setattr(made, keyword, value)
    if children:
        made.ContentSequence = list(children)
    return made


def number(name: Dataset, value: float, unit: str, *children: Dataset) -> Dataset:
    measured = Dataset()
    measured.NumericValue = value
    measured.MeasurementUnitsCodeSequence = [code(unit, unit, "UCUM")]
    return item("NUM", name, *children, MeasuredValueSequence=[measured])


def image(uid: str, **values: Any) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
    return item("IMAGE", None, relation="SELECTED FROM", ReferencedSOPSequence=[reference], **values)


def drawn(kind: str, data: list[float], *children: Dataset, name: Dataset | None = None) -> Dataset:
    return item("SCOORD", name, *children, relation="INFERRED FROM", GraphicType=kind, GraphicData=data)


def document(
    path: Path, *children: Dataset, sop_class: str = CHEST_CAD, change: Callable[[Dataset], None] | None = None
) -> Path:
    made = item("CONTAINER", code("112000", "Chest CAD Report"), *children)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = sop_class
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "1.2.77"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.Modality = "1.2.3", "1.2.3.9", "SR"
    made.Manufacturer, made.ManufacturerModelName = "Acme", "LungCAD"
    study, series = Dataset(), Dataset()
    series.SeriesInstanceUID = "1.2.3.4"
    series.ReferencedSOPSequence = [reference("1.2.3.4.1"), reference("1.2.3.4.2")]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = "1.2.3", [series]
    made.CurrentRequestedProcedureEvidenceSequence = [study]
    if change is not None:
        change(made)
    made.save_as(path, enforce_file_format=True)
    return path


def reference(uid: str) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
    return made


def by_reference(*place: int, relation: str = "SELECTED FROM") -> Dataset:
    return item("", None, relation=relation, ReferencedContentItemIdentifier=list(place))


def test_plain_measurements_and_points(tmp_path: Path) -> None:
    length = number(code("G-D7FE", "Length", "SRT"), 1.2, "cm", drawn("POLYLINE", [2, 3, 8, 3], image("1.2.3.4.1")))
    odd = number(code("17", "Nodule size", "99ACME"), 7, "mm", drawn("POLYLINE", [2, 3, 8, 3], image("1.2.3.4.2")))
    lesion = item("CODE", code("121071", "Finding"), drawn("POINT", [4.5, 6.5], image("1.2.3.4.1")),
                  ConceptCodeSequence=[code("27925004", "Nodule", "SCT")])  # fmt: skip
    bare = drawn("POINT", [1.5, 1.5], image("1.2.3.4.1"), name=code("121071", "Finding"))
    section = item("CONTAINER", code("121070", "Findings"), length, odd, lesion, bare)
    path = document(tmp_path / "sr.dcm", section, sop_class="1.2.840.10008.5.1.4.1.1.88.22")
    found = read_sr(path)
    places = [one.image_place for one in found]
    assert places == [
        ImagePlace("1.2.3.4.1", 4.5, 2.5, None, 6.0), ImagePlace("1.2.3.4.2", 4.5, 2.5, None, 6.0),
        ImagePlace("1.2.3.4.1", 4.0, 6.0), ImagePlace("1.2.3.4.1", 1.0, 1.0),
    ]  # fmt: skip
    assert [one.diameter_mm for one in found] == [pytest.approx(12.0), 7.0, None, None]
    assert [one.label for one in found] == ["Length", "Nodule size", "Nodule", "Finding"]
    assert {one.made_by for one in found} == {"LungCAD"}
    assert {one.series_uid for one in found} == {"1.2.3.4"}
    assert [one.uid for one in found] == [f"1.2.77#1.1.{n}" for n in (1, 2, 3, 4)]


def cad_finding(uid: str, *more: Dataset, name: str = "111059", relation: str = "INFERRED FROM") -> Dataset:
    return item(
        "CODE", code(name, "Single Image Finding"),
        item("CODE", code("111056", "Rendering Intent"), ConceptCodeSequence=[code("111150", "Presentation Required")]),
        item("UIDREF", code("112040"), UID=uid), *more,
        ConceptCodeSequence=[code("M-03010", "Nodule", "SRT")], relation=relation,
    )  # fmt: skip


def test_a_chest_cad_report(tmp_path: Path) -> None:
    library = item("CONTAINER", code("111028", "Image Library"), image("1.2.3.4.1"), image("1.9.9.1"))
    center = drawn("POINT", [10.5, 20.5], by_reference(1, 1, 1), name=code("111010", "Center"))
    outline = drawn("POLYLINE", [8.5, 18.5, 12.5, 18.5, 12.5, 22.5, 8.5, 22.5, 8.5, 18.5], by_reference(1, 1, 1),
                    name=code("111041", "Outline"))  # fmt: skip
    single = cad_finding(
        "1.2.88.1", center, outline, item("TEXT", code("111001", "Algorithm Name"), TextValue="LungCAD nodules"),
        number(code("M-02550", "Diameter", "SRT"), 4.2, "mm"),
    )  # fmt: skip
    hidden = cad_finding("1.2.88.2", drawn("POINT", [1.5, 1.5], by_reference(1, 1, 1)))
    hidden.ContentSequence[0].ConceptCodeSequence = [code("111152", "Not for Presentation")]
    # two images of one nodule, the larger drawing on one of an earlier study
    prior = cad_finding("1.2.88.4", drawn("CIRCLE", [5.5, 5.5, 5.5, 15.5], by_reference(1, 1, 2)))
    now = cad_finding("1.2.88.5", drawn("CIRCLE", [6.5, 7.5, 6.5, 9.5], by_reference(1, 1, 1)))
    both = cad_finding("1.2.88.3", prior, now, name="111015")
    by_name = cad_finding("1.2.88.6", by_reference(1, 2, 1, 3, relation="INFERRED FROM"), name="111015")
    summary = item("CODE", code("111017", "CAD Processing and Findings Summary"), single, hidden, both, by_name,
                   ConceptCodeSequence=[code("111242", "with findings")])  # fmt: skip
    found = read_sr(document(tmp_path / "cad.dcm", library, summary))
    assert [one.uid for one in found] == ["1.2.88.1", "1.2.88.3", "1.2.88.6"]
    assert found[0].image_place == ImagePlace("1.2.3.4.1", 10.0, 20.0, None, pytest.approx(2 * 4 / math.sqrt(math.pi)))
    assert (found[0].diameter_mm, found[0].made_by, found[0].label) == (4.2, "LungCAD nodules", "Nodule")
    assert found[1].image_place == ImagePlace("1.2.3.4.1", 6.0, 7.0, None, 4.0)
    assert found[2].image_place is not None
    assert found[2].image_place.sop_instance_uid == "1.2.3.4.1"


def test_two_parts_on_one_nodule_are_joined(tmp_path: Path) -> None:
    tracked = item("UIDREF", code("112040"), UID="1.2.88.1")
    first = item("CONTAINER", code("125007"), tracked, drawn("POINT", [1.5, 1.5], image("1.2.3.4.1")))
    second = item("CONTAINER", code("125007"), tracked, drawn("POINT", [2.5, 2.5], image("1.2.3.4.2")),
                  number(code("81827009", "Diameter", "SCT"), 6000, "um"))  # fmt: skip
    (found,) = read_sr(document(tmp_path / "sr.dcm", first, second))
    assert found.diameter_mm == pytest.approx(6.0)
    assert found.image_place == ImagePlace("1.2.3.4.1", 1.0, 1.0)


def test_frames_of_an_enhanced_image(ct: Any, tmp_path: Path) -> None:
    enhanced = ct.enhanced(ct.stored(), ct.Layout())
    path = ct.save(enhanced, tmp_path / "ct" / "enhanced.dcm")
    (series,) = find_series(path.parent)
    uid = str(enhanced.SOPInstanceUID)
    center, width = in_space(ImagePlace(uid, 3.0, 2.0, 4, 10.0), series.slices)
    assert center == pytest.approx((-100.0 + 3 * 0.6, -90.0 + 2 * 0.7, 50.0 + 3 * 2.0))
    assert width == pytest.approx(10 * math.sqrt(0.42))
    with pytest.raises(InputError, match="several frames"):
        in_space(ImagePlace(uid, 3.0, 2.0), series.slices)
    with pytest.raises(InputError, match="no frame 99"):
        in_space(ImagePlace(uid, 3.0, 2.0, 99), series.slices)
    with pytest.raises(InputError, match="got nothing"):
        in_space(ImagePlace("1.2", 3.0, 2.0), series.slices)


def nested(levels: int) -> Dataset:
    inner = drawn("POINT", [1, 1], image("1.2.3.4.1"))
    for _ in range(levels):
        inner = item("CONTAINER", code("1"), inner)
    return inner


def element(group: int, number: int, vr: str, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def endless(levels: int, *, undefined_length: bool) -> bytes:
    """A report of so many containers in one another, byte by byte: pydicom writes no such ones."""
    name, body = element(0x40, 0xA040, "CS", b"CONTAINER"), element(0x40, 0xA040, "CS", b"TEXT")
    sequence, one = struct.pack("<HH2sH", 0x40, 0xA730, b"SQ", 0), struct.pack("<HH", 0xFFFE, 0xE000)
    if undefined_length:
        before = name + sequence + struct.pack("<I", 2**32 - 1) + one + struct.pack("<I", 2**32 - 1)
        after = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
        body = before * levels + body + after * levels
    else:
        for _ in range(levels):
            body = name + sequence + struct.pack("<I", len(body) + 8) + one + struct.pack("<I", len(body)) + body
    header = element(8, 0x16, "UI", b"1.2.840.10008.5.1.4.1.1.88.33\0") + element(8, 0x60, "CS", b"SR")
    return bytes(128) + b"DICM" + element(2, 0x10, "UI", b"1.2.840.10008.1.2.1\0") + header + body


def test_trees_without_end_are_refused(tmp_path: Path) -> None:
    assert len(read_sr(document(tmp_path / "a.dcm", nested(DEEPEST - 4)))) == 1
    with pytest.raises(InputError, match=f"a.dcm: content of the report: got more than {DEEPEST} levels"):
        read_sr(document(tmp_path / "a.dcm", nested(DEEPEST)))
    for undefined_length in (False, True):
        (tmp_path / "b.dcm").write_bytes(endless(5000, undefined_length=undefined_length))
        with pytest.raises(InputError, match=r"b\.dcm"):
            read_sr(tmp_path / "b.dcm")
    circle = item("CONTAINER", code("125007"), by_reference(1), by_reference(1, 1), by_reference(9, 9),
                  drawn("POINT", [1, 1], by_reference(1, 1, 4)))  # fmt: skip
    assert read_sr(document(tmp_path / "c.dcm", circle)) == ()  # the drawing's image is itself


@pytest.mark.parametrize(
    ("kind", "data"),
    [("CIRCLE", [1, 2]), ("POINT", [1]), ("ELLIPSE", [1, 2, 3, 4, 5, 6]), ("POLYLINE", [math.nan] * 4), ("POINT", []),
     ("POINT", [1e30, 0])],
)  # fmt: skip
def test_drawings_that_are_none_are_refused(tmp_path: Path, kind: str, data: list[float]) -> None:
    path = document(tmp_path / "a.dcm", drawn(kind, data, image("1.2.3.4.1")))
    with pytest.raises(InputError, match=f"a.dcm: Graphic Data .* of a {kind}"):
        read_sr(path)


def test_what_is_no_report_is_refused(series: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a structured report \(SR\)"):
        read_sr(next(series.iterdir()))
    (tmp_path / "text").write_text("no DICOM at all" * 50)
    with pytest.raises(InputError, match="not DICOM"):
        is_own_sr(tmp_path / "text")
    with pytest.raises(InputError):
        read_sr(tmp_path / "nothing")


def test_reports_that_pydicom_ships(tmp_path: Path) -> None:
    from pydicom.data import get_testdata_file

    for name in ("test-SR.dcm", "reportsi.dcm"):
        assert isinstance(read_sr(get_testdata_file(name, download=False)), tuple)


VALUES: list[Any] = [
    None,
    "",
    "x",
    "CONTAINER",
    "NUM",
    "SCOORD",
    "SCOORD3D",
    "1.2.3",
    -1,
    0,
    1e300,
    b"\xff\x00",
    [],
    [1, 2, 3],
]


def elements(dataset: Dataset) -> list[tuple[Dataset, Any]]:
    """Every element of the whole tree, with what holds it."""
    found = []
    for element in dataset:
        found.append((dataset, element.tag))
        if element.VR == "SQ":
            for child in element.value:
                found += elements(child)
    return found


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_reports_give_findings_or_one_error(tmp_path: Path, data: st.DataObject) -> None:
    library = item("CONTAINER", code("111028"), image("1.2.3.4.1"))
    center = drawn("POINT", [10.5, 20.5], by_reference(1, 1, 1), name=code("111010", "Center"))
    space = item(
        "SCOORD3D", code("111010"), GraphicType="POINT", GraphicData=[1, 2, 3], ReferencedFrameOfReferenceUID="1.2.9"
    )
    size = number(code("81827009", "Diameter", "SCT"), 6, "mm", drawn("CIRCLE", [1, 1, 2, 2], image("1.2.3.4.2")))
    group = item("CONTAINER", code("125007"), item("UIDREF", code("112040"), UID="1.2.8"), center, space, size)

    def change(made: Dataset) -> None:
        for _ in range(data.draw(st.integers(1, 4))):
            places = [place for place in elements(made) if place[1].group > 8 or place[1].element > 0x18]
            holder, tag = data.draw(st.sampled_from(places))
            if data.draw(st.booleans()):
                del holder[tag]
            else:
                vr = data.draw(st.sampled_from([holder[tag].VR, "LO", "UN", "SQ"]))
                value = data.draw(st.sampled_from(VALUES)) if vr != "SQ" else [Dataset()]
                value = b"\x01\x02\x03" if vr == "UN" else value
                try:
                    holder[tag] = pydicom.DataElement(tag, vr, value, validation_mode=pydicom.config.IGNORE)
                except Exception:  # a value that not even pydicom takes
                    continue

    path = tmp_path / "fuzzed.dcm"
    try:
        document(path, library, group, change=change)
    except Exception:  # not even pydicom can write it
        return
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(132, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.sampled_from([len(damaged), len(damaged) * 2 // 3]))])
    try:
        found = read_sr(path)
        is_own_sr(path)
    except InputError:
        return
    for one in found:
        assert isinstance(one, ReportedFinding)
        assert one.center_xyz_mm is not None or one.image_place is not None
        numbers = [*(one.center_xyz_mm or ()), one.diameter_mm or 1.0, one.volume_mm3 or 1.0]
        assert all(map(math.isfinite, numbers))
