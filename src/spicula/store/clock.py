"""The store's times: UTC, ISO 8601 with microseconds, as text that orders as it reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def now() -> str:
    """This moment."""
    return later(0.0)


def later(seconds: float) -> str:
    """So many seconds from now; negative ones have passed."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
