"""Train the outline network, judge it on patients it never saw, and write its bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.bundle import Bundle, load_bundle, write_bundle
from spicula.core.extras import require
from spicula.core.files import written_aside
from spicula.core.finding import Case
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_nodules
from spicula.measure import segment
from spicula.metrics.segmentation import dice
from spicula.pipelines import outline_crops
from spicula.pipelines.outline_fit import WIDTHS, Recipe, fit
from spicula.pipelines.run_folder import open_run, write_json
from spicula.runtime.openvino import load_network

NAME = "nodule-outline"

SHIFT_MM = (2.0, 5.0)
"""How far the center is moved at least and at most where steadiness is judged."""

Report = Callable[[str], None]


def train_outline(
    data: Path,
    out: Path,
    *,
    background: Volume | None = None,
    folds: int = 5,
    steps: int = 1000,
    batch: int = 8,
    variants: int = 10,
    seed: int = 0,
    threads: int = 1,
    limit: int | None = None,
    report: Report = print,
) -> Bundle:
    """Train one network for each patient fold and a last one on all nodules; go on where a killed run stopped.

    The last one goes on from the first fold's weights, for half as many steps at a third of the learning rate.

    ``out`` then holds ``run.json`` (arguments, versions, commit, seconds), ``folds/<k>/`` (weights, log, bundle),
    ``outlines/<case_id>.npz`` (``mask`` on the small volume's grid, by the network that never saw the patient; of
    patient LIDC-IDRI-0001 by the last one), ``evaluation.json`` (Dice of every nodule) and ``nodule-outline/``.

    Args:
        data: Folder ``lidc_nodules``.
        out: The run folder.
        background: A whole scan without marked nodules whose lung surrounds some training nodules.
        folds: Number of patient folds.
        steps: Batches for each network.
        batch: Boxes in a batch.
        variants: Random boxes that are cut for each nodule.
        seed: Of all random choices.
        threads: Threads of torch and of OpenVINO.
        limit: Only the first nodules, for a trial.
        report: Takes one line of progress.

    Returns:
        The bundle of the last network.

    Raises:
        InputError: ``data`` is no such folder, or ``out`` is a run with other arguments.
        MissingExtraError: torch, safetensors or onnx is not installed.
    """
    for module in ("torch", "safetensors", "onnx", "onnxscript"):
        require(module, extra="train")
    cases = lidc_nodules.load_cases(data)[:limit]
    recipe = Recipe(steps=steps, batch=batch, seed=seed, threads=threads)
    run = open_run(
        out,
        "train outline",
        {**asdict(recipe), "folds": folds, "variants": variants, "limit": limit, **_data_facts(cases, background)},
    )
    crops = outline_crops.load_or_cut(
        data, out / "crops", variants=variants, seed=seed, background=background, limit=limit
    )
    fold_of = lidc_nodules.patient_folds(cases, folds=folds)
    rows = []
    for fold in range(folds):
        report(f"outline network without fold {fold + 1} of {folds}")
        bundle = _train_one(crops, np.flatnonzero(fold_of != fold), out / "folds" / str(fold), recipe)
        held_out = [case for case, of in zip(cases, fold_of, strict=True) if of == fold]
        rows += judge(held_out, data, bundle, out / "outlines", fold=fold, threads=threads)
    report("outline network on all nodules")
    more = replace(recipe, steps=max(1, steps // 2), rate=recipe.rate / 3, seed=seed + 1)
    first = out / "folds" / "0" / "weights.safetensors"
    bundle = _train_one(crops, np.arange(len(cases)), out / "folds" / "all", more, start=first)
    test = [
        c for c in lidc_nodules.load_cases(data, with_test_patient=True) if c.patient_id == lidc_nodules.TEST_PATIENT
    ]
    judge(test, data, bundle, out / "outlines", fold=-1, threads=threads)
    metrics = summarize(rows)
    write_json(out / "evaluation.json", {"summary": metrics, "nodules": rows})
    manifest = {**_manifest(), "card": _card(metrics, len(cases), len({case.patient_id for case in cases}), background)}
    network = bundle.file("network.onnx").read_bytes()
    final = write_bundle(out / NAME, manifest, {"network.onnx": network})
    run["finished"] = {"fingerprint": final.fingerprint, "seconds": round(time.time() - run["started"], 1)}
    write_json(out / "run.json", run)
    report(
        f"median Dice {metrics['dice']['median']:.3f}, tenth percentile {metrics['dice']['p10']:.3f}: {final.folder}"
    )
    return final


def _train_one(
    crops: outline_crops.Crops, rows: NDArray[np.intp], folder: Path, recipe: Recipe, *, start: Path | None = None
) -> Bundle:
    """One network as a bundle without a card of its own; an existing one is opened."""
    place = folder / "bundle"
    if (place / "bundle.json").is_file():
        return load_bundle(place)
    weights = fit(crops, rows, folder, recipe, start=start)
    torch = require("torch", extra="train")
    from spicula.networks.export import to_onnx
    from spicula.networks.unet import UNet

    network = UNet(segment.CHANNELS, widths=WIDTHS)
    network.load_state_dict(weights)
    content = to_onnx(network, torch.zeros(2, segment.CHANNELS, *segment.BOX_SHAPE_ZYX))
    return write_bundle(place, {**_manifest(), "card": {"note": "one fold"}}, {"network.onnx": content})


def judge(
    cases: Sequence[Case], data: Path, bundle: Bundle, folder: Path, *, fold: int, threads: int = 1
) -> list[dict[str, Any]]:
    """Outline nodules from their center points, exact and shifted, and compare with the readers' masks.

    Args:
        cases: The nodules.
        data: Folder ``lidc_nodules``.
        bundle: A network that saw none of their patients.
        folder: Where ``<case_id>.npz`` goes (``mask``, bool, on the small volume's grid, from the exact center).
        fold: Noted in the rows.
        threads: Inference threads.

    Returns:
        One row a nodule: ids, diameter (mm, of the sphere of the mask's volume), Dice, and Dice from a center that is
        a quarter of the diameter off, at least 2 mm and at most 5 mm.
    """
    network = load_network(bundle, threads=threads)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in cases:
        volume, truth = case.load_volume(), lidc_nodules.load_mask(data, case.case_id)
        center = np.asarray(case.findings[0].center_xyz_mm)
        found = segment.outline(volume, center.tolist(), network=network)
        with written_aside(folder / f"{case.case_id}.npz") as path, path.open("wb") as stream:
            np.savez_compressed(stream, mask=on_grid_of(found, volume))
        diameter = (6.0 / np.pi * truth.volume_mm3) ** (1 / 3)
        row = {"case_id": case.case_id, "patient_id": case.patient_id, "fold": fold, "diameter_mm": round(diameter, 2)}
        row["dice"] = round(dice(found, truth), 4)
        moved = _shifted(center, case.case_id, float(np.clip(diameter / 4, *SHIFT_MM)), volume)
        row["dice_shifted"] = round(dice(segment.outline(volume, moved, network=network), truth), 4)
        rows.append(row)
    return rows


def _shifted(center: NDArray[np.float64], name: str, by_mm: float, volume: Volume) -> list[float]:
    """A point a given distance off in a direction that the name decides, shortened until it is inside the volume."""
    direction = np.random.default_rng(list(name.encode())).normal(size=3)
    step = by_mm * direction / np.linalg.norm(direction)
    while not volume.geometry.contains(center + step):
        step = step * 0.7
    return [float(v) for v in center + step]


def on_grid_of(mask: Mask, volume: Volume) -> NDArray[np.bool_]:
    """A mask on a crop of a volume's grid, as a bool array of the volume's shape."""
    start = np.rint(volume.geometry.world_to_index(mask.geometry.origin_xyz_mm)).astype(int)
    whole = np.zeros(volume.geometry.shape_zyx, dtype=np.bool_)
    whole[tuple(slice(a, a + n) for a, n in zip(start, mask.array_zyx.shape, strict=True))] = mask.array_zyx
    return whole


def summarize(rows: Sequence[Mapping[str, Any]], *, resamples: int = 2000) -> dict[str, Any]:
    """Median and tenth percentile of each Dice column of the rows, with 95 % intervals over patients."""
    patients = np.array([row["patient_id"] for row in rows])
    result: dict[str, Any] = {"nodules": len(rows), "patients": len(set(patients.tolist()))}
    members = [np.flatnonzero(patients == patient) for patient in sorted(set(patients.tolist()))]
    rng = np.random.default_rng(0)
    drawn = [
        np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))]) for _ in range(resamples)
    ]
    for column in (name for name in rows[0] if name.startswith("dice")):
        values = np.array([row[column] for row in rows], dtype=np.float64)
        numbers: dict[str, Any] = {"mean": round(float(values.mean()), 4)}
        for name, level in (("median", 50), ("p10", 10)):
            low, high = np.percentile([np.percentile(values[d], level) for d in drawn], [2.5, 97.5])
            numbers[name] = round(float(np.percentile(values, level)), 4)
            numbers[f"{name}_interval_95"] = [round(float(low), 4), round(float(high), 4)]
        result[column] = numbers
    return result


def _data_facts(cases: Sequence[Case], background: Volume | None) -> dict[str, Any]:
    source = (background.series_uid or background.acquisition.source) if background else None
    return {"nodules": len(cases), "patients": len({case.patient_id for case in cases}), "background": source}


def _manifest() -> dict[str, Any]:
    return {
        "name": NAME,
        "version": "1",
        "task": "outline",
        "preprocessing": {
            "box_shape_zyx": list(segment.BOX_SHAPE_ZYX),
            "slice_ratio": segment.SLICE_RATIO,
            "first_spacings_mm": list(segment.FIRST_SPACINGS_MM),
            "voxels_across": segment.VOXELS_ACROSS,
            "fine_spacing_mm": list(segment.FINE_SPACING_MM),
            "axes": "LPS: axis 0 to the head, 1 to the back, 2 to the left",
            "beyond_the_volume": "the nearest voxel",
            "channels": [
                "(HU + 500) / 500, -1 to 1.2",
                "(HU - 50) / 200, -1 to 1.5",
                "distance from the middle, 1 at a wall",
                "log2 of the box's in-plane spacing in mm",
                "half the log2 of slice distance over that spacing",
            ],
        },
        "outputs": ["logit of being inside the nodule, on the grid of the box; 0 is the border"],
    }


def _card(metrics: Mapping[str, Any], nodules: int, patients: int, background: Volume | None) -> dict[str, Any]:
    sources = [
        {
            "name": "LIDC-IDRI",
            "what": f"small volumes and reader masks, {nodules} nodules of {patients} patients, without LIDC-IDRI-0001",
            "doi": "10.7937/K9/TCIA.2015.LO9QL9SX",
            "licence": "CC BY 3.0",
            "attribution": "Armato SG 3rd et al., Data From LIDC-IDRI, The Cancer Imaging Archive, 2015",
        }
    ]
    if background is not None:
        sources.append(
            {
                "name": "Lung-Fused-CT-Pathology",
                "what": "lung of one scan as surroundings of some training nodules",
                "doi": "10.7937/K9/TCIA.2018.SMT36LPN",
                "licence": "CC BY 3.0",
                "attribution": "Madabhushi A, Rusu M, Fused Radiology-Pathology Lung Dataset, TCIA, 2018",
            }
        )
    return {
        "data": sources,
        "licence": "Apache-2.0 (weights); the data they were trained on: CC BY 3.0, attribution above",
        "metrics": {
            "what": "Dice against the readers' mask, from the center point alone, patient-grouped cross-validation; "
            "95 % bootstrap intervals over patients; shifted: from a point a quarter of the diameter off, at least 2 "
            "and at most 5 mm",
            **metrics,
        },
        "intended_use": "Research: measuring a nodule or mass in chest CT that a reader or a detector pointed at.",
        "limits": [
            "Not a medical device.",
            "The small volumes end where the readers' outline ends: Dice within them is flattered; the whole-scan "
            "figures of the benchmark are lower.",
            "Trained on nodules of 4 to 32 mm (diameter of the sphere of equal volume); masses beyond that are seen at "
            "a coarser spacing only.",
            "Faint ground-glass nodules and nodules that spread along the pleura agree least with the readers.",
            "A point on no nodule still gives an outline.",
        ],
    }
