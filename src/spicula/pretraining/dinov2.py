"""DINOv2's self-supervised training: a student learns to say what its own running average says (needs torch).

References:
    Oquab et al. 2023, arXiv 2304.07193; the published training code, Apache-2.0. Departures: attention through
    ``scaled_dot_product_attention`` with global and local views as two batches instead of nested tensors (the same
    numbers); bfloat16 instead of float16; views made for CT, see :mod:`spicula.pretraining.ct_views`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from spicula.core.errors import InputError
from spicula.networks.dino_head import DinoHead
from spicula.networks.vit import VisionTransformer, VitShape
from spicula.pretraining.ct_views import ViewRecipe
from spicula.pretraining.dinov2_losses import (
    Center,
    Reduce,
    alone,
    dino_loss,
    entropy,
    ibot_loss,
    koleo_loss,
    sinkhorn_knopp,
)
from spicula.pretraining.schedules import Cosine, Ramp

Centering: TypeAlias = Literal["sinkhorn", "mean"]


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """Size of a projection head; see :class:`spicula.networks.dino_head.DinoHead`.

    Args:
        prototypes: How many.
        hidden: Features of the layers between.
        bottleneck: Features before the prototypes.
    """

    prototypes: int = 65536
    hidden: int = 2048
    bottleneck: int = 256


@dataclass(frozen=True, slots=True)
class DinoRecipe:
    """How DINOv2 is pretrained. The defaults are the published ones for a short training.

    Args:
        epochs: Of the schedules.
        steps_per_epoch: Batches of an epoch; None: as many as the images fill.
        batch: Images of a step and process.
        views: How views are made.
        other_slice: Share of the images whose second views are made of another slice of the same nodule.
        dino_head: Size of the head for class tokens.
        ibot_head: Of the head for masked patches; None: the same head does both.
        centering: What keeps the teacher from collapsing.
        student_temperature: Softmax of the student.
        teacher_temperature: Of the teacher, first and last; it rises over ``teacher_warm`` epochs.
        teacher_warm: Epochs.
        weights: Of the losses: DINO, iBOT, KoLeo.
        masked: Share of the images with masked patches.
        mask_ratios: Least and largest share of masked patches.
        rate: Learning rate for a batch of 1024; it is scaled by the square root of the batch.
        last_rate: At the end of the cosine.
        warm: Epochs of its warm-up.
        decay: Weight decay, first and last.
        clip: Longest gradient.
        layer_decay: Factor of the rate from each block to the one before.
        patch_rate: Factor of the patch embedding's rate.
        momentum: Share of the teacher that is kept, first and last.
        drop: Stochastic depth.
        freeze_last: Epochs in which the prototypes stay.
        freeze_backbone: Epochs in which only the heads learn: for going on from published weights.
        seed: Of all chance.
    """

    epochs: int = 100
    steps_per_epoch: int | None = 1250
    batch: int = 64
    views: ViewRecipe = field(default_factory=ViewRecipe)
    other_slice: float = 0.0
    dino_head: HeadRecipe = field(default_factory=HeadRecipe)
    ibot_head: HeadRecipe | None = None
    centering: Centering = "sinkhorn"
    student_temperature: float = 0.1
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    teacher_warm: float = 30
    weights: tuple[float, float, float] = (1.0, 1.0, 0.1)
    masked: float = 0.5
    mask_ratios: tuple[float, float] = (0.1, 0.5)
    rate: float = 4e-3
    last_rate: float = 1e-6
    warm: float = 10
    decay: tuple[float, float] = (0.04, 0.4)
    clip: float = 3.0
    layer_decay: float = 0.9
    patch_rate: float = 0.2
    momentum: tuple[float, float] = (0.992, 1.0)
    drop: float = 0.3
    freeze_last: float = 1
    freeze_backbone: float = 0
    seed: int = 0


def long_recipe() -> DinoRecipe:
    """The published recipe of the long training (ViT-L/14 of the released configuration)."""
    return DinoRecipe(
        epochs=500, batch=32, rate=2e-4, warm=80, decay=(0.04, 0.2), layer_decay=1.0, momentum=(0.994, 1.0), drop=0.4,
        dino_head=HeadRecipe(131072, bottleneck=384), ibot_head=HeadRecipe(131072),
    )  # fmt: skip


def compact_recipe(*, epochs: int = 40, steps_per_epoch: int | None = None) -> DinoRecipe:
    """For some thousand pieces of slices about nodules, on a CPU: small views, small heads, quick and sharp teacher.

    All views have the pixel of use, so that the size of a nodule may count. They are turned by any angle; the second
    global view is most often of another slice of the same nodule, and shows it alone or in other surroundings, so that
    what is said of a slice is said of its nodule. A higher rate or a warmer teacher leaves the class token at random.
    """
    views = ViewRecipe(
        global_pixels=70, local_pixels=42, locals=2, global_area=(0.385, 0.395), local_area=(0.138, 0.143),
        aspect=(0.97, 1.03), shift=0.2, flip_up_down=True, turn=True, window_shift_hu=120.0, gamma=0.15, noise_hu=20.0,
        blur=(0.5, 0.1, 0.3), blur_pixels=(0.1, 1.0), alone=(0.0, 0.7, 0.5), elsewhere=(0.3, 0.3, 0.5),
    )  # fmt: skip
    head = HeadRecipe(512, hidden=256, bottleneck=64)
    return DinoRecipe(
        epochs=epochs, steps_per_epoch=steps_per_epoch, batch=32, views=views, other_slice=0.7,
        dino_head=replace(head, prototypes=256), ibot_head=head, teacher_temperature=(0.006, 0.01),
        teacher_warm=0.3 * epochs, rate=1e-3 * (1024 / 32) ** 0.5, warm=0.1 * epochs, decay=(0.04, 0.2),
        layer_decay=1.0, patch_rate=1.0, momentum=(0.99, 1.0), drop=0.05,
    )  # fmt: skip


def continued(recipe: DinoRecipe) -> DinoRecipe:
    """A recipe for going on from published weights: the backbone waits for its new heads, and learns slowly then."""
    return replace(recipe, rate=recipe.rate / 15, freeze_backbone=max(1, recipe.freeze_backbone), momentum=(0.996, 1.0))


class Student(nn.Module):  # type: ignore[misc, unused-ignore]
    """Backbone and heads; one call gives all that the losses need.

    Args:
        shape: Of the backbone.
        recipe: How it is trained.
    """

    def __init__(self, shape: VitShape, recipe: DinoRecipe) -> None:
        super().__init__()
        self.backbone = VisionTransformer(shape, drop=recipe.drop)
        dino = recipe.dino_head
        self.dino_head = DinoHead(shape.width, dino.prototypes, hidden=dino.hidden, bottleneck=dino.bottleneck)
        ibot = recipe.ibot_head
        if ibot is not None:
            self.ibot_head = DinoHead(shape.width, ibot.prototypes, hidden=ibot.hidden, bottleneck=ibot.bottleneck)
        self.shared = ibot is None

    def forward(
        self, images: torch.Tensor, masks: torch.Tensor | None, chosen: torch.Tensor | None, small: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Logits of class tokens and of chosen patches.

        Args:
            images: Global views ``[2 n, 3, ...]``.
            masks: bool ``[2 n, patches]``, replaced by the mask token; None for the teacher.
            chosen: Flat indices ``[m]`` of the patches whose logits are wanted.
            small: Local views, or None.

        Returns:
            ``cls`` (before the head), ``dino``, ``ibot`` and, with local views, ``local``.
        """
        tokens = self.backbone(images, masks)
        seen = {"dino": tokens.cls}
        if small is not None and len(small):
            seen["local"] = self.backbone(small).cls
        picked = None if chosen is None else tokens.patches.flatten(0, 1)[chosen]
        if picked is not None and self.shared:
            seen["ibot"] = picked
        # one call of a head for all that it is to say: its prototypes are normalized once
        said = self.dino_head(torch.cat(list(seen.values()))).split([len(part) for part in seen.values()])
        found = {"cls": tokens.cls, **dict(zip(seen, said, strict=True))}
        if picked is not None and not self.shared:
            found["ibot"] = self.ibot_head(picked)
        return found


