"""Making and keeping an index of nodules: the jobs behind ``spicula index``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from spicula.core.bundle import load_bundle
from spicula.core.embedding import Facts
from spicula.core.errors import InputError, SpiculaError
from spicula.datasets.nodule_csv import Coords, NoduleTable, read_nodules
from spicula.dicom.gaps import Gaps
from spicula.dicom.reader import Tilt
from spicula.pipelines.embed_nodules import EmbeddedNodule, embeddings_of
from spicula.pipelines.index_rows import SETTLED, embed_rows, unfit_share, unfit_shares
from spicula.pipelines.models import SEARCH, Models, load_models
from spicula.retrieval.embedder import Embedder, load_embedder
from spicula.retrieval.facts import checked_facts
from spicula.retrieval.faiss_file import faiss_module
from spicula.retrieval.index import Index, Kind
from spicula.retrieval.opening import (
    Backend,
    backend_built,
    compact_index,
    create_index,
    open_index,
    rebuild_structure,
)

if TYPE_CHECKING:
    from spicula.retrieval.pgvector import PgvectorIndex

TOGETHER = 32
"""Nodules that are added in one change."""

THERE = "there already"
"""Why a row is passed over."""

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


def open_place(place: str | Path, *, backend: Backend | None = None, ef_search: int | None = None) -> Index:
    """Open an index in a folder or a database.

    Args:
        place: Folder, or ``postgresql://USER@HOST/DB#NAME``.
        backend: How it is searched; None by what was built for it, see :func:`spicula.retrieval.opening.open_index`
            and :meth:`spicula.retrieval.pgvector.PgvectorIndex.open`. A database knows no other than ``exact``.
        ef_search: Candidates that a graph is searched with; None for the usual number.

    Raises:
        InputError: There is none, it is damaged, or it cannot be searched like that.
        MissingExtraError: The backend's package is not installed.
    """
    if not is_database(str(place)):
        return open_index(Path(place), backend=backend, ef_search=ef_search)
    from spicula.retrieval.pgvector import PgvectorIndex

    url, name = _parts(str(place))
    _check_of_database(backend)
    if backend is not None and ef_search is not None:
        raise InputError("ef_search", got=ef_search, expected="none for exact")
    return PgvectorIndex.open(url, name, ef_search=ef_search, as_built=backend is None)


def _check_of_database(backend: Backend | None) -> None:
    if backend not in (None, "exact"):
        hint = "leave it out: what 'spicula index rebuild' made there is used"
        raise InputError("backend of an index in a database", got=backend, expected="none, or exact", hint=hint)


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

    They are added as they come: what is interrupted is an index of the nodules up to there, and :func:`add_nodules`
    with the same table goes on.

    Args:
        nodules: CSV file with ``pid,nodule_id,image_path,coordX,coordY,coordZ``; further columns become fields.
        place: A new folder, or ``postgresql://USER@HOST/DB#NAME``; or an index of the same bundle that holds nothing.
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
        MissingExtraError: The backend's package is not installed.
    """
    if is_database(place):
        _check_of_database(backend)
    elif backend != "exact":
        faiss_module()  # before hours of work
    embedder, table = embedder_of(bundle), read_nodules(nodules, coords=coords)
    made = _created(place, embedder)
    try:
        with open_place(place, backend="exact") as index:
            told = _Adding(index, replace=False, progress=progress).add(
                table, embedder=embedder, models=models or load_models(), gaps=gaps, tilt=tilt
            )
        if not told.added:
            hint = told.failed[0]
            raise InputError(f"{nodules}: nodules", got="none that could be embedded", expected="one", hint=hint)
    except BaseException:
        if made:
            with suppress(SpiculaError):
                _drop_empty(place)
        raise
    if backend not in ("exact", "faiss-flat"):
        rebuild_index(place, backend=backend)
    return told


def _created(place: str, embedder: Embedder) -> bool:
    """Make an index; False where one is there that holds nothing, as a killed process leaves it."""
    try:
        create_place(place, fingerprint=embedder.fingerprint, dimensions=embedder.dimensions)
    except InputError as taken:
        try:
            with open_place(place, backend="exact") as index:
                if len(index) or (index.fingerprint, index.dimensions) != (embedder.fingerprint, embedder.dimensions):
                    raise taken
        except InputError:
            raise taken from None
        return False
    return True


