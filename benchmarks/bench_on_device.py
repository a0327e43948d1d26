"""What a borrowed GPU did: ``benchmarks/results/on_device.json`` from what ``train/on_device.sh`` gave back.

python benchmarks/bench_on_device.py OUT ...      (folders with ``summary.json``)

Each stands with its device, the measured peak of a matrix product, what one pretraining alone takes of it, and what
pretrainings side by side reached over all of their epochs.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from spicula.pipelines.run_folder import write_json

RESULT = Path(__file__).parent / "results" / "on_device.json"


def told_by(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary without its logs."""
    logs = {name: one["log"] for name, one in summary["pretrainings"].items()}
    seconds = {name: sum(epoch["seconds"] for epoch in log) for name, log in logs.items()}
    images = {name: sum(epoch["seconds"] * epoch["images_per_second"] for epoch in log) for name, log in logs.items()}
    each = sum(images.values()) / sum(seconds.values())
    return {
        "device": summary["device"], "torch": summary["torch"], "task": summary["task"],
        "recipe": summary["arguments"]["recipe"],
        "pretrainings": dict(Counter(name.rpartition(" ")[0] or name for name in logs)),
        "finished": sum(one["finished"] for one in summary["pretrainings"].values()), "at_a_time": summary["jobs"],
        "peak_tflop_per_second": round(summary["peak_tflop_per_second"], 1),
        "gflop_an_image": round(summary["gflop_an_image"], 3),
        "alone": {
            "images_per_second": round(summary["images_per_second"]["alone"], 1),
            "share_of_peak": round(summary["share_of_peak"]["alone"], 4),
        },
        "side_by_side": {
            "images": round(sum(images.values())), "images_per_second_of_each": round(each, 1),
            "seconds_of_each": [round(min(seconds.values())), round(max(seconds.values()))],
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="+", help="folders that train/on_device.sh wrote")
    given = parser.parse_args().out
    summaries = [json.loads((folder / "summary.json").read_text(encoding="utf-8")) for folder in given]
    write_json(RESULT, {"runs": [told_by(one) for one in summaries]}, finite=True)
    print(RESULT)


if __name__ == "__main__":
    main()
