"""How good the features are that were learned without labels: ``benchmarks/results/ssm.json`` from a run folder.

python benchmarks/bench_ssm.py RUN      (after ``spicula train ssm --out RUN --compare RISK/predictions.csv``)

The numbers are those that ``train ssm`` judged out of fold; beside them stands what the pretrainings learned from and
how long they took. ``spicula evaluate paper noreen2025 --run RUN`` writes the paper's checks to its own record.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from spicula.core.bundle import load_bundle
from spicula.networks.checkpoint import LOG
from spicula.pipelines.run_folder import write_json
from spicula.pipelines.slice_table import load_slice_table
from spicula.pipelines.ssm_bundle import NAME
from spicula.pipelines.train_ssm import BACKBONES, EVALUATION

RESULT = Path(__file__).parent / "results" / "ssm.json"


def pretraining(folder: Path) -> dict[str, Any]:
    """The last epoch of a pretraining's log, and what all took."""
    told = [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]
    last = {
        key: told[-1][key]
        for key in ("dino", "ibot", "koleo", "entropy", "used", "spread", "knn_auroc")
        if key in told[-1]
    }
    return {"epochs": len(told), "seconds": round(sum(one["seconds"] for one in told)), **last}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of spicula train ssm")
    run = parser.parse_args().run
    table = load_slice_table(run / "slices")
    folders = sorted(path for path in (run / BACKBONES).iterdir() if path.is_dir())
    bundle = load_bundle(run / NAME)
    megabytes = sum(bundle.file(name).stat().st_size for name in bundle.manifest["files"]) / 1e6
    write_json(
        RESULT,
        {
            "bundle": bundle.fingerprint,
            "megabytes": round(megabytes, 2),
            "slices": {"all": len(table.patients), "through nodules": int(table.marked.sum())},
            "patients": len(set(table.patients.tolist())),
            "pretrainings": {folder.name: pretraining(folder) for folder in folders},
            "out_of_fold": json.loads((run / EVALUATION).read_text(encoding="utf-8")),
        },
        finite=True,
    )
    print(RESULT)


if __name__ == "__main__":
    main()
