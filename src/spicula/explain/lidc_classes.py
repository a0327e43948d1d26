"""The ratings of LIDC readers as answers to the questions of :mod:`spicula.explain.prompts`, cut in two ways.

``score`` cuts as the targets of the default model are cut (:data:`spicula.core.prediction.TRAITS`); ``nlst`` as the
mapping to the NLST readings does (arXiv 2504.21344, table A2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from spicula.core.errors import InputError
from spicula.core.semantics import PRESENCE, SemanticFeatures

CutName: TypeAlias = Literal["score", "nlst"]


@dataclass(frozen=True, slots=True)
class Cut:
    """How a rating becomes a class.

    Args:
        rating: Which trait was rated.
        classes: From low to high ratings.
        edges: Lowest rating of each class but the first.
    """

    rating: str
    classes: tuple[str, ...]
    edges: tuple[float, ...]

    def of(self, value: float | None) -> str | None:
        """The class of a median rating; None where it is missing."""
        if value is None or math.isnan(value):
            return None
        return self.classes[sum(value >= edge for edge in self.edges)]


def _above(value: float) -> float:
    return math.nextafter(value, math.inf)


_THREE = ("Pure ground glass", "Part-solid", "Solid")
_BOTH = {
    "margins=Lobulated": Cut("lobulation", ("Absent", "Present"), (3,)),
    "margins=Spiculated": Cut("spiculation", ("Absent", "Present"), (3,)),
}

LIDC_CUTS: Mapping[str, Mapping[str, Cut]] = MappingProxyType({
    "score": MappingProxyType({
        "conspicuity": Cut("margin", ("Poorly marginated", "Well marginated"), (4,)),
        "consistency": Cut("texture", _THREE, (2, 5)),
        **_BOTH,
        "shape": Cut("sphericity", ("Ovoid", "Round"), (4,)),
        "calcification": Cut("calcification", ("Present", "Absent"), (6,)),
        "subtlety": Cut("subtlety", ("Subtle", "Obvious"), (4,)),
    }),
    "nlst": MappingProxyType({
        "conspicuity": Cut("margin", ("Poorly marginated", "Well marginated"), (3,)),
        "consistency": Cut("texture", _THREE, (2, _above(4))),
        **_BOTH,
        "shape": Cut("sphericity", ("Ovoid", "Round"), (_above(3),)),
        "eccentric_calcification": Cut("calcification", ("Absent", "Present", "Absent"), (4, _above(4))),
        "cyst_like_spaces": Cut("internal_structure", ("Absent", "Present"), (4,)),
    }),
})  # fmt: skip
"""Cut to question to how its rating is cut. Of the consistency ``score`` has one threshold only, that of solid; pure
ground glass begins where table A2 has it."""

ASKED: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "conspicuity": ("Poorly marginated", "Well marginated"),
    "consistency": ("Pure ground glass", "Part-solid", "Solid"),
    "margins=Spiculated": ("Absent", "Present"),
    "margins=Lobulated": ("Absent", "Present"),
    "shape": ("Ovoid", "Round"),
    "calcification": ("Absent", "Present"),
    "subtlety": ("Subtle", "Obvious"),
    "eccentric_calcification": ("Absent", "Present"),
    "cyst_like_spaces": ("Absent", "Present"),
})  # fmt: skip
"""Question to the classes that LIDC readers can tell apart: what networks are trained on texts of, and asked."""

QUESTION_OF_TRAIT: Mapping[str, tuple[str, str]] = MappingProxyType({
    "subtlety_obvious": ("subtlety", "Obvious"),
    "calcification_present": ("calcification", "Present"),
    "sphericity_round": ("shape", "Round"),
    "margin_sharp": ("conspicuity", "Well marginated"),
    "lobulation_present": ("margins=Lobulated", "Present"),
    "spiculation_present": ("margins=Spiculated", "Present"),
    "texture_solid": ("consistency", "Solid"),
})  # fmt: skip
"""Trait of the default model to the question and the class that say the same: what the two say can be compared."""


def lidc_class(question: str, medians: Mapping[str, float | None], *, cut: CutName) -> str | None:
    """The readers' answer to a question.

    Args:
        question: Key of :data:`LIDC_CUTS`.
        medians: Median rating by trait, as ``Finding.truth`` has them.
        cut: Which way.

    Returns:
        The class; None where the trait was not rated.

    Raises:
        InputError: LIDC has no answer to the question cut this way.

    Example:
        >>> medians = {"texture": 4.5, "calcification": 4}
        >>> [lidc_class("consistency", medians, cut=cut) for cut in ("score", "nlst")]
        ['Part-solid', 'Solid']
    """
    cuts = LIDC_CUTS.get(cut)
    if cuts is None:
        raise InputError("cut of the classes", got=repr(cut), expected=" or ".join(LIDC_CUTS))
    if question not in cuts:
        raise InputError(f"question cut as {cut}", got=repr(question), expected=f"one of {', '.join(cuts)}")
    return cuts[question].of(medians.get(cuts[question].rating))


def lidc_features(medians: Mapping[str, float | None], *, cut: CutName = "score") -> SemanticFeatures:
    """What LIDC readers said as a record, its classes cut as the questions are.

    Cut as ``nlst`` it is the record of :func:`spicula.datasets.lidc_to_nlst.nlst_features`. Cut as ``score`` it has no
    eccentric calcification and no cyst-like spaces; :func:`lidc_traits` has calcification and subtlety.

    Args:
        medians: Median rating by trait.
        cut: Which way.
    """
    said = {question: lidc_class(question, medians, cut=cut) for question in LIDC_CUTS[cut]}
    margins = {name: said[f"margins={name}"] for name in ("Lobulated", "Spiculated")}
    present = {name: answer == "Present" for name, answer in said.items() if answer in PRESENCE}
    return SemanticFeatures(
        margins=MappingProxyType({name: answer == "Present" for name, answer in margins.items() if answer}),
        consistency=said["consistency"],
        shape=said["shape"],
        conspicuity=said["conspicuity"],
        cyst_like_spaces=present.get("cyst_like_spaces"),
        eccentric_calcification=present.get("eccentric_calcification"),
    )


def lidc_traits(medians: Mapping[str, float | None]) -> dict[str, bool]:
    """Whether each trait of the default model holds by the readers, for ``write_report(traits=...)``.

    Args:
        medians: Median rating by trait.

    Returns:
        No entry where a trait was not rated.
    """
    found = {
        trait: (lidc_class(question, medians, cut="score"), name)
        for trait, (question, name) in QUESTION_OF_TRAIT.items()
    }
    return {trait: answer == name for trait, (answer, name) in found.items() if answer is not None}
