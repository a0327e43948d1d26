"""Volumes from DICOM: places, HU, gaps, tilt, multi-frame objects, broken files."""

from __future__ import annotations

import contextlib
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spicula.core.errors import GeometryError, InputError
from spicula.core.volume import Volume
from spicula.dicom.archive import open_dataset
from spicula.dicom.reader import read_series
from spicula.dicom.series import find_series, select_series

ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "axial turned": (0, -1, 0, 1, 0, 0),
    "feet first": (-1, 0, 0, 0, 1, 0),
    "prone": (-1, 0, 0, 0, -1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": tuple(Rotation.from_euler("zyx", [12, -20, 33], degrees=True).as_matrix().T[:2].ravel()),
}


def read(path: Path, **policies: Any) -> Volume:
    return read_series(select_series(find_series(path)), **policies)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_voxel_lies_where_its_header_says(ct: Any, tmp_path: Path, name: str) -> None:
    layout, stored = ct.Layout(orientation=ORIENTATIONS[name]), ct.stored()
    ct.write(tmp_path, stored, layout=layout)
    volume = read(tmp_path)
    row, col = np.array(layout.orientation[:3]), np.array(layout.orientation[3:])
    for z in range(len(stored)):
        y, x = 3, 7
        place = np.array(layout.position(z)) + y * 0.7 * col + x * 0.6 * row
        index = volume.geometry.world_to_index(place)
        np.testing.assert_allclose(index, (z, y, x), atol=1e-4)
        assert volume.array_zyx[tuple(np.rint(index).astype(int))] == int(stored[z, y, x]) - 1024


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_simpleitk_reads_the_same_volume(ct: Any, tmp_path: Path, name: str) -> None:
    ct.write(tmp_path, layout=ct.Layout(orientation=ORIENTATIONS[name], step_mm=1.25))
    volume = read(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.array_zyx)
    np.testing.assert_allclose(image.GetSpacing(), volume.geometry.spacing_zyx_mm[::-1], atol=1e-5)
    np.testing.assert_allclose(image.GetOrigin(), volume.geometry.origin_xyz_mm, atol=1e-5)
    np.testing.assert_allclose(np.reshape(image.GetDirection(), (3, 3)), volume.geometry.direction_xyz, atol=1e-5)


def test_facts_and_instances_follow_the_array(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path)
    volume = read(tmp_path)
    acquisition = volume.acquisition
    assert volume.array_zyx.dtype == np.int16
    assert (volume.series_uid, volume.geometry.frame_of_reference_uid) == ("1.2.3.4", "1.2.9")
    assert (acquisition.patient_id, acquisition.study_uid, acquisition.study_date) == ("P1", "1.2.3", "20200102")
    assert (acquisition.kernel, acquisition.manufacturer, acquisition.modality) == ("B31f", "ACME", "CT")
    assert acquisition.slice_thickness_mm == 2.5
    assert acquisition.source == str(tmp_path)
    assert volume.warnings == ()
    for z, instance in enumerate(acquisition.instances):
        assert instance is not None
        dataset = open_dataset(instance.path, pixels=True)
        assert dataset.SOPInstanceUID == instance.sop_instance_uid
        np.testing.assert_array_equal(dataset.pixel_array - 1024, volume.array_zyx[z])


def test_slope_and_intercept_are_each_slice_s_own(ct: Any, tmp_path: Path) -> None:
    def change(dataset: Any, index: int) -> None:
        dataset.RescaleIntercept, dataset.RescaleSlope = -1000 - index, 1 + index % 2

    stored = ct.stored()
    ct.write(tmp_path, stored, change=change)
    index = np.arange(len(stored))[:, None, None]
    np.testing.assert_array_equal(read(tmp_path).array_zyx, stored.astype(int) * (1 + index % 2) - 1000 - index)


def test_fractional_slope_gives_float(ct: Any, tmp_path: Path) -> None:
    stored = ct.stored()
    ct.write(tmp_path, stored, change=lambda dataset, index: setattr(dataset, "RescaleSlope", "1.0002441"))
    volume = read(tmp_path)
    assert volume.array_zyx.dtype == np.float32
    np.testing.assert_allclose(volume.array_zyx, stored * 1.0002441 - 1024, atol=1e-3)


