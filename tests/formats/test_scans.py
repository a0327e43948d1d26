"""One scan through every format, and which scans a path holds."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk

from spicula.core.errors import GeometryError, InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.dicom.writer import write_series
from spicula.formats import find_scans, read_volume, write_nifti, write_nrrd

GRIDS = {
    "axial": ((0, 1, 2), (1, 1, 1), (1.0, 0.0, 0.0, 0.0)),
    "flipped": ((0, 1, 2), (-1, -1, 1), (1.0, 0.0, 0.0, 0.0)),
    "coronal": ((0, 2, 1), (1, -1, 1), (1.0, 0.0, 0.0, 0.0)),
    "oblique": ((0, 1, 2), (1, 1, 1), (0.99, 0.02, -0.05, 0.1)),
    "left-handed": ((1, 0, 2), (1, 1, 1), (0.9, 0.2, 0.1, 0.0)),
    "oblique sagittal": ((1, 2, 0), (1, -1, -1), (0.99, 0.1, -0.05, 0.1)),
}


def as_volume(image: sitk.Image) -> Volume:
    grid = Geometry.from_axes(
        image.GetSize()[::-1], image.GetSpacing()[::-1],
        origin_xyz_mm=image.GetOrigin(), direction_xyz=np.reshape(image.GetDirection(), (3, 3)),
    )  # fmt: skip
    return Volume(sitk.GetArrayFromImage(image).astype(np.int16), grid)


def chest(shape: tuple[int, int, int] = (6, 20, 20), seed: int = 0) -> Volume:
    array = np.random.default_rng(seed).integers(-1000, 200, shape).astype(np.int16)
    return Volume(array, Geometry.from_axes(shape, (2.5, 0.7, 0.7), origin_xyz_mm=(-10, -20, -300)))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    "kind", ["a.nii", "a.nii.gz", "a.nrrd", "a.nhdr", "a.mha", "a.mhd", "dicom", "own.nrrd", "own.nii"]
)
def test_the_same_scan_through_every_format_is_the_same_volume(tmp_path, image, agrees_with_itk, grid, kind):
    axes, signs, turn = GRIDS[grid]
    made = image(turn, axes, signs)
    path = tmp_path / kind
    if kind == "dicom":
        write_series(path, as_volume(made), patient_id="P", description="chest")
    elif kind == "own.nrrd":
        write_nrrd(path, as_volume(made))
    elif kind == "own.nii":
        write_nifti(path, as_volume(made))
    else:
        sitk.WriteImage(made, path)
    volume = read_volume(path)
    assert volume.array_zyx.dtype == np.int16
    assert not volume.warnings
    agrees_with_itk(volume, made)


def test_file_scans_are_named_after_stem_and_place(tmp_path):
    for folder in ("a", "b"):
        write_nifti(tmp_path / folder / "scan 1.nii.gz", chest())
    first, second = find_scans(tmp_path)
    assert first.scan_id != second.scan_id
    assert [scan.scan_id[:-8] for scan in (first, second)] == ["scan_1-", "scan_1-"]
    assert find_scans(tmp_path / "a")[0].scan_id == first.scan_id
    assert first.series is None
    assert find_scans(tmp_path / "a" / "scan 1.nii.gz") == [first]


def test_a_folder_gives_its_best_series_and_each_file(tmp_path):
    thin = write_series(tmp_path / "x", chest((12, 20, 20)), patient_id="P", description="thin")
    write_series(tmp_path / "y", chest((3, 20, 20)), patient_id="P", description="few")
    write_nrrd(tmp_path / "z" / "other.nrrd", chest())
    sitk.WriteImage(sitk.GetImageFromArray(chest().array_zyx), tmp_path / "z" / "third.mhd")
    best, *files = find_scans(tmp_path)
    assert best.series is not None
    assert best.scan_id == best.series.series_uid
    assert best.series.description == "thin"
    assert best.reasons
    assert [scan.path.name for scan in files] == ["other.nrrd", "third.mhd"]
    every = find_scans(tmp_path, all_series=True)
    assert [scan.series.description for scan in every if scan.series] == ["thin", "few"]
    assert every[0].load().array_zyx.shape == (12, 20, 20)
    few = every[1].scan_id
    assert read_volume(tmp_path, series_uid=few).series_uid == few
    assert read_volume(thin[0].parent).series_uid == best.scan_id
    with pytest.raises(InputError, match="one scan: got 3"):
        read_volume(tmp_path)
    with pytest.raises(InputError, match=r"series 1\.2\.3 is not there"):
        read_volume(tmp_path, series_uid="1.2.3")


def test_dicom_that_cannot_be_used_does_not_hide_a_file_and_is_told(tmp_path):
    for path in write_series(tmp_path / "x", chest(), patient_id="P", description="a")[1:]:
        path.unlink()
    write_nrrd(tmp_path / "a.nrrd", chest())
    (scan,) = find_scans(tmp_path)
    assert scan.path.name == "a.nrrd"
    assert "a single slice" in scan.reasons[1]


def test_groups_of_one_series_have_their_own_ids(tmp_path):
    import pydicom

    for index, shape in enumerate([(5, 20, 20), (4, 16, 16)]):
        for path in write_series(tmp_path / str(index), chest(shape), patient_id="P", description="a"):
            dataset = pydicom.dcmread(path)
            dataset.SeriesInstanceUID = "1.2.3.4"
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
            dataset.save_as(path)
    assert [scan.scan_id for scan in find_scans(tmp_path, all_series=True)] == ["1.2.3.4", "1.2.3.4-2"]


def test_a_zip_of_dicom_and_one_file(tmp_path):
    paths = write_series(tmp_path / "in", chest(), patient_id="P", description="a")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in paths:
            archive.write(path, f"deep/{path.stem}")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.zip").array_zyx, chest().array_zyx)
    with pytest.raises(InputError, match="a single slice"):
        read_volume(paths[0])


@pytest.mark.parametrize("kind", ["nii", "nii.gz", "nrrd", "mha"])
def test_files_are_known_by_how_they_start(tmp_path, kind):
    sitk.WriteImage(sitk.GetImageFromArray(chest().array_zyx), tmp_path / f"a.{kind}")
    shutil.move(tmp_path / f"a.{kind}", tmp_path / "scan")
    np.testing.assert_array_equal(read_volume(tmp_path / "scan").array_zyx, chest().array_zyx)


@pytest.mark.parametrize("name", ["a.png", "a.txt", "a"])
def test_what_is_no_image_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    with pytest.raises(InputError, match="not an image that Spicula reads"):
        read_volume(tmp_path / name)


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        find_scans(tmp_path / "absent")
    with pytest.raises(InputError):
        find_scans(tmp_path)


def test_implausible_values_are_refused_in_every_format(tmp_path):
    dark = Volume((chest().array_zyx.clip(-1000, 0) // 8 + 200).astype(np.int16), chest().geometry)
    write_series(tmp_path / "dicom", dark, patient_id="P", description="a")
    for path in (tmp_path / "dicom", write_nrrd(tmp_path / "a.nrrd", dark), write_nifti(tmp_path / "a.nii", dark)):
        with pytest.raises(InputError, match="implausible") as caught:
            read_volume(path)
        assert str(path) in str(caught.value)


def test_tilt_is_refused_resampled_or_kept_as_for_dicom(tmp_path):
    affine = chest().geometry.affine_lps.copy()
    affine[1, 0] = 0.6
    path = write_nrrd(tmp_path / "a.nrrd", Volume(chest().array_zyx, Geometry((6, 20, 20), affine)))
    with pytest.raises(GeometryError, match=r"a\.nrrd: got axes that are not perpendicular"):
        read_volume(path)
    kept = read_volume(path, tilt="keep")
    assert kept.geometry.is_sheared
    assert "not perpendicular" in kept.warnings[0]
    straight = read_volume(path, tilt="resample")
    assert not straight.geometry.is_sheared
    assert "resampled" in straight.warnings[0]


@pytest.mark.sample
def test_the_sample_is_the_same_from_nrrd_and_from_dicom(sample_ct):
    for scan in sample_ct:
        one, other = read_volume(scan.nrrd), read_volume(scan.dicom)
        np.testing.assert_array_equal(one.array_zyx, other.array_zyx)
        np.testing.assert_allclose(one.geometry.affine_lps, other.geometry.affine_lps, atol=1e-9)
        oracle = sitk.ReadImage(scan.nrrd)
        np.testing.assert_array_equal(one.array_zyx, sitk.GetArrayFromImage(oracle))
        np.testing.assert_allclose(one.geometry.origin_xyz_mm, oracle.GetOrigin())
