"""What readers said of a nodule as a short report, findings and impression, from templates: no model, no network.

The same record and seed give the same text. Every nodule's text comes from its own record; what is missing is passed
over in silence, what is absent is said in the findings only.

References:
    arXiv 2504.21344, sections 3.2.1 and A.2 (the contract of the text, there written by Gemini 1.5 Flash). Departures:
    templates instead of a language model (:mod:`spicula.explain.language_model` offers one); no heading is part of the
    training text; the suspicion stands in the impression alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from spicula.core.errors import InputError
from spicula.core.prediction import TRAITS as TRAIT_NAMES
from spicula.core.semantics import SemanticFeatures
from spicula.explain import phrases
from spicula.explain.synonyms import varied

Part: TypeAlias = Literal["findings", "impression", "either"]

TOKEN_LIMIT = 77
"""Tokens that CLIP's text tower reads, the marks of start and end among them."""

_MARGIN_OF_TRAIT = {"lobulation_present": "Lobulated", "spiculation_present": "Spiculated"}
_FEATURE_OF_TRAIT = {"sphericity_round": "shape", "margin_sharp": "conspicuity", "texture_solid": "consistency"}


@dataclass(frozen=True, slots=True)
class ReportText:
    """A report on one nodule.

    Args:
        findings: One line a finding, each beginning with ``- ``; empty where nothing was read.
        impression: What is present in one sentence, then the level of suspicion where one was given.
    """

    findings: str
    impression: str

    def __str__(self) -> str:
        return f"Findings:\n{self.findings or '- None read.'}\n\nImpression:\n{self.impression}\n"


def write_report(
    features: SemanticFeatures, *, seed: int, augment: bool = False, traits: Mapping[str, bool] | None = None
) -> ReportText:
    """Write the report of one nodule.

    Args:
        features: What was read of this nodule.
        seed: Order, phrasing and, with ``augment``, variation follow from it.
        augment: Whether synonyms are put in and a few words left out, as for training.
        traits: Whether traits of :data:`spicula.core.prediction.TRAITS` hold, beside the features (LIDC readers rate
            calcification and subtlety, for which the features have no word). One of which the features already judge
            the like, as the consistency does of what is solid, is passed over: a text does not contradict itself.

    Returns:
        The report.

    Raises:
        InputError: A trait that is not known.

    Example:
        >>> found = SemanticFeatures(consistency="Part-solid", margins={"Spiculated": True}, necrosis=False)
        >>> print(write_report(found, seed=3))
        Findings:
        - The borders of the nodule are spiculated.
        - The nodule consistency is part-solid.
        - No necrosis.
        <BLANKLINE>
        Impression:
        The findings describe a part-solid pulmonary nodule with spiculated margins.
        <BLANKLINE>
    """
    rng = np.random.default_rng(seed)
    said = _beside(features, traits)
    report = ReportText(_findings(features, said, rng), _impression(features, said, rng))
    return vary_report(report, rng=rng) if augment else report


def vary_report(report: ReportText, *, rng: np.random.Generator) -> ReportText:
    """The report with synonyms put in and a few words left out, each part with its own choices."""
    return replace(report, findings=varied(report.findings, rng=rng), impression=varied(report.impression, rng=rng))


def training_text(
    features: SemanticFeatures,
    *,
    rng: np.random.Generator,
    part: Part = "either",
    augment: bool = True,
    traits: Mapping[str, bool] | None = None,
    report: ReportText | None = None,
) -> str:
    """One text of a nodule as the text tower is trained on it: another one at each call.

    Args:
        features: What was read of this nodule.
        rng: Source of order, phrasing, variation and, for ``"either"``, of the part (one half each).
        part: Findings, impression, or one of them by chance; the impression where nothing was found.
        augment: Whether synonyms are put in and a few words left out.
        traits: As for :func:`write_report`.
        report: A report that was written before, by a language model say; only its variation is then drawn.

    Returns:
        The text, cleaned as by :func:`plain_text`; never empty.

    Raises:
        InputError: A part or trait that is not known.
    """
    if part not in ("findings", "impression", "either"):
        raise InputError("part of a report", got=repr(part), expected="findings, impression or either")
    if part == "either":
        part = "findings" if rng.random() < 0.5 else "impression"
    if report is None:
        report = write_report(features, seed=int(rng.integers(2**63)), traits=traits)
    text = (report.findings if part == "findings" else "") or report.impression
    return plain_text(varied(text, rng=rng) if augment else text)


