"""Each reader's ratings of the nodules of ``lidc_nodules``, from the reading files of LIDC-IDRI.

``nodules.csv`` keeps one rounded vote a trait; the readers behind it seldom agree. A model learns more from all of
them: ``label``, for one, is 1 where at least two readers rated the malignancy 4 or 5.

Source: LIDC-IDRI (doi:10.7937/K9/TCIA.2015.LO9QL9SX), CC BY 3.0, reading files ``tcia-lidc-xml.tar.xz``.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.datasets import lidc_xml
from spicula.datasets.lidc_nodules import TRAITS

_NONE = np.empty((0, 2), dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Reading:
    """One reader's outline of one nodule.

    Args:
        reader: Number of the reading session in its file.
        middle_yx: Mean of the outline's points, pixels.
        z_mm: Lowest and highest slice.
        ratings: In the order of :data:`spicula.datasets.lidc_nodules.TRAITS`.
    """

    reader: int
    middle_yx: tuple[float, float]
    z_mm: tuple[float, float]
    ratings: tuple[int, ...]


def load_readings(archive: Path, series_uids: Collection[str]) -> dict[str, list[Reading]]:
    """Read the nodules of 3 mm and more that readers outlined and rated.

    Args:
        archive: ``tcia-lidc-xml.tar.xz``.
        series_uids: Which series.

    Returns:
        By series UID; of a series that is in several files, the first one's.

    Raises:
        InputError: There is no such file.
    """
    if not archive.is_file():
        raise InputError(f"{archive}: no such file", hint="name the folder that holds lidc_xml/tcia-lidc-xml.tar.xz")
    return {
        reading.series_uid: [_reading(mark) for mark in reading.marks if len(mark.ratings) and _points(mark).size]
        for reading in lidc_xml.load_readings(archive, series_uids=series_uids)
    }


def _reading(mark: lidc_xml.Mark) -> Reading:
    x, y = _points(mark).mean(axis=0).tolist()
    heights = [outline.z_mm for outline in mark.outlines if outline.inside]
    return Reading(mark.reader, (y, x), (min(heights), max(heights)), mark.ratings)


def _points(mark: lidc_xml.Mark) -> lidc_xml.Points:
    """All points of the outlines that are no holes, ``[n, 2]``."""
    return np.concatenate([outline.points_xy for outline in mark.outlines if outline.inside] or [_NONE])


def load_ratings(
    nodules: Path, archive: Path, *, case_ids: Collection[str] | None = None
) -> dict[str, NDArray[np.int8]]:
    """All readers' ratings of each nodule.

    A nodule's readings are the group of near outlines at its height whose number and mean ratings agree best with
    the table's.

    Args:
        nodules: Folder ``lidc_nodules``.
        archive: ``tcia-lidc-xml.tar.xz``.
        case_ids: Which nodules; all if None.

    Returns:
        By case id, int8 ``[readers, 9]`` in the order of ``TRAITS``; a nodule whose group does not have the table's
        number of readers has the table's rounded ratings alone, ``[1, 9]``.
    """
    with (nodules / "nodules.csv").open(newline="", encoding="utf-8") as stream:
        table = {f"{row['patient_id']}_{row['nodule_id']}": row for row in csv.DictReader(stream)}
    rows = {name: row for name, row in table.items() if case_ids is None or name in case_ids}
    readings = load_readings(archive, {row["series_uid"] for row in rows.values()})
    ratings = {}
    for name, row in rows.items():
        votes = np.array([float(row[trait]) for trait in TRAITS])
        group = _best_group(readings.get(row["series_uid"], []), float(row["z_mm"]), int(row["readers"]), votes)
        chosen = [list(reading.ratings) for reading in group] if len(group) == int(row["readers"]) else [votes.tolist()]
        ratings[name] = np.asarray(chosen, dtype=np.int8)
    return ratings


def _best_group(readings: Sequence[Reading], z_mm: float, readers: int, votes: NDArray[np.float64]) -> list[Reading]:
    near = [r for r in readings if r.z_mm[0] - 6 < z_mm < r.z_mm[1] + 6]
    best: list[Reading] = []
    lowest = float("inf")
    while near:
        group, near = [near[0]], near[1:]
        for member in group:  # grows while it is walked
            joined = [r for r in near if np.hypot(*np.subtract(r.middle_yx, member.middle_yx)) < 8]
            group += joined
            near = [r for r in near if r not in joined]
        middle = float(np.mean([sum(r.z_mm) / 2 for r in group]))
        ratings = np.mean([r.ratings for r in group], axis=0)
        cost = 3 * abs(len(group) - readers) + float(np.abs(ratings - votes).sum()) + 0.2 * abs(middle - z_mm)
        if cost < lowest:
            best, lowest = group, cost
    return best
