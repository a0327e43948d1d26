"""How good the risk model is, and what it does not depend on: ``benchmarks/results/risk.json`` from a run folder.

python benchmarks/bench_risk.py RUN      (RUN: the folder of ``spicula train risk``; the package's bundle is the one
                                          that the run wrote; needs SPICULA_SHARED and the package xlrd)
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xlrd
from sklearn.linear_model import LogisticRegression

from spicula.classifiers import risk
from spicula.core.bundle import load_bundle
from spicula.core.finding import Case
from spicula.core.volume import Volume
from spicula.datasets import lidc_nodules
from spicula.formats import read_volume
from spicula.measure.segment import outline
from spicula.metrics.bootstrap import bootstrap_difference, bootstrap_interval
from spicula.metrics.classification import auroc
from spicula.pipelines.risk_evaluation import difference, evaluate, fold_mean, rounded
from spicula.pipelines.train_risk import WEIGHTS
from spicula.runtime.openvino import load_network

RESULT = Path(__file__).parent / "results" / "risk.json"
SHARED = Path(os.environ.get("SPICULA_SHARED", "../shared")).resolve() / "data"
Scorer = Callable[[Volume, Sequence[float]], float]


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def out_of_fold(rows: list[dict[str, str]]) -> dict[str, Any]:
    fold_of = column(rows, "fold").astype(np.intp)
    patients = np.array([row["patient_id"] for row in rows])
    labels = {target: column(rows, f"{target}_label") for target in risk.TARGETS}
    mixed = {
        target: WEIGHTS[0] * column(rows, f"{target}_kernel_logit")
        + WEIGHTS[1] * column(rows, f"{target}_network_logit")
        for target in risk.TARGETS
    }
    found = evaluate(
        labels,
        {target: column(rows, target) for target in risk.TARGETS},
        scores=mixed,
        fold_of=fold_of,
        patients=patients,
        diameter_mm=column(rows, "diameter_mm"),
        rating=column(rows, "rating"),
    )
    for judge in ("kernel", "network"):
        scores = {target: column(rows, f"{target}_{judge}_logit") for target in risk.TARGETS}
        found[f"{judge}_alone"] = {
            target: {
                "auroc": round(auroc(labels[target], scores[target]), 4),
                "auroc_mean_of_folds": round(fold_mean(labels[target], scores[target], fold_of), 4),
            }
            for target in risk.TARGETS
        }
        gain = bootstrap_difference(
            auroc,
            labels["malignancy"],
            mixed["malignancy"],
            scores["malignancy"],
            patients,
            resamples=2000,
        )
        found[f"{judge}_alone"]["gain_of_both_over_it"] = difference(gain)
    return found


def extents_alone(cases: Sequence[Case], rows: list[dict[str, str]]) -> dict[str, Any]:
    """What the size of the small volumes alone would score: the trap that the model must not step into."""
    sizes = np.array([np.multiply(g.shape_zyx, g.spacing_zyx_mm) for g in (c.load_volume().geometry for c in cases)])
    y, fold_of = column(rows, "malignancy_label"), column(rows, "fold").astype(np.intp)
    logs, score = np.log(sizes), np.zeros(len(y))
    for fold in np.unique(fold_of):
        rest = fold_of != fold
        score[~rest] = LogisticRegression().fit(logs[rest], y[rest]).decision_function(logs[~rest])
    return {
        "depth_mm": round(auroc(y, sizes[:, 0]), 4),
        "depth_height_width_logistic_in_folds": round(auroc(y, score), 4),
    }


def proven(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Patients with a diagnosis: the highest risk among a patient's nodules against benign (1) or malignant (2, 3)."""
    sheet = xlrd.open_workbook(SHARED / "lidc_xml" / "tcia-diagnosis-data-2012-04-20.xls").sheet_by_index(0)
    truth = {str(sheet.cell_value(r, 0)): int(sheet.cell_value(r, 1)) for r in range(1, sheet.nrows)}
    patients = sorted({row["patient_id"] for row in rows} & {p for p, d in truth.items() if d})
    y = np.array([float(truth[p] > 1) for p in patients])

    def highest(name: str) -> np.ndarray:
        return np.array([max(float(row[name]) for row in rows if row["patient_id"] == p) for p in patients])

    scores, diameter = highest("malignancy"), highest("diameter_mm")
    return {
        "patients": len(patients),
        "malignant": int(y.sum()),
        "auroc": rounded(bootstrap_interval(auroc, [y, scores], resamples=2000)),
        "largest_diameter_alone": rounded(bootstrap_interval(auroc, [y, diameter], resamples=2000)),
    }


