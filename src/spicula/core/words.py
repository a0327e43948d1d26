"""What a model that aligns images with words says of a finding, and when it speaks against a trait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from spicula.core.errors import InputError
from spicula.core.prediction import Prediction

CLEAR = 0.75
"""Share from which on an answer is clear; see :func:`disagree`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question about one finding, by comparing its image with sentences: zero-shot.

    The probabilities are shares: how much better the sentences of a class fit than those of the others. They rank, but
    nobody calibrated them.

    Args:
        asked: The word as a user wrote it; empty for a question that is always asked.
        question: Key of :data:`spicula.explain.prompts.PROMPTS`; None for free text.
        name: The class that was asked for.
        classes: ``[k]`` names of the classes that were compared.
        probabilities: ``[k]`` mean over the networks of an ensemble; adds up to 1.
        similarities: ``[k]`` cosines of image and sentences, -1 to 1, mean over the networks.
        spread: Lowest and highest probability of ``name`` that any network has.
        learned: Whether the networks were trained on texts with these words.
        nearest: For free text, the known word that is spelled most alike.
        trait: Target of the supervised model that says the same of one class; None where there is none.
        trait_class: That class.
        trait_probability: What the supervised model says, 0 to 1.
        disagrees: Whether both clearly say the opposite, see :func:`disagree`.
    """

    asked: str
    question: str | None
    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    similarities: tuple[float, ...]
    spread: tuple[float, float]
    learned: bool
    nearest: str | None = None
    trait: str | None = None
    trait_class: str | None = None
    trait_probability: float | None = None
    disagrees: bool = False

    @property
    def probability(self) -> float:
        """Of the class that was asked for."""
        return self.of(self.name)

    @property
    def similarity(self) -> float:
        """Of the class that was asked for."""
        return self.similarities[self._index(self.name)]

    def of(self, name: str) -> float:
        """Probability of one class.

        Raises:
            InputError: It was not compared.
        """
        return self.probabilities[self._index(name)]

    def _index(self, name: str) -> int:
        if name not in self.classes:
            raise InputError("class", got=repr(name), expected=f"one of {', '.join(self.classes)}")
        return self.classes.index(name)


@dataclass(frozen=True, slots=True)
class Words:
    """All that a model of images and words says of one finding.

    Args:
        finding_id: Which finding.
        fingerprint: Identity of the model.
        answers: The questions that are always asked, then the words that a user asked for, in their order.
        attention: Plane to how much the networks looked at it, mean over them; adds up to 1.
        prompts: Style of the sentences: ``"templates"`` or ``"compat"``.
    """

    finding_id: str
    fingerprint: str
    answers: tuple[Answer, ...]
    attention: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    prompts: str = "templates"

    @property
    def standard(self) -> tuple[Answer, ...]:
        """Answers to the questions that are always asked."""
        return tuple(answer for answer in self.answers if not answer.asked)

    @property
    def requested(self) -> tuple[Answer, ...]:
        """Answers to the words of a user."""
        return tuple(answer for answer in self.answers if answer.asked)


def disagree(trait: Prediction, probability: float, spread: tuple[float, float]) -> bool:
    """Whether a supervised trait and an answer in words clearly say the opposite of one class.

    The trait is clear where its whole interval lies on one side of one half. Shares of a softmax are not calibrated, so
    the words count as clear only where their mean is :data:`CLEAR` or more for (or against) the class *and* no network
    of the ensemble is on the other side of one half.

    Args:
        trait: Of the supervised model.
        probability: Mean share of the class that the trait names, 0 to 1.
        spread: Lowest and highest share that a network gives to it.

    Returns:
        False too where the trait has no interval.

    Example:
        >>> spiculated = Prediction("1", "spiculation_present", 0.1, (0.05, 0.2), "risk@0")
        >>> disagree(spiculated, 0.8, (0.6, 0.9)), disagree(spiculated, 0.8, (0.4, 0.95))
        (True, False)
    """
    if trait.interval is None:
        return False
    low, high = trait.interval
    against = high < 0.5 and probability >= CLEAR and spread[0] > 0.5
    favor = low > 0.5 and probability <= 1.0 - CLEAR and spread[1] < 0.5
    return against or favor
