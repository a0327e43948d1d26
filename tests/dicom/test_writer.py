"""The CT series that Spicula writes: read back by SimpleITK and pydicom, deterministic, lossless or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from spicula.core.errors import GeometryError, InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Acquisition, Volume
from spicula.dicom.reader import read_series
from spicula.dicom.series import find_series
from spicula.dicom.writer import write_series

COSINE, SINE = np.cos(0.3), np.sin(0.3)
OBLIQUE = np.array([[COSINE, -SINE, 0], [SINE, COSINE, 0], [0, 0, 1]])

REQUIRED = [
    "SOPClassUID",
    "SOPInstanceUID",
    "ImageType",
    "Modality",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelData",
]
MAY_BE_EMPTY = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "SeriesNumber",
    "InstanceNumber",
    "AcquisitionNumber",
    "KVP",
    "SliceThickness",
    "Manufacturer",
    "PatientPosition",
    "PositionReferenceIndicator",
]


def volume(array: np.ndarray | None = None, direction: np.ndarray | None = None) -> Volume:
    if array is None:
        array = np.random.default_rng(0).integers(-1024, 3071, (5, 6, 7)).astype(np.int16)
    grid = Geometry.from_axes(
        array.shape, (2.5, 0.7, 0.6269531), origin_xyz_mm=(-10.1, 1 / 3, -777.4999999), direction_xyz=direction
    )
    return Volume(array, grid)


def written(folder: Path, made: Volume, **options: object) -> list[Path]:
    return write_series(folder, made, patient_id="007", description="chest", **options)  # type: ignore[arg-type]


def read(folder: Path) -> Volume:
    (series,) = find_series(folder)
    return read_series(series)


def test_attributes_of_a_ct_image_are_there(tmp_path):
    paths = written(tmp_path / "a", volume(), kernel="B30f", slice_thickness_mm=3.0, study_date="20200131")
    assert [path.name for path in paths] == [f"slice-{n:04d}.dcm" for n in range(1, 6)]
    assert sorted(tmp_path.joinpath("a").iterdir()) == paths
    datasets = [pydicom.dcmread(path) for path in paths]
    for number, dataset in enumerate(datasets, start=1):
        for name in REQUIRED:
            assert dataset[name].value not in (None, "", [])
        for name in MAY_BE_EMPTY:
            assert name in dataset
        assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID == CTImageStorage
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
        assert dataset.InstanceNumber == number
        assert (dataset.SliceThickness, dataset.SpacingBetweenSlices) == (3.0, 2.5)
        assert [float(x) for x in dataset.PixelSpacing] == [0.7, 0.6269531]
        assert (dataset.ConvolutionKernel, dataset.StudyDate, dataset.PatientID) == ("B30f", "20200131", "007")
        assert not dataset["PixelData"].is_undefined_length
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == 5
    assert len({dataset.SeriesInstanceUID for dataset in datasets}) == 1


@pytest.mark.parametrize("direction", [np.eye(3), OBLIQUE, np.diag([-1.0, -1.0, 1.0]), np.eye(3)[[2, 0, 1]]])
def test_simpleitk_reads_the_same_values_at_the_same_places(tmp_path, direction):
    made = volume(direction=direction)
    paths = written(tmp_path, made)
    image = sitk.ReadImage([str(path) for path in paths])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), made.array_zyx)
    np.testing.assert_allclose(image.GetOrigin(), made.geometry.origin_xyz_mm, atol=1e-6)
    np.testing.assert_allclose(image.GetSpacing()[::-1], made.geometry.spacing_zyx_mm, atol=1e-6)
    np.testing.assert_allclose(np.reshape(image.GetDirection(), (3, 3)), direction, atol=1e-6)


@pytest.mark.parametrize("direction", [np.eye(3), OBLIQUE, np.diag([1.0, 1.0, -1.0]), np.eye(3)[[1, 0, 2]]])
def test_our_reader_gives_it_back(tmp_path, direction):
    made = volume(direction=direction)
    written(tmp_path, made)
    again = read(tmp_path)
    forward = np.linalg.det(direction) > 0
    np.testing.assert_array_equal(again.array_zyx, made.array_zyx if forward else made.array_zyx[::-1])
    first = made.geometry.index_to_world((0 if forward else 4, 0, 0))
    np.testing.assert_allclose(again.geometry.origin_xyz_mm, first, atol=1e-6)


@pytest.mark.parametrize(
    "array",
    [
        np.linspace(-1000, 400, 60).round().reshape(3, 4, 5),
        np.linspace(-1000, 400, 60).round().reshape(3, 4, 5) / 4,
        np.linspace(-1000, 400, 60).round().reshape(3, 4, 5) / 10,
        np.linspace(-1000, 60000, 60).round().reshape(3, 4, 5),
    ],
)
def test_floats_that_fit_are_exact(tmp_path, array):
    written(tmp_path, volume(array.astype(np.float32)))
    np.testing.assert_array_equal(read(tmp_path).array_zyx.astype(np.float32), array.astype(np.float32))


def test_floats_that_do_not_fit_are_refused_or_rounded_by_what_is_said(tmp_path):
    array = np.random.default_rng(0).normal(-500, 400, (3, 4, 5)).astype(np.float32)
    with pytest.raises(InputError, match=r"rounds them, by up to 0\.0\d+ HU"):
        written(tmp_path, volume(array))
    assert list(tmp_path.iterdir()) == []
    written(tmp_path, volume(array), allow_rounding=True)
    assert 0 < np.abs(read(tmp_path).array_zyx - array).max() < 0.03
    with pytest.raises(InputError, match="clip them first"):
        written(tmp_path / "b", volume(array * 1e6), allow_rounding=True)
    array[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        written(tmp_path / "b", volume(array))


def test_the_same_call_writes_the_same_bytes_and_a_seed_changes_the_identifiers(tmp_path):
    one, two = written(tmp_path / "a", volume()), written(tmp_path / "b", volume())
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    other = written(tmp_path / "c", volume(), seed="1")
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
        values = {pydicom.dcmread(paths[0])[name].value for paths in (one, other)}
        assert len(values) == 2
        assert all(pydicom.uid.UID(value).is_valid for value in values)


def test_study_and_frame_are_kept_and_the_series_is_new(tmp_path):
    known = volume()
    grid = Geometry(known.geometry.shape_zyx, known.geometry.affine_lps, "1.2.3")
    facts = Acquisition(study_uid="1.2.4", manufacturer="ACME", study_date="20010101")
    dataset = pydicom.dcmread(written(tmp_path, Volume(known.array_zyx, grid, "1.2.5", facts))[0])
    assert (dataset.FrameOfReferenceUID, dataset.StudyInstanceUID) == ("1.2.3", "1.2.4")
    assert (dataset.Manufacturer, dataset.StudyDate) == ("ACME", "20010101")
    assert dataset.SeriesInstanceUID != "1.2.5"


def test_a_sheared_volume_is_refused(tmp_path):
    affine = volume().geometry.affine_lps.copy()
    affine[1, 0] = 0.5
    with pytest.raises(GeometryError, match="not perpendicular"):
        written(tmp_path / "a", Volume(volume().array_zyx, Geometry((5, 6, 7), affine)))
    assert not (tmp_path / "a").exists()


def test_slices_of_a_longer_series_are_not_mixed_in(tmp_path):
    written(tmp_path, volume())
    shorter = Volume(volume().array_zyx[:3], volume().geometry.crop((0, 0, 0), (3, 6, 7)))
    with pytest.raises(InputError, match=r"2 slices of a longer series, the first slice-0004\.dcm"):
        written(tmp_path, shorter)
    assert len(list(tmp_path.iterdir())) == 5
