"""Whether the places of detections are what they should be: axes in another order, flipped, voxels, no origin.

Every way in which the three written numbers may have been meant is tried: the six orders of the axes times the eight
flips in world millimetres and, where the grids of the scans are known, about the volume's middle, as voxel indices and
as millimetres from the first voxel; and voxels of one millimetre from the origin (a forgotten spacing). One is named
only where it hits far more findings than was given and than the others do by chance.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc

from spicula.core.geometry import Geometry
from spicula.metrics.doctor.complaint import Complaint, Severity
from spicula.metrics.doctor.constellations import find_shift
from spicula.metrics.hits import NO_POINTS, FreeResponseCounts, Points, match

FloatArray: TypeAlias = NDArray[np.float64]
Frame: TypeAlias = Literal["world", "middle", "voxel", "first voxel", "millimetre steps"]

MAX_PAIRS = 400_000
"""Pairs of a detection and a finding in one scan that are looked at; of more, scans are drawn at random."""

_BY_CHANCE = 0.02  # least rate of findings hit that chance is granted
_SURE = 1e-4  # chance that any reading hits as many by chance
_UNKNOWN_MM = 10.0  # a finding of negative diameter is scored as one of these
_FEW_HITS = 4
_MOST = 0.4  # of the findings are hit by a reading that need not be looked into
_HARDLY_ANY = 0.2  # of the findings are hit as given: something may be wrong with all


@dataclass(frozen=True, slots=True)
class Reading:
    """One way in which three written numbers may be meant.

    Args:
        frame: What they count: ``world`` (mm, LPS), ``middle`` (world, flipped about the volume's middle), ``voxel``
            (indices), ``first voxel`` (mm from it), ``millimetre steps`` (indices added to the origin as if voxels
            were 1 mm).
        order: Which of the written numbers is x, which y, which z.
        signs: 1, or -1 where the axis runs backwards.
    """

    frame: Frame
    order: tuple[int, int, int] = (0, 1, 2)
    signs: tuple[int, int, int] = (1, 1, 1)

    @property
    def words(self) -> str:
        """What the numbers are, in words."""
        parts = []
        if self.order != (0, 1, 2):
            written = {axis: name for name, axis in zip("xyz", self.order, strict=True)}
            parts.append("axes in the order " + ", ".join(written[place] for place in range(3)))
        flipped = " and ".join(name for name, sign in zip("xyz", self.signs, strict=True) if sign < 0)
        if flipped:
            parts.append(f"{flipped} flipped" + (" about the volume's middle" if self.frame == "middle" else ""))
        if self.frame == "world" and (self.order, self.signs) == _RAS:
            parts.append("RAS in place of LPS")
        meant = {"voxel": "voxel indices", "first voxel": "millimetres from the first voxel, without the origin",
                 "millimetre steps": "voxel indices from the origin, without the spacing"}  # fmt: skip
        if self.frame in meant:
            parts.insert(0, meant[self.frame])
        return ", ".join(parts) or "as given"

    @property
    def mend(self) -> str:
        """The edit that makes LPS millimetres of them."""
        columns = [f"coord{'XYZ'[axis]}" for axis in self.order]
        signed = [("-" if sign < 0 else "") + name for name, sign in zip(columns, self.signs, strict=True)]
        if self.frame == "world":
            ras = " (evaluate froc: --coords ras)" if (self.order, self.signs) == _RAS else ""
            return "write coordX, coordY, coordZ = " + ", ".join(signed) + ras
        if self.frame == "middle":
            middle = [f"2 * middle_{axis} - {name}" if sign < 0 else name
                      for axis, name, sign in zip("xyz", columns, self.signs, strict=True)]  # fmt: skip
            return "write coordX, coordY, coordZ = " + ", ".join(middle) + " (middle of the volume in world mm)"
        turned = [axis for axis, sign in zip("xyz", self.signs, strict=True) if sign < 0]
        backwards = f", {' and '.join(turned)} counted from the last voxel" if turned else ""
        step = {"voxel": "origin + direction @ (index * spacing)", "first voxel": "origin + direction @ millimetres",
                "millimetre steps": "origin + direction @ ((written - origin) * spacing)"}[self.frame]  # fmt: skip
        return f"write world = {step} with x, y, z = {', '.join(columns)}{backwards}"


AS_GIVEN = Reading("world")
_RAS = ((0, 1, 2), (-1, -1, 1))
_ORDERS: tuple[tuple[int, int, int], ...] = tuple((a, b, 3 - a - b) for a, b in itertools.permutations(range(3), 2))
_SIGNS: tuple[tuple[int, int, int], ...] = tuple(itertools.product((1, -1), (1, -1), (1, -1)))


@dataclass(frozen=True, slots=True)
class PlaceCheck:
    """What was found about the places.

    Args:
        complaints: What is wrong.
        reading: The reading that mends all detections; None where none does.
    """

    complaints: tuple[Complaint, ...] = ()
    reading: Reading | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """Readings tried on the detections and findings of some scans."""

    readings: tuple[Reading, ...]
    hit: NDArray[np.bool_]  # [readings, findings]
    scan: NDArray[np.str_]  # [findings]
    nearest_mm: float
    scans_tried: int
    scans_there: int

    def of(self, keep: NDArray[np.bool_]) -> _Trial:
        return _Trial(self.readings, self.hit[:, keep], self.scan[keep], self.nearest_mm, self.scans_tried,
                      self.scans_there)  # fmt: skip


def place_check(
    marks: Points, nodules: Points, *, excluded: Points = NO_POINTS,
    geometries: Mapping[str, Geometry] | None = None, seed: int = 0,
) -> PlaceCheck:  # fmt: skip
    """Try all readings of the detections' coordinates.

    Args:
        marks: Detections, ids as those of the findings.
        nodules: What is to be found.
        excluded: Excluded findings, whose pattern helps where each scan is moved by a vector of its own.
        geometries: Grid of scans, for as many as are known.
        seed: Of the drawing of scans where there are too many pairs.

    Returns:
        The complaints, at most one of them about all scans, and the reading that would mend it.
    """
    nodules = _only(nodules, np.isin(nodules.scan, marks.scan))
    if not nodules.scan.size:
        return PlaceCheck()
    world = _tried(marks, nodules, _readings(("world",)), {}, seed=seed)
    trials = [world]
    known = _only(nodules, np.isin(nodules.scan, list(geometries or {})))
    if geometries and known.scan.size:
        frames: tuple[Frame, ...] = ("world", "middle", "voxel", "first voxel", "millimetre steps")
        trials.append(_tried(marks, known, _readings(frames), geometries, seed=seed))
    best = max(trials, key=lambda trial: float(trial.hit.mean(axis=1).max()) + 1e-9 * len(trial.readings))
    reading = _better(best)
    if reading is not None:
        part = best.hit[best.readings.index(reading)].mean() < _MOST
        moved = _moved(marks, nodules, excluded) if part else None
        return PlaceCheck((moved,)) if moved is not None else PlaceCheck((_misread(best, reading),), reading)
    if world.hit[0].mean() < _HARDLY_ANY:
        signature = _moved(marks, nodules, excluded) or _never_negative(marks, nodules)
        if signature is not None:
            return PlaceCheck((signature,))
    some = [complaint for trial in trials[::-1] if (complaint := _some_scans(trial)) is not None]
    return PlaceCheck(tuple(some[:1]) or _no_hit(world))


def reread(marks: Points, reading: Reading, *, geometries: Mapping[str, Geometry] | None = None) -> Points:
    """Detections with their places read in another way; those in scans of unknown grid stay out where it is needed."""
    if reading.frame == "world":
        return Points(marks.scan, _placed(marks.center_xyz_mm, reading, None), marks.value)
    marks = _only(marks, np.isin(marks.scan, list(geometries or {})))
    return Points(marks.scan, _placed(marks.center_xyz_mm, reading, _grids(marks.scan, geometries or {})), marks.value)


@dataclass(frozen=True, slots=True, eq=False)
class _Grids:
    """The grid of each detection's scan, x before y before z."""

    axes: FloatArray  # [m, 3, 3] world mm a voxel
    origin: FloatArray  # [m, 3]
    last: FloatArray  # [m, 3] index of the last voxel
    spacing: FloatArray  # [m, 3]


def _grids(scan: NDArray[np.str_], geometries: Mapping[str, Geometry]) -> _Grids:
    names, place = np.unique(scan, return_inverse=True)
    grids = [geometries[str(name)] for name in names]
    axes = np.stack([grid.affine_lps[:3, 2::-1] for grid in grids])
    origin = np.array([grid.origin_xyz_mm for grid in grids])
    last = np.array([np.array(grid.shape_zyx[::-1]) - 1.0 for grid in grids])
    spacing = np.array([grid.spacing_zyx_mm[::-1] for grid in grids])
    return _Grids(axes[place], origin[place], last[place], spacing[place])


def _placed(written: FloatArray, reading: Reading, grids: _Grids | None) -> FloatArray:
    """World mm of written numbers under a reading."""
    signs = np.array(reading.signs, dtype=np.float64)
    numbers = written[:, reading.order]
    if grids is None or reading.frame == "world":
        return np.asarray(numbers * signs)
    if reading.frame == "middle":
        middle = grids.origin + np.einsum("mij,mj->mi", grids.axes, grids.last / 2)
        return np.asarray(np.where(signs < 0, 2 * middle - numbers, numbers))
    if reading.frame == "first voxel":
        numbers = numbers / grids.spacing
    elif reading.frame == "millimetre steps":
        numbers = np.einsum("mji,mj->mi", grids.axes / grids.spacing[:, None, :], numbers - grids.origin)
    index = np.where(signs < 0, grids.last - numbers, numbers)
    return np.asarray(grids.origin + np.einsum("mij,mj->mi", grids.axes, index))


def _readings(frames: Sequence[Frame]) -> tuple[Reading, ...]:
    """All readings in some frames, as given first."""
    found = [Reading(frame, order, signs) for frame in frames for order in _ORDERS for signs in _SIGNS]
    return tuple(
        reading for reading in found
        if not (reading.frame == "middle" and reading.signs == (1, 1, 1))
        and not (reading.frame == "millimetre steps" and reading.signs != (1, 1, 1))
    )  # fmt: skip


def _tried(
    marks: Points, nodules: Points, readings: tuple[Reading, ...], geometries: Mapping[str, Geometry], *, seed: int
) -> _Trial:
    names = np.unique(nodules.scan)
    there = len(names)
    order = np.argsort(marks.scan, kind="stable")
    ranked = marks.scan[order]
    low, high = np.searchsorted(ranked, nodules.scan), np.searchsorted(ranked, nodules.scan, side="right")
    if int((high - low).sum()) > MAX_PAIRS:
        share = MAX_PAIRS / float((high - low).sum())
        names = np.random.default_rng(seed).choice(names, max(int(share * there), 1), replace=False)
        keep = np.isin(nodules.scan, names)
        nodules, low, high = _only(nodules, keep), low[keep], high[keep]
    count = high - low
    of_nodule = np.repeat(np.arange(count.size), count)
    of_mark = order[np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - low, count)]
    used, of_mark = np.unique(of_mark, return_inverse=True)
    written = marks.center_xyz_mm[used]
    grids = _grids(marks.scan[used], geometries) if geometries else None
    diameter = np.where(nodules.value < 0, _UNKNOWN_MM, nodules.value)
    radius2, target = (diameter[of_nodule] / 2) ** 2, nodules.center_xyz_mm[of_nodule]
    hit = np.zeros((len(readings), count.size), dtype=np.bool_)
    nearest = np.full(count.size, np.inf)
    for row, reading in enumerate(readings):
        apart2 = ((_placed(written, reading, grids)[of_mark] - target) ** 2).sum(axis=1)
        hit[row, of_nodule[apart2 < radius2]] = True
        if row == 0:
            np.minimum.at(nearest, of_nodule, apart2)
    return _Trial(readings, hit, nodules.scan, float(np.sqrt(np.median(nearest))), len(names), there)


