"""The cases that look like a finding, a place or a box in a study of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spicula.core.embedding import Match, Scope
from spicula.core.errors import InputError
from spicula.core.finding import Finding, Point
from spicula.core.volume import Volume
from spicula.pipelines.embed_nodules import point_of
from spicula.pipelines.finding_view import evidence as evidence_view
from spicula.pipelines.index import is_database
from spicula.pipelines.models import Models
from spicula.pipelines.opened_index import OpenedIndex
from spicula.pipelines.opened_models import OpenedModels
from spicula.pipelines.search import MATCHES, Query, checked_question, evidence, query_at, query_in_box, search
from spicula.pipelines.search_job import read_image
from spicula.pipelines.search_pictures import Gallery
from spicula.pipelines.usual import usual_in
from spicula.pipelines.volumes import Volumes
from spicula.pipelines.workplace import Workplace
from spicula.report.neighbors import facts_record, neighbors_record, outcome
from spicula.report.pictures import Picture, plane_pictures
from spicula.retrieval.embedder import Embedder
from spicula.transforms.runs import mask_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the like of is looked for: a finding, or a place or a box in a series.

    Args:
        finding_id: A finding; then the rest is not needed.
        study_uid: Of the series.
        series_uid: Of the place or box.
        point_xyz_mm: LPS mm.
        box: x0, y0, x1, y1 in pixels of a slice.
        slice_index: Which slice.
    """

    finding_id: str | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    point_xyz_mm: Point | None = None
    box: tuple[float, float, float, float] | None = None
    slice_index: int = 0


class CaseSearch:
    """Searches an index of past cases for what is seen in a store.

    Args:
        place: The store.
        volumes: Its series as volumes.
        models: Make the vectors, and name the index.
        images: Folder of the indexed scans, for pictures of the matches; None for none.
    """

    def __init__(
        self, place: Workplace, volumes: Volumes, models: OpenedModels, *, images: Path | None = None
    ) -> None:  # fmt: skip
        self.place, self.volumes, self.models, self.images = place, volumes, models, images
        self._opened = OpenedIndex()

    def facts(self) -> dict[str, Any] | None:
        """Name, number of findings and patients, and fields of the index; None without one."""
        models = self.models.get()
        if models.index is None or models.search is None:
            return None
        with self._opened.at(models.index) as opened:
            stats = opened.stats()
            fields = sorted(stats.fields)
        return {"name": _name(models.index), "findings": stats.findings, "patients": stats.patients, "fields": fields}

    def search(self, wanted: Wanted, *, k: int = MATCHES, scope: Scope = "all", where: str = "") -> dict[str, Any]:
        """Find past cases, at most k or as many as the index holds.

        Returns:
            ``index``, ``matches`` (rank, patient, nodule, distance, facts, outcome, picture), ``evidence`` and
            ``picture`` of what was asked.

        Raises:
            GeometryError: A place outside the scan, or a box that is none.
            InputError: There is no index, nothing is wanted, or see :func:`spicula.pipelines.search.search`.
        """
        models = self.models.get()
        embedder, index = models.embedder, models.index
        if embedder is None or index is None:
            hint = "name one with --index; 'spicula index build' makes it"
            raise InputError("index of past cases", got="none", hint=hint)
        fingerprint, condition = embedder.fingerprint, where or None
        with self._opened.at(index) as opened:
            checked_question(opened, k=None, where=condition, fingerprint=fingerprint)
            query, volume = self._query(wanted, embedder, models)
            most = min(k, len(opened))
            answer = search([query], opened, k=most, fingerprint=fingerprint, where=condition, scope=scope)[0]
            background = usual_in(index, opened)
        said = evidence(answer, background=background, fingerprint=fingerprint, where=condition)
        pictures = Gallery(self.images, read=read_image).of_matches(answer.matches)
        own = None if query.center_xyz_mm is None else plane_pictures(volume, Finding("", query.center_xyz_mm))[0]
        return {
            "index": _name(index),
            "matches": _rows(answer.matches, pictures),
            "evidence": evidence_view(neighbors_record(said)),
            "picture": _png(own),
        }

    def _query(self, wanted: Wanted, embedder: Embedder, models: Models) -> tuple[Query, Volume]:
        if wanted.finding_id is not None:
            finding = self.place.findings.get(wanted.finding_id)
            volume = self.volumes.get(finding.study_uid, finding.series_uid)
            center = point_of(finding.content["center_xyz_mm"])
            outline: Mapping[str, Any] | None = finding.content.get("outline")
            if outline is None:
                return query_at(volume, center, embedder=embedder, models=models), volume
            vector = embedder(volume, mask_of(outline, volume.geometry))
            pid = volume.acquisition.patient_id
            return Query(pid, finding.id, vector, center, series_uid=volume.series_uid), volume
        if wanted.study_uid is None or wanted.series_uid is None:
            raise InputError("search", got="no finding and no series", expected="a finding, or a place in a series")
        volume = self.volumes.get(wanted.study_uid, wanted.series_uid)
        if wanted.box is not None:
            return query_in_box(volume, wanted.slice_index, wanted.box, embedder=embedder, models=models), volume
        if wanted.point_xyz_mm is None:
            raise InputError("search", got="a series alone", expected="a place or a box in it")
        return query_at(volume, wanted.point_xyz_mm, embedder=embedder, models=models), volume


def _rows(matches: Sequence[Match], pictures: Sequence[Picture | None]) -> list[dict[str, Any]]:
    return [
        {
            "rank": rank, "pid": str(match.facts.get("pid", "")), "nodule_id": str(match.facts.get("nodule_id", "")),
            "distance": round(match.distance, 4), "facts": facts_record(match), "outcome": outcome(match),
            "picture": _png(picture),
        }
        for rank, (match, picture) in enumerate(zip(matches, pictures, strict=True), start=1)
    ]  # fmt: skip


def _png(picture: Picture | None) -> str | None:
    return None if picture is None else picture.image


def _name(index: str) -> str:
    return index.rpartition("#")[2] if is_database(index) else Path(index).name