class Teacher:
    """The running average of a student, and what keeps its targets spread.

    Args:
        student: It begins as.
        recipe: How it is trained.
        reduce: Sums over processes.
    """

    def __init__(self, student: Student, recipe: DinoRecipe, *, reduce: Reduce = alone) -> None:
        self.network = copy.deepcopy(student).eval().requires_grad_(False)
        self.recipe, self.reduce = recipe, reduce
        device = next(student.parameters()).device
        counts = {"dino": recipe.dino_head.prototypes, "ibot": (recipe.ibot_head or recipe.dino_head).prototypes}
        self.centers = {name: torch.zeros(1, count, device=device) for name, count in counts.items()}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Weights and centers by name; sharing memory with what is used."""
        return {**self.network.state_dict(), **{f"center.{name}": value for name, value in self.centers.items()}}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """The opposite of :meth:`state_dict`."""
        for name, value in self.state_dict().items():
            value.copy_(state[name])

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def targets(self, logits: torch.Tensor, temperature: float, *, of: Literal["dino", "ibot"]) -> torch.Tensor:
        """Probabilities ``[n, prototypes]`` of the teacher's logits."""
        if self.recipe.centering == "sinkhorn":
            return sinkhorn_knopp(logits, temperature, reduce=self.reduce)
        return Center(self.centers[of], reduce=self.reduce)(logits, temperature)

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def follow(self, student: Student, momentum: float) -> None:
        """Move toward the student's weights."""
        mine, theirs = list(self.network.parameters()), list(student.parameters())
        torch._foreach_mul_(mine, momentum)
        torch._foreach_add_(mine, theirs, alpha=1 - momentum)


