"""What prompts say of a nodule that the networks of images and words have seen, beside what the traits say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from spicula.classifiers.semantic import Seen, SemanticModel, read
from spicula.core.errors import InputError
from spicula.core.prediction import Prediction
from spicula.core.words import Answer, Words, disagree
from spicula.explain.lidc_classes import ASKED, QUESTION_OF_TRAIT
from spicula.explain.prompts import Style, Word, prompts_of, prompts_of_words
from spicula.explain.zero_shot import ZeroShot, mean_zero_shot, zero_shot
from spicula.transforms.nine_planes import NAMES

TRAIT_OF_QUESTION: Mapping[str, tuple[str, str]] = MappingProxyType(
    {question: (trait, name) for trait, (question, name) in QUESTION_OF_TRAIT.items()}
)
"""Question to the trait that says the same of one of its classes, and that class."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """Something to ask of nodules, its sentences read by every network.

    Args:
        word: What is asked and compared; ``asked`` is empty for a question that is always asked.
        texts: Class to float64 ``[networks, sentences, width]``.
    """

    word: Word
    texts: Mapping[str, Array]

    @property
    def learned(self) -> bool:
        """Whether the networks were trained on texts that say it: the question and the class are LIDC's."""
        return is_learned(self.word)


def is_learned(word: Word) -> bool:
    """Whether a word, and all it is compared with, is what LIDC readers rate: texts for training said that."""
    asked = ASKED.get(word.question or "", ())
    return set(word.prompts) <= {*asked, *(f"not {name}" for name in asked)}


def _standard_words(style: Style) -> list[Word]:
    words = []
    for question, classes in ASKED.items():
        _, name = TRAIT_OF_QUESTION.get(question, ("", "Present"))
        prompts = prompts_of(question, style, plain=True)
        words.append(Word("", question, name, MappingProxyType({one: prompts[one] for one in classes})))
    return words


def standard_sentences() -> tuple[str, ...]:
    """The sentences of the questions that are always asked, in both styles: a bundle keeps what they were read as."""
    words = [word for style in get_args(Style) for word in _standard_words(style)]
    return tuple(_sentences(words))


def _sentences(words: Sequence[Word]) -> dict[str, None]:
    """Each sentence once, in order."""
    return dict.fromkeys(sentence for word in words for some in word.prompts.values() for sentence in some)


@lru_cache(maxsize=8)
def standard_questions(model: SemanticModel, style: Style = "templates") -> tuple[Question, ...]:
    """The questions that are always asked, those of :data:`ASKED`; their sentences are read once in a process.

    Args:
        model: Whose text sides read them.
        style: Of the prompts.
    """
    return _read_all(_standard_words(style), model)


def questions_of_words(
    words: Sequence[str], *, model: SemanticModel, style: Style = "templates"
) -> tuple[Question, ...]:
    """Questions for the words of a user.

    A word that LIDC readers rate is compared with the classes that they tell apart, as the question that is always
    asked; any other as :func:`spicula.explain.prompts.prompts_of_words` says.

    Args:
        words: Each a word or a short phrase; one that comes again is asked once.
        model: Whose text sides read them.
        style: Of the prompts.

    Raises:
        InputError: A word is empty or too long.
    """
    for word in words:
        if not word.isprintable():
            raise InputError("word to look for", got=ascii(word[:80]), expected="letters, digits and signs on one line")
    found = prompts_of_words(list(dict.fromkeys(words)), style, plain=True, among=ASKED)
    return _read_all(found, model) if found else ()


def _read_all(words: Sequence[Word], model: SemanticModel) -> tuple[Question, ...]:
    """Read the sentences of all words in one batch, each once."""
    sentences = list(_sentences(words))
    place = {sentence: row for row, sentence in enumerate(sentences)}
    embeddings = read(sentences, model=model)
    return tuple(
        Question(
            word,
            MappingProxyType({name: embeddings[:, [place[s] for s in some]] for name, some in word.prompts.items()}),
        )
        for word in words
    )


def answer_questions(
    seen: Seen,
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
    *,
    model: SemanticModel,
    finding_id: str,
    style: Style = "templates",
) -> Words:
    """Ask of one nodule, and set the answers beside its traits.

    Args:
        seen: How the networks see it.
        questions: From :func:`standard_questions` and :func:`questions_of_words`.
        predictions: Of the supervised model, of this finding.
        model: The same model.
        finding_id: Which finding.
        style: Of the prompts in ``questions``, kept with the answers.
    """
    traits = {prediction.target: prediction for prediction in predictions}
    answers = tuple(_answer(seen, question, traits, model) for question in questions)
    attention = dict(zip(NAMES, seen.attention.mean(axis=0).tolist(), strict=True))
    return Words(finding_id, model.fingerprint, answers, MappingProxyType(attention), style)


def _answer(seen: Seen, question: Question, traits: Mapping[str, Prediction], model: SemanticModel) -> Answer:
    word = question.word
    parts = [
        zero_shot(image, {name: rows[member] for name, rows in question.texts.items()}, temperature=temperature)
        for member, (image, temperature) in enumerate(zip(seen.embedding, model.temperatures, strict=True))
    ]
    found = mean_zero_shot(parts)
    trait, of_trait = TRAIT_OF_QUESTION.get(word.question or "", ("", ""))
    beside = traits.get(trait) if of_trait in found.classes else None
    return Answer(
        asked=word.asked,
        question=word.question,
        name=word.name,
        classes=found.classes,
        probabilities=tuple(found.probability[0].tolist()),
        similarities=tuple(found.similarity[0].tolist()),
        spread=_spread(parts, word.name),
        learned=question.learned,
        nearest=word.nearest,
        trait=beside.target if beside else None,
        trait_class=of_trait if beside else None,
        trait_probability=beside.probability if beside else None,
        disagrees=beside is not None and disagree(beside, float(found.of(of_trait)[0]), _spread(parts, of_trait)),
    )


def _spread(parts: Sequence[ZeroShot], name: str) -> tuple[float, float]:
    """Lowest and highest probability that a network gives to a class."""
    each = [float(part.of(name)[0]) for part in parts]
    return min(each), max(each)
