"""The tables of one index in PostgreSQL: a schema ``spicula_<name>`` with ``findings`` and ``meta``, and their SQL.

All functions take a cursor within a transaction, see :class:`spicula.retrieval.postgres.Session`. Values are always
bound; names of fields are always quoted; other names are checked before they come near SQL.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spicula.core.embedding import Embeddings, Fact, Scope
from spicula.core.errors import InputError
from spicula.retrieval.facts import ALWAYS
from spicula.retrieval.index import Kind
from spicula.retrieval.queries import checked_scope
from spicula.retrieval.vectors import Vectors
from spicula.retrieval.where import AllOf, AnyOf, Condition, Not, parse_condition, quoted_name, storable, to_sql

FORMAT = 1
_PREFIX, _NAME = "spicula_", re.compile(r"[a-z][a-z0-9_]{0,39}")
_TYPES: Mapping[Kind, str] = {"text": 'text COLLATE "C"', "number": "double precision"}
_KINDS: Mapping[str, Kind] = {"text": "text", "double precision": "number"}
_SYSTEM = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
"""Names that no column of PostgreSQL may have: a field of such a name is the column ``_<name>``."""
_INLINE = 768
"""Dimensions up to which a vector stays in its row; a longer one lies aside, or rows might outgrow a page."""

_CREATE = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.meta (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), format integer NOT NULL, fingerprint text NOT NULL,
  dimensions integer NOT NULL);
CREATE TABLE {schema}.findings (
  _finding_id text COLLATE "C" PRIMARY KEY, _embedding vector({dimensions}) NOT NULL,
  pid text COLLATE "C" NOT NULL, nodule_id text COLLATE "C" NOT NULL);
CREATE INDEX findings_of_patient ON {schema}.findings (pid);
ALTER TABLE {schema}.findings ALTER COLUMN _embedding SET STORAGE {storage}
"""
_COLUMNS = """
SELECT attname, format_type(atttypid, NULL), atttypmod FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_NEAR = """
WITH near AS MATERIALIZED (
  SELECT _finding_id AS id, _embedding <-> %s AS distance FROM {findings} WHERE {condition} {order}),
 last AS (SELECT max(distance) AS distance FROM (SELECT distance FROM near ORDER BY distance LIMIT %s) AS first)
SELECT near.id FROM near, last WHERE near.distance <= last.distance * %s + 1e-15
"""
_LOOK_CLOSELY = """
SELECT set_config('hnsw.ef_search', %s, true), set_config('hnsw.iterative_scan', 'relaxed_order', true)
"""
_GRAPHS = """
SELECT c.relname, i.indisvalid FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_am AS a ON a.oid = c.relam WHERE i.indrelid = %s::regclass AND a.amname = 'hnsw' ORDER BY c.relname
"""
_WRONG = """
SELECT _finding_id, vector_dims(_embedding), vector_norm(_embedding), coalesce(pid, ''), coalesce(nodule_id, '')
FROM {findings} WHERE vector_dims(_embedding) <> %s OR NOT abs(vector_norm(_embedding) - 1) < 1e-3
 OR coalesce(pid, '') = '' OR coalesce(nodule_id, '') = '' OR _finding_id = '' ORDER BY _finding_id
"""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Findings as they are stored, by ascending id.

    Args:
        names: ``[n]`` ids.
        place: Where each of them stands.
        vectors: float32 ``[n, d]``.
        facts: ``[n]``.
    """

    names: list[str]
    place: Mapping[str, int]
    vectors: Vectors
    facts: list[dict[str, Fact]]


