"""A scan and a user's words in, findings with answers out: the job behind ``spicula explain``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spicula.classifiers import semantic
from spicula.core.analysis import Analysis
from spicula.core.errors import InputError
from spicula.core.finding import Finding
from spicula.core.volume import Volume
from spicula.explain.prompts import Style
from spicula.formats import read_volume
from spicula.pipelines.analyze import (
    LIMIT,
    analyze,
    assess_findings,
    beyond_training,
    measure_findings,
    require_chest_extent,
)
from spicula.pipelines.models import Models, load_models
from spicula.pipelines.rate import rate_findings
from spicula.pipelines.words import answers, words_of_user


def explain_scan(
    scan: Volume | str | Path,
    words: Sequence[str],
    *,
    at: Sequence[Sequence[float]] = (),
    style: Style = "templates",
    models: Models | None = None,
    limit: int = LIMIT,
) -> Analysis:
    """Set a user's words beside the findings of a scan, or beside given places.

    Args:
        scan: A volume, or the path of anything that :func:`spicula.read_volume` takes.
        words: Each a word or short phrase; ``no ...`` asks for the opposite.
        at: Places, LPS mm; the findings of :func:`spicula.analyze` if there are none.
        style: Templates, or the paper's own sentences.
        models: The bundles to use; the shipped ones if None.
        limit: Most findings to report, where no places are given.

    Returns:
        The analysis with an answer for each finding and word behind those of the traits.

    Raises:
        InputError: The image cannot be read, a word is empty, a place lies outside the scan, or nothing was found.

    Example:
        >>> told = explain_scan("chest-ct/", ["part-solid", "no calcification"])  # doctest: +SKIP
        >>> [(a.asked, round(a.probability, 2)) for a in told.answers_of("1")][-2:]  # doctest: +SKIP
        [('part-solid', 0.08), ('no calcification', 0.97)]
    """
    asked = words_of_user(words, style)
    models = models or load_models()
    volume = scan if isinstance(scan, Volume) else read_volume(scan)
    analysis = analyze_places(volume, at, models=models) if at else analyze(volume, models=models, limit=limit)
    if not analysis.findings:
        raise InputError(
            f"{volume.name}: nothing to explain", got="no finding", expected="one or more",
            hint="name places with --at X,Y,Z (LPS mm)",
        )  # fmt: skip
    told = list(analysis.answers)
    for finding in analysis.findings:
        seen = semantic.see(volume, finding.center_xyz_mm, finding.mask, model=models.semantic_model)
        predictions = analysis.predictions_of(finding.id)
        told += answers(seen, asked, finding.id, predictions, model=models.semantic_model)
    return replace(analysis, answers=tuple(told))


def analyze_places(volume: Volume, places_xyz_mm: Sequence[Sequence[float]], *, models: Models) -> Analysis:
    """An analysis whose findings are given places, in their order.

    Args:
        volume: The scan.
        places_xyz_mm: LPS mm.
        models: The bundles in use.

    Raises:
        GeometryError: A place lies outside the scan; the hint says which flip of axes would bring it in.
    """
    require_chest_extent(volume)
    found = []
    for number, (x, y, z) in enumerate(places_xyz_mm, start=1):
        volume.geometry.require_inside((x, y, z), what=f"place {number}")
        found.append(Finding(str(number), (float(x), float(y), float(z))))
    findings = measure_findings(volume, found, models=models)
    predictions, told = rate_findings(volume, findings, models=models)
    assessments = assess_findings(findings, predictions)
    warnings = (*volume.warnings, *beyond_training(findings))
    return Analysis(volume, findings, predictions, assessments, models.fingerprints, warnings, told)
