"""What words come to, as a record for programs and as rows for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spicula.core.prediction import Prediction
from spicula.core.semantics import FEATURES, PRESENCE
from spicula.core.words import Answer, Words
from spicula.report.text import number

TRAIT_WORDS = {
    "subtlety_obvious": ("subtle", "obvious"),
    "calcification_present": ("not calcified", "calcified"),
    "sphericity_round": ("not round", "round"),
    "margin_sharp": ("blurred margin", "sharp margin"),
    "lobulation_present": ("not lobulated", "lobulated"),
    "spiculation_present": ("not spiculated", "spiculated"),
    "texture_solid": ("not wholly solid", "solid"),
}
"""Words against and for each trait."""


UNLEARNED = "not among the words it learned"
"""Said of every word whose answer rests on no text of training."""

LOOKED_MOST = 1.5 / 9
"""Share of attention from which on a plane is named: half as much again as each of nine equal ones has."""


@dataclass(frozen=True, slots=True)
class WordRow:
    """What is shown of one word that a user asked for.

    Args:
        word: As it was written.
        against: What it was compared with.
        probability: Of the word, 0 to 1.
        low: Lowest that a network gives.
        high: Highest that a network gives.
        similarity: Cosine, -1 to 1.
        trait: What the trait says that can be set beside it; empty without one.
        remarks: What a reader must know.
        disagrees: Whether one of the remarks is that trait and words disagree.
    """

    word: str
    against: str
    probability: float
    low: float
    high: float
    similarity: float
    trait: str
    remarks: tuple[str, ...]
    disagrees: bool


def word_rows(words: Words | None, predictions: dict[str, Prediction]) -> tuple[WordRow, ...]:
    """The words that a user asked of a finding, as rows.

    Args:
        words: Of the finding.
        predictions: Of the same finding, by target.
    """
    return tuple(
        WordRow(
            answer.asked,
            compared_with(answer),
            answer.probability,
            *answer.spread,
            answer.similarity,
            beside(answer, predictions),
            remarks(answer),
            answer.disagrees,
        )
        for answer in (words.requested if words else ())
    )


def compared_with(answer: Answer) -> str:
    """The opposites of what was asked for, in words."""
    others = [name for name in answer.classes if name != answer.name]
    if others == [PRESENCE[0]]:
        return "its absence"
    return "its presence" if others == [PRESENCE[1]] else ", ".join(name.lower() for name in others)


def beside(answer: Answer, predictions: dict[str, Prediction]) -> str:
    """What the trait says, such as ``solid 0.82 (0.71 to 0.90)``; empty where there is none to set beside."""
    if answer.trait is None or answer.trait_probability is None or not math.isfinite(answer.trait_probability):
        return ""
    text = f"{TRAIT_WORDS[answer.trait][1]} {answer.trait_probability:.2f}"
    prediction = predictions.get(answer.trait)
    if prediction is None or prediction.interval is None or not all(map(math.isfinite, prediction.interval)):
        return text
    low, high = prediction.interval
    return f"{text} ({low:.2f} to {high:.2f})"


def remarks(answer: Answer) -> tuple[str, ...]:
    """What a reader must know of an answer."""
    said = []
    if answer.disagrees:
        said.append("trait and words disagree")
    if not answer.learned:
        said.append(UNLEARNED)
    if answer.nearest:
        said.append(f"was \u201c{answer.nearest}\u201d meant?")
    if answer.question == "suspicion":
        said.append("the risk of malignancy is trained for this")
    return tuple(said)


def difference(answer: Answer) -> str:
    """Where trait and words disagree, what each says; else empty."""
    if not answer.disagrees or answer.trait is None or answer.trait_class is None or answer.trait_probability is None:
        return ""
    against, favor = TRAIT_WORDS[answer.trait]
    share = answer.of(answer.trait_class)
    by_words = f"{favor} {share:.2f}" if share > 0.5 else f"{against} {1 - share:.2f}"
    by_trait = favor if answer.trait_probability > 0.5 else against
    return f"Trait and words disagree: {by_words} by words, {by_trait} by the trait."


def by_words_alone(words: Words | None) -> tuple[str, ...]:
    """Standard answers that say what no trait says: such as ``Consistency: solid 0.20, part-solid 0.70``."""
    lines = []
    for answer in words.standard if words else ():
        feature = FEATURES.get(answer.question or "")
        title = feature.title.removeprefix("nodule ") if feature else ""
        if len(answer.classes) > 2:
            shares = sorted(zip(answer.probabilities, answer.classes, strict=True), reverse=True)
            lines.append(f"{title.capitalize()}: " + ", ".join(f"{name.lower()} {share:.2f}" for share, name in shares))
        elif answer.trait is None and title:
            lines.append(f"{title.capitalize()}: {answer.probability:.2f}")
    return tuple(lines)


def looked_most(words: Words | None) -> str:
    """The plane that the networks looked at most, where it stands out; else empty."""
    if words is None or not words.attention:
        return ""
    plane, share = max(words.attention.items(), key=lambda item: item[1])
    return f"{plane} ({100 * share:.0f} % of its attention)" if share >= LOOKED_MOST else ""


def words_record(words: Words) -> dict[str, Any]:
    """What ``report.json`` holds of one finding's words: plain JSON values."""
    return {
        "fingerprint": words.fingerprint,
        "prompts": words.prompts,
        "answers": [_answer(answer) for answer in words.answers],
        "attention": {plane: number(share) for plane, share in words.attention.items()},
    }


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "asked": answer.asked or None,
        "question": answer.question,
        "class": answer.name,
        "classes": list(answer.classes),
        "probabilities": _numbers(answer.probabilities),
        "similarities": _numbers(answer.similarities),
        "spread": _numbers(answer.spread),
        "learned": answer.learned,
        "nearest": answer.nearest,
        "trait": answer.trait,
        "trait_class": answer.trait_class,
        "trait_probability": number(answer.trait_probability),
        "disagrees": answer.disagrees,
    }


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [number(value) for value in values]
