"""How good the model of images and words is: ``benchmarks/results/semantic.json`` from a run folder.

python benchmarks/bench_semantic.py RUN --risk-run RISK [--ablations JOB]      (needs SPICULA_SHARED)

RUN and RISK are the folders of ``spicula train semantic`` and ``spicula train risk`` on the same outlines, JOB that of
``spicula train ablations``; the package's bundle is the one that RUN wrote.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench_risk import whole_scan
from spicula.classifiers import semantic
from spicula.core.bundle import load_bundle
from spicula.core.files import written_aside
from spicula.core.finding import Case
from spicula.core.volume import Volume
from spicula.core.words import CLEAR
from spicula.datasets import lidc_nodules
from spicula.explain.lidc_classes import QUESTION_OF_TRAIT
from spicula.measure.segment import outline
from spicula.runtime.openvino import load_network

RESULT = Path(__file__).parent / "results" / "semantic.json"
SHARED = Path(os.environ.get("SPICULA_SHARED", "../shared")).resolve() / "data"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def disagreements(run: Path, risk_run: Path) -> dict[str, Any]:
    """How often words clearly say the opposite of a trait that is at 0.8 or more, or 0.2 or less, and who is right."""
    theirs = {row["case_id"]: row for row in read(risk_run / "predictions.csv")}
    found = {}
    for trait, (question, name) in QUESTION_OF_TRAIT.items():
        rows = [
            (float(theirs[row["case_id"]][trait]), float(row[f"{question}:{name}"]), theirs[row["case_id"]])
            for row in read(run / "predictions.csv")
        ]
        sure = [(t, w, float(r[f"{trait}_label"])) for t, w, r in rows if t >= 0.8 or t <= 0.2]
        clash = [(t, w, y) for t, w, y in sure if (t >= 0.8 and w <= 1 - CLEAR) or (t <= 0.2 and w >= CLEAR)]
        right = sum((t > 0.5) == (y > 0.5) for t, _, y in clash)
        found[trait] = {"sure": len(sure), "disagree": len(clash), "of_these_the_trait_is_right": right}
    return found


def lost(run: Path) -> dict[str, Any]:
    """What is left of the alignment where each nodule was trained with the words of another one."""
    found = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    recipe = json.loads((run / "run.json").read_text(encoding="utf-8"))["arguments"]["recipe"]
    asked = found["zero_shot"]["templates"]["score"]
    return {
        "epochs": recipe["epochs"],
        "networks": recipe["networks"],
        "zero_shot": {question: answer["auroc_mean_of_folds"] for question, answer in asked.items()},
        "image_to_text": found["image_to_text"],
    }


def shipped_scorer() -> Any:
    model = semantic.load_semantic(load_bundle("nodule-semantic"))
    network = load_network(load_bundle("nodule-outline"), threads=1)

    def score(volume: Volume, center: Sequence[float]) -> float:
        mask = outline(volume, center, network=network)
        seen = semantic.see(volume, center, mask, model=model)
        return semantic.malignancy(seen, model=model, finding_id="").probability

    return score


def milliseconds(cases: Sequence[Case]) -> dict[str, Any]:
    """Of one nodule, outlined before, and of the ensemble on its planes; two threads, median, after a first round."""
    model = semantic.load_semantic(load_bundle("nodule-semantic"), threads=2)
    network = load_network(load_bundle("nodule-outline"), threads=1)
    loaded = []
    for case in cases[:30]:
        volume, center = case.load_volume(), case.findings[0].center_xyz_mm
        loaded.append((volume, center, outline(volume, center, network=network)))
    parts: dict[str, list[float]] = {"all": [], "ensemble": []}
    for count in range(2):
        for volume, center, mask in loaded:
            started = time.perf_counter()
            seen = semantic.see(volume, center, mask, model=model)
            semantic.malignancy(seen, model=model, finding_id="")
            parts["all"] += [time.perf_counter() - started] if count else []
            planes = np.zeros((2, 9, 3, 48, 48), dtype=np.float32)
            started = time.perf_counter()
            model.image(planes)
            parts["ensemble"] += [time.perf_counter() - started] if count else []
    return {name: round(1000 * float(np.median(values)), 1) for name, values in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--risk-run", type=Path, required=True)
    parser.add_argument("--ablations", type=Path)
    parser.add_argument("--shuffled", type=Path, help="run folder of a training with the words of other nodules")
    given = parser.parse_args()
    bundle = load_bundle("nodule-semantic")
    facts = json.loads((given.run / "run.json").read_text(encoding="utf-8"))
    cases = lidc_nodules.load_cases(SHARED / "lidc_nodules")
    result = {
        "machine": platform.machine(),
        "bundle": bundle.fingerprint,
        "bundle_mb": round(sum((bundle.folder / name).stat().st_size for name in bundle.manifest["files"]) / 1e6, 2),
        "run": {"arguments": facts["arguments"], "fingerprint": facts["finished"]["fingerprint"]},
        "out_of_fold": json.loads((given.run / "evaluation.json").read_text(encoding="utf-8")),
        "words_against_traits": disagreements(given.run, given.risk_run),
        "whole_scan_of_LIDC-IDRI-0001": whole_scan(shipped_scorer()),
        "milliseconds_a_nodule_outlined_before": milliseconds(cases),
    }
    if given.shuffled:
        result["trained_with_the_words_of_other_nodules"] = lost(given.shuffled)
    if given.ablations:
        result["ablations"] = json.loads((given.ablations / "ablations.json").read_text(encoding="utf-8"))
    with written_aside(RESULT) as aside:
        aside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in result.items() if key not in ("out_of_fold", "run")}, indent=1))


if __name__ == "__main__":
    main()
