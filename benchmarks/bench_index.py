"""Indexes of embeddings at a million vectors: time to build and to open, bytes, memory, recall at 10, ms a query.

Run: python benchmarks/bench_index.py   (extras search and bench, a quiet machine, 6 GB of memory and
5 GB of disk; about two hours on two cores). `--number 50000` tries it on fewer.
Writes benchmarks/results/index.json.

The vectors are made, not measured: 2,000 centers and the scatter around them (as wide as the centers are apart) have a
spectrum that falls as i^-0.6, as embeddings of networks do, turned by a random rotation and scaled to unit length.
Queries are drawn in the same way and are not in the index. Uniformly random directions, which have no structure that
an index could use, are measured beside it, at a smaller number.

Every search is one query at a time on one core, in a fresh process that maps the files, through the whole call with
its facts and checksums. The peer is usearch with the same numbers for its graph, over float32 vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "index.json"
DIMENSIONS, CENTERS, FALL, BLOCK = 256, 2000, 0.6, 50_000
NETWORK, PLACES = "synthetic@1", 10
M, EF_CONSTRUCTION = 32, 200
EFFORTS = {"faiss-hnsw": (32, 64, 96, 128, 256), "faiss-ivfpq": (16, 32, 64, 128), "usearch": (32, 64, 96, 128, 256)}
DEFAULTS = {"faiss-hnsw": 96, "faiss-ivfpq": 64, "usearch": 96}


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(number: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks of vectors; see the top of this file."""
    fixed = np.random.default_rng(0)
    scale = np.arange(1, DIMENSIONS + 1) ** -FALL
    centers = (fixed.standard_normal((CENTERS, DIMENSIONS)) * scale).astype(np.float32)
    turn = np.linalg.qr(fixed.standard_normal((DIMENSIONS, DIMENSIONS)))[0].astype(np.float32)
    for block in range(0, number, BLOCK):
        random, size = np.random.default_rng([seed, block]), min(BLOCK, number - block)
        scatter = random.standard_normal((size, DIMENSIONS), dtype=np.float32) * scale.astype(np.float32)
        yield unit((centers[random.integers(0, CENTERS, size)] + scatter) @ turn)


def uniform(number: int, seed: int) -> Iterator[np.ndarray]:
    for block in range(0, number, BLOCK):
        random = np.random.default_rng([seed, block, 1])
        yield unit(random.standard_normal((min(BLOCK, number - block), DIMENSIONS)))


MADE = {"clustered": clustered, "uniform": uniform}


def fill(folder: Path, how: str, number: int) -> dict[str, Any]:
    from spicula.core.embedding import Embeddings
    from spicula.retrieval.opening import create_index, open_index

    create_index(folder, fingerprint=NETWORK, dimensions=DIMENSIONS)
    seconds, first = 0.0, 0
    with open_index(folder) as index:
        for vectors in MADE[how](number, 1):
            numbers = range(first, first + len(vectors))
            facts = [
                {"pid": f"P{n // 4}", "nodule_id": str(n % 4), "diameter_mm": 3 + n % 270 / 10, "type": "lung"}
                for n in numbers
            ]
            embeddings = Embeddings(vectors, tuple(f"P{n // 4}/{n % 4}" for n in numbers), NETWORK)
            start = time.perf_counter()
            index.add(embeddings, facts)
            seconds += time.perf_counter() - start
            first += len(vectors)
            print(f"added {first}", flush=True)
    return {"seconds to add": round(seconds, 1), "findings a second": round(number / seconds)}


def build(folder: Path, backend: str, threads: int) -> dict[str, Any]:
    from spicula.retrieval.faiss import FaissIndex

    start = time.perf_counter()
    with FaissIndex(folder, kind=backend.removeprefix("faiss-"), threads=threads) as index:
        index.build(progress=lambda done, total: print(f"{backend}: {done} of {total}", flush=True))
    return {"seconds to build": round(time.perf_counter() - start, 1), "threads": threads}


