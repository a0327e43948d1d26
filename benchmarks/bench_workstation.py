"""The workstation under load: ``benchmarks/results/workstation.json``.

python benchmarks/bench_workstation.py --scan CT [--studies 200] [--readers 50]

Start to ready and idle memory of ``spicula serve``; readers who scroll through a real CT at once; studies in the queue
while workers and the server are killed at random. Run it on a quiet machine: readers and server share its cores.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests

from spicula.datasets.phantom import Ball, thorax, thorax_grid
from spicula.dicom.writer import write_series
from spicula.pipelines.ingest import ingest
from spicula.pipelines.run_folder import write_json
from spicula.pipelines.workplace import Workplace, open_workplace

RESULT = Path(__file__).parent / "results" / "workstation.json"
THINK_S = 0.1
"""Between two frames of a reader: ten slices a second."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(store: Path, port: int, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "spicula.cli", "serve", "--store", str(store), "--port", str(port)]
    command += ["--workers", str(workers)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def wait_until_ready(port: int) -> float:
    begun = time.perf_counter()
    while True:
        try:
            requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5)
            return time.perf_counter() - begun
        except requests.ConnectionError:
            time.sleep(0.02)


@contextmanager
def running(store: Path, workers: int = 1) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    process = start(store, port, workers)
    try:
        wait_until_ready(port)
        yield process, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def megabytes(pids: list[int]) -> float:
    """Memory of some processes; what they share counts once."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def starting(folder: Path) -> dict[str, Any]:
    times, memory = [], 0.0
    for number in range(5):
        port = free_port()
        begun = time.perf_counter()
        process = start(folder / f"start{number}", port, 1)
        wait_until_ready(port)
        times.append(time.perf_counter() - begun)
        time.sleep(5)
        memory = megabytes(family(process.pid))
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    return {"start_to_ready_s": [round(one, 2) for one in times], "idle_megabytes": round(memory)}


def scrolling(folder: Path, scan: Path, readers: int) -> dict[str, Any]:
    """Readers who each scroll once through the whole series."""
    store = folder / "scrolled"
    with open_workplace(store) as place:
        (study,) = ingest(scan, place.studies, origin="bench").studies
        series = max(place.studies.series(study), key=lambda one: int(one["instances"]))["series_uid"]
        uids = [row["sop_instance_uid"] for row in place.studies.instances(str(series))]
    base = f"/dicom-web/studies/{study}/series/{series}/instances"
    times: list[float] = []
    errors: Counter[str] = Counter()
    lock = threading.Lock()
    with running(store) as (_, port):

        def read(seed: int) -> None:
            order = random.Random(seed)
            first = order.randrange(len(uids))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            time.sleep(order.random())
            own, failed = [], Counter[str]()
            for step in range(len(uids)):
                uid = uids[(first + step) % len(uids)]
                begun = time.perf_counter()
                try:
                    connection.request("GET", f"{base}/{uid}/frames/1")
                    answer = connection.getresponse()
                    size = len(answer.read())
                    if answer.status != 200 or size < 100_000:
                        failed[f"status {answer.status}, {size} bytes"] += 1
                except OSError as error:
                    failed[type(error).__name__] += 1
                    connection.close()
                own.append(time.perf_counter() - begun)
                time.sleep(THINK_S)
            with lock:
                times.extend(own)
                errors.update(failed)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(readers)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        whole = time.perf_counter() - begun
    parts = {"median": 50, "p95": 95, "p99": 99, "longest": 100}
    return {
        "readers": readers,
        "frames": len(times),
        "errors": dict(errors),
        "frames_per_second": round(len(times) / whole),
        "milliseconds": {name: round(1000 * float(np.percentile(times, part)), 1) for name, part in parts.items()},
    }


def all_ended(place: Workplace) -> bool:
    counts = place.queue.counts()
    return not counts.get("queued", 0) and not counts.get("running", 0)


def ask_again(place: Workplace, port: int) -> int:
    """Ask again, as a person would, for what was killed three times by chance and so was set aside."""
    aside = [job for job in place.queue.list(limit=1000) if job.state == "failed"]
    for job in aside:
        print(f"set aside: {job.message}", flush=True)
        requests.post(f"http://127.0.0.1:{port}/api/jobs/{job.id}/again", timeout=30).raise_for_status()
    while not all_ended(place):
        time.sleep(1)
    return len(aside)


def killed(folder: Path, studies: int, seed: int) -> dict[str, Any]:
    """Studies in the queue; every few seconds a worker or the server is killed."""
    store = folder / "killed"
    order = random.Random(seed)
    volume = thorax(thorax_grid((2.5, 1.5, 1.5)), balls=[Ball((-70.0, 0.0, 10.0), 12.0)], vessels=4)
    with open_workplace(store) as place:
        uids = []
        for number in range(studies):
            source = folder / "source" / str(number)
            write_series(source, volume, patient_id=f"P{number}", description="bench", seed=str(number))
            uids += ingest(source, place.studies, origin="bench").studies
        kills: Counter[str] = Counter()
        begun = time.perf_counter()
        port = free_port()
        process = start(store, port, 2)
        wait_until_ready(port)
        asked = 0
        while True:
            if asked < studies:
                for uid in uids[asked : asked + 25]:
                    try:
                        requests.post(
                            f"http://127.0.0.1:{port}/api/studies/{uid}/analysis", timeout=30
                        ).raise_for_status()
                        asked += 1
                    except requests.ConnectionError:
                        break
            if asked == studies and all_ended(place):
                break
            time.sleep(order.uniform(10, 30))
            if order.random() < 0.3:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                kills["server"] += 1
                process = start(store, port, 2)
                wait_until_ready(port)
            else:
                workers = [pid for pid in family(process.pid) if pid != process.pid]
                if workers:
                    os.kill(order.choice(workers), signal.SIGKILL)
                    kills["worker"] += 1
        aside = ask_again(place, port)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        found = [len(place.findings.of_study(uid)) for uid in uids]
        analyses = [len(place.findings.analyses(uid)) for uid in uids]
        return {
            "studies": studies, "kills": dict(kills), "seconds": round(time.perf_counter() - begun),
            "jobs": place.queue.counts(), "set_aside_after_three_kills": aside, "analyzed_once": analyses.count(1),
            "analyzed_twice": sum(one > 1 for one in analyses), "not_analyzed": analyses.count(0),
            "findings_of_each": sorted(set(found)), "damaged": len(list(place.studies.damaged())),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, required=True, help="folder of a real CT")
    parser.add_argument("--studies", type=int, default=200, help="in the queue; 0 leaves this part out")
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = {"cores": os.cpu_count(), **starting(folder)}
        print(json.dumps(told), flush=True)
        told["scrolling"] = scrolling(folder, given.scan, given.readers)
        print(json.dumps(told["scrolling"]), flush=True)
        write_json(RESULT, told, finite=True)
        if given.studies:
            told["killed"] = killed(folder, given.studies, given.seed)
            print(json.dumps(told["killed"]), flush=True)
            write_json(RESULT, told, finite=True)


if __name__ == "__main__":
    main()
