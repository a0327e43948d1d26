"""Questions put to a network that aligns images with words: for each class the sentences to compare an image with.

``compat`` are the paper's own sentences, one a class; ``templates`` are three or more a class in the style of an
impression, whose embeddings are averaged.

References:
    arXiv 2504.21344, section 3.4 (the sentences) and table 4 (the features). The templates are our own.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from spicula.core.errors import InputError
from spicula.core.semantics import FEATURES, PRESENCE
from spicula.explain.phrases import ADJECTIVES, THINGS, capital, with_article
from spicula.explain.report_text import plain_text
from spicula.explain.synonyms import GROUPS

Style: TypeAlias = Literal["compat", "templates"]

NO_FINDINGS = "No findings"
"""What the paper compares the presence of a feature with."""

TABLE_4 = tuple(name for name, feature in FEATURES.items() if feature.kind not in ("length", "scale"))
"""The sixteen features that the paper asks without training for."""


@dataclass(frozen=True, slots=True)
class ClassPrompts:
    """Sentences of one class.

    Args:
        compat: The paper's own.
        templates: Three or more.
    """

    compat: tuple[str, ...]
    templates: tuple[str, ...]

    def of(self, style: Style, *, plain: bool = False) -> tuple[str, ...]:
        """The sentences of a style; ``plain`` as :func:`spicula.explain.report_text.plain_text` cleans them."""
        if style not in ("compat", "templates"):
            raise InputError("style of prompts", got=repr(style), expected="compat or templates")
        chosen = self.compat if style == "compat" else self.templates
        return tuple(plain_text(sentence) for sentence in chosen) if plain else chosen


@dataclass(frozen=True, slots=True)
class Word:
    """A word that a user asks about, with what it is compared with.

    Args:
        asked: As the user wrote it.
        question: Key of :data:`PROMPTS`; None for free text.
        name: The class that stands for the word, among those of ``prompts``.
        prompts: Sentences by class; all but ``name`` are its opposites.
        nearest: For free text, the known word that is spelled most alike, if one nearly is: perhaps it was meant.
    """

    asked: str
    question: str | None
    name: str
    prompts: Mapping[str, tuple[str, ...]]
    nearest: str | None = None

    @property
    def opposites(self) -> Mapping[str, tuple[str, ...]]:
        """The sentences that the word's own are compared with."""
        return {name: sentences for name, sentences in self.prompts.items() if name != self.name}


def _adjective(title: str, word: str, adjectives: Sequence[str]) -> tuple[str, ...]:
    """Templates for a class that stands before a noun; ``title`` is what it describes, empty for the nodule itself."""
    first, last = adjectives[0], adjectives[-1]
    if title == "margins":
        return (
            f"There is a lung nodule with {first} margins.",
            f"A pulmonary nodule with {last} margins.",
            f"CT shows a nodule with {first} margins.",
            f"{capital(last)} margins.",
        )
    named = f"The nodule {title} is {word.lower()}." if title else f"The nodule is {first}."
    return (
        f"There is {with_article(first)} lung nodule.",
        f"{capital(with_article(last))} pulmonary nodule.",
        f"CT shows {with_article(first)} nodule.",
        named,
    )


def _choice(name: str) -> Mapping[str, ClassPrompts]:
    feature = FEATURES[name]
    title = {"margins": "margins", "conspicuity": ""}.get(name, name)
    return MappingProxyType({
        word: ClassPrompts(
            (f"This {feature.title} is {word.lower()}.",),
            _adjective(title, word, ADJECTIVES[name][word]),
        )
        for word in feature.classes
    })  # fmt: skip


def _presence(name: str, compat: str) -> Mapping[str, ClassPrompts]:
    thing = THINGS[name]
    first, last = thing.nouns[0], thing.nouns[-1]
    absent, present = PRESENCE
    verb = "are" if thing.plural else "is"
    there = (
        f"There is a lung nodule with {first}.",
        f"A pulmonary nodule, associated with {first}.",
        f"CT shows a nodule with {last}."
        if last != first and "nodule" not in last
        else f"{capital(last)} {verb} seen.",
        f"There {verb} {first}.",
    )
    missing = (
        f"There is a lung nodule without {first}.",
        f"There {verb} no {first}.",
        f"No {last}.",
        f"{capital(first)} {verb} absent.",
    )
    return MappingProxyType(
        {present: ClassPrompts((compat,), there), absent: ClassPrompts((NO_FINDINGS,), missing)}
    )  # fmt: skip


def _margin(word: str) -> Mapping[str, ClassPrompts]:
    """One margin against its absence: margins do not exclude each other."""
    held = _choice("margins")[word]
    adjective = ADJECTIVES["margins"][word][0]
    noun = {"Lobulated": "lobulation", "Spiculated": "spiculation", "Notched": "notching"}.get(word)
    missing = (
        f"There is a lung nodule without {noun}." if noun else f"There is a lung nodule without {adjective} margins.",
        f"No {noun}." if noun else f"No {adjective} margins.",
        f"There is no {noun}." if noun else f"The margins are not {adjective}.",
    )
    absent, present = PRESENCE
    return MappingProxyType({present: held, absent: ClassPrompts((NO_FINDINGS,), missing)})


