"""From the bytes of a file to Hounsfield units on a grid: what every format shares, with the checks."""

from __future__ import annotations

import bz2
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import GeometryError, InputError
from spicula.core.geometry import FloatArray, Geometry
from spicula.core.volume import Acquisition, Volume

Encoding: TypeAlias = Literal["raw", "gzip", "zlib", "bzip2"]
HuArray: TypeAlias = NDArray[np.int16] | NDArray[np.float32]

MAX_VOXELS = 2**30
"""More than any CT has (1024 slices of 1024 x 1024); a header that says more is damaged."""

DAMAGED = (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error)
"""What the standard library raises on damaged bytes."""

_CHUNK = 1 << 22
_SPARE = 1 << 20
"""Bytes behind an image that are no sign of damage."""

_MAX_FILES = 10_000
_MAX_MM = 1e6
_MIN_SPACING_MM = 1e-3
_INT16 = np.iinfo(np.int16)


def check_shape(path: Path, shape_xyz: Sequence[int], *, components: int = 1) -> tuple[int, int, int]:
    """Accept the shape of one gray-level volume, or say what it is instead.

    Args:
        path: Named in the message.
        shape_xyz: Sizes as the header has them, the fastest axis first; trailing axes of one sample are dropped.
        components: Values in each voxel.

    Returns:
        The shape in the order z, y, x.

    Raises:
        InputError: Empty, of other than three dimensions, with several values a voxel, or absurdly large.
    """
    sizes = [int(n) for n in shape_xyz]
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    expected = "one 3-D volume of one value a voxel"
    if components != 1:
        raise InputError(
            f"{path}: image", got=f"{components} values a voxel (color or vectors)", expected=expected,
            hint="save the CT itself, not a picture of it",
        )  # fmt: skip
    if len(sizes) != 3:
        raise InputError(
            f"{path}: image", got=f"{len(sizes)}-D data of shape {tuple(sizes)}", expected=expected,
            hint="save each time point or channel as a file of its own",
        )  # fmt: skip
    if min(sizes) < 1:
        raise InputError(f"{path}: image", got=f"an empty volume of shape {tuple(sizes)}", expected=expected)
    voxels = sizes[0] * sizes[1] * sizes[2]
    if voxels > MAX_VOXELS:
        raise InputError(
            f"{path}: image", got=f"{voxels} voxels of shape {tuple(sizes)}", expected=f"at most {MAX_VOXELS}",
            hint="the header looks damaged",
        )  # fmt: skip
    return sizes[2], sizes[1], sizes[0]


def read_bytes(
    path: Path, count: int, *, start: int = 0, skip: int = 0, encoding: Encoding = "raw", exact: bool = False
) -> bytearray:
    """Read exactly so many bytes of data, decompressed; memory is taken only for bytes that are there.

    Args:
        path: The file.
        count: Number of bytes wanted.
        start: Where the (compressed) data begin in the file.
        skip: Bytes to pass over after decompression.
        encoding: How the data are compressed.
        exact: Refuse compressed data that go on: a file whose end was overwritten, for example by a download that
            was broken off, unpacks to more and never reaches its checksum.

    Returns:
        The bytes, writable.

    Raises:
        InputError: The file ends early or is damaged.
    """
    found = bytearray()
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            for chunk in _decompressed(stream, encoding, count + skip, exact=exact):
                found += chunk
    except DAMAGED as error:
        raise damaged(path, error) from error
    if len(found) < count + skip:
        raise InputError(
            f"{path}: the image is cut short", got=f"{max(len(found) - skip, 0)} bytes", expected=f"{count} bytes",
            hint="copy or export the file again",
        )  # fmt: skip
    if skip:
        del found[:skip]
    return found


def damaged(path: Path, error: Exception) -> InputError:
    """The error for a file that cannot be decoded."""
    reason = str(error) or type(error).__name__
    return InputError(f"{path} cannot be read: {reason}", hint="the file looks damaged; copy or export it again")


def _decompressed(stream: BinaryIO, encoding: Encoding, count: int, *, exact: bool) -> Iterator[bytes]:
    """Chunks of the decompressed stream, ``count`` bytes in all at most; checksums at the end are verified."""
    if encoding == "zlib":
        yield from _inflated(stream, count, exact=exact)
        return
    source: BinaryIO | gzip.GzipFile | bz2.BZ2File = stream
    if encoding == "gzip":
        source = gzip.GzipFile(fileobj=stream)
    elif encoding == "bzip2":
        source = bz2.BZ2File(stream)
    left = count
    while left > 0 and (chunk := source.read(min(left, _CHUNK))):
        left -= len(chunk)
        yield chunk
    if encoding != "raw" and len(source.read(_SPARE + 1 if exact else 1)) > _SPARE:
        raise ValueError("more data than its header says, or its end was overwritten")