def test_hu_beyond_int16_gives_float(ct: Any, tmp_path: Path) -> None:
    stored = ct.stored().astype(np.uint16)
    stored[2, 3, 4] = 60000
    ct.write(tmp_path, stored)
    volume = read(tmp_path)
    assert volume.array_zyx.dtype == np.float32
    assert volume.array_zyx[2, 3, 4] == 60000 - 1024
    np.testing.assert_array_equal(volume.array_zyx, stored.astype(np.float32) - 1024)


@pytest.mark.parametrize("written_as", ["SS", "US"])
def test_padding_becomes_air(ct: Any, tmp_path: Path, written_as: str) -> None:
    def change(dataset: Any, index: int) -> None:
        dataset.add_new(0x00280120, written_as, -2000 if written_as == "SS" else 63536)

    stored = ct.stored()
    stored[:, :2] = -2000
    ct.write(tmp_path, stored, change=change)
    volume = read(tmp_path)
    assert (volume.array_zyx[:, :2] == -1024).all()
    np.testing.assert_array_equal(volume.array_zyx[:, 2:], stored[:, 2:] - 1024)
    assert any("Pixel Padding Value (0028,0120)" in text for text in volume.warnings)


def test_padding_range_becomes_air(ct: Any, tmp_path: Path) -> None:
    def change(dataset: Any, index: int) -> None:
        dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = -2000, -1990

    stored = ct.stored()
    stored[:, 0], stored[:, 1] = -2000, -1995
    ct.write(tmp_path, stored, change=change)
    assert (read(tmp_path).array_zyx[:, :2] == -1024).all()


def test_padding_value_that_tissue_has_is_left_alone(ct: Any, tmp_path: Path) -> None:
    stored = ct.stored()
    stored[:, 0] = 1024
    ct.write(tmp_path, stored, change=lambda dataset, index: setattr(dataset, "PixelPaddingValue", 1024))
    assert (read(tmp_path).array_zyx[:, 0] == 0).all()


@pytest.mark.parametrize("kind", ["u", "i"])
def test_bits_beyond_bits_stored_are_no_pixel(ct: Any, tmp_path: Path, kind: str) -> None:
    def change(dataset: Any, index: int) -> None:
        dataset.BitsStored, dataset.HighBit = 12, 11

    stored = ct.stored() % 2000
    with_overlay = stored.astype(np.uint16) | 0x4000
    ct.write(tmp_path, with_overlay.astype(np.uint16 if kind == "u" else np.int16), change=change)
    np.testing.assert_array_equal(read(tmp_path).array_zyx, stored - 1024)


# --- gaps ---------------------------------------------------------------------------------------------------------


def test_missing_slice_is_named(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path, places=[0, 1, 2, 4, 5, 6])
    with pytest.raises(GeometryError, match=r"1 missing slice position at 56\.00 mm.*Hint: --gaps warn"):
        read(tmp_path)


def test_missing_slice_is_filled(ct: Any, tmp_path: Path) -> None:
    stored = ct.stored()
    ct.write(tmp_path, stored, places=[0, 1, 2, 4, 5, 6])
    volume = read(tmp_path, gaps="interpolate")
    assert volume.geometry.shape_zyx[0] == 7
    assert [instance is None for instance in volume.acquisition.instances] == [z == 3 for z in range(7)]
    between = np.rint((stored[2].astype(float) + stored[3]) / 2) - 1024
    np.testing.assert_allclose(volume.array_zyx[3], between, atol=1)
    np.testing.assert_array_equal(np.delete(volume.array_zyx, 3, axis=0), stored - 1024)
    assert "1 missing slice position at 56.00 mm" in volume.warnings[0]
    nearest = read(tmp_path, gaps="warn")
    assert (nearest.array_zyx[3] == nearest.array_zyx[2]).all() or (nearest.array_zyx[3] == nearest.array_zyx[4]).all()
    assert nearest.acquisition.instances[3] is None


