"""Which words an image is nearest to, set beside what the supervised traits say.

References:
    Zhuang et al. 2025, arXiv 2504.21344, section 3.4 (zero-shot). Departures: several sentences a class; an ensemble's
    probabilities are averaged; classes that no reader of the training data could name are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from spicula.classifiers import semantic
from spicula.classifiers.semantic import Array, Seen, SemanticModel
from spicula.core.analysis import Answer
from spicula.core.errors import InputError
from spicula.core.prediction import Prediction
from spicula.explain.lidc_classes import LIDC_CUTS, QUESTION_OF_TRAIT
from spicula.explain.prompts import Style, Word, prompts_of, prompts_of_words
from spicula.explain.zero_shot import mean_zero_shot, zero_shot

CLEARLY = 0.25
"""How near to 0 or 1 the words' probability lies where it clearly holds against a trait."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an image is compared with: sentences by class, of which one is asked for.

    Args:
        asked: The user's word, or the name of a trait.
        question: Key of the prompts; None for free text.
        name: The class that is asked for.
        prompts: Sentences by class.
        learned: Whether readers' ratings of it were learned.
        nearest: The known word that free text is spelled most like.
    """

    asked: str
    question: str | None
    name: str
    prompts: Mapping[str, tuple[str, ...]]
    learned: bool
    nearest: str = ""


def trait_answers(
    seen: Seen, finding_id: str, predictions: Mapping[str, Prediction], *, model: SemanticModel
) -> tuple[Answer, ...]:
    """What words say of each supervised trait, in the order of the traits.

    Args:
        seen: The finding's image.
        finding_id: Which finding.
        predictions: Of the finding, by target.
        model: What saw it.
    """
    return answers(seen, words_of_traits(), finding_id, predictions, model=model)


def disagree(trait: Prediction, words: float) -> bool:
    """Whether words clearly say the opposite of a trait.

    They do where the trait's whole interval lies on one side of one half and the words' probability of the same class
    within :data:`CLEARLY` of the other end.

    Example:
        >>> trait = Prediction("1", "spiculation_present", 0.8, (0.6, 0.9), "")
        >>> disagree(trait, 0.1), disagree(trait, 0.4)
        (True, False)
    """
    low, high = trait.interval or (trait.probability, trait.probability)
    return (low > 0.5 and words <= CLEARLY) or (high < 0.5 and words >= 1.0 - CLEARLY)


@lru_cache(maxsize=1)
def words_of_traits() -> tuple[Asked, ...]:
    """What stands beside the supervised traits, in their order."""
    asked = []
    for trait, (question, name) in QUESTION_OF_TRAIT.items():
        prompts = prompts_of(question, plain=True)
        asked.append(Asked(trait, question, name, _learned_only(question, prompts), learned=True))
    return tuple(asked)


def words_of_user(words: Sequence[str], style: Style = "templates") -> tuple[Asked, ...]:
    """What a user's words are compared with.

    Raises:
        InputError: None, or one that is empty or too long.
    """
    if not words:
        raise InputError("words", got="none", expected="one or more", hint='--words "part-solid"')
    return tuple(_of_word(word) for word in prompts_of_words(words, style, plain=True))


def _of_word(word: Word) -> Asked:
    learned = word.question is not None and word.name in _classes(word.question)
    prompts = _learned_only(word.question or "", word.prompts) if learned else word.prompts
    return Asked(word.asked, word.question, word.name, prompts, learned, word.nearest or "")


def _classes(question: str) -> frozenset[str]:
    """The classes that readers' ratings were turned into."""
    return frozenset(name for cut in LIDC_CUTS.values() if question in cut for name in cut[question].classes)


def _learned_only(question: str, prompts: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    known = _classes(question)
    return {name: sentences for name, sentences in prompts.items() if name in known}


def answers(
    seen: Seen, asked: Sequence[Asked], finding_id: str, predictions: Mapping[str, Prediction], *, model: SemanticModel
) -> tuple[Answer, ...]:
    """Answers about one finding.

    Args:
        seen: The finding's image.
        asked: What is asked.
        finding_id: Which finding.
        predictions: Of the finding, by target.
        model: What saw it.
    """
    return tuple(_answer(seen, one, finding_id, predictions, model=model) for one in asked)


def _answer(
    seen: Seen, asked: Asked, finding_id: str, predictions: Mapping[str, Prediction], *, model: SemanticModel
) -> Answer:
    texts = {name: _read(sentences, model) for name, sentences in asked.prompts.items()}
    found = mean_zero_shot(
        [
            zero_shot(image, {name: of_members[member] for name, of_members in texts.items()}, temperature=temperature)
            for member, (image, temperature) in enumerate(zip(seen.embedding, model.temperatures, strict=True))
        ]
    )
    trait, told, against = _beside(asked, predictions, float(found.of(asked.name)[0]))
    return Answer(
        finding_id, asked.asked, asked.question, asked.name, found.classes, tuple(found.probability[0].tolist()),
        tuple(found.similarity[0].tolist()), model.fingerprint, asked.learned, trait, told, against, asked.nearest,
    )  # fmt: skip


def _beside(asked: Asked, predictions: Mapping[str, Prediction], words: float) -> tuple[str, float | None, bool]:
    """The trait that says the same or, of two classes, the opposite; what it says of the class; whether they clash."""
    for trait, (question, name) in QUESTION_OF_TRAIT.items():
        prediction = predictions.get(trait)
        if question != asked.question or prediction is None:
            continue
        if name == asked.name:
            return trait, prediction.probability, disagree(prediction, words)
        if len(asked.prompts) == 2:
            return trait, 1.0 - prediction.probability, disagree(prediction, 1.0 - words)
    return "", None, False


_KEPT: dict[tuple[str, tuple[str, ...]], Array] = {}


def _read(sentences: tuple[str, ...], model: SemanticModel) -> Array:
    """Embeddings ``[members, n, width]`` of sentences, read once by each model."""
    key = (model.fingerprint, sentences)
    if key not in _KEPT:
        if len(_KEPT) > 500:
            _KEPT.clear()
        _KEPT[key] = semantic.read(sentences, model=model)
    return _KEPT[key]