def _inflated(stream: BinaryIO, count: int, *, exact: bool) -> Iterator[bytes]:
    inflater = zlib.decompressobj(wbits=47)
    left = count
    waiting = b""
    while left > 0 and not inflater.eof:
        waiting = inflater.unconsumed_tail or stream.read(_CHUNK)
        if not waiting:
            return
        chunk = inflater.decompress(waiting, min(left, _CHUNK))
        left -= len(chunk)
        yield chunk
    while not inflater.eof and (waiting := inflater.unconsumed_tail or stream.read(_CHUNK)):
        if inflater.decompress(waiting, _CHUNK):
            if exact:
                raise ValueError("more data than its header says, or its end was overwritten")
            return


def beside(header: Path, name: str) -> Path:
    """The data file that a header names, which must lie in the header's folder or below.

    Raises:
        InputError: It lies elsewhere, or there is none.
    """
    path = header.parent / name
    root = header.parent.resolve()
    try:
        inside = path.resolve().is_relative_to(root)
        exists = inside and path.is_file()
    except (OSError, ValueError) as error:
        raise damaged(header, error) from error
    if not inside:
        raise InputError(
            f"{header}: its data file", got=name, expected="a file in the folder of the header",
            hint="put both into one folder and name the data file without a path",
        )  # fmt: skip
    if not exists:
        raise InputError(f"{header}: its data file {name!r} is missing", hint=f"put it into {header.parent}")
    return path


def slice_files(header: Path, named: str, listed: Sequence[str]) -> list[Path]:
    """The data files of a detached header: one name, ``LIST`` (then ``listed``), or ``name%03d.raw first last step``.

    Args:
        header: The header's file.
        named: What it says of its data files.
        listed: The lines after ``LIST``.

    Returns:
        The files, in order.

    Raises:
        InputError: A file is missing or lies outside the header's folder, or the pattern makes no sense.
    """
    words = named.split()
    if words[:1] == ["LIST"]:
        if len(words) > 1 and words[1] != "2":
            raise InputError(f"{header}: its data files", got=named, expected="one file for each slice")
        return [beside(header, name) for name in listed[:_MAX_FILES]]
    if "%" not in named or len(words) < 3:
        return [beside(header, named)]
    try:
        first, last, step = (int(word) for word in (*words[1:4], "1")[:3])
        numbers = range(first, last + (1 if step > 0 else -1), step)
    except ValueError as error:
        raise damaged(header, error) from error
    if not re.fullmatch(r"[^%]*%0?\d?d[^%]*", words[0]) or len(numbers) > _MAX_FILES:
        raise InputError(
            f"{header}: its data files", got=named[:200], expected="a pattern such as slice%03d.raw 1 99 1"
        )
    return [beside(header, words[0] % number) for number in numbers]


def to_hu(path: Path, stored: NDArray[np.generic], *, slope: float = 1.0, intercept: float = 0.0) -> HuArray:
    """Apply slope and intercept; int16 where that is exact, else float32.

    Args:
        path: Named in messages.
        stored: Numbers as the file has them, any shape.
        slope: HU for each stored unit.
        intercept: HU of a stored zero.

    Returns:
        The values in HU, C-contiguous, in the machine's byte order.

    Raises:
        InputError: The numbers are not real, or slope and intercept are unusable.
    """
    if stored.dtype.kind not in "iufb":
        raise InputError(f"{path}: voxels of type {stored.dtype}", expected="real numbers in Hounsfield units")
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0:
        raise InputError(f"{path}: rescale", got=f"slope {slope}, intercept {intercept}", expected="finite numbers")
    if stored.dtype.kind == "i" and stored.dtype.itemsize == 2 and slope == 1 and intercept == 0:
        return np.ascontiguousarray(stored, dtype=np.int16)
    with np.errstate(over="ignore", invalid="ignore"):
        whole = _whole(stored, slope, intercept)
        if whole is not None:
            return whole
        exact = np.empty(stored.shape, dtype=np.float32)
        for index, part in enumerate(stored):
            exact[index] = part.astype(np.float64) * slope + intercept
    return exact


def _whole(stored: NDArray[np.generic], slope: float, intercept: float) -> NDArray[np.int16] | None:
    """The values as int16 if every one is a whole number in range, slice by slice."""
    whole = np.empty(stored.shape, dtype=np.int16)
    for index, part in enumerate(stored):
        values = part.astype(np.float64) * slope + intercept
        rounded = np.clip(np.nan_to_num(values), _INT16.min, _INT16.max).round()
        if not np.array_equal(rounded, values):
            return None
        whole[index] = rounded
    return whole


