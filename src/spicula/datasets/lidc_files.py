"""Where the reading files of LIDC-IDRI are: in an archive or in folders; each as its bytes."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeAlias

from spicula.core.errors import InputError

MAX_FILE_BYTES = 64 * 2**20
"""The largest published reading file has 2.2 MB."""

Broken: TypeAlias = Callable[[InputError], None]
"""Told of what cannot be read."""

_ARCHIVES = (".tar.xz", ".tar.gz", ".tgz", ".tar", ".zip")
_DAMAGED = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, RuntimeError)


def find_archive(root: Path) -> Path | None:
    """The archive of reading files in a folder: a tar or zip whose name has both ``lidc`` and ``xml`` in it."""
    named = sorted(path for path in root.iterdir() if path.name.lower().endswith(_ARCHIVES) and path.is_file())
    found = [path for path in named if "xml" in path.name.lower() and "lidc" in path.name.lower()]
    return found[0] if found else None


def has_readings(root: Path) -> bool:
    """Tell whether a folder holds an archive of reading files, or a file whose name ends in ``.xml``."""
    return find_archive(root) is not None or any(path.suffix.lower() == ".xml" for path in root.rglob("*"))


def reading_files(root: Path, *, broken: Broken | None = None) -> Iterator[tuple[str, bytes]]:
    """Every reading file, as it is.

    Args:
        root: ``tcia-lidc-xml.tar.xz`` or another tar or zip of them, one file, a folder that holds such an archive,
            or else a folder with ``.xml`` files at any depth.
        broken: Told of each file that cannot be read, which is then left out; None raises at the first. What lies
            behind the place where a tar is damaged cannot be reached: it is told of once.

    Yields:
        Where it is from and its bytes: of a folder in the order of the paths, of an archive in its own.

    Raises:
        InputError: Nothing is there, no file is an XML file, or, without ``broken``, one cannot be read.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root}: no such file or folder", hint="name tcia-lidc-xml.tar.xz or the folder that has it")
    archive = find_archive(root) if root.is_dir() else root
    seen = False

    def tell(error: InputError) -> None:
        nonlocal seen
        seen = True
        if broken is None:
            raise error
        broken(error)

    for item in _files(root, archive, tell):
        seen = True
        yield item
    if not seen:
        raise InputError(f"{archive or root}", got="no .xml file in it", expected="the reading files of LIDC-IDRI")


def _files(root: Path, archive: Path | None, broken: Broken) -> Iterator[tuple[str, bytes]]:
    if archive is None:
        return _in_folder(root, broken)
    name = archive.name.lower()
    if not name.endswith(_ARCHIVES):
        return iter([(str(archive), archive.read_bytes())])
    return _in_zip(archive, broken) if name.endswith(".zip") else _in_tar(archive, broken)


def _in_folder(root: Path, broken: Broken) -> Iterator[tuple[str, bytes]]:
    """Links that lead nowhere are told of too: they were meant to be readings."""
    for path in sorted(path for path in root.rglob("*") if path.suffix.lower() == ".xml" and not path.is_dir()):
        try:
            content = path.read_bytes()
        except OSError as error:
            link = "a link that leads nowhere" if path.is_symlink() and not path.exists() else error.strerror or error
            broken(InputError(f"{path} cannot be read: {link}"))
            continue
        yield str(path), content


def _in_zip(archive: Path, broken: Broken) -> Iterator[tuple[str, bytes]]:
    """Members are read, never unpacked; each has its own checksum, so the others are read where one is damaged."""
    try:
        container = zipfile.ZipFile(archive)
    except _DAMAGED as error:
        broken(_damaged(f"{archive}", error))
        return
    with container:
        for info in container.infolist():
            if not _wanted(info.filename):
                continue
            source = f"{archive}!/{info.filename}"
            try:
                _check_size(source, info.file_size)
                content = container.read(info)
            except InputError as error:
                broken(error)
            except _DAMAGED as error:
                broken(_damaged(source, error))
            else:
                yield source, content


class _Header(tarfile.TarInfo):
    """A header that is cut short or damaged is an error; ``tarfile`` takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):  # the end mark
                raise
            words = "the archive ends here, without its end mark" if len(buf) < tarfile.BLOCKSIZE else str(error)
            raise tarfile.ReadError(words) from error


def _in_tar(archive: Path, broken: Broken) -> Iterator[tuple[str, bytes]]:
    """Members are read, never unpacked; links among them are passed over. Nothing can be read behind a damage."""
    where = f"{archive}"
    try:
        with tarfile.open(archive, tarinfo=_Header) as tar:
            for member in tar:
                if not (member.isfile() and _wanted(member.name)):
                    continue
                source = f"{archive}!/{member.name}"
                try:
                    _check_size(source, member.size)
                except InputError as error:
                    broken(error)
                    continue
                where = source
                yield source, (tar.extractfile(member) or io.BytesIO()).read()
                where = f"{archive}, behind {member.name}"
            while tar.fileobj and tar.fileobj.read(2**20):  # the checksum comes last
                pass
    except _DAMAGED as error:
        broken(_damaged(where, error, "; nothing behind it can be read"))


def _damaged(where: str, error: Exception, consequence: str = "") -> InputError:
    return InputError(f"{where} cannot be read: {error}{consequence}", hint="fetch the archive again from its source")


def _wanted(name: str) -> bool:
    return name.lower().endswith(".xml")


def _check_size(source: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise InputError(source, got=f"{size} bytes", expected=f"a reading file, {MAX_FILE_BYTES} at most")
