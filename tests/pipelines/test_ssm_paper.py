"""The paper's checks on a tiny run: everything is there, nothing of a tested patient is learned from, it goes on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from spicula.core.errors import InputError  # noqa: E402
from spicula.datasets import lidc_nodules  # noqa: E402
from spicula.metrics.classification import auroc  # noqa: E402
from spicula.networks.vit import VisionTransformer  # noqa: E402
from spicula.papers import paper  # noqa: E402
from spicula.pipelines import ssm_checks, ssm_paper, train_ssm  # noqa: E402
from spicula.pipelines.evaluate_paper import Trained, evaluate_paper, lines  # noqa: E402
from spicula.pipelines.ssm_finetune import VIEWS, TuningRecipe, tuned_scores  # noqa: E402
from spicula.pipelines.ssm_nodules import nodules_of  # noqa: E402
from spicula.pipelines.ssm_volumes import VARIANTS, images_of, volume_features  # noqa: E402
from spicula.pretraining.dinov2 import compact_recipe  # noqa: E402

from .ssm_tiny import FOLDS, PATIENTS, SHAPE, keep, tiny_cases, tiny_table, tiny_volumes  # noqa: E402


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished tiny run."""
    folder = tmp_path_factory.mktemp("ssm") / "run"
    keep(tiny_table(), folder / "slices")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lidc_nodules, "load_cases", lambda root: tiny_cases())
        patch.setattr(train_ssm, "read_slices", lambda *args, **more: tiny_table())
        recipe = replace(compact_recipe(epochs=1, steps_per_epoch=1), batch=4)
        train_ssm.train_ssm(folder, folder, shape=SHAPE, recipe=recipe, folds=FOLDS, report=lambda line: None)
    return folder


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lidc_nodules, "load_cases", lambda root: tiny_cases())
    monkeypatch.setattr(ssm_paper, "read_volumes", lambda *args, **more: tiny_volumes())
    monkeypatch.setattr(ssm_paper, "LOSSES", {"all": (1.0, 1.0, 0.1), "without iBOT": (1.0, 0.0, 0.1)})
    monkeypatch.setattr(
        ssm_paper, "compact_recipe", lambda epochs: replace(compact_recipe(epochs=1, steps_per_epoch=1), batch=4)
    )
    for name, value in {"FEW_STEPS": 2, "ALL_STEPS": 2, "DRAWS": 2}.items():
        monkeypatch.setattr(ssm_paper, name, value)
    monkeypatch.setattr(ssm_checks, "TREES", (3,))


def test_every_check_has_its_rows_and_is_kept(run, quick, tmp_path):
    facts = tmp_path / "facts.csv"
    facts.write_text("patient_id,age\n" + "".join(f"LIDC-IDRI-{n},{50 + n}\n" for n in range(PATIENTS)))
    found = evaluate_paper("noreen2025", tmp_path, trained=Trained(run, facts=facts))
    parts = {row.part.split(":")[0] for row in found.ran.rows}
    assert parts >= {
        "As published", "Patients apart, nodules", "Experiment 1", "Experiment 3 and check 3", "Check 1", "Check 2",
        "Question 3", "Question 4", "Few labels",
    }  # fmt: skip
    compared = [row for row in found.ran.rows if row.published is not None]
    assert {row.metric for row in compared} == {"accuracy", "f1", "precision", "recall", "auroc"}
    assert not any(row.same_data for row in compared)
    assert found.ran.missing == ()
    assert found.ran.facts["facts"]["columns"] == ["age"]
    text = "\n".join(lines(found))
    for word in ("supervised from scratch", "slices pooled by attention", "planes, forest", "without iBOT",
                 "crops to volumes", "max_depth 3", "features, diameter, facts"):  # fmt: skip
        assert word in text
    kept = run / ssm_paper.CHECKS / "heads.json"
    told = json.loads(kept.read_text())
    told["forest"]["auroc"]["value"] = 0.123
    kept.write_text(json.dumps(told))
    again = evaluate_paper("noreen2025", tmp_path, trained=Trained(run))
    assert any(row.ours.value == 0.123 for row in again.ran.rows)
    assert "--facts" in again.ran.missing[0]


def test_without_a_run_it_says_what_to_give(tmp_path):
    assert "--run" in evaluate_paper("noreen2025", tmp_path).ran.missing[0]