@dataclass(frozen=True, slots=True)
class Losses:
    """What one step gives.

    Args:
        total: What is descended.
        parts: By name, detached: ``dino``, ``ibot``, ``koleo``, and of the teacher ``entropy`` (of an image's
            targets), ``used`` (entropy of the mean target over the logarithm of the number of prototypes, 1 where all
            are used alike) and ``spread`` (one minus the mean cosine between images).
    """

    total: torch.Tensor
    parts: Mapping[str, torch.Tensor]


def losses_of(
    student: Any, teacher: Teacher, images: torch.Tensor, small: torch.Tensor, masks: torch.Tensor,
    recipe: DinoRecipe, *, temperature: float,
) -> Losses:  # fmt: skip
    """DINO, iBOT and KoLeo of one batch.

    Args:
        student: A :class:`Student`, wrapped or not.
        teacher: Its average.
        images: Global views ``[2 n, 3, ...]``, first of all images, then second.
        small: Local views ``[locals * n, 3, ...]``.
        masks: bool ``[2 n, patches]``.
        recipe: How.
        temperature: Of the teacher.

    Raises:
        InputError: There are fewer than two images.
    """
    if len(images) < 4:
        raise InputError("batch", got=f"{len(images) // 2} images", expected="at least 2")
    chosen = masks.flatten().nonzero().flatten()
    shares = (1.0 / masks.sum(dim=1).clamp_min(1).float())[chosen // masks.shape[1]]
    with torch.no_grad():
        told = teacher.network(images, None, chosen if len(chosen) else None, None)
        dino_targets = teacher.targets(told["dino"], temperature, of="dino")
    said = student(images, masks, chosen if len(chosen) else None, small)
    count = len(images) // 2
    local = list(said["local"].split(count)) if "local" in said else []
    dino = dino_loss(dino_targets.chunk(2), said["dino"].chunk(2), local, temperature=recipe.student_temperature)
    ibot = dino.new_zeros(())
    if len(chosen):
        ibot_targets = teacher.targets(told["ibot"], temperature, of="ibot")
        ibot = ibot_loss(ibot_targets, said["ibot"], shares, images=len(images), temperature=recipe.student_temperature)
    first, second = said["cls"].chunk(2)
    koleo = koleo_loss(first) + koleo_loss(second)
    total = recipe.weights[0] * dino + recipe.weights[1] * ibot + recipe.weights[2] * koleo
    parts = {"dino": dino.detach(), "ibot": ibot.detach(), "koleo": koleo.detach() / 2}
    return Losses(total, {**parts, **_health(dino_targets, told["cls"])})


@torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
def _health(targets: torch.Tensor, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    unit = nn.functional.normalize(tokens.float(), dim=1)
    n = len(unit)
    cosine = (unit.sum(dim=0).square().sum() - n) / (n * (n - 1))
    used = entropy(targets.mean(dim=0, keepdim=True)) / math.log(targets.shape[1])
    return {"entropy": entropy(targets), "used": used, "spread": 1 - cosine}


def require_no_collapse(parts: Mapping[str, float], *, where: str, least: float = 1e-4) -> None:
    """Stop where all images look the same to the teacher.

    Args:
        parts: Mean :attr:`Losses.parts` of an epoch.
        where: Named in the message.
        least: Smallest spread that is none.

    Raises:
        InputError: The representation has collapsed.
    """
    if parts["spread"] < least:
        raise InputError(
            f"{where}: the features collapsed",
            got=f"a spread of {parts['spread']:.2g} between images (1 minus their mean cosine)",
            expected=f"more than {least:g}",
            hint="the last good state is kept: lower the learning rate, warm the teacher's temperature up for longer, "
            "or use centering='sinkhorn'",
        )


@dataclass(frozen=True, slots=True)
class Schedules:
    """The values of a recipe at each step.

    Args:
        recipe: The recipe.
        per_epoch: Steps of an epoch.
        images: Of a step, over all processes.
    """

    recipe: DinoRecipe
    per_epoch: int
    images: int

    def _steps(self, epochs: float) -> int:
        return round(epochs * self.per_epoch)

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self._steps(self.recipe.epochs)

    def rate(self, step: int, *, last_layer: bool = False) -> float:
        """Learning rate, before each group's factor."""
        peak = self.recipe.rate * math.sqrt(self.images / 1024)
        if last_layer and step < self._steps(self.recipe.freeze_last):
            return 0.0
        warm = min(self._steps(self.recipe.warm), self.steps // 2)
        return Cosine(peak, self.recipe.last_rate, self.steps, warm)(step)

    def decay(self, step: int) -> float:
        """Weight decay."""
        return Cosine(*self.recipe.decay, self.steps)(step)

    def momentum(self, step: int) -> float:
        """Share of the teacher that is kept."""
        return Cosine(*self.recipe.momentum, self.steps)(step)

    def temperature(self, step: int) -> float:
        """Of the teacher."""
        return Ramp(*self.recipe.teacher_temperature, self._steps(self.recipe.teacher_warm))(step)

    def backbone_frozen(self, step: int) -> bool:
        """Whether only the heads learn."""
        return step < self._steps(self.recipe.freeze_backbone)

    def apply(self, optimizer: Any, step: int) -> None:
        """Set rates and decays of :func:`parameter_groups`."""
        for group in optimizer.param_groups:
            rate = self.rate(step, last_layer=group["last_layer"]) * group["factor"]
            group["lr"] = 0.0 if group["backbone"] and self.backbone_frozen(step) else rate
            group["weight_decay"] = self.decay(step) * group["decays"]


def parameter_groups(student: Student, recipe: DinoRecipe) -> list[dict[str, Any]]:
    """Parameters by the factor of their rate and by whether they decay, for AdamW.

    Earlier blocks learn more slowly (``layer_decay`` from each to the one before), the patch embedding more slowly
    still; biases, norms, scales and single tokens do not decay.
    """
    depth = student.backbone.shape.depth
    groups: dict[tuple[float, float, bool, bool], list[torch.Tensor]] = {}
    for name, parameter in _learned(student):
        backbone = name.startswith("backbone.")
        factor = recipe.layer_decay ** (depth + 1 - _layer_of(name, depth)) if backbone else 1.0
        if ".patch_embed." in name:
            factor *= recipe.patch_rate
        plain = name.endswith((".bias", ".gamma")) or ".norm" in name or parameter.ndim == 1
        key = (factor, 0.0 if plain else 1.0, "last_layer" in name, backbone)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": some, "factor": factor, "decays": decays, "last_layer": last, "backbone": backbone}
        for (factor, decays, last, backbone), some in groups.items()
    ]


def _learned(student: Student) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, parameter) for name, parameter in student.named_parameters() if parameter.requires_grad)


def _layer_of(name: str, depth: int) -> int:
    part = name.removeprefix("backbone.")
    if part.startswith("blocks."):
        return int(part.split(".")[1]) + 1
    return depth + 1 if part.startswith("norm.") else 0
