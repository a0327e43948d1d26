"""A connection to a PostgreSQL server with the extension ``vector``: opened again when lost, errors in plain words.

No password appears in what is raised or shown: servers are named by user, host and database alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from spicula.core.errors import InputError, MissingExtraError
from spicula.core.extras import require

_OLDEST = (0, 8)
_DEFAULTS = {"connect_timeout": 10, "keepalives_idle": 30, "fallback_application_name": "spicula"}
_EXTENSION = """
SELECT n.nspname, e.extversion FROM pg_catalog.pg_extension AS e
JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'vector'
"""
_SETTINGS = """
SELECT set_config('search_path', 'pg_catalog, ' || quote_ident(%s), false), set_config('jit', 'off', false),
 set_config('idle_in_transaction_session_timeout', '60s', false),
 set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
            ELSE current_setting('synchronous_commit') END, false)
"""
"""Names mean the same whatever the user's settings; a client that fell silent holds nothing; what is said lasts."""

_HINTS = {
    "25006": "this server or user may only read: write through the main server",
    "40001": "others changed the same: call again",
    "40P01": "others changed the same: call again",
    "42501": "ask the owner of the database for the right (GRANT)",
    "53100": "the server's disk is full; nothing was changed",
    "53200": "the server lacks memory: give less memory_mb",
    "57014": "the server's limit of time was reached, or somebody stopped it; nothing was changed",
}


class Session:
    """One connection; calls of several threads wait for each other.

    Args:
        url: ``postgresql://user@host/database``; the password may be in it, in ``PGPASSWORD`` or in ``~/.pgpass``.

    Raises:
        InputError: No such URL, no server, or no extension ``vector`` of at least 0.8 in the database.
        MissingExtraError: psycopg or pgvector is not installed.
    """

    def __init__(self, url: str) -> None:
        self._parameters = _parsed(url)
        self._lock = threading.RLock()
        self._closed = False
        given = {name: str(self._parameters.get(name) or "") for name in ("user", "host", "port", "dbname")}
        user, port = given["user"] and given["user"] + "@", given["port"] and ":" + given["port"]
        self.shown = f"postgresql://{user}{given['host']}{port}/{given['dbname']}"
        """The server and database, to be shown."""
        self._connection = self._connect()

    def close(self) -> None:
        """Let go of the connection."""
        self._closed = True
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self, *, snapshot: bool = False) -> Iterator[Any]:
        """Run statements that take effect together when the block ends well, and not at all otherwise.

        Args:
            snapshot: Only read, and see the database as it is at the first statement.

        Yields:
            A cursor of psycopg that speaks binary.

        Raises:
            InputError: The session is closed, or the server refuses or is lost.
        """
        psycopg = _driver()
        with self._lock:
            if self._closed:
                raise InputError(f"index in {self.shown}", got="closed already", hint="open it again")
            if self._connection.closed:
                self._connection = self._connect()
            try:
                with self._connection.transaction(), self._connection.cursor(binary=True) as cursor:
                    if snapshot:
                        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    yield cursor
            except psycopg.Error as error:
                raise self._explained(error) from error

    @contextmanager
    def pipeline(self) -> Iterator[Callable[[], Any]]:
        """Within a transaction: send statements without waiting for the answers of those before.

        Yields:
            What makes a cursor, one for each statement.
        """
        connection = self._connection
        with connection.pipeline():
            yield lambda: connection.cursor(binary=True)

    def _connect(self) -> Any:
        psycopg = _driver()
        try:
            connection = psycopg.connect(autocommit=True, **self._parameters)
        except psycopg.Error as error:
            hint = "see that the server runs and that host, port, database, user and password are right"
            raise InputError(f"server {self.shown}", got=self._said(error), hint=hint) from None
        try:
            self._set_up(psycopg, connection)
        except psycopg.Error as error:
            connection.close()
            raise InputError(f"server {self.shown}", got=self._said(error)) from None
        except InputError:
            connection.close()
            raise
        return connection

    def _set_up(self, psycopg: ModuleType, connection: Any) -> None:
        found = connection.execute(_EXTENSION).fetchone()
        if found is None:
            at_hand = connection.execute(
                "SELECT 1 FROM pg_catalog.pg_available_extensions WHERE name = 'vector'"
            ).fetchone()
            hint = "a superuser of the server runs, in this database: CREATE EXTENSION vector"
            if at_hand is None:
                hint = "install the package pgvector on the server, then " + hint
            raise InputError(f"database {self.shown}", got="no extension vector", hint=hint)
        schema, version = found
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
            hint = "install it on the server, then a superuser runs: ALTER EXTENSION vector UPDATE"
            raise InputError(f"extension vector in {self.shown}", got=version, expected="0.8 or later", hint=hint)
        connection.execute(_SETTINGS, (schema,))
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        require("pgvector.psycopg", extra="postgres").register_vector(connection)

    def _explained(self, error: Any) -> InputError:
        if self._connection.closed:
            hint = "a change that was under way is there as a whole or not at all: look, then call again"
            return InputError(f"server {self.shown}", got=f"connection lost: {self._said(error)}", hint=hint)
        return InputError(f"database {self.shown}", got=self._said(error), hint=_HINTS.get(error.sqlstate or ""))

    def _said(self, error: Any) -> str:
        """First line of what driver or server said, without password and without details, which hold values."""
        text = str(error.diag.message_primary or (str(error).strip() or type(error).__name__).splitlines()[0])
        password = self._parameters.get("password")
        return text.replace(str(password), "***") if password else text


def _driver() -> ModuleType:
    """Psycopg, if it is there with its library."""
    require("pgvector.psycopg", extra="postgres")
    try:
        return require("psycopg", extra="postgres")
    except MissingExtraError:
        raise
    except ImportError as error:  # psycopg is there without libpq
        raise MissingExtraError(
            "psycopg cannot be used", got=str(error), hint="pip install 'spicula[postgres]'"
        ) from error


def _parsed(url: str) -> dict[str, Any]:
    """Parameters of a connection; what cannot be read is not shown, as its password may stand anywhere."""
    psycopg = _driver()
    expected, hint = "postgresql://user@host/database", "write / : @ # % ? of a password as %2F %3A %40 %23 %25 %3F"
    if not url.startswith(("postgresql://", "postgres://")):
        raise InputError("URL of the database", got="another beginning", expected=expected)
    try:
        given = require("psycopg.conninfo", extra="postgres").conninfo_to_dict(url)
    except psycopg.Error:
        raise InputError("URL of the database", got="one that cannot be read", expected=expected, hint=hint) from None
    port, places = given.get("port") or "", (given.get("host") or "", given.get("dbname") or "")
    if not set(port) <= set("0123456789,") or any("@" in place for place in places):
        # A / ? or @ of the password ends it early: the rest is read as a port or a database, and would be shown.
        raise InputError("URL of the database", got="one that cannot be read", expected=expected, hint=hint)
    return {**_DEFAULTS, **given, "client_encoding": "UTF8"}