def build_peer(folder: Path, how: str, number: int, threads: int) -> dict[str, Any]:
    from usearch.index import Index

    start, first = time.perf_counter(), 0
    index = Index(
        ndim=DIMENSIONS,
        metric="l2sq",
        dtype="f32",
        connectivity=M,
        expansion_add=EF_CONSTRUCTION,
        expansion_search=DEFAULTS["usearch"],
    )
    for vectors in MADE[how](number, 1):
        index.add(np.arange(first, first + len(vectors)), vectors, threads=threads)
        first += len(vectors)
        print(f"usearch: {first} of {number}", flush=True)
    seconds = time.perf_counter() - start
    index.save(str(folder / "index.usearch"))
    return {"seconds to build": round(seconds, 1), "threads": threads}


def memory() -> dict[str, int]:
    """MiB of this process: of its own, and of files that are mapped and happen to be in memory."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {
        "own MiB": int(lines["RssAnon"].split()[0]) // 1024, "mapped MiB": int(lines["RssFile"].split()[0]) // 1024,
    }  # fmt: skip


def probe(folder: Path, backend: str, how: str, queries: int) -> dict[str, Any]:
    """In a fresh process: open, and search one query at a time at several efforts."""
    vectors = next(MADE[how](queries, 2))
    imported = memory()
    start = time.perf_counter()
    index, search = open_peer(folder) if backend == "usearch" else open_ours(folder, backend)
    result: dict[str, Any] = {"seconds to open": round(time.perf_counter() - start, 3), "memory before": imported}
    result["memory when opened"] = memory()
    found: dict[str, list[list[str]]] = {}
    for effort in EFFORTS.get(backend, (0,)):
        set_effort(index, backend, effort)
        for query in vectors[: min(100, queries)]:
            search(query)
        times, ids = [], []
        for query in vectors:
            start = time.perf_counter()
            ids.append(search(query))
            times.append(1000 * (time.perf_counter() - start))
        found[str(effort)] = ids
        result[str(effort)] = {
            "ms a query": round(float(np.mean(times)), 3), "median ms": round(float(np.median(times)), 3),
            "95 % below ms": round(float(np.quantile(times, 0.95)), 3),
        }  # fmt: skip
    result["memory after the searches"] = memory()
    if backend.startswith("faiss"):
        result["ms with a condition that half fulfil"] = conditional(index, vectors[:50])
    index.close() if backend != "usearch" else None
    return {"result": result, "found": found}


def conditional(index: Any, vectors: np.ndarray) -> float:
    start = time.perf_counter()
    for query in vectors:
        index.search(query[None], PLACES, where="diameter_mm > 16.5", fingerprint=NETWORK)
    return round(1000 * (time.perf_counter() - start) / len(vectors), 2)


def open_ours(folder: Path, backend: str) -> tuple[Any, Any]:
    from spicula.retrieval.exact import ExactIndex
    from spicula.retrieval.faiss import FaissIndex

    kind = backend.removeprefix("faiss-")
    index = ExactIndex(folder) if backend == "exact" else FaissIndex(folder, kind=kind, threads=1, exact_below=0)

    def search(query: np.ndarray) -> list[str]:
        return [one.finding_id for one in index.search(query[None], PLACES, fingerprint=NETWORK)[0]]

    return index, search


def open_peer(folder: Path) -> tuple[Any, Any]:
    from usearch.index import Index

    index = Index.restore(str(folder / "index.usearch"), view=True)

    def search(query: np.ndarray) -> list[str]:
        return [f"P{n // 4}/{n % 4}" for n in index.search(query, PLACES, threads=1).keys.tolist()]

    return index, search


def set_effort(index: Any, backend: str, effort: int) -> None:
    if backend == "usearch":
        index.expansion_search = effort
    elif backend == "faiss-hnsw":
        index._ef_search = effort
    elif backend == "faiss-ivfpq":
        index._nprobe = effort


def in_fresh_process(folder: Path, backend: str, how: str, queries: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--probe", backend, "--folder", str(folder), "--how", how]
    one = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run([*command, "--queries", str(queries)], check=True, stdout=subprocess.PIPE, text=True, env=one)
    return json.loads(done.stdout)


def recall(found: list[list[str]], right: list[list[str]]) -> float:
    shared = [len(set(one) & set(other)) / PLACES for one, other in zip(found, right, strict=True)]
    return round(float(np.mean(shared)), 4)


def sizes(folder: Path, number: int) -> dict[str, float]:
    """Bytes a vector, by file."""
    return {path.name: round(path.stat().st_size / number, 1) for path in sorted(folder.iterdir()) if path.is_file()}


def measure(how: str, number: int, queries: int, threads: int, where: Path) -> dict[str, Any]:
    """Everything about one kind of vectors."""
    folder = where / how
    result: dict[str, Any] = {"number": number, "filled": fill(folder, how, number)}
    built = {backend: build(folder, backend, threads) for backend in ("faiss-hnsw", "faiss-ivfpq")}
    built["usearch"] = build_peer(where, how, number, threads)
    result["bytes a vector"] = sizes(folder, number)
    result["bytes a vector of usearch"] = round((where / "index.usearch").stat().st_size / number, 1)
    exact = in_fresh_process(folder, "exact", how, min(queries, 200 if number > 200_000 else queries))
    right = exact["found"]["0"]
    result["exact"] = exact["result"]
    exact_ms = exact["result"]["0"]["ms a query"]
    for backend in ("faiss-hnsw", "faiss-ivfpq", "usearch"):
        probed = in_fresh_process(where if backend == "usearch" else folder, backend, how, len(right))
        for effort, found in probed["found"].items():
            part = probed["result"][effort]
            part["recall at 10"] = recall(found, right)
            part["times as fast as exact"] = round(exact_ms / part["ms a query"], 1)
        result[backend] = built[backend] | probed["result"]
    result["against usearch"] = compared(result)
    return result


def compared(result: dict[str, Any]) -> dict[str, Any]:
    """Ours and the peer's: at the default effort, and at the least effort that finds 95 in 100."""
    mine, theirs = (result[name][str(DEFAULTS[name])] for name in ("faiss-hnsw", "usearch"))
    out = {
        "at our default effort, their ms over ours": round(theirs["ms a query"] / mine["ms a query"], 2),
        "their seconds to build over ours": round(
            result["usearch"]["seconds to build"] / result["faiss-hnsw"]["seconds to build"], 2
        ),
    }
    for name in ("faiss-hnsw", "usearch"):
        enough = [
            result[name][str(e)]["ms a query"] for e in EFFORTS[name] if result[name][str(e)]["recall at 10"] >= 0.95
        ]
        out[f"ms of {name} at the least effort with recall 0.95"] = min(enough) if enough else None
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=1_000_000, help="clustered vectors")
    parser.add_argument("--uniform", type=int, default=50_000, help="uniformly random ones")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="to build with; searches use one")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--where", type=Path, help="folder for the files; a temporary one is removed at the end")
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--how", default="clustered", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.probe:
        print(json.dumps(probe(given.folder, given.probe, given.how, given.queries)))
        return
    with tempfile.TemporaryDirectory(dir=given.where) as where:
        result = {
            "what": "indexes of synthetic unit vectors, 256 numbers each; one query at a time on one core",
            "made": " ".join((__doc__ or "").split("\n\n")[2].split()),
            "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
            "defaults": DEFAULTS | {"m": M, "ef_construction": EF_CONSTRUCTION},
            "clustered": measure("clustered", given.number, given.queries, given.threads, Path(where)),
            "uniform": measure("uniform", given.uniform, given.queries, given.threads, Path(where)),
        }
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
