"""A store with two studies of one patient, both analyzed: a nodule that grew between them. Made once in a process."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from spicula.datasets.phantom import Ball, thorax, thorax_grid
from spicula.dicom.writer import write_series
from spicula.pipelines.ingest import ingest
from spicula.pipelines.worker import ask_analysis, work
from spicula.pipelines.workplace import open_workplace

CENTER = (-70.0, 0.0, 10.0)
GRID = (2.0, 1.0, 1.0)


@dataclass(frozen=True)
class Analyzed:
    """The store's folder and its two studies."""

    folder: Path
    before: str
    study: str
    series: str


_MADE: list[Analyzed] = []


def make(folder: Path) -> Analyzed:
    studies = []
    with open_workplace(folder / "store") as place:
        for number, (date, diameter) in enumerate((("20200101", 10.0), ("20200401", 14.0))):
            volume = thorax(thorax_grid(GRID), balls=[Ball(CENTER, diameter)], vessels=4)
            source = folder / f"ct{number}"
            write_series(
                source,
                volume,
                patient_id="P1",
                patient_name="Doe^Jane",
                description="chest",
                study_date=date,
                seed=date,
            )
            (uid,) = ingest(source, place.studies, origin="upload").studies
            ask_analysis(place, uid, by="ada")
            studies.append(uid)
        assert work(place, once=True) == 2
        assert place.queue.counts() == {"done": 2}
        series = str(place.studies.series(studies[1])[0]["series_uid"])
    return Analyzed(folder / "store", studies[0], studies[1], series)


@pytest.fixture(scope="session")
def analyzed_once(tmp_path_factory: pytest.TempPathFactory) -> Analyzed:
    if not _MADE:
        _MADE.append(make(tmp_path_factory.mktemp("analyzed")))
    return _MADE[0]


@pytest.fixture
def analyzed(analyzed_once: Analyzed, tmp_path: Path) -> Analyzed:
    """A copy of one's own."""
    folder = tmp_path / "analyzed"
    shutil.copytree(analyzed_once.folder, folder)
    return Analyzed(folder, analyzed_once.before, analyzed_once.study, analyzed_once.series)
