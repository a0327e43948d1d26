"""What routes find in the application beside the store: the reading room, the search, the feed of jobs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from spicula.pipelines.case_search import CaseSearch
from spicula.pipelines.opened_models import OpenedModels
from spicula.pipelines.reading_room import ReadingRoom
from spicula.pipelines.volumes import Volumes
from spicula.pipelines.workplace import Workplace
from spicula.store.users import User
from spicula.web.access import user_of
from spicula.web.limits import Limits, limits_of, workplace_of


@dataclass(frozen=True, slots=True, eq=False)
class Services:
    """Everything that routes ask of the pipelines.

    Args:
        models: The bundles, opened on first use.
        reading: Findings.
        search: Past cases.
    """

    models: OpenedModels
    reading: ReadingRoom
    search: CaseSearch


def open_services(
    place: Workplace, *, index: str | None = None, search: str | None = None, images: Path | None = None
) -> Services:  # fmt: skip
    """Make the services of a store.

    Args:
        place: The store.
        index: Of past cases; the shipped one if None.
        search: Bundle that makes vectors; the shipped one if None.
        images: Folder of the indexed scans; None for no pictures.
    """
    models, volumes = OpenedModels(index=index, search=search), Volumes(place)
    return Services(models, ReadingRoom(place, volumes, models), CaseSearch(place, volumes, models, images=images))


def services_of(request: Request) -> Services:
    """Those of the application."""
    services: Services = request.app.state.services
    return services


def address_of(request: Request) -> str:
    """Where a request comes from, for the audit log."""
    return request.client.host if request.client else ""


Place = Annotated[Workplace, Depends(workplace_of)]
Bounds = Annotated[Limits, Depends(limits_of)]
Asking = Annotated[User, Depends(user_of)]
Served = Annotated[Services, Depends(services_of)]
Address = Annotated[str, Depends(address_of)]
