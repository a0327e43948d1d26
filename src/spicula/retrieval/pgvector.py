"""An index in a PostgreSQL database with the extension ``vector``, for a department: many read and write at once.

Each index is a schema ``spicula_<name>`` of its own: a table of findings with a column for every field, and one row
that says what made the vectors. Every change is one transaction, and changes wait for each other. A search sees each
change as a whole or not at all, and waits only for one that makes a new field.

Rights: searching needs USAGE on the schema and SELECT on its two tables; changing needs INSERT, UPDATE and DELETE too;
new fields and :meth:`PgvectorIndex.build` need the owner, or a member of the role that owns the tables.

A search is exact unless the index is opened with ``ef_search``: then PostgreSQL looks through the graph (HNSW) that
:meth:`PgvectorIndex.build` made, which is quicker and may miss some.

References:
    Malkov, Yashunin. Efficient and robust approximate nearest neighbor search using hierarchical navigable small world
    graphs. doi:10.1109/TPAMI.2018.2889473.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from spicula.core.embedding import Embeddings, Fact, Facts, Match, Scope
from spicula.core.errors import InputError
from spicula.retrieval.facts import checked_facts
from spicula.retrieval.index import IndexStats, Kind
from spicula.retrieval.nearest import measured
from spicula.retrieval.postgres import Session
from spicula.retrieval.postgres_table import Found, Table, limits_of
from spicula.retrieval.queries import check_places, checked_embeddings, checked_queries, no_such
from spicula.retrieval.vectors import Vectors
from spicula.retrieval.where import storable

EF_SEARCH, FEW = 100, 10_000
"""Candidates that a graph is searched with where nobody says how many, and findings that need no graph."""

_LONGEST, _LONGEST_GRAPH = 16_000, 2_000
"""Dimensions that the extension stores, and that it takes into a graph."""


class PgvectorIndex:
    """An index in PostgreSQL, see :class:`spicula.retrieval.index.Index`; ``create`` and ``open`` make one.

    Threads may share it, one works at a time; each may open its own. A lost connection is an error of the call under
    way; the next call connects again.
    """

    def __init__(
        self, session: Session, table: Table, *, ef_search: int | None = None, as_built: bool = False
    ) -> None:  # fmt: skip
        self._session, self._table, self._as_built = session, table, as_built and ef_search is None
        self._ef_search = EF_SEARCH if self._as_built else ef_search
        self._shown = f"index {table.name} in {session.shown}"
        with session.transaction(snapshot=True) as cursor:
            self._fingerprint, self._dimensions = table.identity(cursor)

    @classmethod
    def create(
        cls, url: str, name: str, *, fingerprint: str, dimensions: int, ef_search: int | None = None
    ) -> PgvectorIndex:
        """Make an index without findings, and open it.

        Args:
            url: ``postgresql://user@host/database``; the user needs the right CREATE on the database.
            name: Of the index: up to 40 of a-z, 0-9 and _, a letter first.
            fingerprint: Of what makes the vectors.
            dimensions: Of a vector, 1 to 16,000.
            ef_search: As for :meth:`open`.

        Raises:
            InputError: A name or URL that cannot be, no server, no extension, no right, or an index of this name.
            MissingExtraError: psycopg or pgvector is not installed.
        """
        table = Table(name)
        _check_number("ef_search", ef_search, 1, 1000)
        _check_number("dimensions of the index", dimensions, 1, _LONGEST)
        if not fingerprint or not storable(fingerprint):
            raise InputError("fingerprint of the index", got=repr(fingerprint), expected="what makes the vectors")
        with _closed_on_error(Session(url)) as session:
            with session.transaction() as cursor:
                table.create(cursor, fingerprint=fingerprint, dimensions=int(dimensions))
            return cls(session, table, ef_search=ef_search)

    @classmethod
    def open(cls, url: str, name: str, *, ef_search: int | None = None, as_built: bool = False) -> PgvectorIndex:
        """Open an index that is there.

        Args:
            url: ``postgresql://user@host/database``; for the rights that the user needs see the top of this module.
            name: Of the index.
            ef_search: None searches exactly. A number from 1 to 1000 searches through the graph of :meth:`build`; a
                higher one is slower and misses less.
            as_built: Without ``ef_search``: search through the graph where one was built and there are more findings
                than :data:`FEW`, exactly otherwise.

        Raises:
            InputError: A name or URL that cannot be, no server, no extension, no such index, or one of another format.
            MissingExtraError: psycopg or pgvector is not installed.
        """
        table = Table(name)
        _check_number("ef_search", ef_search, 1, 1000)
        with _closed_on_error(Session(url)) as session:
            return cls(session, table, ef_search=ef_search, as_built=as_built)

    @staticmethod
    def drop(url: str, name: str) -> None:
        """Take an index away with all that is in it.

        Args:
            url: ``postgresql://user@host/database``; the user needs to own the index.
            name: Of the index.

        Raises:
            InputError: A name or URL that cannot be, no server, no right, or no such index.
            MissingExtraError: psycopg is not installed.
        """
        table = Table(name)
        with closing(Session(url)) as session, session.transaction() as cursor:
            cursor.execute(f"DROP SCHEMA {table.schema} CASCADE")

    def __repr__(self) -> str:
        """Where it is, without the password."""
        return f"<{type(self).__name__}: {self._shown}>"

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
        with self._reading() as cursor:
            return MappingProxyType(self._table.fields(cursor))

    @property
    def generation(self) -> str:
        """Another text after every change, see :attr:`spicula.retrieval.index.Index.generation`."""
        with self._reading() as cursor:
            return self._table.stamp(cursor)

    def __len__(self) -> int:
        """Number of findings."""
        with self._reading() as cursor:
            return self._table.size(cursor)

    def __contains__(self, finding_id: object) -> bool:
        """Whether a finding is there."""
        if not isinstance(finding_id, str):
            return False
        with self._reading() as cursor:
            return bool(self._table.present(cursor, [finding_id]))

    def add(self, embeddings: Embeddings, facts: Sequence[Facts]) -> None:
        """Add findings, see :meth:`spicula.retrieval.index.Index.add`."""
        with self._putting(embeddings, facts) as (cursor, kept):
            there = self._table.present(cursor, embeddings.finding_ids)
            if there:
                hint = "update changes what is there"
                raise InputError(f"{self._shown}: finding {min(there)}", got="there already", hint=hint)
            self._table.copy(cursor, embeddings, kept)

    def update(self, embeddings: Embeddings, facts: Sequence[Facts]) -> None:
        """Put others in the place of those that are there, see :meth:`spicula.retrieval.index.Index.update`."""
        with self._putting(embeddings, facts) as (cursor, kept):
            self._refuse_absent(cursor, embeddings.finding_ids)
            self._table.delete(cursor, embeddings.finding_ids)
            self._table.copy(cursor, embeddings, kept)

    def remove(self, finding_ids: Sequence[str]) -> None:
        """Take findings out, see :meth:`spicula.retrieval.index.Index.remove`."""
        with self._changing() as cursor:
            self._refuse_absent(cursor, finding_ids)
            self._table.delete(cursor, finding_ids)

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
        """Find the nearest findings of each query, see :meth:`spicula.retrieval.index.Index.search`.

        Through the graph, some that belong there may be missed, and of more than ``ef_search`` equally near ones any.
        """
        queries = checked_queries(vectors, self._dimensions, fingerprint=fingerprint, expected=self._fingerprint)
        limits = limits_of(len(queries), scope, pids, own)
        with self._reading() as cursor:
            self._check_places(cursor, k)
            sql, values = self._table.condition(cursor, where)
            conditions = [(f"{sql}{more}", [*values, *bound]) for more, bound in limits]
            candidates = self._candidates(cursor, queries, k, conditions)
            found = self._table.read(cursor, set().union(*candidates), self._dimensions)
        return [_ranked(found, query, k, mine) for query, mine in zip(queries, candidates, strict=True)]

    def get(self, finding_ids: Sequence[str]) -> tuple[Embeddings, tuple[Facts, ...]]:
        """Vectors and facts of findings, see :meth:`spicula.retrieval.index.Index.get`."""
        with self._reading() as cursor:
            self._refuse_absent(cursor, finding_ids)
            found = self._table.read(cursor, finding_ids, self._dimensions)
        places = [found.place[name] for name in finding_ids]
        embeddings = Embeddings(found.vectors[places], tuple(finding_ids), self._fingerprint)
        return embeddings, tuple(found.facts[place] for place in places)

    def ids(self, where: str | None = None) -> tuple[str, ...]:
        """Ids of all findings that meet a condition, sorted."""
        with self._reading() as cursor:
            return self._table.ids(cursor, self._table.condition(cursor, where))

    def build(self, *, m: int = 16, ef_construction: int = 200, memory_mb: int | None = None) -> None:
        """Make the graph of approximate search, or make it anew; findings that come later join it.

        Searches go on meanwhile, changes wait.

        Args:
            m: Links of a finding, 2 to 100; more is larger, slower to make and misses less.
            ef_construction: Candidates looked at for each link, up to 1000 and at least ``2 * m``.
            memory_mb: MB that the server may use; None leaves its ``maintenance_work_mem``. A graph that does not fit
                is made much more slowly. A server in a container needs as much shared memory (``--shm-size``).

        Raises:
            InputError: Numbers that cannot be, more than 2,000 dimensions, or the server refuses.
        """
        _check_number("m", m, 2, 100)
        _check_number("ef_construction", ef_construction, max(4, 2 * m), 1000)
        _check_number("memory_mb", memory_mb, 1, 1_000_000)
        _check_number("dimensions for a graph", self._dimensions, 1, _LONGEST_GRAPH)
        with self._changing() as cursor:
            if memory_mb is not None:
                cursor.execute("SELECT set_config('maintenance_work_mem', %s, true)", (f"{int(memory_mb)}MB",))
            self._table.build_graph(cursor, m=m, ef_construction=ef_construction)

    def stats(self) -> IndexStats:
        """What it holds."""
        with self._reading() as cursor:
            findings, patients, size = self._table.measures(cursor)
            fields = MappingProxyType(self._table.fields(cursor))
            graph = self._ef_search is not None and any(self._table.graphs(cursor).values())
        backend = "pgvector-hnsw" if graph else "pgvector"
        return IndexStats(backend, findings, patients, self._dimensions, self._fingerprint, fields, size)

    def check(self) -> Iterator[str]:
        """Read everything again; one sentence for each thing that is wrong, none for a sound index."""
        wrong: list[str] = []
        try:
            with self._reading() as cursor:
                wrong += self._table.errors(cursor, self._dimensions)
                if self._ef_search is not None and not self._as_built and not self._table.graphs(cursor):
                    wrong.append(f"{self._shown}: no graph for approximate search: build() makes it")
        except InputError as error:
            wrong.append(str(error))
        yield from wrong

    def close(self) -> None:
        """Let go of the connection."""
        self._session.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """A transaction that sees the index as it is at its beginning."""
        with self._session.transaction(snapshot=True) as cursor:
            self._check_identity(self._table.identity(cursor))
            yield cursor

    @contextmanager
    def _changing(self) -> Iterator[Any]:
        """A transaction that no other change runs beside."""
        with self._session.transaction() as cursor:
            self._check_identity(self._table.identity(cursor, lock=True))
            yield cursor
            self._table.draw_stamp(cursor)

    @contextmanager
    def _putting(self, embeddings: Embeddings, facts: Sequence[Facts]) -> Iterator[tuple[Any, list[dict[str, Fact]]]]:
        """The same with facts in the form that is kept and columns for all of them."""
        checked_embeddings(embeddings, self._dimensions, self._fingerprint)
        with self._changing() as cursor:
            kept, new = checked_facts(embeddings.finding_ids, facts, self._table.fields(cursor))
            self._table.add_fields(cursor, new)
            yield cursor, kept

    def _candidates(
        self, cursor: Any, queries: Vectors, k: int, conditions: Sequence[tuple[str, Sequence[Fact]]]
    ) -> list[set[str]]:
        """Ids of the findings of which each query's k nearest are some."""
        candidates: list[set[str]] = [set()] * len(queries)
        effort = self._effort(cursor)
        if effort is not None:
            self._table.look_closely(cursor, effort)
            candidates = self._asked(queries, k, conditions, among=max(k, effort))
        # The graph may give up before k are found that fit: then these queries are asked exactly.
        short = [number for number, found in enumerate(candidates) if len(found) < k]
        exact = self._asked(queries[short], k, [conditions[number] for number in short])
        for number, found in zip(short, exact, strict=True):
            candidates[number] = found
        return candidates

    def _effort(self, cursor: Any) -> int | None:
        """Candidates that the graph is searched with; None where every finding is measured."""
        if self._ef_search is None or any(self._table.graphs(cursor).values()):
            few = self._as_built and self._table.size(cursor, enough=FEW + 1) <= FEW
            return None if few else self._ef_search
        if self._as_built:
            return None
        hint = "build() makes it; open without ef_search to search exactly"
        raise InputError(f"{self._shown}: approximate search", got="no graph that is whole", hint=hint)

    def _asked(
        self,
        queries: Vectors,
        k: int,
        conditions: Sequence[tuple[str, Sequence[Fact]]],
        *,
        among: int | None = None,
    ) -> list[set[str]]:
        """Ask about all queries before the first answer is read."""
        with self._session.pipeline() as cursor:
            pairs = zip(queries, conditions, strict=True)
            asked = [self._table.near(cursor(), query, k, one, among=among) for query, one in pairs]
            return [{row[0] for row in answer} for answer in asked]

    def _check_places(self, cursor: Any, k: int) -> None:
        number = isinstance(k, int | np.integer) and not isinstance(k, bool) and k >= 1
        if not number or self._table.size(cursor, enough=int(k)) < k:
            check_places(k, self._table.size(cursor), self._shown)

    def _check_identity(self, found: tuple[str, int]) -> None:
        if found != (self._fingerprint, self._dimensions):
            got, expected = f"{found[0]!r}, {found[1]}", f"{self._fingerprint!r}, {self._dimensions}"
            what = f"{self._shown}: fingerprint and dimensions"
            raise InputError(what, got=got, expected=expected, hint="someone made it anew: open it again")

    def _refuse_absent(self, cursor: Any, finding_ids: Sequence[str]) -> None:
        there = self._table.present(cursor, finding_ids)
        absent = [one for one in dict.fromkeys(finding_ids) if one not in there]
        if absent:
            raise no_such(absent, self._shown)


def _ranked(found: Found, query: Vectors, k: int, candidates: set[str]) -> tuple[Match, ...]:
    """The k nearest of some findings, measured in float64, equally near ones by their id."""
    rows = np.array(sorted(found.place[name] for name in candidates), dtype=np.int64)
    near = measured(found.vectors, query, rows, k)
    pairs = zip(near.rows[:k].tolist(), near.distances[:k].tolist(), strict=True)
    return tuple(Match(found.names[row], distance, found.facts[row]) for row, distance in pairs)


def _check_number(what: str, value: int | None, low: int, high: int) -> None:
    """Refuse what is no whole number between two others; None is none of our business."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if value is not None and not (whole and low <= value <= high):
        raise InputError(what, got=value, expected=f"{low} to {high}")


@contextmanager
def _closed_on_error(session: Session) -> Iterator[Session]:
    try:
        yield session
    except BaseException:
        session.close()
        raise
