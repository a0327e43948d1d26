"""Seconds of the LUNA16 score with its bootstrap, and of 10,000 patient bootstraps of AUROC and AUPRC, with peers.

Run: OMP_NUM_THREADS=1 python benchmarks/bench_metrics.py   (needs the development data and a quiet machine)
Writes benchmarks/results/metrics.json. The numbers of both sides are compared, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from spicula.metrics.bootstrap import bootstrap_interval, draws
from spicula.metrics.classification import auprc, auroc
from spicula.metrics.froc import LUNA16_RATES, luna16
from spicula.metrics.hits import Points
from spicula.pipelines.froc_tables import FrocTables, read_froc_tables

RESULTS = Path(__file__).parent / "results" / "metrics.json"
ORACLE = Path(os.environ.get("SPICULA_SHARED", "../shared")) / "data" / "luna16" / "oracle"
RUNS = 5
PATIENTS = 1000


def seconds(call: Callable[[], Any], runs: int) -> tuple[list[float], Any]:
    """Seconds of each run, and what the last one gave."""
    taken, result = [], None
    for _ in range(runs):
        started = time.perf_counter()
        result = call()
        taken.append(time.perf_counter() - started)
    return taken, result


def plain_match(tables: FrocTables) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Scan by scan and finding by finding, as the official script goes: rows (score, hit) and findings of each scan."""
    rows: dict[str, np.ndarray] = {}
    findings: dict[str, int] = {}

    def of(points: Points, scan: str) -> tuple[np.ndarray, np.ndarray]:
        mine = points.scan == scan
        return points.center_xyz_mm[mine], points.value[mine]

    for scan in tables.scans:
        center, score = of(tables.marks, scan)
        if len(score) > 100:
            kept = score > np.sort(score)[::-1][100]
            center, score = center[kept], score[kept]
        left = np.ones(len(score), dtype=bool)
        out = []
        places, diameters = of(tables.nodules, scan)
        for place, diameter in zip(places, diameters, strict=True):
            near = ((center - place) ** 2).sum(axis=1) < (diameter / 2) ** 2
            if near.any():
                out.append((score[near].max(), 1.0))
                left &= ~near
        for place, diameter in zip(*of(tables.excluded, scan), strict=True):
            left &= ~(((center - place) ** 2).sum(axis=1) < ((10.0 if diameter < 0 else diameter) / 2) ** 2)
        out += [(s, 0.0) for s in score[left]]
        rows[scan] = np.array(out).reshape(-1, 2)
        findings[scan] = len(places)
    return rows, findings


def plain_sensitivities(rows: list[np.ndarray], total: int) -> np.ndarray:
    """The curve of some scans' rows, read at the seven rates."""
    together = np.concatenate(rows)
    together = together[np.argsort(-together[:, 0], kind="stable")]
    ends = np.append(np.flatnonzero(np.diff(together[:, 0])), len(together) - 1)
    true = np.append(0, np.cumsum(together[:, 1])[ends])
    false = np.append(0, np.cumsum(1 - together[:, 1])[ends])
    return np.interp(LUNA16_RATES, false / len(rows), true / total)


