"""What one scan gave: findings, predictions, assessments, and with what it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from spicula.core.finding import Finding
from spicula.core.prediction import Prediction
from spicula.core.volume import Volume


@dataclass(frozen=True, slots=True)
class Assessment:
    """A category of a clinical guideline, honest about what it was not given.

    Args:
        system: ``"Lung-RADS 2022"`` or ``"Fleischner 2017"``.
        category: For example ``"4A"``.
        management: What the guideline advises.
        given: The facts it rests on, each a short phrase with its unit.
        lacking: The facts that it would need and did not have (prior scan, risk factors ...).
    """

    system: str
    category: str
    management: str
    given: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Which words the image of a finding is nearest to: no network was trained to give this answer.

    Args:
        finding_id: Which finding.
        asked: What was asked: the user's word, or the name of a trait.
        question: Key of the prompts; None for free text.
        name: The class that was asked for, among ``classes``.
        classes: What the image was compared with.
        probabilities: Of each class: a softmax of the similarities, not calibrated; they add up to 1.
        similarities: Cosines of image and sentences, -1 to 1.
        fingerprint: Identity of what made it.
        learned: Whether readers' ratings of this were among the words that were learned.
        trait: The supervised trait that says the same, and empty where there is none.
        trait_probability: What that trait says of ``name``.
        disagrees: Whether the two clearly say the opposite, see :func:`spicula.pipelines.explain.disagree`.
        nearest: The known word that free text is spelled most like; empty where none is near.
    """

    finding_id: str
    asked: str
    question: str | None
    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    similarities: tuple[float, ...]
    fingerprint: str
    learned: bool = True
    trait: str = ""
    trait_probability: float | None = None
    disagrees: bool = False
    nearest: str = ""

    @property
    def probability(self) -> float:
        """Of the class that was asked for."""
        return self.probabilities[self.classes.index(self.name)]


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """All that Spicula says of one scan.

    Args:
        volume: The scan.
        findings: Ordered, the most suspicious first.
        predictions: Of all findings; find one with :meth:`predictions_of`.
        assessments: By finding id, the guidelines' categories.
        fingerprints: Of the bundles that were used.
        warnings: What a reader of the results must know, each a sentence.
        answers: Of all findings, what their images are most like in words: the traits' words first, in the order of
            the traits, then words that a user asked for.
    """

    volume: Volume
    findings: tuple[Finding, ...]
    predictions: tuple[Prediction, ...] = ()
    assessments: Mapping[str, tuple[Assessment, ...]] = field(default_factory=lambda: MappingProxyType({}))
    fingerprints: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()

    def predictions_of(self, finding_id: str) -> dict[str, Prediction]:
        """The predictions of one finding by target (``"malignancy"``, ``"spiculation_present"`` ...)."""
        return {p.target: p for p in self.predictions if p.finding_id == finding_id}

    def answers_of(self, finding_id: str) -> tuple[Answer, ...]:
        """The answers of one finding."""
        return tuple(answer for answer in self.answers if answer.finding_id == finding_id)