def _better(trial: _Trial) -> Reading | None:
    """The reading that hits far more than as given, and than chance lets any of them."""
    hits = trial.hit.sum(axis=1)
    best = int(hits.argmax())
    if trial.readings[best] == AS_GIVEN or hits[best] < max(_FEW_HITS, 2 * hits[0] + 3):
        return None
    rates = hits / trial.scan.size
    chance = max(float(np.quantile(np.delete(rates, best), 0.9)), _BY_CHANCE)
    sure = float(bdtrc(int(hits[best]) - 1, trial.scan.size, chance)) * len(hits) < _SURE
    return trial.readings[best] if sure else None


def _misread(trial: _Trial, reading: Reading) -> Complaint:
    before, after = int(trial.hit[0].sum()), int(trial.hit[trial.readings.index(reading)].sum())
    code = {"world": "flipped", "middle": "flipped", "voxel": "voxels", "first voxel": "no-origin",
            "millimetre steps": "no-spacing"}[reading.frame]  # fmt: skip
    if code == "flipped" and reading.order != (0, 1, 2):
        code = "order"
    elif reading.frame == "world" and (reading.order, reading.signs) == _RAS:
        code = "ras"
    return Complaint(
        f"places.{code}", "error",
        f"the detections hit {before:,} of {trial.scan.size:,} findings as given; read as {reading.words} they hit "
        f"{after:,}{_drawn(trial)}", reading.mend, _evidence(trial, before, after, reading),
    )  # fmt: skip


