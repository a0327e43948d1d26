"""The boxes from which the detector's filter learns: nodules set into scans, and what else looks like a blob there."""

from __future__ import annotations

import functools
import hashlib
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.files import written_aside
from spicula.core.finding import Case, Finding, Point
from spicula.core.geometry import FloatArray, Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_nodules, sample
from spicula.datasets.insertion import insert_nodule, insertion_places, random_orientation, wall_direction
from spicula.detectors.blob import boxes, strongest
from spicula.formats import nrrd, read_volume
from spicula.measure.blobs import find_candidates
from spicula.measure.lungs import segment_lungs
from spicula.transforms.resample import around, average_blocks, coarse, to_lps_axes

STORED_SIDE = 28
"""Voxels along each side of a stored box; training cuts smaller ones out of it."""

TRAINING_SCANS = ("LungFCP-01-0001", "lung1", "lung2")
TEST_SCAN = "LIDC-IDRI-0001"

LEAST_GROWN_MM = 10.0
"""Only nodules of this diameter are grown to masses."""

SMALL_MM = 6.0
"""Nodules below this diameter, and ground glass, are set in once more."""

SIMULATED_SLICES_MM = (2.5, 5.0)
"""Thin scans are seen with slices of these distances too."""

UNMARKED_ABOVE_MM = 40.0
"""LungFCP-01-0001 has no marks; above this z (LPS) its apices show a part-solid lesion and scars: never negatives."""


