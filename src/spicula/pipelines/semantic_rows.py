"""The semantic-only row of the CLIP_nodule paper, on the real readings of LIDC-IDRI.

The paper's row learns a diagnosis within one year from 19 features that NLST's readers described; ours a malignancy
that LIDC's readers rated themselves, from the traits that the same readers rated. It is the same model on another task,
and an easier one: the table says so on every row. Nearest to the paper's question are the rows against the diagnosis of
the patient, which LIDC-IDRI has for some: models that learned from ratings, judged by pathology or follow-up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from spicula.core.errors import InputError
from spicula.datasets.lidc_nodules import TEST_PATIENT
from spicula.datasets.lidc_to_nlst import nlst_features
from spicula.datasets.lidc_xml import TRAITS as RATED_TRAITS
from spicula.metrics.bootstrap import Difference, Interval, bootstrap_difference, bootstrap_interval
from spicula.metrics.classification import FloatArray, auprc, auroc
from spicula.metrics.patients import deal_folds, patient_maximum
from spicula.papers import Paper, Published
from spicula.pipelines import semantic_only
from spicula.pipelines.evaluation_figures import Scored
from spicula.pipelines.paper_rows import Compared, Ours, Ran

TRAITS = tuple(trait for trait in RATED_TRAITS if trait != "malignancy")
"""The readers' ratings that are learned from; the rating of malignancy is the label."""

UNDECIDED = 3.0
"""Median rating of malignancy that is neither: such nodules are neither learned from nor judged."""

LEFT_OUT = frozenset({TEST_PATIENT})
"""Test patients everywhere: never learned from, and so not in these folds either."""

DIAGNOSED: Mapping[float, bool] = {1.0: False, 2.0: True, 3.0: True}
"""``patient_diagnosis``: benign, primary cancer, metastasis; 0 is unknown."""

Rated: TypeAlias = tuple[str, Mapping[str, float], float | None]
"""Patient of a nodule; its median ratings and, where known, ``patient_diagnosis``; its diameter in mm where known."""

FEWEST_DIAGNOSED = 20

DRAWN = ("readers' traits", "readers' traits and diameter", "diameter alone")
"""Variants that are drawn as curves, in this order."""


@dataclass(frozen=True, slots=True, eq=False)
class Nodules:
    """The rated nodules of LIDC-IDRI.

    Args:
        traits: float64 ``[n, 8]`` median ratings, in the order of :data:`TRAITS`.
        words: float64 ``[n, k]`` the same in NLST's vocabulary, 0 or 1.
        word_names: Of the columns of ``words``.
        diameter_mm: float64 ``[n]`` mean of the readers; None where no scan's pixel spacing is known.
        rating: float64 ``[n]`` median rating of the malignancy.
        diagnosis: float64 ``[n]`` of the patient: 1 cancer, 0 benign, NaN unknown.
        patients: ``[n]``.
        facts: Counts of what is there and what was left out.
    """

    traits: FloatArray
    words: FloatArray
    word_names: tuple[str, ...]
    diameter_mm: FloatArray | None
    rating: FloatArray
    diagnosis: FloatArray
    patients: NDArray[np.str_]
    facts: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """What is learned from, and by what.

    Args:
        columns: Names of the features.
        values: float64 ``[n, len(columns)]``.
        model: What learns.
    """

    columns: tuple[str, ...]
    values: FloatArray
    model: semantic_only.Model


