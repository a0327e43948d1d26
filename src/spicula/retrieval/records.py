"""The lines of an index's data base: one for each finding, and how they are read and written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from spicula.core.embedding import Fact
from spicula.retrieval.facts import facts_checksum
from spicula.retrieval.index import Kind
from spicula.retrieval.vectors import RowNumbers
from spicula.retrieval.where import quoted_name

_AT_ONCE = 1000
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Record:
    """A finding as the data base has it.

    Args:
        row: Where its vector stands.
        finding_id: Its id.
        vector_checksum: CRC-32 of its vector.
        checksum: CRC-32 of its id and facts, as they were when they were written.
        facts: What is known of it.
    """

    row: int
    finding_id: str
    vector_checksum: int
    checksum: int
    facts: Mapping[str, Fact]

    @property
    def checksum_found(self) -> int:
        """CRC-32 of id and facts as they are now; -1 where one is neither text nor number."""
        try:
            return facts_checksum(self.finding_id, self.facts)
        except TypeError:
            return -1


def insert_records(connection: sqlite3.Connection, fields: Mapping[str, Kind], records: Iterable[Record]) -> None:
    """Write findings whose ids are not there."""
    columns = ", ".join(["_row", "_id", "_vector", "_facts", *map(quoted_name, fields)])
    places = ", ".join("?" * (4 + len(fields)))
    names = list(fields)
    connection.executemany(
        f"INSERT INTO findings ({columns}) VALUES ({places})",
        (
            (one.row, one.finding_id, one.vector_checksum, one.checksum, *map(one.facts.get, names))
            for one in records
        ),
    )  # fmt: skip


def delete_rows(connection: sqlite3.Connection, rows: Sequence[int]) -> None:
    """Take findings out; their rows become gaps."""
    connection.executemany("DELETE FROM findings WHERE _row = ?", ((row,) for row in rows))
    connection.executemany("INSERT INTO gaps VALUES (?)", ((row,) for row in rows))


def renumber(connection: sqlite3.Connection, rows: RowNumbers) -> None:
    """Give ascending rows the numbers from 0 on; there are no gaps then."""
    moved = ((new, int(old)) for new, old in enumerate(rows) if new != old)
    connection.executemany("UPDATE findings SET _row = ? WHERE _row = ?", moved)
    connection.execute("DELETE FROM gaps")


def rows_of(connection: sqlite3.Connection, finding_ids: Iterable[str]) -> dict[str, int]:
    """Rows of the findings that are there."""
    found: dict[str, int] = {}
    for part in _parts(list(finding_ids)):
        places = ", ".join("?" * len(part))
        found.update(connection.execute(f"SELECT _id, _row FROM findings WHERE _id IN ({places})", part).fetchall())
    return found


def rows_where(connection: sqlite3.Connection, sql: str, values: Sequence[Fact]) -> RowNumbers:
    """Ascending rows of the findings that meet a condition."""
    found = connection.execute(f"SELECT _row FROM findings WHERE {sql} ORDER BY _row", values)
    return np.fromiter((row for (row,) in found), dtype=np.int64)


def read_records(connection: sqlite3.Connection, fields: Mapping[str, Kind], rows: Iterable[int]) -> dict[int, Record]:
    """Findings that stand in some rows, by row."""
    found: dict[int, Record] = {}
    for part in _parts(list(rows)):
        places = ", ".join("?" * len(part))
        found.update((one.row, one) for one in _records(connection, fields, f"WHERE _row IN ({places})", part))
    return found


def all_records(connection: sqlite3.Connection, fields: Mapping[str, Kind]) -> Iterator[Record]:
    """All findings, by ascending row."""
    return _records(connection, fields, "ORDER BY _row", ())


def _records(
    connection: sqlite3.Connection, fields: Mapping[str, Kind], clause: str, values: Sequence[int]
) -> Iterator[Record]:
    names = list(fields)
    columns = ", ".join(["_row", "_id", "_vector", "_facts", *map(quoted_name, names)])
    for row, finding_id, vector, checksum, *facts in connection.execute(
        f"SELECT {columns} FROM findings {clause}", values
    ):
        known = {name: fact for name, fact in zip(names, facts, strict=True) if fact is not None}
        yield Record(row, finding_id, vector, checksum, known)


def _parts(items: list[_Item]) -> Iterator[list[_Item]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
