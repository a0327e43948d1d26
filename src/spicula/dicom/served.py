"""What a DICOMweb server hands out of a stored file: its metadata as DICOM JSON, its frames as they are stored.

References:
    DICOM PS3.18, sections 8.7 (media types), 10.4 (retrieve) and F (the JSON model).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.encaps import generate_frames
from pydicom.uid import UID

from spicula.core.errors import InputError
from spicula.dicom.archive import parse, unreadable

PIXEL_DATA = "7FE00010"
LARGEST_INLINE_BYTES = 1024
"""Longer binary values are fetched apart; none of them is needed to show an image."""

DEEPEST = 100
"""Levels of JSON within an element, three for a sequence; what lies deeper is no header but an attack."""

OCTETS = "application/octet-stream"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
AS_STORED = ("1.2.840.10008.1.2", EXPLICIT_LITTLE)
"""Transfer syntaxes whose frames lie in the file byte for byte as they are handed out."""

MEDIA_TYPES = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
"""Of a frame, by its transfer syntax (PS3.18, table 8.7.3-5); uncompressed ones are octets."""


@contextmanager
def _one_error(path: Path) -> Iterator[None]:
    """Whatever a broken file makes pydicom stumble over is one error; what it only warns of is not told."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:
        raise unreadable(path.name, error) from error


def metadata_json(path: Path, *, bulk_uri: str) -> dict[str, Any]:
    """The header of a file as DICOM JSON, without values that are long and binary.

    Args:
        path: A stored file.
        bulk_uri: Address under which pixel data is found, given as its ``BulkDataURI``.

    Returns:
        By tag, plain JSON values; never a NaN.

    Raises:
        InputError: The file cannot be read.
    """
    with _one_error(path):
        dataset = parse(str(path), pixels=False)
        found: dict[str, Any] = dataset.to_json_dict(
            bulk_data_threshold=LARGEST_INLINE_BYTES, bulk_data_element_handler=lambda element: "",
            suppress_invalid_tags=True,
        )  # fmt: skip
        found["00083002"] = {"vr": "UI", "Value": [str(dataset.file_meta.TransferSyntaxUID)]}
        rows = dataset.get("Rows")
    kept = {tag: element for tag, element in found.items() if element.get("BulkDataURI") != ""}
    if rows:
        kept[PIXEL_DATA] = {"vr": "OW", "BulkDataURI": bulk_uri}
    finite: dict[str, Any] = {}
    for tag, element in kept.items():
        with suppress(RecursionError):  # left out, as pydicom leaves out what it cannot say
            finite[tag] = _finite(element)
    return finite


def _finite(value: Any, left: int = DEEPEST) -> Any:
    """JSON has no NaN and no infinity: such numbers become null."""
    if left == 0:
        raise RecursionError("nested too deep")
    if isinstance(value, dict):
        return {key: _finite(one, left - 1) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one, left - 1) for one in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


@dataclass(frozen=True, slots=True)
class FramePlaces:
    """Where the frames of a file lie, one after the other.

    Args:
        first_byte: Of the first.
        frame_bytes: Of each.
        count: How many.
    """

    first_byte: int
    frame_bytes: int
    count: int

    def read(self, path: Path, numbers: Sequence[int]) -> list[bytes]:
        """Frames by their numbers from 1.

        Raises:
            InputError: There is no such frame.
            OSError: The file is not there any more.
        """
        _require_frames(numbers, self.count)
        found = []
        with path.open("rb", buffering=0) as file:
            for number in numbers:
                file.seek(self.first_byte + (number - 1) * self.frame_bytes)
                found.append(file.read(self.frame_bytes))
        return found


def frame_places(path: Path) -> FramePlaces | None:
    """Find where a file's frames lie; None where they are compressed, or must be turned before they are handed out.

    Args:
        path: A stored file that :func:`frames` can read.

    Raises:
        InputError: The file cannot be read.
    """
    with _one_error(path):
        dataset = parse(str(path), pixels=True)
        raw = dataset.get_item(PIXEL_DATA) if PIXEL_DATA in dataset else None
        if str(dataset.file_meta.TransferSyntaxUID) not in AS_STORED or not isinstance(raw, RawDataElement):
            return None
        count = _count(dataset)
        size = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel", 1))
        size *= int(dataset.BitsAllocated)
        if size % 8 or raw.value is None or size // 8 * count > len(raw.value):
            return None
        return FramePlaces(raw.value_tell, size // 8, count)


def _count(dataset: pydicom.Dataset) -> int:
    return max(1, int(dataset.get("NumberOfFrames") or 1))


def _require_frames(numbers: Sequence[int], count: int) -> None:
    wrong = [number for number in numbers if not 1 <= number <= count]
    if wrong or not numbers:
        raise InputError("frame", got=wrong[0] if wrong else "none", expected=f"1 to {count}")


def frames(path: Path, numbers: Sequence[int]) -> tuple[list[bytes], str, str]:
    """Frames as they are stored.

    Args:
        path: A stored file.
        numbers: Which, from 1.

    Returns:
        The bytes of each, their media type, their transfer syntax; uncompressed ones always little endian.

    Raises:
        InputError: The file cannot be read, has no pixels, or has no such frame.
    """
    with _one_error(path):
        return _frames(parse(str(path), pixels=True), path, numbers)


def _frames(dataset: pydicom.Dataset, path: Path, numbers: Sequence[int]) -> tuple[list[bytes], str, str]:
    if "PixelData" not in dataset:
        raise InputError(path.name, got="an instance without pixels", expected="an image")
    count = _count(dataset)
    _require_frames(numbers, count)
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if syntax.is_compressed and not syntax.is_deflated:
        stored = list(generate_frames(dataset.PixelData, number_of_frames=count))
        return [stored[number - 1] for number in numbers], MEDIA_TYPES.get(str(syntax), OCTETS), str(syntax)
    return _native(dataset, numbers, count, little=syntax.is_little_endian), OCTETS, EXPLICIT_LITTLE


def _native(dataset: pydicom.Dataset, numbers: Sequence[int], count: int, *, little: bool) -> list[bytes]:
    bits = int(dataset.BitsAllocated)
    samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel", 1))
    pixels = bytes(dataset.PixelData)
    if bits == 1:  # frames of a segmentation need not begin at a byte: unpacked only where they do not
        if samples % 8 and count > 1:
            raise InputError(
                "frames of one bit a pixel", got="frames that share bytes", hint="fetch the whole instance"
            )
        size = (samples + 7) // 8
    else:
        size = samples * bits // 8
    if len(pixels) < size * count:
        raise InputError("pixel data", got=f"{len(pixels)} bytes", expected=f"{size * count}", hint="it is cut short")
    if not little and bits == 16:
        import numpy as np

        pixels = np.frombuffer(pixels, dtype=">u2").astype("<u2").tobytes()
    return [pixels[(number - 1) * size : number * size] for number in numbers]
