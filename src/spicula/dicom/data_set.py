"""Whether two files hold the same data set: what a file says of itself differs by the way it came."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from pydicom.filereader import read_file_meta_info

_PREAMBLE, _GROUP_LENGTH = 132, 12
_CHUNK = 2**20


def same_data_set(one: Path, other: Path) -> bool:
    """Compare two DICOM files but for their file meta information.

    An archive writes that of a file that it gives by WADO-RS, the receiver that of an instance that comes by C-STORE.

    Args:
        one: A whole DICOM file.
        other: Another.

    Returns:
        True where transfer syntax and every byte of the data sets are the same; False also where that cannot be told.
    """
    starts = [_start(path) for path in (one, other)]
    if starts[0] is None or starts[1] is None or starts[0][1] != starts[1][1]:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        first.seek(starts[0][0])
        second.seek(starts[1][0])
        return _same(first, second)


def _start(path: Path) -> tuple[int, str] | None:
    """Where the data set begins, and its transfer syntax; None where the file does not tell."""
    try:
        meta = read_file_meta_info(path)
        length, syntax = meta.get("FileMetaInformationGroupLength"), meta.get("TransferSyntaxUID")
    except Exception:  # pydicom raises whatever a broken file makes it stumble over
        return None
    return (_PREAMBLE + _GROUP_LENGTH + int(length), str(syntax)) if length and syntax else None


def _same(first: IO[bytes], second: IO[bytes]) -> bool:
    while True:
        pieces = first.read(_CHUNK), second.read(_CHUNK)
        if pieces[0] != pieces[1]:
            return False
        if not pieces[0]:
            return True
