"""NRRD with attached or detached header (.nrrd, .nhdr).

References:
    https://teem.sourceforge.net/nrrd/format.html (fields, encodings, spaces).
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.files import written_aside
from spicula.core.geometry import FloatArray
from spicula.core.volume import Volume
from spicula.formats.pixels import Encoding, check_shape, damaged, make_volume, read_bytes, slice_files, to_hu

_TYPES = {
    "i1": "signed char|int8|int8_t",
    "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": "int|signed int|int32|int32_t",
    "u4": "uint|unsigned int|uint32|uint32_t",
    "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "f4": "float",
    "f8": "double",
}
TYPES = {name: code for code, names in _TYPES.items() for name in names.split("|")}
"""Type names of the format with numpy's codes."""

_ENCODINGS: dict[str, Encoding] = {
    "raw": "raw", "gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2"
}  # fmt: skip
_TEXT = {"txt", "text", "ascii", "hex"}
_SPACES = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
_MM = {"mm": 1.0, "millimeter": 1.0, "millimetre": 1.0, "": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "???": 1.0}
_MAX_HEADER = 1 << 20


@dataclass(frozen=True, slots=True)
class Header:
    """Fields of a header by lower-case name, the names of a data file list, and where attached data begin."""

    fields: dict[str, str]
    data_files: list[str] = field(default_factory=list)
    end: int = 0


def read(path: str | Path) -> Volume:
    """Read one NRRD file.

    Args:
        path: ``.nrrd``, or a detached header with its data in the same folder.

    Returns:
        Its volume in HU as stored.

    Raises:
        InputError: The file is damaged, or is not one gray-level volume in real numbers.
    """
    path = Path(path)
    header = _read_header(path)
    fields = header.fields
    try:
        sizes = [int(n) for n in fields["sizes"].split()]
        dtype_code = TYPES.get(fields["type"].strip().lower())
        affine, kept, warnings = _affine(path, fields, len(sizes))
    except KeyError as error:
        raise InputError(f"{path}: the NRRD header lacks {error}", hint="export the file again") from error
    except InputError:
        raise
    except (ValueError, IndexError, OverflowError) as error:
        raise damaged(path, error) from error
    if dtype_code is None:
        raise InputError(f"{path}: NRRD type", got=fields["type"], expected="a type of real numbers")
    components = int(np.prod([n for axis, n in enumerate(sizes) if axis not in kept], dtype=object))
    shape = check_shape(path, [sizes[axis] for axis in kept], components=components)
    big = fields.get("endian", "little").strip().lower() == "big"
    stored = _read_data(path, header, shape, np.dtype((">" if big else "<") + dtype_code))
    return make_volume(path, to_hu(path, stored), affine, format_name="NRRD", warnings=warnings)


def _read_header(path: Path) -> Header:
    try:
        with path.open("rb") as stream:
            block = stream.read(_MAX_HEADER)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not block.startswith(b"NRRD000"):
        raise InputError(f"{path} is not a NRRD file", hint="the file looks damaged; copy or export it again")
    fields: dict[str, str] = {}
    names: list[str] = []
    position = 0
    while position < len(block):
        stop = block.find(b"\n", position)
        stop = len(block) if stop < 0 else stop
        line = block[position:stop].decode("utf-8", "replace").strip("\r")
        position = stop + 1
        if not line.strip():
            break
        if fields.get("data file", "").split()[:1] == ["LIST"]:
            names.append(line.strip())
            continue
        if line.startswith(("#", "NRRD000")) or ":=" in line:
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise InputError(f"{path}: NRRD header line {line[:60]!r}", expected="a field 'name: value'")
        name = name.strip().lower()
        fields[{"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip"}.get(name, name)] = (
            value.strip()
        )
    return Header(fields, names, min(position, len(block)))


def _vector(text: str) -> list[float] | None:
    text = text.strip()
    return None if text.lower() == "none" else [float(x) for x in text.strip("()").split(",")]


