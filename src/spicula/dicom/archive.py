"""DICOM files wherever they lie: a folder of any depth, one file, or a zip that is never unpacked."""

from __future__ import annotations

import io
import os
import stat
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import pydicom
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from spicula.core.errors import InputError, SpiculaError

SEPARATOR = "!/"
"""Stands between a zip's path and the name of a member in it: ``scan.zip!/folder/file``."""

MAX_MEMBERS = 200_000
MAX_TOTAL_BYTES = 16 * 2**30
MAX_RATIO = 100
"""How many times larger than its compressed self a zip may be; CT compresses two to five times."""
RATIO_FREE_BYTES = 64 * 2**20
"""Below this unpacked size the ratio does not matter."""
MAX_INFLATED_BYTES = 2**28
"""How much a single deflated data set may unpack to; pydicom holds it in memory, twice for a moment."""

_PREAMBLE = 132


@dataclass(frozen=True, slots=True)
class Member:
    """One file: its path (``archive.zip!/inner/name`` in a zip) and its size in bytes."""

    path: str
    size: int


def files_in(root: Path) -> Iterator[Member]:
    """List the regular files under a folder, the members of a zip, or the one file given; sorted by path.

    Whether they are DICOM is not looked at. A zip within a folder or a zip is a file like any other.

    Args:
        root: A folder, a zip or a file.

    Yields:
        The files.

    Raises:
        InputError: Nothing is there, the folder or zip holds no file, a link leads out of the folder, or the zip is
            broken, encrypted, holds links or names that lead out of it, or unpacks to far more than it holds.
    """
    root = Path(root)
    if root.is_dir():
        members = _files_in_folder(root)
    elif root.is_file():
        members = _files_in_zip(root) if is_zip(root) else [Member(str(root), root.stat().st_size)]
    else:
        raise InputError(str(root), got="nothing there", expected="a DICOM folder, file or zip")
    if not members:
        raise InputError(str(root), got="no file in it", expected="DICOM files")
    yield from members


def is_zip(path: Path) -> bool:
    """Tell whether a file starts like a zip (``PK``), whatever its name."""
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return False


