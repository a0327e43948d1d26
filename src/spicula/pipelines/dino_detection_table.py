"""Slices to learn detection from: nodules set into nodule-free lung of real scans, and the same lung without them.

What is cut is cached part by part (a scan, a fifth of the patients) as memory maps, and so are the tokens that a
backbone makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, map_coordinates

from spicula.core.errors import InputError
from spicula.core.files import written_aside
from spicula.core.finding import Case
from spicula.core.volume import Mask
from spicula.datasets import lidc_nodules, sample
from spicula.detectors.dino import Slices, View, as_images, cut_slices, fixed_pixels
from spicula.pipelines import detection_crops
from spicula.pipelines.detection_crops import TRAINING_SCANS, Host
from spicula.pipelines.evaluate_detection import Truth, copies
from spicula.pipelines.run_folder import open_run
from spicula.transforms import crop

FOLDS, FREE = 5, -1
"""Folds of the patients, and the fold of slices without a nodule: they belong to no patient's."""

PER_COPY = 24
"""Most nodules set into one copy of a scan that is learned from."""

MOST_SLICES, FREE_VIEWS = 3, 3
"""Slices of one nodule that are kept, the middle one and others at random; and views of each slice without one."""

SHIFT_PIXELS, SHIFT_HU, NOISE_HU = 7, 10.0, 20.0
"""Fields are shifted by up to so many pixels; deviation of what is added to a whole slice, and most noise."""

KNOWN_MARGIN_MM = 5.0
"""Around the scans' own nodules nothing is learned."""

Rows = NDArray[np.float64]
Records = NDArray[np.intp]


