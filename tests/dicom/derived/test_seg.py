"""The segmentation, read again and compared with the outlines in the patient's space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from spicula.core.analysis import Analysis
from spicula.core.errors import GeometryError, InputError, SpiculaWarning
from spicula.core.finding import Finding
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask
from spicula.dicom.seg import write_seg
from spicula.dicom.source import tracking_uid

Make = Callable[..., Analysis]
ORIENTATIONS = ["axial", "head first down", "prone", "coronal", "oblique", "tilted"]


def sorted_points(world: np.ndarray) -> np.ndarray:
    rounded = np.round(world, 2) + 0.0
    return rounded[np.lexsort(rounded.T)]


def voxels(finding: Finding) -> np.ndarray:
    assert finding.mask is not None
    return sorted_points(finding.mask.geometry.index_to_world(np.argwhere(finding.mask.array_zyx)))


def pixels(path: Path, segment: int) -> np.ndarray:
    """World places of a segment's pixels, from the frames' own positions, orientation and spacing."""
    ds = pydicom.dcmread(path)
    shared = ds.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, dtype=float)
    frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    found = []
    for frame, group in zip(frames, ds.PerFrameFunctionalGroupsSequence, strict=True):
        assert frame.any()  # only frames that are not empty
        if segment_of(ds, group) != segment:
            continue
        rows, columns = np.nonzero(frame)
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        found.append(
            position + rows[:, None] * spacing[0] * orientation[1] + columns[:, None] * spacing[1] * orientation[0]
        )
    return sorted_points(np.concatenate(found))


def segment_of(ds: pydicom.Dataset, group: pydicom.Dataset) -> int:
    holder = group if "SegmentIdentificationSequence" in group else ds.SharedFunctionalGroupsSequence[0]
    return int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


@pytest.mark.parametrize("enhanced", [False, True], ids=["single frames", "multi-frame"])
@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_segments_cover_the_outlines_in_space(
    make_analysis: Make, tmp_path: Path, direction: str, enhanced: bool
) -> None:
    analysis = make_analysis(direction, enhanced=enhanced, reverse=direction in ("prone", "oblique"))
    path = tmp_path / "seg.dcm"
    assert write_seg(path, analysis)
    for number, finding in enumerate(analysis.findings[:2], start=1):
        np.testing.assert_allclose(pixels(path, number), voxels(finding), atol=0.011)


@pytest.mark.parametrize("enhanced", [False, True], ids=["single frames", "multi-frame"])
def test_frames_refer_to_the_source_frames_they_lie_on(make_analysis: Make, tmp_path: Path, enhanced: bool) -> None:
    analysis = make_analysis("oblique", enhanced=enhanced)
    path = tmp_path / "seg.dcm"
    write_seg(path, analysis)
    by_name = {(i.sop_instance_uid, i.frame): n for n, i in enumerate(analysis.volume.acquisition.instances) if i}
    ds = pydicom.dcmread(path)
    for group in ds.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        index = by_name[(source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber"))]
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        np.testing.assert_allclose(position, analysis.volume.geometry.index_to_world([index, 0, 0]), atol=1e-3)
    (series,) = ds.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.2"
    assert ds.FrameOfReferenceUID == "1.2.3.4.5"


def test_segments_say_what_they_are(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis()
    path = tmp_path / "seg.dcm"
    write_seg(path, analysis)
    seg = hd.seg.segread(path)
    assert seg.segmentation_type == hd.seg.SegmentationTypeValues.BINARY
    assert seg.number_of_segments == 2  # the finding without an outline has none
    for number, finding in enumerate(analysis.findings[:2], start=1):
        description = seg.get_segment_description(number)
        assert description.segmented_property_type.value == "27925004"
        assert description.segmented_property_category.value == "49755003"
        assert description.tracking_uid == tracking_uid(analysis, finding)
        assert description.SegmentLabel == f"Nodule {finding.id}"
        assert description.SegmentAlgorithmType == "AUTOMATIC"
        assert "nodule-risk@0123456789abcdef" in description.to_json()
    assert str(seg.PatientName) == "Müller^Jörg"
    assert seg.SegmentsOverlap == "YES"  # the two findings share voxels, and both keep them


@pytest.mark.parametrize("enhanced", [False, True], ids=["single frames", "multi-frame"])
def test_an_external_validator_finds_no_error(
    make_analysis: Make, tmp_path: Path, validated: Callable[[Path], list[str]], enhanced: bool
) -> None:
    path = tmp_path / "seg.dcm"
    write_seg(path, make_analysis("oblique", enhanced=enhanced))
    assert validated(path) == []


def test_interpolated_slices_are_left_out_with_a_warning(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis()
    instances = list(analysis.volume.acquisition.instances)
    instances[4] = None
    acquisition = replace(analysis.volume.acquisition, instances=tuple(instances))
    analysis = replace(
        analysis, volume=replace(analysis.volume, acquisition=acquisition), findings=analysis.findings[:1]
    )
    path = tmp_path / "seg.dcm"
    with pytest.warns(SpiculaWarning, match=r"finding 1: its outline on interpolated slices \[4\]"):
        assert write_seg(path, analysis)
    index = analysis.volume.geometry.world_to_index(voxels(analysis.findings[0]))
    kept = voxels(analysis.findings[0])[np.abs(index[:, 0] - 4) > 0.5]
    np.testing.assert_allclose(pixels(path, 1), kept, atol=0.011)


def test_orientations_that_differ_by_rounding_and_frames_of_reference_that_differ(
    make_analysis: Make, tmp_path: Path
) -> None:
    analysis = make_analysis()
    for number, instance in enumerate(analysis.volume.acquisition.instances):
        ds = pydicom.dcmread(instance.path)
        ds.ImageOrientationPatient = [1.0, 1e-6 * number, 0.0, 0.0, 1.0, 0.0]
        ds.FrameOfReferenceUID = f"1.2.3.4.{number}"
        ds.save_as(instance.path)
    path = tmp_path / "seg.dcm"
    assert write_seg(path, analysis)
    np.testing.assert_allclose(pixels(path, 1), voxels(analysis.findings[0]), atol=0.011)


def test_nothing_to_write(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis()
    path = tmp_path / "seg.dcm"
    assert not write_seg(path, replace(analysis, findings=analysis.findings[2:]))
    assert not path.exists()


def test_refusals(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis()
    path = tmp_path / "seg.dcm"
    finding = analysis.findings[0]
    mask = finding.mask
    assert mask is not None
    finer = mask.geometry.affine_lps.copy()
    finer[:3, :3] *= 0.9
    off = Mask(mask.array_zyx, Geometry(mask.geometry.shape_zyx, finer))
    with pytest.raises(GeometryError, match="outline of finding 1"):
        write_seg(path, replace(analysis, findings=(replace(finding, mask=off),)))
    beyond = Mask(np.ones((2, 3, 3), dtype=bool), analysis.volume.geometry.crop((-1, 0, 0), (1, 3, 3)))
    with pytest.raises(GeometryError, match="outside the volume"):
        write_seg(path, replace(analysis, findings=(replace(finding, mask=beyond),)))
    turned = replace(analysis.volume.acquisition, instances=tuple(reversed(analysis.volume.acquisition.instances)))
    with pytest.raises(GeometryError, match="in another order"):
        write_seg(path, replace(analysis, volume=replace(analysis.volume, acquisition=turned)))
    first = analysis.volume.acquisition.instances[4]
    assert first is not None
    Path(first.path).write_bytes(b"not DICOM")
    with pytest.raises(InputError, match=r"4\.dcm"):
        write_seg(path, analysis)
    assert not path.exists()


def test_orientation_and_spacing_that_each_frame_has_for_itself(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis("oblique", enhanced=True)
    source = analysis.volume.acquisition.instances[0]
    assert source is not None
    ds = pydicom.dcmread(source.path)
    shared = ds.SharedFunctionalGroupsSequence[0]
    for group in ds.PerFrameFunctionalGroupsSequence:
        group.PlaneOrientationSequence = shared.PlaneOrientationSequence
        group.PixelMeasuresSequence = shared.PixelMeasuresSequence
    del shared.PlaneOrientationSequence, shared.PixelMeasuresSequence
    ds.save_as(source.path)
    path = tmp_path / "seg.dcm"
    assert write_seg(path, analysis)
    np.testing.assert_allclose(pixels(path, 1), voxels(analysis.findings[0]), atol=0.011)


def test_slice_positions_that_jitter(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis()
    for number, instance in enumerate(analysis.volume.acquisition.instances):
        ds = pydicom.dcmread(instance.path)
        ds.ImagePositionPatient[0] += 0.1 * (-1) ** number
        ds.save_as(instance.path)
    path = tmp_path / "seg.dcm"
    assert write_seg(path, analysis)
    np.testing.assert_allclose(len(pixels(path, 1)), len(voxels(analysis.findings[0])))