def _evidence(trial: _Trial, before: int, after: int, reading: Reading) -> dict[str, str | int | float]:
    return {
        "hits_as_given": before, "hits_after": after, "findings": trial.scan.size, "reading": reading.words,
        "order": "".join("xyz"[axis] for axis in reading.order), "signs": "".join("+-"[s < 0] for s in reading.signs),
        "frame": reading.frame, "readings_tried": len(trial.readings), "scans_tried": trial.scans_tried,
    }  # fmt: skip


def _drawn(trial: _Trial) -> str:
    if trial.scans_tried == trial.scans_there:
        return ""
    return f" (tried on {trial.scans_tried:,} scans drawn of {trial.scans_there:,})"


def _some_scans(trial: _Trial) -> Complaint | None:
    """A reading that mends the scans in which nothing was hit."""
    names, place = np.unique(trial.scan, return_inverse=True)
    bare = np.bincount(place, weights=trial.hit[0], minlength=len(names)) == 0
    part = trial.of(bare[place])
    if part.scan.size < 6:
        return None
    reading = _better(part)
    if reading is None:
        return None
    row = part.hit[part.readings.index(reading)]
    hits, mended = int(row.sum()), sorted({str(name) for name in part.scan[row]})
    severity: Severity = "error" if hits >= 0.02 * trial.scan.size else "warning"
    return Complaint(
        "places.some-scans", severity,
        f"in {len(mended):,} scans without a hit, {hits:,} of {part.scan.size:,} findings are hit where the detections "
        f"are read as {reading.words}{_drawn(trial)}: the direction of these scans was not heeded",
        f"take each image's own direction matrix when turning voxels into mm; for these scans {reading.mend}",
        {**_evidence(part, 0, hits, reading), "scans": mended[:20]},
    )  # fmt: skip