def _vectors(text: str) -> list[list[float] | None]:
    """``(1,0,0) none (0,1,0)`` to its vectors, whatever spaces are within the brackets."""
    parts = text.replace("(", " (").replace(")", ") ").replace(", ", ",").replace(" ,", ",").split()
    joined: list[str] = []
    for part in parts:
        if joined and joined[-1].startswith("(") and not joined[-1].endswith(")"):
            joined[-1] += part
        else:
            joined.append(part)
    return [_vector(part) for part in joined]


def _affine(path: Path, fields: dict[str, str], dimension: int) -> tuple[FloatArray, list[int], list[str]]:
    """Index (z, y, x) to LPS mm, which axes are in space, and what is odd."""
    warnings: list[str] = []
    if "space directions" not in fields:
        return _affine_without_space(path, fields, dimension)
    vectors = _vectors(fields["space directions"])
    if len(vectors) != dimension:
        raise InputError(f"{path}: space directions", got=fields["space directions"], expected=f"{dimension} vectors")
    kept = [axis for axis, vector in enumerate(vectors) if vector is not None]
    matrix = np.array([vectors[axis] for axis in kept], dtype=np.float64)
    if matrix.shape != (3, 3):
        raise InputError(
            f"{path}: image", got=f"{len(kept)} axes in space, sizes {fields['sizes']}", expected="one 3-D volume",
            hint="save the CT as a volume with three axes in space",
        )  # fmt: skip
    space = fields.get("space", "").strip().lower()
    signs = _SPACES.get(space)
    if signs is None:
        if "time" in space:
            raise InputError(f"{path}: space", got=space, expected="a space without time")
        signs = (1, 1, 1)
        warnings.append(
            f"{path}: the space is {space or 'not named'}, so that the orientation is unknown; taken as "
            "left-posterior-superior, left and right may be exchanged."
        )
    origin = _vector(fields["space origin"]) if "space origin" in fields else None
    if origin is None or len(origin) != 3:
        warnings.append(f"{path}: no space origin; positions are counted from the first voxel.")
        origin = [0.0, 0.0, 0.0]
    units = [unit.strip().lower() for unit in fields.get("space units", "").split('"')[1::2]] or ["", "", ""]
    if len(units) != 3 or any(unit not in _MM for unit in units):
        raise InputError(f"{path}: space units", got=fields["space units"], expected='"mm" "mm" "mm"')
    scale = np.array([_MM[unit] for unit in units]) * signs
    affine = np.eye(4)
    affine[:3, :3] = (matrix * scale).T[:, ::-1]
    affine[:3, 3] = np.array(origin) * scale
    return affine, kept, warnings


def _affine_without_space(
    path: Path, fields: dict[str, str], dimension: int
) -> tuple[FloatArray, list[int], list[str]]:
    spacings = [float(x) for x in fields.get("spacings", "").split()]
    if len(spacings) != dimension:
        raise InputError(
            f"{path}: neither space directions nor a spacing for each axis",
            hint="export the CT with its geometry; millimetres cannot be guessed",
        )
    kinds = fields.get("kinds", "").lower().split()
    out = {"vector", "list", "time", "rgb-color", "rgba-color", "3-color", "4-color", "complex", "scalar", "stub"}
    kept = [axis for axis in range(dimension) if len(kinds) != dimension or kinds[axis] not in out]
    warning = (
        f"{path}: no space directions, so that place and orientation are unknown; taken as LPS axes from the origin, "
        "left and right may be exchanged."
    )
    lengths = [spacings[axis] for axis in kept][:3]
    lengths += [1.0] * (3 - len(lengths))
    return np.diag([*lengths, 1.0])[:, [2, 1, 0, 3]], kept, [warning]


