"""MetaImage against SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.formats import metaimage

ANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
turns = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
orders = st.permutations([0, 1, 2])
flips = st.tuples(*[st.sampled_from([-1, 1])] * 3)
HEADER = (
    "ObjectType = Image\nNDims = 3\nDimSize = 3 4 5\nElementSpacing = 0.5 0.5 2\nOffset = 1 2 3\n"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\nElementType = MET_SHORT\n"
)


def ct() -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 1500, (5, 4, 3)).astype("<i2")


def put(path: Path, header: str, data: bytes = b"") -> Path:
    path.write_bytes(header.encode() + data)
    return path


@ANY
@given(turns, orders, flips, st.sampled_from([".mha", ".mhd"]), st.booleans())
def test_values_lie_where_simpleitk_puts_them(tmp_path, image, agrees_with_itk, turn, order, flip, ending, compressed):
    made = image(turn, order, flip)
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(made, path, useCompression=compressed)
    volume = metaimage.read(path)
    assert volume.array_zyx.dtype == np.int16
    assert volume.warnings == ()
    agrees_with_itk(volume, made)


@pytest.mark.parametrize("dtype", ["i1", "u1", "u2", "i4", "u4", "i8", "f4", "f8"])
def test_types(tmp_path, agrees_with_itk, dtype):
    made = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 120, (5, 4, 3)).astype(dtype))
    sitk.WriteImage(made, tmp_path / "a.mha")
    agrees_with_itk(metaimage.read(tmp_path / "a.mha"), made)


def test_most_significant_byte_first(tmp_path):
    header = HEADER + "BinaryDataByteOrderMSB = True\nElementDataFile = LOCAL\n"
    path = put(tmp_path / "a.mha", header, ct().astype(">i2").tobytes())
    np.testing.assert_array_equal(metaimage.read(path).array_zyx, ct())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(path)), ct())


def test_slope_offset_and_units(tmp_path):
    header = (
        HEADER + "DistanceUnits = cm\nElementToIntensityFunctionSlope = 2\nElementToIntensityFunctionOffset = -24\n"
        "ElementDataFile = LOCAL\n"
    )
    volume = metaimage.read(put(tmp_path / "a.mha", header, ct().tobytes()))
    np.testing.assert_array_equal(volume.array_zyx, ct() * 2 - 24)
    assert volume.geometry.spacing_zyx_mm == (20, 5, 5)


def test_header_of_the_data_file_is_passed_over(tmp_path):
    (tmp_path / "a.raw").write_bytes(b"1234567" + ct().tobytes())
    for size in (7, -1):
        path = put(tmp_path / "a.mhd", HEADER + f"HeaderSize = {size}\nElementDataFile = a.raw\n")
        np.testing.assert_array_equal(metaimage.read(path).array_zyx, ct())


def test_one_file_for_each_slice(tmp_path):
    for index, part in enumerate(ct()):
        (tmp_path / f"s{index + 1:02d}.raw").write_bytes(part.tobytes())
    names = "".join(f"s{n:02d}.raw\n" for n in range(1, 6))
    for ending in (f"ElementDataFile = LIST\n{names}", "ElementDataFile = s%02d.raw 1 5 1\n"):
        path = put(tmp_path / "a.mhd", HEADER + ending)
        np.testing.assert_array_equal(metaimage.read(path).array_zyx, ct())
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(path)), ct())


def test_missing_place_is_warned_of(tmp_path):
    header = HEADER.replace("Offset = 1 2 3\n", "").replace("TransformMatrix = 1 0 0 0 1 0 0 0 1\n", "")
    volume = metaimage.read(put(tmp_path / "a.mha", header + "ElementDataFile = LOCAL\n", ct().tobytes()))
    assert ["Offset" in volume.warnings[0], "TransformMatrix" in volume.warnings[1]] == [True, True]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (HEADER, "ends with ElementDataFile"),
        ("no equals sign\n", "not a MetaImage file"),
        (HEADER.replace("DimSize = 3 4 5\n", "") + "ElementDataFile = LOCAL\n", "lacks 'DimSize'"),
        (HEADER.replace("3 4 5", "3 4") + "ElementDataFile = LOCAL\n", "DimSize has 2 numbers"),
        (HEADER.replace("3 4 5", "3 4 -5") + "ElementDataFile = LOCAL\n", "empty"),
        (HEADER.replace("3 4 5", "3 4 99999999999") + "ElementDataFile = LOCAL\n", "at most"),
        (HEADER.replace("MET_SHORT", "MET_BIT") + "ElementDataFile = LOCAL\n", "ElementType"),
        (HEADER + "ElementNumberOfChannels = 3\nElementDataFile = LOCAL\n", "3 values a voxel"),
        (HEADER.replace("ElementSpacing = 0.5 0.5 2\n", "") + "ElementDataFile = LOCAL\n", "no ElementSpacing"),
        (HEADER.replace("0.5 0.5 2", "0.5 x 2") + "ElementDataFile = LOCAL\n", "cannot be read"),
        (HEADER.replace("0.5 0.5 2", "0 0 INF") + "ElementDataFile = LOCAL\n", "ElementSpacing: got 0.0 0.0 inf"),
        (HEADER.replace("1 2 3", "1 nan 3") + "ElementDataFile = LOCAL\n", "Offset: got 1.0 nan 3.0"),
        (HEADER.replace("1 0 0 0 1", "1 0 0 0 1e400") + "ElementDataFile = LOCAL\n", "TransformMatrix: got .* finite"),
        (HEADER + "DistanceUnits = inch\nElementDataFile = LOCAL\n", "DistanceUnits"),
        (HEADER + "BinaryData = False\nElementDataFile = LOCAL\n", "binary data"),
        (HEADER + "ElementDataFile = LOCAL\n", "cut short"),
        (HEADER + "CompressedData = True\nElementDataFile = LOCAL\n", "cut short"),
        (HEADER + "ElementDataFile = ../a.raw\n", "a file in the folder of the header"),
        (HEADER + "ElementDataFile = absent.raw\n", "is missing"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, header, words):
    path = put(tmp_path / "a.mha", header)
    with pytest.raises(InputError, match=words) as caught:
        metaimage.read(path)
    assert str(path) in str(caught.value)


def test_four_dimensions_are_refused(tmp_path):
    header = (
        "ObjectType = Image\nNDims = 4\nDimSize = 3 4 5 2\nElementSpacing = 1 1 1 1\nElementType = MET_SHORT\n"
        "ElementDataFile = LOCAL\n"
    )
    with pytest.raises(InputError, match="4-D data"):
        metaimage.read(put(tmp_path / "a.mha", header, bytes(240)))


@ANY
@given(turns, orders, flips, st.sampled_from([".mha", ".mhd"]), st.booleans())
def test_a_look_at_the_header_gives_the_grid(tmp_path, image, turn, order, flip, ending, compressed):
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(image(turn, order, flip), path, useCompression=compressed)
    assert metaimage.look(path) == metaimage.read(path).geometry


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", [".mha", ".mhd"])
def test_a_look_sees_that_data_are_cut_short(tmp_path, image, ending, compressed):
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(image(), path, useCompression=compressed)
    data = next((p for p in tmp_path.iterdir() if p.suffix in (".raw", ".zraw")), path)
    data.write_bytes(data.read_bytes()[:-9])
    for read in (metaimage.look, metaimage.read):
        with pytest.raises(InputError, match="cut short"):
            read(path)


def test_compressed_data_whose_end_was_overwritten_are_refused(tmp_path):
    values = np.full((20, 24, 28), -850, np.int16)
    values[:, 18:] = 40
    sitk.WriteImage(sitk.GetImageFromArray(values), tmp_path / "a.mhd", useCompression=True)
    data = tmp_path / "a.zraw"
    content = data.read_bytes()
    for keep in range(len(content) - 6, 0, -7):
        data.write_bytes(content[:keep] + bytes(len(content) - keep))
        with pytest.raises(InputError, match=r"a\.zraw cannot be read"):
            metaimage.read(tmp_path / "a.mhd")
