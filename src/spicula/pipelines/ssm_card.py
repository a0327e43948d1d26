"""The manifest's preprocessing and the card of the bundle of the self-supervised transformer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spicula.classifiers.ssm import Read, View
from spicula.core.errors import InputError
from spicula.pipelines.slice_table import SliceTable
from spicula.transforms import fade
from spicula.transforms.imagenet import MEAN, STD
from spicula.transforms.nodule_cube import WINDOW_HU
from spicula.transforms.nodule_slices import PATCHES, PIXEL_MM
from spicula.transforms.planes import BACKGROUND_HU

_DATA: Mapping[str, tuple[str, str, str, str]] = {
    "LIDC-IDRI": (
        "LIDC-IDRI", "slices through nodules", "10.7937/K9/TCIA.2015.LO9QL9SX",
        "Armato SG 3rd et al., Data From LIDC-IDRI, The Cancer Imaging Archive, 2015",
    ),
    "LungFCP": (
        "Lung-Fused-CT-Pathology", "pieces of lung", "10.7937/K9/TCIA.2018.SMT36LPN",
        "Madabhushi A, Rusu M, Fused Radiology-Pathology Lung Dataset, TCIA, 2018",
    ),
}  # fmt: skip
"""By the beginning of a patient's name: name, what is taken, DOI, attribution; all CC BY 3.0."""


@dataclass(frozen=True, slots=True)
class Pretraining:
    """What a shipped transformer learned from, and how.

    Args:
        sources: By a key of the data sets that can be told (``"LIDC-IDRI"``, ``"LungFCP"``), slices and patients.
        epochs: Passes over them.
        outlines: Fingerprints of the networks whose outlines its views use; empty for none.
    """

    sources: Mapping[str, tuple[int, int]]
    epochs: int
    outlines: str = ""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.sources) - set(_DATA))
        if unknown or not self.sources:
            raise InputError(
                "slices of a shipped transformer", got=f"{unknown[0]!r}" if unknown else "none",
                expected=f"of {' and '.join(_DATA)}", hint="state the licence and attribution of others in ssm_card.py",
            )  # fmt: skip

    @property
    def slices(self) -> int:
        """Of all sources."""
        return sum(slices for slices, _ in self.sources.values())

    @property
    def patients(self) -> int:
        """Of all sources."""
        return sum(patients for _, patients in self.sources.values())


def pretraining_of(table: SliceTable, *, epochs: int, outlines: str = "") -> Pretraining:
    """What a pretraining on all rows of a table has to say of itself.

    Args:
        table: Slices.
        epochs: Passes over them.
        outlines: See :class:`Pretraining`; ``outlines`` of the table's ``slices.json`` tells them.

    Raises:
        InputError: A patient is of a data set whose licence is not known here.
    """
    names = table.patients.tolist()
    of = [next((key for key in _DATA if name.startswith(key)), name) for name in names]
    patients = Counter(key for key, _ in set(zip(of, names, strict=True)))
    return Pretraining({key: (count, patients[key]) for key, count in Counter(of).items()}, epochs, outlines)


def preprocessing(side: int, slices: int, pretraining: Pretraining) -> dict[str, Any]:
    """What is done to a nodule before the network.

    Args:
        side: Rows and columns in pixels of what it sees.
        slices: Of a nodule, at most.
        pretraining: What it learned from.
    """
    return {
        "outline": "automatic, from a center point (bundle nodule-outline)",
        "outlines_in_training_views": pretraining.outlines,
        "slices_at_most": slices,
        "slices": "axial, evenly spaced among those through the outline, with the one that has most of it",
        "about": "the middle of the outline in the slice",
        "side_pixels": side,
        "pixel_mm": PIXEL_MM,
        "patches": [PATCHES, PATCHES],
        "window_hu": list(WINDOW_HU),
        "mean": list(MEAN),
        "std": list(STD),
        "fades_from_to_mm": [fade.NEAR_MM, fade.FAR_MM],
        "background_hu": BACKGROUND_HU,
        "axes": "LPS: rows to the back, columns to the left",
    }


def probes_of(evaluation: Mapping[str, Any], *, view: View, read: Read, slices: int) -> tuple[str, Mapping[str, Any]]:
    """The part of an evaluation that judges what ships.

    Args:
        evaluation: What ``evaluation.json`` of :func:`spicula.pipelines.train_ssm.train_ssm` holds.
        view: That ships.
        read: That ships.
        slices: That ship; 1 for the middle one.

    Returns:
        Where it stands, and the part.

    Raises:
        InputError: It is not there.
    """
    key = f"{read}, {'all' if slices > 1 else 'middle'}"
    part = evaluation.get("honest", {}).get(view, {}).get(key)
    if part is None:
        raise InputError("evaluation", got="no probes of what ships", expected=f"honest, {view!r}, {key!r}")
    return f"honest / {view} / {key}", part


