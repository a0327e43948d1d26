"""NIfTI against nibabel and SimpleITK: every value at its place; what is odd is warned of, what is wrong refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.formats import nifti

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
ANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
turns = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
orders = st.permutations([0, 1, 2])
flips = st.tuples(*[st.sampled_from([-1, 1])] * 3)


def saved(tmp: Path, array: np.ndarray, affine: np.ndarray, kind: type = nibabel.Nifti1Image, **codes: int) -> Path:
    made = kind(array, affine)
    made.header.set_xyzt_units("mm")
    for name, value in codes.items():
        made.header[name] = value
    nibabel.save(made, tmp / "scan.nii.gz")
    return tmp / "scan.nii.gz"


def ct(shape: tuple[int, ...] = (5, 6, 7)) -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 1500, shape).astype(np.int16)


@ANY
@given(turns, orders, flips)
def test_values_lie_where_simpleitk_and_nibabel_put_them(tmp_path, image, agrees, agrees_with_itk, turn, order, flip):
    path = tmp_path / "itk.nii.gz"
    made = image(turn, order, flip)
    sitk.WriteImage(made, path)
    volume = nifti.read(path)
    assert volume.array_zyx.dtype == np.int16
    agrees_with_itk(volume, made)
    oracle = nibabel.load(path)
    agrees(volume, np.asanyarray(oracle.dataobj), LPS @ oracle.affine)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f8", "<i4", "<u2", "u1"])
def test_versions_types_and_byte_orders(tmp_path, agrees, kind, dtype):
    array = np.random.default_rng(1).integers(0, 200, (4, 5, 6)).astype(dtype)
    affine = np.array([[0, 0, 2.5, -10], [-0.7, 0, 0, 20], [0, 0.8, 0, 5], [0, 0, 0, 1]])
    made = kind(array, affine, dtype=np.dtype(dtype)) if dtype[0] != ">" else kind(array, affine)
    if dtype[0] == ">":
        made = kind(array, affine, header=made.header.as_byteswapped(">"))
        made.set_data_dtype(dtype)
    nibabel.save(made, tmp_path / "a.nii")
    volume = nifti.read(tmp_path / "a.nii")
    assert volume.array_zyx.dtype == np.int16
    agrees(volume, array, LPS @ affine)


def test_slope_and_intercept_are_applied(tmp_path):
    made = nibabel.Nifti1Image(ct() // 2, np.eye(4))
    made.header.set_slope_inter(2.0, -24.0)
    nibabel.save(made, tmp_path / "a.nii")
    # nibabel scales on saving; the numbers it gives back are the oracle
    oracle = np.asanyarray(nibabel.load(tmp_path / "a.nii").dataobj)
    np.testing.assert_array_equal(nifti.read(tmp_path / "a.nii").array_zyx, oracle.T)
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[112:120] = np.array([0.5, 3.0], "<f4").tobytes()
    (tmp_path / "b.nii").write_bytes(raw)
    volume = nifti.read(tmp_path / "b.nii")
    assert volume.array_zyx.dtype == np.float32
    np.testing.assert_allclose(volume.array_zyx.T, nibabel.load(tmp_path / "b.nii").get_fdata(), rtol=1e-6)


@pytest.mark.parametrize(("unit", "scale", "word"), [("meter", 1000.0, "metres"), ("micron", 0.001, "microns")])
def test_other_units_become_millimetres(tmp_path, unit, scale, word):
    affine = np.diag([0.7, 0.8, 2.5, 1.0]) / scale
    affine[:3, 3] = np.array([1.0, 2, 3]) / scale
    affine[3, 3] = 1
    made = nibabel.Nifti1Image(ct(), affine)
    made.header.set_xyzt_units(unit)
    nibabel.save(made, tmp_path / "a.nii")
    volume = nifti.read(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.geometry.spacing_zyx_mm, (2.5, 0.8, 0.7), rtol=1e-6)
    np.testing.assert_allclose(volume.geometry.origin_xyz_mm, (-1, -2, 3), rtol=1e-5)
    assert word in volume.warnings[0]


def test_disagreeing_forms_are_warned_of_and_the_sform_counts(tmp_path, agrees):
    affine = np.diag([-0.7, -0.7, 2.0, 1.0])
    made = nibabel.Nifti1Image(ct(), affine)
    made.set_qform(np.diag([0.7, -0.7, 2.0, 1.0]), code=1)
    nibabel.save(made, tmp_path / "a.nii")
    volume = nifti.read(tmp_path / "a.nii")
    assert "disagree" in volume.warnings[0]
    agrees(volume, ct(), LPS @ affine)


def test_agreeing_forms_and_a_lone_qform_are_silent(tmp_path, agrees):
    affine = np.diag([-0.7, -0.7, 2.0, 1.0])
    made = nibabel.Nifti1Image(ct(), affine)
    made.set_qform(affine, code=1)
    nibabel.save(made, tmp_path / "both.nii")
    made.set_sform(affine, code=0)
    nibabel.save(made, tmp_path / "qform.nii")
    for name in ("both.nii", "qform.nii"):
        volume = nifti.read(tmp_path / name)
        assert volume.warnings == ()
        agrees(volume, ct(), LPS @ affine)


def test_no_form_is_taken_as_itk_takes_it_with_a_warning(tmp_path, agrees_with_itk):
    path = saved(tmp_path, ct(), np.diag([0.7, 0.8, 2, 1]), qform_code=0, sform_code=0)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[252:256] = bytes(4)
    (tmp_path / "none.nii").write_bytes(raw)
    volume = nifti.read(tmp_path / "none.nii")
    assert "neither qform nor sform" in volume.warnings[0]
    agrees_with_itk(volume, sitk.ReadImage(tmp_path / "none.nii"))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_round_trip(tmp_path, name, dtype):
    affine = np.array([[0.1, 0.7, 0, -10.1], [0, 0, -0.8, 20.2], [2.5, 0, 0.1, -300.3], [0, 0, 0, 1]])
    array = (np.random.default_rng(0).integers(-1000, 900, (4, 5, 6)) * (1 if dtype is np.int16 else 0.37)).astype(
        dtype
    )
    volume = Volume(array, Geometry((4, 5, 6), affine))
    again = nifti.read(nifti.write(tmp_path / "deep" / name, volume))
    assert again.array_zyx.dtype == dtype
    np.testing.assert_array_equal(again.array_zyx, array)
    np.testing.assert_allclose(again.geometry.affine_lps, affine, atol=1e-4)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [name]


def test_other_endings_are_refused(tmp_path):
    volume = Volume(ct(), Geometry((5, 6, 7), np.eye(4)))
    with pytest.raises(InputError, match=r"ends in \.nii\.gz"):
        nifti.write(tmp_path / "a.img", volume)


def test_one_sample_of_time_is_dropped(tmp_path):
    path = saved(tmp_path, ct()[..., None], np.eye(4))
    assert nifti.read(path).array_zyx.shape == (7, 6, 5)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (ct((4, 4, 4, 2)), "4-D data"),
        (ct((4, 4, 4, 1, 3)), "5-D data"),
        (ct((4, 4)), "2-D data"),
        (ct((4, 4, 4)).astype(np.complex64), "complex64"),
        (np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "3 values a voxel"),
        (np.zeros((4, 0, 4), np.int16), "empty"),
    ],
)
def test_what_is_not_one_gray_volume_is_refused(tmp_path, array, words):
    path = saved(tmp_path, array, np.eye(4))
    with pytest.raises(InputError, match=words) as caught:
        nifti.read(path)
    assert str(path) in str(caught.value)


def test_nan_and_infinity_are_counted_and_placed(tmp_path):
    array = ct().astype(np.float32)
    array[1, 2, 3], array[2, 2, 3] = np.nan, np.inf
    path = saved(tmp_path, array, np.diag([-0.5, -0.5, 2, 1]))
    with pytest.raises(InputError, match=r"2 NaN or infinite voxels, the first at \(0\.5, 1\.0, 6\.0\) mm LPS"):
        nifti.read(path)


def test_a_pair_of_files_is_refused_with_a_hint(tmp_path):
    pair = nibabel.Nifti1Pair(ct(), np.eye(4))
    nibabel.save(pair, tmp_path / "a.img")
    with pytest.raises(InputError, match=r"convert a pair"):
        nifti.read(tmp_path / "a.hdr")


def test_an_absurd_shape_takes_no_memory(tmp_path):
    path = saved(tmp_path, ct(), np.eye(4))
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[42:48] = np.array([1000, 1000, 1000], "<i2").tobytes()
    (tmp_path / "lies.nii.gz").write_bytes(gzip.compress(bytes(raw)))
    with pytest.raises(InputError, match="cut short"):
        nifti.read(tmp_path / "lies.nii.gz")
    raw[42:48] = np.array([32767, 32767, 32767], "<i2").tobytes()
    (tmp_path / "lies.nii").write_bytes(raw)
    with pytest.raises(InputError, match="header looks damaged"):
        nifti.read(tmp_path / "lies.nii")


def test_a_look_gives_the_grid_without_the_pixels(tmp_path):
    from spicula.core.errors import InputError
    from spicula.core.geometry import Geometry
    from spicula.core.volume import Volume
    from spicula.formats import nifti

    grid = Geometry.from_axes((4, 5, 6), (2.0, 0.7, 0.7), origin_xyz_mm=(-5, 6, 7))
    volume = Volume(np.full((4, 5, 6), -800, dtype=np.int16), grid)
    for name in ("a.nii.gz", "a.nii"):
        path = nifti.write(tmp_path / name, volume)
        assert nifti.look(path) == nifti.read(path).geometry
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match="cut short"):
        nifti.look(path)
