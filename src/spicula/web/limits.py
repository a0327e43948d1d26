"""How much one request may ask for, and what a route finds in the application."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from spicula.pipelines.workplace import Workplace


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a request.

    Args:
        upload_bytes: Of one upload or STOW request.
        instance_bytes: Of one instance in it.
        files: In one upload.
        body_bytes: Of the body of any other request.
        requests: Of one address within a minute; reading images asks for many.
        costly: Searches, uploads and new findings likewise.
    """

    upload_bytes: int = 4 * 2**30
    instance_bytes: int = 2**30
    files: int = 20_000
    body_bytes: int = 2**20
    requests: int = 60_000
    costly: int = 120


async def workplace_of(request: Request) -> Workplace:
    """The store that the application serves."""
    place: Workplace = request.app.state.workplace
    return place


async def limits_of(request: Request) -> Limits:
    """The bounds of the application."""
    bounds: Limits = request.app.state.limits
    return bounds