def _moved(marks: Points, nodules: Points, excluded: Points) -> Complaint | None:
    """Each scan shifted, or flipped about a point of its own."""
    both = Points(
        np.append(nodules.scan, excluded.scan), np.vstack([nodules.center_xyz_mm, excluded.center_xyz_mm]),
        np.append(nodules.value, excluded.value),
    )  # fmt: skip
    found = find_shift(marks, both)
    if found is None:
        return None
    reading = Reading("middle", found.order, found.signs)
    names = sorted({str(name) for name in found.moved.scan} & {str(name) for name in nodules.scan})
    hits = match(found.moved, nodules, names).counts if names else None
    turned = reading != Reading("middle")
    code = "no-origin" if not turned else "order" if found.order != (0, 1, 2) else "flipped"
    words = reading.words if turned else "millimetres from another origin"
    return Complaint(
        f"places.{code}", "error",
        f"read as {words}, the detections of each of {found.scans:,} scans lie as the findings do, moved by "
        f"{found.length_mm:.0f} mm (median): {found.agreeing:,} pairs agree in the vector of their scan, "
        f"{found.by_chance:.0f} by chance"
        + (f"; so moved they hit {hits.true_positives:,} of {_total(hits):,} findings of these" if hits else ""),
        reading.mend if turned else "write world = origin + direction @ millimetres with each image's own origin",
        {"agreeing": found.agreeing, "by_chance": round(found.by_chance, 1), "scans_tried": found.scans,
         "length_mm": round(found.length_mm, 1), "order": "".join("xyz"[axis] for axis in found.order),
         "signs": "".join("+-"[sign < 0] for sign in found.signs)},
    )  # fmt: skip


