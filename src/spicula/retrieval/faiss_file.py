"""Structures that faiss makes of an index's vectors, in files that are derived: they can be made again at any time.

``hnsw.json`` names the file of the structure, its SHA-256, and of which vectors it was made. A structure is written
aside and counts from the moment the small file names it. One of vectors that were compacted since counts as none.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.core.files import to_disk, written_aside
from spicula.retrieval.vectors import Vectors, damaged
from spicula.retrieval.verification import WHOLE_BYTES

Approximate: TypeAlias = Literal["hnsw", "ivfpq"]
"""``hnsw``: a graph over vectors of one byte a number. ``ivfpq``: lists of short codes."""

REBUILD = "it holds nothing that the index does not: make it anew with `spicula index rebuild`"
"""The way back when a derived file is damaged."""

_WITNESSES = 64


@dataclass(frozen=True, slots=True)
class Built:
    """A structure as its small file describes it.

    Args:
        file: Name of the structure's file.
        bytes: Its size.
        sha256: Its checksum.
        generation: Of the vectors it was made of.
        rows: How many of them, from the first on.
        witnesses: CRC-32 of some of them: a folder that was put together of two copies is noticed.
        settings: What it was made with.
    """

    file: str
    bytes: int
    sha256: str
    generation: int
    rows: int
    witnesses: int
    settings: Mapping[str, int]

    def describes(self, vectors: Vectors, generation: int) -> bool:
        """Whether it was made of the first of these vectors."""
        if self.generation != generation or not 0 < self.rows <= len(vectors):
            return False
        return self.witnesses == _witnesses(vectors, self.rows)


def faiss_module() -> Any:
    """The package faiss.

    Raises:
        MissingExtraError: It is not installed.
    """
    return require("faiss", extra="search")


def read_built(folder: Path, kind: Approximate) -> Built | None:
    """What the small file says; None where there is none.

    Raises:
        InputError: It cannot be understood.
    """
    path = folder / f"{kind}.json"
    try:
        content = json.loads(path.read_bytes())
        built = Built(**content)
        if not re.fullmatch(rf"{kind}-[0-9a-f]{{16}}\.faiss", built.file) or not built.sha256.startswith(
            built.file[len(kind) + 1 : -len(".faiss")]
        ):
            raise ValueError(built.file)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError) as error:
        raise damaged(path, got="something else", expected="name, size and checksum", hint=REBUILD) from error
    return built


def built_kinds(folder: Path) -> tuple[Approximate, ...]:
    """Kinds of the structures in a folder, the one that was written last first."""
    found: list[tuple[int, Approximate]] = []
    for kind in get_args(Approximate):
        with suppress(OSError):
            found.append((os.stat(folder / f"{kind}.json").st_mtime_ns, kind))
    return tuple(kind for _, kind in sorted(found, reverse=True))


def errors_of_built(folder: Path) -> Iterator[InputError]:
    """Read all structures of a folder; what is wrong with them, none for sound ones. It needs no faiss."""
    for kind in built_kinds(folder):
        try:
            built = read_built(folder, kind)
            if built is not None:
                verify_built(folder, built)
        except InputError as error:
            yield error


def open_built(folder: Path, built: Built, *, mapped: bool = True) -> Any:
    """Open a structure.

    Args:
        folder: Of the index.
        built: What its small file says.
        mapped: Map it into memory, to be searched only; otherwise read it, so that it can grow.

    Raises:
        InputError: The file is absent or of another size, a small one has another checksum, or faiss refuses it.
    """
    faiss, path = faiss_module(), folder / built.file
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise damaged(path, got="no file", expected=f"{built.bytes} bytes", hint=REBUILD) from error
    if size != built.bytes:
        raise damaged(path, got=f"{size} bytes", expected=built.bytes, hint=REBUILD)
    if size <= WHOLE_BYTES or not mapped:
        verify_built(folder, built)
    try:
        structure = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise damaged(path, got="a file that faiss refuses", expected="what faiss wrote", hint=REBUILD) from error
    if structure.ntotal != built.rows:
        raise damaged(path, got=f"{structure.ntotal} vectors", expected=built.rows, hint=REBUILD)
    return structure


def verify_built(folder: Path, built: Built) -> None:
    """Read the whole file of a structure.

    Raises:
        InputError: It is not what was written.
    """
    path = folder / built.file
    try:
        found = _sha256(path)
    except OSError as error:
        raise damaged(path, got=error.strerror, expected=f"checksum {built.sha256}", hint=REBUILD) from error
    if found != built.sha256:
        raise damaged(path, got=f"checksum {found}", expected=built.sha256, hint=REBUILD)


@contextmanager
def building(folder: Path, kind: Approximate) -> Iterator[None]:
    """Be the only one that builds structures in a folder; what a killed process left aside is written over.

    Raises:
        InputError: Another process is building it, or the folder cannot be written.
    """
    aside, handle = folder / f".{kind}.faiss", os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            aside.touch()  # before hours of work
        except BlockingIOError as error:
            hint = "wait for the other process; searches go on"
            raise InputError(f"{folder}: a structure is being built", hint=hint) from error
        except OSError as error:
            raise InputError(f"{folder}: no structure can be built", got=error.strerror) from error
        try:
            yield
        finally:
            aside.unlink(missing_ok=True)
    finally:
        os.close(handle)


def write_built(
    folder: Path, kind: Approximate, structure: Any, vectors: Vectors, *, generation: int, settings: Mapping[str, int]
) -> None:
    """Write a structure of vectors and the small file that names it, within :func:`building`; the old one is removed.

    Raises:
        InputError: The folder cannot be written; the one before is still there then.
    """
    faiss = faiss_module()
    aside = folder / f".{kind}.faiss"
    try:
        faiss.write_index(structure, str(aside))
        to_disk(aside)
        sha256 = _sha256(aside)
        name = f"{kind}-{sha256[:16]}.faiss"
        rows = int(structure.ntotal)
        witnesses = _witnesses(vectors, rows)
        built = Built(name, aside.stat().st_size, sha256, generation, rows, witnesses, dict(settings))
        os.replace(aside, folder / name)
        to_disk(folder)
        with written_aside(folder / f"{kind}.json") as path:
            path.write_text(json.dumps(asdict(built), indent=1) + "\n", encoding="utf-8")
            to_disk(path)
        to_disk(folder)
    except (OSError, RuntimeError) as error:
        got = error.strerror if isinstance(error, OSError) else "an error of faiss while writing"
        hint = "the index is as before; see to space and rights, and try again"
        raise InputError(f"{folder}: no structure could be written", got=got, hint=hint) from error
    _remove_files(folder, kind, but=name)


class Opened:
    """The structure in a folder, opened when it is needed and again when another has been put in its place.

    Args:
        folder: Of the index.
        kind: Of structure.
    """

    def __init__(self, folder: Path, kind: Approximate) -> None:
        self._folder, self._kind, self._small = folder, kind, str(folder / f"{kind}.json")
        self._seen: tuple[tuple[int, int, int], Built | None] | None = None
        self._open: tuple[Built, Any] | None = None

    def of(self, vectors: Vectors, generation: int) -> tuple[Built, Any] | None:
        """The structure if it was made of the first of these vectors; None if there is none that was.

        Raises:
            InputError: It is damaged.
        """
        built = self._built()
        if built is None or built.generation != generation:
            return None
        opened = self._open
        if opened is None or opened[0] != built:
            if not built.describes(vectors, generation):
                return None
            try:
                opened = built, open_built(self._folder, built)
            except InputError:
                if read_built(self._folder, self._kind) == built:
                    raise
                return self.of(vectors, generation)  # another process has put another in its place meanwhile
            self._open = opened
        return opened

    def close(self) -> None:
        """Let go of the file."""
        self._seen = self._open = None

    def _built(self) -> Built | None:
        """What the small file says, read when it was written anew."""
        try:
            found = os.stat(self._small)
        except FileNotFoundError:
            return None
        signature = found.st_mtime_ns, found.st_ino, found.st_size
        if self._seen is None or self._seen[0] != signature:
            self._seen = signature, read_built(self._folder, self._kind)
        return self._seen[1]


def remove_built(folder: Path, kind: Approximate) -> None:
    """Remove a structure: findings are searched one by one until it is built again. A damaged one can be removed."""
    (folder / f"{kind}.json").unlink(missing_ok=True)
    _remove_files(folder, kind, but="")


def remove_leftovers(folder: Path) -> None:
    """Remove structures that no small file names, as a killed process leaves them.

    Raises:
        InputError: Another process is building, or a small file cannot be understood.
    """
    for kind in get_args(Approximate):
        with building(folder, kind):
            built = read_built(folder, kind)
            _remove_files(folder, kind, but="" if built is None else built.file)


def _witnesses(vectors: Vectors, rows: int) -> int:
    some = vectors[np.linspace(0, rows - 1, _WITNESSES).astype(np.int64)]
    return zlib.crc32(np.ascontiguousarray(some, dtype="<f4").data)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_files(folder: Path, kind: Approximate, *, but: str) -> None:
    for path in folder.glob(f"{kind}-*.faiss"):
        if path.name != but:
            path.unlink(missing_ok=True)
