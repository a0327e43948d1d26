"""The database of a store: SQLite in its folder, or PostgreSQL by URL; brought up to date when it is opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from spicula.core.errors import InputError, OfflineError

FILE = "store.sqlite"
"""The database in a store's folder."""

WAIT_S = 30.0
"""For another writer, before giving up."""

_LOCK = 0x5B1C_01A5
"""Names the lock that writers who must be alone hold in PostgreSQL."""


def open_database(folder: Path, url: str | None = None) -> Engine:
    """Open the database of a store, with every table as this version wants it.

    Args:
        folder: Of the store; it is made.
        url: ``postgresql://USER@HOST/DB``; the SQLite file in the folder if None.

    Returns:
        An engine; ``dispose`` it at the end.

    Raises:
        InputError: The URL is no such one, or the database was made by a later version.
        OfflineError: The server cannot be reached.
    """
    folder.mkdir(parents=True, exist_ok=True)
    engine = _sqlite(folder / FILE) if url is None else _postgres(url)
    try:
        upgrade(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _sqlite(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": WAIT_S}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # begun by us, below: sqlite3 itself begins too late
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        connection.create_function("lower", 1, _lower, deterministic=True)  # its own knows no letters beyond ASCII

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.info.get("alone") else "BEGIN")

    return engine


def _lower(text: str | None) -> str | None:
    return None if text is None else str(text).lower()


def _postgres(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or not parsed.drivername.startswith("postgres"):
        raise InputError("database of the store", got="another URL", expected="postgresql://USER@HOST/DB")
    engine = create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, hide_parameters=True)
    try:
        engine.connect().close()
    except (OperationalError, DBAPIError):
        engine.dispose()
        where = f"{parsed.host}:{parsed.port or 5432}/{parsed.database}"
        hint = "is it running, and may this user log in (PGPASSWORD, ~/.pgpass)?"
        raise OfflineError(f"PostgreSQL at {where}", got="no connection", hint=hint) from None
    return engine


@contextmanager
def alone(engine: Engine) -> Iterator[Connection]:
    """A transaction beside which no other such one runs: for what is first looked at and then changed."""
    with engine.connect() as connection:
        connection.info["alone"] = True
        try:
            with connection.begin():
                if engine.dialect.name == "postgresql":
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
                yield connection
        finally:
            connection.info.pop("alone", None)


def upgrade(engine: Engine) -> None:
    """Bring every table to what this version wants.

    Raises:
        InputError: The database was made by a later version.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    with alone(engine) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current == scripts.get_current_head():
            return
        if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
            raise InputError(
                "database of the store", got=f"tables of a later version ({current})",
                expected=f"{scripts.get_current_head()} or older", hint="update Spicula, or restore a backup",
            )  # fmt: skip
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
