"""Schedules of the published recipe."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from spicula.pretraining.dinov2 import DinoRecipe, Schedules, Student, long_recipe, parameter_groups
from spicula.pretraining.schedules import Cosine, Ramp


def test_cosine_is_half_way_in_the_middle():
    values = Cosine(2.0, 1.0, steps=100)
    assert (values(0), values(50), values(100), values(500)) == (2.0, 1.5, 1.0, 1.0)


def test_frozen_then_warm():
    values = Cosine(1.0, 0.0, steps=40, warm=10, frozen=5)
    assert [values(s) for s in (0, 4, 5, 10, 15)] == [0.0, 0.0, 0.0, 0.5, 1.0]


def test_ramp():
    assert [Ramp(0.04, 0.07, 30)(s) for s in (0, 15, 30, 99)] == pytest.approx([0.04, 0.055, 0.07, 0.07])


def test_the_published_values():
    short = Schedules(DinoRecipe(), per_epoch=1250, images=2048)
    assert short.steps == 125000
    assert short.rate(12500) == pytest.approx(4e-3 * 2**0.5)
    assert short.rate(124999) == pytest.approx(1e-6, rel=0.1)
    assert short.rate(1249, last_layer=True) == 0.0
    assert short.rate(1250, last_layer=True) > 0.0
    assert (short.momentum(0), short.momentum(125000)) == (0.992, 1.0)
    assert (short.decay(0), short.decay(125000)) == pytest.approx((0.04, 0.4))
    assert (short.temperature(0), short.temperature(30 * 1250)) == pytest.approx((0.04, 0.07))
    long = long_recipe()
    assert (long.ibot_head.prototypes, long.dino_head.bottleneck, long.layer_decay) == (131072, 384, 1.0)


def test_earlier_layers_learn_more_slowly_and_norms_do_not_decay():
    from spicula.networks.vit import VitShape
    from spicula.pretraining.dinov2 import HeadRecipe

    recipe = DinoRecipe(dino_head=HeadRecipe(16, 8, 4))
    student = Student(VitShape(12, 3, 2, image=28), recipe)
    groups = parameter_groups(student, recipe)
    names = {id(p): name for name, p in student.named_parameters()}
    of = {names[id(p)]: group for group in groups for p in group["params"]}
    assert len(of) == len(list(student.parameters()))
    assert of["backbone.patch_embed.proj.weight"]["factor"] == pytest.approx(0.9**4 * 0.2)
    assert of["backbone.cls_token"]["factor"] == pytest.approx(0.9**4)
    assert of["backbone.blocks.0.attn.qkv.weight"]["factor"] == pytest.approx(0.9**3)
    assert of["backbone.blocks.2.attn.qkv.weight"]["factor"] == pytest.approx(0.9)
    assert of["backbone.norm.weight"]["factor"] == 1.0
    assert of["dino_head.mlp.0.weight"]["factor"] == 1.0
    assert of["backbone.blocks.1.ls1.gamma"]["decays"] == 0.0
    assert of["backbone.blocks.1.mlp.fc1.weight"]["decays"] == 1.0
    assert of["dino_head.last_layer.weight_v"]["last_layer"]