def test_duplicate_position_is_named_and_dropped(ct: Any, tmp_path: Path) -> None:
    stored = ct.stored()
    ct.write(tmp_path, stored, places=[0, 1, 2, 2, 3, 4])
    with pytest.raises(GeometryError, match=r"1 duplicate slice position at 54\.00 mm"):
        read(tmp_path)
    for policy in ("warn", "interpolate"):
        volume = read(tmp_path, gaps=policy)
        assert volume.geometry.shape_zyx[0] == 5
        np.testing.assert_array_equal(volume.array_zyx[[0, 1, 3, 4]], stored[[0, 1, 4, 5]] - 1024)
        assert "duplicate" in volume.warnings[0]


def test_copies_of_a_file_are_no_duplicates(ct: Any, tmp_path: Path) -> None:
    paths = ct.write(tmp_path)
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "again").write_bytes(paths[2].read_bytes())
    volume = read(tmp_path)
    assert volume.geometry.shape_zyx[0] == 6
    assert "1 file(s) that are copies" in volume.warnings[0]


def test_irregular_position_is_named_and_snapped(ct: Any, tmp_path: Path) -> None:
    stored = ct.stored()
    ct.write(tmp_path, stored, places=[0, 1, 2.3, 3, 4, 5])
    with pytest.raises(GeometryError, match=r"1 irregular slice position at 54\.60 mm"):
        read(tmp_path)
    volume = read(tmp_path, gaps="warn")
    np.testing.assert_array_equal(volume.array_zyx, stored - 1024)
    assert None not in volume.acquisition.instances
    smooth = read(tmp_path, gaps="interpolate")
    assert smooth.acquisition.instances[2] is None
    expected = stored[1] + (stored[2].astype(float) - stored[1]) / 1.3 - 1024
    np.testing.assert_allclose(smooth.array_zyx[2], expected, atol=1)


def test_rounded_positions_add_up_to_no_error(ct: Any, tmp_path: Path) -> None:
    places = [round(0.625 * z, 1) for z in range(41)]
    ct.write(tmp_path, ct.stored((41, 4, 4)), layout=ct.Layout(step_mm=1.0), places=places)
    geometry = read(tmp_path).geometry
    assert geometry.spacing_zyx_mm[0] == pytest.approx(0.625)
    assert geometry.index_to_world((40, 0, 0))[2] == pytest.approx(75.0)


def test_mostly_missing_is_refused_under_every_policy(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path, places=[0, 1, 2, 3, 4, 400])
    for policy in ("error", "warn", "interpolate"):
        with pytest.raises(GeometryError, match="missing slice positions"):
            read(tmp_path, gaps=policy)


# --- tilt ---------------------------------------------------------------------------------------------------------


def test_tilt_is_refused_with_its_angle(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path, layout=ct.Layout(shear=np.tan(np.radians(12))))
    with pytest.raises(GeometryError, match=r"sheared by 12\.0 degrees.*Hint: --tilt resample"):
        read(tmp_path)


def test_kept_tilt_has_a_sheared_affine(ct: Any, tmp_path: Path) -> None:
    layout, stored = ct.Layout(shear=0.2), ct.stored()
    ct.write(tmp_path, stored, layout=layout)
    volume = read(tmp_path, tilt="keep")
    assert volume.geometry.is_sheared
    np.testing.assert_array_equal(volume.array_zyx, stored - 1024)
    np.testing.assert_allclose(volume.geometry.index_to_world((5, 0, 0)), layout.position(5), atol=1e-5)
    assert "kept as a sheared grid" in volume.warnings[0]


