"""How large a compressed frame says it is, told before a decoder believes it.

References:
    ISO/IEC 10918-1 (JPEG, B.2.2), ISO/IEC 14495-1 (JPEG-LS, C.2.2), ISO/IEC 15444-1 (JPEG 2000, A.5.1).
    DICOM PS3.5, annex G (RLE).
"""

from __future__ import annotations

import struct

from spicula.core.errors import InputError

_JPEG, _JPEG_2000, _JP2 = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "
_NO_FRAME_HEADER = (0xC4, 0xC8, 0xCC)
"""Markers among those of JPEG's frame headers (0xC0 to 0xCF) that are something else."""

_RLE_HEADER_BYTES, _RLE_SEGMENTS = 64, 15


def refuse_larger(frame: bytes, rows: int, cols: int, path: str) -> None:
    """Refuse a frame that would decode to more than its header says: a few bytes may claim gigabytes.

    Args:
        frame: Of JPEG, JPEG-LS, JPEG 2000 or RLE.
        rows: Of the image.
        cols: Of the image.
        path: Named in messages.

    Raises:
        InputError: It claims more pixels, or has longer RLE segments than any encoder writes.
    """
    if frame.startswith((_JPEG_2000, _JP2)):
        claimed = _jpeg_2000(frame)
    elif frame.startswith(_JPEG):
        claimed = _jpeg(frame)
    else:
        claimed = _rle(frame)
    if claimed > rows * cols:
        raise InputError(f"{path}: a compressed frame", got=f"{claimed} pixels", expected=f"{rows} x {cols}")


def _jpeg(frame: bytes) -> int:
    """Pixels of the first frame header (SOF) of JPEG or JPEG-LS; 0 where there is none."""
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a byte that fills
            at += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_HEADER) or marker == 0xF7:
            rows, cols = struct.unpack_from(">HH", frame, at + 5)
            return int(rows) * int(cols)
        at += 2 if marker == 0x01 or 0xD0 <= marker <= 0xD8 else 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return 0


def _jpeg_2000(frame: bytes) -> int:
    """Pixels of the largest image size (SIZ) in a codestream, or in any codestream of a JP2 file."""
    most, at = 0, frame.find(_JPEG_2000)
    while at >= 0:
        if at + 16 <= len(frame):
            cols, rows = struct.unpack_from(">II", frame, at + 8)
            most = max(most, int(rows) * int(cols))
        at = -1 if frame.startswith(_JPEG_2000) else frame.find(_JPEG_2000, at + 4)
    return most


def _rle(frame: bytes) -> int:
    """Half the bytes of the longest segment: no encoder takes more than two for each byte of the image."""
    if len(frame) < _RLE_HEADER_BYTES:
        return 0
    count, *starts = struct.unpack_from("<16I", frame)
    ends = [*starts[1 : min(count, _RLE_SEGMENTS)], len(frame)]
    return int(max((end - start) // 2 for start, end in zip(starts, ends, strict=False)))
