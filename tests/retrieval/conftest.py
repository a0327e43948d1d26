"""The PostgreSQL of the tests."""

from __future__ import annotations

from ..postgres_server import new_database, postgres_server, postgres_url

__all__ = ["new_database", "postgres_server", "postgres_url"]