def plain_text(text: str) -> str:
    r"""The text as the text tower is given it: no ``#`` and ``*``, spaces for ``-``, ``", "`` for ``/``, one line.

    Prompts have to go through it too where the tower was trained on such text.

    Example:
        >>> plain_text("- **Part-solid** nodule.\n- Spiculated/serrated margin.")
        'Part solid nodule. Spiculated, serrated margin.'
    """
    bare = re.sub(r"[#*]", "", text).replace("-", " ")
    return " ".join(re.sub(r"\s*/\s*", ", ", bare).split())


def cut_at_sentence(text: str, count_tokens: Callable[[str], int], limit: int = TOKEN_LIMIT) -> tuple[str, bool]:
    """Cut a text that is too long behind a sentence, so that no statement loses its end.

    Where not even the first sentence fits it is cut behind a comma, and if that does not help behind a word.

    Args:
        text: Sentences; a new line ends one too.
        count_tokens: Tokens of a text, those that mark start and end among them.
        limit: Tokens at most.

    Returns:
        The text, unchanged or cut; and whether it was cut.

    Raises:
        InputError: Not even the first word fits.

    Example:
        >>> cut_at_sentence("Solid nodule. Smooth margins of 2.5 mm.", lambda text: len(text.split()), 4)
        ('Solid nodule.', True)
    """
    if count_tokens(text) <= limit:
        return text, False
    for end in (r"(?<=[.;!?])\s|\n", r"(?<=,)\s", r"\s"):
        stops = [match.start() for match in re.finditer(end, text)]
        for stop in reversed(stops):
            shorter = text[:stop].rstrip().rstrip(",")
            if shorter and count_tokens(shorter) <= limit:
                return shorter, True
    raise InputError(
        "text for the text tower", got=f"{text[:40]!r}, whose first word is too long", expected=f"{limit} tokens"
    )


def _beside(features: SemanticFeatures, traits: Mapping[str, bool] | None) -> dict[str, bool]:
    unknown = [name for name in traits or {} if name not in TRAIT_NAMES]
    if unknown:
        raise InputError("trait", got=repr(unknown[0]), expected=f"one of {', '.join(TRAIT_NAMES)}")
    return {
        name: bool(holds)
        for name, holds in (traits or {}).items()
        if _MARGIN_OF_TRAIT.get(name) not in features.margins
        and getattr(features, _FEATURE_OF_TRAIT.get(name, ""), None) is None
    }


