"""Train the risk model: measure, fit two judges in patient folds, weigh, calibrate, judge and write the bundle."""

from __future__ import annotations

import csv
import io
import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.classifiers.risk import (
    CALIBRATION_FILE,
    KERNEL_FILE,
    NETWORK_FILE,
    TARGETS,
    TASK,
    Combination,
    Kernel,
    score_to_logit,
)
from spicula.core.bundle import Bundle, load_bundle, write_bundle
from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.core.files import written_aside
from spicula.core.finding import Case
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_nodules
from spicula.measure import segment
from spicula.metrics.calibration import BetaCalibration, fit_beta
from spicula.pipelines import risk_card
from spicula.pipelines.models import OUTLINE
from spicula.pipelines.risk_evaluation import evaluate
from spicula.pipelines.risk_fit import (
    KernelRecipe,
    NetworkRecipe,
    committee_of,
    fit_kernel,
    fit_network,
    network_logits,
)
from spicula.pipelines.risk_table import Outlines, Table, make_table
from spicula.pipelines.run_folder import open_run, write_json
from spicula.runtime.openvino import Network, load_network

NAME = "nodule-risk"
REPLICATES = 100
"""Bootstrap replicates of each calibration, over patients."""

WEIGHTS = (0.6, 0.4)
"""Of the kernel's and the network's logit, for every target; set by hand, as fitting them gains nothing."""

Array = NDArray[np.float64]
Networks = list[list[dict[str, Any]]]
Report = Callable[[str], None]


def train_risk(
    data: Path,
    out: Path,
    *,
    outline_run: Path | None = None,
    outlines: Outlines | None = None,
    folds: int = 5,
    variants: int = 4,
    epochs: int = 30,
    networks: int = 1,
    seed: int = 0,
    threads: int = 1,
    limit: int | None = None,
    report: Report = print,
) -> Bundle:
    """Train the risk model in patient-grouped folds; go on where a killed run stopped.

    ``out`` then holds ``run.json`` (arguments, versions, commit, seconds), ``table/`` (what is learned from),
    ``folds/<k>/<seed>/`` (weights and log of each network), ``predictions.csv`` (out-of-fold probabilities of
    every nodule, with the logits of both judges), ``evaluation.json`` and the bundle ``nodule-risk/``.

    Args:
        data: Development data with ``lidc_nodules`` and ``lidc_xml``.
        out: The run folder.
        outline_run: Run folder of ``train outline``, whose fold networks outline the nodules that they did not learn
            from; without it that training runs first, in ``out/outline``.
        outlines: Outlines by other means, for a trial.
        folds: Number of patient folds; those of the outline run.
        variants: Of each nodule: itself, disturbed ones, and the one in the readers' outline.
        epochs: Of each network.
        networks: For each fold, of different seeds; their logits are averaged.
        seed: Of all random choices.
        threads: Threads of torch and of OpenVINO.
        limit: Only the first nodules, for a trial.
        report: Takes one line of progress.

    Returns:
        The bundle.

    Raises:
        InputError: ``data`` or ``outline_run`` is no such folder, or ``out`` is a run with other arguments.
        MissingExtraError: torch, scikit-learn, safetensors or onnx is not installed.
    """
    for module in ("torch", "sklearn", "safetensors", "onnx", "onnxscript"):
        require(module, extra="train")
    cases = lidc_nodules.load_cases(data / "lidc_nodules")[:limit]
    recipe = NetworkRecipe(epochs=epochs, seed=seed, threads=threads)
    kernel_recipe = KernelRecipe()
    run = open_run(
        out,
        "train risk",
        {"network": asdict(recipe), "networks": networks, "kernel": asdict(kernel_recipe)}
        | {"folds": folds, "variants": variants}
        | {"nodules": len(cases), "patients": len({case.patient_id for case in cases}), "seed": seed},
    )
    identity = "given"
    if outlines is None:
        outlines, identity = outlines_of_run(data, outline_run or out / "outline", cases, folds=folds, threads=threads)
    report("measuring the nodules")
    table = make_table(
        data, out / "table", outlines=outlines, identity=identity, variants=variants, seed=seed, limit=limit
    )
    fold_of = lidc_nodules.patient_folds(lidc_nodules.load_cases(data / "lidc_nodules"), folds=folds)[: len(cases)]
    learned = [np.flatnonzero(fold_of != fold) for fold in range(folds)]
    kernel = fit_kernel(table, learned, kernel_recipe)
    weights = _fit_networks(table, learned, out / "folds", recipe, networks=networks, report=report)
    logits = _out_of_fold(table, kernel, weights, fold_of, recipe)
    evaluation = _judge(out, table, logits, fold_of)
    files = {
        KERNEL_FILE: kernel_bytes(kernel),
        NETWORK_FILE: _network_bytes(table, weights, recipe),
        CALIBRATION_FILE: _calibration_bytes(table, kernel, logits),
    }
    bundle = write_bundle(out / NAME, risk_card.manifest(NAME, TASK, table, identity, evaluation), files)
    run["finished"] = {"fingerprint": bundle.fingerprint, "seconds": round(time.time() - run["started"], 1)}
    write_json(out / "run.json", run)
    pooled = evaluation["targets"]["malignancy"]["auroc"]["value"]
    report(f"malignancy AUROC {pooled:.4f} out of fold: {bundle.folder}")
    return bundle


