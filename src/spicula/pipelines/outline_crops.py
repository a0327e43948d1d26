"""The crops that the outline network learns from, cut once and kept as arrays.

A small volume tells by its ends where the readers' outline ends. So the boxes of every nodule are cut with random
centers and spacings from randomly shortened volumes; what lies beyond a volume is repeated, mirrored or taken from a
whole scan, and beyond its first and last slice the truth counts as unknown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spicula.core.finding import Case
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_nodules
from spicula.measure import segment
from spicula.transforms.crop import box_geometry, sample

UNKNOWN = 255
"""Truth of voxels whose state no reader could see."""

SCALE = 200
"""Truth of a voxel that is wholly inside."""


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Boxes of all cases, memory-mapped.

    Args:
        hu: int16 ``[cases, variants, 20, 32, 32]``.
        truth: uint8 of the same shape: 0 to :data:`SCALE`, or :data:`UNKNOWN`.
        scales: float32 ``[cases, variants, 2]``: in-plane spacing of the box and slice distance of the scan, mm.
    """

    hu: NDArray[np.int16]
    truth: NDArray[np.uint8]
    scales: NDArray[np.float32]


def load_or_cut(
    data: Path, folder: Path, *, variants: int, seed: int, background: Volume | None = None, limit: int | None = None
) -> Crops:
    """Cut the boxes of all training nodules, or open those that an earlier run with the same arguments cut.

    Args:
        data: Folder ``lidc_nodules``.
        folder: Where the arrays are kept.
        variants: Boxes for each nodule.
        seed: Decides all random choices.
        background: A whole scan without marked nodules whose lung surrounds some of the nodules.
        limit: Only the first nodules, for a trial.

    Returns:
        The boxes, in the order of the cases.
    """
    cases = lidc_nodules.load_cases(data)[:limit]
    facts = {
        "cases": [case.case_id for case in cases],
        "variants": variants,
        "seed": seed,
        "background": background.series_uid or background.acquisition.source if background else None,
        "box": [*segment.BOX_SHAPE_ZYX, segment.SLICE_RATIO],
    }
    done = folder / "crops.json"
    shape = (len(cases), variants, *segment.BOX_SHAPE_ZYX)
    shapes = {"hu": (shape, np.int16), "truth": (shape, np.uint8), "scales": ((*shape[:2], 2), np.float32)}
    if not (done.is_file() and json.loads(done.read_text(encoding="utf-8")) == facts):
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=size)
            for name, (size, kind) in shapes.items()
        }
        places = _lung_places(background) if background else None
        for row, case in enumerate(cases):
            volume, mask = case.load_volume(), lidc_nodules.load_mask(data, case.case_id)
            for column in range(variants):
                rng = np.random.default_rng((seed, row, column))
                hu, truth, scales = _variant(rng, case, volume, mask, background, places)
                arrays["hu"][row, column] = np.rint(np.clip(hu, -1100, 3000))
                arrays["truth"][row, column] = truth
                arrays["scales"][row, column] = scales
        for array in arrays.values():
            array.flush()
        done.write_text(json.dumps(facts), encoding="utf-8")
    return Crops(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in shapes))


def _variant(
    rng: np.random.Generator,
    case: Case,
    volume: Volume,
    mask: Mask,
    background: Volume | None,
    places: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8], tuple[float, float]]:
    diameter = (6.0 / np.pi * mask.volume_mm3) ** (1 / 3)
    center = np.asarray(case.findings[0].center_xyz_mm)
    spacing, off_mm = _look(rng, diameter)
    direction = rng.normal(size=3)
    box = segment.box_around((center + off_mm * direction / np.linalg.norm(direction)).tolist(), spacing)
    if rng.random() < 0.3:
        volume, mask = _shortened(rng, volume, mask)
    start, stop = segment.covering(volume.geometry, box)
    pasted = background is not None and rng.random() < 0.45
    fill = "edge" if pasted or rng.random() < 0.6 else "symmetric"
    hu = segment.resample_block(segment.cut(volume, start, stop, fill=fill), box)
    soft = Volume(mask.array_zyx.astype(np.float32) * SCALE, mask.geometry)
    inside = segment.resample_block(segment.cut(soft, start, stop, fill="edge"), box)
    beyond_z, beyond = _beyond(volume.geometry, box)
    truth = np.rint(np.clip(inside, 0, SCALE)).astype(np.uint8)
    unknown = beyond_z > 0
    if pasted and background is not None and places is not None:
        point = places[rng.integers(len(places))] + rng.uniform(-4, 4, size=3)
        around = segment.box_around(point.tolist(), spacing)
        other = segment.resample_block(segment.cut(background, *segment.covering(background.geometry, around)), around)
        weight = np.clip(0.5 - beyond / 2.0, 0.0, 1.0)
        hu = (weight * hu + (1 - weight) * other).astype(np.float32)
        known = beyond_z > max(3.0, volume.geometry.spacing_zyx_mm[0])
        truth[known] = 0
        unknown &= ~known
    truth[unknown] = UNKNOWN
    return hu, truth, (spacing, max(volume.geometry.spacing_zyx_mm))


