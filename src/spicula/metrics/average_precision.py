"""Average precision and recall of boxes, as detection toolkits report them beside the free-response curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spicula.core.errors import InputError
from spicula.metrics.froc import curve_counts
from spicula.metrics.hits import NO_BOXES, Boxes, FreeResponse, match_boxes

IOU_THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
"""Overlaps over which nnDetection and MONAI average; a lung nodule is small, COCO's 0.5 to 0.95 would tell little."""

RECALLS = 101
"""Levels of recall, 0 to 1, at which COCO reads the precision."""


@dataclass(frozen=True, slots=True)
class BoxScore:
    """Average precision and recall of boxes at several overlaps.

    Args:
        iou: Least intersection over union of a hit.
        average_precision: At each.
        recall: Share of the findings hit by any mark (of the ``max_marks`` surest of each scan), at each.
        mean_average_precision: Over the overlaps (mAP).
        mean_recall: Over the overlaps (mAR; COCO's "average recall").
        max_marks: Marks a scan that were looked at; None for all.
    """

    iou: tuple[float, ...]
    average_precision: tuple[float, ...]
    recall: tuple[float, ...]
    mean_average_precision: float
    mean_recall: float
    max_marks: int | None


def average_precision(response: FreeResponse) -> float:
    """Average precision as COCO reads it: at 101 levels of recall the best precision at that recall or a higher one.

    Args:
        response: Matched marks; by :func:`~spicula.metrics.hits.match_boxes` for COCO's own.

    Returns:
        0 to 1.

    References:
        Lin et al. 2014, doi:10.1007/978-3-319-10602-1_48. Marks of equal score enter together here; COCO takes them
        in the order of the images.
    """
    false, true = curve_counts(response)
    total = int(response.findings.sum())
    called = true + false
    precision = np.divide(true, called, out=np.zeros(true.size), where=called > 0)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(true / total, np.linspace(0, 1, RECALLS), side="left")
    return float(np.append(best, 0.0)[np.minimum(place, best.size)].mean())


def box_score(
    marks: Boxes,
    findings: Boxes,
    scans: Sequence[str],
    *,
    iou: Sequence[float] = IOU_THRESHOLDS,
    excluded: Boxes = NO_BOXES,
    max_marks: int | None = 100,
) -> BoxScore:
    """Average precision and recall at several overlaps, each with its own matching.

    Args:
        marks: What the detector says.
        findings: What is to be found.
        scans: All scans of the set.
        iou: Least intersections over union; 0.1 to 0.5 by 0.05 as nnDetection and MONAI take them.
        excluded: Boxes where a mark counts neither way.
        max_marks: Limit a scan; None for no limit.

    Returns:
        The scores and their means.

    Raises:
        InputError: As :func:`~spicula.metrics.hits.match_boxes`, or no overlap given.

    References:
        Baumgartner et al. 2021, doi:10.1007/978-3-030-87240-3_51.

    Example:
        >>> from spicula.metrics.hits import Points, cubes
        >>> nodules = cubes(Points(["a", "b"], [[0, 0, 0], [9, 9, 9]], [8.0, 6.0]))
        >>> marks = cubes(Points(["a", "b"], [[1, 0, 0], [60, 0, 0]], [0.9, 0.4]), [8.0, 8.0])
        >>> score = box_score(marks, nodules, ["a", "b"], iou=(0.1, 0.5))
        >>> score.recall, round(score.mean_average_precision, 3)
        ((0.5, 0.5), 0.505)
    """
    if not iou:
        raise InputError("iou", got="nothing", expected="one overlap or more")
    found = [match_boxes(marks, findings, scans, iou=t, excluded=excluded, max_marks=max_marks) for t in iou]
    precisions = tuple(average_precision(response) for response in found)
    recalls = tuple(r.counts.true_positives / int(r.findings.sum()) for r in found)
    return BoxScore(
        tuple(float(t) for t in iou),
        precisions,
        recalls,
        float(np.mean(precisions)),
        float(np.mean(recalls)),
        max_marks,
    )
