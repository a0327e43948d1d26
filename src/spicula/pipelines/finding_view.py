"""A stored finding as a reader sees it: numbers, traits in a radiologist's words, what speaks for and against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from spicula.core.semantics import FEATURES
from spicula.report.words import TRAIT_WORDS
from spicula.store.findings import StoredFinding

Content = Mapping[str, Any]
Speaks: TypeAlias = Literal["for", "against", "neither"]

REPORTED = "reported_uid"
"""Of a finding that another program's report brought in."""

CLEAR = 0.6
"""A word whose share is smaller speaks neither for nor against."""

SUSPICIOUS: Mapping[str, str] = {
    "spiculation_present": "spiculated", "lobulation_present": "lobulated", "margin_sharp": "blurred margin",
    "eccentric_calcification": "Present", "cyst_like_spaces": "Present",
}  # fmt: skip
"""The words, by trait or question, that raise a radiologist's suspicion.

References:
    McWilliams et al. 2013, doi:10.1056/NEJMoa1214726 (spiculation); Lung-RADS 2022, category 4X (features that raise
    suspicion); MacMahon et al. 2017, doi:10.1148/radiol.2017161659.
"""
REASSURING: Mapping[str, str] = {
    "calcification_present": "calcified", "margin_sharp": "sharp margin", "spiculation_present": "not spiculated",
    "lobulation_present": "not lobulated",
}  # fmt: skip
"""Those that lower it."""

_NUMBERS = (
    "center_xyz_mm", "slice_index", "sop_instance_uid", "score", "diameter_mm", "long_axis_mm", "short_axis_mm",
    "long_axis_ends_xyz_mm", "short_axis_ends_xyz_mm", "volume_mm3", "mean_hu", "lung_rads", "fleischner", "outline",
    "attention",
)  # fmt: skip


def view(finding: StoredFinding, number: int, growth: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """A finding for the page.

    Args:
        finding: As it is stored.
        number: In its study, from 1.
        growth: It beside the same nodule in other studies.
    """
    content = finding.content
    return {
        "id": finding.id,
        "study_uid": finding.study_uid,
        "series_uid": finding.series_uid,
        "number": number,
        "state": finding.state,
        "version": finding.version,
        "by_program": finding.analysis_id is not None or REPORTED in content,
        "changed_at": finding.changed_at,
        "changed_by": finding.changed_by,
        "note": content.get("note", ""),
        **{name: content.get(name) for name in _NUMBERS},
        "malignancy": _share(content.get("malignancy")),
        "traits": traits(content),
        "words": words(content),
        "evidence": evidence(content.get("neighbors")),
        "growth": list(growth),
    }


def _share(found: Content | None) -> dict[str, Any] | None:
    return None if not found else {"probability": found["probability"], "interval": found.get("interval")}


def traits(content: Content) -> list[dict[str, Any]]:
    """The traits of a finding, each with its word and the opposite one."""
    return [
        {"name": name, "label": TRAIT_WORDS[name][1], "against": TRAIT_WORDS[name][0], **share}
        for name, found in (content.get("attributes") or {}).items()
        if name in TRAIT_WORDS and (share := _share(found)) is not None
    ]


def words(content: Content) -> list[dict[str, Any]]:
    """What images and words say of a finding: the likeliest word of each question that is always asked."""
    told = []
    for answer in (content.get("words") or {}).get("answers", ()):
        if answer["asked"] is not None or not answer["probabilities"] or None in answer["probabilities"]:
            continue
        share, name = max(zip(answer["probabilities"], answer["classes"], strict=True))
        text = _text(answer, name)
        told.append({"text": text, "share": share, "speaks": _speaks(answer, name, text, share)})
    return sorted(told, key=lambda word: -word["share"])


def _text(answer: Content, name: str) -> str:
    """The class in a radiologist's words: those of its trait where it has one of two classes."""
    trait = answer["trait"]
    if trait in TRAIT_WORDS and len(answer["classes"]) == 2:
        return TRAIT_WORDS[trait][name == answer["trait_class"]]
    feature = FEATURES.get(answer["question"] or "")
    title = (feature.title if feature else answer["question"]).removeprefix("nodule ")
    if name in ("Present", "Absent"):
        return f"{title}: {name.lower()}"
    return name.lower()


def _speaks(answer: Content, name: str, text: str, share: float) -> Speaks:
    if share < CLEAR:
        return "neither"
    key = answer["trait"] or answer["question"]
    said = (text, name)
    if SUSPICIOUS.get(key) in said:
        return "for"
    return "against" if REASSURING.get(key) in said else "neither"


def evidence(found: Content | None) -> dict[str, Any] | None:
    """What past cases say, from the record of a finding's neighbors; None where nobody looked."""
    if not found:
        return None
    shared = [one for one in found["traits"] if one["shared"] and one["trait"] in TRAIT_WORDS]
    sentences = [found["phrase"]]
    if shared:
        common = [TRAIT_WORDS[one["trait"]][one["share"] > one["everywhere"]] for one in shared]
        sentences.append(f"They have in common: {', '.join(common)}.")
    malignant = found["malignant"] or {}
    return {
        "malignant": malignant.get("share"), "interval": malignant.get("interval"), "sentences": sentences,
        "unlike_any": found["unlike_all"],
    }  # fmt: skip
