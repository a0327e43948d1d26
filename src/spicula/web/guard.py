"""Around every request: who may not come in is turned away, answers get their headers, what happened is counted.

Logs hold the pattern of an address and never the address: no UID of a study, no name that somebody searched for.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spicula.core.extras import require
from spicula.web.access import Access, refusal
from spicula.web.limits import Limits
from spicula.web.metrics import Metrics

LOG = logging.getLogger("spicula.web")

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Of every answer."""

SECOND_VIEWER = "/ohif"
SECOND_VIEWER_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob:; "
    "img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; frame-ancestors 'none'; form-action 'self'"
)
"""OHIF makes code from text; it gets its own, looser policy, and still reaches no other server."""

BULKY = ("/api/uploads", "/dicom-web/studies")
"""Addresses that take bodies of any size, and count for themselves."""

TOO_LONG = "a body that is too long"

COSTLY = ("/api/search", "/api/uploads", "/api/findings")
"""Addresses whose changes keep the processor busy for long."""


class Guard:
    """Middleware of the whole application.

    Args:
        app: What it stands around.
        access: Who may ask.
        limits: How often.
        metrics: Where is counted.
    """

    def __init__(self, app: ASGIApp, *, access: Access, limits: Limits, metrics: Metrics) -> None:
        counting = require("limits", extra="serve")
        self.app, self.access, self.metrics = app, access, metrics
        self._window = counting.strategies.MovingWindowRateLimiter(counting.storage.MemoryStorage())
        self._body_bytes = limits.body_bytes
        self._often = counting.RateLimitItemPerMinute(limits.requests)
        self._costly = counting.RateLimitItemPerMinute(limits.costly)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        request = Request(scope)
        path = str(scope["path"])

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if path.startswith(SECOND_VIEWER):
                    headers["Content-Security-Policy"] = SECOND_VIEWER_POLICY
                elif path.startswith(("/api", "/dicom-web")):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            refused = refusal(request, self.access) or self._too_often(request, path) or self._too_long(request, path)
            if refused is None:
                await self.app(scope, receive if path.startswith(BULKY) else self._bounded(receive), sending)
            else:
                more = {"Retry-After": "10"} if refused[0] == 429 else {"Connection": "close"}
                answer = JSONResponse({"error": refused[1]}, status_code=refused[0], headers=more)
                await answer(scope, receive, sending)
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__))  # without its words, which may name a patient
            LOG.error("%s %s failed: %s\n%s", request.method, _pattern(scope), type(error).__name__, where)
            if status:
                raise ConnectionAbortedError("an answer that cannot be finished") from None
            failed = JSONResponse({"error": "the server failed at this; its log says where"}, status_code=500)
            await failed(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - begun
            pattern = _pattern(scope)
            self.metrics.answered(request.method, pattern, status or 500, seconds)
            LOG.info("%s %s %d %.0f ms", request.method, pattern, status or 500, 1000 * seconds)

    def _too_long(self, request: Request, path: str) -> tuple[int, str] | None:
        length = request.headers.get("content-length", "0")
        long = not path.startswith(BULKY) and (
            not length.isdecimal() or len(length) > 12 or int(length) > self._body_bytes
        )
        return (413, TOO_LONG) if long else None

    def _bounded(self, receive: Receive) -> Receive:
        """What ends a body that comes in pieces and does not say how long it is."""
        taken = 0

        async def receiving() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._body_bytes:
                raise HTTPException(413, TOO_LONG)
            return message

        return receiving

    def _too_often(self, request: Request, path: str) -> tuple[int, str] | None:
        address = request.client.host if request.client else ""
        if not self._window.hit(self._often, "all", address):
            return 429, "too many requests from this address; wait a moment"
        costly = request.method not in ("GET", "HEAD") and (path.startswith(COSTLY) or path.endswith("/findings"))
        if costly and not self._window.hit(self._costly, "costly", address):
            return 429, "too many searches, uploads or new findings from this address; wait a moment"
        return None


def _pattern(scope: Mapping[str, Any]) -> str:
    """The pattern of the route that answered, such as ``/api/studies/{study_uid}``; ``other`` where none did."""
    route = scope.get("route")
    return str(getattr(route, "path", "other"))
