"""A fresh store's database, in SQLite and in a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from spicula.store.database import open_database


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path) -> tuple[Path, str | None]:
    """Folder and URL of a store that is not there yet."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    return tmp_path / "store", url


@pytest.fixture
def engine(place) -> Iterator[Engine]:
    """Its database."""
    engine = open_database(*place)
    yield engine
    engine.dispose()
