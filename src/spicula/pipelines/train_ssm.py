"""LungNodule-SSM whole: DINOv2 pretrained on slices without labels, then heads on its frozen features.

Two protocols stand side by side: ``compat`` deals slices at random, as published, so that a patient is on both sides;
``honest`` deals patients, and even the pretraining has not seen those that are tested.

References:
    Noreen and Shaukat 2025, arXiv 2505.15120.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.classifiers.ssm import Read, View
from spicula.core.bundle import Bundle
from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.datasets import lidc_nodules
from spicula.metrics.bootstrap import bootstrap_difference, bootstrap_interval
from spicula.metrics.classification import auroc, counts_at
from spicula.networks.checkpoint import WEIGHTS
from spicula.pipelines.pretrain_dinov2 import load_backbone, nearest_neighbors_probe, pretrain_dinov2
from spicula.pipelines.pretraining_data import read_slices
from spicula.pipelines.risk_evaluation import difference, fold_mean, rounded
from spicula.pipelines.run_folder import as_json, open_run, write_json
from spicula.pipelines.slice_table import TABLE, SliceTable
from spicula.pipelines.ssm_bundle import NAME, make_bundle
from spicula.pipelines.ssm_card import pretraining_of
from spicula.pipelines.ssm_features import Depth, Features, Rows, features_of, pooled, slices_of
from spicula.pipelines.ssm_heads import HEADS, SEED, beside, of_diameter, out_of_fold

EVALUATION, BACKBONES = "evaluation.json", "backbones"
ALL = "all"
"""Name of the pretraining that leaves nobody out: what ships, and what the published protocol uses."""

SHARES = (0.01, 0.1, 1.0)
"""Of the labels, for the curves."""

Report = Callable[[str], None]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Nodules:
    """The nodules that have slices in a table.

    Args:
        ids: ``[n]``.
        rows: Rows of the table that show any of them.
        label: bool ``[n]``, malignant by the readers' vote.
        fold_of: ``[n]``.
        patients: ``[n]``.
        diameter_mm: ``[n]``, LUNA16's.
    """

    ids: NDArray[np.str_]
    rows: Rows
    label: NDArray[np.bool_]
    fold_of: NDArray[np.intp]
    patients: NDArray[np.str_]
    diameter_mm: Array


def train_ssm(
    data: Path,
    out: Path,
    *,
    shape: Any,
    recipe: Any,
    scans: Sequence[Path] = (),
    outline_run: Path | None = None,
    only: Sequence[str] = (),
    folds: int = 5,
    threads: int = 1,
    limit: int | None = None,
    report: Report = print,
) -> dict[str, Any] | None:
    """Pretrain without each fold's patients, and once on all; then teach and judge heads. Resumes after a kill.

    Args:
        data: Development data with ``lidc_crops`` and ``lidc_nodules``.
        out: The run folder: ``slices/``, ``backbones/<fold or all>/``, ``evaluation.json``, the
            bundle ``nodule-ssm/``.
        shape: Of the transformer.
        recipe: Of the pretraining.
        scans: Further scans, whose lung is added.
        outline_run: See :func:`spicula.pipelines.pretraining_data.read_slices`.
        only: Pretrainings to do now (``"0"`` ... or ``"all"``); all if empty. Several commands may share them.
        folds: Number of patient folds.
        threads: Of torch.
        limit: Only the first crops, for a trial.
        report: Takes one line of progress.

    Returns:
        What ``evaluation.json`` holds; None while pretrainings are lacking.

    Raises:
        InputError: ``out`` is a run with other arguments, an unknown name in ``only``, or what the pretraining raises.
    """
    names = [*(str(fold) for fold in range(folds)), ALL]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise InputError("only", got=repr(unknown[0]), expected=f"of {', '.join(names)}")
    arguments = {"shape": asdict(shape), "recipe": as_json(asdict(recipe)), "folds": folds, "limit": limit}
    open_run(out, "train ssm", arguments)
    table = read_slices(
        data, out / "slices", scans=scans, outline_run=outline_run, folds=folds, limit=limit, report=report
    )
    nodules = nodules_of(table, data, folds=folds)
    for name in only or names:
        held_out = [] if name == ALL else nodules.patients[nodules.fold_of == int(name)]
        rows = np.flatnonzero(~np.isin(table.patients, held_out))
        report(f"pretraining {name}: {len(rows)} slices of {len(set(table.patients[rows].tolist()))} patients")
        pretrain_dinov2(
            table, rows, out / BACKBONES / name, shape=shape, recipe=recipe, threads=threads, report=report,
            probe=nearest_neighbors_probe(table, data, rows),
        )  # fmt: skip
    lacking = [name for name in names if not (out / BACKBONES / name / WEIGHTS).is_file()]
    if lacking:
        report(f"not yet there: {', '.join(lacking)}")
        return None
    result = judge(table, nodules, out / BACKBONES)
    write_json(out / EVALUATION, result, finite=True)
    ship(out, table, nodules, result, epochs=recipe.epochs)
    return result


def ship(out: Path, table: SliceTable, nodules: Nodules, evaluation: Mapping[str, Any], *, epochs: int) -> Bundle:
    """Write the bundle of the transformer that learned from all patients, with a forest taught on all nodules.

    Args:
        out: The run folder; the bundle goes to ``nodule-ssm`` in it.
        table: Slices.
        nodules: Theirs.
        evaluation: For the card.
        epochs: Of the pretraining.
    """
    backbone = load_backbone(out / BACKBONES / ALL)
    features = features_of(backbone, table, nodules.rows)["cls"]
    slices = slices_of(table, nodules.rows, nodules.ids, depth="all")
    forest = HEADS["forest"]().fit(pooled(features, slices), nodules.label)
    told = out / "slices" / TABLE
    outlines = json.loads(told.read_text(encoding="utf-8"))["facts"]["outlines"] if told.is_file() else ""
    return make_bundle(
        out / NAME, backbone, forest, evaluation=evaluation,
        pretraining=pretraining_of(table, epochs=epochs, outlines=outlines),
    )  # fmt: skip


def nodules_of(table: SliceTable, data: Path, *, folds: int = 5) -> Nodules:
    """The nodules of ``lidc_nodules`` that a table shows, dealt to folds as everywhere.

    Raises:
        InputError: There are none.
    """
    cases = lidc_nodules.load_cases(data / "lidc_nodules")
    fold_of = lidc_nodules.patient_folds(cases, folds=folds)
    rows = np.flatnonzero(table.case_ids != "")
    shown = set(table.case_ids[rows].tolist())
    kept = [number for number, case in enumerate(cases) if case.case_id in shown]
    if not kept:
        raise InputError("slices", got="no nodule of lidc_nodules", expected="crops that show some")
    some = [cases[number] for number in kept]
    return Nodules(
        np.array([case.case_id for case in some]), rows,
        np.array([case.findings[0].truth["label"] > 0 for case in some]), fold_of[kept],
        np.array([case.patient_id for case in some]),
        np.array([case.findings[0].diameter_mm for case in some], dtype=np.float64),
    )  # fmt: skip


def judge(table: SliceTable, nodules: Nodules, backbones: Path) -> dict[str, Any]:
    """Heads on the features of finished pretrainings and of the same network untrained, in both protocols."""
    folds = [str(fold) for fold in np.unique(nodules.fold_of)]
    trained = [load_backbone(backbones / name) for name in folds]
    fresh = untrained(trained[0].shape)
    result: dict[str, Any] = {
        "nodules": len(nodules.ids), "patients": len(set(nodules.patients.tolist())),
        "slices": len(nodules.rows), "diameter_alone": _judged(nodules, nodules.diameter_mm), "honest": {},
    }  # fmt: skip
    depths: tuple[Depth, ...] = ("middle", "all")
    slices = {depth: slices_of(table, nodules.rows, nodules.ids, depth=depth) for depth in depths}
    views: tuple[View, ...] = ("slice", "alone")
    for view in views:
        learned = [features_of(one, table, nodules.rows, view=view) for one in trained]
        random = features_of(fresh, table, nodules.rows, view=view)
        result["honest"][view] = _of_view(learned, random, slices, nodules)
    result["compat"] = compat(table, nodules, load_backbone(backbones / ALL))
    return result


def _of_view(
    learned: Sequence[Mapping[Read, Features]], random: Mapping[Read, Features],
    slices: Mapping[Depth, Sequence[Rows]], nodules: Nodules,
) -> dict[str, Any]:  # fmt: skip
    result: dict[str, Any] = {}
    reads: tuple[Read, ...] = ("cls", "both")
    for read in reads:
        for depth, some in slices.items():
            whole = {
                "pretrained": np.stack([pooled(one[read], some) for one in learned]),
                "untrained": pooled(random[read], some),
            }
            result[f"{read}, {depth}"] = _of_features(whole, nodules, every_head=(read, depth) == ("cls", "all"))
    return result


def _of_features(whole: Mapping[str, NDArray[np.float32]], nodules: Nodules, *, every_head: bool) -> dict[str, Any]:
    label, fold_of = nodules.label, nodules.fold_of
    forest = {name: out_of_fold(f, label, fold_of) for name, f in whole.items()}
    joined = beside(whole["pretrained"], of_diameter(nodules.diameter_mm), label, fold_of)
    found: dict[str, Any] = {
        "forest": {name: _judged(nodules, score) for name, score in forest.items()},
        "gain_over_untrained": _gain(nodules, forest["pretrained"], forest["untrained"]),
        "with_diameter": _judged(nodules, joined),
        "with_diameter_over_diameter": _gain(nodules, joined, nodules.diameter_mm),
    }
    if every_head:
        found["heads"] = {
            head: _judged(nodules, out_of_fold(whole["pretrained"], label, fold_of, head=head)) for head in HEADS
        }
        found["labels"] = label_curves(whole, nodules)
    return found


def label_curves(whole: Mapping[str, NDArray[np.float32]], nodules: Nodules, *, draws: int = 5) -> dict[str, Any]:
    """AUROC of the forest by the share of patients whose labels it may use, mean of several draws."""
    curves: dict[str, Any] = {}
    patients = np.unique(nodules.patients)
    for share in SHARES:
        of_share: dict[str, list[float]] = {name: [] for name in whole}
        for draw in range(draws if share < 1 else 1):
            count = max(4, round(share * len(patients)))
            chosen = np.random.default_rng((SEED, draw)).permutation(patients)[:count]
            taught = np.isin(nodules.patients, chosen)
            for name, features in whole.items():
                score = out_of_fold(features, nodules.label, nodules.fold_of, taught=taught)
                of_share[name].append(fold_mean(nodules.label.astype(np.float64), score, nodules.fold_of))
        curves[f"{share:g}"] = {name: round(float(np.mean(values)), 4) for name, values in of_share.items()}
    return curves


def compat(table: SliceTable, nodules: Nodules, backbone: Any) -> dict[str, Any]:
    """The published protocol: slices dealt at random, 70, 15 and 15 percent, the same patients on all sides.

    Returns:
        Accuracy, precision, recall, F1 and AUROC on the last part, for each published head; what it is worth is told
        by ``honest``.
    """
    label_of = dict(zip(nodules.ids.tolist(), nodules.label.tolist(), strict=True))
    label = np.array([label_of[name] for name in table.case_ids[nodules.rows]])
    features = features_of(backbone, table, nodules.rows)["cls"]
    order = np.random.default_rng(SEED).permutation(len(label))
    learn, test = order[: int(0.7 * len(order))], order[int(0.85 * len(order)) :]
    shared = np.isin(table.patients[nodules.rows][test], table.patients[nodules.rows][learn])
    result: dict[str, Any] = {
        "slices": {"train": len(learn), "test": len(test)},
        "test_slices_of_training_patients": round(float(shared.mean()), 3),
    }
    for head in ("forest", "tree", "knn"):
        score = HEADS[head]().fit(features[learn], label[learn]).predict_proba(features[test])[:, 1]
        counts = counts_at(label[test], score)
        result[head] = {
            "accuracy": round(counts.accuracy, 4),
            "precision": round(counts.precision, 4),
            "recall": round(counts.sensitivity, 4),
            "f1": round(counts.f1, 4),
            "auroc": round(auroc(label[test], score), 4),
        }
    return result


def untrained(shape: Any, *, seed: int = 0) -> Any:
    """The same transformer with random weights."""
    torch = require("torch", extra="train")
    from spicula.networks.vit import VisionTransformer

    torch.manual_seed(seed)
    return VisionTransformer(shape).eval()


def _judged(nodules: Nodules, score: Array) -> dict[str, Any]:
    y = nodules.label.astype(np.float64)
    interval = bootstrap_interval(auroc, [y, score], nodules.patients)
    return {"auroc": rounded(interval), "mean_of_folds": round(fold_mean(y, score, nodules.fold_of), 4)}


def _gain(nodules: Nodules, score: Array, other: Array) -> dict[str, Any]:
    y = nodules.label.astype(np.float64)
    return difference(bootstrap_difference(auroc, y, score, other, nodules.patients))
