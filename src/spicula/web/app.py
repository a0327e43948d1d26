"""The application: its routes, and every error as one clear answer."""

from __future__ import annotations

import threading
from pathlib import Path

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException as PlainHTTPException

from spicula import __version__
from spicula.core.errors import InputError, OfflineError, SpiculaError
from spicula.pipelines.current_outputs import Busy
from spicula.pipelines.workplace import Workplace
from spicula.report.text import DISCLAIMER
from spicula.store.findings import Overtaken
from spicula.web.access import Access, Attempts, user_of
from spicula.web.guard import BULKY, Guard
from spicula.web.limits import Limits
from spicula.web.metrics import Metrics
from spicula.web.oidc import Elsewhere, Provider
from spicula.web.page import add_page, add_second_viewer
from spicula.web.paths import without_folders
from spicula.web.routes import about, archives, dicomweb, findings, jobs, login, oidc, search, studies, uploads
from spicula.web.schemas import Failure
from spicula.web.services import Services
from spicula.web.shown_jobs import JobFeed
from spicula.web.turns import AGAIN_S, Turns

REFUSALS = {
    400: "what was asked cannot be done", 401: "nobody is logged in", 403: "not allowed",
    404: "there is none", 409: "another change came first", 413: "more than is taken at once",
    422: "not what the schema says", 429: "too often", 502: "an archive cannot be reached",
    503: "too many ask for the same; ask again after Retry-After",
}  # fmt: skip

TOO_MUCH = ("more bytes", "more files", "more parts")
"""What an error got where a body goes beyond a bound."""


def make_app(
    workplace: Workplace, *, limits: Limits | None = None, access: Access | None = None,
    services: Services | None = None, second_viewer: Path | None = None, elsewhere: Elsewhere | None = None,
) -> FastAPI:  # fmt: skip
    """Make the application of a store.

    Args:
        workplace: The store, open as long as the application runs.
        limits: Bounds of requests.
        access: Who may ask; the one at the desk if None.
        services: What routes ask for; with the shipped bundles and index if None.
        second_viewer: Folder of OHIF's pages; None for none.
        elsewhere: An OpenID Connect provider at which users may log in too; None for none.

    Raises:
        InputError: OHIF's pages are none, or the provider's settings make no sense.
    """
    limits, access, metrics = limits or Limits(), access or Access(), Metrics(workplace)
    responses = {status: {"model": Failure, "description": what} for status, what in REFUSALS.items()}
    app = FastAPI(
        title="Spicula", version=__version__, description=DISCLAIMER, docs_url=None, redoc_url=None,
        responses=responses,  # type: ignore[arg-type]
    )  # fmt: skip
    app.state.workplace, app.state.limits, app.state.access = workplace, limits, access
    app.state.attempts, app.state.services = Attempts(), services or Services(workplace)
    app.state.feed, app.state.stopping = JobFeed(workplace), threading.Event()
    app.state.second_viewer, app.state.exports = second_viewer is not None, Turns()
    app.state.elsewhere = None if elsewhere is None else Provider(elsewhere)
    app.include_router(login.router)
    app.include_router(oidc.router)
    for module in (about, studies, findings, search, jobs, uploads, archives, dicomweb):
        app.include_router(module.router, dependencies=[Depends(user_of)])
    _add_health(app, metrics)
    _add_errors(app)
    if second_viewer is not None:
        add_second_viewer(app, second_viewer)
    add_page(app)
    app.add_middleware(Guard, access=access, limits=limits, metrics=metrics)
    return app


def _add_health(app: FastAPI, metrics: Metrics) -> None:
    @app.get("/healthz", tags=["health"])
    def healthz() -> dict[str, str]:
        """Whether it runs and reaches its store."""
        app.state.workplace.queue.counts()
        return {"status": "ok", "version": __version__}

    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse, dependencies=[Depends(user_of)])
    def text() -> Response:
        """Counts for a monitoring system, in Prometheus' text format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(SpiculaError)
    async def refused(request: Request, error: SpiculaError) -> Response:
        got, bulky = str(error.got), request.url.path.startswith(BULKY)
        of_input = 404 if got.startswith("none of th") else 413 if bulky and got in TOO_MUCH else 400
        kinds = ((Overtaken, 409), (InputError, of_input), (OfflineError, 502), (Busy, 503))
        status = next((status for kind, status in kinds if isinstance(error, kind)), 500)
        more = {"Retry-After": str(AGAIN_S)} if status == 503 else None
        return JSONResponse({"error": without_folders(str(error))}, status_code=status, headers=more)

    @app.exception_handler(DataError)
    async def unspeakable(_: Request, error: DataError) -> Response:
        """A null character, say, which PostgreSQL has no text for."""
        return JSONResponse({"error": "a value that the database cannot hold"}, status_code=400)

    @app.exception_handler(RequestValidationError)
    async def misshapen(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        return JSONResponse({"error": f"{place[:100]}: {first['msg']}"}, status_code=422)

    @app.exception_handler(PlainHTTPException)  # Starlette's own too, such as 405
    async def told(_: Request, error: PlainHTTPException) -> Response:
        return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(404)
    async def nowhere(_: Request, error: Exception) -> Response:
        detail = str(getattr(error, "detail", "")) or "there is nothing under this address"
        return JSONResponse({"error": detail}, status_code=404)
