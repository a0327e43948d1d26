"""Outlines from center points: in small volumes, inserted into a whole scan, and on real whole scans.

    python benchmarks/bench_outline.py --run RUN --data ../shared/data

``RUN`` is the folder of ``spicula train outline``; its fold networks outline only patients they never saw. Writes
``benchmarks/results/outline.json``. The whole scan that receives nodules is LIDC-IDRI-0001 (the test patient, in no
training); the shipped bundle is judged on that scan's own nodule and on the sample scans.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spicula.core.bundle import load_bundle
from spicula.core.files import written_aside
from spicula.core.finding import Case
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets import insertion, lidc_nodules
from spicula.datasets.sample import fetch_sample
from spicula.formats import nrrd
from spicula.formats.scans import read_volume
from spicula.measure.lungs import segment_lungs
from spicula.measure.segment import outline
from spicula.measure.size import measure_size
from spicula.metrics.segmentation import dice
from spicula.pipelines.train_outline import SHIFT_MM, summarize
from spicula.runtime.openvino import load_network
from spicula.transforms.crop import sample

RESULTS = Path(__file__).parent / "results" / "outline.json"
RADII_MM = (4.0, 7.0, 11.0, 18.0)
SIDES = {"left": (1.0, 0.0), "right": (-1.0, 0.0), "front": (0.0, -1.0), "back": (0.0, 1.0)}
MODES = {
    "inserted_with_surroundings": "the whole small volume, its sides feathered, at a wall of its side where it has "
    "one; the scan goes on beyond its ends",
    "inserted_by_mask": "the nodule alone, feathered by its mask",
}
READERS_0001 = {"mean_diameter_mm": 29.6, "volume_mm3": 7500.0, "center_xyz_mm": (56.2, 86.3, -115.9)}


class Host:
    """A whole scan with its lungs, and places for nodules by radius and by the side on which a wall is."""

    def __init__(self, scan: Volume, *, seed: int) -> None:
        self.scan, self.seed = replace(scan, array_zyx=scan.array_zyx.astype(np.float32)), seed
        self.lungs = segment_lungs(scan)
        self._places: dict[tuple[float, str], list[tuple[float, float, float]]] = {}

    def places(self, radius_mm: float, side: str) -> list[tuple[float, float, float]]:
        key = (next((r for r in RADII_MM if r >= radius_mm), RADII_MM[-1]), side)
        if key not in self._places:
            wall = np.array([*SIDES[side], 0.0]) if side else None
            self._places[key] = insertion.insertion_places(
                self.scan, self.lungs, count=24, seed=self.seed, radius_mm=key[0], apart_mm=10.0, wall_xyz=wall
            )
        return self._places[key]


def side_of(wall: np.ndarray | None) -> str:
    """The side of the body on which a nodule touches tissue; empty for none, and for one above or below."""
    if wall is None or np.hypot(wall[0], wall[1]) < 0.5:
        return ""
    return max(SIDES, key=lambda side: float(np.dot(SIDES[side], wall[:2])))


def on_own_grid(host: Volume, nodule: Volume, center: np.ndarray, place: np.ndarray, *, side_mm: float) -> Volume:
    """The surroundings of a place in a scan, sampled on the grid of a nodule that shall be set there."""
    spacing = np.asarray(nodule.geometry.spacing_zyx_mm)
    own = np.asarray(nodule.geometry.shape_zyx)
    more = np.ceil((side_mm / spacing - own) / 2).astype(int).clip(1)
    affine = nodule.geometry.crop((-more).tolist(), (own + more).tolist()).affine_lps.copy()
    affine[:3, 3] += place - center
    grid = Geometry(tuple(int(n) for n in own + 2 * more), affine)
    return Volume(np.rint(sample(host, grid)).astype(np.int16), grid)


def set_whole(scan: Volume, nodule: Volume, mask: Mask, *, feather_mm: float = 3.0) -> tuple[Volume, Mask]:
    """Set a whole small volume, wall and vessels included, into the middle of a scan on the same lattice.

    In the plane it fades into the scan over ``feather_mm``; beyond its first and last slice the scan goes on at once.
    """
    n = np.asarray(nodule.array_zyx.shape)
    start = (np.asarray(scan.array_zyx.shape) - n) // 2
    box = tuple(slice(a, a + b) for a, b in zip(start, n, strict=True))
    spacing = nodule.geometry.spacing_zyx_mm
    ramps = [np.minimum(np.arange(k), np.arange(k)[::-1]) * spacing[i] / feather_mm for i, k in ((1, n[1]), (2, n[2]))]
    weight = np.minimum(ramps[0][:, None], ramps[1][None, :]).clip(0, 1)
    array = scan.array_zyx.copy()
    array[box] = np.rint(weight * nodule.array_zyx + (1 - weight) * array[box])
    return Volume(array, scan.geometry), Mask(mask.array_zyx, scan.geometry.crop(start.tolist(), (start + n).tolist()))


def inserted(case: Case, data: Path, host: Host, network: Any, *, whole: bool) -> dict[str, Any]:
    """Insert one nodule into the scan, outline it from its center and, with ``whole``, from a shifted one too.

    The scan around the place is brought to the nodule's own voxels, so that nodule and truth stay as the readers saw
    them. With ``whole`` all of the small volume is set in, else the nodule alone, feathered by its mask.
    """
    rng = np.random.default_rng((host.seed, *case.case_id.encode()))
    volume, mask = case.load_volume(), lidc_nodules.load_mask(data, case.case_id)
    diameter = (6.0 / np.pi * mask.volume_mm3) ** (1 / 3)
    side = side_of(insertion.wall_direction(volume, mask))
    places = host.places(diameter / 2, side)
    place = np.asarray(places[int(rng.integers(len(places)))])
    center = np.asarray(case.findings[0].center_xyz_mm)
    scan = on_own_grid(host.scan, volume, center, place, side_mm=max(64.0, 5.0 * diameter))
    if whole:
        scan, truth = set_whole(scan, volume, mask)
    else:
        scan, truth = insertion.insert_nodule(
            scan, volume, mask, at_xyz_mm=place.tolist(), nodule_center_xyz_mm=center.tolist()
        )
    row: dict[str, Any] = {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "diameter_mm": round(diameter, 2),
        "wall": side,
        "beyond": min(insertion.slices_beyond(mask)),
    }
    direction = rng.normal(size=3)
    shifted = place + direction / np.linalg.norm(direction) * np.clip(diameter / 4, *SHIFT_MM)
    for column, point in (("dice", place), ("dice_shifted", shifted))[: 2 if whole else 1]:
        found = outline(scan, point.tolist(), network=network)
        row[column] = round(dice(found, truth), 4)
        row.setdefault("volume_ratio", round(found.volume_mm3 / truth.volume_mm3, 3))
    return row


def whole_scans(data: Path, scan: Volume, network: Any) -> dict[str, Any]:
    """The shipped bundle on the test patient's own nodule and on the sample scans."""
    result: dict[str, Any] = {}
    started = time.perf_counter()
    mask = outline(scan, READERS_0001["center_xyz_mm"], network=network)
    seconds = time.perf_counter() - started
    size = measure_size(scan, mask)
    small = lidc_nodules.load_mask(data, "LIDC-IDRI-0001_1")
    result["LIDC-IDRI-0001"] = {
        "mean_diameter_mm": round(size.mean_diameter_mm, 2),
        "volume_mm3": round(size.volume_mm3, 1),
        "readers": {k: v for k, v in READERS_0001.items() if k != "center_xyz_mm"},
        "consensus_volume_mm3": round(small.volume_mm3, 1),
        "dice_with_consensus": round(dice(mask, small), 4),
        "seconds": round(seconds, 3),
    }
    for ct in fetch_sample():
        volume, label = read_volume(ct.nrrd), nrrd.read(ct.label_nrrd)
        truth = Mask(np.asarray(label.array_zyx > 0), label.geometry)
        middle = truth.geometry.index_to_world(np.argwhere(truth.array_zyx).mean(axis=0))
        rng = np.random.default_rng(0)
        found = outline(volume, middle.tolist(), network=network)
        moved = [middle + 5.0 * d / np.linalg.norm(d) for d in rng.normal(size=(5, 3))]
        result[ct.name] = {
            "dice": round(dice(found, truth), 4),
            "dice_shifted_5_mm": [round(dice(outline(volume, p.tolist(), network=network), truth), 4) for p in moved],
            "volume_mm3": round(found.volume_mm3, 1),
            "label_volume_mm3": round(truth.volume_mm3, 1),
            "label_is": "a label of the sample, not of the readers that trained the network",
        }
    return result


