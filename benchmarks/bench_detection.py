"""The nodule detector: sensitivity with inserted nodules, the real nodules of whole scans, seconds of each stage.

Run: python benchmarks/bench_detection.py RUN   (the folder of `train_detection`; needs the development data)
Writes benchmarks/results/detection.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from spicula.core.bundle import Bundle, load_bundle
from spicula.detectors import blob
from spicula.measure.blobs import find_candidates
from spicula.measure.lungs import segment_lungs
from spicula.pipelines import evaluate_detection
from spicula.pipelines.detection_crops import TEST_SCAN, TRAINING_SCANS, Host, load_host
from spicula.pipelines.train_detection import FOLD_OF

RESULTS = Path(__file__).parent / "results" / "detection.json"
DATA = Path(os.environ.get("SPICULA_SHARED", "../shared")) / "data"
ROLES = {
    TEST_SCAN: "test only: the shipped filter saw neither it nor the patients whose nodules are set into it",
    "LungFCP-01-0001": "training: lung for insertions, candidates below its apices as what is no nodule; no marks, so "
    "every finding of its own counts as false",
    "lung1": "training: lung for insertions, candidates outside the label as what is no nodule",
    "lung2": "training: lung for insertions, candidates outside the label as what is no nodule",
}
RUNS = 3


def recalibrated(bundle: Bundle, shipped: Bundle) -> Bundle:
    """The same network with the shipped calibration and operating point."""
    preprocessing = {**bundle.preprocessing, "calibration": shipped.preprocessing["calibration"]}
    return Bundle(bundle.folder, {**bundle.manifest, "preprocessing": preprocessing})


def own_nodules(host: Host, bundle: Bundle, least_score: float) -> dict[str, object]:
    """Rank and distance of the scan's own nodule among the findings, and how many others are listed."""
    findings = blob.detect(host.volume, bundle=bundle, lungs=host.lungs, limit=100, least_score=0.0)
    listed = sum((f.score or 0) >= least_score for f in findings)
    if not host.known:
        return {"findings at the operating point": listed}
    known = host.known[0]
    gaps = [float(np.linalg.norm(np.subtract(f.center_xyz_mm, known.center_xyz_mm))) for f in findings]
    rank = next((n for n, gap in enumerate(gaps) if gap < 10), None)
    result: dict[str, object] = {
        "diameter_mm": round(float(known.diameter_mm or 0), 1),
        "rank": None if rank is None else rank + 1,
        "findings at the operating point": listed,
    }
    if rank is not None:
        result |= {"distance_mm": round(gaps[rank], 2), "score": round(float(findings[rank].score or 0), 4)}
    return result


def steps(curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of the points with one sensitivity, the one with fewest false findings."""
    return [here for here, before in zip(curve, [(0.0, -1.0), *curve], strict=False) if here[1] > before[1]]


def at_point(trials: list[evaluate_detection.Trial], shipped: Bundle) -> dict[str, float]:
    """Sensitivity and false findings a scan at the shipped operating point."""
    least, found = blob.operating_point(shipped), evaluate_detection.outcomes(trials)
    calibration = shipped.preprocessing["calibration"]
    true = np.isfinite(found.best) & (evaluate_detection.calibrated(np.maximum(found.best, 0), calibration) >= least)
    false = evaluate_detection.calibrated(found.false, calibration) >= least
    return {"sensitivity": round(float(true.mean()), 4), "false a scan": round(float(false.sum()) / len(trials), 2)}


def seconds(host: Host, bundle: Bundle) -> dict[str, float]:
    """Median seconds of each stage on one scan, models already open."""
    stages: dict[str, list[float]] = {"lungs": [], "candidates": [], "boxes": [], "network": [], "detect": []}
    for _ in range(RUNS + 1):
        marks = [time.perf_counter()]
        lungs = segment_lungs(host.volume)
        marks.append(time.perf_counter())
        candidates = blob.strongest(find_candidates(host.volume, lungs))
        marks.append(time.perf_counter())
        images = blob.boxes(host.volume, [c.center_xyz_mm for c in candidates])
        marks.append(time.perf_counter())
        blob.judge(images, bundle)
        marks.append(time.perf_counter())
        blob.detect(host.volume, bundle=bundle)
        marks.append(time.perf_counter())
        for name, value in zip(stages, np.diff(marks), strict=True):
            stages[name].append(float(value))
    return {name: round(statistics.median(values[1:]), 3) for name, values in stages.items()}


def inserted_nodules(trials: list[evaluate_detection.Trial]) -> dict[str, object]:
    """Sensitivities and the curve."""
    return {
        "how": "one scan left out at a time, and a fifth of the patients with it; their nodules are set into that "
        "scan; a finding within a nodule's radius is true; the scan's own marked nodule counts neither way; "
        "95 % intervals: patients and copies of scans drawn again, within each scan",
        "target": "0.80 at 8 false a scan",
        **evaluate_detection.summary(trials),
        "curve (false a scan, sensitivity)": steps(evaluate_detection.curve(trials)),
    }


def main() -> None:
    run = Path(sys.argv[1])
    shipped = load_bundle(blob.BUNDLE)
    trials = [t for scan in FOLD_OF for t in evaluate_detection.read_trials(run / f"without-{scan}" / "trials.json")]
    hosts = {name: load_host(DATA, name, run) for name in (TEST_SCAN, *TRAINING_SCANS)}
    least = blob.operating_point(shipped)
    unseen = {name: recalibrated(load_bundle(run / f"without-{name}" / "bundle"), shipped) for name in hosts}
    result = {
        "bundle": shipped.fingerprint,
        "run": json.loads((run / "run.json").read_text()),
        "roles": ROLES,
        "inserted nodules": inserted_nodules(trials),
        "calibration, one scan held out": evaluate_detection.calibration_check(
            [trial for trial in trials if trial.scan != TEST_SCAN]
        ),
        "operating point": {
            "shipped": shipped.manifest["outputs"]["operating_point"],
            "by scan": {scan: at_point([t for t in trials if t.scan == scan], shipped) for scan in FOLD_OF},
        },
        "own nodules": {
            name: {
                "shipped filter": own_nodules(host, shipped, least),
                "filter that never saw the scan": own_nodules(host, unseen[name], least),
            }
            for name, host in hosts.items()
        },
        "seconds on LIDC-IDRI-0001": seconds(hosts[TEST_SCAN], shipped),
        "load average": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: result[k] for k in ("own nodules", "seconds on LIDC-IDRI-0001")}, indent=1))
    print(json.dumps(result["inserted nodules"]["all"], indent=1))


if __name__ == "__main__":
    main()
