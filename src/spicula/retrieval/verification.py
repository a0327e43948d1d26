"""Whether the files of an index are what was written: sizes, checksums, and that they agree with each other."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from spicula.core.errors import InputError
from spicula.retrieval.records import Record, all_records, read_records
from spicula.retrieval.store import State, read_state
from spicula.retrieval.vectors import RowNumbers, Vectors, damaged, hexadecimal, vector_checksums, vectors_name

WHOLE_BYTES, WHOLE_FINDINGS = 16 * 2**20, 5_000
"""An index with vectors up to this size and up to so many of them is read and checked as a whole when it is opened: a
tenth of a second. Of larger ones a sample is, and whatever a search brings; :func:`errors_of_all` reads everything."""

_SAMPLE, _LONGEST, _BLOCK = 64, 200, 10_000


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """An index at one moment.

    Args:
        connection: Of its data base, within a transaction.
        state: What the data base tells of it as a whole.
        vectors: float32 ``[rows, d]``, mapped.
        gaps: Ascending rows that belong to no finding.
        database: The file.
        folder: Of the index.
    """

    connection: sqlite3.Connection
    state: State
    vectors: Vectors
    gaps: RowNumbers
    database: Path
    folder: Path

    @property
    def vectors_path(self) -> Path:
        """The file of vectors."""
        return self.folder / vectors_name(self.state.generation)


def read_gaps(connection: sqlite3.Connection, state: State, path: Path) -> RowNumbers:
    """Ascending rows that belong to no finding.

    Raises:
        InputError: They do not agree with the findings.
    """
    gaps = np.fromiter((gap for (gap,) in connection.execute("SELECT gap FROM gaps ORDER BY gap")), dtype=np.int64)
    expected = state.rows - state.findings
    taken = connection.execute("SELECT COUNT(*) FROM gaps JOIN findings ON gap = _row").fetchone()[0]
    outside = int(((gaps < 0) | (gaps >= state.rows)).sum())
    if gaps.size != expected or taken or outside:
        raise damaged(path, got=f"{gaps.size - taken - outside} rows without a finding", expected=expected)
    return gaps


def errors_at_opening(view: View) -> Iterator[InputError]:
    """Everything of a small index; of a large one a sample of its findings."""
    if view.vectors.nbytes <= WHOLE_BYTES and view.state.findings <= WHOLE_FINDINGS:
        yield from errors_of_all(view)
        return
    rows = np.setdiff1d(np.linspace(0, view.state.rows - 1, _SAMPLE).astype(np.int64), view.gaps)
    found = read_records(view.connection, view.state.fields, rows.tolist())
    yield from errors_of(view, rows.tolist(), found)


def errors_of_all(view: View) -> Iterator[InputError]:
    """Read the whole data base and all vectors."""
    for (text,) in view.connection.execute("PRAGMA integrity_check"):
        if text != "ok":
            yield damaged(view.database, got=" ".join(text.split())[:_LONGEST], expected="what was written")
    try:
        read_gaps(view.connection, read_state(view.connection, view.database), view.database)
    except InputError as error:
        yield error
    number, first, last = view.connection.execute("SELECT COUNT(*), MIN(_row), MAX(_row) FROM findings").fetchone()
    if number != view.state.findings:
        yield damaged(view.database, got=f"{number} findings", expected=view.state.findings)
    if number and not 0 <= first <= last < view.state.rows:
        yield damaged(view.database, got=f"rows {first} to {last}", expected=f"0 to {view.state.rows - 1}")
        return
    records = all_records(view.connection, view.state.fields)
    while part := list(islice(records, _BLOCK)):
        yield from _errors_of(view, part)


def errors_of(view: View, rows: Iterable[int], found: dict[int, Record]) -> Iterator[InputError]:
    """What is wrong with the findings of some rows."""
    wanted = list(rows)
    for row in wanted:
        if row not in found:
            yield damaged(view.database, got=f"no finding in row {row}", expected="one")
    yield from _errors_of(view, [found[row] for row in wanted if row in found])


def _errors_of(view: View, records: Sequence[Record]) -> Iterator[InputError]:
    """What is wrong with some findings: their vectors, read together, and their facts."""
    checksums = vector_checksums(view.vectors[[one.row for one in records]]) if records else []
    for one, crc in zip(records, checksums, strict=True):
        if crc != one.vector_checksum:
            got = f"checksum {hexadecimal(crc)} of the vector of {one.finding_id}"
            yield damaged(view.vectors_path, got=got, expected=hexadecimal(one.vector_checksum))
        crc = one.checksum_found
        if crc != one.checksum:
            got = f"checksum {hexadecimal(crc)} of the facts of {one.finding_id}"
            yield damaged(view.database, got=got, expected=hexadecimal(one.checksum))