@pytest.mark.parametrize("name", ["axial", "prone", "oblique"])
def test_resampled_tilt_shows_the_same_body_upright(ct: Any, tmp_path: Path, name: str) -> None:
    layout = ct.Layout(orientation=ORIENTATIONS[name], shear=0.25, spacing_yx_mm=(1.0, 1.0))
    row, col = np.array(layout.orientation[:3]), np.array(layout.orientation[3:])
    rows, cols = np.meshgrid(np.arange(20), np.arange(18), indexing="ij")
    weights = np.array([1.5, -2.0, 3.0])

    def body(world: Any) -> Any:
        return 1500 + (np.asarray(world) - layout.origin_xyz_mm) @ weights

    stored = np.stack(
        [body(np.array(layout.position(z)) + rows[..., None] * col + cols[..., None] * row) for z in range(12)]
    )
    ct.write(tmp_path, np.rint(stored).astype(np.int16), layout=layout)
    volume = read(tmp_path, tilt="resample")
    assert not volume.geometry.is_sheared
    assert set(volume.acquisition.instances) == {None}
    indices = np.argwhere(volume.array_zyx > -1024)
    inside = read(tmp_path, tilt="keep").geometry
    world = volume.geometry.index_to_world(indices)
    within = inside.world_to_index(world)
    deep = ((within > 0.01) & (within < np.array(inside.shape_zyx) - 1.01)).all(axis=1)
    assert deep.sum() > 2000
    found = volume.array_zyx[tuple(indices[deep].T)]
    np.testing.assert_allclose(found, body(world[deep]) - 1024, atol=1.6)


def test_tilt_tag_without_tilt_is_refused_or_said(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path, change=lambda dataset, index: setattr(dataset, "GantryDetectorTilt", "-15"))
    with pytest.raises(GeometryError, match=r"Gantry/Detector Tilt \(0018,1120\) is -15\.0 degrees"):
        read(tmp_path)
    for policy in ("keep", "resample"):
        volume = read(tmp_path, tilt=policy)
        assert "the positions were trusted" in volume.warnings[0]
        assert not volume.geometry.is_sheared


# --- multi-frame --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["axial", "oblique"])
def test_enhanced_ct_is_the_same_volume(ct: Any, tmp_path: Path, name: str) -> None:
    layout, stored = ct.Layout(orientation=ORIENTATIONS[name]), ct.stored()
    shuffled = [3, 0, 5, 1, 4, 2]
    ct.save(ct.enhanced(stored[shuffled], layout, places=shuffled), tmp_path / "multi")
    ct.write(tmp_path / "single", stored, layout=layout)
    volume, single = read(tmp_path / "multi"), read(tmp_path / "single")
    np.testing.assert_allclose(volume.geometry.affine_lps, single.geometry.affine_lps, atol=1e-6)
    frames = [instance.frame for instance in volume.acquisition.instances if instance]
    assert frames == [shuffled.index(z) + 1 for z in range(6)]
    own = np.array([(frame - 1) % 2 for frame in frames])[:, None, None]
    np.testing.assert_array_equal(volume.array_zyx, single.array_zyx - own)
    assert (volume.acquisition.kernel, volume.acquisition.slice_thickness_mm) == ("B31f", 2.5)


def test_enhanced_ct_with_a_frame_missing_its_group_is_refused(ct: Any, tmp_path: Path) -> None:
    dataset = ct.enhanced(ct.stored(), ct.Layout())
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    ct.save(dataset, tmp_path / "multi")
    with pytest.raises(InputError, match=r"multi: Per-Frame Functional Groups.*got 5, expected 6"):
        read(tmp_path)


# --- broken files -------------------------------------------------------------------------------------------------


def test_truncated_pixels_name_the_file(ct: Any, tmp_path: Path) -> None:
    path = ct.write(tmp_path)[2]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=rf"{path.name}: not a readable DICOM file.*Hint"):
        read(tmp_path)