def add_nodules(
    nodules: Path, place: str, *, replace: bool = False, bundle: Path | None = None, models: Models | None = None,
    coords: Coords = "lps", gaps: Gaps = "error", tilt: Tilt = "error", progress: Progress | None = None,
) -> Added:  # fmt: skip
    """Add the nodules of a table to an index; those that are there already are not embedded again.

    Args:
        nodules: CSV file, see :func:`build_index`.
        place: The index.
        replace: Put nodules in the place of those that are there; else these stay as they are.
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
    with open_place(place, backend="exact") as index:
        if index.fingerprint != embedder.fingerprint:
            raise InputError(
                f"{place}: vectors", got=f"made by {index.fingerprint}", expected=embedder.fingerprint,
                hint="name its bundle with --bundle, or build the index anew",
            )  # fmt: skip
        table = read_nodules(nodules, coords=coords)
        return _Adding(index, replace=replace, progress=progress).add(
            table, embedder=embedder, models=models or load_models(), gaps=gaps, tilt=tilt
        )


class _Adding:
    """A table under way into an index: what is embedded waits until there are enough to be added together."""

    def __init__(self, index: Index, *, replace: bool, progress: Progress | None) -> None:
        self._index, self._replace, self._progress = index, replace, progress
        self._kinds: dict[str, Kind] = {**SETTLED, **index.fields}
        self._names, self._waiting = set[str](), list[EmbeddedNodule]()
        self._added, self._kept, self._failed = 0, 0, list[str]()

    def add(self, table: NoduleTable, *, embedder: Embedder, models: Models, gaps: Gaps, tilt: Tilt) -> Added:
        """Add all rows that can be; whatever breaks in, those that are embedded by then are there."""
        rows = embed_rows(
            table, embedder=embedder, models=models, fields=self._index.fields, refused=self._refused, gaps=gaps,
            tilt=tilt,
        )  # fmt: skip
        try:
            for done, one in enumerate(rows, start=1):
                self._take(one)
                if len(self._waiting) == TOGETHER:
                    self._write()
                if self._progress is not None:
                    self._progress(done, len(self._failed))
        finally:
            self._write()
        return Added(self._added, self._kept, tuple(self._failed))

    def _refused(self, name: str, facts: Facts) -> str | None:
        if name in self._names:
            return "there twice in the table"
        self._names.add(name)
        return THERE if not self._replace and name in self._index else unfit_share(facts)

    def _take(self, one: EmbeddedNodule) -> None:
        why = one.error or _unfit(one, self._kinds)
        if why == THERE:
            self._kept += 1
        elif why:
            self._failed.append(f"nodule {one.nodule_id} of {one.pid}: {why}")
        else:
            self._waiting.append(one)

    def _write(self) -> None:
        """Add what waits; another process may have added the same meanwhile."""
        waiting, self._waiting = self._waiting, []
        fresh = [one for one in waiting if one.finding_id not in self._index]
        older = [one for one in waiting if one not in fresh]
        if fresh:
            self._index.add(*embeddings_of(fresh, fingerprint=self._index.fingerprint))
        if older and self._replace:
            self._index.update(*embeddings_of(older, fingerprint=self._index.fingerprint))
        self._added += len(waiting) if self._replace else len(fresh)
        self._kept += 0 if self._replace else len(older)


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
    with open_place(place, backend="exact") as index:
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
    with open_place(place, backend="exact") as index:
        names = [*dict.fromkeys([*finding_ids, *(index.ids(where) if where is not None else ())])]
        if names:
            index.remove(names)
        return len(names)


def rebuild_index(place: str, *, backend: Backend | None = None) -> None:
    """Make anew what faiss or PostgreSQL searches by.

    Args:
        place: The index.
        backend: Of a folder: which structure; None for the one that was built last, or ``faiss-hnsw``.

    Raises:
        InputError: The backend has no such structure, or there are too few findings for it.
        MissingExtraError: Its package is not installed.
    """
    if is_database(place):
        _check_of_database(backend)
    chosen = backend or ("exact" if is_database(place) else backend_built(Path(place)) or "faiss-hnsw")
    with open_place(place, backend="exact") as index:
        if not is_database(place) and chosen in ("exact", "faiss-flat"):
            hint = "take faiss-hnsw or faiss-ivfpq"
            raise InputError(f"{place}: structure to search by", got=f"none for {chosen}", hint=hint)
        if not len(index):
            hint = "`spicula index add` puts some in"
            raise InputError("structure to search by", got="an empty index", expected="findings", hint=hint)
        if is_database(place):
            cast("PgvectorIndex", index).build()
            return
    rebuild_structure(Path(place), backend=chosen)
    with open_index(Path(place), backend=chosen) as made:
        if not made.uses_structure:
            hint = "until there are more they are searched one by one, which is quick"
            raise InputError(f"{place}: structure of {chosen}", got=f"{len(made)} findings", expected="16", hint=hint)


def compact_place(place: str) -> tuple[int, int]:
    """Take off the disk what was removed from an index in a folder or replaced, in all its files.

    Returns:
        Bytes of all files before and after.

    Raises:
        InputError: An index in a database, or see :func:`spicula.retrieval.opening.compact_index`.
    """
    if is_database(place):
        hint = "what is removed there is deleted at once; VACUUM on the server gives its room back"
        raise InputError("index to compact", got="one in a database", expected="a folder", hint=hint)
    with open_place(place, backend="exact") as index:
        before = index.stats().bytes_on_disk
    compact_index(Path(place))
    with open_place(place, backend="exact") as index:
        return before, index.stats().bytes_on_disk


def check_place(place: str, *, backend: Backend | None = None) -> tuple[str, ...]:
    """Read everything of an index again, with all files that are derived from it.

    Args:
        place: The index.
        backend: How it is opened; None as one that is searched one by one, which what is derived cannot hinder.

    Returns:
        A sentence for each thing that is wrong; none for a sound index.

    Raises:
        InputError: There is none, or it is too damaged to be opened.
    """
    with open_place(place, backend="exact" if backend is None else backend) as index:
        wrong = tuple(index.check())
        return wrong or tuple(unfit_shares(index))
