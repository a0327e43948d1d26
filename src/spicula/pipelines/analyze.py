"""The main job: a scan in, its findings with sizes, risk, traits and categories out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from spicula.classifiers import risk
from spicula.core.analysis import Analysis, Assessment
from spicula.core.finding import Finding, Size
from spicula.core.prediction import Prediction
from spicula.core.volume import Volume
from spicula.detectors import blob
from spicula.formats import read_volume
from spicula.measure.fleischner import fleischner
from spicula.measure.lung_rads import lung_rads, mean_diameter_for_lung_rads
from spicula.measure.lungs import segment_lungs
from spicula.measure.segment import outline
from spicula.measure.size import measure_size, nodule_density
from spicula.pipelines.models import Models, load_models

LIMIT = 10
"""Most findings that are reported of one scan."""


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
    lungs = segment_lungs(volume)
    candidates = blob.detect(volume, bundle=models.detection, lungs=lungs, limit=limit)
    findings = measure_findings(volume, candidates, models=models)
    predictions = predict_findings(volume, findings, models=models)
    return Analysis(
        volume,
        findings,
        predictions,
        assess_findings(findings, predictions),
        models.fingerprints,
        volume.warnings,
    )


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


def predict_findings(volume: Volume, findings: Sequence[Finding], *, models: Models) -> tuple[Prediction, ...]:
    """Malignancy and traits of every finding."""

    def predicted(finding: Finding) -> list[Prediction]:
        return risk.predict(volume, finding.center_xyz_mm, finding.mask, model=models.risk_model, finding_id=finding.id)

    with ThreadPoolExecutor(max_workers=2) as pool:
        return tuple(prediction for some in pool.map(predicted, findings) for prediction in some)


def assess_findings(
    findings: Sequence[Finding], predictions: Sequence[Prediction]
) -> dict[str, tuple[Assessment, ...]]:
    """Lung-RADS 2022 and Fleischner 2017 of every measured finding, by its id.

    Args:
        findings: Measured findings; those without a size get no category.
        predictions: Of the same findings.

    Returns:
        Two assessments for each measured finding.
    """
    probability = {(p.finding_id, p.target): p.probability for p in predictions}
    measured = [(finding, finding.size) for finding in findings if finding.size is not None]
    return {
        finding.id: (
            _lung_rads(size, spiculated=probability.get((finding.id, "spiculation_present"), 0.0) > 0.5),
            _fleischner(size, several=len(measured) > 1),
        )
        for finding, size in measured
    }


def _lung_rads(size: Size, *, spiculated: bool) -> Assessment:
    return lung_rads(
        density=nodule_density(size),
        mean_diameter_mm=mean_diameter_for_lung_rads(size.long_axis_mm, size.short_axis_mm),
        solid_diameter_mm=size.solid_diameter_mm,
        suspicious_features=("spiculation (predicted)",) if spiculated else (),
    )


def _fleischner(size: Size, *, several: bool) -> Assessment:
    return fleischner(
        density=nodule_density(size),
        mean_diameter_mm=size.mean_diameter_mm,
        solid_diameter_mm=size.solid_diameter_mm,
        several=several,
    )