class Stacked:
    """Arrays, alike but for their first axis, read along it as one without being joined in memory."""

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self.arrays = tuple(arrays)
        self.starts = np.array([0, *accumulate(len(a) for a in arrays)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, row: int) -> NDArray[Any]:
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return np.asarray(self.arrays[part][row - self.starts[part]])


@dataclass(frozen=True, slots=True, eq=False)
class DetectionTable:
    """Slices of all parts.

    Args:
        view: How they were cut.
        images: uint8 ``[n, 1 or 3, height, width]``, the window from 0 to 255.
        outlines: uint8 ``[n, height, width / 8]``, eight pixels a byte.
        scan: ``[n]`` name of the scan.
        fold: ``[n]`` fold of the patients whose nodules were set in, :data:`FREE` for slices without any.
        nodules: ``[m, 5]`` slice, row and column in pixels, diameter in mm, number of the nodule.
        ignored: ``[k, 4]`` slice, row and column in pixels, radius in mm: neither nodule nor none.
    """

    view: View
    images: Stacked
    outlines: Stacked
    scan: NDArray[np.str_]
    fold: NDArray[np.intp]
    nodules: Rows
    ignored: Rows

    def outline(self, row: int) -> NDArray[np.bool_]:
        """The outlines in a slice, ``[height, width]``."""
        return np.unpackbits(self.outlines[row], axis=-1, count=self.view.shape[1]).astype(bool)


def load_or_cut(
    data: Path,
    work: Path,
    *,
    view: View,
    seed: int = 0,
    limit: int | None = None,
    report: Callable[[str], None] = print,
) -> DetectionTable:
    """Cut all slices, or find those that an earlier run has cut.

    Args:
        data: Folder of the development data (``lidc_nodules``, ``scans``).
        work: Scans are unpacked here, and parts go to ``slices``.
        view: How slices are shown.
        seed: Decides all that is random.
        limit: Most nodules of a fold, drawn at random; all if None.
        report: Takes one line for each part that is cut.

    Returns:
        The table.

    Raises:
        InputError: The data are not there, nothing was cut, or the folder holds slices that were cut otherwise.
    """
    open_run(work / "slices", "cut slices", {"view": asdict(view), "seed": seed, "limit": limit})
    root = data / "lidc_nodules"
    lidc_nodules.load_cases(root)  # before hours of work
    for name in {*TRAINING_SCANS, detection_crops.TEST_SCAN} - {*sample.NAMES}:
        if not (data / "scans" / f"{name}.tar.xz").is_file() and not (work / "scans" / name).is_dir():
            raise InputError(f"{data}: scans/{name}.tar.xz", got="no such file", expected="the development data")
    wanted = [(scan, fold) for scan in TRAINING_SCANS for fold in (FREE, *range(FOLDS))]
    parts = []
    for scan, fold in wanted:
        folder = work / "slices" / f"{scan}-{'free' if fold == FREE else fold}"
        if not (folder / "rows.npz").is_file():
            host = detection_crops.load_host(data, scan, work)
            rng = np.random.default_rng((seed, fold + 1, *scan.encode()))
            cases = None if fold == FREE else some_of_fold(root, fold, rng, most=limit)
            _cut_part(host, cases, root, view, folder, rng)
            report(f"cut {folder.name}")
        parts.append((scan, fold, folder))
    return _joined(view, parts)


def some_of_fold(root: Path, fold: int, rng: np.random.Generator, *, most: int | None) -> list[Case]:
    """Nodules of the patients of one fold, at random not more than so many, in the order of the table."""
    cases = lidc_nodules.load_cases(root)
    mine = np.flatnonzero(lidc_nodules.patient_folds(cases, folds=FOLDS) == fold)
    return [cases[i] for i in sorted(rng.permutation(mine)[:most])]


def _joined(view: View, parts: Sequence[tuple[str, int, Path]]) -> DetectionTable:
    parts = [part for part in parts if np.load(part[2] / "rows.npz")["slices"] > 0]
    if not parts:
        raise InputError("slices", got="none", expected="scans with lungs, and nodules that find room in them")
    images = Stacked([np.load(folder / "images.npy", mmap_mode="r") for _, _, folder in parts])
    outlines = Stacked([np.load(folder / "outlines.npy", mmap_mode="r") for _, _, folder in parts])
    nodules, ignored, before = [np.zeros((0, 5))], [np.zeros((0, 4))], 0
    for (_, _, folder), start in zip(parts, images.starts[:-1], strict=True):
        with np.load(folder / "rows.npz", allow_pickle=False) as rows:
            nodules.append(rows["nodules"] + [start, 0, 0, 0, before])
            ignored.append(rows["ignored"] + [start, 0, 0, 0])
            before += int(rows["number"])
    counts = [len(a) for a in images.arrays]
    scan, fold = np.repeat([p[0] for p in parts], counts), np.repeat([p[1] for p in parts], counts)
    return DetectionTable(view, images, outlines, scan, fold, np.concatenate(nodules), np.concatenate(ignored))


def _cut_part(
    host: Host, cases: Sequence[Case] | None, root: Path, view: View, folder: Path, rng: np.random.Generator
) -> None:
    """Cut the slices of one scan with some nodules (or, None, of the scan as it is) into a folder."""
    base = cut_slices(host.volume, view, lungs=host.lungs)
    records = _Records(host, rng)
    if cases is None:
        for z in base.shown:
            for _ in range(FREE_VIEWS):
                records.add(base, int(z), (), {})
    number = 0
    for copy in copies(host, cases or (), root, seed=int(rng.integers(1 << 31)), per_copy=PER_COPY):
        slices = replace(base, volume=fixed_pixels(copy.volume, view))
        nodules = [_Nodule.of(slices, truth, number + n) for n, (truth, _) in enumerate(copy.placed)]
        outlines = _outlines(slices, [outline for _, outline in copy.placed])
        number += len(nodules)
        for z in sorted({int(z) for nodule in nodules for z in nodule.some(slices, rng)}):
            records.add(slices, z, nodules, outlines)
    channels = 3 if view.neighbors else 1
    height, width = view.shape
    content = {
        "images": np.array(records.images, dtype=np.uint8).reshape(-1, channels, height, width),
        "outlines": np.array(records.outlines, dtype=np.uint8).reshape(-1, height, (width + 7) // 8),
    }
    for name, array in content.items():
        with written_aside(folder / f"{name}.npy") as aside, aside.open("wb") as stream:
            np.save(stream, array)
    nodule_rows, ignored = np.array(records.nodules).reshape(-1, 5), np.array(records.ignored).reshape(-1, 4)
    with written_aside(folder / "rows.npz") as aside, aside.open("wb") as stream:
        np.savez(stream, nodules=nodule_rows, ignored=ignored, number=number, slices=len(records.images))


@dataclass(frozen=True, slots=True, eq=False)
class _Nodule:
    """A nodule on the grid of a scan's slices: index of its center, diameter, number."""

    index: Rows
    diameter_mm: float
    number: int

    @classmethod
    def of(cls, slices: Slices, truth: Truth, number: int) -> _Nodule:
        return cls(slices.volume.geometry.world_to_index(truth.center_xyz_mm), truth.diameter_mm, number)

    def away_mm(self, slices: Slices, z: int) -> float:
        return abs(z - float(self.index[0])) * slices.volume.geometry.spacing_zyx_mm[0]

    def some(self, slices: Slices, rng: np.random.Generator) -> list[int]:
        """The middle one of its slices, and others at random."""
        mine = [int(z) for z in slices.shown if self.away_mm(slices, int(z)) <= self.diameter_mm / 2]
        mine.sort(key=lambda z: self.away_mm(slices, z))
        return mine[:1] + [int(z) for z in rng.permutation(mine[1:])[: MOST_SLICES - 1]]


class _Records:
    """Collects slices of one part."""

    def __init__(self, host: Host, rng: np.random.Generator) -> None:
        self.host, self.rng = host, rng
        self.images: list[NDArray[np.uint8]] = []
        self.outlines: list[NDArray[np.uint8]] = []
        self.nodules: list[list[float]] = []
        self.ignored: list[list[float]] = []

    def add(self, slices: Slices, z: int, nodules: Sequence[_Nodule], outlines: dict[int, NDArray[np.bool_]]) -> None:
        """Add one slice, shifted, mirrored or not, a little brighter or darker, with noise."""
        rng, view, step = self.rng, slices.view, slices.volume.geometry.spacing_zyx_mm[0]
        grid = slices.volume.geometry
        if grid.index_to_world([z, *(np.array(grid.shape_zyx[1:]) / 2)])[2] >= self.host.highest_z_mm:
            return
        corner = np.array(slices.corners[int(rng.integers(len(slices.corners)))])
        corner = corner + rng.integers(-SHIFT_PIXELS, SHIFT_PIXELS + 1, size=2)
        mirrored, record = bool(rng.random() < 0.5), len(self.images)

        def place(index: Rows) -> list[float]:
            row, column = index[1:] - corner
            return [record, float(row), float(view.shape[1] - 1 - column if mirrored else column)]

        for nodule in nodules:
            away = nodule.away_mm(slices, z)
            if away <= nodule.diameter_mm / 2:
                self.nodules.append([*place(nodule.index), nodule.diameter_mm, nodule.number])
            elif away <= nodule.diameter_mm / 2 + max(2.0, step):
                self.ignored.append([*place(nodule.index), nodule.diameter_mm / 2 + 1.0])
        for known in self.host.known:
            index, radius = grid.world_to_index(known.center_xyz_mm), (known.diameter_mm or 10.0) / 2 + KNOWN_MARGIN_MM
            if abs(z - index[0]) * step <= radius:
                self.ignored.append([*place(index), radius])
        hu = slices.field(z, (int(corner[0]), int(corner[1])))
        hu = hu + np.float32(rng.normal(scale=SHIFT_HU))
        hu += np.float32(rng.uniform(0, NOISE_HU)) * rng.standard_normal(hu.shape, dtype=np.float32)
        marked = _window(outlines.get(z), corner, view.shape)
        way = -1 if mirrored else 1
        self.images.append(np.rint(255 * view.windowed(hu)[..., ::way]).astype(np.uint8))
        self.outlines.append(np.packbits(marked[:, ::way], axis=-1))


def _window(plane: NDArray[np.bool_] | None, corner: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """A part of a plane; nothing where it reaches beyond, or where there is no plane."""
    if plane is None:
        return np.zeros(shape, dtype=bool)
    near = int(max(0, -corner.min())), int(max(0, (corner + shape - plane.shape).max()))
    top, left = corner + near[0]
    return np.pad(plane, near)[top : top + shape[0], left : left + shape[1]]


def _outlines(slices: Slices, outlines: Sequence[Mask]) -> dict[int, NDArray[np.bool_]]:
    """By slice, all outlines on the slices' pixels."""
    planes: dict[int, NDArray[np.bool_]] = {}
    grid = slices.volume.geometry
    for outline in outlines:
        index = grid.world_to_index(outline.geometry.index_to_world(np.argwhere(outline.array_zyx)))
        start = np.clip(np.floor(index.min(axis=0)).astype(int) - 1, 0, np.array(grid.shape_zyx) - 1)
        stop = np.clip(np.ceil(index.max(axis=0)).astype(int) + 2, start + 1, grid.shape_zyx)
        inside = crop.sample(outline, grid.crop(start.tolist(), stop.tolist()), outside=0.0) >= 0.5
        for z, plane in enumerate(inside, start=int(start[0])):
            whole = planes.setdefault(z, np.zeros(grid.shape_zyx[1:], dtype=bool))
            whole[start[1] : stop[1], start[2] : stop[2]] |= plane
    return planes


def outline_at(slices: Slices, logits: NDArray[np.float32], center_xyz_mm: Sequence[float], diameter_mm: float) -> Mask:
    """The outline at a place in LPS mm, from logits ``[fields, shown slices, rows, columns]``.

    Returns:
        The connected region nearest to the place, no farther than a diameter; empty if there is none.
    """
    grid = slices.volume.geometry
    spacing, index = np.asarray(grid.spacing_zyx_mm), grid.world_to_index(center_xyz_mm)
    middles = np.asarray(slices.corners) + np.asarray(slices.view.shape) / 2
    field = int(np.argmin(np.abs(middles - index[1:]).max(axis=1)))
    last = np.array([slices.shown[-1], grid.shape_zyx[1] - 1, grid.shape_zyx[2] - 1])
    start = np.clip(np.floor(index - diameter_mm / spacing), [slices.shown[0], 0, 0], last).astype(int)
    stop = np.clip(np.ceil(index + diameter_mm / spacing), start, last).astype(int) + 1
    axes = [np.arange(a, b) for a, b in zip(start, stop, strict=True)]
    cell = np.divide(slices.view.shape, logits.shape[2:])
    rows, columns = ((axes[a + 1] - slices.corners[field][a] + 0.5) / cell[a] - 0.5 for a in (0, 1))
    where = np.stack(np.meshgrid(axes[0] - slices.shown[0], rows, columns, indexing="ij"))
    away = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) - index
    far = np.linalg.norm(away * spacing, axis=-1)
    inside = (map_coordinates(logits[field], where, order=1, mode="nearest") > 0) & (far <= diameter_mm)
    regions, _ = label(inside)
    nearest = regions.flat[int(np.argmin(np.where(inside, far, np.inf)))]
    return Mask(np.asarray(inside & (regions == nearest)), grid.crop(start.tolist(), stop.tolist()))


def load_or_make_tokens(
    table: DetectionTable,
    network: Any,
    out: Path,
    *,
    batch: int = 4,
    bf16: bool = False,
    report: Callable[[str], None] = print,
) -> tuple[Stacked, NDArray[np.float32]]:
    """What a frozen :class:`spicula.networks.vit.VisionTransformer` makes of each slice, computed once in ``out``.

    Returns:
        Patch tokens, float16 ``[n, rows, columns, width]``, and class tokens, float32 ``[n, width]``.
    """
    import torch

    patches, classes = [], []
    for number, images in enumerate(table.images.arrays):
        path = out / f"patches-{number}.npy"
        if not (out / f"class-{number}.npy").is_file():
            shape = (len(images), table.view.rows, table.view.columns, network.shape.width)
            said = np.zeros((len(images), network.shape.width), dtype=np.float32)
            fast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)
            with written_aside(path) as aside, torch.inference_mode(), fast:
                stored = np.lib.format.open_memmap(aside, mode="w+", dtype=np.float16, shape=shape)
                for start in range(0, len(images), batch):
                    unit = images[start : start + batch] * np.float32(1 / 255)
                    found = network(torch.from_numpy(as_images(unit)))
                    stored[start : start + batch] = found.map.permute(0, 2, 3, 1).float().numpy()
                    said[start : start + batch] = found.cls.float().numpy()
                stored.flush()
            with written_aside(out / f"class-{number}.npy") as aside, aside.open("wb") as stream:
                np.save(stream, said)
            report(f"tokens of part {number + 1} of {len(table.images.arrays)}")
        patches.append(np.load(path, mmap_mode="r"))
        classes.append(np.load(out / f"class-{number}.npy"))
    return Stacked(patches), np.concatenate(classes)


def slice_labels(table: DetectionTable) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]:
    """What the published head learns of slices.

    Returns:
        ``positive`` ``[n]``: has a nodule; ``usable`` ``[n]``: has one or not even a part of one; ``boxes`` ``[n, 4]``
        of the largest: lowest x and y, width and height, as shares of the image.
    """
    shape, count = np.array(table.view.shape), len(table.images)
    positive, boxes = np.zeros(count, dtype=bool), np.zeros((count, 4), dtype=np.float32)
    inside = ((table.nodules[:, 1:3] >= 0) & (table.nodules[:, 1:3] < shape)).all(axis=1)
    for record, *place, diameter, _ in sorted(table.nodules[inside].tolist(), key=lambda n: n[3]):
        side = diameter / table.view.pixel_mm
        low = (np.array(place) + 0.5 - side / 2) / shape
        positive[int(record)], boxes[int(record)] = True, np.clip([*low[::-1], *(side / shape[::-1])], 0, 1)
    return positive, positive | ~np.isin(np.arange(count), table.ignored[:, 0]), boxes
