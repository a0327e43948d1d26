"""Making and opening an index in a folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from spicula.core.errors import InputError
from spicula.core.files import ASIDE, to_disk
from spicula.retrieval.exact import ExactIndex
from spicula.retrieval.faiss import FaissIndex
from spicula.retrieval.faiss_building import Progress
from spicula.retrieval.faiss_file import remove_built
from spicula.retrieval.folder import FolderIndex
from spicula.retrieval.store import create_store
from spicula.retrieval.vectors import vectors_name, write_vectors

Backend: TypeAlias = Literal["exact", "faiss-flat", "faiss-hnsw", "faiss-ivfpq"]
"""How an index in a folder is searched; the folder is the same for all."""


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
            hint = "open it, or take another folder"
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


def open_index(folder: Path, *, backend: Backend = "exact") -> FolderIndex:
    """Open an index with what its backend does by default; :class:`FaissIndex` takes more arguments.

    Args:
        folder: Made by :func:`create_index`.
        backend: How to search.

    Returns:
        The index, to be closed or used in a ``with`` block.

    Raises:
        InputError: No index, a damaged one, or an unknown backend.
        MissingExtraError: faiss is not installed.
    """
    match backend:
        case "exact":
            return ExactIndex(folder)
        case "faiss-flat":
            return FaissIndex(folder, kind="flat")
        case "faiss-hnsw":
            return FaissIndex(folder, kind="hnsw")
        case "faiss-ivfpq":
            return FaissIndex(folder, kind="ivfpq")
    raise InputError("backend", got=repr(backend), expected=f"one of {', '.join(get_args(Backend))}")


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
