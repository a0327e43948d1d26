"""The wording of reports and prompts: each class of each feature in several phrasings, written down once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Thing:
    """What is present or absent.

    Args:
        nouns: Phrasings, the first as table 4 of the paper calls it; without article.
        plural: Whether they take a plural verb.
    """

    nouns: tuple[str, ...]
    plural: bool = False

    def present(self, noun: str) -> tuple[str, ...]:
        """Sentences that say that it is there."""
        verb = "are" if self.plural else "is"
        return (
            f"There {verb} {noun}.",
            f"{capital(noun)} {verb} present.",
            f"{capital(noun)} {verb} seen.",
            f"{capital(noun)} {verb} noted.",
        )

    def absent(self, noun: str) -> tuple[str, ...]:
        """Sentences that say that it is not there."""
        verb = "are" if self.plural else "is"
        return (
            f"There {verb} no {noun}.",
            f"No {noun}.",
            f"No {noun} {verb} seen.",
            f"{capital(noun)} {verb} absent.",
            f"No evidence of {noun}.",
        )


THINGS: Mapping[str, Thing] = MappingProxyType({
    "reticulation": Thing(("nodule reticulation", "reticulation within the nodule", "internal reticulation")),
    "cyst_like_spaces": Thing(("cyst-like spaces", "cystic spaces", "cyst-like spaces within the nodule"), plural=True),
    "necrosis": Thing(("necrosis", "internal necrosis", "necrosis within the nodule")),
    "eccentric_calcification": Thing(
        ("eccentric calcification", "off-center calcification", "eccentrically placed calcification")
    ),
    "cavitation": Thing(("cavitation", "internal cavitation", "cavitation of the nodule")),
    "bronchiectasis": Thing(
        ("intra-nodular bronchiectasis", "bronchiectasis within the nodule", "bronchial dilatation within the nodule")
    ),
    "airway_cutoff": Thing(("airway cutoff", "cutoff of the airway", "abrupt airway cutoff")),
    "vascular_convergence": Thing(
        ("vascular convergence", "convergence of vessels toward the nodule", "vessel convergence")
    ),
    "pleural_retraction": Thing(("pleural retraction", "retraction of the pleura", "pleural dimpling")),
    "pleural_attachment": Thing(("pleural attachment", "attachment to the pleura", "pleural adherence")),
    "paracicatricial_emphysema": Thing(
        ("paracicatricial emphysema", "scar-related emphysema", "emphysema around scarring")
    ),
    "septal_stretching": Thing(
        ("septal stretching", "stretching of the septa", "stretching of the interlobular septa")
    ),
    "calcification": Thing(("calcification", "calcification of the nodule", "internal calcification")),
    "lobulation": Thing(("lobulation", "lobulation of the margin")),
    "spiculation": Thing(("spiculation", "spiculation of the margin")),
})  # fmt: skip
"""The twelve features of presence, and three more that LIDC readers rate."""

ADJECTIVES: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType({
    "margins": {
        "Smooth": ("smooth",), "Lobulated": ("lobulated",), "Spiculated": ("spiculated",),
        "Ill-defined": ("ill-defined",), "Notched": ("notched",),
    },
    "consistency": {
        "Solid": ("solid",), "Part-solid": ("part-solid",), "Pure ground glass": ("pure ground glass",),
        "Semiconsolidation": ("semiconsolidation-type",), "Peri-cystic": ("peri-cystic",),
    },
    "shape": {
        "Round": ("round",), "Ovoid": ("ovoid",), "Polygonal": ("polygonal",), "Irregular": ("irregular",),
    },
    "conspicuity": {
        "Well marginated": ("well marginated", "well circumscribed"),
        "Poorly marginated": ("poorly marginated", "poorly circumscribed"),
    },
})  # fmt: skip
"""Each class as it stands before a noun."""

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "margins": (
        "The nodule margin is {}.", "The margins are {}.", "The nodule has {} margins.", "{} margins.",
        "The borders of the nodule are {}.",
    ),
    "consistency": (
        "The nodule consistency is {}.", "The consistency is {}.", "The nodule is of {} consistency.",
        "{} consistency.",
    ),
    "shape": (
        "The nodule shape is {}.", "The nodule is {} in shape.", "The shape is {}.", "{} shape.",
    ),
    "conspicuity": (
        "The nodule is {}.", "The nodule margin conspicuity is {}.", "On CT the nodule is {}.",
    ),
    "suspicion": (
        "The level of suspicion of lung cancer is {}.", "The suspicion of lung cancer is {}.",
        "{} suspicion of lung cancer.", "Level of suspicion for lung cancer: {}.",
    ),
})  # fmt: skip
"""Sentences for a class, in lower case, of a choice."""

TRAITS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = MappingProxyType({
    "subtlety_obvious": (
        ("The nodule is obvious.", "The nodule is readily seen.", "The nodule stands out clearly."),
        ("The nodule is subtle.", "The nodule is faint.", "The nodule is inconspicuous."),
    ),
    "sphericity_round": (
        ("The nodule is nearly spherical.", "The nodule is round in all planes."),
        ("The nodule is not round.", "The nodule is not spherical."),
    ),
    "margin_sharp": (
        ("The margin is sharp.", "The nodule is sharply defined."),
        ("The margin is not sharp.", "The nodule is not sharply defined."),
    ),
    "texture_solid": (
        ("The nodule is wholly solid.", "The nodule is solid throughout."),
        ("The nodule is not wholly solid.", "The nodule is not solid throughout."),
    ),
})  # fmt: skip
"""Sentences for a trait of LIDC that holds, and for one that does not."""

TRAIT_THINGS: Mapping[str, str] = MappingProxyType({
    "calcification_present": "calcification",
    "lobulation_present": "lobulation",
    "spiculation_present": "spiculation",
})  # fmt: skip
"""Traits of LIDC that are things which are present or absent."""

TRAIT_ADJECTIVES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "subtlety_obvious": ("obvious", "readily seen"), "calcification_present": ("calcified",),
    "sphericity_round": ("nearly spherical",), "margin_sharp": ("sharply defined",), "texture_solid": ("wholly solid",),
})  # fmt: skip
"""Traits of LIDC as they stand before a noun, where they hold and no class of a feature says so already."""

NODULE = ("nodule", "lung nodule", "pulmonary nodule")
"""What all is about."""

SUMMARIES = ("There is {}.", "{}.", "The findings describe {}.", "Overall appearance of {}.", "CT shows {}.")
"""Sentences that sum up a noun phrase."""

JOINTS = (" with {}", ", associated with {}", ", demonstrating {}", ", showing {}")
"""How the things that are present follow."""


def capital(text: str) -> str:
    """The text with its first letter large, the others as they are."""
    return text[:1].upper() + text[1:]


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence.

    Example:
        >>> listed(["round", "smooth", "solid"])
        'round, smooth and solid'
    """
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1] if words else "") if part)


def with_article(phrase: str) -> str:
    """The phrase with ``a`` or ``an`` before it.

    Example:
        >>> with_article("8 mm ovoid nodule"), with_article("ovoid nodule"), with_article("12 mm nodule")
        ('an 8 mm ovoid nodule', 'an ovoid nodule', 'a 12 mm nodule')
    """
    return f"{'an' if _VOWEL.match(phrase) else 'a'} {phrase}"


_VOWEL = re.compile(r"(?:[aeio]|u(?!ni)|(?:8\d*|11|18)(?!\d))", re.IGNORECASE)