def open_dataset(path: str, *, pixels: bool) -> pydicom.Dataset:
    """Read one DICOM object, in a folder or in a zip.

    Args:
        path: A file's path or ``archive.zip!/inner/name``, as in ``Member.path`` and ``Instance.path``.
        pixels: Read the pixel data and what follows it too.

    Returns:
        The data set, with ``file_meta.TransferSyntaxUID`` set.

    Raises:
        InputError: The file is missing, is not DICOM, or is broken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return parse(path, pixels=pixels)
    except SpiculaError:
        raise
    except Exception as error:  # pydicom raises whatever a broken file makes it stumble over
        raise unreadable(path, error) from error


def unreadable(path: str, error: Exception) -> InputError:
    """The one message for a DICOM file that cannot be read."""
    what = " ".join(str(error).split())[:200] or "no more is known"
    return InputError(
        f"{path}: not a readable DICOM file ({type(error).__name__}: {what})",
        hint="it may be cut short or damaged: copy it again from its source",
    )


def parse(path: str, *, pixels: bool, tags: list[int] | None = None) -> pydicom.Dataset:
    """Like ``open_dataset``, but with the errors and warnings of pydicom as they come.

    Args:
        path: As for ``open_dataset``.
        pixels: Read the pixel data too.
        tags: Read these elements only.

    Returns:
        The data set.
    """
    with open_member(path) as file:
        head = file.read(_PREAMBLE)
        if not _looks_like_dicom(head):
            raise InputError(path, got="a file that is not DICOM", expected="a DICOM file")
        file.seek(0)
        _check_deflated(path, file)
        dataset = pydicom.dcmread(file, stop_before_pixels=not pixels, force=True, specific_tags=tags)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _guessed_syntax(dataset)
    return dataset


def open_member(path: str) -> IO[bytes]:
    """Open a file's bytes, in a folder or in a zip, for reading and seeking.

    Raises:
        InputError: It is not there, or cannot be opened.
    """
    archive, separator, name = path.partition(SEPARATOR)
    try:
        if separator and not Path(path).exists():
            container = _open_zip(archive)
            member = container.open(name)
            return io.BufferedReader(member, 2**16)  # type: ignore[type-var]
        return Path(path).open("rb")
    except SpiculaError:
        raise
    except (OSError, KeyError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise InputError(path, got=str(error) or type(error).__name__, expected="a file that can be opened") from error


def is_dicom(path: str) -> bool:
    """Tell whether a file starts like DICOM: ``DICM`` after the preamble, or an element of group 2 or 8."""
    with open_member(path) as file:
        try:
            return _looks_like_dicom(file.read(_PREAMBLE))
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise unreadable(path, error) from error


def _looks_like_dicom(head: bytes) -> bool:
    if head[128:132] == b"DICM":
        return True
    if len(head) < _PREAMBLE:
        return False
    little, big = (
        head[0:2] in (b"\x02\x00", b"\x08\x00") and head[3] == 0,
        head[0:3] in (b"\x00\x02\x00", b"\x00\x08\x00"),
    )
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    implicit = little and int.from_bytes(head[4:8], "little") <= 64
    return (little or big) and (explicit or implicit)


def _check_deflated(path: str, file: IO[bytes]) -> None:
    """Refuse a deflated data set that would inflate without end, before pydicom inflates it whole."""
    read_preamble(file, force=True)
    syntax = _read_file_meta_info(file).get("TransferSyntaxUID")  # as pydicom itself finds it, and where it ends
    if syntax == DeflatedExplicitVRLittleEndian:
        inflater, packed, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
        while not inflater.eof and (piece := file.read(2**16)):
            packed += len(piece)
            while piece:
                inflated += len(inflater.decompress(piece, 2**20))
                piece = inflater.unconsumed_tail
                if inflated > min(MAX_INFLATED_BYTES, max(RATIO_FREE_BYTES, MAX_RATIO * packed)):
                    got = f"a data set that inflates beyond {inflated / 2**20:.0f} MiB"
                    raise InputError(path, got=got, expected=f"at most {MAX_RATIO} times its bytes")
    file.seek(0)


def _guessed_syntax(dataset: Any) -> str:
    implicit, little = dataset.original_encoding
    if implicit:
        return str(pydicom.uid.ImplicitVRLittleEndian)
    return str(pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian)


def _files_in_folder(root: Path) -> list[Member]:
    real_root = root.resolve()
    members = []
    for folder, folders, names in os.walk(root, onerror=_raise):
        for name in folders:
            _refuse_link_out(Path(folder, name), real_root)
        for name in names:
            path = Path(folder, name)
            _refuse_link_out(path, real_root)
            facts = path.stat() if path.exists() else None
            if facts is not None and stat.S_ISREG(facts.st_mode):
                members.append(Member(str(path), facts.st_size))
    return sorted(members, key=lambda member: member.path)


def _raise(error: OSError) -> None:
    raise InputError(str(error.filename), got=error.strerror, expected="a folder that can be read") from error


def _refuse_link_out(path: Path, real_root: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(real_root):
        raise InputError(
            str(path),
            got=f"a link out of the folder, to {path.resolve()}",
            expected="files that lie within it",
            hint="give the folder that holds the files themselves",
        )


def _files_in_zip(path: Path) -> list[Member]:
    container = _open_zip(str(path))
    infos = [info for info in container.infolist() if not info.is_dir()]
    return sorted(
        (Member(f"{path}{SEPARATOR}{info.filename}", info.file_size) for info in infos), key=lambda member: member.path
    )


def _open_zip(path: str) -> zipfile.ZipFile:
    try:
        facts = Path(path).stat()
        return _checked_zip(path, facts.st_mtime_ns, facts.st_size)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        if isinstance(error, SpiculaError):
            raise
        raise InputError(path, got=f"a broken zip ({error})", expected="a zip that can be read") from error


@lru_cache(maxsize=2)
def _checked_zip(path: str, modified_ns: int, size: int) -> zipfile.ZipFile:
    """Open a zip once for all its members; the time and size make a changed file a new one."""
    container = zipfile.ZipFile(path)
    try:
        _check_zip(path, container.infolist())
    except InputError:
        container.close()
        raise
    return container


def _check_zip(path: str, infos: list[zipfile.ZipInfo]) -> None:
    for info in infos:
        name = info.filename.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or name[1:2] == ":":
            raise InputError(
                f"{path}: member {info.filename!r}", got="a name that leads out of the zip", expected="names within it"
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise InputError(f"{path}: member {info.filename!r}", got="a link", expected="files only")
        if info.flag_bits & 0x1:
            raise InputError(
                f"{path}: member {info.filename!r}", got="an encrypted member", hint="decrypt the zip first"
            )
    total = sum(info.file_size for info in infos)
    packed = sum(info.compress_size for info in infos)
    if packed > Path(path).stat().st_size:
        raise InputError(path, got="a zip whose members overlap", expected="members that each hold their own bytes")
    ratio = total / max(1, packed)
    if len(infos) > MAX_MEMBERS or total > MAX_TOTAL_BYTES or (total > RATIO_FREE_BYTES and ratio > MAX_RATIO):
        raise InputError(
            path,
            got=f"{len(infos)} members that would expand to {total / 2**20:.0f} MiB, {ratio:.0f} times the zip",
            expected=f"at most {MAX_MEMBERS} members, {MAX_TOTAL_BYTES / 2**20:.0f} MiB and a ratio of {MAX_RATIO}",
            hint="it may be a zip bomb; if you trust it, unpack it and give the folder",
        )