def insert_all(
    run: Path, data: Path, host: Host, *, modes: list[str], folds: int, limit: int | None, threads: int
) -> dict[str, list[dict[str, Any]]]:
    """Rows of all nodules in both ways; those of a network that was judged before are read from the run folder."""
    cases = lidc_nodules.load_cases(data)
    fold_of = lidc_nodules.patient_folds(cases, folds=folds)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in modes}
    for name, fold in itertools.product(modes, range(folds)):
        bundle = load_bundle(run / "folds" / str(fold) / "bundle")
        kept = run / "inserted" / f"{name}-{bundle.fingerprint}-{host.seed}-{limit}.json"
        if not kept.is_file():
            network = load_network(bundle, threads=threads)
            held_out = [case for case, of in zip(cases, fold_of, strict=True) if of == fold][:limit]
            whole = name == "inserted_with_surroundings"
            new = [inserted(case, data, host, network, whole=whole) for case in held_out]
            with written_aside(kept) as path:
                path.write_text(json.dumps(new), encoding="utf-8")
        rows[name] += json.loads(kept.read_text(encoding="utf-8"))
        print(f"{name}, fold {fold}: {len(rows[name])} nodules", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--limit", type=int, default=None, help="only the first nodules of each fold")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    nodules = args.data / "lidc_nodules"
    folds = int(json.loads((args.run / "run.json").read_text(encoding="utf-8"))["arguments"]["folds"])
    result: dict[str, Any] = {"machine": platform.machine()}
    with tempfile.TemporaryDirectory() as temporary:
        with tarfile.open(args.data / "scans" / "LIDC-IDRI-0001.tar.xz") as archive:
            archive.extractall(temporary, filter="data")
        host = Host(read_volume(Path(temporary)), seed=args.seed)
    rows = insert_all(args.run, nodules, host, modes=args.modes, folds=folds, limit=args.limit, threads=args.threads)
    bundle = load_bundle("nodule-outline")
    result["bundle"] = bundle.fingerprint
    result["whole_scans"] = whole_scans(nodules, host.scan, load_network(bundle, threads=args.threads))
    evaluation = json.loads((args.run / "evaluation.json").read_text(encoding="utf-8"))
    result["small_volumes"] = evaluation["summary"]
    for name in args.modes:
        judged = rows[name]
        result[name] = {
            "scan": "LIDC-IDRI-0001, in no training, sampled on each nodule's own voxels",
            "how": MODES[name],
            "all": summarize(judged),
            "with_a_slice_beyond_both_ends": summarize([row for row in judged if row["beyond"] > 0]),
            "at_a_wall": summarize([row for row in judged if row["wall"]]),
            "not_at_a_wall": summarize([row for row in judged if not row["wall"]]),
        }
    for name in args.modes:
        result[name]["nodules"] = rows[name]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name in args.modes:
        del result[name]["nodules"]
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
