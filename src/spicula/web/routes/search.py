"""``/api/search``: past cases that look like a finding, a place or a box."""

from __future__ import annotations

from fastapi import APIRouter

from spicula.web.schemas import SearchAnswer, SearchRequest
from spicula.web.services import Address, Asking, Place, Served

router = APIRouter(prefix="/api/search", tags=["search"])


@router.post("")
def search(given: SearchRequest, place: Place, served: Served, user: Asking, address: Address) -> SearchAnswer:
    """Past cases, the most alike first, with what they say."""
    from spicula.pipelines.case_search import Wanted

    study_uid = None if given.series_uid is None else place.studies.study_of_series(given.series_uid)
    box = given.box
    wanted = Wanted(
        finding_id=given.finding_id, study_uid=study_uid, series_uid=given.series_uid,
        point_xyz_mm=given.point_xyz_mm, box=None if box is None else (box.x0, box.y0, box.x1, box.y1),
        slice_index=0 if box is None else box.slice_index,
    )  # fmt: skip
    answer = served.search.search(wanted, k=given.k, scope=given.scope, where=given.where)
    place.audit.note(user.name, "search", object=given.finding_id or given.series_uid or "", address=address)
    return SearchAnswer.model_validate(answer)
