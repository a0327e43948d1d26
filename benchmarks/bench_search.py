"""From a point in a real CT to ten matches: ``benchmarks/results/search.json``.

    python benchmarks/bench_search.py [--bundle DIR --index DIR]      (a quiet machine; SPICULA_SHARED)

The scan is in memory and the bundles are open, as in a viewer; the first query of a fresh process (imports, networks
compiled, index opened) is told apart as the cold start. Two threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from bench_semantic_speed import cpu
from spicula.pipelines.run_folder import write_json

RESULT = Path(__file__).parent / "results" / "search.json"
SHARED = Path(os.environ.get("SPICULA_SHARED", "../shared")).resolve() / "data"
PLACES = ((56.2, 86.3, -115.9), (56.2, 84.0, -118.4), (58.0, 88.0, -113.4))
ROUNDS = 7


def measure(scan: Path, bundle: str | None, index: str | None) -> dict[str, Any]:
    """Seconds of each part, in this process."""
    started = perf_counter()
    from spicula.formats import read_volume
    from spicula.pipelines.index import embedder_of, open_place
    from spicula.pipelines.models import LIDC_INDEX, load_models
    from spicula.pipelines.search import query_at, search

    volume = read_volume(scan)
    read = perf_counter() - started
    started = perf_counter()
    models, embedder = load_models(), embedder_of(None if bundle is None else Path(bundle))
    with open_place(str(LIDC_INDEX) if index is None else index) as opened:

        def ask(place: tuple[float, float, float]) -> int:
            query = query_at(volume, place, embedder=embedder, models=models)
            return len(
                search([query], opened, k=10, fingerprint=embedder.fingerprint, scope="cross-patient")[0].matches
            )

        found = ask(PLACES[0])
        cold = perf_counter() - started
        warm = []
        for _ in range(ROUNDS):
            for place in PLACES:
                started = perf_counter()
                found = min(found, ask(place))
                warm.append(perf_counter() - started)
        stats = opened.stats()
    return {
        "matches": found, "findings_in_index": stats.findings, "read_scan_seconds": round(read, 3),
        "cold_start_seconds": round(cold, 3), "median_seconds": round(statistics.median(warm), 4),
        "slowest_seconds": round(max(warm), 4), "queries": len(warm),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", help="of train retrieval; the shipped one if omitted")
    parser.add_argument("--index", help="made with it; the shipped one if omitted")
    parser.add_argument("--scan", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.scan:
        print(json.dumps(measure(Path(given.scan), given.bundle, given.index)))
        return
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(SHARED / "scans" / "LIDC-IDRI-0001.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        command = [sys.executable, __file__, "--scan", folder]
        for name in ("bundle", "index"):
            command += [f"--{name}", getattr(given, name)] if getattr(given, name) else []
        environment = {**os.environ, "OMP_NUM_THREADS": "2"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    write_json(RESULT, {"machine": cpu(), "threads": 2, "point_to_ten_matches": json.loads(done.stdout)}, finite=True)
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
