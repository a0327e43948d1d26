"""How well words found in images agree with what readers said: the published areas under the curve.

References:
    arXiv 2504.21344, section 3.4: the area of each class against the rest, weighed by how often the class holds, for
    features of several classes; the plain area for those that are present or absent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.semantics import FEATURES, PRESENCE, SemanticFeatures
from spicula.explain.zero_shot import ZeroShot
from spicula.metrics.classification import auroc


@dataclass(frozen=True, slots=True, eq=False)
class ZeroShotAuroc:
    """Agreement on one question.

    Args:
        classes: ``[k]``.
        auroc: float64 ``[k]`` of each class against the rest; NaN where it holds for no or for every row.
        rows: ``[k]`` rows for which each class holds; margins may hold together.
        judged: Rows that have an answer; the others are left out.
    """

    classes: tuple[str, ...]
    auroc: NDArray[np.float64]
    rows: NDArray[np.intp]
    judged: int

    @property
    def published(self) -> float:
        """The area as the paper reports it, NaN where no class can be told from the rest.

        Of presence where the classes are present and absent; else the mean over the classes weighed by their rows.
        """
        if set(self.classes) == set(PRESENCE):
            return float(self.auroc[self.classes.index("Present")])
        told = np.isfinite(self.auroc)
        return float(np.average(self.auroc[told], weights=self.rows[told])) if told.any() else float("nan")


def answers_of(features: SemanticFeatures, question: str) -> tuple[str, ...] | None:
    """The classes that hold for a nodule, for a question of :data:`spicula.explain.prompts.PROMPTS`.

    Args:
        features: What was read.
        question: Name of a feature, or ``margins=Spiculated`` for one margin against its absence.

    Returns:
        Class names; None where it was not read.

    Raises:
        InputError: No feature answers the question.

    Example:
        >>> answers_of(SemanticFeatures(margins={"Spiculated": False}), "margins=Spiculated")
        ('Absent',)
    """
    name, _, word = question.partition("=")
    if name not in FEATURES or FEATURES[name].kind == "length" or (word and word not in FEATURES["margins"].classes):
        raise InputError("question to the readers", got=repr(question), expected="a feature with classes")
    if word:
        return None if word not in features.margins else (PRESENCE[bool(features.margins[word])],)
    return features.words(name) or None


def zero_shot_auroc(found: ZeroShot, answers: Sequence[Collection[str] | None]) -> ZeroShotAuroc:
    """Set what was found beside what readers said.

    Args:
        found: Of ``n`` images.
        answers: ``[n]`` classes that hold; None where the readers gave no answer.

    Returns:
        The areas.

    Raises:
        InputError: Another number of answers, or one that is not among the classes.
    """
    if len(answers) != len(found.probability):
        raise InputError("answers", got=len(answers), expected=f"{len(found.probability)}, one an image")
    foreign = sorted({name for answer in answers for name in answer or ()} - set(found.classes))
    if foreign:
        raise InputError("answer", got=repr(foreign[0]), expected=f"one of {', '.join(found.classes)}")
    judged = np.array([answer is not None for answer in answers], dtype=bool)
    holds = np.array([[name in (answer or ()) for name in found.classes] for answer in answers]).reshape(
        -1, len(found.classes)
    )[judged]
    scores = found.probability[judged]
    areas = [
        float(auroc(truth, score)) if truth.any() and not truth.all() else float("nan")
        for truth, score in zip(holds.T, scores.T, strict=True)
    ]
    return ZeroShotAuroc(found.classes, np.array(areas), holds.sum(axis=0), int(judged.sum()))
