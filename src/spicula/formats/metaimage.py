"""MetaImage: .mha, and .mhd with its data beside it.

References:
    https://itk.org/Wiki/MetaIO/Documentation (tags); world coordinates there are LPS, as in ITK.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.geometry import FloatArray, Geometry
from spicula.core.volume import Volume
from spicula.formats.pixels import (
    check_length,
    check_shape,
    damaged,
    make_grid,
    make_volume,
    read_bytes,
    slice_files,
    to_hu,
)

TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
"""Element types of the format with numpy's codes."""

_MM = {"mm": 1.0, "cm": 10.0, "um": 0.001, "?": 1.0}
_MAX_HEADER = 1 << 16


@dataclass(frozen=True, slots=True)
class Header:
    """Tags of a header, the names that follow ``ElementDataFile = LIST``, and where local data begin."""

    tags: dict[str, str]
    names: list[str]
    end: int

    def numbers(self, *names: str) -> list[float]:
        """The numbers of the first of some tags that is there, else none."""
        for name in names:
            if name in self.tags:
                return [float(x) for x in self.tags[name].split()]
        return []

    def flag(self, *names: str) -> bool:
        """Whether the first of some tags that is there is true."""
        return next((self.tags[n].lower() in ("true", "1") for n in names if n in self.tags), False)


def read(path: str | Path) -> Volume:
    """Read one MetaImage file.

    Args:
        path: ``.mha``, or ``.mhd`` with its data in the same folder.

    Returns:
        Its volume in HU, ``ElementToIntensityFunction`` slope and offset applied.

    Raises:
        InputError: The file is damaged, or is not one gray-level volume in real numbers.
    """
    path = Path(path)
    header = _read_header(path)
    layout = _layout(path, header)
    stored = _read_data(path, header, layout)
    array = to_hu(path, stored, slope=layout.slope, intercept=layout.intercept)
    return make_volume(path, array, layout.affine, format_name="MetaImage", warnings=layout.warnings)