def _look(rng: np.random.Generator, diameter: float) -> tuple[float, float]:
    """In-plane spacing and distance of the box's middle from the nodule's, mm, as one of the two looks has them."""
    if rng.random() < 0.4:
        fits = [s for s in segment.FIRST_SPACINGS_MM if diameter < 0.5 * s * segment.BOX_SHAPE_ZYX[1]]
        spacing = (fits or [segment.FIRST_SPACINGS_MM[-1]])[0] * np.exp(rng.normal(0, 0.1))
        return float(spacing), float(rng.uniform(0, min(6.0, max(3.0, 0.35 * diameter))))
    spacing = np.clip(diameter / segment.VOXELS_ACROSS * np.exp(rng.normal(0, 0.22)), *segment.FINE_SPACING_MM)
    return float(spacing), float(rng.uniform(0, 0.5 + 0.15 * diameter))


def _shortened(rng: np.random.Generator, volume: Volume, mask: Mask) -> tuple[Volume, Mask]:
    """The same without some first or last slices; at least the middle half of the outline stays."""
    marked = np.flatnonzero(mask.array_zyx.any(axis=(1, 2)))
    quarter = (marked[-1] - marked[0]) // 4
    start = int(rng.integers(0, marked[0] + quarter + 1)) if rng.random() < 0.6 else 0
    count = volume.array_zyx.shape[0]
    stop = int(rng.integers(marked[-1] - quarter + 1, count + 1)) if rng.random() < 0.6 else count
    shape = volume.array_zyx.shape
    grid = volume.geometry.crop((start, 0, 0), (stop, *shape[1:]))
    return Volume(volume.array_zyx[start:stop], grid), Mask(mask.array_zyx[start:stop], grid)


def _beyond(grid: Geometry, box: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far (mm, negative inside) each voxel of a box lies beyond the grid's first or last slice, and its walls."""
    index = np.moveaxis(np.indices(box.shape_zyx), 0, -1)
    own = grid.world_to_index(box.index_to_world(index))
    last = np.asarray(grid.shape_zyx) - 1
    outside = np.maximum(-0.5 - own, own - last - 0.5) * np.asarray(grid.spacing_zyx_mm)
    return outside[..., 0], outside.max(axis=-1)


def _lung_places(scan: Volume) -> NDArray[np.float64]:
    """Points (LPS mm) of a scan that lie in or beside aerated lung."""
    size_xyz = np.abs(scan.geometry.index_to_world(np.asarray(scan.geometry.shape_zyx)) - scan.geometry.origin_xyz_mm)
    grid = box_geometry(
        scan.geometry.center_xyz_mm,
        shape_zyx=[max(1, int(n / 4.0)) for n in size_xyz[::-1]],
        spacing_zyx_mm=(4.0, 4.0, 4.0),
    )
    smooth = ndimage.uniform_filter(sample(scan, grid), 3)
    return grid.index_to_world(np.argwhere((smooth > -930) & (smooth < -650)))


def batch_of(
    crops: Crops, rows: NDArray[np.intp], columns: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Compose one batch with random mirrors, a transposition, and shifts, scales and noise of the HU.

    Args:
        crops: All boxes.
        rows: Cases.
        columns: Their variants.
        rng: Source of the random choices.

    Returns:
        The network's input ``[n, 5, 20, 32, 32]``, the truth (0 to 1) and where it is known (0 or 1), both
        ``[n, 1, 20, 32, 32]``.
    """
    inputs, truths, known = [], [], []
    for row, column in zip(rows, columns, strict=True):
        hu, truth = crops.hu[row, column].astype(np.float32), crops.truth[row, column]
        flips = tuple(axis for axis in range(3) if rng.random() < 0.5)
        hu, truth = np.flip(hu, flips), np.flip(truth, flips)
        if rng.random() < 0.5:
            hu, truth = hu.transpose(0, 2, 1), truth.transpose(0, 2, 1)
        noise = rng.standard_normal(hu.shape, dtype=np.float32) * float(rng.choice([0, 0, 10, 25, 50]))
        hu = (hu + 1000) * (1 + rng.normal(0, 0.03)) - 1000 + rng.normal(0, 15) + noise
        spacing, slices = (float(v) for v in crops.scales[row, column])
        inputs.append(segment.network_input(np.asarray(hu, np.float32), spacing_mm=spacing, slice_mm=slices))
        truths.append(np.clip(truth, 0, SCALE).astype(np.float32) / SCALE)
        known.append((truth != UNKNOWN).astype(np.float32))
    return np.stack(inputs), np.stack(truths)[:, None], np.stack(known)[:, None]
