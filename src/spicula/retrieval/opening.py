"""Making and opening an index in a folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from spicula.core.errors import InputError, MissingExtraError, SpiculaWarning
from spicula.core.files import ASIDE, to_disk
from spicula.retrieval.exact import ExactIndex
from spicula.retrieval.faiss import FaissIndex
from spicula.retrieval.faiss_building import Progress
from spicula.retrieval.faiss_file import Approximate, built_kinds, remove_built, remove_leftovers
from spicula.retrieval.folder import FolderIndex
from spicula.retrieval.store import DATABASE, create_store
from spicula.retrieval.vectors import vectors_name, write_vectors

Backend: TypeAlias = Literal["exact", "faiss-flat", "faiss-hnsw", "faiss-ivfpq"]
"""How an index in a folder is searched; the folder is the same for all."""

_BACKENDS: dict[Approximate, Backend] = {"hnsw": "faiss-hnsw", "ivfpq": "faiss-ivfpq"}


def create_index(folder: Path, *, fingerprint: str, dimensions: int) -> None:
    """Make an index without findings.

    Args:
        folder: Where; absent or empty.
        fingerprint: Of what makes the vectors, see :attr:`spicula.core.bundle.Bundle.fingerprint`.
        dimensions: Of a vector.

    Raises:
        InputError: The folder holds something or cannot be made, no fingerprint, or no dimension.
    """
    folder = Path(folder)
    if not fingerprint or dimensions < 1:
        what, got = "fingerprint and dimensions of the index", f"{fingerprint!r} and {dimensions}"
        raise InputError(what, got=got, expected="what makes the vectors, and 1 or more")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            there = "open it, put more into it with `spicula index add`, or " if (folder / DATABASE).is_file() else ""
            hint = f"{there}take another folder"
            raise InputError(f"{folder}: taken", expected="no folder or an empty one", hint=hint)
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=folder.parent))
        try:
            create_store(aside, fingerprint=fingerprint, dimensions=dimensions)
            write_vectors(aside / vectors_name(1), 0, ())
            aside.chmod(0o755)
            os.rename(aside, folder)
            to_disk(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made", got=error.strerror) from error


def backend_built(folder: Path) -> Backend | None:
    """The backend whose structure was built last in a folder; None where nothing was built."""
    kinds = built_kinds(Path(folder))
    return _BACKENDS[kinds[0]] if kinds else None


def open_index(folder: Path, *, backend: Backend | None = None, ef_search: int | None = None) -> FolderIndex:
    """Open an index with what its backend does by default; :class:`FaissIndex` takes more arguments.

    Args:
        folder: Made by :func:`create_index`.
        backend: How to search. None searches by what was built last; where nothing was, or that cannot be used, by
            looking at one by one, with a warning that says why.
        ef_search: See :class:`FaissIndex`; None for its default.

    Returns:
        The index, to be closed or used in a ``with`` block.

    Raises:
        InputError: No index, a damaged one, an unknown backend, or ``ef_search`` without a graph that it is for.
        MissingExtraError: The backend is named and faiss is not installed.
    """
    folder = Path(folder)
    built = backend_built(folder) if backend is None else None
    if ef_search is not None and (backend or built) != "faiss-hnsw":
        hint = "`spicula index rebuild` makes one" if backend is None else "leave it out"
        raise InputError(f"{folder}: ef_search", got=ef_search, expected="a graph (faiss-hnsw)", hint=hint)
    if backend is not None:
        return _opened(folder, backend, ef_search)
    return ExactIndex(folder) if built is None else _opened_as_built(folder, built, ef_search)


def _opened(folder: Path, backend: Backend, ef_search: int | None) -> FolderIndex:
    match backend:
        case "exact":
            return ExactIndex(folder)
        case "faiss-flat":
            return FaissIndex(folder, kind="flat")
        case "faiss-hnsw":
            return FaissIndex(folder, kind="hnsw", **({} if ef_search is None else {"ef_search": ef_search}))
        case "faiss-ivfpq":
            return FaissIndex(folder, kind="ivfpq")
    raise InputError("backend", got=repr(backend), expected=f"one of {', '.join(get_args(Backend))}")


def _opened_as_built(folder: Path, backend: Backend, ef_search: int | None) -> FolderIndex:
    """Open with a structure that is there; without it, and say so, where that is stale, damaged or cannot be read."""
    if ef_search is not None and ef_search < 1:
        raise InputError("ef_search", got=ef_search, expected="1 or more")
    why = ""
    try:
        index = _opened(folder, backend, ef_search)
        if len(index) and not index.uses_structure:
            why = "the vectors were written anew since: `spicula index rebuild`"
    except (InputError, MissingExtraError) as error:
        index, why = ExactIndex(folder), str(error)  # the truth is sound, so it is the structure
    if why:
        warnings.warn(f"{folder}: searched one by one, not by {backend}: {why}", SpiculaWarning, stacklevel=3)
    return index


def rebuild_structure(folder: Path, *, backend: Backend, progress: Progress | None = None) -> None:
    """Make anew what faiss searches by, with the numbers of :meth:`FaissIndex.build`; a damaged one is thrown away.

    Args:
        folder: Made by :func:`create_index`.
        backend: Of which; ``exact`` and ``faiss-flat`` have none, and nothing is done.
        progress: Told how many vectors are done.

    Raises:
        InputError: No index, a damaged one, another process is building, or the folder cannot be written.
        MissingExtraError: faiss is not installed.
    """
    try:
        index = open_index(folder, backend=backend)
    except InputError:
        with ExactIndex(folder):
            pass  # the truth is sound, so it is the structure
        if backend == "faiss-hnsw":
            remove_built(Path(folder), "hnsw")
        elif backend == "faiss-ivfpq":
            remove_built(Path(folder), "ivfpq")
        index = open_index(folder, backend=backend)
    with index:
        if isinstance(index, FaissIndex):
            index.build(anew=True, progress=progress)


def compact_index(folder: Path, *, progress: Progress | None = None) -> None:
    """Take off the disk what was removed or replaced: vectors, facts, and structures that were made with them.

    Others read meanwhile. A process that is killed leaves the index as it was or compacted; then call it again, until
    it ends. Without faiss, structures are taken away, with a warning.

    Args:
        folder: Made by :func:`create_index`.
        progress: Told how many vectors are in a structure that is made anew.

    Raises:
        InputError: No index, a damaged one, another process is building, or the folder cannot be written.
    """
    folder = Path(folder)
    with ExactIndex(folder) as index:
        index.compact()
    for kind in built_kinds(folder):
        _build_again(folder, kind, progress)
    remove_leftovers(folder)


def _build_again(folder: Path, kind: Approximate, progress: Progress | None) -> None:
    try:
        with FaissIndex(folder, kind=kind) as index:
            if not index.uses_structure:
                index.build_again(progress=progress)
    except MissingExtraError as error:
        remove_built(folder, kind)
        what = f"{folder}: what {_BACKENDS[kind]} searched by was taken away, as it cannot be made anew"
        warnings.warn(f"{what}: {error}", SpiculaWarning, stacklevel=3)
    except InputError:
        rebuild_structure(folder, backend=_BACKENDS[kind], progress=progress)


def replace_index(made: Path, folder: Path) -> None:
    """Put an index that was made aside in the place of another; whatever happens, one of both is whole.

    A process that is killed between two names leaves the old one as ``<folder>.old``, and calling it again ends it.

    Args:
        made: Folder of the new one, on the same disk.
        folder: Where it shall be; may be absent.

    Raises:
        OSError: A folder cannot be renamed; the old one is in its place then.
    """
    old = folder.with_name(f"{folder.name}.old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    try:
        made.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    to_disk(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