@dataclass(frozen=True, slots=True, eq=False)
class Host:
    """A scan that receives nodules and gives what is none.

    Args:
        name: Of the scan.
        volume: Its pixels.
        lungs: Its lungs.
        known: Nodules that are known in it.
        highest_z_mm: Candidates above this z are nobody's negatives.
    """

    name: str
    volume: Volume
    lungs: Mask
    known: tuple[Finding, ...]
    highest_z_mm: float = float("inf")


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Stored boxes.

    Args:
        images: uint8 ``[n, 2, s, s, s]``, near and far box, 0 to 255.
        positive: bool ``[n]``.
        scan: Name of the scan around each.
        patient: Of the nodule set in; of a negative, the scan's name.
        slice_mm: Distance of the scan's slices.
    """

    images: NDArray[np.uint8]
    positive: NDArray[np.bool_]
    scan: NDArray[np.str_]
    patient: NDArray[np.str_]
    slice_mm: NDArray[np.float32]


FIELDS = tuple(field.name for field in fields(Crops))


def load_host(data: Path, name: str, work: Path) -> Host:
    """Open one of the real scans with its lungs and known nodules.

    Args:
        data: Folder of the development data.
        name: One of :data:`TRAINING_SCANS` or :data:`TEST_SCAN`.
        work: Where archives are unpacked.

    Returns:
        The scan.
    """
    if name in sample.NAMES:
        found = next(scan for scan in sample.fetch_sample() if scan.name == name)
        volume, label = read_volume(found.nrrd), nrrd.read(found.label_nrrd)
        marked = Mask(np.asarray(label.array_zyx > 0), label.geometry)
        diameter = 2 * (3 * marked.volume_mm3 / (4 * np.pi)) ** (1 / 3)
        known = (Finding("label", center_of(marked), diameter_mm=diameter),)
        return Host(name, volume, segment_lungs(volume), known)
    folder = work / "scans" / name
    if not folder.is_dir():
        aside = folder.with_name(f".{name}")
        with tarfile.open(data / "scans" / f"{name}.tar.xz") as archive:
            archive.extractall(aside, filter="data")
        aside.rename(folder)
    volume = read_volume(folder)
    if name == TEST_SCAN:
        known = (Finding("1", (56.2, 86.3, -115.9), diameter_mm=29.6),)
        return Host(name, volume, segment_lungs(volume), known)
    return Host(name, volume, segment_lungs(volume), (), UNMARKED_ABOVE_MM)


def center_of(mask: Mask) -> Point:
    """Centroid of a mask, LPS mm."""
    x, y, z = mask.geometry.index_to_world(np.argwhere(mask.array_zyx)).mean(axis=0)
    return float(x), float(y), float(z)


def thick(host: Host, slice_mm: float) -> Host | None:
    """The scan with slices averaged to about a distance; None where its own are already nearly as thick."""
    ordered = to_lps_axes(host.volume)
    factor = round(slice_mm / ordered.geometry.spacing_zyx_mm[0])
    if factor < 2:
        return None
    small = average_blocks(ordered, (factor, 1, 1))
    volume = replace(small, array_zyx=np.rint(small.array_zyx).astype(np.int16))
    return replace(host, volume=volume, lungs=segment_lungs(volume))


def load_or_cut(data: Path, out: Path, *, rounds: int, seed: int, workers: int = 1) -> Crops:
    """Cut all boxes, or find those that an earlier run has cut.

    Args:
        data: Folder of the development data.
        out: The run's folder; boxes go to ``out/crops``.
        rounds: How often each nodule is set into a scan.
        seed: Decides places and orientations.
        workers: Processes.

    Returns:
        The boxes of all training scans.
    """
    jobs = [(data, out, name, rounds, (seed, number)) for number, name in enumerate(TRAINING_SCANS)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        files = chain.from_iterable(pool.map(_cut_scan, jobs))
    return joined([load(path) for path in files])


def _cut_scan(job: tuple[Path, Path, str, int, tuple[int, int]]) -> list[Path]:
    """Cut the boxes of one scan, part by part; what is there already stays. Returns the files."""
    data, out, name, rounds, seed = job
    host = functools.cache(lambda: load_host(data, name, out))
    cases, root = lidc_nodules.load_cases(data / "lidc_nodules"), data / "lidc_nodules"
    parts: dict[str, Callable[[], Crops | None]] = {"negative": lambda: negatives(host())}
    for slice_mm in SIMULATED_SLICES_MM:
        parts[f"negative-{slice_mm:g}mm"] = lambda mm=slice_mm: _thick_negatives(host(), mm)  # type: ignore[misc]
    for r in range(rounds):
        chosen = cases[(seed[1] + r) % len(TRAINING_SCANS) :: len(TRAINING_SCANS)]
        parts[f"round-{r}"] = lambda c=chosen, r=r: positives(host(), c, root, seed=(*seed, r))  # type: ignore[misc]
    mine = cases[seed[1] :: len(TRAINING_SCANS)]
    faint = [c for c in mine if (c.findings[0].diameter_mm or 0) < SMALL_MM or c.findings[0].truth["texture"] <= 2]
    large = [c for c in mine if (c.findings[0].diameter_mm or 0) >= LEAST_GROWN_MM] * 2
    parts["faint"] = lambda: positives(
        thick(host(), SIMULATED_SLICES_MM[0]) or host(), faint, root, seed=(*seed, rounds + 1)
    )
    parts["mass"] = lambda: positives(host(), large, root, seed=(*seed, rounds), grown_to_mm=(26.0, 75.0))
    files = []
    for part, cut in parts.items():
        path = out / "crops" / f"{name}-{part}.npz"
        if not path.is_file() and (crops := cut()) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(path) as aside, aside.open("wb") as stream:
                np.savez(stream, **{field: getattr(crops, field) for field in FIELDS})
        if path.is_file():
            files.append(path)
    return files


def _thick_negatives(host: Host, slice_mm: float) -> Crops | None:
    thicker = thick(host, slice_mm)
    return None if thicker is None else negatives(thicker, most=1000)


def load(path: Path) -> Crops:
    """Read boxes that were stored."""
    with np.load(path, allow_pickle=False) as stored:
        return Crops(*(stored[field] for field in FIELDS))


def joined(parts: Sequence[Crops]) -> Crops:
    """One after the other."""
    return Crops(*(np.concatenate([getattr(part, field) for part in parts]) for field in FIELDS))


def negatives(host: Host, *, most: int = 1400) -> Crops:
    """Boxes around candidates that are no known nodule."""
    centers = [
        c.center_xyz_mm
        for c in strongest(find_candidates(host.volume, host.lungs), most=most)
        if c.center_xyz_mm[2] < host.highest_z_mm
        and all(
            np.linalg.norm(np.subtract(c.center_xyz_mm, k.center_xyz_mm)) > (k.diameter_mm or 10) / 2 + 8
            for k in host.known
        )
    ]
    return _stored(boxes(host.volume, centers, side=STORED_SIDE), False, host, [host.name] * len(centers))


def positives(
    host: Host,
    cases: Sequence[Case],
    root: Path,
    *,
    seed: Sequence[int],
    grown_to_mm: tuple[float, float] | None = None,
) -> Crops:
    """Boxes around nodules set into a scan, one at a time.

    Args:
        host: The scan.
        cases: The nodules.
        root: Folder ``lidc_nodules``.
        seed: Decides places, orientations and growth.
        grown_to_mm: Grow all to a diameter drawn from this range; if None, two of five large ones to up to 70 mm.

    Returns:
        A box for each nodule that found a place.
    """
    search = SearchGrid.of(host)
    images, patients = [], []
    for number, case in enumerate(cases):
        digest = int.from_bytes(hashlib.sha256(case.case_id.encode()).digest()[:4])
        rng = np.random.default_rng((*seed, digest) if grown_to_mm is None else (*seed, digest, number))
        diameter = float(case.findings[0].diameter_mm or 6.0)
        wanted = None if grown_to_mm is None else float(rng.uniform(*grown_to_mm))
        if grown_to_mm is None and diameter >= LEAST_GROWN_MM and rng.random() < 0.4:
            wanted = diameter * float(rng.uniform(1.4, min(3.5, 70 / diameter)))
        planned = plan_nodule(search, case, root, rng, avoid=host.known, grown_to_mm=wanted)
        if planned is None:
            continue
        volume, truth = planned.set_into(around(host.volume, planned.place, 50.0 + planned.diameter_mm / 2))
        if truth.array_zyx.any():
            x, y, z = center_of(truth) + rng.normal(scale=0.3 + 0.06 * planned.diameter_mm, size=3)
            images.append(boxes(volume, [(x, y, z)], side=STORED_SIDE)[0])
            patients.append(case.patient_id)
    return _stored(np.stack(images), True, host, patients)


@dataclass(frozen=True, slots=True, eq=False)
class SearchGrid:
    """A scan and its lungs on coarse grids, to look for places fast."""

    volume: Volume
    lungs: Mask

    @classmethod
    def of(cls, host: Host) -> SearchGrid:
        """Every second voxel of the lungs in the plane, and along z where slices are thin."""
        grid = host.lungs.geometry
        step = (2 if grid.spacing_zyx_mm[0] < 2.3 else 1, 2, 2)
        array = host.lungs.array_zyx[tuple(slice(None, None, s) for s in step)]
        affine = grid.affine_lps.copy()
        affine[:3, :3] = affine[:3, :3] * np.asarray(step)
        return cls(coarse(host.volume, 2.0), Mask(array, Geometry(array.shape, affine)))


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A nodule, and where and how it will be set into a scan."""

    nodule: Volume
    mask: Mask
    center: Point
    diameter_mm: float
    place: Point
    turn: FloatArray
    feather_mm: float

    def set_into(self, volume: Volume) -> tuple[Volume, Mask]:
        """The volume with the nodule, and the nodule's outline there."""
        return insert_nodule(
            volume, self.nodule, self.mask, at_xyz_mm=self.place, nodule_center_xyz_mm=self.center,
            orientation=self.turn, feather_mm=self.feather_mm,
        )  # fmt: skip

    def put_into(self, volume: Volume) -> Mask | None:
        """The nodule's outline, after setting it into the volume's own array; None if it is too small for a voxel."""
        part = around(volume, self.place, 50.0)
        changed, outline = self.set_into(part)
        if not outline.array_zyx.any():
            return None
        part.array_zyx[...] = changed.array_zyx
        return outline


