from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spicula.core.bundle import write_bundle
from spicula.core.finding import Case, Finding
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_nodules
from spicula.datasets.phantom import Ball, thorax, thorax_grid
from spicula.detectors import blob
from spicula.measure.lungs import segment_lungs
from spicula.networks.checkpoint import cosine_rate
from spicula.pipelines import detection_crops, evaluate_detection, train_detection
from spicula.pipelines.detection_augmentation import augmented, between, thickened
from spicula.pipelines.detection_crops import STORED_SIDE, Crops, Host, center_of, joined
from spicula.pipelines.evaluate_detection import Trial, Truth
from spicula.pipelines.train_detection import FOLD_OF, Recipe, left_out_rows, patients_tested


def nodule_cases(count: int) -> list[Case]:
    truth = {"label": 0.0, "texture": 5.0}

    def never() -> Volume:
        raise NotImplementedError

    return [
        Case(f"P{n // 2}", never, (Finding(f"P{n // 2}_{n}", (0, 0, 0), 8.0, truth=truth),), f"P{n // 2}_{n}")
        for n in range(count)
    ]


def some_crops(count: int = 40) -> Crops:
    """Balls are nodules, tubes are not."""
    rng = np.random.default_rng(0)
    axes = np.stack(np.meshgrid(*(np.arange(STORED_SIDE) - STORED_SIDE / 2 + 0.5,) * 3, indexing="ij"))
    images = np.empty((count, 2, *(STORED_SIDE,) * 3), dtype=np.uint8)
    positive = np.arange(count) % 2 == 0
    for n in range(count):
        radius = rng.uniform(2, 6)
        distance = np.linalg.norm(axes[0 if positive[n] else 1 :], axis=0)
        images[n] = np.where(distance < radius, 180, 20) + rng.integers(0, 20, size=distance.shape)
    scans = np.array(["lung1", "lung2"])[np.arange(count) // 2 % 2]
    patients = np.where(positive, [f"P{n // 2}" for n in range(count)], scans)
    return Crops(images, positive, scans, patients, np.full(count, 1.0, dtype=np.float32))


def test_neither_scan_nor_patient_is_on_both_sides() -> None:
    cases, crops = nodule_cases(40), some_crops()
    for scan in FOLD_OF:
        rows = left_out_rows(crops, cases, scan)
        assert scan not in crops.scan[rows]
        assert not set(crops.patient[rows]) & patients_tested(cases, scan)
    groups = [patients_tested(cases, scan) for scan in FOLD_OF]
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_augmented_boxes_are_seeded_and_inside() -> None:
    images, slices = some_crops(6).images, np.array([1, 1, 1, 5, 5, 5], dtype=np.float32)
    first = augmented(images, slices, np.random.default_rng(1))
    assert first.shape == (6, 2, blob.SIDE, blob.SIDE, blob.SIDE)
    np.testing.assert_array_equal(first, augmented(images, slices, np.random.default_rng(1)))
    assert -0.5 < first.min() < first.max() < 1.8
    even = augmented(np.full_like(images, 100), slices, np.random.default_rng(2))
    assert even.std(axis=(1, 2, 3, 4)).max() < 0.07


def test_interpolation_is_that_of_numpy() -> None:
    rng = np.random.default_rng(0)
    places, wanted = np.sort(rng.random(9)), rng.uniform(-0.2, 1.2, 40)
    values = rng.random(9)
    np.testing.assert_allclose(between(places, wanted) @ values, np.interp(wanted, places, values), atol=1e-12)
    np.testing.assert_array_equal(between(np.array([0.3]), wanted) @ np.array([7.0]), 7.0)


@pytest.mark.parametrize(("width", "phase"), [(5.0, 0.3), (2.5, 0.9), (1.7, 0.0), (2.0, 0.0)])
def test_thickened_slices_keep_ramps_and_average_spikes(width: float, phase: float) -> None:
    matrix = thickened(28, width, phase=phase)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    inner = slice(8, 20)
    np.testing.assert_allclose((matrix @ np.arange(28.0))[inner], np.arange(28.0)[inner], atol=0.15)
    spike = matrix @ (np.arange(28) == 14)
    assert spike.max() < 1.15 / width
    assert spike.sum() == pytest.approx(1, abs=0.35)


def test_a_killed_training_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="pip install 'spicula[train]'")
    crops, rows = some_crops(), np.arange(40)
    whole = train_detection.fit(crops, rows, tmp_path / "a", Recipe(steps=4, batch=4, checkpoint_every=2))

    class KilledError(Exception):
        pass

    def killed(step: int, steps: int, *, rate: float) -> float:
        if step == 3:
            raise KilledError
        return cosine_rate(step, steps, rate=rate)

    monkeypatch.setattr(train_detection, "cosine_rate", killed)
    with pytest.raises(KilledError):
        train_detection.fit(crops, rows, tmp_path / "b", Recipe(steps=4, batch=4, checkpoint_every=2))
    monkeypatch.undo()
    resumed = train_detection.fit(crops, rows, tmp_path / "b", Recipe(steps=4, batch=4, checkpoint_every=2))
    for name, value in whole.items():
        np.testing.assert_allclose(resumed[name].numpy(), value.numpy(), atol=1e-5, err_msg=name)


