"""Who may ask: hosts that are ours, pages that are ours, users with a session or a token.

Alone on a machine (no users) everybody who reaches the loopback address is the one at the desk; what keeps other web
pages out then is the name of the host (they cannot forge it: DNS rebinding) and the origin of every change.
"""

from __future__ import annotations

import hmac
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool

from spicula.store.users import Session, User, Users

COOKIE, CSRF_HEADER = "spicula_session", "x-csrf-token"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DESK = User("desk", "admin")
"""Who asks where there are no users."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask.

    Args:
        users: Whether users log in; else everybody on this machine is the one at the desk.
        hosts: Names under which the server may be asked, beside the loopback ones.
        secure: Whether the page is reached by https, so that its cookie goes nowhere else.
    """

    users: bool = False
    hosts: Sequence[str] = ()
    secure: bool = False


@dataclass(slots=True)
class Attempts:
    """Counts failed logins, by name and by address.

    Args:
        most: Within the window.
        window_s: Seconds.
    """

    most: int = 5
    window_s: float = 60.0
    _failed: dict[str, deque[float]] = field(default_factory=dict)

    def wait_s(self, *keys: str) -> float:
        """How long to wait before the next attempt; 0 for not at all."""
        now, longest = time.monotonic(), 0.0
        for key in keys:
            times = self._failed.get(key, deque())
            while times and now - times[0] > self.window_s:
                times.popleft()
            if not times:
                self._failed.pop(key, None)
            elif len(times) >= self.most:
                longest = max(longest, self.window_s - (now - times[0]))
        return longest

    def failed(self, *keys: str) -> None:
        """Note a failure; what is noted of others long ago is forgotten."""
        if len(self._failed) > 10_000:
            self._failed.clear()
        for key in keys:
            self._failed.setdefault(key, deque()).append(time.monotonic())


def refusal(request: Request, access: Access) -> tuple[int, str] | None:
    """Why a request is refused before anything is looked up; None for one that may go on."""
    host = _name_of(request.headers.get("host", ""))
    if host not in {*LOOPBACK, *(name.lower() for name in access.hosts)}:
        return 400, "this server is not asked under that name"
    if "transfer-encoding" in request.headers and "content-length" in request.headers:
        return 400, "a request has one length"
    if request.method in SAFE:
        return None
    origin = request.headers.get("origin")
    if origin is not None and _name_and_port(urlsplit(origin).netloc) != _name_and_port(request.headers["host"]):
        return 403, "changes are made from this server's own page only"
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return 403, "changes are made from this server's own page only"
    return None


def _name_of(netloc: str) -> str:
    return _name_and_port(netloc)[0]


def _name_and_port(netloc: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(f"//{netloc}")
        return (parts.hostname or "").lower(), parts.port
    except ValueError:
        return "", None


def session_of(request: Request) -> Session | None:
    """Who a request is from; None for nobody we know.

    A token comes as ``Authorization: Bearer``, a browser's session as a cookie; a change by the latter must repeat the
    session's CSRF secret.
    """
    access: Access = request.app.state.access
    if not access.users:
        return Session(DESK, "session", "")
    users: Users = request.app.state.workplace.users
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return users.session(token.strip())
    session = users.session(request.cookies.get(COOKIE, ""))
    if session is None or session.kind != "session":
        return None
    repeated = hmac.compare_digest(session.csrf.encode(), request.headers.get(CSRF_HEADER, "").encode())
    return session if repeated or request.method in SAFE else None


async def admin_of(request: Request) -> User:
    """The user of a request, who must be an admin.

    Raises:
        HTTPException: There is none (401), or it is a reader (403).
    """
    user = await user_of(request)
    if user.role != "admin":
        raise HTTPException(403, "an admin may do this")
    return user


async def user_of(request: Request) -> User:
    """The user of a request; 401 for nobody. A thread is taken only where there is something to look up.

    Raises:
        HTTPException: There is none.
    """
    access: Access = request.app.state.access
    if not access.users:
        return DESK
    session = await run_in_threadpool(session_of, request)
    if session is None:
        raise HTTPException(401, "log in first")
    return session.user