class Table:
    """The tables of one index.

    Args:
        name: Of the index.

    Raises:
        InputError: A name that cannot be.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            expected = "up to 40 of a-z, 0-9 and _, a letter first"
            raise InputError("name of an index", got=repr(name), expected=expected)
        self.name, self.schema = name, _PREFIX + name
        self.findings, self.meta = f"{self.schema}.findings", f"{self.schema}.meta"

    def create(self, cursor: Any, *, fingerprint: str, dimensions: int) -> None:
        """Make the tables.

        Raises:
            InputError: There is a schema of the name.
        """
        if cursor.execute("SELECT to_regnamespace(%s)", (self.schema,)).fetchone()[0] is not None:
            hint = f"open it, put more into it with `spicula index add`, or DROP SCHEMA {self.schema} CASCADE"
            raise InputError(f"index {self.name}", got="one that exists", expected="a new name", hint=hint)
        storage = "PLAIN" if dimensions <= _INLINE else "EXTERNAL"
        for statement in _CREATE.format(schema=self.schema, dimensions=dimensions, storage=storage).split(";"):
            cursor.execute(statement)
        row = (FORMAT, fingerprint, dimensions)
        cursor.execute(f"INSERT INTO {self.meta} (format, fingerprint, dimensions) VALUES (%s, %s, %s)", row)

    def identity(self, cursor: Any, *, lock: bool = False) -> tuple[str, int]:
        """Fingerprint and dimensions.

        Args:
            cursor: Within a transaction.
            lock: Wait for other changes, and have others wait until the transaction ends.

        Raises:
            InputError: No such index, or one of another format.
        """
        if cursor.execute("SELECT to_regclass(%s)", (self.meta,)).fetchone()[0] is None:
            names = cursor.execute("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)", (_PREFIX,))
            there = ", ".join(sorted(row[0].removeprefix(_PREFIX) for row in names)) or "none"
            raise InputError(f"index {self.name}", got="no such index", expected=f"one of those there: {there}")
        number = cursor.execute(f"SELECT format FROM {self.meta}" + " FOR UPDATE" * lock).fetchone()
        if number is None or number[0] != FORMAT:
            hint = "it was made by another version of Spicula: use that one, or build the index anew"
            raise InputError(f"format of index {self.name}", got=number and number[0], expected=FORMAT, hint=hint)
        fingerprint, dimensions = cursor.execute(f"SELECT fingerprint, dimensions FROM {self.meta}").fetchone()
        return fingerprint, dimensions

    def stamp(self, cursor: Any) -> str:
        """What is another after each change: the server's number of the transaction that made the last."""
        table, number = cursor.execute(f"SELECT tableoid::text, xmin::text FROM {self.meta}").fetchone()
        return f"{table}-{number}"

    def draw_stamp(self, cursor: Any) -> None:
        """Mark a change within its transaction: the row is written anew, as it is."""
        cursor.execute(f"UPDATE {self.meta} SET format = format")

    def fields(self, cursor: Any) -> dict[str, Kind]:
        """Name and kind, in the order they came."""
        columns = ((_field(name), kind) for name, kind, _ in cursor.execute(_COLUMNS, (self.findings,)))
        return {name: _KINDS[kind] for name, kind in columns if kind in _KINDS and not name.startswith("_")}

    def add_fields(self, cursor: Any, new: Mapping[str, Kind]) -> None:
        """Make columns for fields that come."""
        if new:
            columns = ", ".join(f"ADD COLUMN {quoted_name(_column(name))} {_TYPES[kind]}" for name, kind in new.items())
            cursor.execute(f"ALTER TABLE {self.findings} {columns}")

    def size(self, cursor: Any, *, enough: int | None = None) -> int:
        """Number of findings; where that is plenty, ``enough`` without counting on."""
        rows, values = (
            (self.findings, ()) if enough is None else (f"(SELECT 1 FROM {self.findings} LIMIT %s) s", (enough,))
        )
        return int(cursor.execute(f"SELECT count(*) FROM {rows}", values).fetchone()[0])

    def present(self, cursor: Any, finding_ids: Collection[str]) -> set[str]:
        """Which of some findings are there."""
        sql = f"SELECT _finding_id FROM {self.findings} WHERE _finding_id = ANY(%s)"
        return {row[0] for row in cursor.execute(sql, ([name for name in finding_ids if storable(name)],))}

    def copy(self, cursor: Any, embeddings: Embeddings, facts: Sequence[Mapping[str, Fact]]) -> None:
        """Write findings that are not there."""
        fields = self.fields(cursor)
        columns = ", ".join(["_finding_id", "_embedding", *(quoted_name(_column(name)) for name in fields)])
        rows = zip(embeddings.finding_ids, embeddings.vectors, facts, strict=True)
        with cursor.copy(f"COPY {self.findings} ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["text", "vector", *("text" if kind == "text" else "float8" for kind in fields.values())])
            for finding_id, vector, one in rows:
                copy.write_row((finding_id, vector, *map(one.get, fields)))

    def delete(self, cursor: Any, finding_ids: Collection[str]) -> None:
        """Take findings out."""
        cursor.execute(f"DELETE FROM {self.findings} WHERE _finding_id = ANY(%s)", (list(finding_ids),))

    def condition(self, cursor: Any, where: str | None) -> tuple[str, list[Fact]]:
        """SQL and values of a condition on fields; true for all where there is none."""
        if where is None:
            return "true", []
        return to_sql(_of_columns(parse_condition(where, self.fields(cursor))), placeholder="%s")

    def ids(self, cursor: Any, condition: tuple[str, Sequence[Fact]]) -> tuple[str, ...]:
        """Ids of the findings that meet a condition, sorted."""
        sql = f"SELECT _finding_id FROM {self.findings} WHERE {condition[0]} ORDER BY _finding_id"
        return tuple(row[0] for row in cursor.execute(sql, condition[1]))

    def near(
        self, cursor: Any, vector: Vectors, k: int, condition: tuple[str, Sequence[Fact]], *, among: int | None = None
    ) -> Any:
        """Ask for the k findings nearest to a vector and all that rounding could have put behind them.

        The server measures in float32: that is wrong by less than ``(d + 4) * 2^-24`` of a squared distance, so whoever
        may belong to the first k is within ``1 + (d + 4) * 2^-23`` of the k-th distance.

        Args:
            cursor: Within a transaction.
            vector: float32 ``[d]``.
            k: How many.
            condition: SQL and values.
            among: None for all findings; else for as many as the graph brings, see :meth:`look_closely`.
        """
        sql = _NEAR.format(
            findings=self.findings, condition=condition[0], order="" if among is None else "ORDER BY distance LIMIT %s"
        )
        doubt = 1.0 + (vector.size + 4) * 2.0**-23
        limit = [] if among is None else [int(among)]
        return cursor.execute(sql, (vector, *condition[1], *limit, int(k), doubt))

    def look_closely(self, cursor: Any, ef_search: int) -> None:
        """Have the graph look at so many candidates in this transaction, and on until enough fit."""
        cursor.execute(_LOOK_CLOSELY, (str(int(ef_search)),))

    def read(self, cursor: Any, finding_ids: Collection[str], dimensions: int) -> Found:
        """Read findings; those that are not there are left out."""
        sql = f"SELECT * FROM {self.findings} WHERE _finding_id = ANY(%s) ORDER BY _finding_id"
        # A prepared "SELECT *" is refused once a field was added.
        cursor.execute(sql, (list(finding_ids),), prepare=False)
        columns = [column.name for column in cursor.description]
        rows = cursor.fetchall()
        at, name = columns.index("_embedding"), columns.index("_finding_id")
        fields = self.fields(cursor)
        known = [(number, _field(column)) for number, column in enumerate(columns) if _field(column) in fields]
        vectors = np.empty((len(rows), dimensions), dtype=np.float32)
        for number, row in enumerate(rows):
            vectors[number] = row[at].to_numpy()
        facts = [{field: row[number] for number, field in known if row[number] is not None} for row in rows]
        names = [row[name] for row in rows]
        return Found(names, {one: number for number, one in enumerate(names)}, vectors, facts)

    def graphs(self, cursor: Any) -> dict[str, bool]:
        """Names of the graphs for approximate search, and whether each is valid."""
        return dict(cursor.execute(_GRAPHS, (self.findings,)).fetchall())

    def build_graph(self, cursor: Any, *, m: int, ef_construction: int) -> None:
        """Make a graph in the place of those that are there."""
        old = self.graphs(cursor)
        cursor.execute(
            f"CREATE INDEX ON {self.findings} USING hnsw (_embedding vector_l2_ops) "
            f"WITH (m = {int(m)}, ef_construction = {int(ef_construction)})"
        )
        for name in old:
            cursor.execute(f"DROP INDEX {self.schema}.{quoted_name(name)}")

    def measures(self, cursor: Any) -> tuple[int, int, int]:
        """Numbers of findings and patients, bytes of the tables with all that belongs to them."""
        sizes = "pg_total_relation_size(%s::regclass) + pg_total_relation_size(%s::regclass)"
        sql = f"SELECT count(*), count(DISTINCT pid), {sizes} FROM {self.findings}"
        findings, patients, size = cursor.execute(sql, (self.findings, self.meta)).fetchone()
        return findings, patients, int(size)

    def errors(self, cursor: Any, dimensions: int) -> Iterator[str]:
        """One sentence for each thing that is wrong with the tables."""
        columns = {name: (kind, size) for name, kind, size in cursor.execute(_COLUMNS, (self.findings,))}
        kind_found, size_found = columns.get("_embedding", ("nothing", -1))
        if size_found != dimensions:
            yield f"index {self.name}: vectors are stored as {kind_found} of {size_found}, expected {dimensions}"
        for field, kind in ALWAYS.items():
            if _KINDS.get(columns.get(field, ("", 0))[0]) != kind:
                yield f"index {self.name}: no column {field} of {kind}"
        for graph, valid in self.graphs(cursor).items():
            if not valid:
                yield f"index {self.name}: the graph {graph} is not whole and not used: build() makes another"
        for name, size, length, *facts in cursor.execute(_WRONG.format(findings=self.findings), (dimensions,)):
            if not name:
                yield f"index {self.name}: a finding without an id"
            for field, value in zip(ALWAYS, facts, strict=True):
                if not value:
                    yield f"finding {name}: no {field}"
            if size != dimensions or not abs(length - 1) < 1e-3:
                yield f"finding {name}: {size} dimensions, length {length:.6g}, expected {dimensions} and 1"


def limits_of(
    queries: int, scope: Scope, pids: Sequence[str] | None, own: Sequence[str | None] | None
) -> list[tuple[str, list[Fact]]]:
    """What each query may find besides the condition: more SQL and its values.

    Raises:
        InputError: An unknown scope, or patients or ids that are not one for each query.
    """
    patients = checked_scope(scope, pids, queries)
    if own is not None and len(own) != queries:
        raise InputError("own ids", got=len(own), expected=f"{queries}, one for each query or None")
    if not all(map(storable, patients)):
        raise InputError("patients of the queries", got="one with NUL or half a letter", expected="UTF-8 without NUL")
    sign = "=" if scope == "same-patient" else "<>"
    limits: list[tuple[str, list[Fact]]] = [(f" AND pid {sign} %s", [pid]) for pid in patients]
    limits = limits or [("", [])] * queries
    itself = [None] * queries if own is None else own
    return [
        (sql, values) if one is None or not storable(one) else (f"{sql} AND _finding_id <> %s", [*values, one])
        for (sql, values), one in zip(limits, itself, strict=True)
    ]


def _column(field: str) -> str:
    return f"_{field}" if field in _SYSTEM else field


def _field(column: str) -> str:
    return column[1:] if column[1:] in _SYSTEM else column


def _of_columns(condition: Condition) -> Condition:
    """The condition with the names of columns for those of fields."""
    match condition:
        case Not(part):
            return Not(_of_columns(part))
        case AllOf(parts):
            return AllOf(tuple(map(_of_columns, parts)))
        case AnyOf(parts):
            return AnyOf(tuple(map(_of_columns, parts)))
    return replace(condition, field=_column(condition.field))
