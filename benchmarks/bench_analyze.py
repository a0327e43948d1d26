"""`spicula analyze` on the whole LIDC-IDRI-0001 scan, DICOM to all four outputs: time, memory, each stage's share.

Also the reader, the resampler and the lung mask, each against a named peer in the same run.
Run: python benchmarks/bench_analyze.py   (needs the development data and the extra 'test' for the peers)
Writes benchmarks/results/analyze.json.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

RESULTS = Path(__file__).parent / "results" / "analyze.json"
SHARED = Path(os.environ.get("SPICULA_SHARED", "../shared")) / "data"
CENTER = (56.2, 86.3, -115.9)
RUNS = 5


def timed(job: Callable[[], object], runs: int = RUNS) -> float:
    """Median seconds of several runs after one that is not counted."""
    job()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def ratio(ours: Callable[[], object], peer: Callable[[], object], name: str) -> dict[str, object]:
    mine, theirs = timed(ours), timed(peer)
    return {"seconds": round(mine, 3), "peer": name, "peer_seconds": round(theirs, 3), "ratio": round(mine / theirs, 3)}


def whole_command(folder: Path) -> dict[str, object]:
    """The command as a user runs it: wall seconds and peak memory of the process."""
    walls = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            command = [sys.executable, "-m", "spicula.cli", "analyze", str(folder), "--out", out]
            subprocess.run(command, check=True, capture_output=True)
            walls.append(time.perf_counter() - start)
            assert {p.name for p in Path(out).iterdir()} == {"report.json", "report.html", "sr.dcm", "seg.dcm"}
            first = json.loads((Path(out) / "report.json").read_text())["findings"][0]
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    error = float(np.linalg.norm(np.subtract(first["center_xyz_mm"], CENTER)))
    return {
        "wall_seconds_median": round(statistics.median(walls), 2),
        "wall_seconds": [round(wall, 2) for wall in walls],
        "peak_memory_mib": round(peak_kib / 1024),
        "first_finding": {
            "center_error_mm": round(error, 2),
            "diameter_mm": first["diameter_mm"],
            "readers_diameter_mm": 29.6,
            "volume_mm3": first["volume_mm3"],
            "readers_volume_mm3": 7500,
            "malignancy": first["malignancy"],
        },
    }


def stages(folder: Path) -> dict[str, float]:
    """Seconds of each stage within one process, models already open."""
    from spicula.detectors import blob
    from spicula.formats import read_volume
    from spicula.measure.lungs import segment_lungs
    from spicula.pipelines import analyze as job
    from spicula.pipelines.batch import write_outputs
    from spicula.pipelines.models import load_models

    models = load_models()
    job.analyze(folder, models=models)
    marks, clock = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        marks[name] = round(now - clock, 3)
        clock = now

    volume = read_volume(folder)
    lap("read")
    lungs = segment_lungs(volume)
    lap("lungs")
    candidates = blob.detect(volume, bundle=models.detection, lungs=lungs, limit=job.LIMIT)
    lap("detect")
    findings = job.measure_findings(volume, candidates, models=models)
    lap("outline and measure")
    job.rate_findings(volume, findings, models=models)
    lap("predict")
    analysis = job.analyze(volume, models=models)
    clock = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        write_outputs(analysis, Path(out))
    lap("write the four outputs")
    return marks


def itk_read(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def skimage_lungs(array: np.ndarray) -> np.ndarray:
    """The usual tutorial: threshold, clear the border slice by slice, two largest regions, close."""
    from skimage.measure import label, regionprops
    from skimage.morphology import ball, closing
    from skimage.segmentation import clear_border

    air = np.stack([clear_border(part) for part in array < -400])
    labels = label(air)
    largest = sorted(regionprops(labels), key=lambda region: region.area)[-2:]
    return closing(np.isin(labels, [region.label for region in largest]), ball(4))


def parts(folder: Path) -> dict[str, object]:
    from spicula.formats import read_volume
    from spicula.measure.lungs import segment_lungs
    from spicula.transforms.resample import resample

    volume = read_volume(folder)
    zoom = volume.geometry.spacing_zyx_mm
    return {
        "reader": ratio(lambda: read_volume(folder), lambda: itk_read(folder), "SimpleITK ImageSeriesReader (GDCM)"),
        "resampler": ratio(
            lambda: resample(volume, (1.0, 1.0, 1.0)),
            lambda: ndimage.zoom(volume.array_zyx, zoom, order=1),
            "scipy.ndimage.zoom, order 1",
        ),
        "lung mask": ratio(
            lambda: segment_lungs(volume),
            lambda: skimage_lungs(volume.array_zyx),
            "scikit-image: threshold, clear_border, two largest, closing",
        ),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(SHARED / "scans" / "LIDC-IDRI-0001.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        scan = next(Path(folder).rglob("*.dcm")).parent
        result = {
            "what": "LIDC-IDRI-0001, 133 slices of 512 x 512, DICOM to report.json, report.html, sr.dcm, seg.dcm",
            "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
            "command": whole_command(scan),
            "stages_seconds": stages(scan),
            "against_peers": parts(scan),
        }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
