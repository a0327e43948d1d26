"""One step of DINOv2's training."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from spicula.core.errors import InputError  # noqa: E402
from spicula.networks.vit import VitShape  # noqa: E402
from spicula.pretraining.dinov2 import (  # noqa: E402
    DinoRecipe,
    HeadRecipe,
    Schedules,
    Student,
    Teacher,
    continued,
    losses_of,
    parameter_groups,
    require_no_collapse,
)

SHAPE = VitShape(16, 2, 2, patch=4, image=16, layer_scale=1.0)
HEADS = HeadRecipe(32, 16, 8)
RECIPE = DinoRecipe(epochs=2, steps_per_epoch=10, batch=4, dino_head=HEADS, drop=0.0)


def batch(n=4):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2 * n, 3, 16, 16, generator=generator)
    small = torch.randn(3 * n, 3, 8, 8, generator=generator)
    masks = torch.rand(2 * n, 16, generator=generator) < 0.3
    return images, small, masks


@pytest.mark.parametrize("centering", ["sinkhorn", "mean"])
@pytest.mark.parametrize("ibot", [None, HEADS])
def test_steps_lower_the_loss(centering, ibot):
    torch.manual_seed(0)
    recipe = replace(RECIPE, centering=centering, ibot_head=ibot)
    student = Student(SHAPE, recipe)
    teacher = Teacher(student, recipe)
    optimizer = torch.optim.AdamW(parameter_groups(student, recipe), lr=3e-3)
    totals = []
    for _ in range(30):
        losses = losses_of(student, teacher, *batch(), recipe, temperature=0.04)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        teacher.follow(student, 0.99)
        totals.append(float(losses.total.detach()))
    assert totals[-1] < totals[0] - 0.1
    assert set(losses.parts) == {"dino", "ibot", "koleo", "entropy", "used", "spread"}


def test_the_teacher_follows_and_never_learns():
    student = Student(SHAPE, RECIPE)
    teacher = Teacher(student, RECIPE)
    losses_of(student, teacher, *batch(), RECIPE, temperature=0.04).total.backward()
    assert all(p.grad is None for p in teacher.network.parameters())
    before = teacher.network.backbone.norm.weight.clone()
    with torch.no_grad():
        student.backbone.norm.weight.add_(1.0)
    teacher.follow(student, 0.9)
    torch.testing.assert_close(teacher.network.backbone.norm.weight, before + 0.1)


def test_without_masks_there_is_no_ibot_loss():
    images, small, masks = batch()
    losses = losses_of(Student(SHAPE, RECIPE), Teacher(Student(SHAPE, RECIPE), RECIPE), images, small,
                       torch.zeros_like(masks), RECIPE, temperature=0.04)  # fmt: skip
    assert float(losses.parts["ibot"]) == 0.0


def test_the_ibot_loss_by_hand():
    """The mean over an image's masked patches, over the number of images, the shared head on both sides."""
    torch.manual_seed(1)
    recipe = replace(RECIPE, centering="mean")
    student = Student(SHAPE, recipe)
    teacher = Teacher(student, recipe)
    images, small, masks = batch()
    masks[0] = False
    ours = losses_of(student, teacher, images, small, masks, recipe, temperature=0.04).parts["ibot"]
    with torch.no_grad():
        told = torch.softmax(teacher.network.dino_head(teacher.network.backbone(images).patches) / 0.04, dim=-1)
        said = torch.log_softmax(student.dino_head(student.backbone(images, masks).patches) / 0.1, dim=-1)
    cross = -(told * said).sum(dim=-1)
    by_hand = sum(cross[i][masks[i]].mean() for i in range(len(images)) if masks[i].any()) / len(images)
    torch.testing.assert_close(ours, by_hand, atol=1e-4, rtol=1e-4)


def test_a_frozen_backbone_waits_for_its_heads():
    recipe = continued(RECIPE)
    student = Student(SHAPE, recipe)
    optimizer = torch.optim.AdamW(parameter_groups(student, recipe), lr=0.0)
    schedules = Schedules(recipe, per_epoch=10, images=4)
    schedules.apply(optimizer, 5)
    assert all(g["lr"] == 0.0 for g in optimizer.param_groups if g["backbone"])
    assert any(g["lr"] > 0.0 for g in optimizer.param_groups if not g["backbone"])
    schedules.apply(optimizer, 12)
    assert all(g["lr"] > 0.0 for g in optimizer.param_groups if g["backbone"])


def test_collapse_is_told():
    with pytest.raises(InputError, match="epoch 3: the features collapsed"):
        require_no_collapse({"spread": 1e-7}, where="epoch 3")
    require_no_collapse({"spread": 0.2}, where="epoch 3")


def test_one_image_is_no_batch():
    images, small, masks = batch(1)
    student = Student(SHAPE, RECIPE)
    with pytest.raises(InputError, match="at least 2"):
        losses_of(student, Teacher(student, RECIPE), images, small, masks, RECIPE, temperature=0.04)
