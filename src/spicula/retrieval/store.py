"""The data base of an index in a folder: SQLite with what is known of each finding and where its vector stands.

Any number may read while one writes. A change is prepared aside by SQLite's own journal and is there as a whole once
it is committed; a journal that a killed process left is rolled back by whoever opens the folder next.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import cast
from urllib.parse import quote

from spicula.core.errors import InputError
from spicula.retrieval.facts import ALWAYS
from spicula.retrieval.index import Kind
from spicula.retrieval.vectors import damaged, hexadecimal
from spicula.retrieval.where import quoted_name

DATABASE = "index.sqlite"
FORMAT = 1
_WAIT_S = 30.0
_SCHEMA = """
CREATE TABLE meta (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1), format INTEGER NOT NULL, fingerprint TEXT NOT NULL,
  dimensions INTEGER NOT NULL, generation INTEGER NOT NULL, vector_rows INTEGER NOT NULL, findings INTEGER NOT NULL,
  changes INTEGER NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE fields (position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL);
CREATE TABLE gaps (gap INTEGER PRIMARY KEY);
CREATE TABLE findings (
  _row INTEGER PRIMARY KEY, _id TEXT NOT NULL UNIQUE, _vector INTEGER NOT NULL, _facts INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class State:
    """What the data base tells of the index as a whole.

    Args:
        fingerprint: Of what made the vectors.
        dimensions: Of a vector.
        generation: Of the file of vectors; compacting writes the next.
        rows: Of that file that count: those of findings and the gaps that removed and updated findings left.
        findings: How many are there.
        changes: How many times it was changed.
        fields: Name and kind.
    """

    fingerprint: str
    dimensions: int
    generation: int
    rows: int
    findings: int
    changes: int
    fields: Mapping[str, Kind]

    def seal(self, schema: object) -> int:
        """CRC-32 of all of it and of the tables' definition, see :func:`_schema`."""
        facts = [FORMAT, self.fingerprint, self.dimensions, self.generation, self.rows, self.findings, self.changes]
        return zlib.crc32(json.dumps([*facts, list(self.fields.items()), schema]).encode("ascii"))


def create_store(folder: Path, *, fingerprint: str, dimensions: int) -> State:
    """Make the data base of an index without findings in a folder that has none."""
    state = State(fingerprint, dimensions, 1, 0, 0, 0, MappingProxyType({}))
    connection = sqlite3.connect(folder / DATABASE, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.executescript(_SCHEMA)
        connection.execute("BEGIN")
        values = (FORMAT, fingerprint, dimensions, 1, 0, 0, 0, 0)
        connection.execute("INSERT INTO meta VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        state = add_fields(connection, state, ALWAYS)
        connection.execute("CREATE INDEX findings_of_patient ON findings (pid)")
        _write_state(connection, state)
        _draw_stamp(connection)
        connection.execute("COMMIT")
    finally:
        connection.close()
    return state


def add_fields(connection: sqlite3.Connection, state: State, new: Mapping[str, Kind]) -> State:
    """Make columns for fields that come."""
    for number, (name, kind) in enumerate(new.items(), start=len(state.fields)):
        connection.execute("INSERT INTO fields VALUES (?, ?, ?)", (number, name, kind))
        stored = "REAL" if kind == "number" else "TEXT"
        connection.execute(f"ALTER TABLE findings ADD COLUMN {quoted_name(name)} {stored}")
    return replace(state, fields=MappingProxyType({**state.fields, **new}))


@dataclass(slots=True)
class Change:
    """A change under way: what is set as ``state`` becomes true when it ends well."""

    connection: sqlite3.Connection
    state: State


class Store:
    """The data base, opened; each thread reads through a connection of its own.

    Args:
        folder: Of the index.
        wait_s: Seconds to wait for another process that writes.

    Raises:
        InputError: No index, of another format, or damaged.
    """

    def __init__(self, folder: Path, *, wait_s: float = _WAIT_S) -> None:
        self.folder, self.path, self._wait_s = folder, folder / DATABASE, wait_s
        self._own = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._closed = False
        if not self.path.is_file():
            what = f"{folder}: {'no index' if folder.is_dir() else 'no such folder'}"
            raise InputError(what, expected=f"a folder with {DATABASE}", hint="spicula index build makes one")

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        while self._all:
            self._all.pop().close()

    @contextmanager
    def reading(self) -> Iterator[tuple[sqlite3.Connection, State]]:
        """Read the index as it is now; changes of others do not show within the block.

        Raises:
            InputError: It was closed, is damaged, or a change of another process takes too long.
        """
        with self._understood():
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                yield connection, self._state(connection)
            finally:
                connection.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[Change]:
        """Change the index; all of it is there when the block ends well, nothing otherwise.

        Raises:
            InputError: Another process is writing, the folder cannot be written, the disk is full, or it is damaged.
        """
        with self._understood():
            connection = self._connect()
            try:
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute("BEGIN IMMEDIATE")
                before = self._state(connection)
                change = Change(connection, before)
                yield change
                _write_state(connection, replace(change.state, changes=before.changes + 1))
                _draw_stamp(connection)
                connection.execute("COMMIT")
            finally:
                connection.close()  # rolls back what was not committed

    def stamp(self) -> str:
        """What is another after each change: the number of changes, and what was drawn by chance at the last.

        A folder that was put in the place of this one, or an older copy that went its own way, may count as many.
        """
        with self.reading() as (connection, state):
            drawn = int(connection.execute("PRAGMA user_version").fetchone()[0])
            return f"{state.changes}-{drawn & 0xFFFFFFFF:08x}"

    def vacuum(self) -> None:
        """Give the disk back what removed findings held."""
        with self._understood():
            connection = self._connect()
            try:
                connection.execute("VACUUM")
            finally:
                connection.close()

    def _connect(self) -> sqlite3.Connection:
        address = f"file:{quote(str(self.path.resolve()))}?mode=rw"  # read-only by itself where it must be
        connection = sqlite3.connect(
            address, uri=True, isolation_level=None, timeout=self._wait_s, check_same_thread=False
        )
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        return connection

    def _connection(self) -> sqlite3.Connection:
        connection = cast(sqlite3.Connection | None, getattr(self._own, "connection", None))
        if connection is None:
            connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
            self._own.connection, self._own.state = connection, None
            self._all.append(connection)
        return connection

    def _state(self, connection: sqlite3.Connection) -> State:
        """The state of this moment; read anew only if something was changed."""
        known = cast(State | None, getattr(self._own, "state", None))
        found = connection.execute("SELECT format, changes, seal FROM meta").fetchone()
        if found is None:
            raise damaged(self.path, got="no facts of the index", expected="one line of them")
        number, changes, seal = found
        if number != FORMAT:
            hint = "it was made by another version of Spicula"
            raise InputError(f"{self.path}: format", got=number, expected=FORMAT, hint=hint)
        if known is None or self._own.sealed != (changes, seal):
            known = read_state(connection, self.path)
            self._own.state, self._own.sealed = known, (changes, seal)
        return known

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Say what SQLite's errors mean."""
        if self._closed:
            raise InputError(f"{self.folder}: the index was closed")
        try:
            yield
        except UnicodeDecodeError as error:  # in a message of SQLite's, too
            raise damaged(self.path, got="text that is no UTF-8", expected="what was written") from error
        except sqlite3.Error as error:
            if self._closed:
                raise InputError(f"{self.folder}: the index was closed") from error
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            text = str(error)
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                hint = "try again when the other one has finished"
                raise InputError(
                    f"{self.path}: in use", got=f"another change for {self._wait_s:g} s", hint=hint
                ) from error
            if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                hint = "nothing was changed; see to space and rights, and try again"
                raise InputError(f"{self.path}: cannot be written or read", got=text, hint=hint) from error
            raise damaged(self.path, got=text, expected="what was written") from error


def read_state(connection: sqlite3.Connection, path: Path) -> State:
    """What the data base tells of the index as a whole.

    Raises:
        InputError: It is not what was written.
    """
    fingerprint, dimensions, generation, rows, findings, changes, seal = connection.execute(
        "SELECT fingerprint, dimensions, generation, vector_rows, findings, changes, seal FROM meta"
    ).fetchone()
    fields = dict(connection.execute("SELECT name, kind FROM fields ORDER BY position").fetchall())
    state = State(fingerprint, dimensions, generation, rows, findings, changes, MappingProxyType(fields))
    try:
        found = hexadecimal(state.seal(_schema(connection)))
    except TypeError:
        found = "of no text or number"
    if found != hexadecimal(seal):
        raise damaged(path, got=f"checksum {found} of the index's own facts", expected=hexadecimal(seal))
    return state


def _write_state(connection: sqlite3.Connection, state: State) -> None:
    connection.execute(
        "UPDATE meta SET generation = ?, vector_rows = ?, findings = ?, changes = ?, seal = ?",
        (state.generation, state.rows, state.findings, state.changes, state.seal(_schema(connection))),
    )


def _draw_stamp(connection: sqlite3.Connection) -> None:
    """Mark a change within its transaction; indexes made by older versions of Spicula hold 0 until they are changed."""
    connection.execute(f"PRAGMA user_version = {secrets.randbits(31)}")


def _schema(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    """How the tables were defined: a definition that was damaged can still be one."""
    return connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
