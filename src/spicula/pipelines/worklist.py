"""The list of studies as a reader wants it: what came, what was found in it, how far its analysis is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spicula.pipelines.overtaken import overtaken
from spicula.pipelines.worker import ANALYZE
from spicula.pipelines.workplace import Workplace
from spicula.store.findings import StoredFinding
from spicula.store.matching import studies_matching

Row = Mapping[str, Any]

RISING = ("0", "1", "2", "3", "4A", "4B", "4X")
"""Categories of Lung-RADS, the more suspicious later; a modifier such as ``S`` does not count."""


def worklist(
    place: Workplace, *, text: str = "", date_from: str = "", date_to: str = "", patient_id: str | None = None,
    limit: int = 50, offset: int = 0,
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """A part of the list of studies.

    Args:
        place: The store.
        text: In id, name, description or accession number.
        date_from: First study date, ``YYYYMMDD``.
        date_to: Last study date.
        patient_id: Of this patient alone.
        limit: Most studies.
        offset: Studies to pass over.

    Returns:
        The studies, the newest received first, each as :func:`summaries` gives it, and how many there are in all.
    """
    page = place.studies.list(
        text=text, date_from=date_from, date_to=date_to, patient_id=patient_id, limit=limit, offset=offset
    )
    return summaries(place, page.rows), page.total


def summaries(place: Workplace, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of studies with modalities, counts, the most suspicious finding and the latest analysis.

    Args:
        place: The store.
        rows: Columns of ``studies``.
    """
    uids = [str(row["study_uid"]) for row in rows]
    if not uids:
        return []
    counted = {
        str(row["study_uid"]): row
        for row in studies_matching(place.studies.engine, {"StudyInstanceUID": ",".join(uids)}, limit=len(uids))
    }
    findings = place.findings.of_studies(uids)
    latest = place.findings.latest_analyses(uids)
    jobs = place.queue.latest(ANALYZE, uids)
    return [
        _summary(counted[uid], findings.get(uid, ()), latest.get(uid), jobs.get(uid)) for uid in uids if uid in counted
    ]


def _summary(row: Row, findings: Sequence[StoredFinding], latest: str | None, job: Any) -> dict[str, Any]:
    gone = overtaken(findings, latest)
    current = [one for one in findings if one.state != "rejected" and one.id not in gone]
    risks = [risk for one in current if (risk := malignancy_of(one.content)) is not None]
    categories = [name for one in current if (name := category_of(one.content)) is not None]
    return {
        **row,
        "findings": len(current),
        "highest_malignancy": max(risks, default=None),
        "lung_rads": max(categories, key=_height, default=None),
        "analysis": None if job is None else job.state,
        "job_id": None if job is None else job.id,
    }


def malignancy_of(content: Mapping[str, Any]) -> float | None:
    """The probability of malignancy in the content of a finding; None where there is none."""
    found = (content.get("malignancy") or {}).get("probability")
    return float(found) if isinstance(found, int | float) else None


def category_of(content: Mapping[str, Any]) -> str | None:
    """The Lung-RADS category in the content of a finding; None where there is none."""
    found = (content.get("lung_rads") or {}).get("category")
    return found if isinstance(found, str) else None


def _height(category: str) -> int:
    """How suspicious a category is.

    Example:
        >>> max(["2", "4BS", "3"], key=_height)
        '4BS'
    """
    return max((place for place, name in enumerate(RISING) if category.startswith(name)), default=-1)
