"""Nine planes through a nodule: sampled alone against turning the cube three times, in the same run.

    OMP_NUM_THREADS=1 python benchmarks/bench_planes.py --data ../shared/data      (needs a quiet machine)

Writes ``benchmarks/results/planes.json``: seconds (median and least of the rounds, the ways taking turns), their
ratios, the largest difference between the two, and what an interpolation straight from the scan saves in error on a
nodule whose values are known everywhere.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy import ndimage

from spicula.core.files import written_aside
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.formats.scans import read_volume
from spicula.transforms.nine_planes import (
    clip_normalized,
    nine_planes,
    nine_planes_of_volume,
    plane_offsets,
    zoom_planes,
)
from spicula.transforms.nodule_cube import nodule_cube, window

RESULTS = Path(__file__).parent / "results" / "planes.json"
NODULE = "LIDC-IDRI-0001"
SPACINGS_ZYX_MM = ((2.5, 0.7, 0.7), (1.25, 0.7, 0.7), (0.7, 0.7, 0.7))


def turned(cube: np.ndarray) -> np.ndarray:
    """The published way: three rotations of the whole cube, their slices, the middle 50 x 50."""
    c = cube.shape[0] // 2
    xz, xy, yz = (ndimage.rotate(cube, 45, axes=axes, reshape=False) for axes in ((0, 2), (1, 2), (0, 1)))
    slices = [cube[c], cube[:, c], cube[:, :, c], xz[c], xz[:, :, c], yz[c], yz[:, c], xy[:, c], xy[:, :, c]]
    return np.stack([plane[c - 25 : c + 25, c - 25 : c + 25] for plane in slices])


def timed(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of each way; the ways take turns, after one round that does not count."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for count in range(rounds + 1):
        for way, run in ways.items():
            started = time.perf_counter()
            run()
            if count:
                seconds[way].append(time.perf_counter() - started)
    return {way: {"median_s": float(np.median(s)), "least_s": min(s)} for way, s in seconds.items()}


def known_nodule(places_zyx_mm: np.ndarray) -> np.ndarray:
    """HU of a lobulated nodule of 9 mm with a soft border, anywhere in space."""
    z, y, x = np.moveaxis(places_zyx_mm, -1, 0)
    radius = np.sqrt(z**2 + y**2 + x**2)
    border = 4.5 + 0.6 * np.sin(3 * np.arctan2(y, x)) * np.sqrt(x**2 + y**2) / (radius + 1e-6)
    return -850.0 + 880.0 / (1.0 + np.exp((radius - border) / 0.4))


def errors(rng: np.random.Generator, *, nodules: int = 20) -> dict[str, dict[str, float]]:
    """Root mean square error (HU, within 8 mm) of planes straight from a scan and through a cube of 1 mm."""
    truth = known_nodule(plane_offsets())
    near = np.linalg.norm(plane_offsets(), axis=-1) < 8.0
    result = {}
    for spacing in SPACINGS_ZYX_MM:
        found: dict[str, list[float]] = {"straight": [], "through_a_cube": [], "through_a_cube_spline": []}
        for _ in range(nodules):
            shape = tuple(int(70 / s) for s in spacing)
            center = 35.0 + rng.uniform(-1, 1, 3)
            places = np.stack(np.indices(shape), axis=-1) * spacing - center
            volume = Volume(known_nodule(places).astype(np.float32), Geometry.from_axes(shape, spacing))
            xyz = center[::-1].tolist()
            cube = nodule_cube(volume, xyz)
            for way, planes in (
                ("straight", nine_planes_of_volume(volume, xyz)),
                ("through_a_cube", nine_planes(cube, order=1, outside=-1000.0)),
                ("through_a_cube_spline", nine_planes(cube, outside=-1000.0)),
            ):
                found[way].append(float(np.mean((planes - truth)[near] ** 2)))
        result[" x ".join(map(str, spacing))] = {way: round(float(np.sqrt(np.mean(e))), 1) for way, e in found.items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    nodules = args.data / "lidc_nodules"
    with (nodules / "nodules.csv").open(encoding="utf-8", newline="") as stream:
        row = next(row for row in csv.DictReader(stream) if row["patient_id"] == NODULE)
    volume = read_volume(nodules / "image" / f"{NODULE}_{row['nodule_id']}.nii.gz")
    center = [float(row[f"{axis}_mm"]) for axis in "xyz"]
    compat, exact = (window(nodule_cube(volume, center, mode=mode)) for mode in ("compat", "exact"))
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(100,) * 3), 2.0)
    smooth = ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)
    difference = {
        name: float(np.abs(nine_planes(cube, mode="compat") - turned(cube)).max())
        for name, cube in ((f"nodule of {NODULE}", compat), ("smooth random cube", smooth))
    }
    seconds = timed(
        {
            "turning_the_cube": lambda: turned(compat),
            "compat": lambda: nine_planes(compat, mode="compat"),
            "exact": lambda: nine_planes(exact),
            "exact_trilinear": lambda: nine_planes(exact, order=1),
            "straight_from_the_scan": lambda: nine_planes_of_volume(volume, center),
            "cube_compat": lambda: window(nodule_cube(volume, center, mode="compat")),
            "cube_exact": lambda: window(nodule_cube(volume, center)),
            "to_clip_pixels": lambda: clip_normalized(zoom_planes(compat[:9, :50, :50])),
        },
        args.rounds,
    )
    turning = seconds["turning_the_cube"]["median_s"]
    result = {
        "what": "nine planes of 50 x 50 from a cube of 100 x 100 x 100",
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "machine": platform.machine(),
        "scipy": scipy.__version__,
        "rounds": args.rounds,
        "largest_difference_compat": difference,
        "seconds": seconds,
        "times_faster_than_turning_the_cube": {
            way: round(turning / seconds[way]["median_s"], 1)
            for way in ("compat", "exact", "exact_trilinear", "straight_from_the_scan")
        },
        "rms_error_hu_of_a_known_nodule": errors(np.random.default_rng(0)),
    }
    with written_aside(args.out) as path:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
