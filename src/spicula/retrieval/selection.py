"""Which rows of an index each query may find: by condition, by patient, and not itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from spicula.core.embedding import Fact, Scope
from spicula.core.errors import InputError
from spicula.retrieval.queries import checked_scope
from spicula.retrieval.records import rows_of, rows_where
from spicula.retrieval.vectors import RowNumbers

_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Allowed:
    """Queries that may find the same rows but for a few.

    Args:
        queries: int64 ``[q]`` numbers of the queries.
        rows: int64, ascending; None for every finding.
        without: For each query the ascending rows that it must not find.
    """

    queries: RowNumbers
    rows: RowNumbers | None
    without: Sequence[RowNumbers]


def selected(
    connection: sqlite3.Connection,
    queries: int,
    condition: tuple[str, Sequence[Fact]] | None,
    *,
    scope: Scope,
    pids: Sequence[str] | None,
    own: Sequence[str | None] | None,
    fitting: Callable[[str, Sequence[Fact]], RowNumbers],
) -> Iterator[Allowed]:
    """Say what each query may find.

    Args:
        connection: Of the index.
        queries: How many.
        condition: SQL and values; None for all findings.
        scope: Which findings by patient.
        pids: Patient of each query, for scopes by patient.
        own: Id of each query that is in the index itself; one that is not there is left out of nothing.
        fitting: Gives the ascending rows that meet a condition; it may know them from before.

    Yields:
        Groups of queries; together they are all.

    Raises:
        InputError: An unknown scope, or patients or ids that are not one for each query.
    """
    patients = checked_scope(scope, pids, queries)
    if own is not None and len(own) != queries:
        raise InputError("own ids", got=len(own), expected=f"{queries}, one for each query or None")
    itself = _own_rows(connection, own, queries)
    numbers = np.arange(queries)
    if scope == "same-patient":
        sql, values = condition or ("1", ())
        for pid in dict.fromkeys(patients):
            mine = np.flatnonzero([patient == pid for patient in patients])
            rows = rows_where(connection, f"pid = ? AND {sql}", [pid, *values])
            yield Allowed(mine, rows, [itself[query] for query in mine])
        return
    rows_allowed = None if condition is None else fitting(*condition)
    if scope == "cross-patient":
        of_patient = {pid: rows_where(connection, "pid = ?", [pid]) for pid in dict.fromkeys(patients)}
        itself = [np.union1d(of_patient[pid], row) for pid, row in zip(patients, itself, strict=True)]
    yield Allowed(numbers, rows_allowed, itself)


def _own_rows(connection: sqlite3.Connection, own: Sequence[str | None] | None, queries: int) -> list[RowNumbers]:
    if own is None:
        return [_NONE] * queries
    rows = rows_of(connection, {one for one in own if one is not None})
    return [_NONE if one is None or one not in rows else np.array([rows[one]]) for one in own]
