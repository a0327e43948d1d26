"""NIfTI-1 and NIfTI-2, .nii and .nii.gz; the headers through nibabel.

References:
    https://nifti.nimh.nih.gov/nifti-1 (qform, sform, units); world coordinates there are RAS.
"""

from __future__ import annotations

import gzip
import io
import logging
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from spicula.core.errors import InputError
from spicula.core.files import written_aside
from spicula.core.geometry import RAS_TO_LPS, FloatArray, Geometry
from spicula.core.volume import Volume
from spicula.formats.pixels import (
    DAMAGED,
    Encoding,
    check_length,
    check_shape,
    damaged,
    make_grid,
    make_volume,
    read_bytes,
    to_hu,
)

_HEADERS = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
_MAGIC = {348: b"n+1\0", 540: b"n+2\0"}
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres in the spatial unit of each ``xyzt_units`` code (unknown, metre, millimetre, micron)."""

_MAX_OFFSET = 1 << 24
_REFUSED = (HeaderDataError, WrapStructError, KeyError, TypeError, *DAMAGED)
_quiet = logging.getLogger("spicula.nifti.header")
_quiet.disabled = True


def read(path: str | Path) -> Volume:
    """Read one NIfTI file.

    The sform counts where its code is not 0, else the qform; where both codes are 0 the axes are taken as LPS from the
    origin, as ITK does, with a warning.

    Args:
        path: The file, ``.nii`` or ``.nii.gz``.

    Returns:
        Its volume in HU, slope and intercept applied.

    Raises:
        InputError: The file is damaged, or is not one gray-level volume in real numbers.
    """
    path = Path(path)
    layout = _layout(path)
    data = read_bytes(path, layout.bytes, skip=layout.start, encoding=layout.encoding, exact=True)
    stored = np.frombuffer(data, dtype=layout.dtype).reshape(layout.shape)
    array = to_hu(path, stored, slope=layout.slope, intercept=layout.intercept)
    return make_volume(path, array, layout.affine, format_name="NIfTI", warnings=layout.warnings)


def look(path: str | Path) -> Geometry:
    """Read the header alone and see whether the data are there in full (compressed data: whether there are any).

    Args:
        path: As for :func:`read`.

    Returns:
        The grid.

    Raises:
        InputError: The header is damaged, or data are cut short.
    """
    path = Path(path)
    layout = _layout(path)
    whole = layout.start + layout.bytes if layout.encoding == "raw" else 1
    check_length(path, path.stat().st_size, whole)
    return make_grid(path, layout.shape, layout.affine)


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a header says of grid and data, checked."""

    shape: tuple[int, int, int]
    affine: FloatArray
    warnings: list[str]
    dtype: np.dtype[np.generic]
    slope: float
    intercept: float
    start: int
    encoding: Encoding

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


def _layout(path: Path) -> _Layout:
    encoding: Encoding = "gzip" if _starts_with(path, b"\x1f\x8b") else "raw"
    header = _read_header(path, encoding)
    try:
        dtype = header.get_data_dtype()
        components = len(dtype) if dtype.names else 1
        shape = check_shape(path, header.get_data_shape(), components=components)
        slope, intercept = header.get_slope_inter()
        affine, warnings = _affine(path, header)
        start = int(header.get_data_offset())
    except InputError:
        raise
    except _REFUSED as error:
        raise damaged(path, error) from error
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: voxels of type {dtype}", expected="real numbers in Hounsfield units")
    if not header.sizeof_hdr <= start <= _MAX_OFFSET:
        raise InputError(f"{path}: voxel offset", got=start, expected=f"{header.sizeof_hdr} to {_MAX_OFFSET}")
    return _Layout(shape, affine, warnings, dtype, 1.0 if slope is None else slope, intercept or 0.0, start, encoding)


def _starts_with(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(magic)) == magic
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _read_header(path: Path, encoding: Encoding) -> nibabel.Nifti1Header:
    """Parse the header after checking its size and magic; extensions are passed over."""
    first = bytes(read_bytes(path, 4, encoding=encoding))
    size = {int.from_bytes(first, order): order for order in ("little", "big")}
    known = [n for n in _HEADERS if n in size]
    if not known:
        raise InputError(f"{path} is not a NIfTI file", hint="the file looks damaged; copy or export it again")
    block = bytes(read_bytes(path, known[0], encoding=encoding))
    magic = block[344:348] if known[0] == 348 else block[4:8]
    if magic != _MAGIC[known[0]]:
        raise InputError(
            f"{path} is not a single NIfTI file", got=f"magic {magic!r}", expected=repr(_MAGIC[known[0]]),
            hint="convert a pair of .hdr and .img to .nii.gz",
        )  # fmt: skip
    try:
        header = _HEADERS[known[0]](block, "<" if size[known[0]] == "little" else ">", check=False)
        header.check_fix(logger=_quiet, error_level=40)
    except _REFUSED as error:
        raise damaged(path, error) from error
    return header


def _affine(path: Path, header: nibabel.Nifti1Header) -> tuple[FloatArray, list[str]]:
    """Index (z, y, x) to LPS mm, with what is odd about it."""
    warnings = []
    unit = _MM.get(int(header["xyzt_units"]) & 7)
    if unit is None:
        raise InputError(f"{path}: xyzt_units", got=int(header["xyzt_units"]), expected="metre, millimetre or micron")
    if unit != 1:
        name = "metres" if unit > 1 else "microns"
        warnings.append(f"{path}: the header gives positions in {name}; turned into millimetres.")
    to_mm = np.diag([unit, unit, unit, 1.0])
    has_sform, has_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    if not has_sform and not has_qform:
        warnings.append(
            f"{path}: neither qform nor sform is set, so that the place and orientation are unknown; taken as LPS axes "
            "from the origin, left and right may be exchanged."
        )
        spacing = np.array(header.get_zooms()[:3], dtype=np.float64) * unit
        return np.diag([*spacing, 1.0])[:, [2, 1, 0, 3]], warnings
    affine = header.get_sform() if has_sform else header.get_qform()
    if has_sform and has_qform:
        corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
        corners[:, :3] *= np.array(header.get_data_shape()[:3]) - 1
        apart = np.linalg.norm((corners @ (affine - header.get_qform()).T)[:, :3], axis=1).max() * unit
        if not apart <= 0.5:
            warnings.append(f"{path}: qform and sform disagree by up to {apart:.1f} mm; the sform is used.")
    return (RAS_TO_LPS @ to_mm @ affine)[:, [2, 1, 0, 3]], warnings


def write(path: str | Path, volume: Volume) -> Path:
    """Write a volume as NIfTI-1, whole or not at all.

    Voxels come back exactly; NIfTI-1 keeps positions in single precision (to about 0.0001 mm).

    Args:
        path: ``.nii.gz`` (compressed) or ``.nii``.
        volume: What to write.

    Returns:
        The path.

    Raises:
        InputError: Another ending.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{path}", expected="a name that ends in .nii.gz or .nii")
    affine = RAS_TO_LPS @ volume.geometry.affine_lps[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(volume.array_zyx.T, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=0 if volume.geometry.is_sheared else 1)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1, 0)
    with written_aside(path) as aside, aside.open("wb") as stream:
        if path.name.endswith(".gz"):
            with gzip.GzipFile(fileobj=stream, mode="wb", filename="", mtime=0, compresslevel=3) as packed:
                packed.write(_serialized(image))
        else:
            stream.write(_serialized(image))
    return path


def _serialized(image: nibabel.Nifti1Image) -> bytes:
    stream = io.BytesIO()
    image.to_stream(stream)
    return stream.getvalue()
