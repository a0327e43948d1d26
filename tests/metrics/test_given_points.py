from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from spicula.core.errors import InputError
from spicula.metrics.given_points import given_points_score, pair_points
from spicula.metrics.hits import Points


def _set(seed: int = 0) -> tuple[Points, Points, np.ndarray, np.ndarray]:
    """Predictions in another order and a little off, lesions, labels, patients."""
    rng = np.random.default_rng(seed)
    scans = np.array([f"scan{i // 3}" for i in range(60)])
    lesions = Points(scans, rng.uniform(-150, 150, (60, 3)), np.zeros(60))
    malignant = (rng.random(60) < 0.3).astype(int)
    order = rng.permutation(60)
    off = rng.normal(0, 0.1, (60, 3))
    told = Points(scans[order], (lesions.center_xyz_mm + off)[order], (rng.random(60) + 0.5 * malignant)[order])
    return told, lesions, malignant, np.array([f"patient{i // 6}" for i in range(60)])


def test_areas_against_scikit_learn() -> None:
    told, lesions, malignant, patients = _set()
    score = given_points_score(told, lesions, malignant, groups=patients, resamples=200)
    assert score.auroc.value == pytest.approx(roc_auc_score(malignant, score.probability))
    assert score.auprc.value == pytest.approx(average_precision_score(malignant, score.probability))
    assert score.auroc.low <= score.auroc.value <= score.auroc.high
    assert score.distance_mm.max() < 1
    for lesion, row in enumerate(pair_points(told, lesions)):
        assert told.scan[row] == lesions.scan[lesion]
        assert score.probability[lesion] == told.value[row]


def test_every_lesion_needs_a_prediction() -> None:
    told, lesions, malignant, _ = _set()
    fewer = Points(told.scan[1:], told.center_xyz_mm[1:], told.value[1:])
    with pytest.raises(InputError, match=f"lesion {told.scan[0]} .*no prediction: got the nearest"):
        given_points_score(fewer, lesions, malignant)
    elsewhere = Points(np.where(told.scan == "scan3", "other", told.scan), told.center_xyz_mm, told.value)
    with pytest.raises(InputError, match=r"lesion scan3 .*none in this scan"):
        pair_points(elsewhere, lesions)
    with pytest.raises(InputError, match="no prediction"):
        pair_points(Points(told.scan, told.center_xyz_mm * (-1, -1, 1), told.value), lesions)


def test_every_prediction_needs_a_lesion() -> None:
    told, lesions, _, _ = _set()
    twice = Points(np.append(told.scan, told.scan[7]), np.vstack([told.center_xyz_mm, told.center_xyz_mm[7:8]]),
                   np.append(told.value, 0.5))  # fmt: skip
    with pytest.raises(InputError, match=f"prediction {told.scan[7]} .*got 1 that belong to no lesion"):
        pair_points(twice, lesions)
    near = Points(["a", "a"], [[0, 0, 0], [0.5, 0, 0]], [0, 0])
    with pytest.raises(InputError, match="same nearest prediction"):
        pair_points(Points(["a"], [[0.2, 0, 0]], [0.9]), near)


def test_tolerance_includes_its_end() -> None:
    lesion = Points(["a"], [[0, 0, 0]], [0])
    assert pair_points(Points(["a"], [[2.0, 0, 0]], [0.9]), lesion, tolerance_mm=2.0).tolist() == [0]
    with pytest.raises(InputError, match="no prediction"):
        pair_points(Points(["a"], [[2.01, 0, 0]], [0.9]), lesion, tolerance_mm=2.0)
    with pytest.raises(InputError, match="tolerance"):
        pair_points(lesion, lesion, tolerance_mm=-1.0)


def test_one_class_or_few_patients_is_an_error() -> None:
    told, lesions, malignant, _ = _set()
    with pytest.raises(InputError, match="class 0 only"):
        given_points_score(told, lesions, np.zeros(60), resamples=20)
    with pytest.raises(InputError, match="patients: got 2"):
        given_points_score(told, lesions, malignant, groups=np.arange(60) % 2)
