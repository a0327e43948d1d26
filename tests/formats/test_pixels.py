"""Exactness of the rescale, bounded decompression, and which values pass as Hounsfield units."""

from __future__ import annotations

import bz2
import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.formats import read_volume
from spicula.formats.pixels import check_plausible, read_bytes, to_hu

HERE = Path("scan.nrrd")


def volume(array: np.ndarray, spacing: tuple[float, float, float] = (2.5, 8.0, 8.0)) -> Volume:
    kept = array if array.dtype in (np.int16, np.float32) else array.astype(np.float32)
    return Volume(kept, Geometry.from_axes(array.shape, spacing))


def body(shape: tuple[int, int, int] = (12, 40, 40)) -> np.ndarray:
    array = np.full(shape, -1000, np.int16)
    array[:, 6:-6, 6:-6] = 40
    array[2:-2, 12:-12, 12:-12] = -850
    return array


@given(
    st.sampled_from(["i1", "u1", "i2", "u2", "i4", ">i2", ">f4", "f8"]),
    st.sampled_from([1.0, 2.0, 0.5, -1.0, 0.1]),
    st.sampled_from([0.0, -1024.0, 0.25, 40000.0]),
)
def test_whole_numbers_stay_int16_and_others_are_the_nearest_float32(dtype, slope, intercept):
    stored = np.random.default_rng(0).integers(0, 127, (3, 4, 5)).astype(dtype)
    exact = stored.astype(np.float64) * slope + intercept
    found = to_hu(HERE, stored, slope=slope, intercept=intercept)
    whole = (exact == np.rint(exact)).all() and exact.min() >= -32768 and exact.max() <= 32767
    assert found.dtype == (np.int16 if whole else np.float32)
    np.testing.assert_array_equal(found, exact.astype(found.dtype))
    assert found.dtype.isnative
    assert found.flags.c_contiguous


@pytest.mark.parametrize(("slope", "intercept"), [(0.0, 0.0), (np.nan, 0.0), (1.0, np.inf)])
def test_an_unusable_rescale_is_refused(slope, intercept):
    with pytest.raises(InputError, match="rescale"):
        to_hu(HERE, np.ones((2, 2, 2), np.int16), slope=slope, intercept=intercept)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("raw", bytes),
        ("gzip", gzip.compress),
        ("zlib", zlib.compress),
        ("zlib", gzip.compress),
        ("bzip2", bz2.compress),
    ],
)
def test_bytes_come_back(tmp_path, encoding, pack):
    data = np.random.default_rng(0).bytes(100_000)
    path = tmp_path / "data"
    path.write_bytes(b"head" + pack(data))
    assert read_bytes(path, 90_000, start=4, skip=10_000, encoding=encoding) == data[10_000:]
    assert read_bytes(path, 5, start=4, encoding=encoding) == data[:5]
    with pytest.raises(InputError, match="cut short"):
        read_bytes(path, 100_001, start=4, encoding=encoding)
    if encoding != "raw":
        raw = bytearray(path.read_bytes())
        raw[60_000] ^= 0xFF
        path.write_bytes(raw)
        with pytest.raises(InputError):
            read_bytes(path, 100_000, start=4, encoding=encoding)


def test_gzip_of_several_members(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(b"abc") + gzip.compress(b"def"))
    assert read_bytes(tmp_path / "a", 6, encoding="gzip") == b"abcdef"


def test_a_wrong_checksum_is_noticed(tmp_path):
    for encoding, packed in (("gzip", gzip.compress(b"abc" * 99)), ("zlib", zlib.compress(b"abc" * 99))):
        raw = bytearray(packed)
        raw[-6 if encoding == "gzip" else -1] ^= 1
        (tmp_path / "a").write_bytes(raw)
        with pytest.raises(InputError, match="damaged"):
            read_bytes(tmp_path / "a", 297, encoding=encoding)


def test_a_bomb_unpacks_no_further_than_asked(tmp_path):
    (tmp_path / "a").write_bytes(zlib.compress(bytes(50_000_000)))
    assert len(read_bytes(tmp_path / "a", 1000, encoding="zlib")) == 1000


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("zlib", zlib.compress), ("bzip2", bz2.compress)]
)
def test_an_overwritten_end_is_noticed(tmp_path, encoding, pack):
    scan = np.random.default_rng(0).normal(-800, 30, 2_000_000).astype(np.int16).tobytes()
    packed = pack(scan)
    path = tmp_path / "data"
    path.write_bytes(packed)
    assert read_bytes(path, len(scan), encoding=encoding, exact=True) == scan
    for share in (0.99, 0.7, 0.3):
        keep = int(len(packed) * share)
        path.write_bytes(packed[:keep] + bytes(len(packed) - keep))
        with pytest.raises(InputError, match=r"data cannot be read|cut short"):
            read_bytes(path, len(scan), encoding=encoding, exact=True)


@pytest.mark.parametrize("shift", [0, 15, -30])
def test_a_chest_passes(shift):
    check_plausible(volume(body() + np.int16(shift)), path=HERE)


def test_padding_does_not_count_as_air():
    padded = (body().astype(np.int32) + 1024).astype(np.int16)
    padded[:, :4] = -2000
    with pytest.raises(InputError, match="implausible"):
        check_plausible(volume(padded), path=HERE)


@pytest.mark.parametrize(
    ("array", "cause"),
    [
        (((body().astype(np.float32) + 1000) / 1400 * 255).clip(0, 255).astype(np.uint8), "8-bit picture"),
        (((body().astype(np.float32) + 1000) / 1400 * 255).clip(0, 255) - 128, "8-bit picture"),
        (body().astype(np.float32) / 1000, r"scaled to 0\.\.1"),
        (body().astype(np.int32) + 1024, "rescale intercept was lost"),
        (np.full((12, 40, 40), -1000, np.int16), "export the CT with its Hounsfield units"),
        (np.zeros((4, 4, 4), np.int16), "label"),
        (np.full((4, 4, 4), -3000, np.int16), "export the CT"),
    ],
)
def test_what_cannot_be_hounsfield_units_is_refused_with_its_cause(array, cause):
    with pytest.raises(InputError, match=cause) as caught:
        check_plausible(volume(array), path=HERE)
    assert "Hounsfield units are implausible" in str(caught.value)


@pytest.mark.shared
def test_every_small_volume_around_a_nodule_passes_as_stored(shared):
    paths = sorted((shared / "lidc_nodules" / "image").glob("*.nii.gz"))
    volumes = [read_volume(path) for path in paths]
    assert len(volumes) == 798
    assert all(found.array_zyx.dtype == np.int16 and not found.warnings for found in volumes)
