"""What follows when a study has come in, by whatever way."""

from __future__ import annotations

from spicula.pipelines.worker import ANALYZE, ask_analysis
from spicula.pipelines.workplace import Workplace


def after_arrival(
    place: Workplace, study_uid: str, *, by: str, anew: bool, analyze: bool = True, since: str | None = None
) -> str | None:  # fmt: skip
    """Ask for the analysis of a study with CT, and take in the reports of other programs that came with it.

    Args:
        place: The store.
        study_uid: The study.
        by: Who asks.
        anew: Whether an analysis that was done before does not do, as more came.
        analyze: Whether to ask for an analysis at all.
        since: When the job began that brought the study in, UTC in ISO 8601: what was asked for since was asked for
            by it, before it was begun again.

    Returns:
        The id of the job that analyzes what came, or has done so; None where there is no CT or nothing is asked for.

    Raises:
        InputError: There is no such study.
    """
    from spicula.pipelines.read_reports import take_in_reports

    modalities = {row["modality"] for row in place.studies.series(study_uid)}
    asked = _asked(place, study_uid, by=by, anew=anew, since=since) if analyze and "CT" in modalities else None
    if {"CT", "SR"} <= modalities:
        take_in_reports(place, study_uid)
    return asked


def _asked(place: Workplace, study_uid: str, *, by: str, anew: bool, since: str | None) -> str:
    last = place.queue.latest(ANALYZE, [study_uid]).get(study_uid)
    if last is not None and since is not None and last.created_at >= since:
        return last.id
    if last is not None and last.state == "done" and not anew:
        return last.id
    return ask_analysis(place, study_uid, by=by).id