@pytest.mark.parametrize("at_the_end", [False, True])
def test_file_with_a_broken_header_counts_as_a_missing_slice(ct: Any, tmp_path: Path, at_the_end: bool) -> None:
    path = ct.write(tmp_path)[5 if at_the_end else 2]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=rf"1 file\(s\) that may belong to it cannot be used: .*{path.name}"):
        read(tmp_path)
    volume = read(tmp_path, gaps="warn")
    assert volume.geometry.shape_zyx[0] == (5 if at_the_end else 6)
    assert path.name in volume.warnings[0]


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("ImagePositionPatient", r"Image Position \(Patient\) \(0020,0032\): got nothing"),
        ("ImageOrientationPatient", r"Image Orientation \(Patient\) \(0020,0037\): got nothing"),
        ("PixelSpacing", r"Pixel Spacing \(0028,0030\): got nothing"),
        ("RescaleSlope", r"Rescale Slope \(0028,1053\): got nothing, expected 1 number \(and so 5 more"),
        ("Rows", "Rows: got nothing"),
    ],
)
def test_missing_tags_are_named_with_the_file(ct: Any, tmp_path: Path, keyword: str, message: str) -> None:
    ct.write(tmp_path, change=lambda dataset, index: delattr(dataset, keyword))
    with pytest.raises(InputError, match=rf"IM000\d: {message}"):
        read(tmp_path)


def test_other_units_than_hu_are_refused(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path, change=lambda dataset, index: setattr(dataset, "RescaleType", "Z_EFF"))
    with pytest.raises(InputError, match=r"Rescale Type \(0028,1054\): got Z_EFF, expected HU"):
        read(tmp_path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(data=st.data())
def test_no_flipped_bit_or_cut_brings_another_error(ct: Any, tmp_path: Path, data: st.DataObject) -> None:
    """A flip in uncompressed pixels changes a value and cannot be seen; anywhere else it is harmless or refused."""
    paths = ct.write(tmp_path, ct.stored((3, 4, 4)))
    content = bytearray(paths[1].read_bytes())
    if data.draw(st.booleans(), label="cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1), label="length")]
    for _ in range(data.draw(st.integers(0, 3), label="flips")):
        if content:
            bit = data.draw(st.integers(0, 8 * len(content) - 1), label="bit")
            content[bit // 8] ^= 1 << bit % 8
    paths[1].write_bytes(bytes(content))
    with contextlib.suppress(InputError):
        volume = read(tmp_path, gaps=data.draw(st.sampled_from(["error", "warn", "interpolate"])))
        assert volume.array_zyx.size < 10_000


def test_rounded_orientation_gives_an_upright_grid(ct: Any, tmp_path: Path) -> None:
    exact = ORIENTATIONS["oblique"]
    ct.write(tmp_path, layout=ct.Layout(orientation=tuple(np.round(exact, 3))))
    geometry = read(tmp_path).geometry
    np.testing.assert_allclose(geometry.spacing_zyx_mm, (2.0, 0.7, 0.6), atol=5e-3)
    axes = geometry.direction_xyz
    assert abs(axes[:, 0] @ axes[:, 1]) < 1e-9


@pytest.mark.shared
def test_slices_of_many_scanners_agree_with_simpleitk(tcga: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(tcga.rglob("*.dcm"))[::4]):
        folder = tmp_path / str(number)
        folder.mkdir()
        expected = sitk.GetArrayFromImage(sitk.ReadImage(path))[0]
        dataset = pydicom.dcmread(path)
        shutil.copy(path, folder / "one")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{number}"
        dataset.ImagePositionPatient = [*dataset.ImagePositionPatient[:2], float(dataset.ImagePositionPatient[2]) + 5]
        dataset.save_as(folder / "two")
        array = read(folder).array_zyx
        padding = (expected < -1024) & (array == -1024)
        np.testing.assert_allclose(array, np.where(padding[0], -1024, np.stack([expected] * 2)), atol=1e-3)


@pytest.mark.shared
def test_real_scan_agrees_with_simpleitk(shared: Path, tmp_path: Path) -> None:
    with tarfile.open(shared / "scans" / "LungFCP-01-0001.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    volume = read(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(next(tmp_path.glob("Lung*")))))
    image = reader.Execute()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.array_zyx)
    np.testing.assert_allclose(image.GetSpacing(), volume.geometry.spacing_zyx_mm[::-1])
    np.testing.assert_allclose(image.GetOrigin(), volume.geometry.origin_xyz_mm)