def look(path: str | Path) -> Geometry:
    """Read the header alone and see whether the data are there in full (compressed data: whether there are any).

    Args:
        path: As for :func:`read`.

    Returns:
        The grid.

    Raises:
        InputError: The header is damaged, or data are missing or cut short.
    """
    path = Path(path)
    header = _read_header(path)
    layout = _layout(path, header)
    compressed = header.flag("CompressedData")
    part = layout.bytes // len(layout.files)
    if compressed:
        said = header.tags.get("CompressedDataSize", "")
        part = int(said) if said.isdigit() and len(layout.files) == 1 else 1
    for file in layout.files:
        start = header.end if file == path else max(layout.header_size, 0)
        check_length(file, max(file.stat().st_size - start, 0), part)
    return make_grid(path, layout.shape, layout.affine)


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a header says of grid and data, checked; ``files`` hold an equal number of slices each."""

    shape: tuple[int, int, int]
    affine: FloatArray
    warnings: list[str]
    dtype: np.dtype[np.generic]
    slope: float
    intercept: float
    header_size: int
    files: list[Path]

    @property
    def bytes(self) -> int:
        """Of all data, uncompressed."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def _layout(path: Path, header: Header) -> _Layout:
    try:
        sizes = [int(n) for n in header.tags["DimSize"].split()]
        dimension = int(header.tags.get("NDims", len(sizes)))
        code = TYPES.get(header.tags["ElementType"])
        components = int(header.tags.get("ElementNumberOfChannels", "1"))
        slope, intercept = (
            (header.numbers(f"ElementToIntensityFunction{name}") or [default])[0]
            for name, default in (("Slope", 1.0), ("Offset", 0.0))
        )
        if len(sizes) != dimension:
            raise ValueError(f"DimSize has {len(sizes)} numbers for NDims = {dimension}")
        shape = check_shape(path, sizes, components=components)
        affine, warnings = _affine(path, header, dimension)
        header_size = int(header.tags.get("HeaderSize", "0"))
    except KeyError as error:
        raise InputError(f"{path}: the MetaImage header lacks {error}", hint="export the file again") from error
    except InputError:
        raise
    except (ValueError, IndexError, OverflowError) as error:
        raise damaged(path, error) from error
    if code is None:
        raise InputError(
            f"{path}: ElementType", got=header.tags["ElementType"], expected="a type of real numbers, one a voxel"
        )
    if header.tags.get("BinaryData", "True").lower() in ("false", "0"):
        raise InputError(f"{path}: BinaryData = False", expected="binary data", hint="save the image in binary form")
    big = header.flag("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    dtype: np.dtype[np.generic] = np.dtype((">" if big else "<") + code)
    named = header.tags["ElementDataFile"]
    files = [path] if named.upper() == "LOCAL" else slice_files(path, named, header.names)
    if not files or shape[0] % len(files):
        raise InputError(f"{path}: its data files", got=len(files), expected=f"a number that divides {shape[0]} slices")
    return _Layout(shape, affine, warnings, dtype, slope, intercept, header_size, files)


def _read_header(path: Path) -> Header:
    try:
        with path.open("rb") as stream:
            block = stream.read(_MAX_HEADER)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    tags: dict[str, str] = {}
    position = 0
    while position < len(block) and "ElementDataFile" not in tags:
        stop = block.find(b"\n", position)
        stop = len(block) if stop < 0 else stop
        line = block[position:stop].decode("utf-8", "replace").strip()
        position = stop + 1
        if not line:
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise InputError(
                f"{path} is not a MetaImage file", got=f"header line {line[:60]!r}", expected="'tag = value'"
            )
        tags[name.strip()] = value.strip()
    if "ElementDataFile" not in tags:
        raise InputError(f"{path} is not a MetaImage file", expected="a header that ends with ElementDataFile")
    rest = block[position:].decode("utf-8", "replace").split("\n") if tags["ElementDataFile"].startswith("LIST") else []
    return Header(tags, [name.strip() for name in rest if name.strip()], min(position, len(block)))


def _affine(path: Path, header: Header, dimension: int) -> tuple[FloatArray, list[str]]:
    """Index (z, y, x) to LPS mm, with what is odd."""
    warnings = []
    spacing = header.numbers("ElementSpacing", "ElementSize")
    if len(spacing) != dimension:
        raise InputError(
            f"{path}: no ElementSpacing for each axis", hint="export the CT with its geometry; it cannot be guessed"
        )
    origin = header.numbers("Offset", "Position", "Origin")
    if len(origin) != dimension:
        warnings.append(f"{path}: no Offset; positions are counted from the first voxel.")
        origin = [0.0] * dimension
    matrix = header.numbers("TransformMatrix", "Rotation", "Orientation")
    if len(matrix) != dimension**2:
        warnings.append(f"{path}: no TransformMatrix; the axes are taken as LPS.")
        matrix = np.eye(dimension).ravel().tolist()
    for name, given in (("ElementSpacing", spacing), ("Offset", origin), ("TransformMatrix", matrix)):
        if not np.isfinite(given).all():
            raise InputError(f"{path}: {name}", got=" ".join(map(str, given)), expected="finite numbers")
    unit = _MM.get(header.tags.get("DistanceUnits", "mm"))
    if unit is None:
        raise InputError(f"{path}: DistanceUnits", got=header.tags["DistanceUnits"], expected="mm, cm or um")
    axes = np.array(matrix).reshape(dimension, dimension)[:3, :3] * np.array(spacing)[:3, None]
    affine = np.eye(4)
    affine[:3, :3] = axes.T[:, ::-1] * unit
    affine[:3, 3] = np.array(origin)[:3] * unit
    return affine, warnings


def _read_data(path: Path, header: Header, layout: _Layout) -> NDArray[np.generic]:
    shape = layout.shape
    part_shape = (shape[0] // len(layout.files), shape[1], shape[2])
    count = int(np.prod(part_shape)) * layout.dtype.itemsize
    compressed = header.flag("CompressedData")
    parts = []
    for file in layout.files:
        start = header.end if file == path else max(layout.header_size, 0)
        if layout.header_size == -1 and not compressed:
            start = max(file.stat().st_size - count, 0)
        data = read_bytes(file, count, start=start, encoding="zlib" if compressed else "raw", exact=compressed)
        parts.append(np.frombuffer(data, dtype=layout.dtype).reshape(part_shape))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