def _choice(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _shuffled(items: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [items[int(i)] for i in rng.permutation(len(items))]


def _findings(features: SemanticFeatures, traits: Mapping[str, bool], rng: np.random.Generator) -> str:
    lines = [*_sizes(features, rng), *_margins(features, rng)]
    for name in ("consistency", "shape", "conspicuity"):
        if value := getattr(features, name):
            lines.append(_of_choice(name, value, rng))
    for name in phrases.THINGS:
        value = getattr(features, name, None)
        if value is not None:
            lines.append(_of_thing(name, value, rng))
    for name, holds in traits.items():
        thing = phrases.TRAIT_THINGS.get(name)
        lines.append(_of_thing(thing, holds, rng) if thing else _choice(phrases.TRAITS[name][not holds], rng))
    return "\n".join(f"- {line}" for line in _shuffled(lines, rng))


def _sizes(features: SemanticFeatures, rng: np.random.Generator) -> Iterator[str]:
    long, short = features.longest_diameter_mm or 0.0, features.short_diameter_mm or 0.0
    size = _size(features)
    if long > 0 and short > 0:
        yield _choice((f"The nodule measures {size}.", f"{size} in axial diameters.", f"Size {size}."), rng)
    elif long > 0:
        yield _choice((f"The longest axial diameter is {size}.", f"Longest axial diameter of {size}."), rng)
    elif short > 0:
        yield _choice((f"The short diameter is {_number(short)} mm.", f"Short diameter of {_number(short)} mm."), rng)


def _size(features: SemanticFeatures) -> str:
    """``12 x 8 mm``, ``12 mm``, or nothing where the longest diameter is missing."""
    known = [v for v in (features.longest_diameter_mm, features.short_diameter_mm) if v is not None and v > 0]
    return f"{' x '.join(map(_number, known))} mm" if features.longest_diameter_mm and known else ""


def _number(value_mm: float) -> str:
    return f"{value_mm:.1f}".removesuffix(".0")


def _margins(features: SemanticFeatures, rng: np.random.Generator) -> Iterator[str]:
    held = [_adjective("margins", word, rng) for word in _shuffled(features.margin_words, rng)]
    if held:
        yield phrases.capital(_choice(phrases.CHOICES["margins"], rng).format(phrases.listed(held)))
    missing = [
        noun
        for word, noun in (("Lobulated", "lobulation"), ("Spiculated", "spiculation"))
        if word in features.margins and not features.margins[word]
    ]
    if missing:
        noun = " or ".join(_shuffled(missing, rng))
        yield _choice(phrases.THINGS["lobulation"].absent(noun) if len(missing) == 1 else _NEITHER, rng).format(noun)


_NEITHER = ("There is no {}.", "No {}.", "No {} is seen.", "No evidence of {}.")


def _adjective(name: str, word: str, rng: np.random.Generator) -> str:
    return _choice(phrases.ADJECTIVES[name][word], rng)


def _of_choice(name: str, word: str, rng: np.random.Generator) -> str:
    return phrases.capital(_choice(phrases.CHOICES[name], rng).format(word.lower()))


def _of_thing(name: str, holds: bool, rng: np.random.Generator) -> str:
    thing = phrases.THINGS[name]
    noun = _choice(thing.nouns, rng)
    return _choice(thing.present(noun) if holds else thing.absent(noun), rng)


def _impression(features: SemanticFeatures, traits: Mapping[str, bool], rng: np.random.Generator) -> str:
    adjectives = [
        _adjective(name, value, rng)
        for name in ("consistency", "shape", "conspicuity")
        if (value := getattr(features, name))
    ]
    adjectives += [_choice(words, rng) for name, words in phrases.TRAIT_ADJECTIVES.items() if traits.get(name)]
    head = ", ".join([size] if (size := _size(features)) else []) + " " + ", ".join(_shuffled(adjectives, rng))
    summary = phrases.with_article(f"{head.strip()} {_choice(phrases.NODULE, rng)}".strip())
    held = [_adjective("margins", word, rng) for word in _shuffled(features.margin_words, rng)]
    if held:
        summary += f" with {phrases.listed(held)} margins"
    things = [name.removesuffix("_present") for name in _MARGIN_OF_TRAIT if traits.get(name)]
    things += [_choice(phrases.THINGS[name].nouns, rng) for name in phrases.THINGS if getattr(features, name, None)]
    if things:
        joint = _choice(phrases.JOINTS[1:] if held else phrases.JOINTS, rng)
        summary += joint.format(phrases.listed(_shuffled(things, rng)))
    sentences = [phrases.capital(_choice(phrases.SUMMARIES, rng).format(summary))]
    if features.suspicion:
        sentences.append(_of_choice("suspicion", features.suspicion, rng))
    return " ".join(sentences)
