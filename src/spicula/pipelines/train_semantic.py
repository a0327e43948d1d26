"""Train the network of images and words in patient folds, calibrate each fold, and judge all out of fold."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.classifiers.risk import Kernel, score_to_logit
from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_nodules
from spicula.datasets.lidc_crops import Crop
from spicula.explain.zero_shot import ZeroShot, mean_zero_shot
from spicula.metrics.calibration import BetaCalibration, fit_beta
from spicula.networks.checkpoint import WEIGHTS
from spicula.pipelines import semantic_fit, semantic_views
from spicula.pipelines.risk_fit import KernelRecipe, fit_kernel
from spicula.pipelines.risk_table import Outlines, Table
from spicula.pipelines.run_folder import as_json, open_run, write_json
from spicula.pipelines.semantic_bundle import NAME, write_semantic_bundle
from spicula.pipelines.semantic_card import Provenance
from spicula.pipelines.semantic_crops import CropTable, OutlineCrop, make_crop_table
from spicula.pipelines.semantic_evaluation import (
    STYLES,
    OutOfFold,
    ask,
    find_reports,
    judge,
    write_predictions,
)
from spicula.pipelines.semantic_pretrain import pretrain
from spicula.pipelines.semantic_pretrain_text import pretrain_text
from spicula.pipelines.semantic_recipe import Recipe, Towers, compact_towers, published_towers, recipe_of
from spicula.pipelines.semantic_table import SemanticTable, make_semantic_table
from spicula.pipelines.train_risk import outlines_of_run, patient_outlines_of_run, replicates

CALIBRATION, EVALUATION, PREDICTIONS, TOKENIZER = (
    "calibration.json",
    "evaluation.json",
    "predictions.csv",
    "tokenizer.json",
)

Array = NDArray[np.float64]
Report = Callable[[str], None]


def train_semantic(
    data: Path,
    out: Path,
    *,
    recipe: Recipe | None = None,
    clip: Path | None = None,
    outline_run: Path | None = None,
    outlines: Outlines | None = None,
    crop_outlines: OutlineCrop | None = None,
    other: Path | None = None,
    material: Path | None = None,
    bundle: bool = True,
    folds: int = 5,
    variants: int = 4,
    limit: int | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """Train in patient-grouped folds; go on where a killed run stopped.

    ``out`` then holds ``run.json``, ``table/`` (what is learned from), ``folds/<k>/<seed>/`` (weights and log of each
    network), ``tokenizer.json``, ``nodule-semantic/`` (the bundle, of a compact training with words),
    ``calibration.json`` (each fold's, fitted on its own held-out patients: what an
    ensemble averages for new ones), ``predictions.csv`` and ``evaluation.json``. The calibrated probabilities of
    ``predictions.csv`` come from the other folds' calibration, for a fold's own has seen its labels.

    Args:
        data: Development data with ``lidc_nodules`` and ``lidc_xml``.
        out: The run folder.
        recipe: How; the compact one if omitted.
        clip: Folder of published weights, for the paper's recipe.
        outline_run: Run folder of ``train outline``, whose fold networks outline the nodules that they did not learn
            from; without it that training runs first, in ``out/outline``.
        outlines: Outlines by other means, for a trial.
        crop_outlines: The same for the crops of the pretraining.
        other: ``predictions.csv`` of ``train risk``, to compare with.
        material: Another run folder, whose ``table/``, ``crops/`` and pretrained towers are used and added to.
        bundle: Whether a compact training with words writes its bundle.
        folds: Number of patient folds; those of the outline run.
        variants: Of each nodule: itself, disturbed ones, and the one in the readers' outline.
        limit: Only the first nodules, for a trial.
        report: Takes one line of progress.

    Returns:
        What ``evaluation.json`` holds.

    Raises:
        InputError: ``data`` or ``outline_run`` is no such folder, ``out`` is a run with other arguments, a class is
            absent from a fold, or a loss was not finite (the last good epoch is kept).
        MissingExtraError: A package of the extra ``train`` is not installed.
    """
    for module in ("torch", "sklearn", "safetensors", "accelerate", *(["peft"] if clip else [])):
        require(module, extra="train")
    recipe = recipe or recipe_of("compact")
    towers = _towers(recipe, clip)
    all_cases = lidc_nodules.load_cases(data / "lidc_nodules")
    cases = all_cases[:limit]
    arguments = {"recipe": {k: v for k, v in as_json(asdict(recipe)).items() if k != "threads"}}
    run = open_run(
        out,
        "train semantic",
        arguments
        | {"towers": towers.identity, "folds": folds, "variants": variants}
        | {"nodules": len(cases), "patients": len({case.patient_id for case in cases})},
    )
    identity = "given"
    if outlines is None:
        outlines, identity = outlines_of_run(
            data, outline_run or out / "outline", cases, folds=folds, threads=recipe.threads
        )
    report("cutting and measuring the nodules")
    table = make_semantic_table(
        data, (material or out) / "table", outlines=outlines, identity=identity, variants=variants, limit=limit
    )
    crops = None
    if recipe.pretraining is not None:
        report("outlining the crops to pretrain on")
        crops = _crops(
            data, material or out, outline_run or out / "outline", crop_outlines, recipe, folds=folds, limit=limit
        )
    fold_of = lidc_nodules.patient_folds(all_cases, folds=folds)[: len(cases)]
    towers.tokenizer.save(out / TOKENIZER)
    weights = _fit_networks(table, crops, fold_of, out / "folds", recipe, towers, material or out, report=report)
    kernel = fold_kernels(table, fold_of) if recipe.kernel_weight else None
    found = out_of_fold(table, weights, fold_of, recipe, towers, kernel=kernel)
    evaluation = _judge(out, table, found, other=other)
    run["finished"] = {"seconds": round(time.time() - run["started"], 1)}
    if bundle and recipe.config == "compact" and recipe.modality == "clip":
        origin = Provenance(identity, *((len(crops.crops), len(set(crops.patients.tolist()))) if crops else ()))
        written = write_semantic_bundle(
            out / NAME, table, weights, recipe, towers, calibrations=_replicated(table, found), kernel=kernel,
            evaluation=evaluation, provenance=origin,
        )  # fmt: skip
        run["finished"]["fingerprint"] = written.fingerprint
        report(f"bundle {written.folder}")
    write_json(out / "run.json", run)
    area = evaluation["targets"]["malignancy"]
    report(
        f"malignancy AUROC {area['auroc']['value']:.4f} out of fold, {area['auroc_mean_of_folds']:.4f} mean of folds"
    )
    return evaluation


def _fit_networks(
    table: SemanticTable, crops: CropTable | None, fold_of: NDArray[np.intp], folder: Path, recipe: Recipe,
    towers: Towers, material: Path, *, report: Report,
) -> list[list[semantic_views.Weights]]:  # fmt: skip
    """The networks of each fold, of different seeds; those that are there are loaded."""
    weights: list[list[semantic_views.Weights]] = []
    count = int(fold_of.max()) + 1
    for fold in range(count):
        rows, members = np.flatnonzero(fold_of != fold), []
        for seed in range(recipe.seed, recipe.seed + recipe.networks):
            report(f"network without fold {fold + 1} of {count}, seed {seed}")
            place, one = folder / str(fold) / str(seed), replace(recipe, seed=seed)
            if (place / WEIGHTS).is_file():
                vision = words = None
            else:
                where = material / "pretrained" / str(fold) / str(seed)
                vision = _pretrained(crops, table, fold_of == fold, where, one, towers)
                words = _pretrained_text(material / "text" / str(seed), one, towers)
            members.append(semantic_fit.fit(table, rows, place, one, towers, vision_weights=vision, text_weights=words))
        weights.append(members)
    return weights


def fold_kernels(table: SemanticTable, fold_of: NDArray[np.intp]) -> Kernel:
    """A kernel machine on the measures, a member for each fold that has not learned from it."""
    learned = [np.flatnonzero(fold_of != fold) for fold in range(int(fold_of.max()) + 1)]
    no_planes = np.empty(0, dtype=np.int16)
    rows = Table(table.cases, table.names, table.measures, no_planes, table.labels, table.shares, table.steps)
    return fit_kernel(rows, learned, KernelRecipe())


def _crops(
    data: Path, out: Path, run: Path, outline: OutlineCrop | None, recipe: Recipe, *, folds: int, limit: int | None
) -> CropTable:
    """The crops of ``data/lidc_crops``, outlined by networks that have not learned from their patients."""
    identity = "given"
    if outline is None:
        by_patient, identity = patient_outlines_of_run(run, folds=folds, threads=recipe.threads)

        def outline(crop: Crop, volume: Volume, center_xyz_mm: Sequence[float]) -> Mask:
            return by_patient(crop.patient_id, volume, center_xyz_mm)

    return make_crop_table(data, out / "crops", outline=outline, identity=identity, limit=limit)


def _pretrained(
    crops: CropTable | None, table: SemanticTable, held_out: NDArray[np.bool_], folder: Path, recipe: Recipe,
    towers: Towers,
) -> semantic_views.Weights | None:  # fmt: skip
    """The image tower pretrained on the crops of all patients but those held out; None where the recipe has none."""
    if crops is None or recipe.pretraining is None:
        return None
    rows = np.flatnonzero(~np.isin(crops.patients, table.patients[held_out]))
    how = replace(recipe.pretraining, seed=recipe.seed, threads=recipe.threads)
    return pretrain(crops, rows, folder, how, make_vision=lambda: towers.make().vision_model)


def _pretrained_text(folder: Path, recipe: Recipe, towers: Towers) -> semantic_views.Weights | None:
    """The text tower pretrained on made-up texts, one for all folds; None where the recipe has none."""
    if recipe.text_pretraining is None or recipe.modality == "vision":
        return None
    how = replace(recipe.text_pretraining, seed=recipe.seed, threads=recipe.threads)
    return pretrain_text(folder, how, make_text=lambda: towers.make().text_model, tokenizer=towers.tokenizer)


def _judge(out: Path, table: SemanticTable, found: OutOfFold, *, other: Path | None) -> dict[str, Any]:
    """Write ``calibration.json``, ``predictions.csv`` and ``evaluation.json``."""
    write_json(out / CALIBRATION, {"folds": [one.to_json() for one in fold_calibrations(table, found)]})
    write_predictions(out / PREDICTIONS, table, found)
    evaluation = judge(table, found, other=other)
    write_json(out / EVALUATION, evaluation, finite=True)
    return evaluation


def out_of_fold(
    table: SemanticTable,
    weights: Sequence[Sequence[semantic_views.Weights]],
    fold_of: NDArray[np.intp],
    recipe: Recipe,
    towers: Towers,
    *,
    kernel: Kernel | None = None,
) -> OutOfFold:
    """What each fold's networks say of the nodules that they did not learn from.

    Args:
        table: All nodules.
        weights: Of each fold's networks.
        fold_of: Fold of each nodule.
        recipe: How they were trained.
        towers: Of what.
        kernel: A member for each fold; joins the malignancy.

    Returns:
        Malignancy, answers to the prompts and recall of reports, in the order of the table.
    """
    logit = np.zeros(len(fold_of))
    judges = {"network": np.zeros(len(fold_of))} | ({"kernel": np.zeros(len(fold_of))} if kernel else {})
    parts: dict[str, dict[str, list[tuple[NDArray[np.intp], ZeroShot]]]] = {style: {} for style in STYLES}
    recall: dict[str, list[list[float]]] = {}
    for fold, members in enumerate(weights):
        rows = np.flatnonzero(fold_of == fold)
        views = [semantic_views.see(table, rows, one, recipe, towers) for one in members]
        logit[rows] = judges["network"][rows] = np.mean([view.logit for view in views], axis=0)
        if kernel is not None:
            judges["kernel"][rows] = score_to_logit(kernel(table.measures[rows, 0])[:, fold, 0])
            logit[rows] += recipe.kernel_weight * (judges["kernel"][rows] - logit[rows])
        if recipe.modality == "vision":
            continue
        readers = [semantic_views.reader(table, one, recipe, towers) for one in members]
        for style in STYLES:
            asked = [
                ask(view.embedding, reader.read, temperature=reader.temperature, style=style)
                for view, reader in zip(views, readers, strict=True)
            ]
            for question in asked[0]:
                answer = mean_zero_shot([one[question] for one in asked])
                parts[style].setdefault(question, []).append((rows, answer))
        together = semantic_views.beside([view.embedding for view in views])
        medians = [table.medians[row] for row in rows]
        for name, values in find_reports(together, semantic_views.read_beside(readers), medians).items():
            recall.setdefault(name, []).append(values)
    answers = {
        style: {question: _joined(pieces, len(fold_of)) for question, pieces in asked.items()}
        for style, asked in parts.items()
        if asked
    }
    return OutOfFold(logit, cross_fitted(logit, table.labels[:, 0], fold_of), fold_of, answers, recall, judges)


def fold_calibrations(table: SemanticTable, found: OutOfFold) -> list[BetaCalibration]:
    """Of each fold, the calibration that its held-out patients ask for."""
    y = table.labels[:, 0]
    return [
        _calibration(found.logit[found.fold_of == fold], y[found.fold_of == fold]) for fold in np.unique(found.fold_of)
    ]


def _replicated(table: SemanticTable, found: OutOfFold) -> list[list[BetaCalibration]]:
    """Of each fold, its calibration and those of its held-out patients drawn with replacement."""
    maps = []
    for fold, whole in enumerate(fold_calibrations(table, found)):
        own = found.fold_of == fold
        again = replicates(_sigmoid(found.logit[own]), table.labels[own, 0], table.patients[own])
        maps.append([whole, *again])
    return maps


def ensemble_probability(logits: Array, calibrations: Sequence[BetaCalibration]) -> Array:
    """The mean of the folds' calibrated probabilities, for patients that none has learned from.

    Args:
        logits: ``[folds, n]``.
        calibrations: Of each fold.

    Returns:
        ``[n]``; a patient's risk is the highest of the nodules', see
        :func:`spicula.metrics.patients.patient_maximum`.
    """
    return np.asarray(np.mean([one(_sigmoid(row)) for one, row in zip(calibrations, logits, strict=True)], axis=0))


def cross_fitted(logit: Array, labels: Array, fold_of: NDArray[np.intp]) -> Array:
    """Calibrated probabilities of each fold, by the mean of the calibrations that the other folds ask for."""
    folds = np.unique(fold_of)
    maps = {fold: _calibration(logit[fold_of == fold], labels[fold_of == fold]) for fold in folds}
    probability = np.zeros(len(logit))
    for fold in folds:
        own = fold_of == fold
        probability[own] = np.mean([maps[k](_sigmoid(logit[own])) for k in folds if k != fold], axis=0)
    return probability


def _calibration(logit: Array, labels: Array) -> BetaCalibration:
    try:
        return fit_beta(_sigmoid(logit), labels)
    except InputError:  # a trial with so few nodules that the map would fall
        return BetaCalibration(1.0, 1.0, 0.0)


def _sigmoid(logit: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))


def _joined(parts: Sequence[tuple[NDArray[np.intp], ZeroShot]], count: int) -> ZeroShot:
    classes = parts[0][1].classes
    similarity, probability = np.zeros((count, len(classes))), np.zeros((count, len(classes)))
    for rows, part in parts:
        similarity[rows], probability[rows] = part.similarity, part.probability
    return ZeroShot(classes, similarity, probability)


def _towers(recipe: Recipe, clip: Path | None) -> Towers:
    if recipe.config == "compact":
        if clip is not None:
            raise InputError("published weights", got=str(clip), expected="none with the compact towers")
        return compact_towers(recipe)
    if clip is None:
        raise InputError(
            "published weights", got="none", expected="a folder with CLIP's weights",
            hint="spicula bundle import openai-clip, then --clip BUNDLE",
        )  # fmt: skip
    return published_towers(clip, recipe)
