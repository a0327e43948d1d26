"""What past cases say of a finding, in words for people and as a record for programs."""

from __future__ import annotations

from typing import Any

from spicula.core.embedding import Match
from spicula.core.neighbors import Neighborhood, Share
from spicula.report.text import number, plain_text
from spicula.report.words import TRAIT_WORDS

TOLD = (
    "pid", "nodule_id", "type", "diameter_mm", "malignant", "diagnosis", "diagnosis_by", "study_date", "series_uid",
    "image_path", "x_mm", "y_mm", "z_mm",
)  # fmt: skip
"""Facts of a match that are passed on, and where to see it."""


def phrase(found: Neighborhood) -> str:
    """One or two sentences for a reader.

    Example:
        >>> phrase(Neighborhood("1", "net@0", ()))
        'No past case of another patient is at hand.'
    """
    if not found.matches:
        return "No past case of another patient is at hand."
    several = "nodule" if len(found.matches) == 1 else "nodules"
    first = f"Of {len(found.matches)} similar past {several}"
    if found.malignant is None:
        said = f"{first}, no outcome is known."
    else:
        patients = "patient" if found.malignant.patients == 1 else "patients"
        said = f"{first} of {found.malignant.patients} {patients}, {percent(found.malignant)} were malignant."
    if found.is_unlike_all:
        said += " But this finding is unlike anything in the index: they say little of it."
    return said


def percent(share: Share) -> str:
    """A share with its interval.

    Example:
        >>> percent(Share(0.5, (0.224, 0.776), 10))
        '50 % (22 to 78 %)'
    """
    low, high = (100 * end for end in share.interval)
    return f"{100 * share.value:.0f} % ({low:.0f} to {high:.0f} %)"


def shared_words(found: Neighborhood) -> tuple[str, ...]:
    """What the neighbors have in common more than the index, in a radiologist's words, with how many have it."""
    words = []
    for one in found.traits:
        if one.is_shared and one.trait in TRAIT_WORDS:
            has = one.share.value > one.everywhere
            share, usual = (value if has else 1 - value for value in (one.share.value, one.everywhere))
            words.append(f"{TRAIT_WORDS[one.trait][has]} ({100 * share:.0f} %; in the index {100 * usual:.0f} %)")
    return tuple(words)


def outcome(match: Match) -> str:
    """How a match turned out, in a word; empty where nobody knows.

    Example:
        >>> outcome(Match("a/1", 0.1, {"pid": "a", "malignant": 1.0}))
        'malignant'
    """
    value = match.facts.get("malignant")
    if not isinstance(value, float | int):
        return ""
    return "malignant" if value >= 0.5 else "benign"


def neighbors_record(found: Neighborhood) -> dict[str, Any]:
    """What ``report.json`` holds of a finding's neighbors: plain JSON values."""
    return {
        "fingerprint": plain_text(found.fingerprint),
        "phrase": phrase(found),
        "malignant": None if found.malignant is None else _share(found.malignant),
        "farther_than": number(found.farther_than),
        "unlike_all": found.is_unlike_all,
        "traits": [
            {"trait": one.trait, **_share(one.share), "everywhere": number(one.everywhere), "shared": one.is_shared}
            for one in found.traits
        ],
        "matches": [match_record(match) for match in found.matches],
    }


def match_record(match: Match) -> dict[str, Any]:
    """A match with the facts that are passed on."""
    facts = {name: match.facts[name] for name in TOLD if name in match.facts}
    plain = {name: plain_text(value) if isinstance(value, str) else number(value) for name, value in facts.items()}
    return {"distance": number(match.distance), **plain}


def _share(share: Share) -> dict[str, Any]:
    return {
        "share": number(share.value), "interval": [number(end) for end in share.interval], "patients": share.patients,
    }  # fmt: skip
