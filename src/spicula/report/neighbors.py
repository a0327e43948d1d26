"""What past cases say of a finding, in words for people and as a record for programs."""

from __future__ import annotations

import math
from typing import Any

from spicula.core.embedding import Match
from spicula.core.neighbors import Neighborhood, Share, as_share
from spicula.report.text import number, plain_text
from spicula.report.words import TRAIT_WORDS

TOLD = (
    "pid", "nodule_id", "type", "diameter_mm", "malignant", "diagnosis", "diagnosis_by", "study_date", "series_uid",
    "image_path", "x_mm", "y_mm", "z_mm",
)  # fmt: skip
"""Facts of a match that go into the report of a scan, and where to see it."""

_NAMED = 3


def phrase(found: Neighborhood) -> str:
    """A few sentences for a reader.

    Example:
        >>> phrase(Neighborhood("1", "net@0", ()))
        'No past case of another patient is at hand.'
    """
    where = plain_text(found.where)
    if not found.matches:
        met = f"was found that meets the condition {where}." if where else "is at hand."
        said, but = f"No past case of another patient {met}", "And this finding is unlike anything in the index."
    else:
        said, but = _shares(found), "But this finding is unlike anything in the index: they say little of it."
        if where:
            said += f" Only cases that meet the condition {where} were looked at."
    return f"{said} {but}" if found.is_unlike_all else said


def _shares(found: Neighborhood) -> str:
    """How they turned out, and whose outcome cannot be read."""
    several = "nodule" if len(found.matches) == 1 else "nodules"
    first = f"Of {len(found.matches)} similar past {several}"
    if found.malignant is None:
        said = f"{first}, no outcome is known."
    else:
        patients = "patient" if found.malignant.patients == 1 else "patients"
        said = f"{first} of {found.malignant.patients} {patients}, {percent(found.malignant)} were malignant."
    odd = [one.finding_id for one in found.matches if _is_odd(one)]
    if odd:
        names = ", ".join(map(plain_text, odd[:_NAMED])) + (" ..." if len(odd) > _NAMED else "")
        said += f" The outcome of {len(odd)} of them does not count: it is no number from 0 to 1 ({names})."
    return said


def _is_odd(match: Match) -> bool:
    """Whether what the index says of the outcome cannot be one."""
    return "malignant" in match.facts and as_share(match.facts["malignant"]) is None


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
    value = as_share(match.facts.get("malignant"))
    if value is None:
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
    """A match with the facts that go into the report of a scan."""
    facts = facts_record(match)
    return {"distance": number(match.distance), **{name: facts[name] for name in TOLD if name in facts}}


def facts_record(match: Match) -> dict[str, Any]:
    """All that the index knows of a match, its own columns too: plain JSON values, ``pid`` and ``nodule_id`` first."""
    return {
        plain_text(name): plain_text(value) if isinstance(value, str) else number(value)
        for name, value in match.facts.items()
    }


def scan_of(match: Match) -> str:
    """The scan of a match: the path of its image, else its series; empty where the index knows neither.

    Example:
        >>> scan_of(Match("a/1", 0.1, {"pid": "a", "series_uid": "1.2.3"}))
        'series 1.2.3'
    """
    path, series = (plain_text(str(match.facts.get(name, ""))) for name in ("image_path", "series_uid"))
    return path or (f"series {series}" if series else "")


def place_of(match: Match) -> str:
    """Where it is in its scan, mm LPS; empty where the index does not know.

    Example:
        >>> place_of(Match("a/1", 0.1, {"x_mm": 56.25, "y_mm": 86.0, "z_mm": -115.9}))
        '56.2, 86.0, -115.9'
    """
    values = [match.facts.get(f"{axis}_mm") for axis in "xyz"]
    numbers = [value for value in values if isinstance(value, float | int) and math.isfinite(value)]
    return ", ".join(f"{value:.1f}" for value in numbers) if len(numbers) == 3 else ""


def _share(share: Share) -> dict[str, Any]:
    return {
        "share": number(share.value), "interval": [number(end) for end in share.interval], "patients": share.patients,
    }  # fmt: skip
