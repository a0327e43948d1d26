"""The manifest's preprocessing and the card of the bundle of images and words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spicula.pipelines.semantic_recipe import Recipe, Towers
from spicula.pipelines.semantic_table import SemanticTable
from spicula.transforms import fade
from spicula.transforms.outlined_cube import FIELD_MM, PIXELS, SIDE, SPACING_MM
from spicula.transforms.planes import BACKGROUND_HU


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a training's material came from.

    Args:
        outlines: Fingerprints of the networks whose outlines it learned from.
        crops: Number of single slices that it was pretrained on; 0 for none.
        crop_patients: Of so many patients.
    """

    outlines: str
    crops: int = 0
    crop_patients: int = 0


def preprocessing(table: SemanticTable, towers: Towers, provenance: Provenance) -> dict[str, Any]:
    """What is done to a nodule and to words before the networks."""
    return {
        "outline": "automatic, from a center point (bundle nodule-outline)",
        "outlines_learned_from": provenance.outlines,
        "measures": f"{len(table.names)} numbers of spicula.measure.radiomics, axial planes, within 5 mm",
        "cube_voxels": SIDE,
        "cube_spacing_mm": SPACING_MM,
        "planes": 9,
        "plane_pixels": PIXELS,
        "plane_field_mm": FIELD_MM,
        "fades_from_to_mm": [fade.NEAR_MM, fade.FAR_MM],
        "background_hu": BACKGROUND_HU,
        "axes": "LPS; mean over the nodule and its mirror image (left)",
        "text": {"context": towers.tokenizer.context, "vocabulary": towers.tokenizer.vocabulary},
    }


def card(
    table: SemanticTable, recipe: Recipe, evaluation: Mapping[str, Any], provenance: Provenance, *, members: int
) -> dict[str, Any]:
    """The card.

    Args:
        table: What was learned from.
        recipe: How.
        evaluation: What ``evaluation.json`` holds.
        provenance: See :class:`Provenance`.
        members: Number of networks.
    """
    patients = len(set(table.patients.tolist()))
    what = f"small volumes and all readers' ratings, {len(table.cases)} nodules of {patients} patients"
    if provenance.crops:
        what += (
            f"; for the pretraining of the image tower {provenance.crops} 8-bit slices of {provenance.crop_patients} "
            "patients with their ratings (in each fold without the patients held out)"
        )
    return {
        "data": [
            {
                "name": "LIDC-IDRI",
                "what": f"{what}; without LIDC-IDRI-0001",
                "doi": "10.7937/K9/TCIA.2015.LO9QL9SX",
                "licence": "CC BY 3.0",
                "attribution": "Armato SG 3rd et al., Data From LIDC-IDRI, The Cancer Imaging Archive, 2015",
            }
        ],
        "licence": "Apache-2.0 (weights); the data they were trained on: CC BY 3.0, attribution above",
        "method": f"Zhuang et al. 2025 (arXiv 2504.21344) with small towers, {members} networks in five folds, "
        f"{recipe.epochs} epochs; texts from each nodule's own readings by templates; its tokenizer is in the bundle",
        "metrics": {
            "what": "out of fold, five patient-grouped folds, from the center point alone, outlines by networks that "
            "did not learn from the patient either; low and high: 95 % bootstrap interval over patients; zero_shot: "
            "areas of prompts that no network was trained for, by style of the prompts and cut of the ratings",
            **evaluation,
        },
        "role": _role(evaluation),
        "interval": "90 %: 5th to 95th percentile over the folds, each calibrated by 100 calibrations that were fitted "
        "to patients drawn with replacement. It says how sure the model is of its probability, given the readers' "
        "labels; it does not cover a nodule unlike those it learned from.",
        "intended_use": "Research: what readers would likely say of a nodule in chest CT that a reader or a detector "
        "pointed at, and how near its image lies to words of the reader's own.",
        "limits": [
            "Not a medical device.",
            "The label is the readers' opinion (at least two of them rated the malignancy 4 or 5), not proven cancer.",
            "Size is nearly everything in this label: see the gain over the diameter alone.",
            "Only words that LIDC readers rate were learned: consistency, margin, lobulation, spiculation, sphericity, "
            "calcification, subtlety. To other words (pleural tags, cavitation, emphysema ...) an answer comes all the "
            "same; it was never compared with readers.",
            "Nothing farther than 2.5 mm from the outline is looked at: not the pleura, nor vessels, nor the lung.",
            "The probability supposes the share of malignant labels among these nodules, about a third; among all "
            "nodules of a screening population far fewer are malignant.",
            "Trained on nodules of 3 to 31 mm from the center points of the readers; lesions beyond that, and points "
            "on no nodule, get a number all the same.",
        ],
    }


def _role(evaluation: Mapping[str, Any]) -> str:
    """Whether the malignancy is worth to be the default, by the paired gain over the other model."""
    gain = evaluation.get("gain_over_other")
    if gain is None:
        return "Explainer: its malignancy was not compared with that of nodule-risk."
    told = f"{gain['value']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})"
    if gain["low"] > 0:
        return f"Better in the malignancy than nodule-risk on the same nodules and folds: AUROC {told}, paired."
    return (
        "Explainer. Its malignancy is not clearly better than that of nodule-risk on the same nodules and folds (AUROC "
        f"{told}, paired, 95 %), so that stays the default of score and analyze; load_models(malignancy_by='semantic') "
        "gives this one."
    )
