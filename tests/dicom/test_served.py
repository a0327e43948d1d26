"""What a DICOMweb server hands out: metadata and frames that an independent reader agrees with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.dicom.served import frames, metadata_json
from spicula.dicom.writer import write_series


@pytest.fixture
def stored(tmp_path) -> Path:
    noise = np.random.default_rng(0).integers(-1000, 400, (2, 24, 30)).astype(np.int16)
    volume = Volume(noise, Geometry.from_axes(noise.shape, (2.0, 0.7, 0.7)))
    return write_series(tmp_path / "in", volume, patient_id="P1", description="noise", patient_name="Doe^Jane")[0]


def test_metadata_is_the_json_of_the_header(stored) -> None:
    found = metadata_json(stored, bulk_uri="http://here/bulk")
    json.dumps(found, allow_nan=False)
    dataset = pydicom.dcmread(stored)
    again = Dataset.from_json({tag: one for tag, one in found.items() if tag not in ("7FE00010", "00083002")})
    for element in again:
        assert dataset[element.tag].value == element.value
    assert found["7FE00010"] == {"vr": "OW", "BulkDataURI": "http://here/bulk"}
    assert found["00083002"]["Value"] == [str(dataset.file_meta.TransferSyntaxUID)]
    assert found["00100010"]["Value"] == [{"Alphabetic": "Doe^Jane"}]


def test_frames_are_the_stored_pixels(stored) -> None:
    (only,), media, syntax = frames(stored, [1])
    assert (media, syntax) == ("application/octet-stream", "1.2.840.10008.1.2.1")
    assert only == pydicom.dcmread(stored).PixelData


@pytest.mark.parametrize(
    ("syntax", "media"),
    [(RLELossless, "image/dicom-rle"), (JPEG2000Lossless, "image/jp2"), (JPEGLSLossless, "image/jls")],
)
def test_compressed_frames_are_given_as_they_are(stored, tmp_path, syntax, media) -> None:
    dataset = pydicom.dcmread(stored)
    parts = [b"\1" * 10, b"\2" * 12, b"\3" * 14]
    dataset.file_meta.TransferSyntaxUID, dataset.NumberOfFrames = syntax, 3
    dataset.PixelData = encapsulate(parts)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(tmp_path / "a.dcm")
    assert frames(tmp_path / "a.dcm", [3, 1]) == ([parts[2], parts[0]], media, str(syntax))


def test_native_frames_of_many_are_cut_apart(stored, tmp_path) -> None:
    dataset = pydicom.dcmread(stored)
    pixels = np.arange(3 * 24 * 30, dtype="<u2").reshape(3, 24, 30)
    dataset.NumberOfFrames, dataset.PixelData = 3, pixels.tobytes()
    dataset.save_as(tmp_path / "a.dcm")
    found, _, _ = frames(tmp_path / "a.dcm", [2, 3])
    assert found == [pixels[1].tobytes(), pixels[2].tobytes()]


def test_odd_numbers_become_null(stored, tmp_path) -> None:
    dataset = pydicom.dcmread(stored)
    dataset.add_new(0x00189461, "FD", [float("nan"), 1.0])
    dataset.save_as(tmp_path / "a.dcm")
    assert metadata_json(tmp_path / "a.dcm", bulk_uri="x")["00189461"]["Value"] == [None, 1.0]


def test_long_binary_values_are_left_out(stored, tmp_path) -> None:
    dataset = pydicom.dcmread(stored)
    dataset.add_new(0x00420011, "OB", b"\0" * 5000)
    dataset.save_as(tmp_path / "a.dcm")
    assert "00420011" not in metadata_json(tmp_path / "a.dcm", bulk_uri="x")


def test_what_is_not_there_is_refused(stored, tmp_path) -> None:
    for numbers in ([0], [2], [], [-1]):
        with pytest.raises(InputError, match="1 to 1"):
            frames(stored, numbers)
    dataset = pydicom.dcmread(stored)
    dataset.PixelData = dataset.PixelData[:100]
    dataset.save_as(tmp_path / "short.dcm")
    with pytest.raises(InputError, match="cut short"):
        frames(tmp_path / "short.dcm", [1])
    del dataset.PixelData
    dataset.save_as(tmp_path / "none.dcm")
    with pytest.raises(InputError, match="without pixels"):
        frames(tmp_path / "none.dcm", [1])
    (tmp_path / "text.dcm").write_text("no DICOM " * 40)
    for read in (lambda path: frames(path, [1]), lambda path: metadata_json(path, bulk_uri="x")):
        with pytest.raises(InputError):
            read(tmp_path / "text.dcm")