def rated_nodules(nodules: Iterable[Rated]) -> Nodules:
    """Turn rated nodules into arrays.

    Args:
        nodules: Where some have a diameter, those without are left out; where none has, sizes are not learned from.

    Returns:
        The nodules, in their order, without those of test patients.

    Raises:
        InputError: No nodule with a decided malignancy is left.

    References:
        Zhuang et al. 2025, arXiv:2504.21344, appendix A.3 (the words).
    """
    given = list(nodules)
    whole = [each for each in given if all(trait in each[1] for trait in (*TRAITS, "malignancy"))]
    scaled = [(each, _words(each[1])) for each in whole if each[0] not in LEFT_OUT]
    kept = [each for each, words in scaled if words is not None]
    sized = [each for each in kept if each[2] is not None]
    facts = Counter({"nodules": len(given), "of test patients, left out": len(whole) - len(scaled)})
    facts.update({"with a rating outside its scale, left out": len(scaled) - len(kept)})
    facts.update({"without a rating of some trait, left out": len(given) - len(whole)})
    facts.update({"without a diameter, left out": len(kept) - len(sized) if sized else 0})
    kept = sized or kept
    rating = np.array([medians["malignancy"] for _, medians, _ in kept], dtype=np.float64)
    patients = np.array([patient for patient, _, _ in kept], dtype=np.str_)
    decided = rating != UNDECIDED
    if not decided.any():
        raise InputError("LIDC-IDRI", got=f"{len(given)} rated nodules, none decided", expected="readings")
    facts.update({"with a median malignancy of 3, left out": int((~decided).sum()), "judged": int(decided.sum())})
    facts.update({"malignant": int((rating > UNDECIDED).sum()), "patients": len(set(patients[decided].tolist()))})
    words = [_words(medians) or {} for _, medians, _ in kept]
    names = tuple(dict.fromkeys(name for each in words for name in each))
    known = [DIAGNOSED.get(medians.get("patient_diagnosis", 0.0)) for _, medians, _ in kept]
    return Nodules(
        np.array([[medians[trait] for trait in TRAITS] for _, medians, _ in kept], dtype=np.float64),
        np.array([[each.get(name, 0.0) for name in names] for each in words], dtype=np.float64),
        names,
        np.array([diameter for _, _, diameter in kept], dtype=np.float64) if sized else None,
        rating,
        np.array([np.nan if each is None else float(each) for each in known]),
        patients,
        dict(facts),
    )


def _words(medians: Mapping[str, float]) -> dict[str, float] | None:
    """The ratings in NLST's words; None where one is outside its scale (the published readings have one)."""
    try:
        return nlst_features(medians).as_truth()
    except InputError:
        return None


def variants(nodules: Nodules) -> Mapping[str, Variant]:
    """What is tried, by name; without diameters, only what needs none."""
    logistic, size = semantic_only.sparse_logistic, nodules.diameter_mm
    of_readers = {
        "readers' traits": Variant(TRAITS, nodules.traits, logistic),
        "readers' traits but subtlety": Variant(TRAITS[1:], nodules.traits[:, 1:], logistic),
        "words of NLST (table A2)": Variant(nodules.word_names, nodules.words, logistic),
    }
    if size is None:
        return of_readers
    both = Variant((*TRAITS, "diameter_mm"), np.column_stack([nodules.traits, size]), logistic)
    worded = np.column_stack([nodules.words, size])
    return {
        "diameter alone": Variant(("diameter_mm",), size[:, None], semantic_only.first_column),
        **of_readers,
        "readers' traits and diameter": both,
        "readers' traits but subtlety, and diameter": Variant(both.columns[1:], both.values[:, 1:], logistic),
        "words of NLST and diameter": Variant((*nodules.word_names, "diameter_mm"), worded, logistic),
        "readers' traits and diameter, random forest": Variant(both.columns, both.values, semantic_only.forest),
    }


