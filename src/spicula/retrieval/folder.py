"""An index in a folder: the truth on the disk, which exact and faiss indexes share.

``index.sqlite`` says which findings are there, what is known of each and where its vector stands; ``vectors-N.f32``
holds the vectors, N counting how often they were compacted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from spicula.core.embedding import Embeddings, Fact, Facts, Match, Scope
from spicula.core.errors import InputError
from spicula.retrieval import changes
from spicula.retrieval.faiss_file import errors_of_built
from spicula.retrieval.index import IndexStats, Kind
from spicula.retrieval.nearest import Near, nearest_rows, squared_lengths
from spicula.retrieval.queries import check_places, checked_queries, no_such
from spicula.retrieval.records import Record, read_records, rows_of, rows_where
from spicula.retrieval.selection import Allowed, selected
from spicula.retrieval.store import State, Store
from spicula.retrieval.vectors import RowNumbers, Vectors, open_vectors, vectors_name
from spicula.retrieval.verification import View, errors_at_opening, errors_of, errors_of_all, read_gaps
from spicula.retrieval.where import parse_condition, to_sql

_KEPT = 8


class FolderIndex(ABC):
    """What every index in a folder does, see :class:`spicula.retrieval.index.Index`. Threads may share one.

    Args:
        folder: Made by :func:`spicula.retrieval.opening.create_index`. One that cannot be written can be searched.
        wait_s: Seconds to wait for another process that changes the index.

    Raises:
        InputError: No index, or a damaged one.
    """

    backend: str

    def __init__(self, folder: Path, *, wait_s: float = 30.0) -> None:
        self._folder = Path(folder)
        self._store = Store(self._folder, wait_s=wait_s)
        self._mapped: tuple[int, Vectors] | None = None
        self._lengths: tuple[int, NDArray[np.float32]] | None = None
        self._gaps: tuple[int, RowNumbers] | None = None
        self._chosen: tuple[int, dict[tuple[Fact, ...], RowNumbers]] = -1, {}
        try:
            with self._view() as view:
                self._fingerprint, self._dimensions = view.state.fingerprint, view.state.dimensions
                for error in errors_at_opening(view):
                    raise error
        except BaseException:
            self._store.close()
            raise

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._folder

    @property
    def fingerprint(self) -> str:
        """What made the vectors; others are refused."""
        return self._fingerprint

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self._dimensions

    @property
    def fields(self) -> Mapping[str, Kind]:
        """Name and kind of everything that is known of its findings, ``pid`` and ``nodule_id`` first."""
        with self._store.reading() as (_, state):
            return state.fields

    @property
    def generation(self) -> str:
        """Another text after every change, see :attr:`spicula.retrieval.index.Index.generation`."""
        return self._store.stamp()

    @property
    def uses_structure(self) -> bool:
        """Whether it searches through something that was built for it; otherwise it looks at one by one."""
        return False

    def __len__(self) -> int:
        """Number of findings."""
        with self._store.reading() as (_, state):
            return state.findings

    def __contains__(self, finding_id: object) -> bool:
        """Whether a finding is there."""
        if not isinstance(finding_id, str):
            return False
        with self._store.reading() as (connection, _):
            return bool(rows_of(connection, [finding_id]))

    def add(self, embeddings: Embeddings, facts: Sequence[Facts]) -> None:
        """Add findings, see :meth:`spicula.retrieval.index.Index.add`."""
        changes.put(self._store, embeddings, facts, there=False)

    def update(self, embeddings: Embeddings, facts: Sequence[Facts]) -> None:
        """Put others in the place of those that are there, see :meth:`spicula.retrieval.index.Index.update`."""
        changes.put(self._store, embeddings, facts, there=True)

    def remove(self, finding_ids: Sequence[str]) -> None:
        """Take findings out, see :meth:`spicula.retrieval.index.Index.remove`."""
        changes.take_out(self._store, finding_ids)

    def compact(self) -> None:
        """Give the disk back what removed and updated findings held; those who read go on.

        Raises:
            InputError: The folder cannot be written; everything is as before then.
        """
        changes.compact(self._store)

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        *,
        where: str | None = None,
        scope: Scope = "all",
        pids: Sequence[str] | None = None,
        own: Sequence[str | None] | None = None,
        fingerprint: str,
    ) -> list[tuple[Match, ...]]:
        """Find the nearest findings of each query, see :meth:`spicula.retrieval.index.Index.search`."""
        queries = checked_queries(vectors, self._dimensions, fingerprint=fingerprint, expected=self._fingerprint)
        with self._view() as view:
            check_places(k, view.state.findings, self._folder)
            condition = None if where is None else to_sql(parse_condition(where, view.state.fields))
            found: dict[int, Near] = {}
            for allowed in selected(
                view.connection, len(queries), condition, scope=scope, pids=pids, own=own,
                fitting=partial(self._fitting, view),
            ):  # fmt: skip
                near = self._nearest(view, np.ascontiguousarray(queries[allowed.queries]), k, allowed)
                found.update(zip(allowed.queries.tolist(), near, strict=True))
            return self._matches(view, [found[query] for query in range(len(queries))], k)

    def get(self, finding_ids: Sequence[str]) -> tuple[Embeddings, tuple[Facts, ...]]:
        """Vectors and facts of findings, see :meth:`spicula.retrieval.index.Index.get`."""
        with self._view() as view:
            rows = rows_of(view.connection, finding_ids)
            absent = [one for one in finding_ids if one not in rows]
            if absent:
                raise no_such(absent, self._folder)
            order = [rows[one] for one in finding_ids]
            found = self._records(view, order)
            vectors = np.array(view.vectors[order], dtype=np.float32)
            facts = tuple(found[row].facts for row in order)
            return Embeddings(vectors, tuple(finding_ids), self._fingerprint), facts

    def ids(self, where: str | None = None) -> tuple[str, ...]:
        """Ids of all findings that meet a condition, sorted."""
        with self._store.reading() as (connection, state):
            sql, values = ("1", []) if where is None else to_sql(parse_condition(where, state.fields))
            found = connection.execute(f"SELECT _id FROM findings WHERE {sql} ORDER BY _id", values)
            return tuple(finding_id for (finding_id,) in found)

    def stats(self) -> IndexStats:
        """What it holds."""
        with self._view() as view:
            state = view.state
            patients = view.connection.execute("SELECT COUNT(DISTINCT pid) FROM findings").fetchone()[0]
            size = sum(path.stat().st_size for path in self._folder.iterdir() if path.is_file())
            return IndexStats(
                self.backend, state.findings, patients, state.dimensions, state.fingerprint, state.fields, size,
                self._unindexed(view),
            )  # fmt: skip

    def check(self) -> Iterator[str]:
        """Read everything again, all that faiss made included; a sentence for each thing that is wrong."""
        wrong: list[str] = []
        try:
            with self._view() as view:
                wrong += [str(error) for error in errors_of_all(view)]
            wrong += [str(error) for error in errors_of_built(self._folder)]
        except InputError as error:
            wrong.append(str(error))
        yield from dict.fromkeys(wrong)

    def close(self) -> None:
        """Let go of files and connections."""
        self._mapped = self._lengths = None
        self._store.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @abstractmethod
    def _nearest(self, view: View, queries: Vectors, k: int, allowed: Allowed) -> list[Near]:
        """The k nearest rows of each query, and all as near as the last of them."""

    def _unindexed(self, view: View) -> int:
        """Findings that are not in an approximate structure yet."""
        return 0

    def _exact(self, view: View, queries: Vectors, k: int, allowed: Allowed) -> list[Near]:
        """The nearest, one by one."""
        if allowed.rows is not None:
            return nearest_rows(view.vectors, queries, k, rows=allowed.rows, without=allowed.without)
        squares = self._squared_lengths(view)
        return nearest_rows(view.vectors, queries, k, gaps=view.gaps, without=allowed.without, squares=squares)

    @contextmanager
    def _view(self) -> Iterator[View]:
        """The index of this moment."""
        with self._store.reading() as (connection, state):
            gaps = self._gaps
            if gaps is None or gaps[0] != state.changes:
                gaps = self._gaps = state.changes, read_gaps(connection, state, self._store.path)
            yield View(connection, state, self._vectors(state), gaps[1], self._store.path, self._folder)

    def _vectors(self, state: State) -> Vectors:
        """The rows that count; mapped anew only when the file is another or has grown."""
        mapped = self._mapped
        if mapped is None or mapped[0] != state.generation or len(mapped[1]) < state.rows:
            path = self._folder / vectors_name(state.generation)
            mapped = self._mapped = state.generation, open_vectors(path, state.rows, state.dimensions)
        return mapped[1][: state.rows]

    def _squared_lengths(self, view: View) -> NDArray[np.float32]:
        """Squared length of each row, computed once."""
        generation, rows, known = view.state.generation, view.state.rows, self._lengths
        if known is None or known[0] != generation:
            known = generation, np.empty(0, dtype=np.float32)
        if len(known[1]) < rows:
            known = generation, np.concatenate([known[1], squared_lengths(view.vectors[len(known[1]) :])])
            self._lengths = known
        return known[1][:rows]

    def _fitting(self, view: View, sql: str, values: Sequence[Fact]) -> RowNumbers:
        """Rows that meet a condition; those of the last conditions are kept until the index is changed."""
        changes, known = self._chosen
        if changes != view.state.changes or len(known) >= _KEPT:
            changes, known = self._chosen = view.state.changes, {}
        key = sql, *values
        rows = known.get(key)
        if rows is None:
            rows = known[key] = rows_where(view.connection, sql, values)
        return rows

    def _records(self, view: View, rows: Iterable[int]) -> dict[int, Record]:
        """The findings of some rows, each checked to be what was written."""
        wanted = list(dict.fromkeys(rows))
        found = read_records(view.connection, view.state.fields, wanted)
        for error in errors_of(view, wanted, found):
            raise error
        return found

    def _matches(self, view: View, found: Sequence[Near], k: int) -> list[tuple[Match, ...]]:
        """The first k of each query, equally near ones by their id."""
        records = self._records(view, (row for near in found for row in near.rows.tolist()))
        matches = []
        for near in found:
            pairs = zip(near.rows.tolist(), near.distances.tolist(), strict=True)
            order = sorted((distance, records[row].finding_id, row) for row, distance in pairs)
            matches.append(tuple(Match(one, distance, records[row].facts) for distance, one, row in order[:k]))
        return matches
