"""LungNodule-SSM: features, heads, and the two protocols."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from spicula.classifiers.ssm import load_ssm  # noqa: E402
from spicula.core.bundle import load_bundle  # noqa: E402
from spicula.core.errors import InputError  # noqa: E402
from spicula.datasets import lidc_nodules  # noqa: E402
from spicula.networks.vit import VisionTransformer  # noqa: E402
from spicula.pipelines import train_ssm as job  # noqa: E402
from spicula.pipelines.ssm_features import features_of, pooled, slices_of  # noqa: E402
from spicula.pipelines.ssm_heads import HEADS, out_of_fold  # noqa: E402
from spicula.pipelines.ssm_nodules import nodules_of  # noqa: E402
from spicula.pretraining.dinov2 import compact_recipe  # noqa: E402

from .ssm_tiny import FOLDS, PATIENTS, SHAPE, SLICES, tiny_cases, tiny_table  # noqa: E402


@pytest.fixture(scope="module")
def table():
    return tiny_table()


@pytest.fixture
def nodules(table, monkeypatch, tmp_path):
    monkeypatch.setattr(lidc_nodules, "load_cases", lambda root: tiny_cases())
    return nodules_of(table, tmp_path, folds=FOLDS)


def test_nodules_without_a_slice_are_left_out(nodules):
    assert len(nodules.ids) == PATIENTS
    assert len(nodules.rows) == PATIENTS * SLICES


def test_features(table):
    torch.manual_seed(0)
    network = VisionTransformer(SHAPE).eval()
    rows = np.arange(7)
    found = features_of(network, table, rows, batch=3)
    assert {name: f.shape for name, f in found.items()} == {"cls": (7, 16), "patches": (7, 16), "both": (7, 32)}
    np.testing.assert_allclose(found["cls"][4:5], features_of(network, table, rows[4:5])["cls"], atol=1e-5)
    assert np.abs(features_of(network, table, rows, view="alone")["cls"] - found["cls"]).max() > 1e-3


def test_alone_hides_what_is_beside_the_nodule(table):
    torch.manual_seed(0)
    network = VisionTransformer(SHAPE).eval()
    hu = table.hu.copy()
    hu[table.near == 0] = 200
    other = replace(table, hu=hu)
    rows = np.arange(4)
    alone = [features_of(network, some, rows, view="alone")["cls"] for some in (table, other)]
    np.testing.assert_allclose(*alone, atol=1e-5)


def test_the_middle_slice_is_the_one_with_most_of_the_nodule(table, nodules):
    features = np.arange(len(nodules.rows), dtype=np.float32)[:, None]
    middle, every = (slices_of(table, nodules.rows, nodules.ids, depth=depth) for depth in ("middle", "all"))
    assert pooled(features, middle)[:3, 0].tolist() == [0, 2, 4]
    assert pooled(features, every)[:3, 0].tolist() == [0.5, 2.5, 4.5]


@pytest.mark.parametrize("head", list(HEADS))
def test_every_head_learns_what_is_plain_and_is_tested_on_other_folds(head):
    rng = np.random.default_rng(0)
    label = np.arange(120) % 2 == 1
    fold_of = np.arange(120) // 2 % 3
    features = rng.normal(0, 0.3, (120, 4)) + label[:, None]
    score = out_of_fold(features, label, fold_of, head=head)
    assert score[label].mean() > score[~label].mean() + 0.3
    own = np.stack([features if k == 1 else np.zeros_like(features) for k in range(3)])
    of_folds = out_of_fold(own, label, fold_of, head=head)
    assert np.ptp(of_folds[fold_of == 0]) < 1e-9
    np.testing.assert_allclose(of_folds[fold_of == 1], score[fold_of == 1])


def test_a_label_that_may_not_be_used_is_not(nodules):
    label = nodules.label.copy()
    taught = np.zeros(len(label), dtype=bool)
    features = np.random.default_rng(0).normal(size=(len(label), 3))
    assert (out_of_fold(features, label, nodules.fold_of, taught=taught) == 0.5).all()


def test_the_whole_job_on_a_tiny_network(table, nodules, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "read_slices", lambda *args, **more: table)
    recipe = compact_recipe(epochs=1, steps_per_epoch=1)
    recipe = replace(recipe, batch=4)
    call = {"shape": SHAPE, "recipe": recipe, "folds": 3, "report": lambda line: None}
    assert job.train_ssm(tmp_path, tmp_path / "run", only=["0"], **call) is None
    found = job.train_ssm(tmp_path, tmp_path / "run", **call)
    views = found["honest"]["slice"]
    assert views.keys() == {"cls, middle", "cls, all", "both, middle", "both, all"}
    assert views["cls, all"]["heads"].keys() == HEADS.keys()
    assert views["cls, all"]["labels"].keys() == {"0.01", "0.1", "1"}
    assert found["compat"]["test_slices_of_training_patients"] > 0.3
    assert (tmp_path / "run" / "evaluation.json").is_file()
    assert load_ssm(load_bundle(tmp_path / "run" / "nodule-ssm")).forest is not None
    log = (tmp_path / "run" / "backbones" / "0" / "log.jsonl").read_text()
    assert "knn_auroc" in log


def test_pretraining_of_a_fold_never_sees_its_patients(table, nodules, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(job, "read_slices", lambda *args, **more: table)
    monkeypatch.setattr(
        job, "pretrain_dinov2", lambda table, rows, out, **more: seen.update({out.name: set(table.patients[rows])})
    )
    job.train_ssm(tmp_path, tmp_path / "run", shape=SHAPE, recipe=compact_recipe(), folds=3, report=lambda line: None)
    for fold in range(3):
        assert not seen[str(fold)] & set(nodules.patients[nodules.fold_of == fold].tolist())
        assert "LungFCP-1" in seen[str(fold)]
    assert len(seen["all"]) == PATIENTS + 1


def test_an_unknown_pretraining(tmp_path):
    with pytest.raises(InputError, match="of 0, 1, 2, 3, 4, all"):
        job.train_ssm(tmp_path, tmp_path / "run", shape=SHAPE, recipe=compact_recipe(), only=["5"])
