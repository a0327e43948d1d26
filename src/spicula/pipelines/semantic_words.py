"""The words that a nodule is trained with, and which other nodules the same words would fit.

A text says all that was read of a nodule or a part of it, in one of both cuts. Where it would fit other nodules of the
batch as well, they are no negatives: a text that says "solid" alone fits all that are solid.

References:
    Zhuang et al. 2025, arXiv 2504.21344, sections 3.2 and 3.3. Departures: texts that say a part of what was read, so
    that the prompts' single statements are not foreign to the text tower; what one reader said instead of the median
    in some texts; the targets of InfoNCE are spread over all that the words fit, where the paper has the diagonal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from spicula.core.semantics import PRESENCE, SemanticFeatures
from spicula.datasets.lidc_nodules import TRAITS
from spicula.explain.lidc_classes import LIDC_CUTS, CutName, lidc_class, lidc_features, lidc_traits
from spicula.explain.prompts import PROMPTS, prompts_of
from spicula.explain.report_text import training_text
from spicula.networks.clip_tokens import CONTEXT, WordTokenizer, train_tokenizer

CUTS: tuple[CutName, ...] = ("score", "nlst")
QUESTIONS = (
    "conspicuity",
    "consistency",
    "shape",
    "margins=Lobulated",
    "margins=Spiculated",
    "calcification",
    "subtlety",
    "eccentric_calcification",
    "cyst_like_spaces",
)
"""What a text may say of a nodule."""

UNSAID = -1
_BESIDE = {"calcification": "calcification_present", "subtlety": "subtlety_obvious"}
"""Questions that are no features but traits, which both cuts share."""

Codes = NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """A text and what it says.

    Args:
        text: As the text tower is trained on it.
        cut: Which way the ratings were cut.
        said: int8 ``[questions]``, position of the class, or -1 where the text does not say it.
    """

    text: str
    cut: CutName
    said: Codes


@dataclass(frozen=True, slots=True)
class Wording:
    """How texts are drawn.

    Args:
        whole: Share of texts that say everything; each of the others keeps statements at random.
        kept: Share of statements that such a text keeps, at least one; of answers more frequent than others to the
            same question, fewer, so that "no calcification" is not what the word comes to mean.
        one_reader: Share of texts that say what one reader said, not the median.
        nlst: Share of texts in the cut of the NLST readings.
        augment: Whether synonyms are put in and a few words left out.
    """

    whole: float = 0.25
    kept: float = 0.5
    one_reader: float = 0.4
    nlst: float = 0.4
    augment: bool = True


def answer_codes(medians: Mapping[str, float], cut: CutName) -> Codes:
    """What the readers answered to :data:`QUESTIONS`, as positions of the classes.

    Example:
        >>> answer_codes({"texture": 5, "spiculation": 1, "calcification": 6}, "score").tolist()
        [-1, 0, -1, -1, 0, 0, -1, -1, -1]
    """
    codes = np.full(len(QUESTIONS), UNSAID, dtype=np.int8)
    for place, question in enumerate(QUESTIONS):
        way: CutName = "score" if question in _BESIDE else cut
        answer = lidc_class(question, medians, cut=way) if question in LIDC_CUTS[way] else None
        if answer is not None:
            codes[place] = _classes(question).index(answer)
    return codes


def _classes(question: str) -> tuple[str, ...]:
    classes = tuple(PROMPTS[question])
    return PRESENCE if set(classes) == set(PRESENCE) else classes


_PRESENCES = np.array([_classes(question) == PRESENCE for question in QUESTIONS])
_SUBTLE = np.array([tuple(PROMPTS[q]).index("Subtle") if q == "subtlety" else 99 for q in QUESTIONS])


def all_codes(medians: Sequence[Mapping[str, float]]) -> dict[CutName, Codes]:
    """:func:`answer_codes` of all nodules under both cuts, ``[n, questions]`` each."""
    return {cut: np.stack([answer_codes(one, cut) for one in medians]) for cut in CUTS}


def draw_statement(
    medians: Mapping[str, float],
    readings: NDArray[np.int8],
    wording: Wording,
    rng: np.random.Generator,
    *,
    traits: Sequence[str] = TRAITS,
    scarce: Mapping[CutName, NDArray[np.float64]] | None = None,
) -> Statement:
    """Draw one text of a nodule.

    Args:
        medians: Its median ratings.
        readings: ``[readers, traits]`` of its readers.
        wording: How.
        rng: Source of chance.
        traits: Names of the columns of ``readings``.
        scarce: From :func:`scarcity`; all answers alike if omitted.

    Returns:
        The text and what it says; in an impression, what is absent or subtle is not said.
    """
    cut: CutName = "nlst" if rng.random() < wording.nlst else "score"
    single, reader = rng.random() < wording.one_reader, int(rng.integers(len(readings)))
    ratings = dict(zip(traits, readings[reader].astype(float).tolist(), strict=True)) if single else medians
    codes = answer_codes(ratings, cut)
    weight = np.ones(len(QUESTIONS)) if scarce is None else scarce[cut][np.arange(len(QUESTIONS)), codes]
    weight = np.where(codes == UNSAID, 0.0, weight)
    keep = (rng.random() < wording.whole) | (rng.random(len(QUESTIONS)) < wording.kept * weight)
    keep[int(rng.choice(len(QUESTIONS), p=weight / weight.sum()))] = True
    codes = np.where(keep, codes, np.int8(UNSAID))
    part = "findings" if rng.random() < 0.5 else "impression"
    features, beside = _said(ratings, cut, keep)
    text = training_text(features, rng=rng, part=part, augment=wording.augment, traits=beside)  # type: ignore[arg-type]
    if part == "impression":
        absent = (_PRESENCES & (codes == 0)) | (codes == _SUBTLE)
        codes = np.where(absent, np.int8(UNSAID), codes)
    return Statement(text, cut, codes)


def scarcity(codes: Mapping[CutName, Codes]) -> dict[CutName, NDArray[np.float64]]:
    """How scarce each answer is: 1 for a question's scarcest, less for others in proportion to their number.

    Args:
        codes: ``[n, questions]`` of the nodules to learn from, by cut.

    Returns:
        By cut ``[questions, 5]``, by position of the class; 1 where none has the answer.
    """
    found: dict[CutName, NDArray[np.float64]] = {}
    for cut, some in codes.items():
        counts = np.stack([np.bincount(column[column >= 0], minlength=5)[:5] for column in some.T]).astype(float)
        least = np.where(counts > 0, counts, np.inf).min(axis=1, keepdims=True)
        found[cut] = np.where(counts > 0, np.where(np.isfinite(least), least, 1.0) / np.maximum(counts, 1.0), 1.0)
        found[cut] = np.maximum(found[cut], 0.05)
    return found


def whole_text(medians: Mapping[str, float], *, seed: int, cut: CutName = "score") -> str:
    """All that was read of a nodule, findings, not varied: what an image has to find in a search for its text."""
    everything = np.ones(len(QUESTIONS), dtype=np.bool_)
    features, beside = _said(medians, cut, everything)
    return training_text(features, rng=np.random.default_rng(seed), part="findings", augment=False, traits=beside)


def _said(
    ratings: Mapping[str, float], cut: CutName, keep: NDArray[np.bool_]
) -> tuple[SemanticFeatures, dict[str, bool]]:
    """The record and the traits beside it, without what is not kept."""
    wanted = {question for question, kept in zip(QUESTIONS, keep.tolist(), strict=True) if kept}
    full = lidc_features(ratings, cut=cut)
    margins = {word: holds for word, holds in full.margins.items() if f"margins={word}" in wanted}
    dropped = {name: None for name in QUESTIONS if "=" not in name and name not in _BESIDE and name not in wanted}
    features = replace(full, margins=MappingProxyType(margins), **dropped)
    traits = lidc_traits(ratings)
    return features, {_BESIDE[name]: traits[_BESIDE[name]] for name in _BESIDE if name in wanted}


def fits(statements: Sequence[Statement], codes: Mapping[CutName, Codes]) -> NDArray[np.bool_]:
    """Whether each text fits each nodule of its batch.

    Args:
        statements: ``n`` texts, the i-th of the i-th nodule.
        codes: ``[n, questions]`` answers of the same nodules, by cut.

    Returns:
        bool ``[n, n]``, nodules by texts; the diagonal is True.
    """
    said = np.stack([one.said for one in statements])
    found = np.zeros((len(said), len(said)), dtype=np.bool_)
    for cut in CUTS:
        texts = np.array([one.cut == cut for one in statements])
        same = codes[cut][:, None, :] == said[None, texts]
        found[:, texts] = (same | (said[None, texts] == UNSAID)).all(axis=2)
    np.fill_diagonal(found, True)
    return found


def rarity(codes: Codes, *, power: float) -> NDArray[np.float64]:
    """How often to draw each nodule: those with rare answers more often.

    Args:
        codes: ``[n, questions]`` of the nodules to draw from.
        power: 0 draws all alike; 1 gives all classes of a question alike a share.

    Returns:
        ``[n]``, of sum 1: the mean over the questions of ``(1 / share of the answer) ** power``.

    Example:
        >>> rarity(np.array([[0], [0], [0], [1]]), power=1.0).round(2).tolist()
        [0.17, 0.17, 0.17, 0.5]
    """
    weight = np.zeros(len(codes))
    for column in np.asarray(codes).T:
        _, place, count = np.unique(column, return_inverse=True, return_counts=True)
        weight += (len(column) / count[place.reshape(-1)]) ** power
    return np.asarray(weight / weight.sum())


def word_tokenizer(*, vocabulary: int = 512, seed: int = 0) -> WordTokenizer:
    """A tokenizer of all prompts and of texts of made-up ratings: it has seen no patient."""
    rng = np.random.default_rng(seed)
    texts = [
        sentence
        for question in PROMPTS
        for style in ("compat", "templates")
        for some in prompts_of(question, style, plain=True).values()
        for sentence in some
    ]
    wording = Wording(one_reader=0.0)
    for _ in range(1500):
        ratings = {name: float(rng.integers(1, 7 if name == "calcification" else 5)) for name in TRAITS}
        texts.append(draw_statement(ratings, np.zeros((1, len(TRAITS)), np.int8), wording, rng).text)
    return train_tokenizer(texts, vocabulary=vocabulary, context=CONTEXT)