def card(
    evaluation: Mapping[str, Any],
    pretraining: Pretraining,
    *,
    view: View,
    read: Read,
    slices: int,
    side: int,
    heads: Sequence[str],
) -> dict[str, Any]:
    """The card.

    Args:
        evaluation: What ``evaluation.json`` holds; all of it is kept.
        pretraining: What the transformer learned from.
        view: What it sees of a slice.
        read: What is taken for features.
        slices: Of a nodule, at most.
        side: Rows and columns in pixels of what it sees.
        heads: Names of the heads in the bundle.

    Raises:
        InputError: The evaluation has no probes of what ships.
    """
    where, probes = probes_of(evaluation, view=view, read=read, slices=slices)
    worth = list(worth_of(probes))
    return {
        "data": [_source(key, *counts) for key, counts in pretraining.sources.items()],
        "licence": "Apache-2.0 (weights); the data they were trained on: CC BY 3.0, attribution above",
        "method": f"DINOv2 (arXiv 2304.07193) from scratch on {pretraining.slices} CT slices of "
        f"{pretraining.patients} patients, {pretraining.epochs} epochs, without labels, as LungNodule-SSM (arXiv "
        f"2505.15120) does on whole scans; heads: {', '.join(heads) or 'none'}",
        "metrics": {
            "what": "honest: heads out of fold, five patient-grouped folds, on the features of pretrainings that have "
            "not seen the fold's patients either; compat: slices dealt at random as published, patients on both sides, "
            "so that it flatters; untrained: the same network with random weights; low and high: 95 % bootstrap "
            "interval over patients; differences are paired. The shipped transformer learned from all patients: no "
            "figure is of that very one.",
            "shipped": where,
            **evaluation,
        },
        "role": " ".join(sentence for _, sentence in worth),
        "intended_use": "Research: features of nodules in chest CT that no label has shaped, and a look at where they "
        "come from.",
        "limits": [
            "Not a medical device.",
            *([_OUTLINED] if pretraining.outlines else []),
            *(_HEADS if heads else ()),
            *(sentence for good, sentence in worth if not good),
            f"Where it looks is told by {PATCHES} x {PATCHES} patches of {side / PATCHES * PIXEL_MM:.1f} mm, of the "
            "last block alone; a look at the nodule does not make its features right, and explains no risk.",
            "Growth, place in the lung, age and smoking are not looked at.",
        ],
    }


_OUTLINED = (
    "No label was used, but outlines were: views show nodules cut free of their surroundings by a network that learned "
    "from readers' outlines."
)
_HEADS = (
    "The heads' label is the readers' opinion (at least two of them rated the malignancy 4 or 5), not proven cancer; "
    "their probabilities are not calibrated.",
    "The probability supposes the share of malignant labels among these nodules, about a third; among all nodules of a "
    "screening population far fewer are malignant.",
)


def worth_of(probes: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """What the features are worth, as the numbers of what ships say.

    Args:
        probes: From :func:`probes_of`. ``gain_over_risk`` (paired, of a head that ships, over nodule-risk) is told too
            where it is there.

    Yields:
        Whether it speaks for them, and a sentence.
    """
    for key, (good, bad) in _GAINS.items():
        gain = probes.get(key)
        if gain is None:
            continue
        told = f"AUROC {gain['value']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f}), paired, 95 %"
        yield gain["low"] > 0, f"{good if gain['low'] > 0 else bad}: {told}."
    if "gain_over_risk" not in probes:
        yield False, "It was not compared with nodule-risk, which learned with labels and stays the default."


_GAINS: Mapping[str, tuple[str, str]] = {
    "gain_over_untrained": (
        "The forest tells more from its features than from those of the same network untrained",
        "The forest tells nothing clear more from its features than from those of the same network untrained",
    ),
    "with_diameter_over_diameter": (
        "Beside the diameter its features add to what that tells alone",
        "Beside the diameter its features add nothing clear to what that tells alone",
    ),
    "gain_over_risk": (
        "Better in the malignancy than nodule-risk on the same nodules and folds",
        "Not better in the malignancy than nodule-risk, which learned with labels, on the same nodules and folds",
    ),
}


def _source(key: str, slices: int, patients: int) -> dict[str, str]:
    name, what, doi, attribution = _DATA[key]
    count = f"{slices} {what} of {patients} patient{'' if patients == 1 else 's'}"
    return {"name": name, "what": count, "doi": doi, "licence": "CC BY 3.0", "attribution": attribution}