def _suspicion() -> Mapping[str, ClassPrompts]:
    return MappingProxyType({
        word: ClassPrompts(
            (f"This {FEATURES['suspicion'].title} is {word.lower()}.",),
            (
                f"The level of suspicion of lung cancer is {word.lower()}.",
                f"The suspicion of lung cancer is {word.lower()}.",
                f"{capital(word.lower())} suspicion of lung cancer.",
            ),
        )
        for word in FEATURES["suspicion"].classes
    })  # fmt: skip


def _subtlety() -> Mapping[str, ClassPrompts]:
    return MappingProxyType({
        "Obvious": ClassPrompts(("This nodule is obvious.",), (
            "There is an obvious lung nodule.", "A readily seen pulmonary nodule.", "The nodule is obvious.")),
        "Subtle": ClassPrompts(("This nodule is subtle.",), (
            "There is a subtle lung nodule.", "A faint pulmonary nodule.", "The nodule is subtle.")),
    })  # fmt: skip


def _all_questions() -> Mapping[str, Mapping[str, ClassPrompts]]:
    questions: dict[str, Mapping[str, ClassPrompts]] = {}
    for name in TABLE_4:
        presence = FEATURES[name].kind == "presence"
        verb_and_name = f"There is {FEATURES[name].title}."
        questions[name] = _presence(name, verb_and_name) if presence else _choice(name)
    for word in FEATURES["margins"].classes:
        questions[f"margins={word}"] = _margin(word)
    questions["suspicion"] = _suspicion()
    questions["calcification"] = _presence("calcification", "There is calcification.")
    questions["subtlety"] = _subtlety()
    return MappingProxyType(questions)


PROMPTS: Mapping[str, Mapping[str, ClassPrompts]] = _all_questions()
"""Question to class to sentences: the sixteen of :data:`TABLE_4` first; then each margin against its absence
(``margins=Spiculated``), the suspicion, and calcification and subtlety, which LIDC readers rate."""


def prompts_of(feature: str, style: Style = "templates", *, plain: bool = False) -> dict[str, tuple[str, ...]]:
    """Sentences of each class of one question.

    Args:
        feature: Key of :data:`PROMPTS`.
        style: The paper's sentences or the templates.
        plain: Whether they are cleaned as training text is; for a tower that was trained on such text.

    Returns:
        Sentences by class, in the order of the classes.

    Raises:
        InputError: The question or style is not known; names the nearest.

    Example:
        >>> prompts_of("pleural_retraction", "compat")
        {'Present': ('There is pleural retraction.',), 'Absent': ('No findings',)}
        >>> prompts_of("margins", "compat")["Smooth"]
        ('This nodule margin is smooth.',)
    """
    if feature not in PROMPTS:
        nearest = difflib.get_close_matches(feature, PROMPTS, n=1, cutoff=0.0)[0]
        expected = f"one of {', '.join(PROMPTS)}"
        raise InputError("question", got=repr(feature), expected=expected, hint=f"the nearest is '{nearest}'")
    return {name: sentences.of(style, plain=plain) for name, sentences in PROMPTS[feature].items()}


def prompts_of_words(
    words: Sequence[str],
    style: Style = "templates",
    *,
    plain: bool = False,
    among: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Word, ...]:
    """Turn words that a user typed into prompts.

    A known class, any spelling or synonym of it, becomes that class against the others of its feature; a margin, which
    excludes no other, and a thing stand against their absence; anything else is free text against its absence. ``no``,
    ``not``, ``without`` and ``non-`` before a word ask for its opposite; where a class has several, for all in one.

    Args:
        words: Each a word or a short phrase.
        style: As for :func:`prompts_of`; free text has one sentence in ``compat``.
        plain: As for :func:`prompts_of`.
        among: For some questions, the classes that are compared, where the word is one of them: those that a network
            was trained to tell apart.

    Returns:
        One for each word, in order.

    Raises:
        InputError: A word is empty or longer than 200 characters.

    Example:
        >>> [(word.question, word.name) for word in prompts_of_words(["part-solid", "spiculated", "no cavitation"])]
        [('consistency', 'Part-solid'), ('margins=Spiculated', 'Present'), ('cavitation', 'Absent')]
    """
    return tuple(_word(word, style, plain, among or {}) for word in words)


