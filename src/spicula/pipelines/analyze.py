"""The main job: a scan in, its findings with sizes, risk, traits, words and categories out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from spicula.classifiers import ssm
from spicula.core.analysis import Analysis, Assessment
from spicula.core.errors import InputError, SpiculaError
from spicula.core.finding import Finding, Size
from spicula.core.neighbors import Neighborhood
from spicula.core.prediction import Prediction
from spicula.core.slice_reading import SliceReading
from spicula.core.volume import Volume
from spicula.core.words import Words
from spicula.detectors import blob
from spicula.explain.prompts import Style
from spicula.formats import read_volume
from spicula.measure.blood import is_enhanced_blood
from spicula.measure.fleischner import fleischner
from spicula.measure.lung_rads import lung_rads, mean_diameter_for_lung_rads
from spicula.measure.lungs import segment_lungs
from spicula.measure.segment import outline
from spicula.measure.size import measure_size, nodule_density
from spicula.pipelines.answers import Question, answer_questions, standard_questions
from spicula.pipelines.models import Models, load_models
from spicula.pipelines.neighbors import neighbors_of_findings
from spicula.pipelines.rate import Rated, rate

LIMIT = 10
"""Most findings that are reported of one scan."""

LEAST_EXTENT_MM = 40.0
"""Less of a chest than this is not analyzed."""

LARGEST_LEARNED_MM = 31.0
"""LUNA16 diameter of the largest nodule that the risk model learned from."""

LARGEST_NODULE_MM = 30.0
"""What is wider is a mass; Fleischner 2017 does not speak of it."""


def analyze(scan: Volume | str | Path, *, models: Models | None = None, limit: int = LIMIT) -> Analysis:
    """Find, outline, measure and rate the lung nodules of one chest CT.

    Args:
        scan: A volume, or the path of anything that :func:`spicula.read_volume` takes.
        models: The bundles to use; the shipped ones if None.
        limit: Most findings to report.

    Returns:
        Findings in descending score of the detector, each with its outline, size, predictions and categories.

    Raises:
        InputError: The image cannot be read, or holds no lungs.

    Example:
        >>> analysis = analyze("chest-ct/")  # doctest: +SKIP
        >>> analysis.findings[0].center_xyz_mm  # doctest: +SKIP
        (56.3, 86.0, -115.9)
    """
    volume = scan if isinstance(scan, Volume) else read_volume(scan)
    models = models or load_models()
    findings, notes = find_nodules(volume, models=models, limit=limit)
    return analyze_findings(volume, findings, models=models, notes=notes)


def find_nodules(volume: Volume, *, models: Models, limit: int = LIMIT) -> tuple[tuple[Finding, ...], list[str]]:
    """Find, outline and measure nodules.

    Args:
        volume: The scan.
        models: The bundles in use.
        limit: Most findings.

    Returns:
        Findings in descending score of the detector, and a sentence for each structure that was left out.

    Raises:
        InputError: The volume is no chest.
    """
    require_chest_extent(volume)
    lungs = segment_lungs(volume)
    candidates = blob.detect(volume, bundle=models.detection, lungs=lungs, limit=limit)
    return without_vessels(volume, measure_findings(volume, candidates, models=models))


def analyze_findings(
    volume: Volume,
    findings: Sequence[Finding],
    *,
    models: Models,
    notes: Sequence[str] = (),
    asked: Sequence[Question] = (),
    style: Style = "templates",
) -> Analysis:
    """Rate, explain and categorize findings that are outlined and measured.

    Args:
        volume: The scan.
        findings: In the order of the result.
        models: The bundles in use.
        notes: Warnings that finding them gave.
        asked: Questions beyond those that are always asked; only where there is a semantic bundle.
        style: Of the prompts.
    """
    rated = rate_findings(volume, findings, models=models)
    predictions = tuple(prediction for one in rated for prediction in one.predictions)
    neighbors, lost = past_cases_of_findings(volume, findings, models=models)
    return Analysis(
        volume,
        tuple(findings),
        predictions,
        assess_findings(findings, predictions),
        models.fingerprints,
        (*volume.warnings, *notes, *beyond_training(findings), *lost),
        words_of_findings(findings, rated, models=models, asked=asked, style=style),
        look_at_findings(volume, findings, models=models),
        neighbors,
    )


def past_cases_of_findings(
    volume: Volume, findings: Sequence[Finding], *, models: Models
) -> tuple[tuple[Neighborhood, ...], list[str]]:
    """The past cases that look like each finding; an index that is away or damaged costs them, not the analysis.

    Returns:
        What :func:`spicula.pipelines.neighbors.neighbors_of_findings` finds, and a sentence where that failed.
    """
    try:
        return neighbors_of_findings(volume, findings, models=models), []
    except SpiculaError as error:
        return (), [f"No past cases were looked up: {error}"]


def require_chest_extent(volume: Volume) -> None:
    """Refuse a volume of a few slices: lungs and nodules cannot be told there.

    Raises:
        InputError: It is shorter than :data:`LEAST_EXTENT_MM` along the body.
    """
    axes = np.abs(volume.geometry.affine_lps[2, :3]) * volume.geometry.shape_zyx
    if axes.sum() < LEAST_EXTENT_MM:
        raise InputError(
            f"{volume.name}: too little of a chest",
            got=f"{axes.sum():.0f} mm along the body",
            expected=f"{LEAST_EXTENT_MM:g} mm or more",
            hint="give the whole series; to rate a known nodule in a small volume, use spicula score or explain --at",
        )


def beyond_training(findings: Sequence[Finding]) -> list[str]:
    """Say which findings are larger than what the risk model learned from."""
    large = [finding.id for finding in findings if (finding.diameter_mm or 0) > LARGEST_LEARNED_MM]
    if not large:
        return []
    which = f"Finding {large[0]} is" if len(large) == 1 else f"Findings {', '.join(large)} are"
    return [f"{which} wider than {LARGEST_LEARNED_MM:g} mm, the largest that the risk model learned from."]


def measure_findings(volume: Volume, candidates: Sequence[Finding], *, models: Models) -> tuple[Finding, ...]:
    """Outline and measure findings from their centers.

    Args:
        volume: The scan.
        candidates: Findings with centers.
        models: The bundles in use.

    Returns:
        The same findings with ``mask``, ``size`` and ``diameter_mm``; those whose outline is empty stay unmeasured.
    """

    def measured(finding: Finding) -> Finding:
        mask = outline(volume, finding.center_xyz_mm, network=models.outline_network)
        if not mask.array_zyx.any():
            return finding
        size = measure_size(volume, mask)
        return replace(finding, mask=mask, size=size, diameter_mm=size.mean_diameter_mm)

    with ThreadPoolExecutor(max_workers=2) as pool:
        return tuple(pool.map(measured, candidates))


def without_vessels(volume: Volume, findings: Sequence[Finding]) -> tuple[tuple[Finding, ...], list[str]]:
    """Leave out wide findings with the density of enhanced blood, and say so.

    Args:
        volume: The scan.
        findings: Measured findings.

    Returns:
        The others, numbered anew, and a sentence for each that was left out.
    """
    kept: list[Finding] = []
    notes: list[str] = []
    for finding in findings:
        width = finding.diameter_mm or 0.0
        if finding.mask is not None and is_enhanced_blood(volume, finding.mask, width_mm=width):
            x, y, z = finding.center_xyz_mm
            notes.append(
                f"A structure {width:.0f} mm wide at ({x:.0f}, {y:.0f}, {z:.0f}) mm has the density of enhanced blood "
                "and was left out as heart or vessel."
            )
        else:
            kept.append(replace(finding, id=str(len(kept) + 1)))
    return tuple(kept), notes


def rate_findings(volume: Volume, findings: Sequence[Finding], *, models: Models) -> tuple[Rated, ...]:
    """What the models say of every finding, in the order of the findings."""

    def rated(finding: Finding) -> Rated:
        return rate(volume, finding.center_xyz_mm, finding.mask, models=models, finding_id=finding.id)

    with ThreadPoolExecutor(max_workers=2) as pool:
        return tuple(pool.map(rated, findings))


def look_at_findings(volume: Volume, findings: Sequence[Finding], *, models: Models) -> tuple[SliceReading, ...]:
    """What a network that learned without labels sees of every finding; nothing without such a bundle."""
    model = models.ssm_model if findings else None
    if model is None:
        return ()

    def seen(finding: Finding) -> SliceReading:
        diameter = finding.size.mean_diameter_mm if finding.size else None
        return ssm.look(
            volume, finding.center_xyz_mm, finding.mask, model=model, finding_id=finding.id, diameter_mm=diameter
        )

    with ThreadPoolExecutor(max_workers=2) as pool:
        return tuple(pool.map(seen, findings))


def words_of_findings(
    findings: Sequence[Finding], rated: Sequence[Rated], *, models: Models, asked: Sequence[Question], style: Style
) -> tuple[Words, ...]:
    """Answers to the questions that are always asked and to further ones; none without a semantic bundle."""
    model = models.semantic_model if findings else None
    if model is None:
        return ()
    questions = (*standard_questions(model, style), *asked)
    return tuple(
        answer_questions(one.seen, questions, one.predictions, model=model, finding_id=finding.id, style=style)
        for finding, one in zip(findings, rated, strict=True)
        if one.seen is not None
    )


def assess_findings(
    findings: Sequence[Finding], predictions: Sequence[Prediction]
) -> dict[str, tuple[Assessment, ...]]:
    """Lung-RADS 2022 and Fleischner 2017 of every measured finding, by its id.

    Args:
        findings: Measured findings; those without a size get no category.
        predictions: Of the same findings.

    Returns:
        Lung-RADS for each measured finding; Fleischner for each up to 30 mm.
    """
    spiculation = {p.finding_id: p for p in predictions if p.target == "spiculation_present"}
    measured = [(finding, finding.size) for finding in findings if finding.size is not None]
    return {
        finding.id: (
            _lung_rads(size, spiculation=spiculation.get(finding.id)),
            *_fleischner(size, several=len(measured) > 1),
        )
        for finding, size in measured
    }


def _lung_rads(size: Size, *, spiculation: Prediction | None) -> Assessment:
    """With spiculation as a suspicious feature where its whole interval lies above one half."""
    features = []
    if spiculation is not None and min(spiculation.interval or (spiculation.probability,)) > 0.5:
        features.append(f"spiculation (predicted, {spiculation.probability:.2f})")
    return lung_rads(
        density=nodule_density(size),
        mean_diameter_mm=mean_diameter_for_lung_rads(size.long_axis_mm, size.short_axis_mm),
        solid_diameter_mm=size.solid_diameter_mm,
        suspicious_features=features,
    )


def _fleischner(size: Size, *, several: bool) -> tuple[Assessment, ...]:
    if size.mean_diameter_mm > LARGEST_NODULE_MM:
        return ()
    advice = fleischner(
        density=nodule_density(size),
        mean_diameter_mm=size.mean_diameter_mm,
        solid_diameter_mm=size.solid_diameter_mm,
        several=several,
    )
    return (advice,)
