"""The same nodule in an earlier or later study of the patient: matched by place, with its growth.

The lungs of the two studies are laid over each other by the boxes around them, axis by axis: that takes away how the
patient lay and how deeply they breathed, to within a centimeter or so. Then nodules are paired so that the sum of
distances is least, and pairs farther apart than :data:`FARTHEST_MM` are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from spicula.core.volume import Volume
from spicula.measure.growth import volume_doubling_time_days
from spicula.measure.lungs import segment_lungs
from spicula.pipelines.overtaken import overtaken
from spicula.pipelines.workplace import Workplace
from spicula.store.findings import StoredFinding

FARTHEST_MM = 15.0
"""Two places farther apart than this, once the lungs lie over each other, are two nodules."""

LEAST_GROWTH = 0.25
"""A volume that changed by less than a quarter may not have changed at all.

References:
    Gietema et al. 2007, doi:10.1148/radiol.2431060225 (repeatability of nodule volumetry on low-dose CT).
"""

LUNGS = "lungs"
"""Where the record of an analysis in the store keeps :func:`lungs_box`."""

Box = Mapping[str, Sequence[float]]


def lungs_box(volume: Volume) -> dict[str, list[float]]:
    """The box around the lungs, from the second to the ninety-eighth percentile of their voxels.

    Args:
        volume: A chest CT.

    Returns:
        ``low_xyz_mm`` and ``high_xyz_mm``, LPS.

    Raises:
        InputError: There are no lungs.
    """
    lungs = segment_lungs(volume)
    world = lungs.geometry.index_to_world(np.argwhere(lungs.array_zyx))
    low, high = np.percentile(world, (2, 98), axis=0)
    return {"low_xyz_mm": np.round(low, 1).tolist(), "high_xyz_mm": np.round(high, 1).tolist()}


def growth_of_study(place: Workplace, study_uid: str) -> dict[str, list[dict[str, Any]]]:
    """Each finding of a study beside the same nodule in the patient's other studies.

    Args:
        place: The store.
        study_uid: The study.

    Returns:
        By finding, the studies nearest in time first; nothing for studies without a date or an analysis.
    """
    study = place.studies.get(study_uid)
    own_box = _lungs(place, study_uid)
    current = _standing(place, study_uid)
    found: dict[str, list[dict[str, Any]]] = {one.id: [] for one in current}
    if not current or not study["patient_id"]:
        return found
    others = place.studies.list(patient_id=study["patient_id"], limit=100).rows
    for other in others:
        other_uid = str(other["study_uid"])
        days = days_between(str(other["study_date"]), str(study["study_date"]))
        if other_uid == study_uid or days is None:
            continue
        before = _standing(place, other_uid)
        for now, then, distance in matched(current, before, own_box, _lungs(place, other_uid)):
            found[now.id].append({"prior_study_uid": other_uid, **_grown(now, then, days, distance)})
    return {name: sorted(rows, key=lambda row: abs(row["days"])) for name, rows in found.items()}


def _standing(place: Workplace, study_uid: str) -> list[StoredFinding]:
    stored = place.findings.of_study(study_uid)
    gone = overtaken(stored, place.findings.latest_analyses([study_uid]).get(study_uid))
    return [one for one in stored if one.state != "rejected" and one.id not in gone]


def _lungs(place: Workplace, study_uid: str) -> Box | None:
    analyses = place.findings.analyses(study_uid)
    return analyses[0]["record"].get(LUNGS) if analyses else None


def days_between(first: str, second: str) -> int | None:
    """Days from one study date to another; None where one is none.

    Example:
        >>> days_between("20200101", "20200131")
        30
    """
    try:
        dates = [date(int(text[:4]), int(text[4:6]), int(text[6:])) for text in (first, second) if len(text) == 8]
    except ValueError:
        return None
    return (dates[1] - dates[0]).days if len(dates) == 2 else None


def matched(
    current: Sequence[StoredFinding], before: Sequence[StoredFinding], own_box: Box | None, other_box: Box | None
) -> list[tuple[StoredFinding, StoredFinding, float]]:  # fmt: skip
    """Pair the nodules of two studies.

    Args:
        current: Findings of one study.
        before: Those of the other.
        own_box: Around its lungs; None where it is not known: then the places are compared as they are.
        other_box: Likewise.

    Returns:
        Pairs with their distance in mm.
    """
    if not current or not before:
        return []
    now, then = (np.array([one.content["center_xyz_mm"] for one in side], dtype=float) for side in (current, before))
    if own_box is not None and other_box is not None:
        then = laid_over(then, other_box, own_box)
    distances = np.linalg.norm(now[:, None] - then[None], axis=2)
    cost = np.minimum(distances, FARTHEST_MM)  # far pairs are all alike: none of them may push a near one aside
    rows, columns = linear_sum_assignment(cost)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(current[i], before[j], float(distances[i, j])) for i, j in pairs if distances[i, j] < FARTHEST_MM]


def laid_over(places_xyz_mm: NDArray[np.float64], box: Box, onto: Box) -> NDArray[np.float64]:
    """Places of one study in the frame of another: each axis is stretched so that box falls on box.

    Args:
        places_xyz_mm: ``[n, 3]`` LPS mm.
        box: Around the lungs of their own study.
        onto: Around the lungs of the other.
    """
    low, high, low_onto, high_onto = (
        np.asarray(one[name], dtype=float) for one in (box, onto) for name in ("low_xyz_mm", "high_xyz_mm")
    )
    return np.asarray(low_onto + (places_xyz_mm - low) * (high_onto - low_onto) / np.maximum(high - low, 1.0))


def _grown(now: StoredFinding, then: StoredFinding, days: float, distance_mm: float) -> dict[str, Any]:
    size, size_then = (_positive(one, "diameter_mm") for one in (now, then))
    volume, volume_then = (_positive(one, "volume_mm3") for one in (now, then))
    growth = None if size is None or size_then is None else round(size - size_then, 2)
    doubling = None
    if days and volume is not None and volume_then is not None:
        before, after = (volume_then, volume) if days > 0 else (volume, volume_then)
        if after >= before * (1 + LEAST_GROWTH):
            doubling = round(volume_doubling_time_days(before, after, days=abs(days)), 1)
    return {
        "prior_finding_id": then.id, "days": days, "diameter_before_mm": size_then, "volume_before_mm3": volume_then,
        "growth_mm": growth, "volume_doubling_time_days": doubling, "distance_mm": round(distance_mm, 1),
    }  # fmt: skip


def _positive(finding: StoredFinding, name: str) -> float | None:
    value = finding.content.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else None
