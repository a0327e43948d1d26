"""Pretraining: resumed bit-equal, refuses what it cannot learn from, keeps the last good state."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from spicula.core.errors import InputError  # noqa: E402
from spicula.networks.vit import VisionTransformer, VitShape  # noqa: E402
from spicula.pipelines.pretrain_dinov2 import load_backbone, pretrain_dinov2, save_backbone  # noqa: E402
from spicula.pipelines.slice_table import SliceTable  # noqa: E402
from spicula.pretraining.ct_views import ViewRecipe  # noqa: E402
from spicula.pretraining.dinov2 import DinoRecipe, HeadRecipe  # noqa: E402

SHAPE = VitShape(16, 1, 2, patch=4, image=16, layer_scale=1.0)
RECIPE = DinoRecipe(
    epochs=2, steps_per_epoch=2, batch=4, views=ViewRecipe(16, 8, 2), dino_head=HeadRecipe(16, 8, 4), drop=0.3,
    warm=0.5, teacher_warm=1,
)  # fmt: skip


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    hu = rng.normal(-500, 300, (10, 24, 24)).astype(np.int16)
    names = np.array([f"P{i}" for i in range(10)])
    return SliceTable(hu, np.full(hu.shape, 255, dtype=np.uint8), names, np.array([""] * 10), np.array([""] * 10))


def run(table, out, recipe=RECIPE, **more):
    return pretrain_dinov2(table, np.arange(10), out, shape=SHAPE, recipe=recipe, report=lambda _: None, **more)


def test_killed_and_resumed_is_bit_equal(table, tmp_path, monkeypatch):
    whole = run(table, tmp_path / "whole")

    def killed(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain_dinov2(table, np.arange(10), tmp_path / "cut", shape=SHAPE, recipe=RECIPE, report=killed)
    again = run(table, tmp_path / "cut")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    lines = (tmp_path / "cut" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1]


def test_a_finished_one_is_loaded(table, tmp_path):
    weights = run(table, tmp_path / "run")
    network = load_backbone(tmp_path / "run")
    assert network.shape == SHAPE
    assert all(torch.equal(network.state_dict()[name], weights[name]) for name in weights)
    save_backbone(tmp_path / "other", network)
    assert torch.equal(load_backbone(tmp_path / "other").cls_token, network.cls_token)


def test_it_begins_with_given_weights(table, tmp_path):
    torch.manual_seed(9)
    given = VisionTransformer(SHAPE).state_dict()
    still = replace(RECIPE, epochs=1, rate=0.0, last_rate=0.0, decay=(0.0, 0.0))
    weights = run(table, tmp_path / "run", still, initial=given)
    assert all(torch.allclose(weights[name], given[name], atol=1e-6) for name in given)


def test_the_probe_is_told_in_the_log(table, tmp_path):
    run(table, tmp_path / "run", probe=lambda backbone: {"knn_auroc": 0.5 + 0 * backbone.shape.width}, probe_every=2)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert "knn_auroc" not in lines[0]
    assert lines[1]["knn_auroc"] == 0.5
    assert {"dino", "ibot", "koleo", "entropy", "images_per_second"} <= lines[0].keys()


def test_fewer_images_than_a_batch(table, tmp_path):
    with pytest.raises(InputError, match="at least a batch of 64"):
        run(table, tmp_path / "run", replace(RECIPE, batch=64))


def test_images_of_air(table, tmp_path):
    table.hu[3] = -1000
    with pytest.raises(InputError, match=r"patient P3.*-1000 HU"):
        run(table, tmp_path / "run")


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(table, tmp_path, monkeypatch):
    from spicula.pretraining import dinov2

    true, calls = dinov2.losses_of, []

    def spoiled(*args, **more):
        calls.append(1)
        losses = true(*args, **more)
        return replace(losses, total=losses.total * float("nan")) if len(calls) > 3 else losses

    monkeypatch.setattr(dinov2, "losses_of", spoiled)
    with pytest.raises(InputError, match="finite"):
        run(table, tmp_path / "run")
    monkeypatch.setattr(dinov2, "losses_of", true)
    whole = run(table, tmp_path / "whole")
    again = run(table, tmp_path / "run")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_nothing_finished(tmp_path):
    with pytest.raises(InputError, match="no finished pretraining"):
        load_backbone(tmp_path)


def test_second_views_may_come_from_another_slice_of_the_same_nodule(table, tmp_path, monkeypatch):
    from spicula.pretraining import ct_views

    crops = np.array(["P0_0_01.webp", "P0_0_02.webp", "P1_0_01.webp"] + [""] * 7)
    hu = np.arange(10, dtype=np.int16)[:, None, None] * 10 + np.zeros((24, 24), dtype=np.int16)
    hu[:, 0] = 300
    some = SliceTable(hu, table.near, table.patients, crops, table.case_ids)
    assert some.nodules.tolist() == ["P0_0", "P0_0", "P1_0"] + [""] * 7
    pairs = set()
    made = ct_views.make_views

    def watched(hu, near, recipe, rng, *, mates):
        pairs.update(zip(hu[:, 5, 5].tolist(), mates[0][:, 5, 5].tolist(), strict=True))
        return made(hu, near, recipe, rng, mates=mates)

    monkeypatch.setattr(ct_views, "make_views", watched)
    run(some, tmp_path / "run", replace(RECIPE, other_slice=1.0, epochs=4))
    assert {(0.0, 10.0), (10.0, 0.0)} & pairs
    assert all(a == b or {a, b} == {0.0, 10.0} for a, b in pairs)
