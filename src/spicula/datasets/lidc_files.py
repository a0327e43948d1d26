"""Where the reading files of LIDC-IDRI are: in an archive or in folders; each as its bytes."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from spicula.core.errors import InputError

MAX_FILE_BYTES = 64 * 2**20
"""The largest published reading file has 2.2 MB."""

_ARCHIVES = (".tar.xz", ".tar.gz", ".tgz", ".tar", ".zip")


def find_archive(root: Path) -> Path | None:
    """The archive of reading files in a folder: a tar or zip whose name has both ``lidc`` and ``xml`` in it."""
    named = sorted(path for path in root.iterdir() if path.name.lower().endswith(_ARCHIVES) and path.is_file())
    found = [path for path in named if "xml" in path.name.lower() and "lidc" in path.name.lower()]
    return found[0] if found else None


def has_readings(root: Path) -> bool:
    """Tell whether a folder holds an archive of reading files, or a file whose name ends in ``.xml``."""
    return find_archive(root) is not None or any(path.suffix.lower() == ".xml" for path in root.rglob("*"))


def reading_files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every reading file, as it is.

    Args:
        root: ``tcia-lidc-xml.tar.xz`` or another tar or zip of them, one file, a folder that holds such an archive,
            or else a folder with ``.xml`` files at any depth.

    Yields:
        Where it is from and its bytes: of a folder in the order of the paths, of an archive in its own.

    Raises:
        InputError: Nothing is there, no file is an XML file, or the archive is damaged.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root}: no such file or folder", hint="name tcia-lidc-xml.tar.xz or the folder that has it")
    archive = find_archive(root) if root.is_dir() else root
    if archive is None:
        files = _in_folder(root)
    elif archive.name.lower().endswith(_ARCHIVES):
        files = _in_archive(archive)
    else:
        files = iter([(str(archive), archive.read_bytes())])
    none = True
    for item in files:
        none = False
        yield item
    if none:
        raise InputError(f"{archive or root}", got="no .xml file in it", expected="the reading files of LIDC-IDRI")


def _in_folder(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(path for path in root.rglob("*") if path.suffix.lower() == ".xml" and path.is_file()):
        try:
            yield str(path), path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _in_archive(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Members are read, never unpacked; links among them are passed over."""
    try:
        if archive.name.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as container:
                for info in container.infolist():
                    if _wanted(archive, info.filename, info.file_size):
                        yield f"{archive}!/{info.filename}", container.read(info)
            return
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and _wanted(archive, member.name, member.size):
                    yield f"{archive}!/{member.name}", (tar.extractfile(member) or io.BytesIO()).read()
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, RuntimeError) as error:
        raise InputError(f"{archive} cannot be read: {error}", hint="fetch it again from its source") from error


def _wanted(archive: Path, name: str, size: int) -> bool:
    if not name.lower().endswith(".xml"):
        return False
    if size > MAX_FILE_BYTES:
        raise InputError(
            f"{archive}!/{name}", got=f"{size} bytes", expected=f"a reading file, {MAX_FILE_BYTES} at most"
        )
    return True