def test_a_trained_filter_tells_balls_from_tubes_through_its_bundle(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="pip install 'spicula[train]'")
    crops = some_crops()
    weights = train_detection.fit(crops, np.arange(40), tmp_path / "run", Recipe(steps=40, batch=12, rate=1e-2))
    manifest = train_detection._manifest({"slope": 1.0, "intercept": 0.0}, {})
    bundle = write_bundle(tmp_path / "bundle", manifest, {"network.onnx": train_detection._export(weights)})
    cut = (STORED_SIDE - blob.SIDE) // 2
    inner = crops.images[:, :, cut:-cut, cut:-cut, cut:-cut].astype(np.float32) / 255
    scores = blob.judge(inner, bundle)
    assert (scores[crops.positive][:, None] > scores[~crops.positive]).mean() > 0.95


def test_the_bundle_lists_findings_down_to_its_operating_point(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="pip install 'spicula[train]'")
    crops, rng = some_crops(), np.random.default_rng(0)
    weights = train_detection.fit(crops, np.arange(40), tmp_path / "all", Recipe(steps=1, batch=4))
    for scan in FOLD_OF:
        truths = tuple(Truth(f"{n}", f"P{n}", (20.0 * n, 0.0, 0.0), 8.0, 5.0) for n in range(6))
        found = [((20.0 * n, 0.0, 0.0), float(rng.uniform(0.3, 0.9))) for n in range(5)]
        found += [((20.0 * n, 90.0, 0.0), float(rng.uniform(0.0, 0.6))) for n in range(30)]
        (tmp_path / f"without-{scan}").mkdir()
        trials = [Trial(scan, f"{scan}-{n}", truths, (), tuple(found)) for n in range(3)]
        evaluate_detection.write_trials(tmp_path / f"without-{scan}" / "trials.json", trials)
    bundle = train_detection.ship(tmp_path, weights, crops)
    point = bundle.manifest["outputs"]["operating_point"]
    assert blob.operating_point(bundle) == point["least_score"] > 0
    assert 3 < point["false_a_scan"] <= 4
    assert "target of 0.80" in bundle.card["limits"][0]
    assert set(bundle.card["metrics"]["calibration held out"]) == set(FOLD_OF) - {detection_crops.TEST_SCAN}


def test_calibrated_scores_are_chances() -> None:
    rng = np.random.default_rng(0)
    trials = []
    for copy in range(40):
        logit = rng.normal(scale=2, size=50)
        hit = np.flatnonzero(rng.random(50) < 1 / (1 + np.exp(-(0.5 * logit - 3))))
        found = tuple(((20.0 * n, 0.0, 0.0), float(1 / (1 + np.exp(-logit[n])))) for n in range(50))
        truths = tuple(Truth(f"{copy}-{n}", f"{copy}", (20.0 * n, 0.0, 0.0), 8.0, 5.0) for n in hit)
        trials.append(Trial("s", f"s-{copy}", truths, (), found))
    fitted = evaluate_detection.calibrate(trials)
    assert fitted["slope"] == pytest.approx(0.5, abs=0.12)
    per_copy = sum(len(t.inserted) for t in trials) / len(trials)
    shift = np.log(evaluate_detection.TYPICAL_NODULES / per_copy)
    assert fitted["intercept"] == pytest.approx(-3 + shift, abs=0.5)


def test_trials_survive_writing_and_are_counted(tmp_path: Path) -> None:
    hit, missed = Truth("a", "A", (0, 0, 0), 8.0, 5.0), Truth("b", "B", (50, 0, 0), 5.0, 1.0)
    own = Truth("label", "s", (100, 0, 0), 10.0, 5.0)
    found = (((1.0, 0.0, 0.0), 0.9), ((99.0, 0.0, 0.0), 0.8), ((200.0, 0.0, 0.0), 0.7))
    trials = [Trial("s", f"s-{n}", (hit, missed), (own,), found) for n in range(2)]
    evaluate_detection.write_trials(tmp_path / "trials.json", trials)
    assert evaluate_detection.read_trials(tmp_path / "trials.json") == trials
    counts = evaluate_detection.matched(trials).counts
    assert (counts.true_positives, counts.false_negatives, counts.false_positives, counts.irrelevant) == (2, 2, 2, 2)
    summary = evaluate_detection.summary(trials)
    assert summary["all"]["sensitivity at 1 false a scan"]["value"] == 0.5
    assert summary["by nodule"]["solid (texture 5)"]["nodules"] == 2
    assert evaluate_detection.curve(trials)[-1] == (1.0, 0.5)


@pytest.mark.shared
def test_nodules_are_set_in_where_the_trial_says(shared: Path) -> None:
    root = shared / "lidc_nodules"
    known = Ball((-80.0, 20.0, 30.0), 12.0)
    volume = thorax(thorax_grid((2.0, 1.5, 1.5)), balls=(known,), vessels=8)
    host = Host("phantom", volume, segment_lungs(volume), (Finding("1", known.center_xyz_mm, 12.0),))
    cases = lidc_nodules.load_cases(root)[5:400:100]
    crops = joined([detection_crops.positives(host, cases, root, seed=(0,)), detection_crops.negatives(host, most=20)])
    assert set(crops.patient[crops.positive]) <= {c.patient_id for c in cases}
    middle = crops.images[crops.positive][:, :, 12:16, 12:16, 12:16].max(axis=(1, 2, 3, 4))
    assert (middle > 60).all()
    search = detection_crops.SearchGrid.of(host)
    planned = detection_crops.plan_nodule(search, cases[0], root, np.random.default_rng(0), avoid=host.known)
    assert planned is not None
    _, outline = planned.set_into(volume)
    assert isinstance(outline, Mask)
    np.testing.assert_allclose(center_of(outline), planned.place, atol=1.5)
