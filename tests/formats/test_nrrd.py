"""NRRD against pynrrd and SimpleITK, in all its encodings and spaces."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import nrrd as pynrrd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.formats import nrrd

ANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
turns = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
orders = st.permutations([0, 1, 2])
flips = st.tuples(*[st.sampled_from([-1, 1])] * 3)
SPACES = {"left-posterior-superior": (1, 1), "right-anterior-superior": (-1, -1), "LAS": (1, -1), "RAS": (-1, -1)}
PLAIN = "NRRD0004\ntype: short\ndimension: 3\nsizes: 3 4 5\nendian: little\nspace: left-posterior-superior\n"
PLACED = PLAIN + "space directions: (0.5,0,0) (0,0.5,0) (0,0,2)\nspace origin: (1,2,3)\n"


def ct(shape: tuple[int, ...] = (5, 4, 3)) -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 1500, shape).astype("<i2")


def put(path: Path, header: str, data: bytes = b"") -> Path:
    path.write_bytes(header.encode() + b"\n" + data)
    return path


@ANY
@given(turns, orders, flips)
def test_values_lie_where_simpleitk_puts_them(tmp_path, image, agrees_with_itk, turn, order, flip):
    made = image(turn, order, flip)
    sitk.WriteImage(made, tmp_path / "a.nrrd", useCompression=flip[0] > 0)
    agrees_with_itk(nrrd.read(tmp_path / "a.nrrd"), made)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("detached", [False, True])
def test_values_lie_where_pynrrd_puts_them(tmp_path, agrees, agrees_with_itk, space, encoding, detached):
    directions = np.array([[0.7, 0.1, 0], [-0.1, 0.7, 0], [0, 0, -2.5]])
    origin = np.array([-10.5, 20.25, -300.125])
    header = {"space": space, "space directions": directions, "space origin": origin, "encoding": encoding}
    array = ct().T
    path = tmp_path / ("a.nhdr" if detached else "a.nrrd")
    pynrrd.write(str(path), array, header, detached_header=detached, relative_data_path=True)
    volume = nrrd.read(path)
    affine = np.eye(4)
    signs = np.array([*SPACES[space], 1.0])
    affine[:3, :3] = directions.T * signs[:, None]
    affine[:3, 3] = origin * signs
    agrees(volume, array, affine)
    assert volume.warnings == ()
    if encoding in ("raw", "gzip"):
        agrees_with_itk(volume, sitk.ReadImage(path))


@pytest.mark.parametrize("dtype", ["i1", "u1", "<u2", ">i2", "<i4", ">u4", "<i8", "<f4", ">f8"])
def test_types_and_byte_orders(tmp_path, dtype):
    array = np.random.default_rng(0).integers(0, 120, (5, 4, 3)).astype(dtype)
    header = {"space": "LPS", "space directions": np.eye(3), "space origin": [0, 0, 0], "encoding": "raw"}
    pynrrd.write(str(tmp_path / "a.nrrd"), array.T, header)
    np.testing.assert_array_equal(nrrd.read(tmp_path / "a.nrrd").array_zyx, array)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_round_trip_is_exact_and_others_read_it(tmp_path, agrees_with_itk, dtype):
    affine = np.array([[0.1, 0.7, 0, -777.4999999999998], [0, 0, -0.8, 1 / 3], [2.5, 0, 0.1, -300.3], [0, 0, 0, 1]])
    array = (ct((4, 5, 6)) * (1 if dtype is np.int16 else 0.37)).astype(dtype)
    path = nrrd.write(tmp_path / "deep" / "a.nrrd", Volume(array, Geometry((4, 5, 6), affine)))
    again = nrrd.read(path)
    assert again.array_zyx.dtype == dtype
    np.testing.assert_array_equal(again.array_zyx, array)
    assert again.geometry == Geometry((4, 5, 6), affine)
    values, header = pynrrd.read(str(path))
    np.testing.assert_array_equal(values.T, array)
    np.testing.assert_array_equal(header["space directions"], affine[:3, 2::-1].T)
    with pytest.raises(InputError, match=r"ends in \.nrrd"):
        nrrd.write(tmp_path / "a.mha", again)


def test_lines_and_bytes_are_skipped(tmp_path):
    raw = ct().tobytes()
    header = PLACED + "encoding: gzip\nline skip: 2\nbyte skip: 3\ndata file: a.gz\n"
    (tmp_path / "a.gz").write_bytes(b"one\ntwo\n" + gzip.compress(b"xyz" + raw))
    np.testing.assert_array_equal(nrrd.read(put(tmp_path / "a.nhdr", header)).array_zyx, ct())
    (tmp_path / "a.raw").write_bytes(b"anything" + raw)
    header = PLACED + "encoding: raw\nbyteskip: -1\ndatafile: a.raw\n"
    np.testing.assert_array_equal(nrrd.read(put(tmp_path / "a.nhdr", header)).array_zyx, ct())


def test_one_file_for_each_slice(tmp_path):
    for index, part in enumerate(ct()):
        (tmp_path / f"s{index + 1:02d}.bz2").write_bytes(bz2.compress(part.tobytes()))
    listed = PLACED + "encoding: bzip2\ndata file: LIST\n" + "".join(f"s{n:02d}.bz2\n" for n in range(1, 6))
    pattern = PLACED + "encoding: bzip2\ndata file: s%02d.bz2 1 5 1\n"
    for header in (listed, pattern):
        (tmp_path / "a.nhdr").write_text(header)
        np.testing.assert_array_equal(nrrd.read(tmp_path / "a.nhdr").array_zyx, ct())


def test_hex_is_read(tmp_path):
    path = put(tmp_path / "a.nrrd", PLACED + "encoding: hex\n", ct().tobytes().hex().encode())
    np.testing.assert_array_equal(nrrd.read(path).array_zyx, ct())


def test_centimetres_become_millimetres(tmp_path):
    path = put(tmp_path / "a.nrrd", PLACED + 'space units: "cm" "cm" "cm"\nencoding: raw\n', ct().tobytes())
    volume = nrrd.read(path)
    assert volume.geometry.spacing_zyx_mm == (20, 5, 5)
    assert volume.geometry.origin_xyz_mm == (10, 20, 30)


def test_an_unknown_orientation_is_warned_of(tmp_path):
    header = PLACED.replace("space: left-posterior-superior", "space dimension: 3") + "encoding: raw\n"
    assert "the orientation is unknown" in nrrd.read(put(tmp_path / "a.nrrd", header, ct().tobytes())).warnings[0]
    header = PLAIN.replace("space: left-posterior-superior\n", "spacings: 0.5 0.6 2\nencoding: raw\n")
    volume = nrrd.read(put(tmp_path / "a.nrrd", header, ct().tobytes()))
    assert volume.geometry.spacing_zyx_mm == (2, 0.6, 0.5)
    assert "no space directions" in volume.warnings[0]
    header = PLACED.replace("space origin: (1,2,3)\n", "encoding: raw\n")
    assert "no space origin" in nrrd.read(put(tmp_path / "a.nrrd", header, ct().tobytes())).warnings[0]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (PLAIN + "encoding: raw\n", "neither space directions nor a spacing"),
        (PLACED.replace("sizes: 3 4 5", "sizes: 3 4") + "encoding: raw\n", "expected 2 vectors"),
        (PLACED.replace("type: short", "type: block") + "encoding: raw\n", "NRRD type"),
        (PLACED.replace("type: short\n", "") + "encoding: raw\n", "lacks 'type'"),
        (PLACED.replace("sizes: 3 4 5", "sizes: 3 4 99999999999") + "encoding: raw\n", "at most"),
        (PLACED.replace("sizes: 3 4 5", "sizes: 3 4 0") + "encoding: raw\n", "empty"),
        (PLACED + "encoding: zrl\n", "NRRD encoding"),
        (PLACED + "encoding: raw\n", "cut short"),
        (PLACED + "encoding: gzip\n", "cut short"),
        (PLACED + "encoding: ascii\n", "cannot be read"),
        (PLACED + "encoding: raw\ndata file: ../x.raw\n", "a file in the folder of the header"),
        (PLACED + "encoding: raw\ndata file: /etc/hosts\n", "a file in the folder of the header"),
        (PLACED + "encoding: raw\ndata file: absent.raw\n", "is missing"),
        (PLACED + "encoding: raw\ndata file: s%99999d.raw 1 5 1\n", "a pattern"),
        (PLACED + "encoding: raw\ndata file: s%d.raw 1 999999999 1\n", "a pattern"),
        (PLACED + "encoding: raw\ndata file: s%d.raw 1 5 0\n", "cannot be read"),
        ("NRRD0004\nno colon here\n", "a field 'name: value'"),
        ("something else\n", "not a NRRD file"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, header, words):
    path = put(tmp_path / "a.nrrd", header)
    with pytest.raises(InputError, match=words) as caught:
        nrrd.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("directions", "words"),
    [
        ("none (1,0,0) (0,1,0) (0,0,1)", "3 values a voxel"),
        ("(1,0,0) (0,1,0) (0,0,1) none", "5 values"),
    ],
)
def test_colors_and_series_of_volumes_are_refused(tmp_path, directions, words):
    header = (
        f"NRRD0004\ntype: short\ndimension: 4\nsizes: 3 4 4 5\nendian: little\nspace: LPS\n"
        f"space directions: {directions}\nencoding: raw\n"
    )
    with pytest.raises(InputError, match=words):
        nrrd.read(put(tmp_path / "a.nrrd", header, bytes(480)))


@pytest.mark.parametrize("wrong", ["(0,0,0)", "(0,0,nan)", "(0,0,1e9)", "(1,0,0)"])
def test_a_grid_without_sense_is_refused(tmp_path, wrong):
    path = put(tmp_path / "a.nrrd", PLACED.replace("(0,0,2)", wrong) + "encoding: raw\n", ct().tobytes())
    with pytest.raises(InputError, match="the header looks damaged"):
        nrrd.read(path)
