"""How well embeddings find nodules that are alike: ``benchmarks/results/retrieval.json`` from a run folder.

python benchmarks/bench_retrieval.py RUN      (after ``spicula train retrieval --out RUN``)

The numbers are those that ``train retrieval`` judged with patients apart; beside them stands what the pretrainings
took, and how large bundle and index are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from spicula.core.bundle import load_bundle
from spicula.networks.checkpoint import LOG
from spicula.pipelines.run_folder import write_json
from spicula.pipelines.search_bundle import INDEX, NAME
from spicula.pipelines.train_retrieval import ENCODERS, EVALUATION
from spicula.retrieval.opening import open_index

RESULT = Path(__file__).parent / "results" / "retrieval.json"


def pretraining(folder: Path) -> dict[str, Any]:
    """The last epoch of a pretraining's log, and what all took."""
    told = [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]
    last = {key: told[-1][key] for key in ("loss", "found", "alike", "spread", "knn_auroc") if key in told[-1]}
    return {"epochs": len(told), "seconds": round(sum(one["seconds"] for one in told)), **last}


def size(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of spicula train retrieval")
    run = parser.parse_args().run
    bundle = load_bundle(run / NAME)
    with open_index(run / INDEX) as index:
        stats = index.stats()
    arms = sorted(path for path in (run / ENCODERS).iterdir() if path.is_dir())
    write_json(
        RESULT,
        {
            "bundle": bundle.fingerprint,
            "megabytes": {"bundle": size(bundle.folder), "index": size(run / INDEX)},
            "indexed": {"findings": stats.findings, "patients": stats.patients, "dimensions": stats.dimensions},
            "run": json.loads((run / "run.json").read_text(encoding="utf-8"))["arguments"],
            "pretrainings": {
                arm.name: {folder.name: pretraining(folder) for folder in sorted(arm.iterdir())} for arm in arms
            },
            "patients_apart": json.loads((run / EVALUATION).read_text(encoding="utf-8")),
        },
        finite=True,
    )
    print(RESULT)


if __name__ == "__main__":
    main()
