from __future__ import annotations

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.metrics.classification import auroc
from spicula.metrics.patients import patient_maximum


def test_against_a_dictionary() -> None:
    rng = np.random.default_rng(0)
    patients = rng.choice([f"{n:03d}" for n in range(40)], 150)
    y, score = rng.integers(0, 2, 150) * (rng.random(150) < 0.2), rng.random(150).round(1)
    rows: dict[str, list[int]] = {}
    for number, patient in enumerate(patients):
        rows.setdefault(str(patient), []).append(number)
    found = patient_maximum(patients, y, score)
    assert found.patient.tolist() == list(rows)
    assert found.label.tolist() == [bool(y[r].any()) for r in rows.values()]
    assert found.score.tolist() == [score[r].max() for r in rows.values()]
    assert found.row.tolist() == [r[int(np.argmax(score[r]))] for r in rows.values()]
    assert found.nodules.tolist() == [len(r) for r in rows.values()]


def test_laws() -> None:
    rng = np.random.default_rng(1)
    y, score = rng.integers(0, 2, 30), rng.random(30)
    alone = patient_maximum(np.arange(30), y, score)
    assert auroc(alone.label, alone.score) == auroc(y, score)
    patients = rng.integers(0, 9, 30)
    turn = rng.permutation(30)
    a, b = patient_maximum(patients, y, score), patient_maximum(patients[turn], y[turn], score[turn])
    assert dict(zip(a.patient.tolist(), a.score.tolist(), strict=True)) == dict(
        zip(b.patient.tolist(), b.score.tolist(), strict=True)
    )
    assert a.nodules.sum() == 30


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="one id a row"):
        patient_maximum(["a"], [0, 1], [0.1, 0.2])
    with pytest.raises(InputError, match="patient of row 1"):
        patient_maximum(["a", ""], [0, 1], [0.1, 0.2])
    with pytest.raises(InputError, match="patient of row 0"):
        patient_maximum([np.nan, 3.0], [0, 1], [0.1, 0.2])
    with pytest.raises(InputError, match="score of row 1"):
        patient_maximum(["a", "a"], [0, 1], [0.1, np.nan])
