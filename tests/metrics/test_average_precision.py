from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from spicula.core.errors import InputError
from spicula.metrics.average_precision import IOU_THRESHOLDS, average_precision, box_score
from spicula.metrics.hits import FreeResponse, FreeResponseCounts, Points, cubes, match_boxes


def _response(seed: int) -> FreeResponse:
    rng = np.random.default_rng(seed)
    hit = rng.random(60) < 0.4
    score = rng.permutation(60) / 60 + 0.2 * hit
    counts = FreeResponseCounts(int(hit.sum()), 5, int((~hit).sum()), 0, 0, 60, 0, 1)
    return FreeResponse(score, hit, np.zeros(60, dtype=np.intp), np.array([hit.sum() + 5]), counts)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_against_scikit_learn(seed: int) -> None:
    response = _response(seed)
    total = int(response.findings.sum())
    # Findings that nothing hit are positives that are never called.
    missed = total - int(response.hit.sum())
    precision, recall, _ = precision_recall_curve(
        np.append(response.hit, np.ones(missed)), np.append(response.score, np.full(missed, -9.0))
    )
    called = recall[:-1] <= response.hit.sum() / total  # without scikit-learn's added last point
    points = list(zip(precision[:-1][called], recall[:-1][called], strict=True))
    expected = [max((p for p, r in points if r >= level), default=0.0) for level in np.linspace(0, 1, 101)]
    assert average_precision(response) == pytest.approx(np.mean(expected))


def test_perfect_and_useless_boxes() -> None:
    nodules = cubes(Points(["a", "b", "b"], [[0, 0, 0], [9, 9, 9], [60, 0, 0]], [8.0, 6.0, 5.0]))
    assert box_score(nodules, nodules, ["a", "b"]).mean_average_precision == 1
    far = cubes(Points(["a"], [[200, 0, 0]], [0.5]), [8.0])
    score = box_score(far, nodules, ["a", "b"])
    assert (score.mean_average_precision, score.mean_recall) == (0, 0)
    assert score.iou == IOU_THRESHOLDS


def test_recall_falls_as_the_overlap_that_is_asked_for_rises() -> None:
    rng = np.random.default_rng(1)
    centers = rng.uniform(0, 200, (30, 3))
    scans = [str(i % 10) for i in range(30)]
    nodules = cubes(Points(scans, centers, np.full(30, 10.0)))
    marks = cubes(Points(scans, centers + rng.normal(0, 2, (30, 3)), rng.random(30)), rng.uniform(6, 14, 30))
    score = box_score(marks, nodules, sorted(set(scans)))
    assert list(score.recall) == sorted(score.recall, reverse=True)
    assert score.mean_recall == pytest.approx(np.mean(score.recall))
    assert 0 < score.recall[-1] < score.recall[0]
    one = average_precision(match_boxes(marks, nodules, sorted(set(scans)), iou=0.3))
    assert score.average_precision[IOU_THRESHOLDS.index(0.3)] == one
    few = box_score(marks, nodules, sorted(set(scans)), max_marks=1)
    assert few.mean_recall < score.mean_recall


def test_no_overlap_is_an_error() -> None:
    nodules = cubes(Points(["a"], [[0, 0, 0]], [8.0]))
    with pytest.raises(InputError, match="iou"):
        box_score(nodules, nodules, ["a"], iou=())