def plain_luna16(tables: FrocTables, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """The whole score as a plain loop: each resample puts its scans' rows together, sorts them and reads the curve."""
    rows, findings = plain_match(tables)
    scans = np.array(tables.scans)
    value = plain_sensitivities([rows[s] for s in scans], sum(findings.values()))
    drawn = []
    for counts in draws(len(scans), resamples=resamples, seed=0, chunk=1):
        names = np.repeat(scans, counts[0])
        drawn.append(plain_sensitivities([rows[s] for s in names], sum(findings[s] for s in names)))
    return value, np.quantile(np.mean(drawn, axis=1), [0.025, 0.975])


def bench_luna16(resamples: int) -> dict[str, Any]:
    """55,677 marks, score and bootstrap, against the plain loop; the tables are read before."""
    tables = read_froc_tables(
        ORACLE / "dpn26bs32.csv.gz", ORACLE / "newannotations.csv.gz", ORACLE / "newseriesuids.csv.gz",
        excluded=ORACLE / "newannotations_excluded.csv.gz", pad_ids=5,
    )  # fmt: skip
    ours, score = seconds(
        lambda: luna16(tables.marks, tables.nodules, tables.excluded, tables.scans, resamples=resamples), RUNS
    )
    peer, (value, interval) = seconds(lambda: plain_luna16(tables, resamples), 1)
    apart = np.abs(np.array([s.value for s in score.sensitivity]) - value).max()
    ends = np.abs(np.array([score.mean.low, score.mean.high]) - interval).max()
    return {
        "what": f"LUNA16 score of {tables.marks.scan.size} marks in {len(tables.scans)} scans, {resamples} resamples",
        "seconds_median": round(statistics.median(ours), 3),
        "seconds": [round(s, 3) for s in ours],
        "peer": "plain loop in NumPy: each resample joins its scans' rows, sorts them and interpolates, in the same "
        "draws (the official script joins them piece by piece and is slower)",
        "peer_seconds": round(peer[0], 2),
        "times_faster": round(peer[0] / statistics.median(ours), 1),
        "cpm": score.mean.value,
        "interval": [score.mean.low, score.mean.high],
        "largest_difference_of_a_sensitivity": float(apart),
        "largest_difference_of_an_end_of_the_interval": float(ends),
    }


def bench_areas(resamples: int, peer_resamples: int, *, nodules_a_patient: float) -> dict[str, Any]:
    """Patient bootstraps of both areas against scikit-learn in a loop over the same draws."""
    rng = np.random.default_rng(0)
    extra = rng.integers(0, PATIENTS, round((nodules_a_patient - 1) * PATIENTS))
    patient = np.sort(np.concatenate([np.arange(PATIENTS), extra]))
    y = (rng.random(patient.size) < 0.3).astype(int)
    score = rng.normal(y, 1.0)

    def ours() -> Any:
        return [bootstrap_interval(statistic, (y, score), patient, resamples=resamples) for statistic in (auroc, auprc)]

    drawn: list[tuple[float, float]] = []

    def peer() -> None:
        for counts in draws(PATIENTS, resamples=peer_resamples, seed=0, chunk=1):
            rows = np.repeat(np.arange(patient.size), counts[0][patient])
            drawn.append((roc_auc_score(y[rows], score[rows]), average_precision_score(y[rows], score[rows])))

    taken, intervals = seconds(ours, RUNS)
    peer_taken, _ = seconds(peer, 1)
    scaled = peer_taken[0] * resamples / peer_resamples
    same = [bootstrap_interval(s, (y, score), patient, resamples=peer_resamples) for s in (auroc, auprc)]
    ends = np.quantile(np.array(drawn), [0.025, 0.975], axis=0).T
    apart = np.abs(np.array([(i.low, i.high) for i in same]) - ends).max()
    return {
        "what": f"AUROC and AUPRC of {patient.size} nodules of {PATIENTS} patients, {resamples} resamples of patients",
        "seconds_median": round(statistics.median(taken), 3),
        "seconds": [round(s, 3) for s in taken],
        "peer": "scikit-learn's roc_auc_score and average_precision_score in a loop over the same draws; "
        f"{peer_resamples} resamples, scaled to {resamples}",
        "peer_seconds": round(scaled, 2),
        "times_faster": round(scaled / statistics.median(taken), 1),
        "auroc": [intervals[0].value, intervals[0].low, intervals[0].high],
        "auprc": [intervals[1].value, intervals[1].low, intervals[1].high],
        "largest_difference_of_an_end_of_an_interval": float(apart),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--luna16-resamples", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--peer-resamples", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    result = {
        "machine": {"cpu": platform.machine(), "cores": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS")},
        "luna16": bench_luna16(args.luna16_resamples),
        "areas_one_nodule_a_patient": bench_areas(args.resamples, args.peer_resamples, nodules_a_patient=1.0),
        "areas_more_nodules_a_patient": bench_areas(args.resamples, args.peer_resamples, nodules_a_patient=1.5),
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
