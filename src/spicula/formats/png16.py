"""Slices as 16-bit gray PNG with HU = value - 32768, as DeepLesion stores them.

References:
    PNG, third edition, https://www.w3.org/TR/png-3/ (chunks IHDR and IEND).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Acquisition, Volume

OFFSET = 32768
"""What was added to the Hounsfield units so that they fit unsigned numbers."""

LOWEST_HU, HIGHEST_HU = -1100, 3100
"""Between air and the densest bone; padding outside the scanner's circle may be lower, metal higher."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\x00\x00\x00\x00IEND\xae\x42\x60\x82"
_HEADER = struct.Struct(">8sI4sIIBBBBB")
_MAX_SIDE = 8192
_DAMAGED = (OSError, EOFError, SyntaxError, ValueError, struct.error, MemoryError)
_COLORS = {0: "gray", 2: "color", 3: "palette", 4: "gray with transparency", 6: "color with transparency"}


def look(path: str | Path) -> tuple[int, int]:
    """Read the header alone and see whether the file goes on to its end mark.

    Args:
        path: A PNG file.

    Returns:
        Rows and columns.

    Raises:
        InputError: It is not a PNG, not 16-bit gray, or cut short.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            block = stream.read(_HEADER.size)
            stream.seek(max(stream.seek(0, 2) - len(_END), 0))
            end = stream.read()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    return _checked(path, block, end)


def read_slice(path: str | Path) -> NDArray[np.int16]:
    """Read one slice.

    Args:
        path: A PNG file with 16 bits of gray a pixel.

    Returns:
        int16 ``[rows, columns]`` in HU, the value minus 32768: exact for every value that can be stored.

    Raises:
        InputError: It is not a 16-bit gray PNG, is cut short or damaged.
    """
    path = Path(path)
    shape = look(path)
    try:
        content = path.read_bytes()
        _check_chunks(path, content)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            stored = np.asarray(image)
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(f"{path} cannot be read: {error}", hint="the file looks damaged; copy it again") from error
    if stored.shape != shape:
        raise InputError(f"{path}: image", got=f"shape {stored.shape}", expected=f"{shape}, as its header says")
    return (stored.astype(np.int32) - OFFSET).astype(np.int16)


def read_as_volume(path: str | Path, *, pixel_mm: float = 0.8) -> Volume:
    """Read one slice as a volume of one slice, whose place in the body nobody knows.

    Args:
        path: A PNG file with 16 bits of gray a pixel.
        pixel_mm: Side of a pixel; the file does not tell it. DeepLesion's median is 0.8 mm.

    Raises:
        InputError: See :func:`read_slice`, or the values are no Hounsfield units.
    """
    array = read_slice(path)
    _require_hounsfield(path, array)
    geometry = Geometry.from_axes((1, *array.shape), (1.0, pixel_mm, pixel_mm))
    acquisition = Acquisition(source=str(path), format="PNG", modality="CT")
    note = f"{path}: a PNG tells neither the size of its pixels, taken for {pixel_mm:g} mm, nor its place in the body."
    return Volume(array[None], geometry, acquisition=acquisition, warnings=(note,))


def _require_hounsfield(path: str | Path, array: NDArray[np.int16]) -> None:
    """Refuse gray values that were put into 16 bits: 0 to 255, these stretched, and any others that are no HU."""
    stored = array.astype(np.int32) + OFFSET
    fit = float(np.mean((array >= LOWEST_HU) & (array <= HIGHEST_HU)))
    if int(stored.max()) <= 255:
        got = f"no value above {stored.max()}, as an 8-bit picture has"
    elif not (stored % 257).any():
        got = "256 grays stretched to 16 bits"
    elif fit < 0.5:
        got = f"{fit:.0%} of the pixels from {LOWEST_HU} to {HIGHEST_HU} HU"
    else:
        return
    raise InputError(
        f"{path}: Hounsfield units", got=got, expected=f"16 bits with HU = value - {OFFSET}, as DeepLesion has it",
        hint=f"those of a picture are lost: fetch the original image, or write HU + {OFFSET} into 16 bits",
    )  # fmt: skip


def read_stack(paths: Sequence[str | Path]) -> NDArray[np.int16]:
    """Read slices of equal size one upon the other.

    Args:
        paths: The files in the order of the slices.

    Returns:
        int16 ``[slices, rows, columns]`` in HU.

    Raises:
        InputError: There is none, one cannot be read, or sizes differ; names the file.
    """
    if not paths:
        raise InputError("slices", got="none", expected="one PNG file or more")
    rows, columns = look(paths[0])
    stack = np.empty((len(paths), rows, columns), dtype=np.int16)
    for index, path in enumerate(paths):
        part = read_slice(path)
        if part.shape != (rows, columns):
            raise InputError(
                f"{path}: image", got=f"{part.shape[0]} x {part.shape[1]} pixels",
                expected=f"{rows} x {columns}, as {paths[0]} has",
            )  # fmt: skip
        stack[index] = part
    return stack


def _check_chunks(path: Path, content: bytes) -> None:
    """Hold every chunk against its checksum: Pillow does not, and a changed byte near the end would pass unseen."""
    at = len(_SIGNATURE)
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(content) or zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            hint = "the file is damaged; copy it again"
            raise InputError(f"{path}: a chunk of the image", got="another checksum than its own", hint=hint)
        at = end + 4


def _checked(path: Path, block: bytes, end: bytes) -> tuple[int, int]:
    """Rows and columns of a 16-bit gray PNG that is all there."""
    if not block or not block.startswith(_SIGNATURE[: len(block)]):
        raise InputError(f"{path} is not a PNG file", hint="copy it again")
    if len(block) < _HEADER.size:
        raise InputError(f"{path} is cut short", got=f"{len(block)} bytes", expected="a whole PNG file")
    _, length, kind, columns, rows, bits, color, *_ = _HEADER.unpack(block)
    if kind != b"IHDR" or length != 13:
        raise InputError(f"{path} is not a PNG file: its first chunk is no header", hint="copy it again")
    if (bits, color) != (16, 0):
        raise InputError(
            f"{path}: image", got=f"{bits}-bit {_COLORS.get(color, 'PNG')}", expected="16-bit gray",
            hint="its Hounsfield units are lost; fetch the original file",
        )  # fmt: skip
    if not (0 < rows <= _MAX_SIDE and 0 < columns <= _MAX_SIDE):
        raise InputError(f"{path}: image", got=f"{rows} x {columns} pixels", expected=f"at most {_MAX_SIDE} a side")
    if end != _END:
        raise InputError(f"{path} is cut short", got="no end mark", expected="a whole PNG file", hint="copy it again")
    return rows, columns