def _word(asked: str, style: Style, plain: bool, among: Mapping[str, Sequence[str]]) -> Word:
    text = " ".join(asked.split()).rstrip(".")
    if not re.search(r"\w", text) or len(text) > _LONGEST:
        raise InputError("word to look for", got=repr(asked[:_LONGEST]), expected=f"1 to {_LONGEST} characters")
    found, negated = _VOCABULARY.get(_key(text)), _NEGATION.match(text)
    bare = text if found or not negated else text[negated.end() :]
    found = found or _VOCABULARY.get(_key(bare))
    if found is None:
        return _free(bare, asked, style, plain, negated=bare != text)
    sentences = prompts_of(found[0], style, plain=plain)
    name, kept = found[1], among.get(found[0], ())
    if name in kept:
        sentences = {other: sentences[other] for other in kept}
    if bare != text:
        name, sentences = _opposite(name, sentences)
    return Word(asked, found[0], name, MappingProxyType(sentences))


def _opposite(name: str, sentences: dict[str, tuple[str, ...]]) -> tuple[str, dict[str, tuple[str, ...]]]:
    """The other class of two; of more, all the others in one class."""
    others = [other for other in sentences if other != name]
    if len(others) == 1:
        return others[0], sentences
    together = tuple(sentence for other in others for sentence in sentences[other])
    return f"not {name}", {name: sentences[name], f"not {name}": together}


def _free(text: str, asked: str, style: Style, plain: bool, *, negated: bool) -> Word:
    present = ClassPrompts(
        (f"There is {text}.",),
        (f"There is a lung nodule with {text}.", f"CT shows {text}.", f"{capital(text)}."),
    )
    absent = ClassPrompts(
        (NO_FINDINGS,), (f"There is a lung nodule without {text}.", f"CT shows no {text}.", f"No {text}.")
    )
    sentences = {name: each.of(style, plain=plain) for name, each in (("Present", present), ("Absent", absent))}
    close = difflib.get_close_matches(_key(text), _VOCABULARY, n=1, cutoff=0.8)
    name = "Absent" if negated else "Present"
    return Word(asked, None, name, MappingProxyType(sentences), close[0] if close else None)


_LONGEST = 200
_NEGATION = re.compile(r"(?:no evidence of|no|not|without|absent|non)[ -]+(?=\w)", re.IGNORECASE)

_OTHER_WORDS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "spiculation": ("margins=Spiculated", "Present"), "lobulation": ("margins=Lobulated", "Present"),
    "notching": ("margins=Notched", "Present"), "ggo": ("consistency", "Pure ground glass"),
    "ground glass opacity": ("consistency", "Pure ground glass"), "ggn": ("consistency", "Pure ground glass"),
    "non solid": ("consistency", "Pure ground glass"), "subsolid": ("consistency", "Part-solid"),
    "sharp margin": ("conspicuity", "Well marginated"), "well defined": ("conspicuity", "Well marginated"),
    "poorly defined": ("conspicuity", "Poorly marginated"), "calcified": ("calcification", "Present"),
    "necrotic": ("necrosis", "Present"), "cavitary": ("cavitation", "Present"), "cavity": ("cavitation", "Present"),
    "cavitated": ("cavitation", "Present"), "cystic": ("cyst_like_spaces", "Present"),
    "cyst": ("cyst_like_spaces", "Present"), "bronchiectasis": ("bronchiectasis", "Present"),
    "pleural tag": ("pleural_retraction", "Present"), "reticulation": ("reticulation", "Present"),
    "suspicious": ("suspicion", "High"), "malignant": ("suspicion", "High"), "high suspicion": ("suspicion", "High"),
    "benign": ("suspicion", "Very Low"), "obvious": ("subtlety", "Obvious"), "subtle": ("subtlety", "Subtle"),
    "faint": ("subtlety", "Subtle"),
})  # fmt: skip


def _key(text: str) -> str:
    key = " ".join(re.sub(r"[-_/]", " ", text.lower()).split())
    return re.sub(r"^an? ", "", re.sub(r" (?:nodule|margins?|shape|consistency)$", "", key)) or key


def _question(name: str, word: str) -> tuple[str, str]:
    return (f"margins={word}", "Present") if name == "margins" else (name, word)


def _vocabulary() -> dict[str, tuple[str, str]]:
    known: dict[str, tuple[str, str]] = {}
    for name, feature in FEATURES.items():
        if feature.kind in ("choice", "several"):
            known |= {_key(word): _question(name, word) for word in feature.classes}
            known |= {_key(other): _question(name, word) for other, word in feature.aliases.items()}
        elif feature.kind == "presence":
            known[_key(feature.title)] = (name, "Present")
        elif feature.kind == "scale":
            known |= {_key(f"{word} suspicion"): (name, word) for word in feature.classes}
    for name in PROMPTS:
        if name in THINGS:
            known |= {_key(noun): (name, "Present") for noun in THINGS[name].nouns}
    for group in GROUPS:
        owner = next((known[_key(word)] for word in group if _key(word) in known), None)
        if owner:
            known |= {_key(word): owner for word in group}
    return known | {_key(word): owner for word, owner in _OTHER_WORDS.items()}


_VOCABULARY = _vocabulary()