def _fit_networks(
    table: Table,
    learned: Sequence[NDArray[np.intp]],
    folder: Path,
    recipe: NetworkRecipe,
    *,
    networks: int,
    report: Report,
) -> Networks:
    """The networks of each fold, of different seeds, those that are there loaded."""
    weights: Networks = []
    for fold, rows in enumerate(learned):
        report(f"networks without fold {fold + 1} of {len(learned)}")
        recipes = [replace(recipe, seed=recipe.seed + number) for number in range(networks)]
        weights.append([fit_network(table, rows, folder / str(fold) / str(one.seed), one) for one in recipes])
    return weights


def _judge(out: Path, table: Table, logits: Array, fold_of: NDArray[np.intp]) -> dict[str, Any]:
    """Write ``predictions.csv`` and ``evaluation.json`` of out-of-fold logits."""
    probabilities = {
        target: _cross_fitted(logits[:, i], table.labels[:, i], fold_of) for i, target in enumerate(TARGETS)
    }
    _write_predictions(out / "predictions.csv", table, fold_of, logits, probabilities)
    evaluation = evaluate(
        {target: table.labels[:, i] for i, target in enumerate(TARGETS)},
        probabilities,
        scores={target: logits[:, i] @ np.asarray(WEIGHTS) for i, target in enumerate(TARGETS)},
        fold_of=fold_of,
        patients=table.patients,
        diameter_mm=table.diameter_mm,
        rating=[case.findings[0].truth["malignancy"] for case in table.cases],
    )
    write_json(out / "evaluation.json", evaluation)
    return evaluation


def outlines_of_run(data: Path, run: Path, cases: Sequence[Case], *, folds: int, threads: int) -> tuple[Outlines, str]:
    """Outlines by the fold networks of an outline run, and their identity.

    Args:
        data: Development data with ``lidc_nodules``.
        run: Run folder of ``train outline``; that training runs first if it is not there or not done.
        cases: Nodules that the run must have.
        folds: Of the run.
        threads: Of torch and of OpenVINO.

    Returns:
        What outlines a nodule by a network that has not learned from its patient; the bundles' fingerprints.

    Raises:
        InputError: The run lacks a nodule.
    """
    if not (run / "evaluation.json").is_file():
        from spicula.pipelines.train_outline import train_outline

        train_outline(data / "lidc_nodules", run, folds=folds, threads=threads)
    rows = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["nodules"]
    fold_of = {row["case_id"]: int(row["fold"]) for row in rows}
    missing = [case.case_id for case in cases if case.case_id not in fold_of]
    if missing:
        raise InputError(f"{run}: nodules of the outline run", got=f"none of {missing[:3]}", expected="all nodules")
    networks, identity = _outline_networks(run, folds, threads)

    def outlined(case: Case, volume: Volume, center_xyz_mm: Sequence[float]) -> Mask:
        return segment.outline(volume, center_xyz_mm, network=networks[fold_of[case.case_id]])

    return outlined, identity


def patient_outlines_of_run(
    run: Path, *, folds: int, threads: int
) -> tuple[Callable[[str, Volume, Sequence[float]], Mask], str]:
    """Outlines by the fold networks of a finished outline run for any patient's image, and their identity.

    Args:
        run: Run folder of ``train outline``.
        folds: Of the run.
        threads: Of OpenVINO.

    Returns:
        What outlines a nodule of a patient (by id) in a volume from a point, by a network that has not learned from
        the patient; of patients that no network learned from, any one's, always the same; the bundles' fingerprints.
    """
    rows = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["nodules"]
    fold_of = {row["case_id"].rpartition("_")[0]: int(row["fold"]) for row in rows}
    networks, identity = _outline_networks(run, folds, threads)

    def outlined(patient_id: str, volume: Volume, center_xyz_mm: Sequence[float]) -> Mask:
        fold = fold_of.get(patient_id, zlib.crc32(patient_id.encode()) % folds)
        return segment.outline(volume, center_xyz_mm, network=networks[fold])

    return outlined, identity


def patient_outlines(run: Path | None, *, folds: int) -> tuple[Callable[[str, Volume, Sequence[float]], Mask], str]:
    """As :func:`patient_outlines_of_run`; by the shipped network, whoever the patient, where there is no run."""
    if run is not None:
        return patient_outlines_of_run(run, folds=folds, threads=1)
    bundle = load_bundle(OUTLINE)
    network = load_network(bundle)
    return lambda patient_id, volume, center: segment.outline(volume, center, network=network), bundle.fingerprint


