"""How good images and words agree out of fold: malignancy, prompts without training for them, retrieval of reports."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.core.files import written_aside
from spicula.explain.lidc_classes import ASKED, LIDC_CUTS, CutName, lidc_class
from spicula.explain.prompts import Style, prompts_of
from spicula.explain.zero_shot import ZeroShot, zero_shot
from spicula.explain.zero_shot_auroc import zero_shot_auroc
from spicula.formats.table import Row, read_table
from spicula.metrics.bootstrap import bootstrap_difference, bootstrap_interval
from spicula.metrics.classification import auroc
from spicula.metrics.neighbors import given_distances
from spicula.metrics.patients import patient_maximum
from spicula.metrics.ranking import retrieve
from spicula.pipelines.risk_evaluation import difference, evaluate, fold_mean, rounded
from spicula.pipelines.semantic_table import SemanticTable
from spicula.pipelines.semantic_words import CUTS, all_codes, whole_text
from spicula.pipelines.train_risk import WEIGHTS

STYLES: tuple[Style, ...] = ("templates", "compat")
RECALLS = (1, 5, 10)

Array = NDArray[np.float64]
Folds = NDArray[np.intp]
Read = Callable[[Sequence[str]], Array]
"""Texts to embeddings ``[n, d]``."""


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
    """What the networks say of nodules from whose patients they did not learn.

    Args:
        logit: float64 ``[n]`` of malignancy.
        probability: float64 ``[n]``, calibrated by the other folds.
        fold_of: ``[n]``.
        answers: By style and question, classes and probabilities ``[n, k]``; empty without words.
        recall: Of the right reports and of chance, ``[folds, 3]``, see :func:`find_reports`; empty without words.
        judges: Logits by what made them: ``network`` and, where there is one, ``kernel``.
    """

    logit: Array
    probability: Array
    fold_of: Folds
    answers: Mapping[str, Mapping[str, ZeroShot]]
    recall: Mapping[str, Sequence[Sequence[float]]]
    judges: Mapping[str, Array] = field(default_factory=dict)


def ask(embedding: Array, read: Read, *, temperature: float, style: Style) -> dict[str, ZeroShot]:
    """What the prompts of every question that LIDC can answer come to for some images.

    Args:
        embedding: ``[n, d]`` of the images.
        read: Reads texts.
        temperature: Learned.
        style: Of the prompts.

    Returns:
        By question.
    """
    found = {}
    for question, classes in ASKED.items():
        prompts = prompts_of(question, style, plain=True)
        found[question] = zero_shot(embedding, {name: read(prompts[name]) for name in classes}, temperature=temperature)
    return found


def find_reports(
    embedding: Array, read: Read, medians: Sequence[Mapping[str, float]], *, seed: int = 0
) -> dict[str, list[float]]:
    """How often a nodule's image finds its report among those of its fold.

    Right is the nodule's own report, or one that says the very same: many nodules are read alike.

    Args:
        embedding: ``[n, d]`` of the images.
        read: Reads texts.
        medians: Of the same nodules.
        seed: Of the reports' wording.

    Returns:
        Recall at 1, 5, 10 by what is right (``own``, ``alike``), and that of chance (``own_chance`` ...).
    """
    texts = [whole_text(one, seed=seed + number) for number, one in enumerate(medians)]
    distances = given_distances(np.clip(1.0 - embedding @ read(texts).T, 0.0, None), own=None)
    codes = all_codes(medians)["score"]
    _, alike = np.unique(codes, axis=0, return_inverse=True)
    found, n = {}, len(texts)
    for name, label in (("own", np.arange(n)), ("alike", alike.reshape(-1))):
        hit = retrieve(distances, label, index_labels=label, k=min(max(RECALLS), n)).hit
        found[name] = [float(hit[:, :k].any(axis=1).mean()) for k in RECALLS]
        right = np.bincount(label)[label].tolist()
        found[f"{name}_chance"] = [
            float(np.mean([1 - comb(n - m, min(k, n)) / comb(n, min(k, n)) for m in right])) for k in RECALLS
        ]
    return found


def judge(
    table: SemanticTable, found: OutOfFold, *, other: Path | None = None, resamples: int = 2000
) -> dict[str, Any]:
    """Judge out-of-fold predictions.

    Args:
        table: The nodules.
        found: What was said of them.
        other: ``predictions.csv`` of ``train risk``, to set malignancy against on the same nodules and folds.
        resamples: Of each bootstrap.

    Returns:
        Malignancy as :func:`spicula.pipelines.risk_evaluation.evaluate` has it, patients by their maximum, the gain
        over the other model, the score of the volumes' extents alone, areas of the prompts, and recall of reports.
    """
    y, patients = table.labels[:, 0], table.patients
    result = evaluate(
        {"malignancy": y}, {"malignancy": found.probability}, scores={"malignancy": found.logit},
        fold_of=found.fold_of, patients=patients, diameter_mm=table.diameter_mm,
        rating=[case.findings[0].truth["malignancy"] for case in table.cases], resamples=resamples,
    )  # fmt: skip
    if len(found.judges) > 1:
        result["judges"] = {
            name: {"auroc": round(auroc(y, one), 4), "auroc_mean_of_folds": round(fold_mean(y, one, found.fold_of), 4)}
            for name, one in found.judges.items()
        }
    whole = patient_maximum(patients, y, found.probability)
    result["patients_by_maximum"] = rounded(
        bootstrap_interval(auroc, [whole.label.astype(float), whole.score], resamples=resamples)
    )
    extents = extents_score(table, found.fold_of)
    result["extents_alone"] = {
        "auroc": round(auroc(y, extents), 4), "auroc_mean_of_folds": round(fold_mean(y, extents, found.fold_of), 4)
    }  # fmt: skip
    result["gain_over_extents"] = difference(
        bootstrap_difference(auroc, y, found.logit, extents, patients, resamples=resamples)
    )
    if other is not None:
        score = read_scores(other, [case.case_id for case in table.cases], found.fold_of)
        result["other"] = {
            "auroc": round(auroc(y, score), 4), "auroc_mean_of_folds": round(fold_mean(y, score, found.fold_of), 4)
        }  # fmt: skip
        result["gain_over_other"] = difference(
            bootstrap_difference(auroc, y, found.logit, score, patients, resamples=resamples)
        )
    result["zero_shot"] = {
        style: {cut: _areas(answers, table, found.fold_of, cut) for cut in CUTS}
        for style, answers in found.answers.items()
    }
    result["image_to_text"] = {
        name: {f"recall_at_{k}": round(float(np.mean([fold[i] for fold in folds])), 4) for i, k in enumerate(RECALLS)}
        for name, folds in found.recall.items()
    }
    return result


def _areas(answers: Mapping[str, ZeroShot], table: SemanticTable, fold_of: Folds, cut: CutName) -> dict[str, Any]:
    areas = {}
    for question in LIDC_CUTS[cut]:
        read = [lidc_class(question, one, cut=cut) for one in table.medians]
        held = [None if answer is None else (answer,) for answer in read]
        area = zero_shot_auroc(answers[question], held)
        parts = [_part(answers[question], held, fold_of == fold) for fold in np.unique(fold_of)]
        known = [value for value in parts if np.isfinite(value)]
        areas[question] = {
            "auroc": _number(area.published),
            "auroc_mean_of_folds": _number(float(np.mean(known)) if known else float("nan")),
            "classes": {
                name: {"auroc": _number(value), "rows": int(rows)}
                for name, value, rows in zip(area.classes, area.auroc.tolist(), area.rows.tolist(), strict=True)
            },
        }
    return areas


def _part(found: ZeroShot, held: Sequence[tuple[str, ...] | None], rows: NDArray[np.bool_]) -> float:
    some = ZeroShot(found.classes, found.similarity[rows], found.probability[rows])
    return zero_shot_auroc(some, [held[row] for row in np.flatnonzero(rows).tolist()]).published


def _number(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def extents_score(table: SemanticTable, fold_of: Folds) -> Array:
    """How malignant the small volumes' extents alone say that the nodules are: what must not be seen.

    Returns:
        ``[n]`` logits of a logistic regression on the logarithms of the extents along z, y, x, learned on the other
        folds.
    """
    linear = require("sklearn.linear_model", extra="train")
    extents = np.empty((len(table.cases), 3))
    for row, case in enumerate(table.cases):
        grid = case.load_volume().geometry
        extents[row] = np.log(np.asarray(grid.shape_zyx) * np.asarray(grid.spacing_zyx_mm))
    score = np.zeros(len(extents))
    for fold in np.unique(fold_of):
        rest, own = fold_of != fold, fold_of == fold
        model = linear.LogisticRegression().fit(extents[rest], table.labels[rest, 0])
        score[own] = model.decision_function(extents[own])
    return score


def read_scores(path: Path, case_ids: Sequence[str], fold_of: Folds) -> Array:
    """The malignancy of another model's ``predictions.csv``, in the order of some nodules, before its calibration.

    Raises:
        InputError: A nodule is missing, or lies in another fold.
    """
    table_of_other = read_table(path, required=("case_id", "fold", "malignancy"))
    columns = set(table_of_other.columns)
    rows = {row["case_id"]: row for row in table_of_other.rows}
    scores = np.empty(len(case_ids))
    for number, case_id in enumerate(case_ids):
        row = rows.get(case_id)
        if row is None or int(row["fold"]) != fold_of[number]:
            got = "no such nodule" if row is None else f"fold {row['fold']}"
            raise InputError(f"{path}, {case_id}", got=got, expected=f"fold {fold_of[number]}")
        scores[number] = _raw(row, columns)
    return scores


def _raw(row: Row, columns: Collection[str]) -> float:
    """The judges' logits of ``train risk``, weighed as it weighs them; else what ``train semantic`` wrote."""
    if all(f"malignancy_{judge}_logit" in columns for judge in ("kernel", "network")):
        kernel, network = (row.number(f"malignancy_{judge}_logit") for judge in ("kernel", "network"))
        return WEIGHTS[0] * kernel + WEIGHTS[1] * network
    return row.number("malignancy_raw" if "malignancy_raw" in columns else "malignancy")


def write_predictions(path: Path, table: SemanticTable, found: OutOfFold) -> None:
    """Write ``predictions.csv``: one row a nodule, raw and calibrated malignancy, and what the prompts say."""
    answers = found.answers.get("templates", {})
    columns = [(question, name) for question, one in answers.items() for name in one.classes]
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        asked = [f"{question}:{name}" for question, name in columns]
        writer.writerow(
            ["case_id", "patient_id", "fold", "diameter_mm", "label", "malignancy_raw", "malignancy", *asked]
        )
        raw = 1.0 / (1.0 + np.exp(-found.logit))
        for row, case in enumerate(table.cases):
            given = [answers[question].of(name)[row] for question, name in columns]
            facts = [case.case_id, case.patient_id, int(found.fold_of[row]), case.findings[0].diameter_mm]
            values = [raw[row], found.probability[row], *given]
            writer.writerow([*facts, int(table.labels[row, 0]), *(f"{value:.6f}" for value in values)])
