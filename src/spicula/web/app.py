"""The application: routes, errors as one clear answer, headers that keep a page to itself."""

from __future__ import annotations

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.middleware.base import RequestResponseEndpoint

from spicula import __version__
from spicula.core.errors import InputError, SpiculaError
from spicula.pipelines.workplace import Workplace
from spicula.web.access import Access, Attempts, refusal, user_of
from spicula.web.limits import Limits
from spicula.web.routes import dicomweb, login

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Of every answer."""


def make_app(workplace: Workplace, *, limits: Limits | None = None, access: Access | None = None) -> FastAPI:
    """Make the application of a store.

    Args:
        workplace: The store, open as long as the application runs.
        limits: Bounds of requests.
        access: Who may ask; the one at the desk if None.
    """
    app = FastAPI(title="Spicula", version=__version__, docs_url=None, redoc_url=None)
    app.state.workplace, app.state.limits = workplace, limits or Limits()
    app.state.access, app.state.attempts = access or Access(), Attempts()
    app.include_router(login.router)
    app.include_router(dicomweb.router, dependencies=[Depends(user_of)])

    @app.get("/healthz", tags=["health"])
    def healthz() -> dict[str, str]:
        """Whether it runs."""
        return {"status": "ok", "version": __version__}

    @app.middleware("http")
    async def guarded(request: Request, call_next: RequestResponseEndpoint) -> Response:
        refused = refusal(request, app.state.access)
        response: Response
        if refused is not None:
            response = JSONResponse({"error": refused[1]}, status_code=refused[0])
        else:
            response = await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(SpiculaError)
    async def refused(_: Request, error: SpiculaError) -> Response:
        gone = isinstance(error, InputError) and str(error.got).startswith("none of th")
        status = 404 if gone else 400 if isinstance(error, InputError) else 500
        return JSONResponse({"error": str(error)}, status_code=status)

    @app.exception_handler(HTTPException)
    async def told(_: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)

    return app
