"""Predictions of a classifier, and splits."""

from __future__ import annotations

import numpy as np
import pytest

from spicula.metrics.doctor import labels, split
from spicula.metrics.doctor.complaint import Complaint


def codes(complaints: tuple[Complaint, ...]) -> list[str]:
    return [f"{c.severity} {c.code}" for c in complaints]


def some_predictions(n: int = 200, prevalence: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < prevalence).astype(float)
    logit = np.log(prevalence / (1 - prevalence)) + 1.5 * (y - prevalence) + rng.normal(0, 1, n)
    return y, 1 / (1 + np.exp(-logit))


def test_sound_predictions_draw_nothing() -> None:
    y, p = some_predictions()
    assert labels.probability_complaints(p) == ()
    assert labels.label_complaints(y, p, patients=[str(n) for n in range(200)]) == ()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda p: 100 * p, "error probabilities.percent"),
        (lambda p: np.log(p / (1 - p)), "error probabilities.logits"),
        (lambda p: (p > 0.5).astype(float), "error probabilities.labels"),
        (lambda p: np.full_like(p, 0.4), "error probabilities.constant"),
        (lambda p: (3 * p).round() / 4 + 0.1, "warning probabilities.tied"),
    ],
)
def test_numbers_that_are_no_probabilities(change, code: str) -> None:  # type: ignore[no-untyped-def]
    assert codes(labels.probability_complaints(change(some_predictions(60)[1]))) == [code]


def test_labels() -> None:
    y, p = some_predictions()
    assert codes(labels.label_complaints(1 - y, p)) == ["error labels.inverted"]
    assert codes(labels.label_complaints(np.ones(200), p)) == ["error labels.one-class"]
    assert codes(labels.label_complaints(np.arange(200) % 5 + 1, p)) == ["error labels.not-binary"]
    assert codes(labels.label_complaints(y, p, patients=["a", "b"] * 100)) == ["error patients.few"]
    told = labels.label_complaints(1 - y, p)[0]
    assert float(told.evidence["auroc"]) + float(told.evidence["auroc_turned"]) == pytest.approx(1)  # type: ignore[arg-type]


def test_an_auroc_below_one_half_by_chance_is_no_complaint() -> None:
    rng = np.random.default_rng(4)
    for _ in range(200):
        y = np.tile([0.0, 1.0], 20)
        assert codes(labels.label_complaints(y, rng.random(40))) == []


def test_a_prevalence_that_cannot_be_met() -> None:
    """All above one half, while 5 % are of class 1."""
    y, p = some_predictions(400, 0.05)
    told = labels.label_complaints(y, 0.5 + p / 2)
    assert codes(told) == ["warning probabilities.prevalence"]
    assert "cannot be calibrated" in told[0].problem
    assert codes(labels.label_complaints(1 - y, 0.4 * (1 - p))) == ["warning probabilities.prevalence"]


def test_nodules_twice() -> None:
    assert labels.key_complaints(["a / 1", "a / 2"], what="predictions") == ()
    assert codes(labels.key_complaints(["a / 1", "a / 1"], what="predictions")) == ["error nodules.duplicated"]


SIDES = ["train"] * 6 + ["test"] * 4


def test_a_split_by_patient_draws_nothing() -> None:
    patients = ["a", "a", "b", "b", "c", "c", "d", "d", "e", "e"]
    units = {"patient": patients, "study": [p + "1" for p in patients], "file-name": [""] * 10}
    assert split.split_complaints(SIDES, units) == ()


def test_patients_studies_series_and_files_on_both_sides() -> None:
    ids = ["a", "a", "b", "b", "c", "c", "c", "d", "d", "a"]
    for kind in split.UNITS:
        told = split.split_complaints(SIDES, {"patient": [str(n) for n in range(10)], kind: ids})
        assert codes(told) == [f"error split.{kind}"]
        assert told[0].evidence["shared"] == 2
        assert told[0].evidence["rows"] == 6
        assert list(told[0].evidence["examples"]) == ["a", "c"]  # type: ignore[arg-type]
        assert "GroupKFold" in told[0].mend


def test_a_split_by_nodule_and_one_by_slice_are_named() -> None:
    patients = ["a", "a", "b", "b", "c", "c", "a", "b", "d", "d"]
    by_nodule = ["1", "1", "1", "1", "1", "1", "2", "2", "1", "1"]
    told = split.split_complaints(SIDES, {"patient": patients}, nodules=by_nodule)[0]
    assert "made by nodule" in told.problem
    told = split.split_complaints(SIDES, {"patient": patients}, nodules=["1"] * 10)[0]
    assert "made by row" in told.problem


def test_folds_are_sides() -> None:
    folds = ["0", "0", "1", "1", "2"]
    told = split.split_complaints(folds, {"patient": ["a", "b", "b", "c", "d"]})
    assert codes(told) == ["error split.patient"]
    assert list(told[0].evidence["sides"]) == ["0", "1"]  # type: ignore[arg-type]


def test_what_cannot_be_told_is_said() -> None:
    assert codes(split.split_complaints(["train"] * 3, {"patient": ["a", "b", "c"]})) == ["error split.one-side"]
    told = split.split_complaints(SIDES, {"series": [str(n) for n in range(10)]})
    assert codes(told) == ["warning split.no-patient"]


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("/data/train/LIDC-IDRI-0001_3_slice07.png", "LIDC-IDRI-0001"), ("lidc-idri-0412.nii.gz", "LIDC-IDRI-0412"),
        ("000001_01_01_109.png", "000001"), ("TCGA-05-4245_1.npy", "TCGA-05-4245"), ("nodule.png", None),
        ("train_12.png", None),
    ],
)  # fmt: skip
def test_patients_of_file_names(name: str, patient: str | None) -> None:
    assert split.patient_of_name(name) == patient
