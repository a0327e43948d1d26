"""What tuning, modality and words are worth: the paper's ablations on the same nodules and folds, in one resumable job.

References:
    Zhuang et al. 2025, arXiv 2504.21344, sections 3.5 and 4.3, tables 5 and A5. Departures: a kernel machine takes no
    part; a fourth control has each nodule trained with the words of another one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.datasets import lidc_nodules
from spicula.formats.table import read_table
from spicula.metrics.bootstrap import bootstrap_difference, bootstrap_interval
from spicula.metrics.classification import auprc, auroc
from spicula.metrics.folds import friedman, signed_rank, t_interval
from spicula.pipelines import semantic_only
from spicula.pipelines.risk_evaluation import difference, rounded
from spicula.pipelines.risk_table import Outlines
from spicula.pipelines.run_folder import write_json
from spicula.pipelines.semantic_recipe import Recipe
from spicula.pipelines.train_semantic import EVALUATION, PREDICTIONS, train_semantic

ARMS: Mapping[str, Mapping[str, Any]] = {
    "ft": {},
    "probe": {"tuning": "probe"},
    "lora": {"tuning": "lora"},
    "vision": {"modality": "vision"},
    "shuffled": {"shuffle_texts": True},
}
"""Name to what differs from the recipe: all weights tuned, heads alone, adapters, no words, foreign words."""

SEMANTIC = "semantic"
"""The readers' traits alone, by logistic regression with an L1 penalty: no image."""

TUNINGS, MODALITIES = ("ft", "probe", "lora"), (SEMANTIC, "vision", "clip")
RESULT = "ablations.json"

Array = NDArray[np.float64]
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Out-of-fold scores of the same nodules by several models.

    Args:
        label: bool ``[n]``.
        fold_of: ``[n]``.
        patients: ``[n]``.
        by_arm: float64 ``[n]`` of each model.
    """

    label: NDArray[np.bool_]
    fold_of: NDArray[np.intp]
    patients: NDArray[np.str_]
    by_arm: Mapping[str, Array]

    def over_folds(self, arm: str, metric: Callable[[Any, Any], float]) -> Array:
        """A metric in each fold."""
        folds = np.unique(self.fold_of)
        score = self.by_arm[arm]
        return np.array([metric(self.label[self.fold_of == k], score[self.fold_of == k]) for k in folds])


def run_ablations(
    data: Path,
    out: Path,
    *,
    recipe: Recipe,
    clip: Path | None = None,
    outline_run: Path | None = None,
    outlines: Outlines | None = None,
    material: Path | None = None,
    only: Sequence[str] = (),
    folds: int = 5,
    variants: int = 4,
    limit: int | None = None,
    report: Report = print,
) -> dict[str, Any] | None:
    """Train every arm that is not there, and compare all as table A5 does; go on where a killed job stopped.

    Args:
        data: Development data with ``lidc_nodules``, ``lidc_xml`` and ``lidc_crops``.
        out: Folder of the job: a run folder for each arm, and :data:`RESULT`.
        recipe: What all arms share; one network a fold without a kernel machine is made of it.
        clip: Folder of published weights, for the paper's recipe.
        outline_run: Run folder of ``train outline``.
        outlines: Outlines by other means, for a trial.
        material: Run folder of ``train semantic`` whose cut nodules are used; those of the first arm if None.
        only: Arms to train now; all if empty. Several commands may share the work.
        folds: Number of patient folds.
        variants: Of each nodule.
        limit: Only the first nodules, for a trial.
        report: Takes one line of progress.

    Returns:
        What :data:`RESULT` holds; None while arms are lacking.

    Raises:
        InputError: An unknown arm, or what :func:`spicula.pipelines.train_semantic.train_semantic` raises.
    """
    unknown = [arm for arm in only if arm not in ARMS]
    if unknown:
        raise InputError("arm", got=repr(unknown[0]), expected=f"one of {', '.join(ARMS)}")
    alone = replace(recipe, networks=1, kernel_weight=0.0)
    for arm in only or ARMS:
        report(f"arm {arm}")
        train_semantic(
            data, out / arm, recipe=replace(alone, **ARMS[arm]), clip=clip, outline_run=outline_run,
            outlines=outlines, material=material or out / "material", folds=folds, variants=variants, limit=limit,
            bundle=False, report=report,
        )  # fmt: skip
    lacking = [arm for arm in ARMS if not (out / arm / EVALUATION).is_file()]
    if lacking:
        report(f"not yet there: {', '.join(lacking)}")
        return None
    result = compare_arms(read_arms(data, out), {arm: _words_found(out / arm) for arm in ("ft", "lora", "shuffled")})
    write_json(out / RESULT, {"recipe": {"config": alone.config, "epochs": alone.epochs}, **result}, finite=True)
    return result


def read_arms(data: Path, out: Path) -> Scores:
    """Out-of-fold scores of all arms and of the readers' traits alone."""
    tables = {arm: read_table(out / arm / PREDICTIONS).rows for arm in ARMS}
    first = tables["ft"]
    names = [row["case_id"] for row in first]
    truth = {case.case_id: case.findings[0].truth for case in lidc_nodules.load_cases(data / "lidc_nodules")}
    label = np.array([row["label"] == "1" for row in first])
    fold_of = np.array([int(row["fold"]) for row in first])
    patients = np.array([row["patient_id"] for row in first])
    traits = tuple(trait for trait in lidc_nodules.TRAITS if trait != "malignancy")
    values = np.array([[truth[name][trait] for trait in traits] for name in names])
    features = semantic_only.Features(traits, values, label, patients)
    scorers = semantic_only.fit_folds(features, fold_of, semantic_only.sparse_logistic)
    read = semantic_only.out_of_fold_scores(features, fold_of, scorers)
    by_arm: dict[str, Array] = {
        arm: np.array([row.number("malignancy_raw") for row in rows]) for arm, rows in tables.items()
    }
    return Scores(label, fold_of, patients, {**by_arm, "clip": by_arm["ft"], SEMANTIC: read})


