"""Stored pixel values of every transfer syntax that permissively licensed decoders can read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_frames, get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from spicula.core.errors import InputError
from spicula.dicom.codestream import refuse_larger

PIXEL_TAGS = [
    0x00280002,  # Samples per Pixel
    0x00280004,  # Photometric Interpretation
    0x00280006,  # Planar Configuration
    0x00280008,  # Number of Frames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280100,  # Bits Allocated
    0x00280101,  # Bits Stored
    0x00280102,  # High Bit
    0x00280103,  # Pixel Representation
    0x7FE00001,  # Extended Offset Table
    0x7FE00002,  # Extended Offset Table Lengths
    0x7FE00010,  # Pixel Data
]
"""The elements that decoding needs."""

_NATIVE: tuple[str, ...] = ("",)
_GDCM, _PILLOW, _JPEG_LS, _OPENJPEG = "gdcm", "pillow", "pyjpegls", "pylibjpeg"

DECODERS: dict[str, tuple[str, ...]] = {
    "1.2.840.10008.1.2": _NATIVE,
    "1.2.840.10008.1.2.1": _NATIVE,
    "1.2.840.10008.1.2.1.99": _NATIVE,
    "1.2.840.10008.1.2.2": _NATIVE,
    "1.2.840.10008.1.2.5": ("pydicom",),
    "1.2.840.10008.1.2.4.50": (_GDCM, _PILLOW),
    "1.2.840.10008.1.2.4.51": (_GDCM,),
    "1.2.840.10008.1.2.4.57": (_GDCM,),
    "1.2.840.10008.1.2.4.70": (_GDCM,),
    "1.2.840.10008.1.2.4.80": (_JPEG_LS, _GDCM),
    "1.2.840.10008.1.2.4.81": (_JPEG_LS, _GDCM),
    "1.2.840.10008.1.2.4.90": (_OPENJPEG, _GDCM),
    "1.2.840.10008.1.2.4.91": (_OPENJPEG, _GDCM),
    "1.2.840.10008.1.2.4.201": (_OPENJPEG,),
    "1.2.840.10008.1.2.4.202": (_OPENJPEG,),
    "1.2.840.10008.1.2.4.203": (_OPENJPEG,),
}
"""Transfer syntax UID: the pydicom decoding plug-ins used, first choice first."""

JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"

_PACKAGES = {
    _GDCM: "python-gdcm",
    _PILLOW: "pillow",
    _JPEG_LS: "pyjpegls",
    _OPENJPEG: "pylibjpeg-openjpeg",
    "pydicom": "pydicom",
}


def syntax_name(uid: str) -> str:
    """A transfer syntax as messages call it: its name and UID."""
    name = UID(uid, validation_mode=0).name
    return f"{name} ({uid})" if name != uid else f"unknown transfer syntax {uid}"


def why_undecodable(uid: str) -> str:
    """Why pixels of a transfer syntax cannot be read here, with the package that would help; empty if they can."""
    plugins = DECODERS.get(uid)
    if plugins is None:
        convert = "convert the series to Explicit VR Little Endian, for instance with dcmdjpeg or gdcmconv --raw"
        return f"transfer syntax {syntax_name(uid)} is not supported. Hint: {convert}"
    if plugins == _NATIVE or set(plugins) & set(get_decoder(uid).available_plugins):
        return ""
    return f"transfer syntax {syntax_name(uid)} needs a decoder. Hint: pip install {_PACKAGES[plugins[0]]}"


def stored_values(dataset: Dataset, path: str, *, frames: Iterable[int] = (1,)) -> Iterator[NDArray[Any]]:
    """Decode frames of an object to stored values, before slope and intercept.

    Args:
        dataset: The whole object.
        path: Named in messages.
        frames: Numbers of the frames wanted, from 1.

    Yields:
        ``[rows, cols]`` integers as allocated, bits beyond Bits Stored included (overlays of old scanners lie there).

    Raises:
        InputError: The transfer syntax has no decoder, or there are no pixels.
    """
    uid = str(dataset.file_meta.TransferSyntaxUID)
    reason = why_undecodable(uid)
    if reason:
        raise InputError(f"{path}: {reason}")
    if "PixelData" not in dataset:
        raise InputError(
            f"{path}: Pixel Data (7FE0,0010)",
            got="nothing",
            expected="an image",
            hint="it may be cut short or damaged: copy it again from its source",
        )
    if DECODERS[uid] != _NATIVE:
        for stored in generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)):
            refuse_larger(stored, int(dataset.Rows), int(dataset.Columns), path)
    if uid == JPEG_EXTENDED and int(dataset.BitsStored) > 8:
        yield from _jpeg_extended(dataset, frames)
        return
    decoder = get_decoder(uid)
    plugin = next((name for name in DECODERS[uid] if name in decoder.available_plugins), "")
    for frame in frames:
        array, _ = decoder.as_array(dataset, index=frame - 1, raw=True, decoding_plugin=plugin)
        yield array


def _jpeg_extended(dataset: Dataset, frames: Iterable[int]) -> Iterator[NDArray[Any]]:
    """Decode 12-bit JPEG Extended by gdcm itself; pydicom's plug-in for it takes 8 bits only."""
    import gdcm

    rows, cols, bits = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsStored)
    count = int(dataset.get("NumberOfFrames") or 1)
    for frame in frames:
        fragment = gdcm.Fragment()
        fragment.SetByteStringValue(get_frame(dataset.PixelData, frame - 1, number_of_frames=count))
        fragments = gdcm.SequenceOfFragments.New()
        fragments.AddFragment(fragment)
        element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
        element.SetValue(fragments.__ref__())
        image = gdcm.Image()
        image.SetNumberOfDimensions(2)
        image.SetDimensions((cols, rows, 1))
        image.SetDataElement(element)
        image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
        image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
        image.SetPixelFormat(gdcm.PixelFormat(1, 16, bits, bits - 1, int(dataset.PixelRepresentation)))
        decoded = image.GetBuffer()
        if decoded is None:
            raise ValueError("gdcm cannot decode the JPEG stream")
        values = decoded.encode("utf-8", "surrogateescape")
        yield np.frombuffer(values, np.int16 if dataset.PixelRepresentation else np.uint16).reshape(rows, cols)


def within_bits_stored(array: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """Keep only the bits that hold the pixel (Bits Stored up to High Bit), extending the sign.

    Args:
        array: Integers as allocated.
        dataset: Its header.

    Returns:
        The values; the same array where no other bit is set.
    """
    allocated, stored = array.dtype.itemsize * 8, int(dataset.BitsStored)
    high = int(dataset.get("HighBit", stored - 1))
    if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise InputError(
            "bits stored and high bit", got=(stored, high), expected=f"within the {allocated} bits allocated"
        )
    if stored == allocated or array.size == 0:
        return array
    low, top = (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if array.dtype.kind == "i" else (0, 2**stored - 1)
    if high == stored - 1 and low <= int(array.min()) and int(array.max()) <= top:
        return array
    return np.asarray(np.right_shift(np.left_shift(array, allocated - 1 - high), allocated - stored))