def plan_nodule(
    search: SearchGrid,
    case: Case,
    root: Path,
    rng: np.random.Generator,
    *,
    avoid: Sequence[Finding],
    grown_to_mm: float | None = None,
) -> Planned | None:
    """Choose place and orientation of one nodule.

    Args:
        search: Where to look for room.
        case: The nodule.
        root: Folder ``lidc_nodules``.
        rng: Decides place and orientation.
        avoid: Nodules to keep away from.
        grown_to_mm: Diameter to grow it to; None leaves it as it is.

    Returns:
        The plan; None where there is no room.
    """
    nodule, mask = case.load_volume(), lidc_nodules.load_mask(root, case.case_id)
    turn = random_orientation(rng)
    wall = wall_direction(nodule, mask)
    diameter, center = float(case.findings[0].diameter_mm or 6.0), center_of(mask)
    if grown_to_mm is not None:
        grid = _scaled(nodule.geometry, grown_to_mm / diameter, center)
        nodule, mask, diameter = replace(nodule, geometry=grid), Mask(mask.array_zyx, grid), grown_to_mm
    direction = None if wall is None else turn @ wall
    place = _place(search, diameter=diameter, wall=direction, rng=rng, avoid=avoid)
    if place is None:
        return None
    return Planned(nodule, mask, center, diameter, place, turn, float(rng.uniform(2.0, 4.0)))


def _place(
    search: SearchGrid, *, diameter: float, wall: FloatArray | None, rng: np.random.Generator, avoid: Sequence[Finding]
) -> Point | None:
    """A place with room, at the wall if the nodule had one; a mass may cover vessels."""
    tries = [(diameter / 2, wall, 0.12), (diameter / 2, None, 0.12), (min(diameter / 2, 10.0), None, 0.5)]
    for radius, direction, tissue in tries[0 if wall is not None else 1 :]:
        try:
            return insertion_places(
                search.volume, search.lungs, count=1, seed=int(rng.integers(1 << 31)), radius_mm=radius, avoid=avoid,
                wall_xyz=direction, most_tissue=tissue,
            )[0]  # fmt: skip
        except InputError:
            continue
    return None


def _scaled(grid: Geometry, factor: float, center: Point) -> Geometry:
    affine = grid.affine_lps.copy()
    affine[:3, :3] *= factor
    affine[:3, 3] = (affine[:3, 3] - center) * factor + center
    return Geometry(grid.shape_zyx, affine)


def _stored(images: NDArray[np.float32], positive: bool, host: Host, patients: Sequence[str]) -> Crops:
    count, slice_mm = len(images), to_lps_axes(host.volume).geometry.spacing_zyx_mm[0]
    return Crops(
        np.rint(images * 255).astype(np.uint8), np.full(count, positive), np.full(count, host.name),
        np.array(patients), np.full(count, slice_mm, dtype=np.float32),
    )  # fmt: skip
