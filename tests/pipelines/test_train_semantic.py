"""The whole training of images and words: honest folds, files, resumption."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'spicula[train]'")
pytest.importorskip("accelerate", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError
from spicula.datasets import lidc_nodules
from spicula.metrics.calibration import BetaCalibration
from spicula.pipelines import train_semantic
from spicula.pipelines.risk_table import Outlines
from spicula.pipelines.semantic_evaluation import find_reports
from spicula.pipelines.semantic_recipe import recipe_of


def test_a_fold_is_calibrated_by_the_others() -> None:
    rng = np.random.default_rng(0)
    logit, fold_of = rng.normal(size=120), np.arange(120) % 4
    labels = (logit + rng.normal(size=120) > 0).astype(np.float64)
    before = train_semantic.cross_fitted(logit, labels, fold_of)
    changed = np.where(fold_of == 1, 1 - labels, labels)
    after = train_semantic.cross_fitted(logit, changed, fold_of)
    assert np.array_equal(before[fold_of == 1], after[fold_of == 1])
    assert not np.array_equal(before[fold_of == 2], after[fold_of == 2])


def test_the_ensemble_is_the_mean_of_calibrated_folds() -> None:
    maps = [BetaCalibration(1.0, 1.0, 0.0), BetaCalibration(2.0, 2.0, 0.0)]
    found = train_semantic.ensemble_probability(np.array([[0.0, 1.0], [0.0, 1.0]]), maps)
    assert np.allclose(found, [0.5, (1 / (1 + np.exp(-1)) + 1 / (1 + np.exp(-2))) / 2])


def test_reports_are_found_by_images_that_lie_beside_them() -> None:
    rng = np.random.default_rng(0)
    medians = [{name: float(rng.integers(1, 5)) for name in lidc_nodules.TRAITS} for _ in range(30)]
    image = rng.normal(size=(30, 16))
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    found = find_reports(image, lambda texts: image, medians)
    assert found["own"] == [1.0, 1.0, 1.0]
    assert np.allclose(found["own_chance"], [1 / 30, 5 / 30, 10 / 30])
    lost = find_reports(image, lambda texts: -image, medians)
    assert lost["own"][0] < 0.1
    assert all(alike >= own for alike, own in zip(found["alike_chance"], found["own_chance"], strict=True))


@pytest.mark.shared
@pytest.mark.slow
def test_a_tiny_run_resumes_compares_and_refuses_other_arguments(
    shared: Path, tmp_path: Path, readers_outlines: Outlines
) -> None:
    recipe = replace(recipe_of("compact"), epochs=1, batch=16, width=16, pretraining=None, text_pretraining=None)
    out = tmp_path / "run"
    arguments = {"recipe": recipe, "outlines": readers_outlines, "folds": 2, "variants": 2, "limit": 48}

    def die(line: str) -> None:
        if "fold 2" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_semantic.train_semantic(shared, out, report=die, **arguments)
    lines: list[str] = []
    evaluation = train_semantic.train_semantic(shared, out, report=lines.append, **arguments)
    assert "malignancy AUROC" in lines[-1]
    with (out / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 48
    assert all(row["patient_id"] != lidc_nodules.TEST_PATIENT for row in rows)
    assert all(0 <= float(row["malignancy"]) <= 1 for row in rows)
    assert abs(float(rows[0]["shape:Round"]) + float(rows[0]["shape:Ovoid"]) - 1) < 1e-5
    assert evaluation == json.loads((out / "evaluation.json").read_text())
    assert set(evaluation["zero_shot"]["compat"]) == {"score", "nlst"}
    assert 0 < evaluation["image_to_text"]["own_chance"]["recall_at_1"] < 0.1
    assert len(json.loads((out / "calibration.json").read_text())["folds"]) == 2
    again = train_semantic.train_semantic(shared, out, report=lines.append, other=out / "predictions.csv", **arguments)
    assert again["targets"] == evaluation["targets"]
    assert "gain_over_other" in again
    other = {**arguments, "recipe": replace(recipe, shuffle_texts=True)}
    with pytest.raises(InputError, match="arguments"):
        train_semantic.train_semantic(shared, out, report=lines.append, **other)


def test_published_weights_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--clip"):
        train_semantic.train_semantic(tmp_path, tmp_path / "run", recipe=recipe_of("paper"))
