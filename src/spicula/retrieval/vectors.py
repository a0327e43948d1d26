"""The file of vectors of an index: float32, little-endian, row after row, written at its end only.

What counts is told by the data base: rows beyond those it knows are of a change that was never finished, and the next
change writes over them.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.files import to_disk

Vectors: TypeAlias = NDArray[np.float32]
RowNumbers: TypeAlias = NDArray[np.int64]

RESTORE = "restore a copy of the folder, or build the index anew from its table"
"""The way back when the truth itself is damaged."""

_STORED = np.dtype("<f4")


def damaged(path: Path, *, got: object, expected: object, hint: str = RESTORE) -> InputError:
    """The error for a file that is not what was written."""
    return InputError(f"{path}: damaged", got=got, expected=expected, hint=hint)


def hexadecimal(checksum: object) -> str:
    """How a checksum is written in messages, or whatever stands in its place."""
    return f"{checksum:08x}" if isinstance(checksum, int) else repr(checksum)


def vectors_name(generation: int) -> str:
    """Name of the file; compacting writes the next generation."""
    return f"vectors-{generation}.f32"


def open_vectors(path: Path, rows: int, dimensions: int) -> Vectors:
    """Map the rows that count into memory; nothing is read yet.

    Args:
        path: The file.
        rows: How many of its rows count.
        dimensions: Length of a vector.

    Returns:
        Read-only float32 ``[rows, dimensions]``.

    Raises:
        InputError: The file is absent or shorter.
    """
    expected = rows * dimensions * _STORED.itemsize
    try:
        size = path.stat().st_size
        if size < expected:
            raise damaged(path, got=f"{size} bytes", expected=f"{expected} or more")
        if rows == 0:
            return np.empty((0, dimensions), dtype=np.float32)
        return np.asarray(np.memmap(path, dtype=_STORED, mode="r", shape=(rows, dimensions)))
    except FileNotFoundError as error:
        raise damaged(path, got="no file", expected=f"{expected} bytes") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read", got=error.strerror) from error


def write_vectors(path: Path, row: int, blocks: Iterable[Vectors]) -> None:
    """Write vectors from a row on, cut the file off behind them and have it all on the disk.

    Args:
        path: The file; made where it is absent.
        row: Where the first goes; what was there and behind it is lost.
        blocks: float32 ``[n, d]`` each.

    Raises:
        OSError: The disk is full, or the file cannot be written.
    """
    with open(path, "r+b" if path.exists() else "wb") as file:
        first = True
        for block in blocks:
            if first:
                file.seek(row * block.shape[1] * _STORED.itemsize)
                first = False
            file.write(np.ascontiguousarray(block, dtype=_STORED).data)
        if not first:
            file.truncate()
        file.flush()
        os.fsync(file.fileno())
    to_disk(path.parent)


def vector_checksums(vectors: Vectors) -> list[int]:
    """CRC-32 of each row as it is stored."""
    if len(vectors) == 0:
        return []
    stored = np.ascontiguousarray(vectors, dtype=_STORED).data.cast("B")
    size = len(stored) // len(vectors)
    return [zlib.crc32(stored[start : start + size]) for start in range(0, len(stored), size)]
