"""The page itself: built from ``viewer/`` into the package, served as files; OHIF beside it where a user has it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from spicula.core.errors import InputError

PAGE = Path(__file__).with_name("page")

KEPT = {"Cache-Control": "max-age=3600"}

WHERE = "__webpack_require__.p"
"""Where OHIF's scripts look for each other."""

NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Spicula</title>
<body><h1>The page is not built</h1>
<p>This is a checkout without the built viewer. With Node.js 20 or later: <code>make viewer</code>, then reload.</p>
<p>Everything else works: the API is described at <a href="/openapi.json">/openapi.json</a>, DICOMweb is at
<code>/dicom-web</code>.</p></body></html>"""


def add_page(app: FastAPI) -> None:
    """Serve the page at ``/``, or say how to build it."""
    index = PAGE / "index.html"

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        if not index.is_file():
            return HTMLResponse(NOT_BUILT)
        return FileResponse(index, media_type="text/html", headers={"Cache-Control": "no-cache"})

    if index.is_file():
        app.mount("/", StaticFiles(directory=PAGE), name="page")


def add_second_viewer(app: FastAPI, folder: Path) -> None:
    """Serve OHIF's prebuilt pages at ``/ohif``, set to this server's DICOMweb.

    Args:
        app: The application.
        folder: ``dist`` of the npm package ``@ohif/app``.

    Raises:
        InputError: The folder holds no such pages.
    """
    index = folder / "index.html"
    if not index.is_file():
        hint = "npm pack @ohif/app, unpack it, and name its folder dist"
        raise InputError(f"{folder}: OHIF", got="no index.html", hint=hint)
    text = _moved(index.read_text(encoding="utf-8"))
    settings = f"window.config = {json.dumps(SETTINGS)};"

    @app.get("/ohif/app-config.js", include_in_schema=False)
    def configuration() -> Response:
        return Response(settings, media_type="text/javascript")

    @app.get("/ohif", include_in_schema=False)
    def beginning() -> Response:
        return RedirectResponse("/ohif/")

    served = StaticFiles(directory=folder)

    @app.get("/ohif/{path:path}", include_in_schema=False)
    async def pages(path: str) -> Response:
        full, facts = served.lookup_path(path)
        if facts is not None and Path(full).is_file():
            media = {".js": "text/javascript", ".css": "text/css"}.get(Path(full).suffix)
            if media is None:
                return FileResponse(full, headers=KEPT)
            return Response(await run_in_threadpool(_moved_part, Path(full)), media_type=media, headers=KEPT)
        return HTMLResponse(text)


def _moved(text: str) -> str:
    """OHIF's start page, which was built for ``/``, for ``/ohif/``.

    Example:
        >>> _moved('<script>window.PUBLIC_URL="/"</script><script src="/app.js">')
        '<script>window.PUBLIC_URL="/ohif/"</script><script src="/ohif/app.js">'
    """
    text = text.replace('PUBLIC_URL="/"', 'PUBLIC_URL="/ohif/"')
    return re.sub(r'(href|src|content)="/(?!/)', r'\1="/ohif/', text)


def _moved_part(path: Path) -> str:
    """A script or style of OHIF that looks for the others under ``/ohif/``."""
    text = path.read_text(encoding="utf-8")
    return text.replace(f'{WHERE} = "/"', f'{WHERE} = "/ohif/"').replace("url(/", "url(/ohif/")


SETTINGS = {
    "routerBasename": "/ohif",
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "maxNumberOfWebWorkers": 2,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "showLoadingIndicator": True,
    "strictZSpacingForVolumeViewport": True,
    "defaultDataSourceName": "dicomweb",
    "dataSources": [{
        "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
        "sourceName": "dicomweb",
        "configuration": {
            "friendlyName": "Spicula", "name": "spicula", "wadoUriRoot": "/dicom-web", "qidoRoot": "/dicom-web",
            "wadoRoot": "/dicom-web", "qidoSupportsIncludeField": False, "supportsReject": False,
            "supportsStow": True, "imageRendering": "wadors", "thumbnailRendering": "wadors",
            "enableStudyLazyLoad": True, "supportsFuzzyMatching": False, "supportsWildcard": True,
            "bulkDataURI": {"enabled": True}, "omitQuotationForMultipartRequest": True,
        },
    }],
}  # fmt: skip
"""Of OHIF: our DICOMweb, nothing from elsewhere."""
