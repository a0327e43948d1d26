"""What routes find in the application beside the store: the reading room, the search.

Both are brought in when they are first asked for: a server starts at once, and one that nobody asks stays small.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from spicula.pipelines.served_frames import ServedFrames
from spicula.pipelines.workplace import Workplace
from spicula.store.users import User
from spicula.web.access import user_of
from spicula.web.limits import Limits, limits_of, workplace_of

if TYPE_CHECKING:
    from spicula.pipelines.case_search import CaseSearch
    from spicula.pipelines.reading_room import ReadingRoom


@dataclass(slots=True, eq=False)
class Services:
    """Everything that routes ask of the pipelines.

    Args:
        place: The store.
        index: Of past cases; the shipped one if None.
        search_bundle: Makes vectors; the shipped one if None.
        images: Folder of the indexed scans; None for no pictures.
    """

    place: Workplace
    index: str | None = None
    search_bundle: str | None = None
    images: Path | None = None
    frames: ServedFrames = field(init=False)
    _opened: tuple[ReadingRoom, CaseSearch] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.frames = ServedFrames(self.place)

    @property
    def reading(self) -> ReadingRoom:
        """Findings."""
        return self._open()[0]

    @property
    def search(self) -> CaseSearch:
        """Past cases."""
        return self._open()[1]

    def _open(self) -> tuple[ReadingRoom, CaseSearch]:
        with self._lock:
            if self._opened is None:
                from spicula.pipelines.case_search import CaseSearch
                from spicula.pipelines.opened_models import OpenedModels
                from spicula.pipelines.reading_room import ReadingRoom
                from spicula.pipelines.volumes import Volumes

                models = OpenedModels(index=self.index, search=self.search_bundle)
                volumes = Volumes(self.place)
                reading = ReadingRoom(self.place, volumes, models)
                self._opened = reading, CaseSearch(self.place, volumes, models, images=self.images)
            return self._opened


async def services_of(request: Request) -> Services:
    """Those of the application."""
    services: Services = request.app.state.services
    return services


async def address_of(request: Request) -> str:
    """Where a request comes from, for the audit log."""
    return request.client.host if request.client else ""


# All of them coroutines: FastAPI would give each plain function a thread of its own, for nothing.
Place = Annotated[Workplace, Depends(workplace_of)]
Bounds = Annotated[Limits, Depends(limits_of)]
Asking = Annotated[User, Depends(user_of)]
Served = Annotated[Services, Depends(services_of)]
Address = Annotated[str, Depends(address_of)]
