"""Making and keeping an index of nodules: the jobs behind ``spicula index``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from spicula.core.bundle import load_bundle
from spicula.core.errors import InputError, SpiculaError
from spicula.datasets.nodule_csv import Coords
from spicula.dicom.gaps import Gaps
from spicula.dicom.reader import Tilt
from spicula.pipelines.embed_nodules import MEASURED, EmbeddedNodule, embed_table, embeddings_of
from spicula.pipelines.models import SEARCH, Models, load_models
from spicula.retrieval.embedder import Embedder, load_embedder
from spicula.retrieval.facts import checked_facts
from spicula.retrieval.index import Index, Kind
from spicula.retrieval.opening import Backend, create_index, open_index, rebuild_structure

TOGETHER = 32
"""Nodules that are added in one change."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a table.

    Args:
        added: Nodules that are in the index now and were not before, or were put in the place of older ones.
        kept: Nodules that were there and stayed as they were.
        failed: A sentence for each that could not be added.
    """

    added: int
    kept: int
    failed: tuple[str, ...]


def is_database(place: str) -> bool:
    """Whether an index is in PostgreSQL.

    Example:
        >>> is_database("postgresql://reader@pacs/cases#nodules"), is_database("cases/")
        (True, False)
    """
    return place.startswith(("postgresql://", "postgres://"))


def open_place(place: str | Path, *, backend: Backend = "exact") -> Index:
    """Open an index in a folder or a database.

    Args:
        place: Folder, or ``postgresql://USER@HOST/DB#NAME``.
        backend: How a folder is searched.

    Raises:
        InputError: There is none, or it is damaged.
        MissingExtraError: The backend's package is not installed.
    """
    if not is_database(str(place)):
        return open_index(Path(place), backend=backend)
    from spicula.retrieval.pgvector import PgvectorIndex

    url, name = _parts(str(place))
    return PgvectorIndex.open(url, name)


def _parts(place: str) -> tuple[str, str]:
    url, _, name = place.partition("#")
    if not name:
        raise InputError("index in a database", got="no name", expected="postgresql://USER@HOST/DB#NAME")
    return url, name


def create_place(place: str | Path, *, fingerprint: str, dimensions: int) -> None:
    """Make an index without findings; see :func:`open_place`.

    Raises:
        InputError: There is one, or it cannot be made.
    """
    if not is_database(str(place)):
        create_index(Path(place), fingerprint=fingerprint, dimensions=dimensions)
        return
    from spicula.retrieval.pgvector import PgvectorIndex

    url, name = _parts(str(place))
    PgvectorIndex.create(url, name, fingerprint=fingerprint, dimensions=dimensions).close()


def embedder_of(bundle: Path | None) -> Embedder:
    """The embedder of a bundle; of the shipped one if None.

    Raises:
        BundleError: It is missing, damaged or made for another task.
    """
    return load_embedder(load_bundle(SEARCH if bundle is None else bundle), threads=1)


def build_index(
    nodules: Path, place: str, *, backend: Backend = "exact", bundle: Path | None = None, models: Models | None = None,
    coords: Coords = "lps", gaps: Gaps = "error", tilt: Tilt = "error", progress: Progress | None = None,
) -> Added:  # fmt: skip
    """Make an index of the nodules of a table.

    Args:
        nodules: CSV file with ``pid,nodule_id,image_path,coordX,coordY,coordZ``; further columns become fields.
        place: A new folder, or ``postgresql://USER@HOST/DB#NAME``.
        backend: What the folder shall be searched by; faiss's structures are built at the end.
        bundle: Makes the vectors; the shipped one if None.
        models: Of which the outline network is used.
        coords: What the coordinates are.
        gaps: What to do about missing or irregular slices of DICOM images.
        tilt: What to do about a tilted gantry.
        progress: Called after each nodule with how many are done and how many of them failed.

    Raises:
        InputError: The table cannot be read, no nodule of it can be embedded (nothing is left behind then), or the
            place is taken.
    """
    embedder = embedder_of(bundle)
    found = embed_table(nodules, embedder=embedder, models=models or load_models(), coords=coords, gaps=gaps, tilt=tilt)
    create_place(place, fingerprint=embedder.fingerprint, dimensions=embedder.dimensions)
    try:
        with open_place(place) as index:
            told = _add(index, found, replace=False, progress=progress)
        if not told.added:
            hint = told.failed[0]
            raise InputError(f"{nodules}: nodules", got="none that could be embedded", expected="one", hint=hint)
    except BaseException:
        with suppress(SpiculaError):
            _drop_empty(place)
        raise
    if backend != "exact":
        rebuild_index(place, backend=backend)
    return told


def add_nodules(
    nodules: Path, place: str, *, replace: bool = False, backend: Backend = "exact", bundle: Path | None = None,
    models: Models | None = None, coords: Coords = "lps", gaps: Gaps = "error", tilt: Tilt = "error",
    progress: Progress | None = None,
) -> Added:  # fmt: skip
    """Add the nodules of a table to an index.

    Args:
        nodules: CSV file, see :func:`build_index`.
        place: The index.
        replace: Put nodules in the place of those that are there; else these stay as they are.
        backend: How a folder is searched.
        bundle: Makes the vectors; the shipped one if None.
        models: Of which the outline network is used.
        coords: What the coordinates are.
        gaps: What to do about missing or irregular slices of DICOM images.
        tilt: What to do about a tilted gantry.
        progress: Called after each nodule with how many are done and how many of them failed.

    Raises:
        InputError: The table cannot be read, or the index's vectors were made by another bundle.
    """
    embedder = embedder_of(bundle)
    with open_place(place, backend=backend) as index:
        if index.fingerprint != embedder.fingerprint:
            raise InputError(
                f"{place}: vectors", got=f"made by {index.fingerprint}", expected=embedder.fingerprint,
                hint="name its bundle with --bundle, or build the index anew",
            )  # fmt: skip
        found = embed_table(
            nodules, embedder=embedder, models=models or load_models(), coords=coords, gaps=gaps, tilt=tilt,
            fields={**MEASURED, **index.fields},
        )  # fmt: skip
        return _add(index, found, replace=replace, progress=progress)


def _add(
    index: Index, nodules: Iterator[EmbeddedNodule], *, replace: bool, progress: Progress | None
) -> Added:  # fmt: skip
    added, kept, failed, seen = 0, 0, list[str](), set[str]()
    kinds, done = {**MEASURED, **index.fields}, 0
    while some := tuple(islice(nodules, TOGETHER)):
        fresh, older = list[EmbeddedNodule](), list[EmbeddedNodule]()
        for one in some:
            done += 1
            name = one.finding_id
            why, there = one.error or ("there twice in the table" if name in seen else ""), name in index
            if not why and (replace or not there):
                why = _unfit(one, kinds)
            if why:
                failed.append(f"nodule {one.nodule_id} of {one.pid}: {why}")
            elif not there:
                fresh.append(one)
            elif replace:
                older.append(one)
            else:
                kept += 1
            seen.add(name)
            if progress is not None:
                progress(done, len(failed))
        for chosen, change in ((fresh, index.add), (older, index.update)):
            if chosen:
                change(*embeddings_of(chosen, fingerprint=index.fingerprint))
        added += len(fresh) + len(older)
    return Added(added, kept, tuple(failed))


def _unfit(nodule: EmbeddedNodule, kinds: dict[str, Kind]) -> str:
    """Why an index cannot keep what is known of a nodule, or nothing; new fields join those that are known."""
    try:
        _, new = checked_facts([nodule.finding_id], [nodule.facts], kinds)
    except InputError as error:
        return str(error)
    kinds.update(new)
    return ""


def _drop_empty(place: str) -> None:
    """Take an index away if it holds nothing."""
    with open_place(place) as index:
        if len(index):
            return
    if not is_database(place):
        shutil.rmtree(place)
        return
    from spicula.retrieval.pgvector import PgvectorIndex

    PgvectorIndex.drop(*_parts(place))


def remove_nodules(place: str, finding_ids: Sequence[str], *, where: str | None = None) -> int:
    """Take nodules out of an index: those named, and those that meet a condition.

    Returns:
        How many.

    Raises:
        InputError: Neither ids nor a condition, or an id that is not there.
    """
    if not finding_ids and where is None:
        raise InputError("nodules to remove", got="none named", expected="ids or a condition", hint="--id or --where")
    with open_place(place) as index:
        names = [*dict.fromkeys([*finding_ids, *(index.ids(where) if where is not None else ())])]
        if names:
            index.remove(names)
        return len(names)


def rebuild_index(place: str, *, backend: Backend = "faiss-hnsw") -> None:
    """Make anew what faiss or PostgreSQL searches by.

    Raises:
        InputError: The backend has no such structure.
        MissingExtraError: Its package is not installed.
    """
    if not is_database(place):
        if backend == "exact":
            hint = "take faiss-hnsw or faiss-ivfpq"
            raise InputError(f"{place}: structure to search by", got="none for exact", hint=hint)
        rebuild_structure(Path(place), backend=backend)
        return
    with open_place(place) as index:
        index.build()  # type: ignore[attr-defined]
