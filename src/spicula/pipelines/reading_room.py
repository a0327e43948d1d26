"""What a reader asks of a study: its findings, another one here, this one corrected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spicula.core.finding import Finding
from spicula.core.volume import Volume
from spicula.pipelines.analyze import analyze_findings, measure_findings
from spicula.pipelines.embed_nodules import point_of
from spicula.pipelines.finding_view import view
from spicula.pipelines.follow_up import growth_of_study
from spicula.pipelines.opened_models import OpenedModels
from spicula.pipelines.overtaken import overtaken
from spicula.pipelines.rate import require_tissue
from spicula.pipelines.stored_content import contents
from spicula.pipelines.volumes import Volumes
from spicula.pipelines.workplace import Workplace
from spicula.report.record import to_record
from spicula.store.findings import State, StoredFinding


class ReadingRoom:
    """The findings of a store, looked at and changed.

    Args:
        place: The store.
        volumes: Its series as volumes.
        models: Outline, measure and rate what a person points at.
    """

    def __init__(self, place: Workplace, volumes: Volumes, models: OpenedModels) -> None:
        self.place, self.volumes, self.models = place, volumes, models

    def findings(self, study_uid: str) -> list[dict[str, Any]]:
        """Findings of a study that stand, as :func:`spicula.pipelines.finding_view.view` gives them.

        Proposals that a later analysis or an accepted finding has overtaken are left out; the numbers stay.

        Raises:
            InputError: There is no such study.
        """
        stored = self.place.findings.of_study(study_uid)
        gone = overtaken(stored, self.place.findings.latest_analyses([study_uid]).get(study_uid))
        return [one for one in self._views(study_uid, stored) if one["id"] not in gone]

    def _views(self, study_uid: str, stored: Sequence[StoredFinding]) -> list[dict[str, Any]]:
        growth = growth_of_study(self.place, study_uid)
        return [view(one, number, growth.get(one.id, ())) for number, one in enumerate(stored, start=1)]

    def finding(self, finding_id: str) -> dict[str, Any]:
        """One finding likewise.

        Raises:
            InputError: There is none.
        """
        study_uid = self.place.findings.get(finding_id).study_uid
        stored = self.place.findings.of_study(study_uid)
        return next(one for one in self._views(study_uid, stored) if one["id"] == finding_id)

    def add(
        self, study_uid: str, series_uid: str, center_xyz_mm: Sequence[float], *, by: str, note: str = ""
    ) -> StoredFinding:  # fmt: skip
        """Add what a person points at: outlined, measured, rated and explained as the program's own findings are.

        Raises:
            GeometryError: The place lies outside the scan.
            InputError: There is no such series, or nothing but air at the place.
        """
        volume = self.volumes.get(study_uid, series_uid)
        content = {**self._content(volume, center_xyz_mm), "note": note}
        return self.place.findings.add(study_uid=study_uid, series_uid=series_uid, content=content, by=by)

    def _content(self, volume: Volume, center_xyz_mm: Sequence[float]) -> dict[str, Any]:
        center = point_of(center_xyz_mm)
        require_tissue(volume, center, what=f"place {', '.join(f'{value:.1f}' for value in center)}")
        found = measure_findings(volume, [Finding("1", center)], models=self.models.get())
        analysis = analyze_findings(volume, found, models=self.models.get())
        return contents(analysis, to_record(analysis)["findings"])[0]

    def change(
        self, finding_id: str, *, seen: int, by: str, state: State | None = None,
        center_xyz_mm: Sequence[float] | None = None, diameter_mm: float | None = None, note: str | None = None,
    ) -> StoredFinding:  # fmt: skip
        """Accept, reject, reopen or correct a finding.

        Args:
            finding_id: Which.
            seen: The version that was seen.
            by: User.
            state: The new one; a note alone leaves it as it is, another correction accepts.
            center_xyz_mm: A new place: there it is outlined, measured and rated anew.
            diameter_mm: As a person measured it; the outline stays.
            note: What the person has to say.

        Raises:
            Overtaken: Another change came first.
            InputError: Nothing is changed, there is no such finding, or nothing but air at the place.
        """
        finding = self.place.findings.get(finding_id)
        if state is None and note is not None and center_xyz_mm is None and diameter_mm is None:
            state = finding.state
        content: dict[str, Any] | None = None
        if center_xyz_mm is not None:
            volume = self.volumes.get(finding.study_uid, finding.series_uid)
            fresh = self._content(volume, center_xyz_mm)
            content = {**finding.content, **fresh, "id": finding.content.get("id", fresh["id"])}
            content.pop("measured_by", None)
        corrections = {"diameter_mm": diameter_mm, "note": note, "measured_by": None if diameter_mm is None else by}
        given = {name: value for name, value in corrections.items() if value is not None}
        if given:
            content = {**(finding.content if content is None else content), **given}
        if diameter_mm is not None and content is not None:
            content |= {"lung_rads": None, "fleischner": None}  # they rest on the size that is no more
        return self.place.findings.change(finding_id, seen=seen, by=by, state=state, content=content)