def _read_data(
    path: Path, header: Header, shape: tuple[int, int, int], dtype: np.dtype[np.generic]
) -> NDArray[np.generic]:
    fields = header.fields
    encoding = fields.get("encoding", "").strip().lower()
    if encoding not in _ENCODINGS and encoding not in _TEXT:
        raise InputError(f"{path}: NRRD encoding", got=encoding, expected="raw, gzip, bzip2, ascii or hex")
    try:
        lines, skip = int(fields.get("line skip", "0")), int(fields.get("byte skip", "0"))
    except ValueError as error:
        raise damaged(path, error) from error
    named = fields.get("data file", "")
    files = slice_files(path, named, header.data_files) if named else [path]
    if not files or shape[0] % len(files):
        raise InputError(f"{path}: its data files", got=len(files), expected=f"a number that divides {shape[0]} slices")
    part_shape = (shape[0] // len(files), shape[1], shape[2])
    voxels = int(np.prod(part_shape))
    parts = []
    for file in files:
        start = header.end if file == path else 0
        start = _after_lines(file, start, lines)
        if encoding in _TEXT:
            parts.append(_read_text(file, start, voxels, dtype, encoding).reshape(part_shape))
            continue
        count = voxels * dtype.itemsize
        if skip < 0:
            if encoding != "raw":
                raise InputError(f"{path}: byte skip", got=skip, expected="0 or more for compressed data")
            start, passed = max(file.stat().st_size - count, 0), 0
        else:
            passed = skip
        data = read_bytes(file, count, start=start, skip=passed, encoding=_ENCODINGS[encoding], exact=True)
        parts.append(np.frombuffer(data, dtype=dtype).reshape(part_shape))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _after_lines(path: Path, start: int, lines: int) -> int:
    """Where the data begin after so many lines."""
    if not lines:
        return start
    with path.open("rb") as stream:
        stream.seek(start)
        for _ in range(lines):
            if not stream.readline():
                break
        return stream.tell()


def _read_text(path: Path, start: int, voxels: int, dtype: np.dtype[np.generic], encoding: str) -> NDArray[np.generic]:
    data = path.read_bytes()[start:]
    try:
        if encoding == "hex":
            return np.frombuffer(bytes.fromhex(data.decode("ascii")), dtype=dtype)[:voxels].reshape(voxels)
        words = data.replace(b",", b" ").split(maxsplit=voxels)[:voxels]
        return np.array(words, dtype=np.float64).reshape(voxels)
    except ValueError as error:
        raise damaged(path, error) from error


def write(path: str | Path, volume: Volume) -> Path:
    """Write a volume as gzip-compressed NRRD with attached header, whole or not at all; it comes back exactly.

    Args:
        path: Ends in ``.nrrd``.
        volume: What to write.

    Returns:
        The path.

    Raises:
        InputError: Another ending.
    """
    path = Path(path)
    if path.suffix != ".nrrd":
        raise InputError(f"{path}", expected="a name that ends in .nrrd")
    array = volume.array_zyx
    affine = volume.geometry.affine_lps

    def vector(values: FloatArray) -> str:
        return "(" + ",".join(repr(float(x)) for x in values) + ")"

    header = "\n".join(
        [
            "NRRD0004",
            f"type: {'int16' if array.dtype == np.int16 else 'float'}",
            "dimension: 3",
            "space: left-posterior-superior",
            "sizes: " + " ".join(str(n) for n in reversed(array.shape)),
            "space directions: " + " ".join(vector(affine[:3, axis]) for axis in (2, 1, 0)),
            "kinds: domain domain domain",
            "endian: little",
            "encoding: gzip",
            'space units: "mm" "mm" "mm"',
            "space origin: " + vector(affine[:3, 3]),
        ]
    )
    with written_aside(path) as aside, aside.open("wb") as stream:
        stream.write(header.encode("ascii") + b"\n\n")
        with gzip.GzipFile(fileobj=stream, mode="wb", filename="", mtime=0, compresslevel=3) as packed:
            packed.write(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
    return path