def make_volume(
    path: Path, array_zyx: HuArray, affine_lps: FloatArray, *, format_name: str, warnings: Sequence[str] = ()
) -> Volume:
    """Join values and grid, naming the file where either is unusable.

    Args:
        path: The file they come from.
        array_zyx: HU.
        affine_lps: ``[4, 4]``, index (z, y, x) to LPS mm.
        format_name: For example ``"NRRD"``.
        warnings: What was odd and tolerated.

    Returns:
        The volume.

    Raises:
        InputError: The grid makes no sense, or there are NaN or infinite voxels.
    """
    geometry = make_grid(path, array_zyx.shape, affine_lps)
    check_finite(path, array_zyx, geometry)
    notes = list(warnings)
    if geometry.is_sheared:
        notes.append(f"{path}: the axes are not perpendicular (a gantry tilt, or a damaged header); kept as they are.")
    return Volume(array_zyx, geometry, acquisition=Acquisition(str(path), format_name), warnings=tuple(notes))


def make_grid(path: Path, shape_zyx: Sequence[int], affine_lps: FloatArray) -> Geometry:
    """The grid that a header tells.

    Args:
        path: The file.
        shape_zyx: Number of voxels along each axis.
        affine_lps: ``[4, 4]``, index (z, y, x) to LPS mm.

    Returns:
        The grid.

    Raises:
        InputError: It makes no sense; names the file.
    """
    hint = "the header looks damaged; export the file again"
    spacing = np.abs(affine_lps[:3, :3]).max(axis=0)
    if not np.abs(affine_lps).max() < _MAX_MM or not spacing.min() > _MIN_SPACING_MM:
        raise InputError(
            f"{path}: grid", got=np.asarray(affine_lps).tolist(), expected="a place and spacing in mm", hint=hint
        )
    try:
        return Geometry((shape_zyx[0], shape_zyx[1], shape_zyx[2]), affine_lps)
    except GeometryError as error:
        raise InputError(f"{path}: {error}", hint=hint) from error


def check_length(path: Path, found: int, least: int) -> None:
    """Refuse a file that holds fewer bytes than its header says.

    Args:
        path: The file.
        found: Bytes that are there.
        least: Bytes that must be.

    Raises:
        InputError: There are fewer.
    """
    if found < least:
        raise InputError(
            f"{path}: the image is cut short", got=f"{found} bytes", expected=f"{least} bytes",
            hint="copy or export the file again",
        )  # fmt: skip


def check_finite(path: Path, array_zyx: HuArray, geometry: Geometry) -> None:
    """Refuse NaN and infinite voxels.

    Raises:
        InputError: Says how many there are and where the first one is.
    """
    if array_zyx.dtype.kind != "f":
        return
    wrong = ~np.isfinite(array_zyx)
    if not wrong.any():
        return
    first = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    x, y, z = geometry.index_to_world(first)
    raise InputError(
        f"{path}: Hounsfield units",
        got=f"{np.count_nonzero(wrong)} NaN or infinite voxels, the first at ({x:.1f}, {y:.1f}, {z:.1f}) mm LPS "
        f"(slice {first[0]}, row {first[1]}, column {first[2]})",
        expected="finite numbers",
        hint="replace them by -1024 (air) where they are padding",
    )


def check_plausible(volume: Volume, *, path: Path) -> None:
    """Refuse values that cannot be Hounsfield units of a chest or of a piece of lung.

    At least one voxel in a thousand must be air or lung (under -500 HU; values under -1500 are padding and do not
    count), and on volumes wide enough to hold a body one in a hundred must be soft tissue (-200 to 300 HU). That holds
    for whole chests and for small volumes around a nodule, and fails for 8-bit pictures, for values scaled to
    0..1 or -1..1 and for raw values without their rescale offset.

    Args:
        volume: What was read.
        path: Named in the message.

    Raises:
        InputError: Says the range of the values and what is the likely cause.
    """
    values = volume.array_zyx[:: max(1, volume.array_zyx.shape[0] // 64)]
    counted = int(np.count_nonzero(values >= -1500))
    air = int(np.count_nonzero((values >= -1500) & (values < -500)))
    tissue = int(np.count_nonzero((values >= -200) & (values <= 300)))
    extents = [n * mm for n, mm in zip(volume.geometry.shape_zyx, volume.geometry.spacing_zyx_mm, strict=True)]
    body = sorted(extents)[1] > 200
    if counted and air >= counted / 1000 and (not body or tissue >= counted / 100):
        return
    low, high = float(volume.array_zyx.min()), float(volume.array_zyx.max())
    if low >= -1 and high <= 1:
        cause = "the values were scaled to 0..1 or -1..1, or this is a label image; give the original CT"
    elif low >= -128 and high <= 255:
        cause = "this is an 8-bit picture of a CT, its Hounsfield units are lost; export the original CT"
    elif low >= 0:
        cause = "the rescale intercept was lost (often -1024); export the CT with its Hounsfield units"
    else:
        cause = "export the CT with its Hounsfield units; other modalities and label images are not read"
    raise InputError(
        f"{path}: Hounsfield units are implausible",
        got=f"values from {low:g} to {high:g}, {air / max(counted, 1):.1%} under -500, "
        f"{tissue / max(counted, 1):.1%} from -200 to 300",
        expected="a chest CT or a piece of lung, with air near -1000 and soft tissue near 0",
        hint=cause,
    )
