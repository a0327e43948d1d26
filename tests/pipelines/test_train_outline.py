"""The training command on a toy data set: whole run folder, same result after a kill, other arguments refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.datasets import lidc_nodules
from spicula.formats import nifti
from spicula.pipelines import outline_crops, outline_fit
from spicula.pipelines.train_outline import summarize, train_outline

for _package in ("torch", "safetensors", "onnx", "onnxscript"):
    pytest.importorskip(_package, reason="pip install 'spicula[train]'")


@pytest.fixture(scope="module")
def nodules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven spheres of as many patients, the first being the test patient."""
    root = tmp_path_factory.mktemp("lidc_nodules")
    (root / "image").mkdir()
    (root / "mask").mkdir()
    rows = []
    for n in range(7):
        grid = Geometry.from_axes((8, 36, 36), (2.0, 0.8, 0.8), origin_xyz_mm=(10.0 * n, -20.0, 5.0))
        center = grid.index_to_world((3.5, 17.5, 17.5))
        points = grid.index_to_world(np.moveaxis(np.indices(grid.shape_zyx), 0, -1))
        inside = np.linalg.norm(points - center, axis=-1) < 3.0 + 0.7 * n
        patient = lidc_nodules.TEST_PATIENT if n == 0 else f"P{n}"
        nifti.write(root / "image" / f"{patient}_1.nii.gz", Volume(np.where(inside, 20, -850).astype(np.int16), grid))
        nifti.write(root / "mask" / f"{patient}_1.nii.gz", Volume(inside.astype(np.int16), grid))
        row = {"patient_id": patient, "nodule_id": 1, "x_mm": center[0], "y_mm": center[1], "z_mm": center[2]}
        row |= {"series_uid": f"1.2.{n}", "diameter_mm": 6 + 1.4 * n, "label": n % 2, "readers": 4}
        rows.append(row | dict.fromkeys(lidc_nodules.TRAITS, 3))
    with (root / "nodules.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


def test_one_command_gives_a_whole_run(nodules: Path, tmp_path: Path) -> None:
    arguments = {"folds": 2, "steps": 2, "batch": 2, "variants": 2, "report": lambda line: None}
    bundle = train_outline(nodules, tmp_path, **arguments)
    bundle.verify()
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["finished"]["fingerprint"] == bundle.fingerprint
    assert run["arguments"]["nodules"] == 6
    assert {"torch", "openvino", "commit"} <= set(run["versions"])
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert {row["case_id"] for row in evaluation["nodules"]} == {f"P{n}_1" for n in range(1, 7)}
    with np.load(tmp_path / "outlines" / "LIDC-IDRI-0001_1.npz") as stored:
        assert stored["mask"].shape == (8, 36, 36)
    assert train_outline(nodules, tmp_path, **arguments).fingerprint == bundle.fingerprint
    with pytest.raises(InputError, match="another folder"):
        train_outline(nodules, tmp_path, **{**arguments, "steps": 3})


def test_a_killed_training_goes_on_to_the_same_weights(
    nodules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = outline_crops.load_or_cut(nodules, tmp_path / "crops", variants=2, seed=0)
    recipe = outline_fit.Recipe(steps=4, batch=2, checkpoint_every=2)
    whole = outline_fit.fit(crops, np.arange(6), tmp_path / "whole", recipe)
    learn, calls = outline_fit._learn, []

    def dies_in_the_fourth(*args: object) -> float:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return learn(*args)

    monkeypatch.setattr(outline_fit, "_learn", dies_in_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        outline_fit.fit(crops, np.arange(6), tmp_path / "killed", recipe)
    again = outline_fit.fit(crops, np.arange(6), tmp_path / "killed", recipe)
    assert len(calls) == 6
    for name, value in whole.items():
        assert np.allclose(value.numpy(), again[name].numpy(), atol=1e-6), name


def test_truth_beyond_the_first_and_last_slice_is_unknown(nodules: Path, tmp_path: Path) -> None:
    crops = outline_crops.load_or_cut(nodules, tmp_path, variants=4, seed=1)
    assert (crops.truth == outline_crops.UNKNOWN).any(axis=(0, 1, 3, 4)).sum() > 4
    known = crops.truth[crops.truth != outline_crops.UNKNOWN]
    assert known.max() == outline_crops.SCALE
    image, truth, certain = outline_crops.batch_of(crops, np.array([0, 1]), np.array([0, 3]), np.random.default_rng(0))
    assert image.shape == (2, 5, 20, 32, 32)
    assert 0 <= truth.min() <= truth.max() <= 1
    assert set(np.unique(certain)) <= {0.0, 1.0}


def test_the_summary_has_intervals_around_its_values() -> None:
    rows = [{"patient_id": f"P{n // 2}", "dice": 0.5 + n / 100} for n in range(40)]
    numbers = summarize(rows, resamples=200)["dice"]
    assert numbers["median"] == pytest.approx(np.median([row["dice"] for row in rows]))
    assert numbers["median_interval_95"][0] < numbers["median"] < numbers["median_interval_95"][1]
