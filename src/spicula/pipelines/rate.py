"""Malignancy, traits and words of nodules that are outlined: what ``analyze``, ``score`` and ``explain`` share."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from spicula.classifiers import risk, semantic
from spicula.core.analysis import Answer
from spicula.core.finding import Finding
from spicula.core.prediction import Prediction
from spicula.core.volume import Mask, Volume
from spicula.pipelines.models import Models
from spicula.pipelines.words import trait_answers


def rate_findings(
    volume: Volume, findings: Sequence[Finding], *, models: Models
) -> tuple[tuple[Prediction, ...], tuple[Answer, ...]]:
    """Malignancy and traits of every finding, and what words say of the traits.

    Args:
        volume: The scan.
        findings: Outlined where they could be.
        models: The bundles in use.
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
        rated = list(pool.map(lambda finding: _rated(volume, finding, models), findings))
    predictions = tuple(prediction for some, _ in rated for prediction in some)
    return predictions, tuple(answer for _, some in rated for answer in some)


def rate_nodule(
    volume: Volume, center_xyz_mm: Sequence[float], mask: Mask | None, *, models: Models, finding_id: str
) -> list[Prediction]:
    """Malignancy and traits of one nodule, the malignancy by the model that ``models`` says.

    Args:
        volume: A scan, or a small volume around the nodule.
        center_xyz_mm: Its center, LPS mm.
        mask: Its outline; None where it has none.
        models: The bundles in use.
        finding_id: Which nodule.
    """
    predictions = risk.predict(volume, center_xyz_mm, mask, model=models.risk_model, finding_id=finding_id)
    if models.malignancy_by == "risk":
        return predictions
    seen = semantic.see(volume, center_xyz_mm, mask, model=models.semantic_model)
    return _with_malignancy(predictions, seen, models, finding_id)


def _rated(volume: Volume, finding: Finding, models: Models) -> tuple[list[Prediction], tuple[Answer, ...]]:
    center, mask = finding.center_xyz_mm, finding.mask
    predictions = risk.predict(volume, center, mask, model=models.risk_model, finding_id=finding.id)
    seen = semantic.see(volume, center, mask, model=models.semantic_model)
    if models.malignancy_by == "semantic":
        predictions = _with_malignancy(predictions, seen, models, finding.id)
    by_target = {prediction.target: prediction for prediction in predictions}
    return predictions, trait_answers(seen, finding.id, by_target, model=models.semantic_model)


def _with_malignancy(
    predictions: Sequence[Prediction], seen: semantic.Seen, models: Models, finding_id: str
) -> list[Prediction]:
    """The predictions with the semantic model's malignancy, explained by the same traits."""
    other = semantic.malignancy(seen, model=models.semantic_model, finding_id=finding_id)
    return [replace(other, explanation=one.explanation) if one.target == "malignancy" else one for one in predictions]
