"""Frangi's filter against scikit-image's and SimpleITK's in the same run, one thread each.

    python benchmarks/bench_frangi.py      (needs a quiet machine; the extra 'bench' for the peer)

Writes ``benchmarks/results/frangi.json``: seconds (median and least of the rounds, the ways taking turns), their
ratios, and the largest difference to scikit-image where its signs are right. A first call at a new size also makes
the matrices of its axes; that is measured apart. SimpleITK's filter differs (recursive Gaussians and finite
differences), so that its numbers are not compared.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import skimage
from scipy import ndimage
from skimage.feature import hessian_matrix, hessian_matrix_eigvals
from skimage.filters import frangi as skimage_frangi
from threadpoolctl import threadpool_limits

from spicula.core.files import written_aside
from spicula.transforms.frangi import _operator, frangi, frangi_channel, frangi_of_the_code

RESULTS = Path(__file__).parent / "results" / "frangi.json"
SIGMAS = (1.0, 2.0, 3.0)
SAME: dict[str, Any] = {"alpha": 0.5, "beta": 0.5, "gamma": 0.02, "normalized": False}


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


def textured(shape: tuple[int, ...]) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(0).random(shape, dtype=np.float32), 1.0)


def of_scikit_image(image: np.ndarray) -> np.ndarray:
    return skimage_frangi(image, SIGMAS, alpha=0.5, beta=0.5, gamma=0.02, black_ridges=False)


def of_simpleitk(image: np.ndarray) -> np.ndarray:
    source = sitk.GetImageFromArray(image)
    best = np.zeros(image.shape, dtype=np.float32)
    for sigma in SIGMAS:
        smooth = sitk.SmoothingRecursiveGaussian(source, sigma)
        lines = sitk.ObjectnessMeasure(smooth, 0.5, 0.5, 0.02, False, 1, True)
        np.maximum(best, sitk.GetArrayViewFromImage(lines), out=best)
    return best


def first_call(image: np.ndarray) -> np.ndarray:
    _operator.cache_clear()
    return frangi(image, SIGMAS, **SAME)


def largest_difference(image: np.ndarray) -> dict[str, float]:
    """To scikit-image in float64 and in each precision of ours, where at every scale its signs are right."""
    wide = image.astype(np.float64)
    right = np.ones(image.shape, dtype=bool)
    for sigma in SIGMAS:
        values = hessian_matrix_eigvals(hessian_matrix(wide, sigma, mode="reflect", use_gaussian_derivatives=True))
        values = np.take_along_axis(values, np.abs(values).argsort(axis=0), axis=0)
        right &= (values[1:] < 0).all(axis=0)
    theirs = of_scikit_image(wide)
    kinds = (np.float32, np.float64)
    return {k.__name__: float(np.abs(frangi(wide, SIGMAS, dtype=k, **SAME) - theirs)[right].max()) for k in kinds}


def compared(image: np.ndarray, rounds: int) -> dict[str, Any]:
    ways: dict[str, Callable[[], Any]] = {
        "float32": lambda: frangi(image, SIGMAS, **SAME),
        "float64": lambda: frangi(image, SIGMAS, dtype=np.float64, **SAME),
        "scikit_image": lambda: of_scikit_image(image),
    }
    if image.ndim == 3:
        ways["simpleitk"] = lambda: of_simpleitk(image)
    seconds = timed(ways, rounds) | timed({"float32_first_call": lambda: first_call(image)}, rounds)
    peers = [way for way in ("scikit_image", "simpleitk") if way in seconds]
    return {
        "shape": list(image.shape),
        "seconds": seconds,
        "times_faster_than": {
            peer: {
                way: round(seconds[peer]["median_s"] / seconds[way]["median_s"], 1)
                for way in ("float32", "float64", "float32_first_call")
            }
            for peer in peers
        },
        "largest_difference_to_scikit_image": largest_difference(image),
    }


def regions(count: int, rounds: int) -> dict[str, Any]:
    """What training calls: many regions of 64 x 64."""
    hu = 2000.0 * textured((count, 64, 64)) - 1500.0
    gray = np.clip((hu.astype(np.float64) + 1000.0) / 1500.0, 0.0, 1.0)
    code = {"sigmas": (2, 3), "beta": 5, "gamma": 2e-8, "black_ridges": True}
    seconds = timed(
        {
            "paper": lambda: frangi_channel(hu),
            "code": lambda: frangi_of_the_code(gray, batched=True),
            "code_by_scikit_image": lambda: [skimage_frangi(image, **code) for image in gray],
        },
        rounds,
    )
    peer = seconds["code_by_scikit_image"]["median_s"]
    return {
        "regions": count,
        "seconds": seconds,
        "microseconds_a_region": {way: round(1e6 * s["median_s"] / count) for way, s in seconds.items()},
        "code_times_faster_than_scikit_image": round(peer / seconds["code"]["median_s"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--regions", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    result: dict[str, Any] = {
        "what": "Frangi's filter at sigmas 1, 2 and 3 pixels",
        "threads": 1,
        "machine": platform.machine(),
        "scikit_image": skimage.__version__,
        "simpleitk": sitk.Version.VersionString(),
        "numpy": np.__version__,
        "rounds": args.rounds,
    }
    with threadpool_limits(1):
        result["cube"] = compared(textured((64, 64, 64)), args.rounds)
        result["slice"] = compared(textured((512, 512)), args.rounds)
        result["training_regions"] = regions(args.regions, args.rounds)
    with written_aside(args.out) as path:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