def _total(counts: FreeResponseCounts) -> int:
    return counts.true_positives + counts.false_negatives


def _never_negative(marks: Points, nodules: Points) -> Complaint | None:
    """Voxel indices, told by their range where no grid is known."""
    negative = float((nodules.center_xyz_mm < -1).mean())
    if marks.scan.size < 10 or marks.center_xyz_mm.min() < -1 or negative < 0.1:
        return None
    whole = float((marks.center_xyz_mm == np.round(marks.center_xyz_mm)).mean())
    low, high = marks.center_xyz_mm.min(axis=0), marks.center_xyz_mm.max(axis=0)
    spans = " x ".join(f"{a:.0f}..{b:.0f}" for a, b in zip(low, high, strict=True))
    return Complaint(
        "places.voxels", "error",
        f"no coordinate of the detections is negative ({spans}, {whole:.0%} of them whole numbers) while "
        f"{negative:.0%} of the findings' are: they are voxel indices or millimetres from the first voxel, not "
        "world millimetres",
        "write world = origin + direction @ (index * spacing), index as x, y, z; give --scans ROOT to have order and "
        "origin tried", {"whole": round(whole, 4), "negative_in_findings": round(negative, 4), "spans": spans},
    )  # fmt: skip


def _no_hit(trial: _Trial) -> tuple[Complaint, ...]:
    hits, n = int(trial.hit[0].sum()), trial.scan.size
    if n < 10 or hits > 0.05 * n:
        return ()
    return (Complaint(
        "places.no-hit", "warning",
        f"the detections hit {hits:,} of {n:,} findings in their scans, the nearest one lies {trial.nearest_mm:.0f} mm "
        f"away (median), and none of {len(trial.readings)} orders and flips is better",
        "give --scans ROOT so that voxels and origins are tried too; else: are detections and annotations of the same "
        "scans, and places world millimetres?", {"hits": hits, "findings": n, "nearest_mm": round(trial.nearest_mm, 1)},
    ),)  # fmt: skip


def _only(points: Points, keep: NDArray[np.bool_]) -> Points:
    return Points(points.scan[keep], points.center_xyz_mm[keep], points.value[keep])
