"""A plain install from a wheel into a fresh environment: no torch, what it weighs, how fast `spicula --help` answers.

Run: python benchmarks/bench_install.py   (needs the package `build` and a package index or its cache)
Writes benchmarks/results/install.json.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "install.json"
RUNS = 9


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True)
        wheel = next(folder.glob("*.whl"))
        venv.create(folder / "fresh", with_pip=True)
        python = folder / "fresh" / "bin" / "python"
        start = time.perf_counter()
        install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel]
        subprocess.run(install, check=True)
        seconds = time.perf_counter() - start
        packages = json.loads(
            subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True).stdout
        )
        names = sorted(package["name"].lower() for package in packages)
        command = folder / "fresh" / "bin" / "spicula"
        verified = subprocess.run([command, "bundle", "verify"], check=True, capture_output=True, text=True).stdout
        times = []
        for _ in range(RUNS + 1):
            start = time.perf_counter()
            subprocess.run([command, "--help"], check=True, capture_output=True)
            times.append(time.perf_counter() - start)
        result = {
            "wheel_mb": round(wheel.stat().st_size / 1e6, 2),
            "install_seconds_warm_cache": round(seconds, 1),
            "packages": len(names),
            "torch_installed": "torch" in names,
            "bundles": verified.split("\n")[:-1],
            "help_seconds_median": round(statistics.median(times[1:]), 3),
            "help_seconds_largest": round(max(times[1:]), 3),
        }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
