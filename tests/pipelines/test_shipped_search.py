"""The bundle and the index that ship: they fit each other, hold no pixels, and answer for a scan that neither knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from spicula.core.bundle import SHIPPED, load_bundle
from spicula.core.finding import Finding
from spicula.datasets import lidc_nodules
from spicula.formats import read_volume
from spicula.pipelines.analyze import analyze_findings, measure_findings
from spicula.pipelines.index import check_place, embedder_of, open_place
from spicula.pipelines.models import LIDC_INDEX, SEARCH, load_models
from spicula.pipelines.search import query_at, search

from .conftest import lidc_0001  # noqa: F401

NODULE = (56.7, 86.2, -115.3)
"""Of LIDC-IDRI-0001, LPS mm; all four readers call it malignant."""


def test_bundle_and_index_fit_and_are_whole() -> None:
    bundle = load_bundle(SEARCH)
    bundle.verify()
    assert check_place(str(LIDC_INDEX)) == ()
    with open_place(str(LIDC_INDEX)) as index:
        assert index.fingerprint == bundle.fingerprint
        stats = index.stats()
        ids = index.ids()
        known = index.get(list(ids))[1]
    assert stats.findings == len(ids) == bundle.card["metrics"]["nodules"]
    assert stats.patients == bundle.card["metrics"]["patients"]
    assert lidc_nodules.TEST_PATIENT not in {facts["pid"] for facts in known}
    for facts in known:
        assert {"diameter_mm", "malignant", "readers", "series_uid", "x_mm", "y_mm", "z_mm"} <= set(facts)
        assert "image_path" not in facts
    whole = sum(path.stat().st_size for name in (SEARCH, "lidc-index") for path in (SHIPPED / name).iterdir())
    assert whole < 10_000_000


@pytest.mark.shared
def test_a_malignant_nodule_finds_malignant_ones(lidc_0001: Path) -> None:  # noqa: F811
    volume, models, embedder = read_volume(lidc_0001), load_models(), embedder_of(None)
    query = query_at(volume, NODULE, embedder=embedder, models=models)
    with open_place(str(LIDC_INDEX)) as index:
        (answer,) = search([query], index, fingerprint=embedder.fingerprint, scope="cross-patient")
    assert len(answer.matches) == 10
    assert len({match.finding_id for match in answer.matches}) == 10
    assert [match.distance for match in answer.matches] == sorted(match.distance for match in answer.matches)
    assert sum(match.facts["malignant"] == 1 for match in answer.matches) >= 8
    (found,) = measure_findings(volume, [Finding("1", NODULE)], models=models)
    (evidence,) = analyze_findings(volume, [found], models=models).neighbors
    assert evidence.malignant is not None
    assert evidence.malignant.value > 0.8
    assert not evidence.is_unlike_all
    assert [match.finding_id for match in evidence.matches] == [match.finding_id for match in answer.matches]
