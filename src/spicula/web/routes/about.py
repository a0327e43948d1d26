"""What runs here, and who did what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from spicula import __version__
from spicula.core.bundle import SHIPPED, load_bundle
from spicula.core.errors import SpiculaError
from spicula.report.text import DISCLAIMER
from spicula.store.users import User
from spicula.web.access import Access, admin_of
from spicula.web.schemas import About, AuditEntry, WindowPreset
from spicula.web.services import Asking, Place, Served

router = APIRouter(prefix="/api", tags=["about"])

PRESETS = (
    WindowPreset(name="Lung", center_hu=-600, width_hu=1500, key="1"),
    WindowPreset(name="Soft tissue", center_hu=40, width_hu=400, key="2"),
    WindowPreset(name="Mediastinum, contrast", center_hu=80, width_hu=350, key="3"),
    WindowPreset(name="Bone", center_hu=400, width_hu=1800, key="4"),
    WindowPreset(name="Nodule, narrow", center_hu=-500, width_hu=900, key="5"),
)


@router.get("/about")
def about(request: Request, place: Place, served: Served, _: Asking) -> About:
    """Version, networks, index, archives and window presets."""
    from spicula.pipelines.archives import load_archives

    try:
        index = served.search.facts()
    except SpiculaError:  # an index that is away keeps nobody from reading
        index = None
    access: Access = request.app.state.access
    bundles = [
        load_bundle(folder).fingerprint for folder in sorted(SHIPPED.iterdir()) if (folder / "bundle.json").is_file()
    ]
    archives = load_archives(place.folder)
    return About.model_validate({
        "name": "Spicula", "version": __version__, "disclaimer": DISCLAIMER, "users": access.users,
        "login_elsewhere": getattr(request.app.state, "elsewhere", None) is not None, "bundles": bundles,
        "second_viewer": request.app.state.second_viewer,
        "destinations": sorted(name for name, one in archives.items() if one.send),
        "sources": sorted(name for name, one in archives.items() if one.pull),
        "index": index, "window_presets": PRESETS,
    })  # fmt: skip


@router.get("/audit")
def audit(
    place: Place, _: Annotated[User, Depends(admin_of)], limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> list[AuditEntry]:  # fmt: skip
    """The newest entries of the audit log."""
    return [AuditEntry.model_validate(dict(row)) for row in place.audit.list(limit=limit, before=before)]