def _outline_networks(run: Path, folds: int, threads: int) -> tuple[list[Network], str]:
    bundles = [load_bundle(run / "folds" / str(fold) / "bundle") for fold in range(folds)]
    identity = " ".join(bundle.fingerprint for bundle in bundles)
    return [load_network(bundle, threads=threads) for bundle in bundles], identity


def _out_of_fold(
    table: Table,
    kernel: Kernel,
    weights: Networks,
    fold_of: NDArray[np.intp],
    recipe: NetworkRecipe,
) -> Array:
    """Logits of the kernel and the network that did not learn from each nodule's patient, ``[n, targets, 2]``."""
    logits = np.zeros((len(fold_of), len(TARGETS), 2))
    for fold, weight in enumerate(weights):
        rows = np.flatnonzero(fold_of == fold)
        logits[rows, :, 0] = score_to_logit(kernel(table.features[rows, 0])[:, fold])
        logits[rows, :, 1] = network_logits(table, rows, weight, recipe)
    return logits


def _combination(logits: Array, labels: Array) -> Combination:
    """The judges weighed as always, calibrated on these logits and labels."""
    mixed = Combination(WEIGHTS, 0.0, ()).mix(logits)
    try:
        calibration = fit_beta(mixed, labels, form="am")
    except InputError:  # a trial with so few nodules that the map would fall
        calibration = BetaCalibration(1.0, 1.0, 0.0)
    return Combination(WEIGHTS, 0.0, (calibration,))


def _cross_fitted(logits: Array, labels: Array, fold_of: NDArray[np.intp]) -> Array:
    """Calibrated probabilities: the calibration of each fold comes from the other folds' out-of-fold logits."""
    probability = np.zeros(len(labels))
    for fold in np.unique(fold_of):
        rest, own = fold_of != fold, fold_of == fold
        combination = _combination(logits[rest], labels[rest])
        probability[own] = combination.calibrators[0](combination.mix(logits[own]))
    return probability


def replicates(probability: Array, labels: Array, patients: NDArray[np.str_]) -> list[BetaCalibration]:
    """The calibration fitted again on patients drawn with replacement, :data:`REPLICATES` times."""
    _, code = np.unique(patients, return_inverse=True)
    rng = np.random.default_rng(0)
    found: list[BetaCalibration] = []
    for _ in range(10 * REPLICATES):
        drawn = np.bincount(rng.integers(code.max() + 1, size=code.max() + 1), minlength=code.max() + 1)[code]
        if len(found) < REPLICATES and 0 < (drawn * labels).sum() < drawn.sum():
            with suppress(InputError):  # a draw that asks for a falling map
                found.append(fit_beta(probability, labels, form="am", weights=drawn.astype(np.float64)))
    return found


def _calibration_bytes(table: Table, kernel: Kernel, logits: Array) -> bytes:
    targets = {}
    for index, target in enumerate(TARGETS):
        labels = table.labels[:, index]
        whole = _combination(logits[:, index], labels)
        maps = [*whole.calibrators, *replicates(whole.mix(logits[:, index]), labels, table.patients)]
        rows = [[round(v, 8) for v in (one.a, one.b, one.c)] for one in maps]
        targets[target] = {"weights": list(whole.weights), "bias": whole.bias, "calibrators": rows}
    record = {"features": list(kernel.features), "gamma": kernel.gamma, "targets": targets}
    return (json.dumps(record) + "\n").encode()


def kernel_bytes(kernel: Kernel) -> bytes:
    """The kernel machine as :func:`spicula.classifiers.risk.load_kernel` reads it."""
    stream = io.BytesIO()
    arrays = {
        name: getattr(kernel, name).astype(np.float32) for name in ("center", "scale", "support", "dual", "offset")
    }
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _network_bytes(table: Table, weights: Networks, recipe: NetworkRecipe) -> bytes:
    torch = require("torch", extra="train")
    from spicula.networks.export import to_onnx
    from spicula.transforms.planes import PIXELS, PLANES

    return to_onnx(committee_of(table, weights, recipe), torch.zeros(2, 2 * PLANES, PIXELS, PIXELS))


def _write_predictions(
    path: Path, table: Table, fold_of: NDArray[np.intp], logits: Array, probabilities: Mapping[str, Array]
) -> None:
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        logit_names = [f"{target}_{judge}_logit" for target in TARGETS for judge in ("kernel", "network")]
        label_names = [f"{target}_label" for target in TARGETS]
        writer.writerow(
            ["case_id", "patient_id", "fold", "diameter_mm", "rating", *label_names, *TARGETS, *logit_names]
        )
        for row, case in enumerate(table.cases):
            finding = case.findings[0]
            facts = [case.case_id, case.patient_id, int(fold_of[row]), finding.diameter_mm, finding.truth["malignancy"]]
            given = [f"{probabilities[target][row]:.6f}" for target in TARGETS]
            writer.writerow(
                [*facts, *table.labels[row].astype(int), *given, *(f"{v:.5f}" for v in logits[row].ravel())]
            )
