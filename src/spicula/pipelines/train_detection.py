"""Train the detector's filter, judge it on a scan and on patients that it never saw, and write its bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.bundle import Bundle, write_bundle
from spicula.core.extras import require
from spicula.datasets import lidc_nodules
from spicula.detectors import blob
from spicula.networks.checkpoint import (
    append_log,
    cosine_rate,
    descend,
    finished_weights,
    resume_checkpoint,
    save_checkpoint,
    save_weights,
    update_average,
)
from spicula.pipelines import detection_crops, evaluate_detection
from spicula.pipelines.detection_augmentation import augmented
from spicula.pipelines.detection_crops import TEST_SCAN, TRAINING_SCANS, Crops
from spicula.pipelines.run_folder import open_run

WIDTHS = (12, 16, 32, 64)

UNCALIBRATED = {"slope": 1.0, "intercept": 0.0}

TARGET = 0.80
"""Sensitivity at 8 false findings a scan that is aimed at."""

FALSE_A_SCAN = 4.0
"""False findings a scan at the operating point."""

MOST_KEPT = 0.993
"""Share of the moving average of the weights that a step keeps, at most."""

FOLD_OF = {TEST_SCAN: 0, "LungFCP-01-0001": 1, "lung1": 2, "lung2": 3}
"""Which fifth of the patients (see :func:`lidc_nodules.patient_folds`) is kept for the test on each scan."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one network is trained: batches, boxes a batch, highest learning rate, focus on hard boxes, threads."""

    steps: int = 900
    batch: int = 64
    rate: float = 4e-3
    focus: float = 1.0
    seed: int = 0
    threads: int = 1
    checkpoint_every: int = 50


