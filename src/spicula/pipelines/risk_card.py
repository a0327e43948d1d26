"""The manifest and card of the risk bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spicula.classifiers.risk import TARGETS
from spicula.pipelines.risk_table import RULES, Table
from spicula.transforms.planes import BACKGROUND_HU, FAR_MM, NEAR_MM, NODULE_PIXELS, PIXEL_MM, PIXELS, PLANES

_LEVELS = {
    "malignancy": "at least two readers rated 4 or 5",
    "subtlety_obvious": "rating 4 or more",
    "calcification_present": "rating under 6",
    "sphericity_round": "rating 4 or more",
    "margin_sharp": "rating 4 or more",
    "lobulation_present": "rating 3 or more",
    "spiculation_present": "rating 3 or more",
    "texture_solid": "rating 5",
}


def manifest(name: str, task: str, table: Table, outlines: str, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """All of the manifest but what :func:`spicula.core.bundle.write_bundle` fills in.

    Args:
        name: Of the bundle.
        task: Of the bundle.
        table: What it learned from.
        outlines: Fingerprints of the networks whose outlines it learned from.
        evaluation: From :func:`spicula.pipelines.risk_evaluation.evaluate`.

    Returns:
        The manifest.
    """
    return {
        "name": name,
        "version": "1",
        "task": task,
        "preprocessing": {
            "outline": "automatic, from a center point (bundle nodule-outline)",
            "outlines_learned_from": outlines,
            "features": f"{len(table.names)} numbers of spicula.measure.radiomics, axial planes, within 5 mm",
            "planes": PLANES,
            "plane_pixels": PIXELS,
            "finest_pixel_mm": PIXEL_MM,
            "nodule_pixels": NODULE_PIXELS,
            "fades_from_to_mm": [NEAR_MM, FAR_MM],
            "background_hu": BACKGROUND_HU,
            "axes": "LPS: rows to the back, columns to the left",
            "beyond_the_volume": "the nearest voxel",
        },
        "outputs": [{"name": target, "rating": RULES[target][0], "positive": _LEVELS[target]} for target in TARGETS],
        "card": _card(table, evaluation),
    }


def _card(table: Table, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    patients = len(set(table.patients.tolist()))
    return {
        "data": [
            {
                "name": "LIDC-IDRI",
                "what": f"small volumes and all readers' ratings, {len(table.cases)} nodules of {patients} patients, "
                "without LIDC-IDRI-0001",
                "doi": "10.7937/K9/TCIA.2015.LO9QL9SX",
                "licence": "CC BY 3.0",
                "attribution": "Armato SG 3rd et al., Data From LIDC-IDRI, The Cancer Imaging Archive, 2015",
            }
        ],
        "licence": "Apache-2.0 (weights); the data they were trained on: CC BY 3.0, attribution above",
        "metrics": {
            "what": "out of fold, five patient-grouped folds, from the center point alone, outlines by networks that "
            "did not learn from the patient either; low and high: 95 % bootstrap interval over patients",
            **evaluation,
        },
        "interval": "90 %: 5th to 95th percentile over the members (each trained without one fold), each calibrated "
        "by 100 calibrations that were fitted to patients drawn with replacement. It says how sure the model is of "
        "its probability, given the readers' labels; it does not cover a nodule unlike those it learned from.",
        "intended_use": "Research: what readers would likely say of a nodule in chest CT that a reader or a detector "
        "pointed at.",
        "limits": [
            "Not a medical device.",
            "The label is the readers' opinion (at least two of them rated the malignancy 4 or 5), not proven cancer.",
            "Size is nearly everything in this label: see the gain over the diameter alone.",
            "The probability supposes the share of malignant labels among these nodules, about a third; among all "
            "nodules of a screening population far fewer are malignant.",
            "Trained on nodules of 3 to 31 mm from the center points of the readers; lesions beyond that, and points "
            "on no nodule, get a number all the same.",
            "Prior scans, growth, place in the lung, age and smoking are not looked at.",
        ],
    }