def compare(nodules: Nodules, paper: Paper, *, seed: int = 0, resamples: int = 10_000) -> Ran:
    """Train and judge every variant in both protocols, beside the paper's semantic-only row.

    Args:
        nodules: What is learned from.
        paper: With the row ``S`` in table 5.
        seed: Of the splits and the bootstrap.
        resamples: Of the bootstrap over patients.

    Returns:
        Rows for each variant and metric, the split's hash, and the gain over the diameter alone.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    decided = nodules.rating != UNDECIDED
    malignant, patients = nodules.rating[decided] > UNDECIDED, nodules.patients[decided]
    fold_of = deal_folds(patients, malignant, seed=seed)
    published = {n.metric: n for n in paper.numbers if n.model.startswith("S (") and n.value is not None}
    rows: list[Compared] = []
    diagnosed: list[Compared] = []
    gains: dict[str, Any] = {}
    scored: list[Scored] = []
    for name, variant in variants(nodules).items():
        features = semantic_only.Features(variant.columns, variant.values[decided], malignant, patients)
        scorers = semantic_only.fit_folds(features, fold_of, variant.model, seed=seed)
        folds = semantic_only.cross_validated(features, fold_of, scorers, seed=seed, resamples=resamples)
        test = semantic_only.held_out(features, fold_of, variant.model, seed=seed, resamples=resamples)
        if name in DRAWN:
            score = expit(folds.score) if variant.model is semantic_only.sparse_logistic else folds.score
            scored.append(Scored(name, malignant, score, patients))
        rows += _rows(name, published, test, folds, sized=name != "diameter alone")
        fold_of_patient = dict(zip(patients.tolist(), fold_of.tolist(), strict=True))
        diagnosed += _against_diagnosis(name, nodules, variant, scorers, fold_of_patient, published, seed, resamples)
        if nodules.diameter_mm is not None and name != "diameter alone":
            size = nodules.diameter_mm[decided]
            found = bootstrap_difference(
                auroc, malignant, folds.score, size, patients, resamples=resamples, seed=seed
            )  # fmt: skip
            gains[name] = _gain(found)
    return Ran(
        (*rows, *diagnosed),
        notes=_notes(nodules),
        splits={"five folds of patients": semantic_only.split_hash(patients, fold_of)},
        facts={
            "nodules": dict(nodules.facts),
            "gain_in_auroc_over_diameter_alone": gains,
            "folds": semantic_only.FOLDS,
            "held_out_fold": 0,
            "strengths_tried": list(semantic_only.STRENGTHS),
        },
        scored=tuple(sorted(scored, key=lambda one: DRAWN.index(one.name))),
    )


def _notes(nodules: Nodules) -> tuple[str, ...]:
    return (
        "NOT THE PAPER'S DATA: the paper predicts cancer within one year in NLST, by patient; here readers of "
        "LIDC-IDRI rate the malignancy, and the same readers rate the traits, by nodule",
        f"{nodules.facts['judged']} nodules of {nodules.facts['patients']} patients; those with a median malignancy "
        "of 3 are left out, so the easy ends remain",
        "t over folds is how much models vary, as the paper prints it; bootstrap is how much patients vary",
    )


def _against_diagnosis(
    name: str, nodules: Nodules, variant: Variant, scorers: Sequence[semantic_only.Scorer],
    fold_of_patient: Mapping[str, int], published: Mapping[str, Published], seed: int, resamples: int,
) -> list[Compared]:  # fmt: skip
    """The highest nodule of each diagnosed patient, scored by a model that did not learn from that patient."""
    known = np.isfinite(nodules.diagnosis)
    patients = nodules.patients[known]
    if len(set(patients.tolist())) < FEWEST_DIAGNOSED:
        return []
    fold = np.array([fold_of_patient.get(patient, 0) for patient in patients.tolist()])
    score = np.empty(len(patients))
    for number, scorer in enumerate(scorers):
        score[fold == number] = scorer(variant.values[known][fold == number])
    found = patient_maximum(patients, nodules.diagnosis[known], score)
    part = (
        f"Semantic-only model, by the diagnosis of {len(found.label)} patients "
        f"({int(found.label.sum())} with cancer: the AUPRC of a blind guess is {found.label.mean():.3f})"
    )
    rows = []
    for metric, statistic in (("auroc", auroc), ("auprc", auprc)):
        interval = bootstrap_interval(statistic, (found.label, found.score), resamples=resamples, seed=seed)
        ours = _of_patients(interval, len(found.label), int(found.label.sum()))
        rows.append(
            Compared(
                part, name, published[metric], metric, ours,
                same_data=False, note="LIDC-IDRI's diagnosed patients, more than half with cancer; not NLST",
            )
        )  # fmt: skip
    return rows


def _rows(
    name: str, published: Mapping[str, Published], test: semantic_only.Judged, folds: semantic_only.Judged, *,
    sized: bool,
) -> list[Compared]:  # fmt: skip
    """Both protocols; ``sized`` False for what learns nothing, whose models on one part are all the same."""
    rows = []
    for metric in ("auroc", "auprc"):
        for judged, models, together in (
            (test, "held-out fifth: five models, t", "held-out fifth: their mean, bootstrap"),
            (folds, "five folds: t", "five folds: together, bootstrap"),
        ):
            over = judged.auroc_over_folds if metric == "auroc" else judged.auprc_over_folds
            pooled = judged.auroc if metric == "auroc" else judged.auprc
            n, positive = judged.nodules, judged.malignant
            if sized or judged is folds:
                ours = Ours(over.mean, over.low, over.high, "t over folds", over.standard_deviation, n, positive)
                rows.append(_row(name, models, published[metric], ours))
            rows.append(_row(name, together, published[metric], _of_patients(pooled, n, positive)))
    return rows


def _of_patients(interval: Interval, n: int, n_positive: int) -> Ours:
    return Ours(interval.value, interval.low, interval.high, "bootstrap", None, n, n_positive)


def _row(name: str, what: str, published: Published, ours: Ours) -> Compared:
    return Compared(
        f"Semantic-only model: {name}", what, published, published.metric, ours, same_data=False,
        note="LIDC-IDRI's readers, not NLST's; a rating, not a diagnosis",
    )  # fmt: skip


def _gain(found: Difference) -> dict[str, float]:
    low, high = found.difference.low, found.difference.high
    return {"value": round(found.difference.value, 4), "low": round(low, 4), "high": round(high, 4)}