def compare_arms(scores: Scores, words: Mapping[str, Mapping[str, Any]], *, resamples: int = 2000) -> dict[str, Any]:
    """Areas of every arm, and the paper's tests between them.

    Args:
        scores: Of the same nodules.
        words: Of each arm with words, what was found without training for it.
        resamples: Of each bootstrap over patients.

    Returns:
        By arm mean, deviation and t-interval over the folds, pooled area with its interval; Friedman and Nemenyi of
        the tunings and of the modalities, Wilcoxon of vision against clip, and the paired difference of both.
    """
    arms = {}
    for arm in (*ARMS, SEMANTIC):
        arms[arm] = {
            name: {
                **_spread(scores.over_folds(arm, metric)),
                "pooled": rounded(
                    bootstrap_interval(metric, (scores.label, scores.by_arm[arm]), scores.patients, resamples=resamples)
                ),
            }
            for name, metric in (("auroc", auroc), ("auprc", auprc))
        }
    tests = {
        name: {
            "tuning, Friedman and Nemenyi": _three(scores, TUNINGS, metric),
            "modality, Friedman and Nemenyi": _three(scores, MODALITIES, metric),
            "vision against clip, Wilcoxon": _two(scores, "clip", "vision", metric),
        }
        for name, metric in (("auroc", auroc), ("auprc", auprc))
    }
    gains = {
        f"clip over {other}": difference(
            bootstrap_difference(
                auroc, scores.label, scores.by_arm["clip"], scores.by_arm[other], scores.patients, resamples=resamples
            )
        )
        for other in ("vision", "shuffled", "probe", "lora", SEMANTIC)
    }
    return {"arms": arms, "tests": tests, "paired_differences_of_auroc": gains, "words": dict(words)}


def _spread(values: Array) -> dict[str, Any]:
    over = t_interval(values)
    return {
        "mean": round(over.mean, 4), "standard_deviation": round(over.standard_deviation, 4),
        "t_interval": [round(over.low, 4), round(over.high, 4)], "folds": [round(v, 4) for v in values.tolist()],
    }  # fmt: skip


def _three(scores: Scores, arms: Sequence[str], metric: Callable[[Any, Any], float]) -> dict[str, Any]:
    found = friedman(np.stack([scores.over_folds(arm, metric) for arm in arms], axis=1))
    pairs = [(i, j) for i in range(len(arms)) for j in range(i + 1, len(arms))]
    return {
        "chi_square": round(found.statistic, 4),
        "p_value": round(found.p_value, 4),
        "pairs": {f"{arms[i]} against {arms[j]}": round(float(found.pairwise_p[i, j]), 4) for i, j in pairs},
    }


def _two(scores: Scores, a: str, b: str, metric: Callable[[Any, Any], float]) -> dict[str, float]:
    found = signed_rank(scores.over_folds(a, metric), scores.over_folds(b, metric))
    return {"p_value": round(found.p_value, 4), "smallest_possible": round(found.smallest_p, 4)}


def _words_found(run: Path) -> dict[str, Any]:
    evaluation = json.loads((run / EVALUATION).read_text(encoding="utf-8"))
    asked = evaluation["zero_shot"]["templates"]["score"]
    return {
        "zero_shot": {question: answer["auroc"] for question, answer in asked.items()},
        "image_to_text": evaluation["image_to_text"],
    }