def test_a_run_that_is_not_finished(tmp_path):
    with pytest.raises(InputError, match="a finished run of 'spicula train ssm'"):
        evaluate_paper("noreen2025", tmp_path, trained=Trained(tmp_path))


def test_a_run_for_another_paper(tmp_path):
    with pytest.raises(InputError, match="leave --run out"):
        evaluate_paper("zhu2018", tmp_path, trained=Trained(tmp_path))


def test_the_paper_is_known():
    assert paper("noreen2025").key == "noreen2025"


def test_tuning_learns_size_and_leaves_its_start_alone():
    torch.set_num_threads(1)
    table = tiny_table()
    rows = np.arange(2 * PATIENTS)
    labels = {int(row): bool(row // 2 % 2) for row in rows}
    torch.manual_seed(0)
    start = VisionTransformer(SHAPE).eval()
    before = {name: value.clone() for name, value in start.state_dict().items()}
    recipe = TuningRecipe(steps=60, rate=3e-3, layer_decay=1.0, drop=0.0, views=replace(VIEWS, noise_hu=5.0))
    score = tuned_scores(start, table, rows[:20], labels, rows[20:], recipe)
    assert auroc(np.array([labels[int(row)] for row in rows[20:]]), score) > 0.9
    assert all(torch.equal(before[name], value) for name, value in start.state_dict().items())
    again = tuned_scores(start, table, rows[:20], labels, rows[20:], recipe)
    np.testing.assert_array_equal(score, again)


def test_tuning_never_learns_from_a_tested_patient(run, quick, monkeypatch):
    table = tiny_table()
    nodules = nodules_of(table, run, folds=FOLDS)
    seen = []

    def watched(backbone, table, learn, labels, judge, recipe):
        seen.append((set(table.patients[learn].tolist()), set(table.patients[judge].tolist())))
        return np.zeros(len(judge))

    monkeypatch.setattr(ssm_checks, "tuned_scores", watched)
    taught = np.arange(PATIENTS) < 10
    ssm_checks.tuned(run, table, nodules, recipe=TuningRecipe(), scratch=True, taught=taught)
    assert len(seen) == FOLDS
    assert all(not learned & tested for learned, tested in seen)
    assert set().union(*(learned for learned, _ in seen)) == {f"LIDC-IDRI-{n}" for n in range(10)}
    assert set().union(*(tested for _, tested in seen)) == {f"LIDC-IDRI-{n}" for n in range(PATIENTS)}


def test_volumes_as_planes_and_channels():
    cube = np.arange(64**3, dtype=np.float32).reshape(64, 64, 64)
    inside = np.zeros_like(cube)
    inside[20:41, 30:34, 30:34] = 1
    planes = images_of(cube, inside, "planes")
    assert planes.shape == (3, 3, 64, 64)
    np.testing.assert_allclose(planes[0, 0], cube[31:33].mean(axis=0))
    np.testing.assert_allclose(planes[2, 1], cube[:, :, 31:33].mean(axis=2))
    neighbors = images_of(cube, inside, "neighbors")
    assert neighbors.shape == (1, 3, 64, 64)
    np.testing.assert_allclose(neighbors[0, 2] - neighbors[0, 1], 3 * 64 * 64)
    slices = images_of(cube, inside, "slices")
    assert len(slices) == 7
    np.testing.assert_allclose(slices[:, 0, 0, 0] / 64**2, np.arange(21, 40, 3))


def test_the_middle_of_a_volume_is_seen_at_the_pixel_of_use():
    torch.manual_seed(0)
    network = VisionTransformer(SHAPE).eval()
    volumes = tiny_volumes()
    features, places = volume_features(network, volumes, "middle")
    assert features.shape == (PATIENTS, 16)
    assert [len(some) for some in places] == [1] * PATIENTS
    for variant in VARIANTS:
        features, places = volume_features(network, volumes, variant)
        assert np.concatenate(places).tolist() == list(range(len(features)))
    from spicula.pretraining.ct_views import undisturbed

    hu = np.where(np.hypot(*(np.indices((70, 70)) - 34.5)) * 0.5 <= 12, 40.0, -850.0).astype(np.float32)
    with torch.inference_mode():
        whole = network(undisturbed(torch.from_numpy(hu[None]))).cls.numpy()
    large, small = volume_features(network, volumes, "middle")[0][[1, 0]]
    assert np.abs(large - whole[0]).max() < 0.3 * np.abs(small - whole[0]).max()