def shipped_scorer() -> Scorer:
    model = risk.load_risk(load_bundle("nodule-risk"))
    network = load_network(load_bundle("nodule-outline"), threads=1)

    def score(volume: Volume, center: Sequence[float]) -> float:
        mask = outline(volume, center, network=network)
        return risk.predict(volume, center, mask, model=model, finding_id="")[0].probability

    return score


def whole_scan(score: Scorer) -> dict[str, Any]:
    cases = lidc_nodules.load_cases(SHARED / "lidc_nodules", with_test_patient=True)
    case = next(c for c in cases if c.patient_id == lidc_nodules.TEST_PATIENT)
    center = case.findings[0].center_xyz_mm
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(SHARED / "scans" / "LIDC-IDRI-0001.tar.xz") as tar:
            tar.extractall(folder, filter="data")
        series = {path.parent for path in Path(folder).rglob("*.dcm")}
        whole = score(read_volume(max(series, key=lambda p: len(list(p.glob("*.dcm"))))), center)
    small = score(case.load_volume(), center)
    return {"small_volume": round(small, 4), "whole_series": round(whole, 4), "difference": round(whole - small, 4)}


def changes(cases: Sequence[Case], score: Scorer, *, most: int) -> dict[str, Any]:
    """How far the probability moves with a volume cut at the readers' outline, and with a center that is 3 mm off."""
    cut_by, moved_by = [], []
    rng = np.random.default_rng(0)
    for case in [cases[i] for i in rng.permutation(len(cases))]:
        volume, mask = case.load_volume(), lidc_nodules.load_mask(SHARED / "lidc_nodules", case.case_id)
        used = np.flatnonzero(mask.array_zyx.any(axis=(1, 2)))
        first, last = int(used[0]), int(used[-1]) + 1
        if first == 0 or last == len(mask.array_zyx):
            continue
        center = case.findings[0].center_xyz_mm
        before = score(volume, center)
        shape = volume.array_zyx.shape
        grid = volume.geometry.crop((first, 0, 0), (last, *shape[1:]))
        cut_by.append(score(Volume(volume.array_zyx[first:last], grid), center) - before)
        off = rng.normal(size=3)
        point = np.asarray(center) + 3 * off / np.linalg.norm(off)
        if volume.geometry.contains(point):
            moved_by.append(score(volume, point.tolist()) - before)
        if len(cut_by) == most:
            break
    return {"cut_at_the_outline": spread(cut_by), "center_off_by_3_mm": spread(moved_by)}


def spread(values: list[float]) -> dict[str, Any]:
    size = np.abs(values)
    return {
        "nodules": len(values),
        "mean": round(float(np.mean(values)), 4),
        "mean_absolute": round(float(size.mean()), 4),
        "p95_absolute": round(float(np.percentile(size, 95)), 4),
    }


def milliseconds(cases: Sequence[Case], score: Scorer) -> float:
    loaded = [(case.load_volume(), case.findings[0].center_xyz_mm) for case in cases[:40]]
    started = time.perf_counter()
    for volume, center in loaded:
        score(volume, center)
    return round((time.perf_counter() - started) / len(loaded) * 1000, 1)


def seconds_of_networks(run: Path) -> float:
    """Seconds of all epochs, by the logs; where a run was stopped, or went on from another, all count."""
    lines = [line for log in run.glob("folds/*/*/log.jsonl") for line in log.read_text(encoding="utf-8").splitlines()]
    return round(sum(json.loads(line)["seconds"] for line in lines), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    cases = lidc_nodules.load_cases(SHARED / "lidc_nodules")
    score = shipped_scorer()
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    result = {
        "bundle": load_bundle("nodule-risk").fingerprint,
        "outlines": load_bundle("nodule-outline").fingerprint,
        "run": {
            "arguments": facts["arguments"],
            "fingerprint": facts["finished"]["fingerprint"],
            "seconds_of_the_networks": seconds_of_networks(run),
        },
        "out_of_fold": out_of_fold(rows),
        "extents_of_the_small_volumes_alone": extents_alone(cases, rows),
        "proven_diagnosis": proven(rows),
        "whole_scan_of_LIDC-IDRI-0001": whole_scan(score),
        "change_of_probability_of_the_shipped_model": changes(cases, score, most=120),
        "milliseconds_a_nodule_outline_included": milliseconds(cases, score),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