def train_detection(
    data: Path,
    out: Path,
    *,
    rounds: int = 3,
    steps: int = 900,
    tested: int = 80,
    seed: int = 0,
    threads: int = 1,
    workers: int = 1,
    report: Callable[[str], None] = print,
) -> Bundle:
    """Train the filter of the nodule detector.

    Each nodule is set into every training scan; the candidates of those scans are what is no nodule. A network is
    trained without each scan in turn and without a fifth of the patients, and finds the nodules of those patients in
    that scan. The one that was trained on all training scans, and tested on :data:`TEST_SCAN`, is shipped: its test
    is of itself. A run that was cut off goes on where it stopped.

    Args:
        data: Folder of the development data (``lidc_nodules``, ``scans``).
        out: The run's folder: ``run.json``, boxes, checkpoints, logs, trials and the bundle ``nodule-detection``.
        rounds: In how many of the scans each nodule is set, one after the other.
        steps: Batches for each of the four networks.
        tested: Most nodules of the test patients that are set into each scan left out, drawn at random.
        seed: Decides all that is random.
        threads: Of torch, in each process.
        workers: Processes; each trains one of the four networks at a time.
        report: Takes one line of progress.

    Returns:
        The bundle.

    Raises:
        MissingExtraError: torch, safetensors or onnx is not installed.
        InputError: The data are not there, or ``out`` is a run with other arguments.
    """
    for module in ("torch", "safetensors", "onnx", "onnxscript"):
        require(module, extra="train")
    recipe = Recipe(steps=steps, seed=seed, threads=threads)
    out.mkdir(parents=True, exist_ok=True)
    arguments = {"data": data.name, "recipe": asdict(recipe), "rounds": rounds, "tested": tested}
    open_run(out, "train detection", {**arguments, "scans": list(TRAINING_SCANS), "test fold of the patients": FOLD_OF})
    report(f"setting nodules into {len(TRAINING_SCANS)} scans")
    crops = detection_crops.load_or_cut(data, out, rounds=rounds, seed=seed, workers=workers)
    report(f"training {len(FOLD_OF)} networks on {len(crops.positive)} boxes")
    jobs = [(data, out, scan, recipe, rounds, tested) for scan in (*TRAINING_SCANS, TEST_SCAN)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for scan in pool.map(_network, jobs):
            report(f"tested on {scan}")
    rows = left_out_rows(crops, lidc_nodules.load_cases(data / "lidc_nodules"), TEST_SCAN)
    return ship(out, fit(crops, rows, out / f"without-{TEST_SCAN}", recipe), crops)


def ship(out: Path, weights: Mapping[str, Any], crops: Crops) -> Bundle:
    """Calibrate, choose the operating point and write the bundle, from the trials of a run.

    Args:
        out: The run's folder.
        weights: Of the network tested on :data:`TEST_SCAN`.
        crops: All boxes.

    Returns:
        The bundle ``nodule-detection`` in the run's folder.
    """
    trials = [t for scan in FOLD_OF for t in evaluate_detection.read_trials(out / f"without-{scan}" / "trials.json")]
    # the test scan decides nothing that is shipped, neither the calibration nor the operating point
    others = [trial for trial in trials if trial.scan != TEST_SCAN]
    calibration = evaluate_detection.calibrate(others)
    metrics = evaluate_detection.summary(trials)
    metrics["calibration held out"] = evaluate_detection.calibration_check(others)
    point = evaluate_detection.operating_point(others, calibration, false_a_scan=FALSE_A_SCAN)
    manifest = _manifest(calibration, _card(metrics, crops), point)
    return write_bundle(out / blob.BUNDLE, manifest, {"network.onnx": _export(weights)})


def _network(job: tuple[Path, Path, str, Recipe, int, int]) -> str:
    """Train and test the network that never sees one of the scans."""
    data, out, scan, recipe, rounds, tested = job
    crops = detection_crops.load_or_cut(data, out, rounds=rounds, seed=recipe.seed)
    _left_out(data, out, crops, scan, recipe, tested=tested)
    return scan


def left_out_rows(crops: Crops, cases: Sequence[Any], scan: str) -> NDArray[np.intp]:
    """Boxes that neither lie in a scan nor show a nodule of its test patients.

    Args:
        crops: All boxes.
        cases: All nodules.
        scan: The scan that is left out.

    Returns:
        Indices of the boxes to train on.
    """
    tested = patients_tested(cases, scan)
    keep = (crops.scan != scan) & ~np.isin(crops.patient, sorted(tested))
    return np.flatnonzero(keep)


def patients_tested(cases: Sequence[Any], scan: str) -> set[str]:
    """Patients whose nodules test the network that was trained without a scan."""
    folds = lidc_nodules.patient_folds(cases)
    return {case.patient_id for case, fold in zip(cases, folds, strict=True) if fold == FOLD_OF[scan]}


def _left_out(data: Path, out: Path, crops: Crops, scan: str, recipe: Recipe, *, tested: int) -> None:
    """Train without a scan and without its test patients, then find their nodules in it."""
    folder = out / f"without-{scan}"
    if not (folder / "trials.json").is_file():
        cases = lidc_nodules.load_cases(data / "lidc_nodules")
        weights = fit(crops, left_out_rows(crops, cases, scan), folder, recipe)
        manifest = _manifest(UNCALIBRATED, {"purpose": f"test on {scan}; not for use"})
        bundle = write_bundle(folder / "bundle", manifest, {"network.onnx": _export(weights)})
        patients = patients_tested(cases, scan)
        chosen = [case for case in cases if case.patient_id in patients]
        drawn = np.random.default_rng(recipe.seed).permutation(len(chosen))[:tested]
        chosen = [chosen[i] for i in sorted(drawn)]
        host = detection_crops.load_host(data, scan, out)
        trials = evaluate_detection.try_scan(host, chosen, data / "lidc_nodules", bundle=bundle, seed=recipe.seed)
        evaluate_detection.write_trials(folder / "trials.json", trials)


def fit(crops: Crops, rows: NDArray[np.intp], folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Train one network, going on from its checkpoint if there is one.

    Args:
        crops: All boxes.
        rows: Those to learn from.
        folder: Where ``checkpoint.safetensors``, ``weights.safetensors`` and ``log.jsonl`` go.
        recipe: How.

    Returns:
        The weights (moving average) by name, as torch tensors.
    """
    torch = require("torch", extra="train")
    done = finished_weights(folder)
    if done is not None:
        return done
    from spicula.networks.nodule_filter import NoduleFilter

    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    network = NoduleFilter(WIDTHS).to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=1e-2)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    first = resume_checkpoint(folder, network, optimizer, average)
    network.train()
    groups = (rows[crops.positive[rows]], rows[~crops.positive[rows]])
    for step in range(first, recipe.steps):
        started = time.perf_counter()
        loss = _learn(network, optimizer, crops, groups, step, recipe)
        update_average(average, network, step=step, most_kept=MOST_KEPT)
        seconds = round(time.perf_counter() - started, 3)
        append_log(folder, {"step": step, "loss": round(loss, 5), "seconds": seconds})
        if (step + 1) % recipe.checkpoint_every == 0:
            save_checkpoint(folder, step + 1, network, optimizer, average)
    save_weights(folder, average)
    return average


def _learn(
    network: Any, optimizer: Any, crops: Crops, groups: Sequence[NDArray[np.intp]], step: int, recipe: Recipe
) -> float:
    """One step on as many nodules as other boxes, those that are judged worst weighted most; returns the loss.

    References:
        Lin et al., Focal loss for dense object detection, ICCV 2017, doi:10.1109/ICCV.2017.324
    """
    torch = require("torch", extra="train")
    for group in optimizer.param_groups:
        group["lr"] = cosine_rate(step, recipe.steps, rate=recipe.rate)
    torch.manual_seed(recipe.seed * 100_003 + step)
    rng = np.random.default_rng((recipe.seed, step))
    chosen = np.concatenate([rng.choice(group, size=recipe.batch // 2) for group in groups])
    image = torch.from_numpy(augmented(crops.images[chosen], crops.slice_mm[chosen], rng))
    truth = torch.from_numpy(crops.positive[chosen].astype(np.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(image.to(memory_format=torch.channels_last_3d))
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits.float()[:, 0], truth, reduction="none")
    loss = ((1 - torch.exp(-each)) ** recipe.focus * each).mean()
    return descend(loss, network, optimizer)


def _export(weights: Mapping[str, Any]) -> bytes:
    torch = require("torch", extra="train")
    require("onnx", extra="train")
    from spicula.networks.export import to_onnx
    from spicula.networks.nodule_filter import NoduleFilter

    network = NoduleFilter(WIDTHS)
    network.load_state_dict(dict(weights))
    return to_onnx(network, torch.zeros(2, 2, blob.SIDE, blob.SIDE, blob.SIDE))


def _manifest(
    calibration: Mapping[str, float], card: Mapping[str, Any], point: Mapping[str, float] | None = None
) -> dict[str, Any]:
    preprocessing = {
        "boxes": {"voxels": blob.SIDE, "near_spacing_mm": blob.NEAR_MM, "far_spacing_mm": blob.FAR_MM},
        "window_hu": [blob.AIR_HU, blob.TISSUE_HU],
        "beyond_the_scan": "outermost voxels repeated",
        "calibration": dict(calibration),
    }
    return {
        "name": blob.BUNDLE, "version": version("spicula"), "task": "detection", "preprocessing": preprocessing,
        "outputs": {"logit": "a candidate is a nodule", "operating_point": dict(point or {})}, "card": dict(card),
    }  # fmt: skip


def _card(metrics: Mapping[str, Any], crops: Crops) -> dict[str, Any]:
    return {
        "intended_use": "Research: proposes places in a chest CT where a nodule of 3 to 70 mm may be. Not a medical "
        "device.",
        "data": [
            {"name": "LIDC-IDRI", "licence": "CC BY 3.0", "doi": "10.7937/K9/TCIA.2015.LO9QL9SX",
             "use": f"{int(crops.positive.sum())} insertions of nodules of 441 patients, those of four fifths of "
             "the patients trained on; never LIDC-IDRI-0001"},
            {"name": "Lung-Fused-CT-Pathology", "licence": "CC BY 3.0", "doi": "10.7937/K9/TCIA.2018.SMT36LPN",
             "use": "LungFCP-01-0001: lung that receives nodules; candidates below its apices as what is no nodule"},
            {"name": "PyRadiomics sample CTs lung1 and lung2", "licence": "BSD-3-Clause",
             "doi": "10.1158/0008-5472.CAN-17-0339",
             "use": "lung that receives nodules; candidates outside the labels as what is no nodule"},
        ],
        "licence": "Apache-2.0 (weights); the data they were trained on: CC BY 3.0 and BSD-3-Clause, named above",
        "metrics": dict(metrics),
        "limits": [
            _against_target(metrics["all"]),
            "What is no nodule was learned from three scans; on other scanners more false findings must be expected.",
            "Sensitivity was measured with real nodules set into real scans, four in all; ground glass and nodules "
            "under 6 mm are found less.",
            "The trials on LungFCP-01-0001, lung1 and lung2 were in view when the rules for candidates, masses and the "
            "ends of a scan were made; those on LIDC-IDRI-0001 decided nothing.",
            "LungFCP-01-0001 has an unmarked lesion at an apex, which counts as a false finding.",
            "Vessels, and tissue at the hilum or the heart's border, may be listed, also as masses.",
            "Nodules within the mediastinum or hilum, and those in collapsed lung, are not looked for.",
        ],
    }  # fmt: skip


def _against_target(rates: Mapping[str, Any]) -> str:
    """The target, and whether it was met, in a sentence."""
    row = rates["sensitivity at 8 false a scan"]
    low, high = row["interval_95"]
    said = "met" if row["value"] >= TARGET else "missed"
    found = f"{row['value']:.3f} ({low:.3f} to {high:.3f})"
    return f"The target of {TARGET:.2f} at 8 false findings a scan is {said}: {found}."
