"""16-bit PNG: every value comes back exactly; what is damaged, cut short or of 8 bits is one clear error."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from spicula.core.errors import InputError
from spicula.formats import png16

ANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)


def put(path: Path, hu: np.ndarray) -> Path:
    Image.fromarray((hu.astype(np.int32) + 32768).astype(np.uint16)).save(path)
    return path


@ANY
@given(hnp.arrays(np.int16, SHAPES))
def test_every_value_comes_back(tmp_path, hu):
    path = put(tmp_path / "a.png", hu)
    found = png16.read_slice(path)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, hu)
    assert png16.look(path) == hu.shape


def test_the_whole_range_against_simpleitk(tmp_path):
    hu = np.arange(-32768, 32768, dtype=np.int32).reshape(256, 256)
    sitk.WriteImage(sitk.GetImageFromArray((hu + 32768).astype(np.uint16)), tmp_path / "a.png")
    np.testing.assert_array_equal(png16.read_slice(tmp_path / "a.png"), hu)
    path = put(tmp_path / "b.png", hu)
    stored = sitk.GetArrayFromImage(sitk.ReadImage(path)).astype(np.int32)
    np.testing.assert_array_equal(png16.read_slice(path), stored - 32768)


def test_a_stack_in_the_order_given(tmp_path):
    slices = [np.full((3, 4), value, np.int16) for value in (-1024, 0, 300)]
    paths = [put(tmp_path / f"{n:03d}.png", hu) for n, hu in enumerate(slices)]
    np.testing.assert_array_equal(png16.read_stack(paths[::-1]), np.stack(slices[::-1]))
    odd = put(tmp_path / "odd.png", np.zeros((3, 5), np.int16))
    with pytest.raises(InputError, match=r"odd\.png: image: got 3 x 5 pixels, expected 3 x 4"):
        png16.read_stack([*paths, odd])
    with pytest.raises(InputError, match="none"):
        png16.read_stack([])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4), np.uint8), "8-bit gray, expected 16-bit gray"),
        (np.zeros((4, 4, 3), np.uint8), "8-bit color"),
        (np.zeros((4, 4, 4), np.uint8), "8-bit color with transparency"),
    ],
)
def test_pictures_are_refused(tmp_path, array, words):
    Image.fromarray(array).save(tmp_path / "a.png")
    for read in (png16.look, png16.read_slice):
        with pytest.raises(InputError, match=words) as caught:
            read(tmp_path / "a.png")
        assert "a.png" in str(caught.value)


def test_a_jpeg_by_the_name_of_a_png_and_no_file_at_all(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png", format="JPEG")
    with pytest.raises(InputError, match="not a PNG file"):
        png16.read_slice(tmp_path / "a.png")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        png16.read_slice(tmp_path / "b.png")


@ANY
@given(st.integers(0, 10**6))
def test_a_file_cut_anywhere_is_refused(tmp_path, at):
    path = put(tmp_path / "a.png", np.random.default_rng(0).integers(-1000, 1000, (30, 30)).astype(np.int16))
    content = path.read_bytes()
    path.write_bytes(content[: at % len(content)])
    for read in (png16.look, png16.read_slice):
        with pytest.raises(InputError, match=r"a\.png"):
            read(path)


@ANY
@given(st.integers(0, 10**6), st.integers(1, 255))
@example(21422, 34)  # within the last bytes of the pixels, where Pillow looks at no checksum
def test_a_changed_byte_is_refused_or_changes_nothing(tmp_path, at, change):
    hu = np.random.default_rng(0).integers(-1000, 1000, (30, 30)).astype(np.int16)
    path = put(tmp_path / "a.png", hu)
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= change
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        np.testing.assert_array_equal(png16.read_slice(path), hu)


def test_a_header_that_claims_a_huge_image_takes_no_memory(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1 << 30, 1 << 30, 16, 0, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(InputError, match="at most 8192 a side"):
        png16.read_slice(tmp_path / "a.png")


def chest_slice(shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    hu = np.random.default_rng(0).normal(-850, 30, shape)
    hu[10:30, 10:30] = np.random.default_rng(1).normal(40, 20, (20, 20))
    return np.rint(hu).astype(np.int16)


def test_a_slice_as_a_volume_says_what_it_does_not_know(tmp_path):
    hu = chest_slice()
    hu[:8] = -3024  # padding outside the scanner's circle
    hu[9, 9] = 9000  # metal
    volume = png16.read_as_volume(put(tmp_path / "a.png", hu))
    np.testing.assert_array_equal(volume.array_zyx[0], hu)
    assert volume.geometry.spacing_zyx_mm == (1.0, 0.8, 0.8)
    (note,) = volume.warnings
    assert "taken for 0.8 mm" in note


GRAYS = np.clip(chest_slice() / 8 + 128, 0, 255).astype(np.uint16)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (GRAYS, "no value above"),
        (GRAYS * 257, "256 grays stretched to 16 bits"),
        (GRAYS * 256, "of the pixels from -1100 to 3100 HU"),
        ((chest_slice() + 1024).astype(np.uint16), "0% of the pixels from -1100 to 3100 HU"),
        (np.zeros((40, 40), np.uint16), "no value above 0"),
    ],
)
def test_values_that_are_no_hounsfield_units_are_refused(tmp_path, stored, words):
    Image.fromarray(stored.astype(np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=words) as caught:
        png16.read_as_volume(tmp_path / "a.png")
    assert "expected 16 bits with HU = value - 32768" in str(caught.value)
    assert "fetch the original image, or write HU + 32768" in str(caught.value)
    png16.read_slice(tmp_path / "a.png")  # gives what is stored, whatever it means
