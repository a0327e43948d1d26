"""The preprocessing and the card of the bundle that turns nodules into vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spicula.pipelines.search_arms import HEAD_ALONE, MAIN, ON_PAIRS, WITH_HEAD, SearchRecipe
from spicula.transforms.nodule_cube import WINDOW_HU
from spicula.transforms.nodule_slices import MOST, PIXEL_MM, PIXELS
from spicula.transforms.planes import BACKGROUND_HU, FAR_MM, NEAR_MM


def preprocessing(shape: Any, middle: float, measured: Sequence[str]) -> dict[str, Any]:
    """What is done to a nodule before the network sees it.

    Args:
        shape: Of the encoder.
        middle: Side of what it sees, as a share of the piece that is cut.
        measured: Names of the measured numbers.
    """
    return {
        "outline": "automatic, from a center point (bundle nodule-outline)",
        "slices_at_most": MOST,
        "axes": "LPS: axial slices, rows to the back, columns to the left",
        "cut_mm": PIXELS * PIXEL_MM,
        "middle": float(middle),
        "pixels": int(shape.pixels),
        "frangi": shape.channels == 2,
        "window_hu": list(WINDOW_HU),
        "fades_from_to_mm": [NEAR_MM, FAR_MM],
        "background_hu": BACKGROUND_HU,
        "measured": list(measured),
    }


BESIDE = (HEAD_ALONE, ON_PAIRS, MAIN, "vae", "diameter")
"""Embeddings whose numbers stand beside those of what ships."""

MEASURES = ("precision", "average_precision")
"""What is told of each."""


def card(evaluation: Mapping[str, Any], recipe: SearchRecipe) -> dict[str, Any]:
    """Data, licence, metrics, intended use and limits.

    Args:
        evaluation: As ``evaluation.json`` holds it.
        recipe: Of the encoder.
    """
    return {
        "data": [
            {
                "name": "LIDC-IDRI",
                "what": "crops of slices without labels (pretraining), small volumes with all readers' ratings (head), "
                f"{evaluation['nodules']} nodules of {evaluation['patients']} patients, without LIDC-IDRI-0001",
                "doi": "10.7937/K9/TCIA.2015.LO9QL9SX",
                "licence": "CC BY 3.0",
                "attribution": "Armato SG 3rd et al., Data From LIDC-IDRI, The Cancer Imaging Archive, 2015",
            }
        ],
        "licence": "Apache-2.0 (weights); the data they were trained on: CC BY 3.0, attribution above",
        "method": f"SimCLR ({recipe.epochs} epochs, ResNet-18 of width {recipe.width}, Frangi's response as a second "
        "channel, GeM pooling; arXiv 2311.11014); then a head beside numbers measured in the outline, taught by the "
        "readers' votes and traits",
        "metrics": {
            "what": "five patient-grouped folds; queries of patients that no part has learned from, among all nodules "
            "of other patients (cross-patient) or of unseen patients alone (unseen); low and high: 95 % bootstrap "
            "interval over patients; over: paired differences, query by query, to the nearest by diameter alone, to "
            "the VAE and to the encoder as it was pretrained",
            **evaluation,
            "embeddings": _told(evaluation["embeddings"]),
        },
        "intended_use": "Research: to find past nodules that look like one and turned out alike.",
        "limits": [
            "Not a medical device.",
            "How an indexed nodule of LIDC turned out is the readers' opinion, not proven cancer, but for the patients "
            "whose diagnosis is named.",
            "The head has learned from the indexed nodules' outcomes: benign and malignant ones lie farther apart in "
            "the index than new nodules would.",
            "Neighbors of a nodule wider than 30 mm, or of what is no nodule, mean little; so do those of a finding "
            "that is unlike anything in the index.",
        ],
    }


def _told(embeddings: Mapping[str, Any]) -> dict[str, Any]:
    """What ships, with its paired differences, and what stands beside; all else is in the run's ``evaluation.json``."""

    def of(name: str, number: Mapping[str, Any]) -> dict[str, Any]:
        left_out = ("over", "skipped") if name != WITH_HEAD else ("skipped",)
        return {key: value for key, value in number.items() if key not in left_out}

    return {
        name: {
            agree: {
                scope: {measure: of(name, measures[measure]) for measure in MEASURES}
                for scope, measures in scopes.items()
            }
            for agree, scopes in embeddings[name].items()
        }
        for name in (WITH_HEAD, *BESIDE) if name in embeddings
    }  # fmt: skip
